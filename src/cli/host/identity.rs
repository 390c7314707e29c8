//! `kiwispray host identity` and `kiwispray host adopt`: who a host is.

use clap::Args;

use super::super::Context;
use super::super::act::{Consent, Question, Targets, act_on};
use super::super::client::Act;
use super::super::error::Result;
use super::one;
use crate::wire::{AdoptMachine, EditHost};

/// Changes what recognises a host. What another host has is refused, with its name.
#[derive(Debug, Args)]
#[group(id = "changes", args = ["add_macs", "drop_macs", "serial", "uuid", "drop_serial", "drop_uuid"], required = true, multiple = true)]
pub(crate) struct Identity {
    /// The host
    host: String,
    /// A network card that it has besides (repeat for several)
    #[arg(long = "add-mac", value_name = "MAC")]
    add_macs: Vec<String>,
    /// A network card that it has no longer (repeat for several)
    #[arg(long = "drop-mac", value_name = "MAC")]
    drop_macs: Vec<String>,
    /// Its serial number
    #[arg(long)]
    serial: Option<String>,
    /// Its DMI UUID
    #[arg(long)]
    uuid: Option<String>,
    /// It shows no serial number, or one that is not its own
    #[arg(long, conflicts_with = "serial")]
    drop_serial: bool,
    /// It shows no UUID, or one that is not its own
    #[arg(long, conflicts_with = "uuid")]
    drop_uuid: bool,
    /// Refuse unless the host has this serial number now
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// Gives a host the identity of another machine: states, metadata and history stay, and it boots as its queue says.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// The machine: the host that it became known as, which is then forgotten; or a MAC, serial number or UUID of one that is
    /// held, see `host conflicts`
    #[arg(value_name = "NEW")]
    machine: String,
    /// The host whose place it takes
    #[arg(long = "as", value_name = "OLD")]
    host: String,
    /// Refuse unless OLD has this serial number now
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

impl Identity {
    pub(crate) async fn run(self, context: &Context) -> Result {
        // An empty text takes away.
        let text = |value: Option<String>, drop: bool| if drop { Some(String::new()) } else { value };
        let edit = EditHost {
            serial: text(self.serial, self.drop_serial),
            uuid: text(self.uuid, self.drop_uuid),
            add_macs: self.add_macs,
            drop_macs: self.drop_macs,
            expect_serial: self.expect_serial,
            ..EditHost::default()
        };
        let host = one(&context.client()?, &self.host).await?;
        let targets = Targets::of(vec![host.id.to_string()], Vec::new());
        act_on(context, &targets, &Act::Edit(edit), self.consent, Question::Erasing).await
    }
}

impl Adopt {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let adopt = AdoptMachine { machine: self.machine, expect_serial: self.expect_serial, dry_run: false };
        let host = one(&context.client()?, &self.host).await?;
        let targets = Targets::of(vec![host.id.to_string()], Vec::new());
        act_on(context, &targets, &Act::Adopt(adopt), self.consent, Question::Always(ADOPTING)).await
    }
}

const ADOPTING: &str = "Another machine becomes this host, and is no host of its own any more:";
