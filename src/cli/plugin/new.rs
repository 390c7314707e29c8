//! `kiwispray plugin new`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::Context;
use super::super::error::{CliError, Result};
use super::super::screen::Format;
use crate::config::PluginName;
use crate::workbench::{self, Lang};

/// Makes a plugin's folder.
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The plugin's name: lower case letters, digits and hyphens
    name: PluginName,
    /// What to write it in
    #[arg(long, value_name = "LANG", default_value = "rust")]
    lang: Lang,
    /// The folder to make [default: the name]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

impl New {
    pub(crate) fn run(self, context: &Context) -> Result {
        let folder = self.into.unwrap_or_else(|| PathBuf::from(self.name.as_str()));
        workbench::scaffold(&folder, &self.name, self.lang).map_err(|error| CliError::failed(error.to_string()))?;
        match context.screen.format {
            Format::Text => {
                context.screen.line(&format!(
                    "{}: a {} plugin that builds and passes its tests",
                    folder.display(),
                    self.lang
                ))?;
                context.screen.remark(&format!(
                    "next: cd {} && kiwispray plugin build && kiwispray plugin test",
                    folder.display()
                ));
                Ok(())
            }
            Format::Json => context.screen.json(&json!({"path": folder, "lang": self.lang.to_string()})),
        }
    }
}
