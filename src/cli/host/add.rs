//! `kiwispray host add`

use clap::Args;

use super::super::Context;
use super::super::act::{Consent, report};
use super::super::client::Act;
use super::super::error::Result;
use super::super::words::{disk, harmless, split_queue};
use super::set::{Object, object};
use crate::wire::{AddHost, EditHost};

/// Makes a host known. It is recognised by what is given here, at its first boot.
#[derive(Debug, Args)]
#[group(id = "identity", args = ["serial", "uuid", "macs"], required = true, multiple = true)]
pub(crate) struct Add {
    /// Its serial number
    #[arg(long)]
    serial: Option<String>,
    /// Its DMI UUID
    #[arg(long)]
    uuid: Option<String>,
    /// A network card (repeat for several)
    #[arg(long = "mac", value_name = "MAC")]
    macs: Vec<String>,
    /// Its name
    #[arg(short = 'n', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Its first queue, such as wipe,image1 [default: new]
    #[arg(short, long = "state", value_name = "STATES")]
    states: Option<String>,
    /// Metadata, a JSON object
    #[arg(short, long, value_name = "JSON", value_parser = object)]
    meta: Option<Object>,
    #[command(flatten)]
    consent: Consent,
}

impl Add {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let client = context.client()?;
        let host = AddHost {
            hostname: self.hostname,
            serial: self.serial,
            uuid: self.uuid,
            macs: self.macs,
            states: self.states.as_deref().map(split_queue),
            metadata: self.meta.unwrap_or_default().0,
            dry_run: true,
        };
        // Undoing an addition depends on nothing that was asked for.
        let act = Act::Edit(EditHost::default());
        let preview = client.add(&host).await?;
        if self.consent.dry_run {
            return report(context, &act, &[preview], "would be changed");
        }
        if !preview.erases.is_empty() {
            let disks: Vec<String> =
                preview.erases.iter().map(|erasure| format!("{} (by {})", disk(erasure), erasure.state)).collect();
            let stake = format!("The first boot of this machine erases {}.", harmless(&disks.join(", then ")));
            context.screen.confirm(&stake, self.consent.yes)?;
        }
        let added = client.add(&AddHost { dry_run: false, ..host }).await?;
        report(context, &act, &[added], "changed")
    }
}
