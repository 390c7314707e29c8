//! Which events stay although the timeline has newer ones: those that a plugin must still be told of.
//!
//! Invariant: an event leaves the timeline only if every plugin's cursor is behind its commit and no plugin has its host
//! parked at or before it; or if it is older than a week. What was held is remembered and leaves later, in bounded steps.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
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
        if !inner.cursors.is_empty() {
            inner.unswept_after = Some(HostId::new(0));
        }
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
    fn leaving(&self, host: HostId, oldest: &TimelinePart, now: Timestamp) -> Vec<Key> {
        let told = self.told_to_all();
        let is_told =
            |revision: Revision, seq: u64| told.is_none_or(|told| revision <= told) && !self.is_parked_at(host, seq);
        let lost = oldest.unreadable.iter().take_while(|lost| is_told(lost.revision, lost.seq)).map(|lost| lost.seq);
        let lost: Vec<u64> = lost.collect();
        let events: &[EventAt] = if lost.len() == oldest.unreadable.len() { &oldest.events } else { &[] };
        let may_leave =
            |at: &&EventAt| is_told(at.revision, at.event.seq) || now.duration_since(at.event.at) > UNDELIVERED_FOR;
        let read = events.iter().take_while(may_leave).map(|at| at.event.seq);
        lost.into_iter().chain(read).map(|seq| keys::event(host, seq)).collect()
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

    /// Takes away events that were held and need not be any longer: a bounded step. Returns how many left.
    pub async fn trim(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.sweep().await?;
        let hosts: Vec<HostId> = {
            let mut inner = self.retention.lock();
            let later = inner.held.iter().copied().filter(|host| inner.trimmed.is_none_or(|last| *host > last));
            let hosts: Vec<HostId> = later.take(HOSTS_PER_STEP).collect();
            inner.trimmed = hosts.last().copied().filter(|_| hosts.len() == HOSTS_PER_STEP);
            hosts
        };
        let mut left = 0;
        for host in hosts {
            left += self.trim_host(host, now).await?;
        }
        Ok(left)
    }

    async fn trim_host(&self, host: HostId, now: Timestamp) -> Result<usize, StoreError> {
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
        let leaving = self.retention.lock().leaving(host, &surplus, now);
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
}
