//! Finished hosts as last seen, for the hour when the store does not answer: production must boot its own disks then.
//!
//! This memory can only ever lead to a local disk, never to an installer, so it may be stale.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::{Candidate, Host, HostId, Identity, Recognition, recognise};

/// Finished hosts that were loaded or committed since the server started.
#[derive(Debug, Default)]
pub(super) struct FinishedHosts {
    hosts: Mutex<HashMap<HostId, Candidate>>,
}

impl FinishedHosts {
    /// About 300 bytes each.
    const MOST: usize = 200_000;

    /// Remembers a host that is finished, and forgets one that is not.
    pub(super) fn keep(&self, host: &Host) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !host.states.is_finished() {
            hosts.remove(&host.id);
        } else if hosts.len() < Self::MOST && hosts.get(&host.id).is_none_or(|known| known.identity != host.identity) {
            hosts.insert(host.id, Candidate::from(host));
        }
    }

    /// Takes out a host that is no longer known.
    pub(super) fn forget(&self, id: HostId) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// A finished host that may be asking. Doubt among finished hosts means local disk, so one of them is enough.
    pub(super) fn recognise(&self, asking: &Identity) -> Option<HostId> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let shares_something = |known: &&Candidate| {
            let known = &known.identity;
            (known.serial.is_some() && known.serial == asking.serial)
                || (known.uuid.is_some() && known.uuid == asking.uuid)
                || !known.macs.is_disjoint(&asking.macs)
        };
        let candidates: Vec<Candidate> = hosts.values().filter(shares_something).cloned().collect();
        match recognise(asking, &candidates).0 {
            Recognition::Known(id) => Some(id),
            Recognition::Doubt { candidates, .. } => candidates.first().copied(),
            // Those that were forgotten are kept here like the others.
            Recognition::New { .. } | Recognition::Returned { .. } | Recognition::Nobody => None,
        }
    }
}
