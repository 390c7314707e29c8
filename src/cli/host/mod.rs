//! `kiwispray host …`

mod add;
mod conflicts;
mod events;
mod export;
mod forget;
mod identity;
mod import;
mod judge;
mod rehearse;
mod set;
mod show;
mod watch;

use clap::{Args, Subcommand};

use super::Context;
use super::act::{Consent, Question, Targets, act_on};
use super::client::{Act, Client, Selection};
use super::deploy::Deploy;
use super::error::{CliError, Result};
use crate::wire::{ActOnHost, HostView, LockHost};

/// What can be done about hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List hosts
    List(show::List),
    /// Show all that is known of hosts
    Show(show::Show),
    /// Make a host known before it boots
    Add(add::Add),
    /// Change queue, name or metadata of hosts
    Set(set::Set),
    /// The same as `kiwispray deploy`
    Deploy(Deploy),
    /// Declare the current step of hosts done
    Finish(Finish),
    /// Order the current step of hosts anew
    Retry(Retry),
    /// Lock hosts: they take no orders, and boot nothing that writes
    Lock(Lock),
    /// Take the lock off hosts
    Unlock(Unlock),
    /// Forget hosts: if they boot again, they are new, or boot their own disk if they were installed
    Forget(forget::Forget),
    /// Change what recognises a host
    Identity(identity::Identity),
    /// Say that a machine takes the place of a host: its mainboard was swapped, say
    Adopt(identity::Adopt),
    /// List machines that ask and are not recognised clearly, since the server started
    Conflicts(conflicts::Conflicts),
    /// Make hosts known, or change them, as a list says
    Import(import::Import),
    /// Write hosts as a list that `host import` reads
    Export(export::Export),
    /// Tell what a host, or all of them, would be answered now, and with another plugin
    Plan(judge::Plan),
    /// Tell how the newest boot of a host was judged, and why
    Explain(judge::Explain),
    /// Show what happened to a host, or follow it
    Events(events::Events),
    /// Follow what happens, with the progress of running installations
    Watch(watch::Watch),
}

/// Declares steps done.
#[derive(Debug, Args)]
pub(crate) struct Finish {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    consent: Consent,
    /// Give up transfers that are running
    #[arg(long)]
    abort: bool,
    /// Refuse unless the host has this serial number
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
}

/// Orders steps anew.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    consent: Consent,
    /// Give up attempts that are running
    #[arg(long)]
    abort: bool,
    /// Refuse unless the host has this serial number
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
}

/// Locks hosts: nobody orders anything for them or forgets them, and they boot nothing that writes a disk. What was handed out
/// before goes on; finished hosts boot their own disks.
#[derive(Debug, Args)]
pub(crate) struct Lock {
    #[command(flatten)]
    targets: Targets,
    /// Why, for those who see it on consoles and in lists
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: String,
    #[command(flatten)]
    consent: Consent,
    /// Refuse unless the host has this serial number
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
}

/// Takes locks off.
#[derive(Debug, Args)]
pub(crate) struct Unlock {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    consent: Consent,
    /// Refuse unless the host has this serial number
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
}

impl HostCommand {
    pub(crate) async fn run(self, context: &Context) -> Result {
        match self {
            Self::List(list) => list.run(context).await,
            Self::Show(show) => show.run(context).await,
            Self::Add(add) => add.run(context).await,
            Self::Set(set) => set.run(context).await,
            Self::Deploy(deploy) => deploy.run(context).await,
            Self::Finish(Finish { targets, consent, abort, expect_serial }) => {
                let act = Act::Finish(ActOnHost { abort, expect_serial, ..ActOnHost::default() });
                act_on(context, &targets, &act, consent, Question::Erasing).await
            }
            Self::Retry(Retry { targets, consent, abort, expect_serial }) => {
                let act = Act::Retry(ActOnHost { abort, expect_serial, ..ActOnHost::default() });
                act_on(context, &targets, &act, consent, Question::Erasing).await
            }
            Self::Lock(Lock { targets, why, consent, expect_serial }) => {
                let act = Act::Lock(LockHost { why, expect_serial, dry_run: false });
                act_on(context, &targets, &act, consent, Question::Erasing).await
            }
            Self::Unlock(Unlock { targets, consent, expect_serial }) => {
                let act = Act::Unlock(ActOnHost { expect_serial, ..ActOnHost::default() });
                act_on(context, &targets, &act, consent, Question::Erasing).await
            }
            Self::Forget(forget) => forget.run(context).await,
            Self::Identity(identity) => identity.run(context).await,
            Self::Adopt(adopt) => adopt.run(context).await,
            Self::Conflicts(conflicts) => conflicts.run(context).await,
            Self::Import(import) => import.run(context).await,
            Self::Export(export) => export.run(context).await,
            Self::Plan(plan) => plan.run(context).await,
            Self::Explain(explain) => explain.run(context).await,
            Self::Events(events) => events.run(context).await,
            Self::Watch(watch) => watch.run(context).await,
        }
    }
}

/// The one host that is meant.
async fn one(client: &Client, host: &str) -> Result<HostView> {
    let selection = Selection { hosts: vec![host.to_owned()], conditions: Vec::new() };
    let mut hosts = client.hosts(&selection).await?.into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(CliError::not_found(format!("there is no host {host}"))),
        (Some(_), Some(_)) => Err(CliError::usage(format!("{host} means several hosts: name one"))),
    }
}
