//! Which events stay although the timeline has newer ones: those that a plugin must still be told of.
//!
//! Invariant: an event leaves the timeline only if every plugin's cursor is behind its commit and no plugin has its host
//! parked at or before it; or if it is older than a week by a clock that did not jump. What was held is remembered and
//! leaves later, in bounded steps. A forgotten host leaves as a whole, once all plugins were told and a season passed.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    events::Generation,
    hosts::{Store, StoreError, TIMELINE_EVENTS, unreadable},
    keys,
    kv::{Backend, Key, Kv, MAX_SCAN_ENTRIES, Revision},
    outbox::{EventAt, TimelinePart},
    record::{self, RecordError},
};
use crate::domain::HostId;

/// Undelivered events stay for so long.
pub const UNDELIVERED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What is known of a forgotten host stays for so long.
const FORGOTTEN_FOR: SignedDuration = SignedDuration::from_hours(90 * 24);
/// The clock is believed to be right about ages after it ran evenly for so long: at the start, and after it jumped.
const CLOCK_TRUSTED_AFTER: Duration = Duration::from_secs(3_600);
/// It jumped if it is further ahead than this of where it should be.
const JUMP: SignedDuration = SignedDuration::from_mins(10);
/// Hosts that one step of trimming looks at.
const HOSTS_PER_STEP: usize = 64;
/// Events of one host that one step takes away.
const EVENTS_PER_STEP: u32 = 100;

/// What plugins must still be told, as far as this process knows.
#[derive(Debug, Default)]
pub(super) struct Retention {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Up to where each plugin was told.
    cursors: BTreeMap<String, Revision>,
    /// From which event on each plugin must be told again, by host.
    parked: BTreeMap<HostId, BTreeMap<String, u64>>,
    /// Hosts with more events than the timeline is to have.
    held: BTreeSet<HostId>,
    /// The last of them that a step looked at.
    trimmed: Option<HostId>,
    /// An earlier process may have held events of hosts after this one.
    unswept_after: Option<HostId>,
    /// The last forgotten host that a step looked at.
    swept_forgotten: Option<HostId>,
    clock: Option<SteadyClock>,
}

/// What the wall clock showed, beside one that never jumps.
#[derive(Clone, Copy, Debug)]
struct SteadyClock {
    shown: (Timestamp, Instant),
    even_since: Instant,
}

impl SteadyClock {
    /// Looks at both clocks. Whether the wall clock ran evenly for long enough to let something go for its age.
    fn is_trusted(last: &mut Option<Self>, now: Timestamp, at: Instant) -> bool {
        let even_since = match last {
            Some(Self { shown: (then, since), even_since }) => {
                let passed = SignedDuration::try_from(at.duration_since(*since)).unwrap_or(SignedDuration::MAX);
                if now.duration_since(*then) > passed.saturating_add(JUMP) { at } else { *even_since }
            }
            None => at,
        };
        *last = Some(Self { shown: (now, at), even_since });
        at.duration_since(even_since) >= CLOCK_TRUSTED_AFTER
    }
}

impl Retention {
    /// As an earlier process left it.
    pub(super) async fn read(kv: &Backend, generation: Generation) -> Result<Self, StoreError> {
        let mut inner = Inner::default();
        let (_, cursors) = kv.scan(keys::CURSORS.as_bytes(), None, MAX_SCAN_ENTRIES).await?;
        for entry in cursors {
            let cursor = record::decode_cursor(&entry.value).map_err(unreadable(&entry.key))?;
            if let Some(plugin) = keys::cursor_plugin(&entry.key).filter(|_| cursor.generation == generation) {
                inner.cursors.insert(plugin, cursor.revision);
            }
        }
        let mut after: Option<Key> = None;
        loop {
            let (_, page) =
                kv.scan(keys::PARKED.as_bytes(), after.as_ref().map(Key::as_bytes), MAX_SCAN_ENTRIES).await?;
            for entry in &page {
                let parked = record::decode_parked(&entry.value).map_err(unreadable(&entry.key))?;
                if let Some((plugin, host)) = keys::parked_place(&entry.key) {
                    inner.parked.entry(host).or_default().insert(plugin, parked.from_seq);
                }
            }
            after = page.last().map(|entry| entry.key.clone());
            if page.len() < MAX_SCAN_ENTRIES as usize {
                break;
            }
        }
        // Also without a cursor: a plugin that was forgotten since may have held some.
        inner.unswept_after = Some(HostId::new(0));
        Ok(Self { inner: Mutex::new(inner) })
    }

    pub(super) fn keep_after(&self, plugin: &str, revision: Revision) {
        let mut inner = self.lock();
        match inner.cursors.get_mut(plugin) {
            Some(cursor) => *cursor = revision,
            None => drop(inner.cursors.insert(plugin.to_owned(), revision)),
        }
    }

    pub(super) fn keep_from(&self, plugin: &str, host: HostId, seq: u64) {
        self.lock().parked.entry(host).or_default().insert(plugin.to_owned(), seq);
    }

    pub(super) fn let_go(&self, plugin: &str, host: HostId) {
        let mut inner = self.lock();
        if let Some(plugins) = inner.parked.get_mut(&host) {
            plugins.remove(plugin);
            if plugins.is_empty() {
                inner.parked.remove(&host);
            }
        }
    }

    pub(super) fn release(&self, plugin: &str) {
        let mut inner = self.lock();
        inner.cursors.remove(plugin);
        inner.parked.retain(|_, plugins| {
            plugins.remove(plugin);
            !plugins.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_parked_at(&self, host: HostId, seq: u64) -> bool {
        self.parked.get(&host).is_some_and(|plugins| plugins.values().any(|from| *from <= seq))
    }

    /// Those of a host's oldest events that need not stay.
    /// Those older than a week count as such only before `expired`, if the clock can be trusted.
    fn leaving(&self, host: HostId, oldest: &TimelinePart, expired: Option<Timestamp>) -> Vec<Key> {
        let told = self.told_to_all();
        let is_told =
            |revision: Revision, seq: u64| told.is_none_or(|told| revision <= told) && !self.is_parked_at(host, seq);
        let lost = oldest.unreadable.iter().take_while(|lost| is_told(lost.revision, lost.seq)).map(|lost| lost.seq);
        let lost: Vec<u64> = lost.collect();
        let events: &[EventAt] = if lost.len() == oldest.unreadable.len() { &oldest.events } else { &[] };
        let may_leave =
            |at: &&EventAt| is_told(at.revision, at.event.seq) || expired.is_some_and(|expired| at.event.at < expired);
        let read = events.iter().take_while(may_leave).map(|at| at.event.seq);
        lost.into_iter().chain(read).map(|seq| keys::event(host, seq)).collect()
    }

    /// Whether a plugin must still be told of a host whose newest event is of this commit.
    fn is_needed(&self, host: HostId, newest: Revision) -> bool {
        self.parked.contains_key(&host) || self.told_to_all().is_some_and(|told| told < newest)
    }

    fn told_to_all(&self) -> Option<Revision> {
        self.cursors.values().min().copied()
    }
}

impl Store {
    /// Whether an event that the timeline has no room for may leave it now. If not, a later step of [`Store::trim`]
    /// takes it away.
    pub(super) async fn may_leave(&self, host: HostId, seq: u64) -> Result<bool, StoreError> {
        let told = {
            let mut inner = self.retention.lock();
            if inner.is_parked_at(host, seq) {
                inner.held.insert(host);
                return Ok(false);
            }
            inner.told_to_all()
        };
        let Some(told) = told else { return Ok(true) };
        // Some microseconds, and only for hosts whose timeline is full.
        let may = self.event_revision(host, seq).await?.is_none_or(|revision| revision <= told);
        if !may {
            self.retention.lock().held.insert(host);
        }
        Ok(may)
    }

    /// Takes away events that were held and need not be any longer, and hosts that were forgotten long ago: a bounded
    /// step. `at` is the same moment as `now` on a clock that never jumps. Returns how many events left.
    pub async fn trim(&self, now: Timestamp, at: Instant) -> Result<usize, StoreError> {
        self.sweep().await?;
        let is_trusted = SteadyClock::is_trusted(&mut self.retention.lock().clock, now, at);
        let before = |age: SignedDuration| now.checked_sub(age).ok().filter(|_| is_trusted);
        let hosts: Vec<HostId> = {
            let mut inner = self.retention.lock();
            let later = inner.held.iter().copied().filter(|host| inner.trimmed.is_none_or(|last| *host > last));
            let hosts: Vec<HostId> = later.take(HOSTS_PER_STEP).collect();
            inner.trimmed = hosts.last().copied().filter(|_| hosts.len() == HOSTS_PER_STEP);
            hosts
        };
        let mut left = 0;
        for host in hosts {
            left += self.trim_host(host, before(UNDELIVERED_FOR)).await?;
        }
        left += self.sweep_forgotten(before(FORGOTTEN_FOR)).await?;
        Ok(left)
    }

    async fn trim_host(&self, host: HostId, expired: Option<Timestamp>) -> Result<usize, StoreError> {
        let newest = match self.host(host).await? {
            Some(host) => host.event_count,
            None => self.forgotten_host(host).await?.map_or(0, |host| host.event_count),
        };
        let surplus_to = newest.saturating_sub(TIMELINE_EVENTS);
        let mut surplus = self.events_at(host, 0, EVENTS_PER_STEP).await?;
        surplus.events.retain(|at| at.event.seq <= surplus_to);
        surplus.unreadable.retain(|lost| lost.seq <= surplus_to);
        if surplus.first_seq().is_none() {
            self.retention.lock().held.remove(&host);
            return Ok(0);
        }
        let leaving = self.retention.lock().leaving(host, &surplus, expired);
        let count = leaving.len();
        self.delete_all(leaving).await?;
        Ok(count)
    }

    /// Looks for hosts of which an earlier process held events: a page of all hosts.
    async fn sweep(&self) -> Result<(), StoreError> {
        let Some(after) = self.retention.lock().unswept_after else { return Ok(()) };
        let after_key = keys::hot(after);
        let (_, page) = self.kv.scan(keys::HOT.as_bytes(), Some(after_key.as_bytes()), MAX_SCAN_ENTRIES).await?;
        let mut held = Vec::new();
        for entry in &page {
            let host = keys::host_id(&entry.key).ok_or(RecordError::Field { field: "key" });
            let host = host.map_err(unreadable(&entry.key))?;
            let count = record::decode_event_count(&entry.value).map_err(unreadable(&entry.key))?;
            if let Some(old @ 1..) = count.checked_sub(TIMELINE_EVENTS)
                && self.event_revision(host, old).await?.is_some()
            {
                held.push(host);
            }
        }
        let is_full = page.len() >= MAX_SCAN_ENTRIES as usize;
        let mut inner = self.retention.lock();
        inner.held.extend(held);
        inner.unswept_after = page.last().filter(|_| is_full).and_then(|entry| keys::host_id(&entry.key));
        Ok(())
    }

    /// Looks at some forgotten hosts: remembers those with held events, and takes away what is left of one that was
    /// forgotten before `expired`, if no plugin must be told of it any more. Returns how many events left.
    async fn sweep_forgotten(&self, expired: Option<Timestamp>) -> Result<usize, StoreError> {
        let after = self.retention.lock().swept_forgotten.map(keys::forgotten);
        let after = after.as_ref().map(Key::as_bytes);
        let (_, page) = self.kv.scan(keys::FORGOTTEN.as_bytes(), after, HOSTS_PER_STEP as u32).await?;
        let (mut left, mut last) = (0, None);
        for entry in &page {
            let host = keys::host_id(&entry.key).ok_or(RecordError::Field { field: "key" });
            let host = host.map_err(unreadable(&entry.key))?;
            last = Some(host);
            let newest = match record::decode_forgotten(host, &entry.value) {
                Ok(host) => host.event_count,
                Err(error) => {
                    tracing::warn!(%host, %error, "a forgotten host cannot be read; it stays");
                    continue;
                }
            };
            if let Some(old @ 1..) = newest.checked_sub(TIMELINE_EVENTS)
                && self.event_revision(host, old).await?.is_some()
            {
                self.retention.lock().held.insert(host);
            }
            // Its last event is the one of the commit that forgot it; of what cannot be read no age is known.
            let end = self.events_at(host, newest, 1).await?;
            let is_over = end.unreadable.is_empty()
                && expired.is_some_and(|expired| end.events.iter().all(|at| at.event.at < expired));
            if is_over && !self.retention.lock().is_needed(host, entry.revision) {
                left += self.remove_forgotten(host, &entry.key).await?;
            }
        }
        self.retention.lock().swept_forgotten = last.filter(|_| page.len() == HOSTS_PER_STEP);
        Ok(left)
    }

    /// A bounded step: its events, oldest first, and with the last of them the record of the host.
    async fn remove_forgotten(&self, host: HostId, record: &Key) -> Result<usize, StoreError> {
        let part = self.events_at(host, 0, EVENTS_PER_STEP).await?;
        let seqs = part.unreadable.iter().map(|lost| lost.seq).chain(part.events.iter().map(|at| at.event.seq));
        let mut leaving: Vec<Key> = seqs.map(|seq| keys::event(host, seq)).collect();
        let count = leaving.len();
        if part.is_last {
            leaving.push(record.clone());
            self.retention.lock().held.remove(&host);
        }
        self.delete_all(leaving).await?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{self, Actor, EventKind};
    use crate::store::fixtures::{at, registration};

    const DAY_S: i64 = 86_400;

    /// A host that was forgotten at the second 0, with more events than one step takes.
    async fn forgotten_host(store: &Store) -> HostId {
        let found = store.candidates(&registration(7).identity).await.unwrap();
        let build = |id| domain::register(id, registration(7), Actor::Machine, at(0));
        let mut host = store.register(&found, build).await.unwrap();
        for _ in 0..EVENTS_PER_STEP + 20 {
            let kind = EventKind::ForeignBoot { from: [10, 0, 0, 9].into() };
            host = store.commit(&host, domain::note(&host, kind, Actor::Machine, at(0))).await.unwrap();
        }
        store.forget(&host, domain::forget(&host, Actor::Server, at(0))).await.unwrap();
        host.id
    }

    /// Trims once an hour from a second on, by a clock that runs evenly.
    async fn trim_for(store: &Store, from_s: i64, began: Instant, hours: u32) {
        for hour in 0..hours {
            let now = at(from_s + i64::from(hour) * 3_600);
            store.trim(now, began + Duration::from_secs(3_600) * hour).await.unwrap();
        }
    }

    async fn is_there(store: &Store, host: HostId) -> bool {
        let events = store.events(host, 0, 9).await.unwrap();
        let known = store.forgotten_host(host).await.unwrap().is_some();
        assert!(known || events.is_empty(), "events without their host");
        known && !events.is_empty()
    }

    #[tokio::test]
    async fn a_forgotten_host_leaves_after_a_season_unless_a_plugin_needs_it() {
        let (store, began) = (Store::memory(), Instant::now());
        let host = forgotten_host(&store).await;
        let last = store.forgotten_revision(host).await;
        trim_for(&store, 89 * DAY_S, began, 9).await;
        assert!(is_there(&store, host).await);
        store.keep_events("slow", last.before());
        trim_for(&store, 92 * DAY_S, began + Duration::from_secs(3 * 86_400), 9).await;
        assert!(is_there(&store, host).await);
        store.keep_events("slow", last);
        store.retention.keep_from("slow", host, 3);
        trim_for(&store, 93 * DAY_S, began + Duration::from_secs(4 * 86_400), 9).await;
        assert!(is_there(&store, host).await);
        store.retention.let_go("slow", host);
        trim_for(&store, 94 * DAY_S, began + Duration::from_secs(5 * 86_400), 9).await;
        assert!(!is_there(&store, host).await);
        assert_eq!(store.events(host, 0, 9).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_clock_that_jumps_takes_nothing_away_for_its_age() {
        let (store, began) = (Store::memory(), Instant::now());
        let host = forgotten_host(&store).await;
        trim_for(&store, 0, began, 9).await;
        let minutes = |count: u64| began + Duration::from_secs(9 * 3_600 + count * 60);
        // It is wrong for half an hour, and then set right.
        for minute in 0..30_u32 {
            store.trim(at(400 * DAY_S + i64::from(minute) * 60), minutes(minute.into())).await.unwrap();
        }
        store.trim(at(10 * 3_600), minutes(60)).await.unwrap();
        assert!(is_there(&store, host).await);
    }

    #[test]
    fn a_clock_is_trusted_after_an_even_hour() {
        let (mut clock, began) = (None, Instant::now());
        let mut look = |wall_s: i64, ran_s: u64| {
            SteadyClock::is_trusted(&mut clock, at(wall_s), began + Duration::from_secs(ran_s))
        };
        assert_eq!([look(0, 0), look(3_500, 3_500), look(3_600, 3_600)], [false, false, true]);
        assert_eq!([look(DAY_S, 3_630), look(DAY_S + 3_600, 7_229)], [false, false]);
        assert!(look(DAY_S + 3_601, 7_230));
    }
}
