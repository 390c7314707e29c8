//! `kiwispray plugin remove`.

use clap::Args;

use super::super::Context;
use super::super::error::Result;
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
}

impl Remove {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let plugin: PluginDetail = client.get(&super::path(&self.name)).await?;
        let name = harmless(&plugin.name);
        let stake = format!(
            "The plugin {name} will be asked no more, and its binding ({}) will be gone.",
            harmless(plugin.file.as_deref().unwrap_or("none"))
        );
        screen.confirm(&stake, self.yes)?;
        client.delete(&super::path(&self.name)).await?;
        screen.remark(&format!("{name}: removed. Undo: install it again."));
        Ok(())
    }
}
