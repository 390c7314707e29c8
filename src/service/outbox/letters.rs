//! What operators do with events that could not be told.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::lock;
use super::tell::{self, TOLD_NONE};
use crate::domain::{Event, HostId};
use crate::hooks::{Hook, HookError, Run};
use crate::service::Service;
use crate::service::pauses::words;
use crate::store::{DeadLetter, StoreError};

/// Letters that one request replays; it says how many are left.
const REPLAYED_AT_ONCE: u32 = 100;
/// One request ends after so many failures in a row: it may be that the plugin does not work.
const FAILURES_IN_A_ROW: u32 = 3;
/// Letters per read when all are dropped.
const PER_READ: u32 = 500;

/// How long to wait for calls of a plugin that is forgotten: a batch of events has 10 s.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Which dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    /// One: host and number of the event.
    One(HostId, u64),
    /// All of a host.
    Of(HostId),
    /// All of the plugin.
    All,
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Letters that were told and are gone.
    pub told: u64,
    /// Letters that failed again, and stay.
    pub failed: u64,
    /// The last letter that was tried, where there are others behind it: ask again from there.
    pub next: Option<(HostId, u64)>,
    /// Letters that the plugin still has, tried or not.
    pub left: u64,
    /// Why the newest of them failed.
    pub error: Option<String>,
}

/// Why the outbox could not do something.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// There is no plugin of this name that is told of events.
    #[error("no plugin {0} is bound to events")]
    NotBound(String),
    /// There is no such dead letter.
    #[error("the plugin {plugin} has no dead letter about event {seq} of host {host}")]
    NoLetter {
        /// Whose.
        plugin: String,
        /// About which host.
        host: HostId,
        /// About which event.
        seq: u64,
    },
    /// There is no such parked host.
    #[error("the plugin {plugin} has not parked host {host}")]
    NotParked {
        /// Whose.
        plugin: String,
        /// Which host.
        host: HostId,
    },
    /// The plugin is not bound any more, but a call of it has not ended.
    #[error("a call of the plugin {0} has not ended yet: try again in a minute")]
    Busy(String),
    /// The plugin is still bound.
    #[error("the plugin {0} is bound: take it out of the configuration first")]
    StillBound(String),
    /// The store's own reasons.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Service {
    /// A plugin's dead letters in the order of hosts and events: of one host only if given, after one if given.
    pub async fn dead_letters(
        &self,
        plugin: &str,
        host: Option<HostId>,
        after: Option<(HostId, u64)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, OutboxError> {
        Ok(self.store.dead_letters(plugin, host, after, limit).await?)
    }

    /// Tells a plugin of dead letters again, each alone and the oldest of a host first. What it takes is gone from the
    /// letters; what fails stays, with the new error. Bounded: `next` says where to go on, so that letters which fail again
    /// keep nobody from trying those behind them.
    pub async fn replay_dead_letters(
        &self,
        plugin: &str,
        which: Letters,
        after: Option<(HostId, u64)>,
    ) -> Result<Replayed, OutboxError> {
        let letters = self.some_letters(plugin, which, after, REPLAYED_AT_ONCE).await?;
        let desk = self.outbox.desk(plugin);
        let mut replayed = Replayed::default();
        let (mut failures_in_a_row, count) = (0, letters.len());
        for (number, letter) in (1..).zip(letters) {
            let place = (letter.event.host, letter.event.seq);
            // Until it is dropped: another replay may have told of it, or somebody dropped it, while this one waited.
            let _one_call = desk.calls.lock().await;
            if self.store.dead_letter(plugin, place.0, place.1).await?.is_none() {
                continue;
            }
            match self.replay(plugin, &letter).await? {
                Ok(()) => {
                    (replayed.told, failures_in_a_row) = (replayed.told + 1, 0);
                    self.drop_some(plugin, &[place]).await?;
                }
                Err(error) => {
                    (replayed.failed, failures_in_a_row) = (replayed.failed + 1, failures_in_a_row + 1);
                    let (error, at) = (words(&error), self.clock.now());
                    replayed.error = Some(error.clone());
                    let attempts = letter.attempts.saturating_add(1);
                    self.store.keep_dead_letter(plugin, &DeadLetter { error, at, attempts, ..letter }).await?;
                }
            }
            let gives_up = failures_in_a_row >= FAILURES_IN_A_ROW;
            if (gives_up && number < count) || number == REPLAYED_AT_ONCE as usize {
                replayed.next = Some(place);
                break;
            }
        }
        replayed.left = self.store.count_dead_letters(plugin).await?;
        Ok(replayed)
    }

    /// Forgets dead letters. Returns how many.
    pub async fn drop_dead_letters(&self, plugin: &str, which: Letters) -> Result<u64, OutboxError> {
        let mut dropped = 0;
        loop {
            let letters = match which {
                // Dropped already: that is what was asked for, unless there was none from the start.
                Letters::One(..) if dropped > 0 => return Ok(dropped),
                Letters::One(..) | Letters::Of(_) | Letters::All => {
                    self.some_letters(plugin, which, None, PER_READ).await?
                }
            };
            if letters.is_empty() {
                return Ok(dropped);
            }
            let places: Vec<_> = letters.iter().map(|letter| (letter.event.host, letter.event.seq)).collect();
            self.drop_some(plugin, &places).await?;
            dropped += places.len() as u64;
        }
    }

    /// Tries a parked host's events now instead of later.
    pub async fn retry_parked(&self, plugin: &str, host: HostId) -> Result<(), OutboxError> {
        if !self.store.parked_hosts(plugin).await?.iter().any(|(parked, _)| *parked == host) {
            return Err(OutboxError::NotParked { plugin: plugin.to_owned(), host });
        }
        let desk = self.outbox.desk(plugin);
        lock(&desk.retry_now).insert(host);
        desk.wake.notify_one();
        Ok(())
    }

    /// Forgets everything that is kept for a plugin that is gone: bound again, it begins anew.
    pub async fn forget_outbox(&self, plugin: &str) -> Result<(), OutboxError> {
        if [Hook::Events, Hook::Schedule].into_iter().any(|hook| self.is_bound(hook, plugin)) {
            return Err(OutboxError::StillBound(plugin.to_owned()));
        }
        // Whoever is telling it, or runs a job of it, writes down at the end how far that came.
        let desk = self.outbox.desk(plugin);
        let busy = |_| OutboxError::Busy(plugin.to_owned());
        let _told_out = tokio::time::timeout(ENDS_WITHIN, desk.telling.lock()).await.map_err(busy)?;
        let _no_run = tokio::time::timeout(ENDS_WITHIN, self.schedule.no_run(plugin)).await.map_err(busy)?;
        self.store.forget_outbox(plugin).await?;
        *lock(&desk.position) = None;
        desk.letters.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a plugin of this name is asked at a hook now.
    pub(in crate::service) fn is_bound(&self, hook: Hook, plugin: &str) -> bool {
        self.hooks().asked(hook).any(|binding| binding.plugin.name() == plugin)
    }

    async fn some_letters(
        &self,
        plugin: &str,
        which: Letters,
        after: Option<(HostId, u64)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, OutboxError> {
        Ok(match which {
            Letters::All => self.store.dead_letters(plugin, None, after, limit).await?,
            Letters::Of(host) => self.store.dead_letters(plugin, Some(host), after, limit).await?,
            Letters::One(host, seq) => match self.store.dead_letter(plugin, host, seq).await? {
                Some(letter) => vec![letter],
                None => return Err(OutboxError::NoLetter { plugin: plugin.to_owned(), host, seq }),
            },
        })
    }

    /// Tells a plugin of one letter. The caller sees to it that it is told of nothing else meanwhile.
    async fn replay(&self, plugin: &str, letter: &DeadLetter) -> Result<Result<(), HookError>, OutboxError> {
        let hooks = self.hooks();
        let binding = hooks.asked(Hook::Events).find(|binding| binding.plugin.name() == plugin);
        let binding = binding.ok_or_else(|| OutboxError::NotBound(plugin.to_owned()))?;
        let events: [&Event; 1] = [&letter.event];
        let hosts = tell::hosts_of(self, &events).await?;
        let event = tell::event(self.store.generation(), &letter.event, &hosts);
        let attempt = letter.attempts.saturating_add(1);
        let told = tell::tell(self, &hooks, binding, &[event], attempt, Run::Real).await;
        Ok(told.and_then(|done| if done > 0 { Ok(()) } else { Err(HookError::Failed(TOLD_NONE.to_owned())) }))
    }

    async fn drop_some(&self, plugin: &str, places: &[(HostId, u64)]) -> Result<(), OutboxError> {
        self.store.drop_dead_letters(plugin, places).await?;
        let desk = self.outbox.desk(plugin);
        let dropped = places.len() as u64;
        // A dispatcher that counts anew at this moment is the only other writer, and it corrects whatever this makes.
        let less = desk.letters().saturating_sub(dropped);
        desk.letters.store(less, Ordering::Relaxed);
        desk.wake.notify_one();
        Ok(())
    }
}
