//! One plugin being told of events.
//!
//! Invariant: an event leaves the buffer only when it is told, its host durably parked, or it a dead letter; the cursor
//! that is written follows the buffer. Everything in memory can be lost at any moment: what is durable leads back here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::parked::{Parking, Turn};
use super::source::{Source, StreamEnded, Taken};
use super::tell::{self, TOLD_NONE};
use super::{Desk, Mode, Pace, lock};
use crate::domain::{Event, HostId};
use crate::hooks::{self, Binding, Hook, HookError, Hooks, Plugin, Run};
use crate::service::Service;
use crate::service::pauses::{later, with_jitter, words};
use crate::store::{DeadLetter, EventAt, OutboxCursor, Parked, StoreError, StreamError, UNDELIVERED_FOR, Unreadable};

/// Most events of one call.
pub(super) const BATCH_EVENTS: usize = 64;
/// Most bytes of the events of one call, as JSON; one event is told however large it is.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// How long a call under way may go on when the server stops. What it does afterwards is done again.
const STOPS_WITHIN: Duration = Duration::from_secs(2);
/// How soon a plugin that cannot be asked, or a store that cannot be written, is looked at again.
pub(super) const LOOKS_AGAIN: Duration = Duration::from_millis(500);
/// Failures in a row after which other hosts are spared for a while too.
const CALM_AFTER: u32 = 3;
/// The longest of these pauses.
const LONGEST_CALM: Duration = Duration::from_secs(30);
/// What a plugin may ask for between two attempts.
const LONGEST_RETRY: Duration = Duration::from_secs(3_600);
const SHORTEST_RETRY: Duration = Duration::from_millis(100);
/// An event is not given up for its age alone: the clock may have jumped. A week of hourly attempts is more than that.
const FEWEST_RETRIES: u32 = 100;

pub(super) struct Dispatcher {
    pub(super) service: Arc<Service>,
    pub(super) plugin: String,
    pub(super) desk: Arc<Desk>,
    pub(super) parking: Parking,
    stop: CancellationToken,
    source: Source,
    /// Events to be told next.
    waiting: VecDeque<EventAt>,
    written: OutboxCursor,
    written_at: Instant,
    /// Whether anything was given out since.
    moved: bool,
    /// So many events are told one by one, as telling them together failed.
    singly: usize,
    /// How often the first event that waits was told.
    attempts: (Option<(HostId, u64)>, u32),
    failures_in_a_row: u32,
    calm_until: Option<Instant>,
    wanted: Option<Wanted>,
}

/// The kinds of events that a plugin wants, as it said when it was bound.
struct Wanted {
    by: Arc<dyn Plugin>,
    kinds: Arc<[String]>,
}

/// What a step came to.
pub(super) enum Step {
    /// There may be more to do at once.
    Again,
    /// Nothing to do until something happens, or until then.
    Idle(Option<Duration>),
    /// As `Idle`, and events that happen do not matter until then.
    Pause(Duration, String),
}

/// What is to become of an event that failed.
pub(super) enum Fate {
    /// The plugin cannot be asked: the event waits.
    Waits,
    /// Its host is parked until then; whether the attempt counts.
    Parked { until: Timestamp, counts: bool },
    /// It is a dead letter.
    Dead,
}

/// Why a dispatcher could not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ended(#[from] StreamEnded),
}

impl Dispatcher {
    /// Tells the plugin of events until `stop`, or until the store stops.
    pub(super) async fn run(service: Arc<Service>, plugin: String, stop: CancellationToken) {
        let mut bound = service.outbox.bound.subscribe();
        let desk = service.outbox.desk(&plugin);
        let _telling = desk.telling.lock().await;
        // It may have been unbound and forgotten before this task had its turn; what is written now would stay.
        while service.is_bound(Hook::Events, &plugin) {
            let began = Self::begin(Arc::clone(&service), plugin.clone(), stop.clone()).await;
            let trouble = match began {
                Ok(mut dispatcher) => match dispatcher.go_on(&mut bound).await {
                    Ok(()) => break,
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            if service.store.writable().is_err()
                || matches!(trouble, Trouble::Ended(StreamEnded::Live(StreamError::Stopped)))
            {
                tracing::debug!(plugin, error = %trouble, "telling a plugin of events pauses");
            } else {
                tracing::error!(plugin, error = %trouble, "telling a plugin of events failed; it begins again at its cursor");
            }
            desk.set_mode(Mode::Waiting { why: trouble.to_string() });
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOKS_AGAIN) => {}
            }
        }
        desk.set_mode(Mode::Stopped);
    }

    /// Goes on where the plugin was left.
    async fn begin(service: Arc<Service>, plugin: String, stop: CancellationToken) -> Result<Self, Trouble> {
        let store = &service.store;
        let desk = service.outbox.desk(&plugin);
        let stored = store.outbox_cursor(&plugin).await?;
        if stored.is_some_and(|cursor| cursor.generation != store.generation()) {
            tracing::warn!(plugin, "the store was restored: the plugin is told of events from now on");
        }
        let source = Source::from(store, stored.filter(|cursor| cursor.generation == store.generation()));
        let cursor = source.cursor(store, &VecDeque::new());
        if stored != Some(cursor) {
            // A new plugin's first event is the next one, also if the server is killed before there is one.
            store.move_cursor(&plugin, &cursor).await?;
        }
        store.keep_events(&plugin, cursor.revision);
        desk.letters.store(store.count_dead_letters(&plugin).await?, Ordering::Relaxed);
        let parking = Parking::new(store.parked_hosts(&plugin).await?);
        *lock(&desk.position) = Some(cursor);
        Ok(Self {
            desk,
            parking,
            stop,
            source,
            waiting: VecDeque::new(),
            written: cursor,
            written_at: Instant::now(),
            moved: false,
            singly: 0,
            attempts: (None, 0),
            failures_in_a_row: 0,
            calm_until: None,
            wanted: None,
            plugin,
            service,
        })
    }

    async fn go_on(&mut self, bound: &mut watch::Receiver<u64>) -> Result<(), Trouble> {
        while !self.stop.is_cancelled() {
            bound.mark_unchanged();
            let step = self.step().await?;
            self.write_cursor(self.service.outbox.pace.cursor_every).await?;
            self.show(&step);
            let (pause, listens) = match step {
                Step::Again => {
                    // A plugin that answers at once must not keep a thread to itself.
                    tokio::task::yield_now().await;
                    continue;
                }
                Step::Idle(pause) => (pause, true),
                Step::Pause(pause, _) => (Some(pause), false),
            };
            let unwritten =
                self.moved.then(|| self.service.outbox.pace.cursor_every.saturating_sub(self.written_at.elapsed()));
            let pause = [pause, unwritten].into_iter().flatten().min();
            self.wait(pause, listens, bound).await?;
        }
        self.write_cursor(Duration::ZERO).await?;
        Ok(())
    }

    /// Does one thing.
    async fn step(&mut self) -> Result<Step, Trouble> {
        let hooks = self.service.hooks();
        let plugin = self.plugin.as_str();
        let Some(binding) = hooks.asked(Hook::Events).find(|binding| binding.plugin.name() == plugin) else {
            return Ok(Step::Pause(LOOKS_AGAIN, "it is not bound to events".to_owned()));
        };
        if !binding.plugin.status().is_ready() {
            // It cannot say what it wants to be told, so nothing is passed over.
            return Ok(Step::Pause(LOOKS_AGAIN, "the plugin does not work".to_owned()));
        }
        let was_catching_up = self.source.is_catching_up();
        let taken = self.take_in(binding).await?;
        self.moved |= was_catching_up != self.source.is_catching_up();
        self.parking.forget_overtaken(self.source.cursor(&self.service.store, &self.waiting).revision);
        let calm = self.calm_until.map(|until| until.saturating_duration_since(Instant::now()));
        let calm = calm.filter(|left| !left.is_zero());
        let is_full = self.parking.len() >= self.service.outbox.pace.most_parked;
        let may_tell_new = calm.is_none() && !is_full && !self.waiting.is_empty();
        let asked_for = std::mem::take(&mut *lock(&self.desk.retry_now));
        let due = self.parking.due(self.service.clock.now(), &asked_for);
        match (due, may_tell_new) {
            (Some(host), new) if !new || self.parking.turn == Turn::Parked => {
                self.parking.turn = Turn::New;
                self.retry_parked(&hooks, binding, host).await
            }
            (_, true) => {
                self.parking.turn = Turn::Parked;
                self.tell_waiting(&hooks, binding).await
            }
            (None, false) => {
                let next = self.parking.next_due(self.service.clock.now());
                Ok(match (calm, is_full, taken) {
                    (Some(calm), ..) => {
                        let pause = next.map_or(calm, |next| next.min(calm));
                        Step::Pause(pause, "the plugin failed for several hosts in a row".to_owned())
                    }
                    (None, true, _) => {
                        let why = format!("{} hosts are parked", self.parking.len());
                        Step::Pause(next.unwrap_or(LOOKS_AGAIN), why)
                    }
                    (None, false, Taken::Some) => Step::Again,
                    (None, false, Taken::All) => Step::Idle(next),
                })
            }
            (Some(_), false) => Ok(Step::Again),
        }
    }

    async fn take_in(&mut self, binding: &Binding) -> Result<Taken, Trouble> {
        let kinds = self.wanted_by(&binding.plugin);
        let (parking, moved) = (&self.parking, &mut self.moved);
        let (plugin, desk) = (&self.plugin, &self.desk);
        let wanted = |at: Result<&EventAt, &Unreadable>| {
            *moved = true;
            match at {
                Ok(at) => tell::is_wanted(binding, &kinds, &at.event) && !parking.has_in_hand(&at.event),
                Err(lost) => {
                    // Of a parked host, its own reading comes upon it.
                    if !parking.is_parked(lost.host) {
                        desk.note_unreadable(plugin, lost);
                    }
                    false
                }
            }
        };
        Ok(self.source.take_in(&self.service, &mut self.waiting, BATCH_EVENTS, wanted).await?)
    }

    /// The kinds of events that the plugin wants: asked once, as all that it says of itself is long.
    pub(super) fn wanted_by(&mut self, plugin: &Arc<dyn Plugin>) -> Arc<[String]> {
        match &self.wanted {
            Some(wanted) if Arc::ptr_eq(&wanted.by, plugin) => Arc::clone(&wanted.kinds),
            Some(_) | None => {
                let kinds: Arc<[String]> = plugin.about().events.into();
                self.wanted = Some(Wanted { by: Arc::clone(plugin), kinds: Arc::clone(&kinds) });
                kinds
            }
        }
    }

    /// Tells the plugin of the first events that wait.
    async fn tell_waiting(&mut self, hooks: &Hooks, binding: &Binding) -> Result<Step, Trouble> {
        let most = if self.singly > 0 { 1 } else { BATCH_EVENTS };
        let batch = self.first_waiting(binding, most).await?;
        let Some(first) = self.waiting.front().filter(|_| !batch.is_empty()) else { return Ok(Step::Again) };
        let head = first.event.clone();
        let place = Some((head.host, head.seq));
        if self.attempts.0 != place {
            self.attempts = (place, 0);
        }
        let admission = match binding.breakers.admit(Hook::Events, Instant::now()) {
            Ok(admission) => admission,
            Err(open) => return Ok(Step::Pause(LOOKS_AGAIN, words(&open))),
        };
        let Some(result) = self.call(hooks, binding, &batch, self.attempts.1.saturating_add(1)).await else {
            return Ok(Step::Again);
        };
        tell::record(binding, admission, result.as_ref());
        match result {
            Ok(done) if done > 0 => {
                drop(self.waiting.drain(..done.min(self.waiting.len())));
                self.singly = self.singly.saturating_sub(done);
                self.attempts = (None, 0);
                self.went_well();
                Ok(Step::Again)
            }
            Ok(_) => self.failed(&head, batch.len(), HookError::Failed(TOLD_NONE.to_owned())).await,
            Err(error) => self.failed(&head, batch.len(), error).await,
        }
    }

    /// The first events that wait and are about hosts that this binding is for; what is not, leaves.
    async fn first_waiting(&mut self, binding: &Binding, most: usize) -> Result<Vec<hooks::Event>, Trouble> {
        let some: Vec<&Event> = self.waiting.iter().take(most).map(|at| &at.event).collect();
        let hosts = tell::hosts_of(&self.service, &some).await?;
        let looked_at = some.len();
        let rest = self.waiting.split_off(looked_at);
        self.waiting.retain(|at| hosts.are_for(binding, at.event.host));
        let generation = self.service.store.generation();
        let (mut batch, mut bytes) = (Vec::with_capacity(self.waiting.len()), 0);
        for at in &self.waiting {
            let event = tell::event(generation, &at.event, &hosts);
            bytes += tell::size_bytes(&event);
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            batch.push(event);
        }
        self.waiting.extend(rest);
        Ok(batch)
    }

    /// Telling new events failed.
    async fn failed(&mut self, head: &Event, told: usize, error: HookError) -> Result<Step, Trouble> {
        let now = self.service.clock.now();
        let attempts = self.attempts.1.saturating_add(1);
        let fate = self.fate(&error, head, (attempts, 0), now);
        if matches!(fate, Fate::Waits) {
            return Ok(Step::Pause(LOOKS_AGAIN, words(&error)));
        }
        self.attempts.1 = attempts;
        if told > 1 {
            // It may be any of them: told one by one, only the one at fault suffers.
            self.singly = told;
            if let HookError::Retry { after_ms, .. } = error {
                self.stay_calm(Duration::from_millis(after_ms.into()).min(LONGEST_CALM));
            }
            return Ok(Step::Again);
        }
        self.singly = self.singly.saturating_sub(1);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let (host, why) = (head.host, words(&error));
        tracing::warn!(plugin = self.plugin, %host, seq = head.seq, error = why, "a plugin could not be told of an event");
        let (until, faults) = match fate {
            Fate::Waits => return Ok(Step::Again),
            Fate::Parked { until, counts } => (until, u32::from(counts)),
            Fate::Dead if self.has_room_for_letters() => {
                self.bury(head, why, attempts, None).await?;
                drop(self.waiting.pop_front());
                return Ok(Step::Again);
            }
            Fate::Dead => (self.in_longest_pause(now), 1),
        };
        let parked = Parked { from_seq: head.seq, attempts, faults, next_at: until, since: now, error: why };
        self.service.store.park(&self.plugin, host, &parked).await?;
        self.parking.park(host, parked);
        self.source.leave_out(host);
        self.waiting.retain(|at| at.event.host != host);
        if self.failures_in_a_row >= CALM_AFTER {
            let doublings = (self.failures_in_a_row - CALM_AFTER).min(8);
            self.stay_calm((self.service.outbox.pace.first_pause * (1 << doublings)).min(LONGEST_CALM));
        }
        Ok(Step::Again)
    }

    pub(super) fn went_well(&mut self) {
        (self.failures_in_a_row, self.calm_until) = (0, None);
    }

    fn stay_calm(&mut self, pause: Duration) {
        self.calm_until = Some(Instant::now() + pause);
    }

    /// What becomes of an event after an error, of its newest attempt and with so many faults before it.
    pub(super) fn fate(
        &self,
        error: &HookError,
        event: &Event,
        (attempts, faults): (u32, u32),
        now: Timestamp,
    ) -> Fate {
        let Pace { most_faults, first_pause, longest_pause, .. } = self.service.outbox.pace;
        match error {
            HookError::Unavailable(_) | HookError::Fatal(_) => Fate::Waits,
            HookError::Invalid(_) => Fate::Dead,
            // A service that is down is no fault of the event, but its timeline does not keep it for ever.
            HookError::Retry { .. } if now.duration_since(event.at) > UNDELIVERED_FOR && attempts >= FEWEST_RETRIES => {
                Fate::Dead
            }
            HookError::Retry { after_ms, .. } => {
                let pause = Duration::from_millis((*after_ms).into()).clamp(SHORTEST_RETRY, LONGEST_RETRY);
                Fate::Parked { until: later(now, pause), counts: false }
            }
            HookError::Failed(_)
            | HookError::Trap(_)
            | HookError::Timeout { .. }
            | HookError::Memory { .. }
            | HookError::Flood(_)
            | HookError::BadAnswer(_)
            | HookError::Denied(_) => {
                if faults.saturating_add(1) >= most_faults {
                    return Fate::Dead;
                }
                let pause = first_pause.saturating_mul(1 << faults.min(20)).min(longest_pause);
                Fate::Parked { until: later(now, with_jitter(pause, pause / 4)), counts: true }
            }
        }
    }

    pub(super) fn has_room_for_letters(&self) -> bool {
        let has_room = self.desk.letters() < self.service.outbox.pace.most_letters;
        if !has_room {
            tracing::error!(
                plugin = self.plugin,
                "the plugin has as many dead letters as it can have: hosts stay parked"
            );
        }
        has_room
    }

    pub(super) fn in_longest_pause(&self, now: Timestamp) -> Timestamp {
        let longest = self.service.outbox.pace.longest_pause;
        // Up to a quarter, so that hosts that failed together are not tried together.
        later(now, with_jitter(longest, longest / 4))
    }

    /// Makes a dead letter of an event, and writes where its host stands then.
    pub(super) async fn bury(
        &mut self,
        event: &Event,
        error: String,
        attempts: u32,
        parked: Option<&Parked>,
    ) -> Result<(), Trouble> {
        tracing::error!(plugin = self.plugin, host = %event.host, seq = event.seq, error, "an event is a dead letter now");
        let letter = DeadLetter { event: event.clone(), error, at: self.service.clock.now(), attempts };
        self.service.store.bury(&self.plugin, &letter, parked).await?;
        self.desk.letters.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// One call; none if the server stops before it ends.
    pub(super) async fn call(
        &self,
        hooks: &Hooks,
        binding: &Binding,
        batch: &[hooks::Event],
        attempt: u32,
    ) -> Option<Result<usize, HookError>> {
        let _one_call = self.desk.calls.lock().await;
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(STOPS_WITHIN).await;
        };
        tokio::select! {
            result = tell::tell(&self.service, hooks, binding, batch, attempt, Run::Real) => Some(result),
            () = stopped => None,
        }
    }

    /// Writes the cursor if it moved and the written one is older than `every`.
    async fn write_cursor(&mut self, every: Duration) -> Result<(), Trouble> {
        let cursor = self.source.cursor(&self.service.store, &self.waiting);
        *lock(&self.desk.position) = Some(cursor);
        if self.moved && self.written_at.elapsed() >= every {
            if cursor != self.written {
                self.service.store.move_cursor(&self.plugin, &cursor).await?;
                self.written = cursor;
            }
            self.written_at = Instant::now();
            self.moved = !self.waiting.is_empty();
        }
        Ok(())
    }

    async fn wait(
        &mut self,
        pause: Option<Duration>,
        listens: bool,
        bound: &mut watch::Receiver<u64>,
    ) -> Result<(), Trouble> {
        let nap = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = nap => {}
            () = self.desk.wake.notified() => {}
            changed = bound.changed() => drop(changed),
            ended = self.source.stirs(), if listens => ended?,
        }
        Ok(())
    }

    fn show(&self, step: &Step) {
        self.desk.set_mode(match step {
            Step::Pause(_, why) => Mode::Waiting { why: why.clone() },
            Step::Again | Step::Idle(_) if self.source.is_catching_up() => Mode::CatchingUp,
            Step::Again | Step::Idle(_) => Mode::Following,
        });
    }
}
