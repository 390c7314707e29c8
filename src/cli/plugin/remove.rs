//! `kiwispray plugin remove`.

use clap::Args;

use super::super::Context;
use super::super::client::with_query;
use super::super::error::{Exit, Result};
use super::super::words::harmless;
use crate::wire::PluginDetail;

/// Takes a plugin out.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The plugin
    name: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Also what it stored, and which events it was told: installed again, it begins anew
    #[arg(long)]
    purge: bool,
}

impl Remove {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let name = harmless(&self.name);
        let stake = match client.get::<PluginDetail>(&super::path(&self.name)).await {
            Ok(plugin) => format!(
                "The plugin {name} will be asked no more, and its binding ({}) will be gone.",
                harmless(plugin.file.as_deref().unwrap_or("none"))
            ),
            // What it stored may have been kept when it was removed.
            Err(error) if self.purge && error.exit == Exit::NotFound => format!("No plugin {name} is bound any more."),
            Err(error) => return Err(error),
        };
        let fate = if self.purge {
            "What it stored will be gone, too."
        } else {
            "What it stored stays, for when it is installed again; --purge removes it."
        };
        screen.confirm(&format!("{stake}\n{fate}"), self.yes)?;
        let purge = self.purge.then_some(("purge", "true"));
        client.delete(&with_query(&super::path(&self.name), purge)).await?;
        let undo = if self.purge { "What it stored does not come back" } else { "Undo: install it again" };
        screen.remark(&format!("{name}: removed. {undo}."));
        Ok(())
    }
}
