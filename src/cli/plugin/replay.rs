//! `kiwispray plugin replay`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::Context;
use super::super::error::{CliError, Result};
use super::super::screen::Format;
use crate::workbench::{self, Replay};

/// Runs a recorded call again.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The recorded call, as `kiwispray plugin record` writes it
    recording: PathBuf,
    /// The plugin's folder, or its component
    #[arg(value_name = "DIR|FILE.wasm", default_value = ".")]
    plugin: PathBuf,
}

impl ReplayArgs {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let replayed = workbench::replay(&self.recording, &self.plugin).await;
        let replay = replayed.map_err(|error| CliError::failed(error.to_string()))?;
        if !replay.is_same_component {
            context.screen.remark("note: this is another component than the one that was recorded");
        }
        match context.screen.format {
            Format::Text => context.screen.line(&told(&replay))?,
            Format::Json => context.screen.json(&json!({
                "plugin": replay.plugin,
                "hook": replay.hook,
                "same_component": replay.is_same_component,
                "differences": replay.differences,
                "notes": replay.notes,
            }))?,
        }
        if replay.differences.is_empty() { Ok(()) } else { Err(CliError::failed("it is not what was recorded")) }
    }
}

fn told(replay: &Replay) -> String {
    let Replay { plugin, hook, questions, differences, notes, .. } = replay;
    if differences.is_empty() {
        return format!("{plugin} {hook}: the same answer to the same {questions} questions");
    }
    let mut text = format!("{plugin} {hook}: not what was recorded");
    for difference in differences {
        text.push_str(&format!("\n        {difference}"));
    }
    for note in notes {
        text.push_str(&format!("\n        note: {note}"));
    }
    text
}
