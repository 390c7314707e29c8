//! `kiwispray freeze` and `thaw`: whether images that write disks are booted at all.

use clap::Args;

use super::Context;
use super::client::Client;
use super::error::Result;
use super::screen::Format;
use super::words::{harmless, shell, since};
use crate::wire::{FreezeFleet, FreezeView, SafeguardView};

const PATH: &str = "/api/v1/freeze";

/// Boots no image that writes a disk, until it is thawed. Hosts that would boot one wait; finished hosts boot their own disks, and
/// what was handed out before goes on.
#[derive(Debug, Args)]
pub(crate) struct Freeze {
    /// Why, for those who see it on consoles and in lists
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: String,
}

/// Takes a freeze back: hosts that wait boot what they were ordered, within seconds.
#[derive(Debug, Args)]
pub(crate) struct Thaw {}

impl Freeze {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let made: FreezeView = context.client()?.put_document(PATH, &FreezeFleet { why: self.why }).await?;
        match context.screen.format {
            Format::Json => context.screen.json(&made),
            Format::Text => context.screen.line(&frozen(&made)),
        }
    }
}

impl Thaw {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let made: FreezeView = context.client()?.delete_for(PATH).await?;
        match context.screen.format {
            Format::Json => context.screen.json(&made),
            Format::Text => context.screen.line(&thawed(&made)),
        }
    }
}

/// The freeze, if there is one, as a sentence for whoever looks at hosts.
pub(crate) async fn banner(client: &Client) -> Result<Option<String>> {
    let present: FreezeView = client.get(PATH).await?;
    let told =
        |freeze| format!("frozen {} - no image that writes a disk is booted until: kiwispray thaw", told(freeze));
    Ok(present.frozen.as_ref().map(told))
}

fn frozen(made: &FreezeView) -> String {
    let Some(now) = &made.frozen else { return "not frozen".to_owned() };
    let before =
        made.before.as_ref().map_or_else(|| "not frozen".to_owned(), |before| format!("frozen {}", told(before)));
    format!("fleet\n  {before} -> frozen {}\n  undo: {}", told(now), undo(made.before.as_ref()))
}

fn thawed(made: &FreezeView) -> String {
    match &made.before {
        Some(before) => format!("fleet\n  frozen {} -> not frozen\n  undo: {}", told(before), undo(Some(before))),
        None => "fleet: already so, nothing changed".to_owned(),
    }
}

fn undo(before: Option<&SafeguardView>) -> String {
    match before {
        None => "kiwispray thaw".to_owned(),
        Some(before) if before.why.is_empty() => "kiwispray freeze".to_owned(),
        Some(before) => format!("kiwispray freeze --why {}", harmless(&shell(&before.why))),
    }
}

fn told(safeguard: &SafeguardView) -> String {
    harmless(&since(safeguard))
}

#[cfg(test)]
mod tests {
    use super::super::samples::time;
    use super::*;

    #[test]
    fn a_freeze_and_a_thaw_tell_before_after_and_undo() {
        let made =
            |why: &str| SafeguardView { by: "operator ada".into(), at: time("2026-11-22T10:00:00Z"), why: why.into() };
        let fresh = FreezeView { frozen: Some(made("moving to hall 2")), before: None };
        let again = FreezeView { before: fresh.frozen.clone(), frozen: Some(made("")) };
        let over = FreezeView { before: fresh.frozen.clone(), frozen: None };
        let texts = [frozen(&fresh), frozen(&again), thawed(&over), thawed(&FreezeView::default())];
        insta::assert_snapshot!(texts.join("\n"), @r"
        fleet
          not frozen -> frozen by operator ada since 2026-11-22 10:00:00 UTC: moving to hall 2
          undo: kiwispray thaw
        fleet
          frozen by operator ada since 2026-11-22 10:00:00 UTC: moving to hall 2 -> frozen by operator ada since 2026-11-22 10:00:00 UTC
          undo: kiwispray freeze --why 'moving to hall 2'
        fleet
          frozen by operator ada since 2026-11-22 10:00:00 UTC: moving to hall 2 -> not frozen
          undo: kiwispray freeze --why 'moving to hall 2'
        fleet: already so, nothing changed
        ");
    }
}
