//! A machine takes the place of a host: a mainboard was swapped, or what it shows is not enough to be told for certain.
//!
//! Invariant: only who is recognised as the host changes, in one commit. Its queue, metadata and history stay, so the machine boots
//! what the host would have booted; and whatever was installed as another host is never forgotten on the way.

use crate::domain::{Candidate, Host, HostId, Identity, Recognition, adopt, forget_for_good, recognise};
use crate::hooks::Run;
use crate::service::held::{Doubt, HeldMachine};
use crate::store::{Candidates, StoreError};

use super::super::{CONFLICT_RETRIES, Service, announce};
use super::{Acted, HostsError, Terms};

/// Who takes the place of a host.
enum Newcomer {
    /// One that became known as a host of its own.
    Host(Box<Host>),
    /// One that is held.
    Held(Box<HeldMachine>),
}

impl Newcomer {
    fn identity(&self) -> &Identity {
        match self {
            Self::Host(host) => &host.identity,
            Self::Held(held) => &held.facts.identity,
        }
    }

    const fn host(&self) -> Option<&Host> {
        match self {
            Self::Host(host) => Some(host),
            Self::Held(_) => None,
        }
    }
}

impl Service {
    /// Machines that are not recognised clearly, the newest request first.
    pub fn held_machines(&self) -> Vec<HeldMachine> {
        self.held.all()
    }

    /// Gives a host the identity of the machine that `new` names: another host, which is forgotten, or one that is held.
    pub async fn adopt(&self, new: &str, old: HostId, terms: &Terms) -> Result<Acted, HostsError> {
        for _ in 0..CONFLICT_RETRIES {
            let before = self.store.host(old).await?.ok_or(HostsError::Gone(old))?;
            self.check_terms(&before, terms).await?;
            let newcomer = self.newcomer(new, &before).await?;
            let from = newcomer.host().map_or_else(|| format!("the held machine {new}"), Host::label);
            let (actor, now) = (terms.actor.clone(), self.clock.now());
            let identity = newcomer.identity().clone();
            let Some(change) = adopt(&before, newcomer.host(), identity, &from, actor.clone(), now)? else {
                let after = Some(before.clone());
                return Ok(Acted {
                    before: Some(before),
                    after,
                    changed: false,
                    erases: Vec::new(),
                    events: Vec::new(),
                });
            };
            let candidates = self.check_adoption(&before, &newcomer).await?;
            let (erases, events) = (self.erased_by(&change.host), change.events.clone());
            let written = match (terms.run, newcomer.host()) {
                (Run::Dry, _) => Ok(change.host),
                (Run::Real, None) => self.commit_beside(&before, change, Some(&candidates)).await,
                (Run::Real, Some(newcomer)) => {
                    let farewell = forget_for_good(newcomer, actor, now);
                    let last = farewell.events.clone();
                    let written = self.store.adopt(&before, change, newcomer, farewell, &candidates).await;
                    if let Ok(host) = &written {
                        self.finished.forget(newcomer.id);
                        self.finished.keep(host);
                        announce(host, &events);
                        announce(newcomer, &last);
                    }
                    written
                }
            };
            match written {
                Ok(after) => {
                    if terms.run == Run::Real {
                        self.held.adopted(&after.identity);
                    }
                    return Ok(Acted { before: Some(before), after: Some(after), changed: true, erases, events });
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Whom a text names: a host, or a machine that is held and shows it.
    async fn newcomer(&self, text: &str, old: &Host) -> Result<Newcomer, HostsError> {
        let host = match self.find_one(text).await {
            Ok(host) => Some(host),
            Err(HostsError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut held = self.held.showing(text);
        held.retain(|held| match held.doubt {
            Doubt::Weak(_) | Doubt::Conflict(_) => true,
            Doubt::SharedSerial { .. } | Doubt::Nobody => false,
        });
        // What the host itself shows is shown by the machine that may be this host.
        let other = host.as_ref().filter(|host| host.id != old.id);
        match (other, held.as_slice()) {
            (Some(host), []) => Ok(Newcomer::Host(Box::new(host.clone()))),
            (None, [only]) => Ok(Newcomer::Held(Box::new(only.clone()))),
            (None, []) if host.is_some() => Err(crate::domain::AdoptRefused::Itself(old.label()).into()),
            (None, []) => Err(HostsError::NotHeld(text.to_owned())),
            (other, several) => {
                let hosts = other.into_iter().map(|host| format!("host {}", host.id));
                let machines = several.iter().map(|held| format!("the machine that asked from {}", held.from));
                let candidates = hosts.chain(machines).collect();
                Err(HostsError::Ambiguous { selector: text.to_owned(), candidates })
            }
        }
    }

    /// Refused if a third host might be this machine.
    async fn check_adoption(&self, old: &Host, newcomer: &Newcomer) -> Result<Candidates, HostsError> {
        let identity = newcomer.identity();
        let found = self.store.candidates(identity).await?;
        let is_third = |host: &&Host| host.id != old.id && newcomer.host().is_none_or(|new| new.id != host.id);
        let third: Vec<Candidate> = found.hosts.iter().filter(is_third).map(Into::into).collect();
        let (recognition, findings) = recognise(identity, &third);
        let owners = match recognition {
            // Forgotten hosts are not asked about: an operator says what this machine is.
            Recognition::New { .. } | Recognition::Returned { .. } | Recognition::Nobody => return Ok(found),
            Recognition::Known(id) => vec![id],
            Recognition::Doubt { candidates, .. } => candidates,
        };
        let findings: Vec<String> =
            findings.iter().filter(|finding| owners.contains(&finding.id)).map(ToString::to_string).collect();
        Err(HostsError::IdentityTaken { host: old.label(), owners, findings: findings.join("; ") })
    }
}
