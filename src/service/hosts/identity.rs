//! What recognises a host is changed only beside the hosts that share something with it.
//!
//! Invariant: no change by hand makes two hosts answer to the same machine. Serial numbers may be shared, as recognition allows.

use crate::domain::{Candidate, Host, Identity, Recognition, recognise};
use crate::store::Candidates;

use super::super::Service;
use super::error::HostsError;

impl Service {
    /// Who shares something with a host whose identity changes; none when nothing is added to it. Refused if a machine that
    /// shows what is new might be another host.
    pub(super) async fn check_identity(&self, before: &Host, after: &Host) -> Result<Option<Candidates>, HostsError> {
        let (old, new) = (&before.identity, &after.identity);
        let added = Identity {
            serial: new.serial.clone().filter(|_| new.serial != old.serial),
            uuid: new.uuid.filter(|_| new.uuid != old.uuid),
            macs: new.macs.difference(&old.macs).copied().collect(),
        };
        if added.is_empty() {
            return Ok(None);
        }
        // Its own serial number and UUID speak too: twins share the one, and differ in the other.
        let shown = Identity { macs: added.macs, ..new.clone() };
        let found = self.store.candidates(&shown).await?;
        let others: Vec<Candidate> = found.judged().into_iter().filter(|other| other.id != before.id).collect();
        let (recognition, findings) = recognise(&shown, &others);
        let owners = match recognition {
            Recognition::New { .. } | Recognition::Nobody => return Ok(Some(found)),
            Recognition::Known(id) => vec![id],
            // What is left of forgotten hosts counts, too: the machine would be in doubt from then on.
            Recognition::Returned { was, .. } => was,
            Recognition::Doubt { candidates, forgotten, .. } => [candidates, forgotten].concat(),
        };
        let findings: Vec<String> =
            findings.iter().filter(|finding| owners.contains(&finding.id)).map(ToString::to_string).collect();
        Err(HostsError::IdentityTaken { host: before.label(), owners, findings: findings.join("; ") })
    }
}
