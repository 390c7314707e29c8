//! What is left of a host that was forgotten while its disk may have been installed.
//!
//! Invariant: it is evidence like that of a host, but nobody is ever served as a forgotten host: whoever shows its evidence, and
//! no other's, becomes a host that is finished, so that nothing installs it without a spoken `--reinstall`.

use jiff::Timestamp;

use super::safeguard::moment;
use super::{Host, HostId, Hostname, Identity, States};

/// A forgotten host that may have been installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Its number, which is not used again.
    pub id: HostId,
    /// What recognised it.
    pub identity: Identity,
    /// Its name, if it had one.
    pub hostname: Option<Hostname>,
    /// When it was forgotten.
    pub forgotten_at: Timestamp,
}

impl Tombstone {
    /// What a host leaves that is forgotten now: nothing if nothing was ever installed, as far as this server can
    /// know, or nothing could recognise it.
    pub fn of(host: &Host, now: Timestamp) -> Option<Self> {
        // One of a restored backup may have been installed after that was taken.
        let leaves = (host.may_be_installed() || host.quarantined) && !host.identity.is_empty();
        leaves.then(|| Self {
            id: host.id,
            identity: host.identity.clone(),
            hostname: host.hostname.clone(),
            forgotten_at: now,
        })
    }

    /// For people: `host 7 (node7), which was forgotten at 2026-11-22 10:00:00 UTC after it was installed`.
    pub fn described(&self) -> String {
        let name = self.hostname.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let at = moment(self.forgotten_at);
        format!("host {}{name}, which was forgotten at {at} and may be installed", self.id)
    }
}

/// The queue of a machine that comes back and for which this one was asked: its own disk. None: it asks for an order, which
/// such a machine takes only as a host, with `--reinstall`.
pub fn queue_of_returned(asked: &States) -> Option<States> {
    (asked.is_new() || asked.is_finished()).then(States::finished)
}
