//! `kiwispray plugin …`: the author's workbench, which needs no server, and what operators do with a running one.

mod binding;
mod build;
mod check;
mod inside;
mod install;
mod logs;
mod new;
mod operate;
mod record;
mod remove;
mod replay;
mod show;
mod test;

use std::path::PathBuf;

use clap::Subcommand;

use super::Context;
use super::client::segment;
use super::error::Result;

pub(crate) use binding::{BindingArgs, Wanted};

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
    /// Record the next calls of a plugin on a running server
    Record(record::Record),
    /// Run a recorded call again, with the answers that it got and without a server
    Replay(replay::ReplayArgs),
    /// List the plugins of the server
    List,
    /// Show all that is known of a plugin
    Show {
        /// The plugin
        name: String,
    },
    /// Show what a plugin wrote: the newest 500 lines since the server started
    Logs(logs::Logs),
    /// Install a plugin, or another component of one: shows what it may do, and asks
    Install(install::Install),
    /// Take an installed plugin out
    Remove(remove::Remove),
    /// Read bindings and components again, all of them or one plugin's; machines do not notice
    Reload(operate::Reload),
    /// Run the component that ran before the present one
    Rollback {
        /// The plugin
        name: String,
    },
    /// Switch a plugin off: it is not asked, also after a restart
    Disable {
        /// The plugin
        name: String,
    },
    /// Switch a plugin on again
    Enable {
        /// The plugin
        name: String,
    },
    /// Let a plugin order again that stopped as it wanted too many orders in one run
    Approve(operate::Approve),
    /// List events that a plugin could not be told of, tell it again, or drop them
    DeadLetters(inside::DeadLetters),
    /// Run a plugin's job now
    Run(inside::RunArgs),
    /// Show what a plugin stores
    Kv(inside::Kv),
}

impl PluginCommand {
    pub(crate) async fn run(self, context: &Context) -> Result {
        match self {
            Self::New(new) => new.run(context),
            Self::Build(build) => build.run(context),
            Self::Check(check) => check.run(context).await,
            Self::Test(test) => test.run(context).await,
            Self::Record(record) => record.run(context).await,
            Self::Replay(replay) => replay.run(context).await,
            Self::List => show::list(context).await,
            Self::Show { name } => show::show(context, &name).await,
            Self::Logs(logs) => logs.run(context).await,
            Self::Install(install) => install.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
            Self::Reload(reload) => reload.run(context).await,
            Self::Rollback { name } => operate::rollback(context, &name).await,
            Self::Disable { name } => operate::disable(context, &name).await,
            Self::Enable { name } => operate::enable(context, &name).await,
            Self::Approve(approve) => approve.run(context).await,
            Self::DeadLetters(letters) => letters.run(context).await,
            Self::Run(run) => run.run(context).await,
            Self::Kv(kv) => kv.run(context).await,
        }
    }
}

/// A plugin's path on the admin plane.
fn path(name: &str) -> String {
    format!("/api/v1/plugins/{}", segment(name))
}

/// The folder of a plugin, where `plugin.toml` stands.
#[derive(Debug, clap::Args)]
pub(crate) struct Folder {
    /// The plugin's folder
    #[arg(value_name = "DIR", default_value = ".")]
    path: PathBuf,
}
