//! Telling plugins what happened: at least once, in order per host, surviving crashes.
//!
//! Invariant: an event that a bound plugin wants is told, or its host is durably parked and tried again, or it is a dead
//! letter that an operator sees; a plugin's cursor never moves over anything else. One host's trouble delays no other
//! host, and one plugin's no other plugin.
//!
//! Every plugin that is bound to the hook `events` has a task of its own (`dispatcher`), which reads from its durable
//! cursor on (`source`): live, or, after a restart or when it fell behind, from the timelines of all hosts that changed.

mod dispatcher;
mod letters;
mod parked;
mod source;
mod state;
mod tell;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::domain::{Event, HostId};
use crate::hooks::Hook;
use crate::store::Unreadable;

pub use letters::{Letters, OutboxError, Replayed};
pub use state::{Mode, OutboxState, ParkedHost};

use dispatcher::Dispatcher;

/// How the outbox paces itself. The defaults are what servers use; tests are less patient.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The pause after the first failure of a host's event; every further one is twice as long.
    pub(super) first_pause: Duration,
    /// The longest pause.
    pub(super) longest_pause: Duration,
    /// Failures after which an event becomes a dead letter.
    pub(super) most_faults: u32,
    /// How often the cursor is written while events are told: so much is told again after a crash.
    pub(super) cursor_every: Duration,
    /// Hosts that a plugin can have parked; more, and it is told nothing new.
    pub(super) most_parked: usize,
    /// Dead letters that a plugin can have; more, and hosts stay parked instead.
    pub(super) most_letters: u64,
    /// How often old events that had to stay are looked at.
    pub(super) trim_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(600),
            most_faults: 10,
            cursor_every: Duration::from_millis(500),
            most_parked: 1_000,
            most_letters: 10_000,
            trim_every: Duration::from_secs(30),
        }
    }
}

/// What dispatchers and operators share.
#[derive(Debug)]
pub(super) struct Outbox {
    desks: Mutex<BTreeMap<String, Arc<Desk>>>,
    pub(super) pace: Pace,
    /// Counts replacements of the hooks, so that nobody misses one.
    pub(super) bound: watch::Sender<u64>,
}

/// One plugin's.
#[derive(Debug, Default)]
struct Desk {
    /// Held by the dispatcher for as long as it may write: nothing of the plugin is forgotten meanwhile.
    telling: Arc<tokio::sync::Mutex<()>>,
    /// Held during every call of the hook `events`: a plugin has one at a time.
    calls: tokio::sync::Mutex<()>,
    /// Something changed that the dispatcher should look at.
    wake: Notify,
    /// Hosts that an operator wants to be tried now.
    retry_now: Mutex<BTreeSet<HostId>>,
    letters: AtomicU64,
    mode: Mutex<Mode>,
    /// Events that had left the timeline before they could be told, or cannot be read.
    lost: AtomicU64,
    position: Mutex<Option<crate::store::OutboxCursor>>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { desks: Mutex::default(), pace: Pace::default(), bound: watch::Sender::new(0) }
    }
}

impl Outbox {
    fn desk(&self, plugin: &str) -> Arc<Desk> {
        Arc::clone(lock(&self.desks).entry(plugin.to_owned()).or_default())
    }

    /// Other plugins are bound now.
    pub(super) fn rebound(&self) {
        self.bound.send_modify(|count| *count += 1);
    }
}

impl Desk {
    fn set_mode(&self, mode: Mode) {
        *lock(&self.mode) = mode;
    }

    /// Nobody will ever be told of an event that cannot be read: it is counted and named, and must stop no other.
    fn note_unreadable(&self, plugin: &str, lost: &Unreadable) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let Unreadable { host, seq, source, .. } = lost;
        tracing::error!(plugin, %host, seq, error = %source, "an event cannot be read: the plugin is not told of it");
    }

    fn letters(&self) -> u64 {
        self.letters.load(Ordering::Relaxed)
    }
}

/// A dispatcher at work.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Service {
    /// The name of an event, for whoever does something about each event once: no other has it, not even after a restore,
    /// when the numbers of events are given again.
    pub fn event_id(&self, event: &Event) -> String {
        tell::event_id(self.store.generation(), event)
    }

    /// Tells plugins of events and runs their jobs until `stop`, following whatever is bound. Returns when everything
    /// has been written down.
    pub async fn run_plugins(self: Arc<Self>, stop: CancellationToken) {
        let schedule = tokio::spawn(Arc::clone(&self).run_schedules(stop.clone()));
        let mut bound = self.outbox.bound.subscribe();
        let mut running: BTreeMap<String, Running> = BTreeMap::new();
        let mut trim = tokio::time::interval(self.outbox.pace.trim_every);
        while !stop.is_cancelled() {
            bound.mark_unchanged();
            self.dispatch_to_bound(&mut running, &stop).await;
            tokio::select! {
                () = stop.cancelled() => {}
                changed = bound.changed() => drop(changed),
                _ = trim.tick() => self.trim_timelines().await,
            }
        }
        for (_, Running { stop, task }) in running {
            stop.cancel();
            drop(task.await);
        }
        drop(schedule.await);
    }

    /// Ends the dispatchers of plugins that are not bound any more, and begins those of new ones.
    async fn dispatch_to_bound(self: &Arc<Self>, running: &mut BTreeMap<String, Running>, stop: &CancellationToken) {
        let hooks = self.hooks();
        let wanted: BTreeSet<&str> = hooks.asked(Hook::Events).map(|binding| binding.plugin.name()).collect();
        let over = |(name, running): (&String, &Running)| {
            (!wanted.contains(name.as_str()) || running.task.is_finished()).then(|| name.clone())
        };
        for name in running.iter().filter_map(over).collect::<Vec<_>>() {
            if let Some(Running { stop, task }) = running.remove(&name) {
                stop.cancel();
                if let Err(error) = task.await {
                    tracing::error!(plugin = name, %error, "telling a plugin of events broke; it begins again");
                }
            }
        }
        for name in wanted {
            running.entry(name.to_owned()).or_insert_with(|| {
                let stop = stop.child_token();
                let dispatcher = Dispatcher::run(Arc::clone(self), name.to_owned(), stop.clone());
                Running { stop, task: tokio::spawn(dispatcher) }
            });
        }
        // Nobody reads for a plugin that is not bound, so its cursor keeps nothing; it goes on there with what is left.
        for plugin in self.store.outbox_plugins().await.unwrap_or_default() {
            if !running.contains_key(&plugin) {
                self.store.release_events(&plugin);
            }
        }
    }

    async fn trim_timelines(&self) {
        if let Err(error) = self.store.trim(self.clock.now(), Instant::now()).await {
            tracing::warn!(%error, "old events could not be taken from the timelines");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
