//! `kiwispray plugin build`.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::super::Context;
use super::super::error::{CliError, Result};
use super::super::screen::Format;
use super::super::table::facts;
use super::super::words::size;
use super::Folder;
use crate::workbench::{self, Inspected};

/// Builds a plugin.
#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    folder: Folder,
}

impl Build {
    pub(crate) fn run(self, context: &Context) -> Result {
        let built = workbench::build(&self.folder.path).map_err(|error| CliError::failed(error.to_string()))?;
        match context.screen.format {
            Format::Text => context.screen.line(&facts_of(&built.path, &built.component)),
            Format::Json => context.screen.json(&json!({
                "path": built.path,
                "bytes": built.component.bytes,
                "digest": built.component.digest,
                "hooks": built.component.hooks,
                "imports": built.component.imports.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            })),
        }
    }
}

/// What a component is, in lines.
pub(super) fn facts_of(path: &Path, component: &Inspected) -> String {
    let imports = component.imports.iter().map(|(name, functions)| format!("{name} ({})", functions.join(", ")));
    facts(&[
        ("component", path.display().to_string()),
        ("size", size(component.bytes as u64)),
        ("digest", component.digest.clone()),
        ("hooks", listed(component.hooks.iter().cloned())),
        ("imports", listed(imports.chain(component.foreign.iter().cloned()))),
    ])
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
