//! `kiwispray plugin …`: the author's workbench, which needs no server.

mod build;
mod check;
mod new;
mod test;

use std::path::PathBuf;

use clap::Subcommand;

use super::Context;
use super::error::Result;

/// What can be done with plugins.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Make the folder of a new plugin: it builds and passes its tests as it stands
    New(new::New),
    /// Build a plugin: compile its folder and make a component of it
    Build(build::Build),
    /// Check a plugin: imports against grants, whether it loads, configuration against schema
    Check(check::Check),
    /// Run a plugin's written cases, on the real plugin host and without a server
    Test(test::Test),
}

impl PluginCommand {
    pub(crate) async fn run(self, context: &Context) -> Result {
        match self {
            Self::New(new) => new.run(context),
            Self::Build(build) => build.run(context),
            Self::Check(check) => check.run(context).await,
            Self::Test(test) => test.run(context).await,
        }
    }
}

/// The folder of a plugin, where `plugin.toml` stands.
#[derive(Debug, clap::Args)]
pub(crate) struct Folder {
    /// The plugin's folder
    #[arg(value_name = "DIR", default_value = ".")]
    path: PathBuf,
}
