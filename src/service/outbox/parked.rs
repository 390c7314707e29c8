//! Hosts whose events could not be told: tried again with growing pauses, each alone, while other hosts go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::dispatcher::{BATCH_BYTES, BATCH_EVENTS, Dispatcher, Fate, LOOKS_AGAIN, Step, Trouble};
use super::tell::{self, TOLD_NONE};
use crate::domain::{Event, HostId};
use crate::hooks::{self, Binding, Hook, HookError, Hooks};
use crate::service::pauses::words;
use crate::store::{EventAt, Parked, Revision, TimelinePart};

/// A time further away than this was written by a clock that went wrong.
const FURTHEST: Duration = Duration::from_secs(2 * 3_600);

/// Parked hosts, and those that were until a moment ago.
pub(super) struct Parking {
    hosts: BTreeMap<HostId, Parked>,
    /// Hosts whose events before this one are told one by one, as telling them together failed.
    singly: BTreeMap<HostId, u64>,
    /// Hosts that were told more, from their timelines, than has come by live: up to which event, and its commit.
    overtaken: BTreeMap<HostId, (u64, Revision)>,
    /// Who comes next if both have something to be told.
    pub(super) turn: Turn,
}

/// New events and parked hosts take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    New,
    Parked,
}

impl Parking {
    pub(super) fn new(hosts: Vec<(HostId, Parked)>) -> Self {
        Self {
            hosts: hosts.into_iter().collect(),
            singly: BTreeMap::new(),
            overtaken: BTreeMap::new(),
            turn: Turn::New,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    pub(super) fn park(&mut self, host: HostId, parked: Parked) {
        self.hosts.insert(host, parked);
    }

    pub(super) fn is_parked(&self, host: HostId) -> bool {
        self.hosts.contains_key(&host)
    }

    /// Whether an event that comes by was told already, or is told from the timeline.
    pub(super) fn has_in_hand(&self, event: &Event) -> bool {
        self.hosts.contains_key(&event.host)
            || self.overtaken.get(&event.host).is_some_and(|(seq, _)| event.seq <= *seq)
    }

    /// What was told early has come by, now that all commits up to this one have.
    pub(super) fn forget_overtaken(&mut self, passed: Revision) {
        self.overtaken.retain(|_, (_, revision)| *revision > passed);
    }

    /// The host that is due for longest, or was asked for.
    pub(super) fn due(&mut self, now: Timestamp, asked_for: &BTreeSet<HostId>) -> Option<HostId> {
        for host in asked_for {
            if let Some(parked) = self.hosts.get_mut(host) {
                parked.next_at = Timestamp::MIN;
            }
        }
        let first = self.hosts.iter().min_by_key(|(_, parked)| parked.next_at);
        first.filter(|(_, parked)| pause(parked, now).is_zero()).map(|(host, _)| *host)
    }

    /// In how long the next one is due.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        self.hosts.values().map(|parked| pause(parked, now)).min()
    }
}

fn pause(parked: &Parked, now: Timestamp) -> Duration {
    let pause = Duration::try_from(parked.next_at.duration_since(now)).unwrap_or_default();
    if pause > FURTHEST { Duration::ZERO } else { pause }
}

impl Dispatcher {
    /// Tells the plugin of a parked host's next events: after a failure of the first one alone, so that no other suffers
    /// for it.
    pub(super) async fn retry_parked(
        &mut self,
        hooks: &Hooks,
        binding: &Binding,
        host: HostId,
    ) -> Result<Step, Trouble> {
        let Some(mut parked) = self.parking.hosts.get(&host).cloned() else { return Ok(Step::Again) };
        let page = self.service.store.events_at(host, parked.from_seq, BATCH_EVENTS as u32).await?;
        if self.note_loss(host, &mut parked, &page) {
            // Whatever becomes of the others, what is lost is counted once.
            self.parking.park(host, parked.clone());
        }
        let alone = parked.attempts > 0 || self.parking.singly.get(&host).is_some_and(|until| parked.from_seq < *until);
        let (batch, told, passed) = self.batch_of(binding, &page.events, alone).await?;
        let Some(head) = told.first().filter(|_| !batch.is_empty()) else {
            return self.advance(host, parked, &page, passed).await;
        };
        // A breaker is about the plugin, and here it is known that the host may be the cause: so what fails while the
        // breaker is closed does not open it. While it is open, this may be the call that tries.
        let is_open = binding.breakers.states(Instant::now()).iter().any(|(hook, _)| *hook == Hook::Events);
        let admission = match binding.breakers.admit(Hook::Events, Instant::now()) {
            Ok(admission) => admission,
            Err(open) => return Ok(Step::Pause(LOOKS_AGAIN, words(&open))),
        };
        let attempts = parked.attempts.saturating_add(1);
        let Some(result) = self.call(hooks, binding, &batch, attempts).await else { return Ok(Step::Again) };
        if is_open || matches!(result, Ok(_) | Err(HookError::Fatal(_))) {
            tell::record(binding, admission, result.as_ref());
        }
        let error = match result {
            Ok(done) if done > 0 => {
                self.went_well();
                let next = if done == batch.len() { passed } else { told.get(done).map_or(passed, |event| event.seq) };
                return self.advance(host, parked, &page, next).await;
            }
            Ok(_) => HookError::Failed(TOLD_NONE.to_owned()),
            Err(error) => error,
        };
        let (now, why) = (self.service.clock.now(), words(&error));
        if let Some(last) = told.last().filter(|_| batch.len() > 1) {
            // Told one by one, only the one at fault suffers.
            self.parking.singly.insert(host, last.seq.saturating_add(1));
        }
        match self.fate(&error, head, (attempts, parked.faults), now) {
            Fate::Waits => return Ok(Step::Pause(LOOKS_AGAIN, why)),
            Fate::Dead if batch.len() == 1 && self.has_room_for_letters() => {
                let next =
                    Parked { from_seq: head.seq.saturating_add(1), attempts: 0, faults: 0, next_at: now, ..parked };
                self.bury(head, why, attempts, Some(&next)).await?;
                self.parking.park(host, next);
                return Ok(Step::Again);
            }
            Fate::Dead if batch.len() == 1 => {
                parked.next_at = self.in_longest_pause(now);
                parked.faults = parked.faults.saturating_add(1);
            }
            Fate::Parked { counts: true, .. } if batch.len() > 1 => parked.next_at = now,
            Fate::Dead => parked.next_at = now,
            Fate::Parked { until, counts } => {
                parked.next_at = until;
                parked.faults = parked.faults.saturating_add(u32::from(counts));
            }
        }
        parked = Parked { from_seq: head.seq, attempts, error: why, ..parked };
        self.service.store.park(&self.plugin, host, &parked).await?;
        self.parking.park(host, parked);
        Ok(Step::Again)
    }

    /// The events of a page that the plugin wants, as it is shown them; and the number after the last one that is done
    /// once they are told.
    async fn batch_of(
        &mut self,
        binding: &Binding,
        page: &[EventAt],
        alone: bool,
    ) -> Result<(Vec<hooks::Event>, Vec<Event>, u64), Trouble> {
        let kinds = self.wanted_by(&binding.plugin);
        let wanted: Vec<&Event> =
            page.iter().map(|at| &at.event).filter(|event| tell::is_wanted(binding, &kinds, event)).collect();
        let hosts = tell::hosts_of(&self.service, &wanted).await?;
        let generation = self.service.store.generation();
        let (mut batch, mut told, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut passed = page.last().map_or(0, |at| at.event.seq.saturating_add(1));
        for event in wanted.into_iter().filter(|event| hosts.are_for(binding, event.host)) {
            let shown = tell::event(generation, event, &hosts);
            bytes += tell::size_bytes(&shown);
            if !batch.is_empty() && (alone || bytes > BATCH_BYTES) {
                passed = event.seq;
                break;
            }
            batch.push(shown);
            told.push(event.clone());
        }
        Ok((batch, told, passed))
    }

    /// A parked host's events before this one are done. With nothing left of its timeline, it is like any other again.
    async fn advance(
        &mut self,
        host: HostId,
        parked: Parked,
        page: &TimelinePart,
        next_seq: u64,
    ) -> Result<Step, Trouble> {
        // Nothing of a page that is empty is wanted, as nothing of it can be read.
        let next_seq = next_seq.max(parked.from_seq);
        let is_all = page.is_last && page.events.last().is_none_or(|at| at.event.seq < next_seq);
        if is_all {
            self.service.store.unpark(&self.plugin, host).await?;
            self.parking.hosts.remove(&host);
            self.parking.singly.remove(&host);
            if let Some(last) = page.last() {
                // Whatever comes after it has not come by yet: nothing was taken in since the page was read.
                self.parking.overtaken.insert(host, last);
            }
        } else {
            let now = self.service.clock.now();
            let next = Parked { from_seq: next_seq, attempts: 0, faults: 0, next_at: now, ..parked };
            self.service.store.park(&self.plugin, host, &next).await?;
            self.parking.park(host, next);
        }
        Ok(Step::Again)
    }

    /// Events stay for a week; one that was not told by then, or cannot be read, is counted and named, and its host goes
    /// on. Whether there was one.
    fn note_loss(&self, host: HostId, parked: &mut Parked, page: &TimelinePart) -> bool {
        let from = parked.from_seq;
        if let Some(first) = page.first_seq().filter(|first| *first > from) {
            let lost = first - from;
            self.desk.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::error!(plugin = self.plugin, %host, from, lost, "events left the timeline untold");
            parked.from_seq = first;
        }
        for lost in &page.unreadable {
            self.desk.note_unreadable(&self.plugin, lost);
            parked.from_seq = lost.seq.saturating_add(1);
        }
        let is_lost = parked.from_seq > from;
        if is_lost {
            (parked.attempts, parked.faults) = (0, 0);
        }
        is_lost
    }
}
