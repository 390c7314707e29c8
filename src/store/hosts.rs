//! The store as the rest of the program sees it: hosts, their indexes and their events, never one without the others.
//!
//! Invariants:
//! - One commit writes a host, its index entries and its events; who reads sees all of them or none.
//! - A host is written only if it is still the one that the change was made from. Its number of events is its version,
//!   as every change has at least one.
//! - A commit of a boot writes the hot record and the events, never the cold record.
//! - A host's number is never used again, and its events are numbered without gaps.
//! - Two machines that share an identity value cannot both become known without the second being judged against the
//!   first.
#[cfg(test)]
mod tests;
mod tombstones;
mod write;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64},
};

use super::{
    events::{EventStream, Generation, Position},
    keys,
    kv::{Backend, Commit, Entry, Key, Kv, KvError, MAX_SCAN_ENTRIES, Outcome, Revision, Stopped},
    memory::MemoryKv,
    quarantine::is_restored,
    record::{self, RecordError},
    retention::Retention,
    sled::{OpenError as SledOpenError, SledKv, SledOptions},
};
use crate::domain::{Candidate, Event, Host, HostId, Identity, OrderName, Tombstone};

/// Events of a host that are kept; older ones leave with the commit that adds newer ones.
pub const TIMELINE_EVENTS: u64 = 1_000;
/// Most hosts that one index entry names. More share a value only if it is no evidence, and then they are found by
/// others.
pub const MAX_IDS_PER_VALUE: usize = 64;

/// The layout of keys and records.
///
/// 1: the first release. 2: hot records of version 2; those of version 1 are rewritten when their hosts change. 3: locks, the
/// freeze and counted reinstalls, which an earlier program would not heed.
pub(super) const SCHEMA: u64 = 3;
/// Hosts per read: two records each, so that a list never keeps a thread busy for long.
const HOSTS_PER_READ: usize = 32;
/// How often the very first commit is tried.
const MOST_TRIES: u32 = 16;

/// The one store. Share it by `Arc`.
#[derive(Debug)]
pub struct Store {
    pub(super) kv: Backend,
    pub(super) generation: Generation,
    /// What keeps old events from leaving.
    pub(super) retention: Retention,
    /// The next number to try; the store itself decides whether it is free.
    next_id: AtomicU64,
    /// Whether a backup was restored and hosts that become known are quarantined, too.
    pub(super) is_quarantined: AtomicBool,
    /// The next operation id: random at the start, so that no two processes use the same.
    next_operation: AtomicU64,
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The files cannot be used.
    #[error(transparent)]
    Files(#[from] SledOpenError),
    /// They can, but not what is in them.
    #[error("the store cannot be read; keep its files, and bring back your last backup with `kiwispray restore`")]
    Content(#[from] StoreError),
    /// A newer program wrote it.
    #[error("the store has layout {found}, and this program knows up to {SCHEMA}: use a newer kiwispray")]
    Newer {
        /// Its layout.
        found: u64,
    },
    /// The operating system has no randomness.
    #[error("there is no randomness to name the store with: {0}")]
    Randomness(getrandom::Error),
}

/// Why a request to the store did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The host, or who shares an identity with it, changed meanwhile or is gone. Nothing was written: read again.
    #[error("the host changed meanwhile")]
    Conflict,
    /// An order of this name was carried out for this host before. Nothing was written, and never will be.
    #[error("an order of this name was carried out before")]
    OrderSpent,
    /// A host has this number, or had it before it was forgotten. Nothing was written, and never will be.
    #[error("the number {0} was given to a host before")]
    NumberUsed(HostId),
    /// The events do not follow those of the host, or there are none. A mistake in this program.
    #[error("the change of host {host} is not numbered as its events are")]
    Misnumbered {
        /// Whose change it is.
        host: HostId,
    },
    /// The backend's own reasons: full, stopped, damaged.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A record that this program cannot read.
    #[error("the record {key} cannot be read; `kiwispray restore` brings back a backup")]
    Record {
        /// Where it lies.
        key: Key,
        /// What is wrong.
        source: RecordError,
    },
}

/// The hosts that share something with an identity, and the proof that there were no others.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// In the order of their numbers.
    pub hosts: Vec<Host>,
    /// Forgotten ones that may be installed, in the order of their numbers.
    pub tombstones: Vec<Tombstone>,
    seen: Vec<Indexed>,
}

impl Candidates {
    /// All of them, to be judged together.
    #[must_use]
    pub fn judged(&self) -> Vec<Candidate> {
        self.hosts.iter().map(Candidate::from).chain(self.tombstones.iter().map(Candidate::from)).collect()
    }

    /// The tombstones with these numbers.
    #[must_use]
    pub fn forgotten(&self, ids: &[HostId]) -> Vec<&Tombstone> {
        self.tombstones.iter().filter(|tombstone| ids.contains(&tombstone.id)).collect()
    }
}

/// An index entry as it was read; without hosts if it does not exist.
#[derive(Clone, Debug)]
struct Indexed {
    key: Key,
    revision: Revision,
    ids: Vec<HostId>,
}

// ---- Opening and closing ----

impl Store {
    /// Opens or creates the store in `dir`. Reading the log of a large one takes seconds.
    pub async fn open(dir: &Path, options: &SledOptions) -> Result<Self, OpenError> {
        let (dir, options) = (dir.to_owned(), options.clone());
        let opening = tokio::task::spawn_blocking(move || SledKv::open(&dir, &options));
        let kv = opening.await.map_err(|_| StoreError::from(KvError::NotApplied(Stopped::Closed)))??;
        Self::over(Backend::Sled(kv)).await
    }

    /// A new store that is gone with the process.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            kv: Backend::Memory(MemoryKv::default()),
            generation: Generation::new(0),
            retention: Retention::default(),
            next_id: AtomicU64::new(1),
            is_quarantined: AtomicBool::new(false),
            next_operation: AtomicU64::new(1),
        }
    }

    pub(super) async fn over(kv: Backend) -> Result<Self, OpenError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(OpenError::Randomness)?;
        let [generation, operation] = [0, 8].map(|at| {
            let bytes = random.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_be_bytes(bytes.unwrap_or_default())
        });
        let generation = start(&kv, generation).await?;
        let next_id = highest_id(&kv).await?.saturating_add(1);
        let retention = Retention::read(&kv, generation).await?;
        let (next_id, next_operation) = (AtomicU64::new(next_id), AtomicU64::new(operation));
        let is_quarantined = AtomicBool::new(is_restored(&kv).await?);
        let store = Self { kv, generation, retention, next_id, is_quarantined, next_operation };
        match store.clear_leases().await {
            // They run out by themselves, and a full disk must not keep machines from their answers.
            Ok(()) | Err(StoreError::Kv(KvError::Full { .. })) => Ok(store),
            Err(error) => Err(error.into()),
        }
    }

    /// `Ok` while a write has a chance; the error says why not. Cheap enough to ask before every answer.
    pub fn writable(&self) -> Result<(), StoreError> {
        Ok(self.kv.writable()?)
    }

    /// Resolves once the store works no longer, with the reason. After a failure the process must end: what it would
    /// write from then on could be lost.
    pub async fn stopped(&self) -> Stopped {
        self.kv.stopped().await
    }

    /// Waits for the writes under way and refuses all later ones.
    pub async fn close(&self) {
        self.kv.close().await;
    }

    /// Closes the store and lets go of its files, for the next process: nothing can be read any more.
    pub async fn release(&self) {
        self.kv.release().await;
    }

    /// The random name of this store; a restored one has another.
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

/// Checks the layout, or writes it into an empty store.
async fn start(kv: &Backend, random: u64) -> Result<Generation, OpenError> {
    for _ in 0..MOST_TRIES {
        let (_, entries) = kv.get(&[keys::SCHEMA, keys::GENERATION]).await.map_err(StoreError::from)?;
        if let [Some(schema), Some(generation)] = entries.as_slice() {
            let found = number(schema)?;
            if found > SCHEMA {
                return Err(OpenError::Newer { found });
            }
            if found < SCHEMA {
                upgrade(kv, schema.revision).await?;
            }
            return Ok(Generation::new(number(generation)?));
        }
        let mut first = Commit::default();
        first.guard(keys::SCHEMA, Revision::ZERO);
        first.put(keys::SCHEMA, record::encode_number(SCHEMA));
        first.put(keys::GENERATION, record::encode_number(random));
        kv.commit(first).await.map_err(StoreError::from)?;
    }
    Err(StoreError::Conflict.into())
}

/// From layout to layout nothing was rewritten so far; but an earlier program must not read what this one writes.
async fn upgrade(kv: &Backend, read_at: Revision) -> Result<(), OpenError> {
    let mut commit = Commit::default();
    commit.guard(keys::SCHEMA, read_at);
    commit.put(keys::SCHEMA, record::encode_number(SCHEMA));
    match kv.commit(commit).await.map_err(StoreError::from)? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict(_) => Err(StoreError::Conflict.into()),
    }
}

/// The highest number that was ever given to a host.
pub(super) async fn highest_id(kv: &Backend) -> Result<u64, StoreError> {
    let forgotten = match kv.get(&[keys::LAST_FORGOTTEN]).await?.1.as_slice() {
        [Some(entry)] => number(entry)?,
        _ => 0,
    };
    // The seam reads forward only: halve the numbers until the last host is found.
    let (mut low, mut high) = (0, u64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        let after = keys::hot(HostId::new(middle));
        let (_, later) = kv.scan(keys::HOT.as_bytes(), Some(after.as_bytes()), 1).await?;
        match later.first().and_then(|entry| keys::host_id(&entry.key)) {
            Some(id) => low = id.get(),
            None => high = middle,
        }
    }
    Ok(low.max(forgotten))
}

// ---- Reading ----

impl Store {
    /// The host with this number.
    pub async fn host(&self, id: HostId) -> Result<Option<Host>, StoreError> {
        Ok(self.load(&[id]).await?.pop())
    }

    /// Every host that shares a serial, UUID or MAC with this identity, also those that were forgotten and may be installed.
    pub async fn candidates(&self, identity: &Identity) -> Result<Candidates, StoreError> {
        let mut wanted = keys::index(identity).map_err(KvError::from)?;
        wanted.extend(keys::tombstone_index(identity).map_err(KvError::from)?);
        let seen = self.indexed(wanted).await?;
        let named = |prefix: &str| {
            let entries = seen.iter().filter(|indexed| indexed.key.as_bytes().starts_with(prefix.as_bytes()));
            let ids: BTreeSet<HostId> = entries.flat_map(|indexed| &indexed.ids).copied().collect();
            ids.into_iter().collect::<Vec<_>>()
        };
        let hosts = self.load(&named(keys::INDEX)).await?;
        let tombstones = self.load_tombstones(&named(keys::TOMBSTONE_INDEX)).await?;
        Ok(Candidates { hosts, tombstones, seen })
    }

    /// Whether an order of this name was carried out for a host, ever.
    pub async fn is_order_spent(&self, id: HostId, name: &OrderName) -> Result<bool, StoreError> {
        let (_, found) = self.kv.get(&[keys::spent_order(id, name)]).await?;
        Ok(found.iter().any(Option::is_some))
    }

    /// Hosts in the order of their numbers, after `after` if given, at most `limit`.
    pub async fn hosts(&self, after: Option<HostId>, limit: u32) -> Result<Vec<Host>, StoreError> {
        let after = after.map(keys::hot);
        let limit = limit.min(MAX_SCAN_ENTRIES);
        let (_, hot) = self.kv.scan(keys::HOT.as_bytes(), after.as_ref().map(Key::as_bytes), limit).await?;
        let ids: Vec<HostId> = hot.iter().filter_map(|entry| keys::host_id(&entry.key)).collect();
        self.load(&ids).await
    }

    /// The timeline of a host from an event on, oldest first; also of a host that is forgotten.
    pub async fn events(&self, id: HostId, from_seq: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let after = from_seq.checked_sub(1).map(|seq| keys::event(id, seq));
        let (prefix, limit) = (keys::events_of(id), limit.min(MAX_SCAN_ENTRIES));
        let (_, entries) = self.kv.scan(prefix.as_bytes(), after.as_ref().map(Key::as_bytes), limit).await?;
        let event = |entry: &Entry| {
            let place = keys::event_place(&entry.key).ok_or(RecordError::Field { field: "key" });
            place.and_then(|(host, seq)| record::decode_event(host, seq, &entry.value)).map_err(unreadable(&entry.key))
        };
        entries.iter().map(event).collect()
    }

    /// The events of all hosts as they are committed: after a position if given, else from now on.
    pub fn subscribe(&self, after: Option<Position>) -> EventStream {
        let from = after.map_or(Revision::ZERO, |position| position.revision);
        EventStream::new(self.kv.watch(keys::EVENTS.as_bytes(), from), self.generation, after)
    }

    /// Those of the hosts that exist, each one as a whole.
    pub(super) async fn load(&self, ids: &[HostId]) -> Result<Vec<Host>, StoreError> {
        let mut hosts = Vec::with_capacity(ids.len());
        for ids in ids.chunks(HOSTS_PER_READ) {
            let wanted: Vec<Key> = ids.iter().flat_map(|id| [keys::cold(*id), keys::hot(*id)]).collect();
            let (_, records) = self.kv.get(&wanted).await?;
            for (id, pair) in ids.iter().zip(records.chunks(2)) {
                match pair {
                    [Some(cold), Some(hot)] => {
                        let host = record::decode_host(*id, &cold.value, &hot.value);
                        hosts.push(host.map_err(unreadable(&hot.key))?);
                    }
                    [None, None] => {}
                    // One commit writes both, so this is damage.
                    _ => return Err(unreadable(&keys::hot(*id))(RecordError::Short)),
                }
            }
        }
        Ok(hosts)
    }

    async fn indexed(&self, wanted: Vec<Key>) -> Result<Vec<Indexed>, StoreError> {
        let (_, entries) = self.kv.get(&wanted).await?;
        let indexed = wanted.into_iter().zip(entries).map(|(key, entry)| match entry {
            Some(entry) => {
                let ids = record::decode_ids(&entry.value).map_err(unreadable(&key))?;
                Ok(Indexed { key, revision: entry.revision, ids })
            }
            None => Ok(Indexed { key, revision: Revision::ZERO, ids: Vec::new() }),
        });
        indexed.collect()
    }
}

fn number(entry: &Entry) -> Result<u64, StoreError> {
    record::decode_number(&entry.value).map_err(unreadable(&entry.key))
}

pub(super) fn unreadable(key: &Key) -> impl Fn(RecordError) -> StoreError {
    let key = key.clone();
    move |source| StoreError::Record { key: key.clone(), source }
}
