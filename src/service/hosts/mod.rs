//! What people do to hosts.
//!
//! Invariant: every act names the host's revision that it was decided on, if its author looked at one, and changes
//! nothing otherwise; a trial runs the very code of the act and stops before the commit. Orders are refused for states
//! that nothing can boot.

mod adopt;
mod error;
mod identity;
mod import;
mod preview;
mod select;
mod sentence;
mod take;
#[cfg(test)]
mod tests;

pub use error::HostsError;
pub use import::{Imported, Outcome as ImportOutcome, Problem as ImportProblem, Row};
pub use preview::Preview;
pub use select::{Condition, ConditionError, Selection, Selector, SelectorError};
pub use sentence::sentence;
pub use take::{Newcomer, Taken};

use jiff::Timestamp;

use crate::domain::{
    Activity, Actor, Ask, Change, Edit, Event, EventKind, Evidence, HoldReason, Host, HostId, Identity, NextBoot,
    Recognition, Registration, Serial, Stage, StateName, States, Tombstone, check_unlocked, edit, finish_by_operator,
    forget, forget_for_good, lock, next_boot, queue_of_returned, recognise, register, release, retry, set_states,
    take_back, unlock,
};
use crate::hooks::Run;
use crate::images::Catalogue;
use crate::render::Renderer;
use crate::store::StoreError;

use super::images::looking;
use super::plan::INSTALL_DEVICE;
use super::transition::is_order;
use super::{CONFLICT_RETRIES, Service};

/// What is done to a host.
#[derive(Debug, Clone)]
pub enum Act {
    /// Name, metadata and queue change together, or none of them.
    Set {
        /// Name and metadata.
        edit: Edit,
        /// The new queue.
        states: Option<States>,
        /// Whether a finished host may be installed again.
        reinstall: bool,
        /// Whether a running attempt may be given up.
        abort: bool,
    },
    /// The current step is declared done.
    Finish {
        /// Whether a transfer that runs may be given up.
        abort: bool,
    },
    /// The current step is ordered anew.
    Retry {
        /// Whether a running attempt may be given up.
        abort: bool,
    },
    /// A host that came from a backup boots again.
    Release,
    /// A host takes no orders and boots nothing that writes.
    Lock {
        /// Why, in the words of who locks it; may be empty.
        why: String,
    },
    /// The lock is taken off.
    Unlock,
    /// The host is no longer known.
    Forget {
        /// Whether a running attempt may be given up.
        abort: bool,
        /// Whether its machine is new if it comes back, although it may be installed.
        for_good: bool,
    },
}

/// Who acts, and on what understanding.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who.
    pub actor: Actor,
    /// The revision that was looked at.
    pub revision: Option<u64>,
    /// The serial number that the host must have.
    pub serial: Option<Serial>,
    /// Whether anything comes of it.
    pub run: Run,
}

/// What an act changed, or would have.
#[derive(Debug, Clone)]
pub struct Acted {
    /// The host before; none when it was made known.
    pub before: Option<Host>,
    /// The host afterwards; none when it was forgotten.
    pub after: Option<Host>,
    /// Whether they differ.
    pub changed: bool,
    /// Disks that die when the machine works through its new queue.
    pub erases: Vec<Erased>,
    /// What happened.
    pub events: Vec<Event>,
}

/// A disk that loses its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// The state that writes it.
    pub state: StateName,
    /// Which disk, as the image or the host's metadata word it; none for templates, which do not say.
    pub disk: Option<String>,
}

impl Service {
    /// Does something to a host.
    pub async fn act(&self, id: HostId, act: &Act, terms: &Terms) -> Result<Acted, HostsError> {
        if let Act::Set { states: Some(states), .. } = act {
            self.check_states(states)?;
        }
        if let Act::Set { edit: Edit { hostname: Some(Some(name)), .. }, .. } = act {
            self.check_name(Some(id), name).await?;
        }
        self.act_unchecked(id, act, terms).await
    }

    /// The same when somebody has seen to it that the states can be booted, and that the name is free.
    async fn act_unchecked(&self, id: HostId, act: &Act, terms: &Terms) -> Result<Acted, HostsError> {
        for _ in 0..CONFLICT_RETRIES {
            let host = self.store.host(id).await?.ok_or(HostsError::Gone(id))?;
            self.check_terms(&host, terms).await?;
            let changed = change(&host, act, &terms.actor, self.clock.now())?;
            let Some(change) = changed else {
                return Ok(Acted {
                    before: Some(host.clone()),
                    after: Some(host),
                    changed: false,
                    erases: Vec::new(),
                    events: Vec::new(),
                });
            };
            let change = self.act_as_allowed(&host, act, change, terms).await?;
            let erases = self.erases(&host, &change.host, act);
            let is_buried = change.tombstone.is_some();
            let candidates = self.check_identity(&host, &change.host).await?;
            let events = change.events.clone();
            let committed = match (terms.run, act) {
                (Run::Dry, Act::Forget { .. }) => Ok(None),
                (Run::Dry, _) => Ok(Some(change.host)),
                (Run::Real, Act::Forget { .. }) => self.store.forget(&host, change).await.map(|()| None),
                (
                    Run::Real,
                    Act::Set { .. }
                    | Act::Finish { .. }
                    | Act::Retry { .. }
                    | Act::Release
                    | Act::Lock { .. }
                    | Act::Unlock,
                ) => self.commit_beside(&host, change, candidates.as_ref()).await.map(Some),
            };
            match committed {
                Ok(after) => {
                    let is_over = after.as_ref().is_none_or(|after| after.step != host.step);
                    if let Some(boot) = host.boot.as_ref().filter(|_| terms.run == Run::Real && is_over) {
                        self.progress.forget(&boot.bootid);
                    }
                    // One that may come back boots its own disk even if the store does not answer.
                    if after.is_none() && terms.run == Run::Real && !is_buried {
                        self.finished.forget(id);
                    }
                    return Ok(Acted { before: Some(host), after, changed: true, erases, events });
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Makes a host known before it boots.
    pub async fn add(&self, registration: Registration, actor: Actor, run: Run) -> Result<Acted, HostsError> {
        if registration.identity.is_empty() {
            return Err(HostsError::NoIdentity);
        }
        if registration.identity.macs.len() > Identity::MOST_MACS {
            return Err(HostsError::TooManyMacs);
        }
        self.check_states(&registration.states)?;
        if let Some(name) = &registration.hostname {
            self.check_name(None, name).await?;
        }
        self.add_unchecked(registration, actor, run).await
    }

    /// The same when somebody has seen to it that the states can be booted, and that the name is free.
    async fn add_unchecked(&self, registration: Registration, actor: Actor, run: Run) -> Result<Acted, HostsError> {
        for _ in 0..CONFLICT_RETRIES {
            let found = self.store.candidates(&registration.identity).await?;
            let (mut was, mut is_sure) = (Vec::new(), false);
            match recognise(&registration.identity, &found.judged()).0 {
                Recognition::New { .. } => {}
                Recognition::Returned { was: ids, evidence } => {
                    was = found.forgotten(&ids);
                    // Who types a serial number or UUID says which machine it is; a card may have been moved.
                    let names = |was: &&Tombstone| {
                        let (typed, known) = (&registration.identity, &was.identity);
                        (typed.serial.is_some() && typed.serial == known.serial)
                            || (typed.uuid.is_some() && typed.uuid == known.uuid)
                    };
                    is_sure = evidence == Evidence::Strong
                        || (evidence == Evidence::Weak && was.first().copied().is_some_and(|was| names(&was)));
                    check_returned(&registration.states, &was)?;
                }
                Recognition::Known(id) => return Err(HostsError::KnownAs(vec![id])),
                Recognition::Doubt { candidates, .. } => return Err(HostsError::KnownAs(candidates)),
                Recognition::Nobody => return Err(HostsError::NoIdentity),
            }
            let now = self.clock.now();
            let build = |id| match was.as_slice() {
                [] => register(id, registration.clone(), actor.clone(), now),
                was => take_back(id, registration.clone(), was, false, actor.clone(), now),
            };
            // In doubt the machine that is meant may still come.
            let gone = was.first().copied().filter(|_| is_sure);
            let trial = build(HostId::new(0));
            let events = trial.events;
            let host = match run {
                Run::Dry => Ok(trial.host),
                Run::Real => self.store.register_back(&found, gone, build).await,
            };
            match host {
                Ok(host) => {
                    if let Some(gone) = gone.filter(|_| run == Run::Real) {
                        self.finished.forget(gone.id);
                    }
                    let erases = self.erased_by(&host);
                    return Ok(Acted { before: None, after: Some(host), changed: true, erases, events });
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// What is left of forgotten hosts that may be installed, in the order of their numbers.
    pub async fn tombstones(&self, after: Option<HostId>, limit: u32) -> Result<Vec<Tombstone>, HostsError> {
        Ok(self.store.tombstones(after, limit).await?)
    }

    /// Forgets a forgotten host for good: its machine is new if it comes back.
    pub async fn forget_tombstone(&self, id: HostId, by: &Actor) -> Result<Tombstone, HostsError> {
        let tombstone = self.store.remove_tombstone(id).await?.ok_or(HostsError::Gone(id))?;
        self.finished.forget(id);
        tracing::warn!(host = %id, ?by, "a forgotten host was forgotten for good: its machine is new if it comes back");
        Ok(tombstone)
    }

    /// The timeline of a host from an event on, oldest first.
    pub async fn timeline(&self, id: HostId, from_seq: u64, limit: u32) -> Result<Vec<Event>, HostsError> {
        Ok(self.store.events(id, from_seq, limit).await?)
    }

    /// Why a machine was told to wait for a person; none while it was not, or not since the last order.
    pub fn held_for(&self, host: &Host) -> Option<HoldReason> {
        if host.quarantined && !host.states.current().is_built_in() {
            return Some(HoldReason::Quarantined(host.id));
        }
        // Its boots that were handed out before go on.
        if let Some(lock) = host.lock.as_ref().filter(|_| !host.is_attempt_open())
            && looking(|| is_order(&self.catalogue, &self.renderer, host.states.current()))
        {
            return Some(HoldReason::Locked(host.id, lock.clone()));
        }
        let boot = host.current_boot()?;
        if !boot.held && !matches!(boot.stage, Stage::Failed { .. }) {
            return None;
        }
        let (now, most_attempts) = (self.clock.now(), self.settings().most_attempts);
        match next_boot(host, &Ask { from: boot.from, now, activity: Activity::Quiet, most_attempts }) {
            NextBoot::Hold(reason) => Some(reason),
            NextBoot::Advance => Some(not_advanced(host)),
            NextBoot::LocalDisk | NextBoot::Wait | NextBoot::Offer => None,
        }
    }

    /// Refuses to act on another host, or version of it, than its author meant.
    async fn check_terms(&self, host: &Host, terms: &Terms) -> Result<(), HostsError> {
        if let Some(expected) = terms.revision.filter(|expected| *expected != host.revision) {
            let by = self.last_editor(host).await?;
            return Err(HostsError::Revised { host: host.label(), by, expected, found: host.revision });
        }
        if let Some(expected) = &terms.serial
            && host.identity.serial.as_ref() != Some(expected)
        {
            let found = host.identity.serial.clone();
            return Err(HostsError::OtherSerial { host: host.label(), expected: expected.clone(), found });
        }
        Ok(())
    }

    /// Who caused the newest change that people see, as a sentence names them.
    async fn last_editor(&self, host: &Host) -> Result<String, StoreError> {
        let from_seq = host.event_count.saturating_sub(RECENT_EVENTS);
        let recent = self.store.events(host.id, from_seq.max(1), u32::MAX).await?;
        let newest = recent.iter().rev().find(|event| !is_passing(&event.kind));
        Ok(newest.map_or_else(
            || "somebody".to_owned(),
            |event| match &event.actor {
                Actor::Machine => "the machine itself".to_owned(),
                Actor::Server => "the server".to_owned(),
                Actor::Operator(name) => name.clone(),
                Actor::Plugin(name) => format!("the plugin {name}"),
            },
        ))
    }

    fn check_states(&self, states: &States) -> Result<(), HostsError> {
        looking(|| check_states(&self.catalogue, &self.renderer, states))
    }

    fn erases(&self, before: &Host, after: &Host, act: &Act) -> Vec<Erased> {
        match act {
            Act::Finish { .. } | Act::Forget { .. } | Act::Lock { .. } => Vec::new(),
            Act::Retry { .. } | Act::Release | Act::Unlock => self.erased_by(after),
            Act::Set { .. } => {
                let same_disk = before.metadata.get(INSTALL_DEVICE) == after.metadata.get(INSTALL_DEVICE);
                if before.step == after.step && same_disk { Vec::new() } else { self.erased_by(after) }
            }
        }
    }

    /// What dies when a host works through its queue.
    fn erased_by(&self, host: &Host) -> Vec<Erased> {
        let erased = |state: &StateName| {
            if state.is_built_in() {
                return None;
            }
            if let Ok(image) = self.catalogue.image(state) {
                let named = host.metadata.get(INSTALL_DEVICE).and_then(|value| value.as_str()).map(str::to_owned);
                let disk = named.or_else(|| image.manifest.device.as_ref().map(ToString::to_string));
                return image.manifest.writes.is_order().then(|| Erased { state: state.clone(), disk });
            }
            is_order(&self.catalogue, &self.renderer, state).then(|| Erased { state: state.clone(), disk: None })
        };
        looking(|| host.states.iter().filter_map(erased).collect())
    }
}

/// Refuses to make a machine known with an order that may be installed already.
pub(super) fn check_returned(states: &States, was: &[&Tombstone]) -> Result<(), HostsError> {
    let names = || was.iter().map(|tombstone| tombstone.described()).collect::<Vec<_>>().join(", or ");
    queue_of_returned(states).map(drop).ok_or_else(|| HostsError::MayBeInstalled(names()))
}

/// Events among which the author of a change is looked for.
const RECENT_EVENTS: u64 = 50;

/// Whether an event leaves the revision of its host as it is.
const fn is_passing(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::BootOffered { .. }
            | EventKind::AttemptStarted { .. }
            | EventKind::PayloadDelivered { .. }
            | EventKind::Held { .. }
            | EventKind::CallRefused { .. }
            | EventKind::OrderRefused { .. }
            | EventKind::MacTaken { .. }
            | EventKind::Doubted { .. }
            | EventKind::ForeignBoot { .. }
    )
}

/// Refuses a queue with a state that nothing can boot: the machine would only hold.
pub(super) fn check_states(catalogue: &Catalogue, renderer: &Renderer, states: &States) -> Result<(), HostsError> {
    for state in states.iter().filter(|state| !state.is_built_in()) {
        if catalogue.has_folder(state) {
            catalogue.image(state)?;
        } else if !renderer.has_template(None, &format!("{state}.ipxe")) {
            let names = catalogue.list().unwrap_or_default().into_iter().map(|(name, _)| name);
            let suggestion = error::nearest(state.as_str(), names);
            return Err(HostsError::NothingToBoot { state: state.clone(), suggestion });
        }
    }
    Ok(())
}

/// Why a host whose step is done holds.
pub(super) fn not_advanced(host: &Host) -> HoldReason {
    let why = match host.current_boot().map(|boot| &boot.stage) {
        Some(Stage::Done { why }) => why.clone(),
        Some(Stage::Offered | Stage::Started | Stage::Delivered | Stage::Failed { .. }) | None => String::new(),
    };
    HoldReason::NotAdvanced(host.id, why)
}

/// What an act makes of a host; none when nothing.
pub(super) fn change(host: &Host, act: &Act, actor: &Actor, now: Timestamp) -> Result<Option<Change>, HostsError> {
    match act {
        Act::Set { edit: wanted, states, reinstall, abort } => {
            let edited = edit(host, wanted, actor.clone(), now)?;
            // The same queue again is no order; ordering the same anew is what `retry` is for.
            let Some(states) = states.as_ref().filter(|states| **states != host.states) else { return Ok(edited) };
            let (host, mut events) = edited.map_or_else(|| (host.clone(), Vec::new()), |edit| (edit.host, edit.events));
            let ordered = set_states(&host, states.clone(), *reinstall, *abort, actor.clone(), now)?;
            events.extend(ordered.events);
            Ok(Some(Change { events, ..ordered }))
        }
        // Its files are gone with its step: a machine that still fetches them would be left with half a disk.
        Act::Finish { abort } if host.is_transferring() && !abort => Err(HostsError::BeingInstalled(host.label())),
        Act::Finish { .. } => Ok(finish_by_operator(host, actor.clone(), now)),
        Act::Retry { abort } => Ok(Some(retry(host, *abort, actor.clone(), now)?)),
        Act::Release => Ok(release(host, actor.clone(), now)),
        Act::Lock { why } => Ok(lock(host, why, actor.clone(), now)),
        Act::Unlock => Ok(unlock(host, actor.clone(), now)),
        Act::Forget { abort, .. } if host.is_attempt_open() && !abort => Err(HostsError::BeingInstalled(host.label())),
        Act::Forget { for_good, .. } => {
            check_unlocked(host)?;
            let forgetting = if *for_good { forget_for_good } else { forget };
            Ok(Some(forgetting(host, actor.clone(), now)))
        }
    }
}
