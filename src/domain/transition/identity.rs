//! What recognises a host, changed by hand, or moved from one host to another.
//!
//! Invariant: nothing here touches the queue, a step or a boot. Whoever gets another identity boots as its queue says; and
//! no host is left that nothing recognises.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Change, Draft, check_unlocked};
use crate::domain::{Actor, DmiUuid, EventKind, Host, Identity, LockedHost, MacAddr, Serial};

/// Changes by hand to what recognises a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityEdit {
    /// A serial number to set, or `Some(None)` to take it away.
    pub serial: Option<Option<Serial>>,
    /// A UUID to set, or `Some(None)` to take it away.
    pub uuid: Option<Option<DmiUuid>>,
    /// Cards that it has besides.
    pub add_macs: BTreeSet<MacAddr>,
    /// Cards that it has no longer.
    pub drop_macs: BTreeSet<MacAddr>,
}

/// Why an identity stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityRefused {
    /// Nothing would recognise the host any more.
    #[error("nothing would recognise {0} any more: leave it a serial number, a UUID or a MAC, or forget it")]
    NothingLeft(String),
    /// More cards than a machine has.
    #[error("{most} network cards at most", most = Identity::MOST_MACS)]
    TooManyMacs,
    /// A card to be dropped that the host does not have.
    #[error("{host} has no card {mac}")]
    NoSuchMac {
        /// The host.
        host: String,
        /// The card.
        mac: MacAddr,
    },
}

/// Why one host does not get the identity of another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptRefused {
    /// A host cannot be given what it has.
    #[error("{0} cannot be adopted as itself")]
    Itself(String),
    /// One of them is in the middle of a boot.
    #[error("{0} is being installed right now: wait for its end, or give it up with `host set --abort`")]
    AttemptRunning(String),
    /// What was installed on the new machine would be forgotten.
    #[error("{0} has been installed itself: `host forget` it first if its disk is worth nothing")]
    Installed(String),
    /// Somebody locked one of them.
    #[error(transparent)]
    Locked(#[from] LockedHost),
    /// It came from a backup and nobody said yet that it is right.
    #[error("{0} came from a backup and is quarantined: `kiwispray release` it first")]
    Quarantined(String),
}

impl IdentityEdit {
    /// Whether it changes nothing, whatever the host is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The identity afterwards.
    pub fn applied(&self, identity: &Identity) -> Identity {
        let mut macs = identity.macs.clone();
        macs.retain(|mac| !self.drop_macs.contains(mac));
        macs.extend(&self.add_macs);
        Identity {
            serial: self.serial.clone().unwrap_or_else(|| identity.serial.clone()),
            uuid: self.uuid.unwrap_or(identity.uuid),
            macs,
        }
    }
}

/// Puts the edit into a draft; its event says every part.
pub(super) fn edit_identity(draft: &mut Draft, edit: &IdentityEdit) -> Result<(), IdentityRefused> {
    let host = &draft.host;
    if let Some(mac) = edit.drop_macs.iter().find(|mac| !host.identity.macs.contains(mac)) {
        return Err(IdentityRefused::NoSuchMac { host: host.label(), mac: *mac });
    }
    let identity = edit.applied(&host.identity);
    if identity.macs.len() > Identity::MOST_MACS {
        return Err(IdentityRefused::TooManyMacs);
    }
    if identity.is_empty() {
        return Err(IdentityRefused::NothingLeft(host.label()));
    }
    replace_identity(draft, identity, "");
    Ok(())
}

/// Gives a host the identity of another machine, which takes its place; `from` says in words which. The other one, if it is
/// a host, is forgotten in the same commit.
pub fn adopt(
    old: &Host,
    newcomer: Option<&Host>,
    identity: Identity,
    from: &str,
    actor: Actor,
    now: Timestamp,
) -> Result<Option<Change>, AdoptRefused> {
    for host in newcomer.into_iter().chain([old]) {
        if host.is_attempt_open() {
            return Err(AdoptRefused::AttemptRunning(host.label()));
        }
        check_unlocked(host)?;
        if host.quarantined {
            return Err(AdoptRefused::Quarantined(host.label()));
        }
    }
    if let Some(newcomer) = newcomer {
        if newcomer.id == old.id {
            return Err(AdoptRefused::Itself(old.label()));
        }
        if newcomer.may_be_installed() {
            return Err(AdoptRefused::Installed(newcomer.label()));
        }
    }
    let mut draft = Draft::of(old, actor, now);
    replace_identity(&mut draft, identity, &format!("adopted from {from}: "));
    if draft.events.is_empty() {
        return Ok(None);
    }
    if let Some(newcomer) = newcomer {
        draft.host.hardware = newcomer.hardware.clone();
    }
    // A machine asked with this identity: what it does not show is not merely unknown.
    draft.host.seen = true;
    draft.revise();
    Ok(Some(draft.done()))
}

fn replace_identity(draft: &mut Draft, identity: Identity, how: &str) {
    let parts = differences(&draft.host.identity, &identity);
    if parts.is_empty() {
        return;
    }
    draft.host.identity = identity;
    draft.event(EventKind::IdentitySet { change: format!("{how}{}", parts.join(", ")) });
}

/// What changes, one part each; none when nothing does. Another spelling of the same is no change.
fn differences(before: &Identity, after: &Identity) -> Vec<String> {
    let mut parts = Vec::new();
    if before.serial != after.serial {
        parts.push(format!("serial {} -> {}", or_none(before.serial.as_ref()), or_none(after.serial.as_ref())));
    }
    if before.uuid != after.uuid {
        parts.push(format!("uuid {} -> {}", or_none(before.uuid.as_ref()), or_none(after.uuid.as_ref())));
    }
    parts.extend(after.macs.difference(&before.macs).map(|mac| format!("card {mac} added")));
    parts.extend(before.macs.difference(&after.macs).map(|mac| format!("card {mac} dropped")));
    parts
}

fn or_none(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}
