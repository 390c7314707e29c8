//! Events as sentences, for timelines and logs. The wording may change; programs read [`EventKind`]'s fields.

use crate::domain::{EventKind, Hostname};

/// What happened, in a few words.
pub fn sentence(kind: &EventKind) -> String {
    let name = |name: &Option<Hostname>| name.as_ref().map_or("none", Hostname::as_str).to_owned();
    match kind {
        EventKind::Registered { states, why } => format!("became known as {states}: {why}"),
        EventKind::IdentityLearned { macs, dmi, hardware } => learned(macs.len(), *dmi, *hardware),
        EventKind::BootOffered { state, writes, from } => {
            let effect = if writes.is_order() { ", which writes a disk" } else { "" };
            format!("was offered {state}{effect}, at {from}")
        }
        EventKind::AttemptStarted { number, file } => format!("attempt {number} began with {file}"),
        EventKind::PayloadDelivered { file } => format!("{file} was served whole"),
        EventKind::Finished { from, to } => format!("finished: {from} -> {to}"),
        EventKind::DetourEnded { image, state } => format!("{image} is done, which was booted before {state}"),
        EventKind::StepDone { state, why } => format!("{state} is done, and waits: {why}"),
        EventKind::Failed { reason } => format!("failed: {reason}"),
        EventKind::Held { why } => format!("holds: {why}"),
        EventKind::CallRefused { call, why } => format!("/{call} was refused: {why}"),
        EventKind::StatesSet { from, to, reinstall, abort, order } => {
            let again = if *reinstall { ", to be installed again" } else { "" };
            let gave_up = if *abort { ", giving up a running attempt" } else { "" };
            let name = order.as_ref().map(|name| format!(", as order {name}")).unwrap_or_default();
            format!("states: {from} -> {to}{again}{gave_up}{name}")
        }
        EventKind::OrderMet { states, order } => format!("has the states {states} already, as {order} wants them"),
        EventKind::Retried { state } => format!("{state} was ordered anew"),
        EventKind::HostnameSet { from, to } => format!("name: {} -> {}", name(from), name(to)),
        EventKind::MetadataSet { keys } => format!("metadata changed: {}", keys.join(", ")),
        EventKind::IdentitySet { change } => format!("identity: {change}"),
        EventKind::MacTaken { mac, owner } => format!("showed card {mac}, which belongs to host {owner}"),
        EventKind::Doubted { why, from } => format!("could not be told for certain, at {from}: {why}"),
        EventKind::ForeignBoot { from } => format!("was asked for from {from} while it boots elsewhere"),
        EventKind::Quarantined { why } => format!("boots only its own disk until it is released: {why}"),
        EventKind::Released {} => "was released from quarantine".to_owned(),
        EventKind::Locked { why } if why.is_empty() => "was locked".to_owned(),
        EventKind::Locked { why } => format!("was locked: {why}"),
        EventKind::Unlocked {} => "was unlocked".to_owned(),
        EventKind::OrderRefused { states, why } => format!("an order for {states} was refused: {why}"),
        EventKind::Returned { was: _, why } => format!("came back, and boots its own disk: {why}"),
        EventKind::Forgotten { tombstone: true } => {
            "was forgotten; if its machine comes back, it boots its own disk".to_owned()
        }
        EventKind::Forgotten { tombstone: false } => "was forgotten".to_owned(),
    }
}

fn learned(cards: usize, dmi: bool, hardware: bool) -> String {
    let mut parts = Vec::new();
    if cards > 0 {
        parts.push(format!("{cards} more network {}", if cards == 1 { "card" } else { "cards" }));
    }
    if dmi {
        parts.push("its serial number or UUID".to_owned());
    }
    if hardware {
        parts.push("a description of its hardware".to_owned());
    }
    if parts.is_empty() { "booted for the first time".to_owned() } else { format!("showed {}", parts.join(", ")) }
}
