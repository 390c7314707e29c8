//! `kiwispray host forget`, and what is left of hosts that were forgotten.

use clap::Args;

use super::super::Context;
use super::super::act::{Consent, Question, Targets, act_on};
use super::super::client::{Act, Client};
use super::super::error::{Exit, Result};
use super::super::screen::{Format, Look, Paint};
use super::super::table::{cell, optional, table};
use super::super::words::{ago, harmless};
use crate::wire::{ActOnHost, ForgottenView};

/// Forgets hosts. The machine of one that may be installed boots its own disk if it comes back, and is known as finished from
/// then on; any other is new.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    consent: Consent,
    /// Give up attempts that are running
    #[arg(long)]
    abort: bool,
    /// Let the machine be new if it comes back, although it may be installed; also for the numbers of forgotten hosts
    #[arg(long)]
    for_good: bool,
    /// Refuse unless the host has this serial number
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
}

const FORGETTING: &str =
    "These hosts will be gone. The machine of one that was installed boots its own disk if it comes back:";
const FOR_GOOD: &str = "These hosts will be gone. If such a machine comes back, it is new, whatever is on its disk:";

impl Forget {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let Self { targets, consent, abort, for_good, expect_serial } = self;
        targets.refuse_all()?;
        let question = Question::Always(if for_good { FOR_GOOD } else { FORGETTING });
        let act = Act::Forget(ActOnHost { abort, for_good, expect_serial, ..ActOnHost::default() });
        match act_on(context, &targets, &act, consent, question).await {
            Err(error) if for_good && error.exit == Exit::NotFound => {
                let client = context.client()?;
                match numbers(&client, &targets).await? {
                    Some(left) => bury(context, &client, &left, consent).await,
                    None => Err(error),
                }
            }
            done => done,
        }
    }
}

/// What is left of the hosts that are named, if all of them are numbers of forgotten ones.
async fn numbers(client: &Client, targets: &Targets) -> Result<Option<Vec<ForgottenView>>> {
    let named: Vec<u64> = targets.selection().hosts.iter().filter_map(|host| host.parse().ok()).collect();
    if named.is_empty() || named.len() != targets.selection().hosts.len() {
        return Ok(None);
    }
    let left: Vec<ForgottenView> =
        client.forgotten().await?.into_iter().filter(|forgotten| named.contains(&forgotten.id)).collect();
    Ok((left.len() == named.len()).then_some(left))
}

async fn bury(context: &Context, client: &Client, left: &[ForgottenView], consent: Consent) -> Result {
    let screen = &context.screen;
    let names =
        left.iter().map(|forgotten| format!("  {}", harmless(&label(forgotten)))).collect::<Vec<_>>().join("\n");
    if consent.dry_run {
        return screen.line(&format!("would be forgotten for good:\n{names}"));
    }
    screen.confirm(&format!("{FOR_GOOD}\n{names}"), consent.yes)?;
    let mut gone = Vec::new();
    for forgotten in left {
        gone.push(client.forget_for_good(forgotten.id).await?);
    }
    match screen.format {
        Format::Json => screen.json(&gone),
        Format::Text => gone.iter().try_for_each(|forgotten| {
            let told = "forgotten after it was installed -> forgotten for good\n  undo: none; make it known by `kiwispray host add`";
            screen.line(&format!("{}\n  {told}", harmless(&label(forgotten))))
        }),
    }
}

fn label(forgotten: &ForgottenView) -> String {
    let name = forgotten.hostname.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let serial = forgotten.serial.as_deref().unwrap_or("unknown");
    format!("host {}{name}, serial {serial}", forgotten.id)
}

/// What is left of forgotten hosts, one a line.
pub(super) async fn list(context: &Context) -> Result {
    let (client, screen) = (context.client()?, &context.screen);
    let left = client.forgotten().await?;
    match screen.format {
        Format::Json => screen.json(&left),
        Format::Text if left.is_empty() => {
            screen.remark("No host was forgotten that may be installed.");
            Ok(())
        }
        Format::Text => screen.line(&listed(&left, screen.look())),
    }
}

fn listed(left: &[ForgottenView], look: Look) -> String {
    let mut table = table(["ID", "NAME", "SERIAL", "MAC", "FORGOTTEN"]);
    for forgotten in left {
        table.add_row([
            cell(&forgotten.id.to_string(), Paint::Plain, look),
            optional(forgotten.hostname.as_deref(), look),
            optional(forgotten.serial.as_deref(), look),
            optional(forgotten.macs.first().map(String::as_str), look),
            cell(&ago(forgotten.forgotten_at, look.now), Paint::Plain, look),
        ]);
    }
    table.rendered()
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::time;
    use super::*;

    #[test]
    fn what_is_left_of_forgotten_hosts_is_a_table() {
        let left = [ForgottenView {
            id: 7,
            hostname: Some("node7".into()),
            serial: Some("SN0007".into()),
            uuid: None,
            macs: vec!["52:54:00:00:00:07".into()],
            forgotten_at: time("2026-11-20T10:00:00Z"),
        }];
        let look = Look { color: false, now: time("2026-11-22T10:05:00Z") };
        insta::assert_snapshot!(listed(&left, look), @r"
        ID  NAME   SERIAL  MAC                FORGOTTEN
        7   node7  SN0007  52:54:00:00:00:07  2 d ago
        ");
    }
}
