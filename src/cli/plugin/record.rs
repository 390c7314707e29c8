//! `kiwispray plugin record`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::super::Context;
use super::super::error::{CliError, Result};
use super::super::screen::Format;
use crate::wire::RecordCalls;

/// How often the server is asked whether a call came.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Records the next calls of a plugin on a running server.
#[derive(Debug, Args)]
pub(crate) struct Record {
    /// The plugin
    name: String,
    /// How many calls to wait for, at most 20
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    calls: u32,
    /// How long to wait for them, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u32,
    /// Where to write them
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
}

impl Record {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let path = format!("{}/recordings", super::path(&self.name));
        let _: Vec<Value> = client.post(&path, &RecordCalls { calls: self.calls }).await?;
        screen.remark(&format!("waiting for {} to be asked; Ctrl-C ends", self.name));
        let mut recorded: Vec<Value> = Vec::new();
        for _ in 0..(u128::from(self.wait) * 1_000).div_ceil(ASK_EVERY.as_millis()) {
            recorded = client.get(&path).await?;
            if recorded.len() >= self.calls as usize {
                break;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        if recorded.is_empty() {
            return Err(CliError::failed(format!("{} was not asked within {} s", self.name, self.wait)));
        }
        if screen.format == Format::Json {
            return screen.json(&recorded);
        }
        fs::create_dir_all(&self.into).map_err(|error| self.cannot_write(&error))?;
        for (recording, number) in recorded.iter().zip(1..) {
            let hook = recording.get("hook").and_then(Value::as_str).unwrap_or("call");
            let file = self.into.join(format!("{}-{hook}-{number}.json", self.name));
            let text = serde_json::to_string_pretty(recording).map_err(|error| CliError::failed(error.to_string()))?;
            // It holds what the plugin was told of hosts, and what others answered it.
            let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file);
            written.and_then(|mut to| to.write_all(text.as_bytes())).map_err(|error| self.cannot_write(&error))?;
            screen.line(&file.display().to_string())?;
        }
        screen.remark("a recording holds data of hosts, and bodies of http: look at it before you hand it on");
        Ok(())
    }

    fn cannot_write(&self, error: &std::io::Error) -> CliError {
        CliError::failed(format!("{}: {error}", self.into.display()))
    }
}
