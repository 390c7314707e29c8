//! `kiwispray plugin check`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::Context;
use super::super::error::{CliError, Result};
use super::super::screen::Format;
use super::build::facts_of;
use crate::workbench::{self, Checked};

/// Checks a plugin.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The plugin's folder, or a component
    #[arg(value_name = "DIR|FILE.wasm", default_value = ".")]
    path: PathBuf,
}

impl Check {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let checked = if self.path.is_file() {
            workbench::check_file(&self.path).await
        } else {
            workbench::check(&self.path).await
        };
        let checked = checked.map_err(|error| CliError::failed(error.to_string()))?;
        let Checked { path, component, problems, remarks } = &checked;
        match context.screen.format {
            Format::Text => {
                context.screen.line(&facts_of(path, component))?;
                remarks.iter().for_each(|remark| context.screen.remark(&format!("note: {remark}")));
                for problem in problems {
                    context.screen.line(&format!("wrong: {problem}"))?;
                }
            }
            Format::Json => context.screen.json(&json!({
                "digest": component.digest,
                "hooks": component.hooks,
                "problems": problems,
                "remarks": remarks,
            }))?,
        }
        match problems.len() {
            0 => {
                context.screen.remark("a server would take it");
                Ok(())
            }
            1 => Err(CliError::failed("there is 1 problem")),
            many => Err(CliError::failed(format!("there are {many} problems"))),
        }
    }
}
