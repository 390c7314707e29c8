//! What a restored backup does to hosts: its records may be older than what is on the disks.

use jiff::Timestamp;

use super::{Change, Draft};
use crate::domain::{Actor, Boot, BootId, EventKind, Host, PastOutcome};

/// Makes a host that came from a backup hold until it is released. A finished host boots its disk all the same, and takes no
/// orders: one that was carried out after the backup was taken is forgotten, and its name would be good again.
///
/// The calls of its newest boot may come from a machine that went on after the backup was taken, or be recorded ones, so the
/// boot gets the secret `unknown`, which was never told to anybody: late calls are answered as those of a superseded boot.
/// How far the boot came stays, so that a payload that was served whole is not served again by a mere release.
pub fn quarantine(host: &Host, unknown: BootId, why: &str, now: Timestamp) -> Change {
    let mut draft = Draft::of(host, Actor::Server, now);
    draft.host.quarantined = true;
    if let Some(boot) = &host.boot {
        draft.retire_boot(PastOutcome::Superseded);
        draft.host.boot = Some(Boot { bootid: unknown, held: true, ..boot.clone() });
    }
    draft.event(EventKind::Quarantined { why: why.to_owned() });
    draft.done()
}

/// Lets a quarantined host boot what its queue says. None for one that is not quarantined.
pub fn release(host: &Host, actor: Actor, now: Timestamp) -> Option<Change> {
    if !host.quarantined {
        return None;
    }
    let mut draft = Draft::of(host, actor, now);
    draft.host.quarantined = false;
    draft.revise();
    draft.event(EventKind::Released {});
    Some(draft.done())
}
