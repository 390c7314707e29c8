//! Hosts that another server knew come in under the numbers that they had there.
//!
//! Invariant: hosts that come together are all taken or none of them is; a host that is here already stays as it is, so
//! that the same hosts may be sent again.

use futures_util::future::join_all;

use crate::domain::{Actor, Evidence, Host, HostId, Match, Recognition, Registration, recognise, take_back, take_over};
use crate::hooks::Run;
use crate::store::StoreError;

use super::super::{CONFLICT_RETRIES, Service};
use super::{HostsError, check_returned};

/// A host on its way in.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// The number that it keeps.
    pub id: HostId,
    /// Who it is, and its queue.
    pub registration: Registration,
    /// Whether a machine ever booted as this host.
    pub seen: bool,
}

/// What became of a host, or would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is known from now on.
    New,
    /// It was here already, and stays as it is.
    There,
    /// The same, and nobody brought it: its machine became known by itself, so that what is different was never looked at.
    ThereByItself,
    /// It cannot come in, for this reason; then none of the others did.
    Refused(String),
}

/// Hosts that are looked at, or written, at a time: as many as share a commit of the disk well.
const AT_A_TIME: usize = 64;

impl Service {
    /// Takes hosts over: all of them, or none if one is refused. States that nothing boots yet are taken as they are;
    /// such hosts hold until there is an image.
    pub async fn take(
        &self,
        newcomers: &[Newcomer],
        actor: &Actor,
        run: Run,
    ) -> Result<Vec<(HostId, Taken)>, HostsError> {
        let mut judged = Vec::with_capacity(newcomers.len());
        for some in newcomers.chunks(AT_A_TIME) {
            let taken = join_all(some.iter().map(|newcomer| self.judge(newcomer))).await;
            for (newcomer, taken) in some.iter().zip(taken) {
                judged.push((newcomer.id, taken?));
            }
        }
        let is_refused = judged.iter().any(|(_, taken)| matches!(taken, Taken::Refused(_)));
        if is_refused || run == Run::Dry {
            return Ok(judged);
        }
        let new: Vec<&Newcomer> =
            newcomers.iter().zip(&judged).filter(|(_, (_, taken))| *taken == Taken::New).map(|(new, _)| new).collect();
        let mut written = Vec::with_capacity(new.len());
        for some in new.chunks(AT_A_TIME) {
            written.extend(join_all(some.iter().map(|newcomer| self.take_one(newcomer, actor))).await);
        }
        for (newcomer, mut outcome) in new.iter().zip(written) {
            for _ in 0..CONFLICT_RETRIES {
                // Neighbours that share a serial number disturb each other; one after the other they do not.
                if matches!(outcome, Err(StoreError::Conflict)) {
                    outcome = self.take_one(newcomer, actor).await;
                }
            }
            self.finished.keep(&outcome?);
        }
        tracing::info!(hosts = new.len(), "hosts were taken over from another server");
        Ok(judged)
    }

    async fn judge(&self, newcomer: &Newcomer) -> Result<Taken, StoreError> {
        let Newcomer { id, registration, .. } = newcomer;
        let identity = &registration.identity;
        if identity.is_empty() {
            return Ok(Taken::Refused(HostsError::NoIdentity.to_string()));
        }
        if let Some(host) = self.store.host(*id).await? {
            return Ok(if is_same(newcomer, &host) {
                if says_more(registration, &host) && self.became_known_by_itself(*id).await? {
                    Taken::ThereByItself
                } else {
                    Taken::There
                }
            } else {
                let serial = host.identity.serial.as_ref().map_or_else(String::new, |s| format!(" (serial {s})"));
                Taken::Refused(format!("its number belongs to another machine here{serial}: start with an empty store"))
            });
        }
        if !self.store.events(*id, 1, 1).await?.is_empty() {
            return Ok(Taken::Refused("its number belonged to a host that was forgotten here".to_owned()));
        }
        let found = self.store.candidates(identity).await?;
        Ok(match recognise(identity, &found.judged()).0 {
            Recognition::Returned { was, .. } => match check_returned(&registration.states, &found.forgotten(&was)) {
                Ok(()) => Taken::New,
                Err(refused) => Taken::Refused(refused.to_string()),
            },
            Recognition::Known(other) => Taken::Refused(format!(
                "this machine is host {other} here: `kiwispray host forget {other}` gives its old number back to it"
            )),
            Recognition::New { .. } | Recognition::Doubt { .. } | Recognition::Nobody => Taken::New,
        })
    }

    async fn became_known_by_itself(&self, id: HostId) -> Result<bool, StoreError> {
        Ok(self
            .store
            .events(id, 1, 1)
            .await?
            .first()
            .is_some_and(|event| event.seq == 1 && event.actor == Actor::Machine))
    }

    async fn take_one(&self, newcomer: &Newcomer, actor: &Actor) -> Result<Host, StoreError> {
        let Newcomer { id, registration, seen } = newcomer;
        let found = self.store.candidates(&registration.identity).await?;
        let now = self.clock.now();
        let (was, evidence) = match recognise(&registration.identity, &found.judged()).0 {
            Recognition::Returned { was, evidence } => (found.forgotten(&was), evidence),
            Recognition::Known(_) | Recognition::New { .. } | Recognition::Doubt { .. } | Recognition::Nobody => {
                (Vec::new(), Evidence::None)
            }
        };
        let build = |id| match was.as_slice() {
            [] => take_over(id, registration.clone(), *seen, actor.clone(), now),
            was => take_back(id, registration.clone(), was, *seen, actor.clone(), now),
        };
        // In doubt the machine that is meant may still come.
        let gone = was.first().copied().filter(|_| evidence == Evidence::Strong);
        self.store.register_at(*id, &found, gone, build).await
    }
}

/// Whether something of the host that comes is not so here.
fn says_more(registration: &Registration, host: &Host) -> bool {
    let Registration { hostname, states, metadata, .. } = registration;
    (hostname.is_some() && *hostname != host.hostname)
        || *states != host.states
        || (!metadata.is_empty() && *metadata != host.metadata)
}

/// Whether a host that has the number is the one that comes: it shares something, and nothing contradicts.
fn is_same(newcomer: &Newcomer, host: &Host) -> bool {
    let (_, findings) = recognise(&newcomer.registration.identity, &[host.into()]);
    findings.iter().all(|finding| {
        let agrees = finding.serial != Match::Differs && finding.uuid != Match::Differs;
        let shares = finding.serial == Match::Same || finding.uuid == Match::Same || !finding.macs.is_empty();
        agrees && shares
    })
}
