//! Whether a store fits together: every record can be read, hosts and indexes name each other, events are numbered.
//!
//! Invariant: what is compared was read in one snapshot, so a store that is in use shows no problem that it does not have.
use std::fmt;

use super::{
    Store, StoreError, TIMELINE_EVENTS,
    hosts::MAX_IDS_PER_VALUE,
    keys,
    kv::{Entry, Key, Kv, KvError},
    record::{self, RecordError},
};
use crate::domain::{Host, HostId};

/// Entries per read.
const ENTRIES_PER_READ: u32 = 128;
/// Problems that are described; the rest is counted.
const MOST_DESCRIBED: usize = 100;
/// One more than a timeline has, to see that it ends.
const EVENTS_PER_READ: u32 = 1_000;

/// What was found in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Hosts.
    pub hosts: u64,
    /// Hosts that were forgotten.
    pub forgotten: u64,
    /// Tombstones of those that may be installed.
    pub tombstones: u64,
    /// Events.
    pub events: u64,
    /// Values by which hosts are found.
    pub indexed: u64,
    /// Values that plugins stored.
    pub plugin_values: u64,
    /// All keys.
    pub entries: u64,
    /// Keys and values together, in bytes.
    pub bytes: u64,
    /// The first problems.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problem_count: u64,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A record that cannot be read.
    Unreadable(Key, RecordError),
    /// A key that no part of the program writes.
    Foreign(Key),
    /// One half of a host.
    Half(HostId),
    /// A host that is not found by a value it has.
    NotIndexed(HostId, Key),
    /// An index entry that names a host without this value.
    WronglyIndexed(HostId, Key),
    /// Events that are missing, or too many.
    Numbering(HostId),
    /// Events of a host that there never was.
    OrphanEvents(HostId),
    /// A host that is both known and forgotten, or whose number could be given away again.
    Forgotten(HostId),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(key, error) => write!(f, "the record {key} cannot be read: {error}"),
            Self::Foreign(key) => write!(f, "the key {key} does not belong here"),
            Self::Half(host) => write!(f, "of host {host} only one of two records is there"),
            Self::NotIndexed(host, key) => write!(f, "host {host} is not found by {key}"),
            Self::WronglyIndexed(host, key) => write!(f, "{key} names host {host}, which has no such value"),
            Self::Numbering(host) => write!(f, "the events of host {host} are not numbered up to its newest one"),
            Self::OrphanEvents(host) => write!(f, "there are events of host {host}, which was never known"),
            Self::Forgotten(host) => write!(f, "host {host} is forgotten, but not for good"),
        }
    }
}

impl Check {
    /// Whether all is well.
    pub const fn is_good(&self) -> bool {
        self.problem_count == 0
    }

    fn note(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < MOST_DESCRIBED {
            self.problems.push(problem);
        }
    }
}

impl Store {
    /// Reads everything. `progress` is told how many entries were read. Errors are those of the backend; what is wrong
    /// with records is in the answer.
    pub async fn check(&self, mut progress: impl FnMut(u64)) -> Result<Check, StoreError> {
        let mut check = Check::default();
        let mut after: Option<Key> = None;
        let mut events_of = None;
        loop {
            let (_, page) = self.kv.scan(b"", after.as_ref().map(Key::as_bytes), ENTRIES_PER_READ).await?;
            for entry in &page {
                check.entries += 1;
                check.bytes += (entry.key.as_bytes().len() + entry.value.len()) as u64;
                self.check_entry(&mut check, entry, &mut events_of).await?;
            }
            progress(check.entries);
            if page.len() < ENTRIES_PER_READ as usize {
                return Ok(check);
            }
            after = page.last().map(|entry| entry.key.clone());
            // Machines first.
            tokio::task::yield_now().await;
        }
    }

    async fn check_entry(
        &self,
        check: &mut Check,
        entry: &Entry,
        events_of: &mut Option<HostId>,
    ) -> Result<(), StoreError> {
        let has_prefix = |prefix: &str| entry.key.as_bytes().starts_with(prefix.as_bytes());
        let host = || keys::host_id(&entry.key).ok_or(RecordError::Field { field: "key" });
        let read = if has_prefix(keys::COLD) {
            match host() {
                Ok(id) => return self.check_host(check, id).await,
                Err(error) => Err(error),
            }
        } else if has_prefix(keys::HOT) {
            match host() {
                Ok(id) => {
                    check.hosts += 1;
                    return self.check_timeline(check, id).await;
                }
                Err(error) => Err(error),
            }
        } else if has_prefix(keys::FORGOTTEN) {
            check.forgotten += 1;
            match host() {
                Ok(id) => return self.check_forgotten(check, id).await,
                Err(error) => Err(error),
            }
        } else if has_prefix(keys::TOMBSTONES) {
            check.tombstones += 1;
            match host() {
                Ok(id) => return self.check_tombstone(check, id).await,
                Err(error) => Err(error),
            }
        } else if has_prefix(keys::TOMBSTONE_INDEX) {
            return self.check_tombstone_index(check, &entry.key).await;
        } else if has_prefix(keys::INDEX) {
            check.indexed += 1;
            return self.check_index(check, &entry.key).await;
        } else if has_prefix(keys::EVENTS) {
            check.events += 1;
            let place = keys::event_place(&entry.key).ok_or(RecordError::Field { field: "key" });
            if let Ok((id, _)) = place
                && *events_of != Some(id)
            {
                *events_of = Some(id);
                self.check_parent(check, id).await?;
            }
            place.and_then(|(id, seq)| record::decode_event(id, seq, &entry.value).map(drop))
        } else if has_prefix(keys::DEAD_LETTERS) {
            let place = keys::dead_letter_place(&entry.key).ok_or(RecordError::Field { field: "key" });
            place.and_then(|(id, seq)| record::decode_dead_letter(id, seq, &entry.value).map(drop))
        } else if has_prefix(keys::PLUGIN_VALUES) {
            // Their own plugins know what they are.
            check.plugin_values += 1;
            Ok(())
        } else {
            match small(entry) {
                Some(read) => read,
                None => {
                    check.note(Problem::Foreign(entry.key.clone()));
                    Ok(())
                }
            }
        };
        if let Err(error) = read {
            check.note(Problem::Unreadable(entry.key.clone(), error));
        }
        Ok(())
    }

    /// A host's records, and that it is found by every value it has.
    async fn check_host(&self, check: &mut Check, id: HostId) -> Result<(), StoreError> {
        let own = [keys::cold(id), keys::hot(id)];
        let host = match self.snapshot_host(&own).await? {
            Ok(Some(host)) => host,
            Ok(None) => return Ok(()),
            Err(problem) => {
                check.note(problem(id));
                return Ok(());
            }
        };
        // Once more, now with the entries that its values need, in one snapshot.
        let index = keys::index(&host.identity).map_err(KvError::from)?;
        let wanted: Vec<Key> = own.iter().chain(&index).cloned().collect();
        let (_, found) = self.kv.get(&wanted).await?;
        let Some((records, entries)) = found.split_at_checked(own.len()) else { return Ok(()) };
        // Another identity by now: whoever wrote it saw to its entries.
        if decoded(id, records).ok().flatten().is_none_or(|again| again.identity != host.identity) {
            return Ok(());
        }
        for (key, entry) in index.into_iter().zip(entries) {
            let ids = entry.as_ref().map_or_else(|| Ok(Vec::new()), |entry| record::decode_ids(&entry.value));
            let is_named = ids.is_ok_and(|ids| ids.contains(&id) || ids.len() >= MAX_IDS_PER_VALUE);
            if !is_named {
                check.note(Problem::NotIndexed(id, key));
            }
        }
        Ok(())
    }

    /// An index entry, and that the hosts it names have its value.
    async fn check_index(&self, check: &mut Check, key: &Key) -> Result<(), StoreError> {
        let ids = |entry: Option<&Option<Entry>>| match entry {
            Some(Some(entry)) => record::decode_ids(&entry.value),
            Some(None) | None => Ok(Vec::new()),
        };
        let (_, first) = self.kv.get(std::slice::from_ref(key)).await?;
        let named = match ids(first.first()) {
            Ok(named) => named,
            Err(error) => {
                check.note(Problem::Unreadable(key.clone(), error));
                return Ok(());
            }
        };
        let hosts = named.iter().flat_map(|id| [keys::cold(*id), keys::hot(*id)]);
        let wanted: Vec<Key> = std::iter::once(key.clone()).chain(hosts).collect();
        let (_, found) = self.kv.get(&wanted).await?;
        if ids(found.first()).as_ref() != Ok(&named) {
            return Ok(());
        }
        for (id, records) in named.iter().zip(found.get(1..).unwrap_or_default().chunks(2)) {
            let host = decoded(*id, records).ok().flatten();
            let has_it = host.is_some_and(|host| keys::index(&host.identity).is_ok_and(|keys| keys.contains(key)));
            if !has_it {
                check.note(Problem::WronglyIndexed(*id, key.clone()));
            }
        }
        Ok(())
    }

    /// The newest events of a host have all numbers up to that of the newest one.
    async fn check_timeline(&self, check: &mut Check, id: HostId) -> Result<(), StoreError> {
        let own = [keys::cold(id), keys::hot(id)];
        // Its other record reports what cannot be read.
        let Ok(Some(host)) = self.snapshot_host(&own).await? else {
            let (_, found) = self.kv.get(&own).await?;
            if matches!(found.as_slice(), [None, Some(_)]) {
                check.note(Problem::Half(id));
            }
            return Ok(());
        };
        self.check_numbers(check, id, host.event_count).await
    }

    async fn check_numbers(&self, check: &mut Check, id: HostId, count: u64) -> Result<(), StoreError> {
        let oldest = count.saturating_sub(TIMELINE_EVENTS) + 1;
        let (prefix, after) = (keys::events_of(id), keys::event(id, oldest - 1));
        let (_, events) = self.kv.scan(prefix.as_bytes(), Some(after.as_bytes()), EVENTS_PER_READ).await?;
        let numbers: Vec<u64> = events.iter().filter_map(|e| keys::event_place(&e.key)).map(|(_, seq)| seq).collect();
        let follow = numbers.windows(2).all(|pair| matches!(pair, [one, next] if one + 1 == *next));
        let (first, last) = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(0));
        // Meanwhile there may be newer ones, and older ones may have left for them.
        let begins = first == oldest || first <= last.saturating_sub(TIMELINE_EVENTS) + 1;
        if !follow || !begins || last < count {
            check.note(Problem::Numbering(id));
        }
        Ok(())
    }

    /// Events belong to a host that is known or forgotten.
    async fn check_parent(&self, check: &mut Check, id: HostId) -> Result<(), StoreError> {
        let (_, found) = self.kv.get(&[keys::hot(id), keys::forgotten(id)]).await?;
        if found.iter().all(Option::is_none) {
            check.note(Problem::OrphanEvents(id));
        }
        Ok(())
    }

    async fn check_forgotten(&self, check: &mut Check, id: HostId) -> Result<(), StoreError> {
        let key = keys::forgotten(id);
        let (_, found) = self.kv.get(&[key.clone(), keys::hot(id), keys::LAST_FORGOTTEN]).await?;
        let [Some(forgotten), hot, last] = found.as_slice() else { return Ok(()) };
        let last = last.as_ref().and_then(|entry| record::decode_number(&entry.value).ok()).unwrap_or(0);
        if hot.is_some() || last < id.get() {
            check.note(Problem::Forgotten(id));
        }
        match record::decode_forgotten(id, &forgotten.value) {
            Ok(host) => self.check_numbers(check, id, host.event_count).await,
            Err(error) => {
                check.note(Problem::Unreadable(key, error));
                Ok(())
            }
        }
    }

    /// A tombstone is of no host that is known, and is found by every value it has.
    async fn check_tombstone(&self, check: &mut Check, id: HostId) -> Result<(), StoreError> {
        let key = keys::tombstone(id);
        let read = |entry: &Option<Entry>| entry.as_ref().map(|entry| record::decode_tombstone(id, &entry.value));
        let (_, found) = self.kv.get(std::slice::from_ref(&key)).await?;
        let identity = match found.first().and_then(read) {
            Some(Ok(tombstone)) => tombstone.identity,
            Some(Err(error)) => {
                check.note(Problem::Unreadable(key, error));
                return Ok(());
            }
            None => return Ok(()),
        };
        let index = keys::tombstone_index(&identity).map_err(KvError::from)?;
        let wanted: Vec<Key> = [key, keys::hot(id), keys::LAST_FORGOTTEN].into_iter().chain(index.clone()).collect();
        let (_, found) = self.kv.get(&wanted).await?;
        let [Some(_), hot, last, entries @ ..] = found.as_slice() else { return Ok(()) };
        let last = last.as_ref().and_then(|entry| record::decode_number(&entry.value).ok()).unwrap_or(0);
        if hot.is_some() || last < id.get() {
            check.note(Problem::Forgotten(id));
        }
        for (key, entry) in index.into_iter().zip(entries) {
            let ids = entry.as_ref().map_or_else(|| Ok(Vec::new()), |entry| record::decode_ids(&entry.value));
            if !ids.is_ok_and(|ids| ids.contains(&id) || ids.len() >= MAX_IDS_PER_VALUE) {
                check.note(Problem::NotIndexed(id, key));
            }
        }
        Ok(())
    }

    /// An index entry of tombstones, and that those it names have its value.
    async fn check_tombstone_index(&self, check: &mut Check, key: &Key) -> Result<(), StoreError> {
        let ids = |found: &[Option<Entry>]| match found.first() {
            Some(Some(entry)) => record::decode_ids(&entry.value),
            Some(None) | None => Ok(Vec::new()),
        };
        let (_, first) = self.kv.get(std::slice::from_ref(key)).await?;
        let named = match ids(&first) {
            Ok(named) => named,
            Err(error) => {
                check.note(Problem::Unreadable(key.clone(), error));
                return Ok(());
            }
        };
        let wanted: Vec<Key> =
            std::iter::once(key.clone()).chain(named.iter().map(|id| keys::tombstone(*id))).collect();
        let (_, found) = self.kv.get(&wanted).await?;
        if ids(&found).as_ref() != Ok(&named) {
            return Ok(());
        }
        for (id, entry) in named.iter().zip(found.get(1..).unwrap_or_default()) {
            let tombstone = entry.as_ref().and_then(|entry| record::decode_tombstone(*id, &entry.value).ok());
            let index = tombstone.and_then(|tombstone| keys::tombstone_index(&tombstone.identity).ok());
            if !index.is_some_and(|index| index.contains(key)) {
                check.note(Problem::WronglyIndexed(*id, key.clone()));
            }
        }
        Ok(())
    }

    /// A host from one snapshot of its records, or what is wrong with them.
    async fn snapshot_host(
        &self,
        own: &[Key; 2],
    ) -> Result<Result<Option<Host>, impl Fn(HostId) -> Problem + use<>>, StoreError> {
        let (_, found) = self.kv.get(own).await?;
        let [cold, _] = own.clone();
        let id = keys::host_id(&cold).unwrap_or(HostId::new(0));
        let is_half = found.iter().filter(|entry| entry.is_some()).count() == 1;
        let read = decoded(id, &found);
        Ok(read.map_err(|error| {
            move |id| if is_half { Problem::Half(id) } else { Problem::Unreadable(cold.clone(), error.clone()) }
        }))
    }
}

/// A host of its two records; none if it has none.
fn decoded(id: HostId, records: &[Option<Entry>]) -> Result<Option<Host>, RecordError> {
    match records {
        [Some(cold), Some(hot)] => record::decode_host(id, &cold.value, &hot.value).map(Some),
        [None, None] => Ok(None),
        _ => Err(RecordError::Short),
    }
}

/// What stands alone; none for a key that nobody writes.
fn small(entry: &Entry) -> Option<Result<(), RecordError>> {
    let (key, value) = (&entry.key, &entry.value);
    let has_prefix = |prefix: &str| key.as_bytes().starts_with(prefix.as_bytes());
    Some(match key {
        key if [keys::SCHEMA, keys::GENERATION, keys::LAST_FORGOTTEN].contains(key) => {
            record::decode_number(value).map(drop)
        }
        key if [keys::RESTORED, keys::UNAPPROVED].contains(key) => record::decode_restored(value).map(drop),
        key if *key == keys::FROZEN => record::decode_safeguard(value).map(drop),
        key if *key == keys::REINSTALLS => record::decode_moments(value).map(drop),
        _ if has_prefix(keys::CURSORS) => record::decode_cursor(value).map(drop),
        _ if has_prefix(keys::PARKED) => record::decode_parked(value).map(drop),
        _ if has_prefix(keys::JOBS) => record::decode_job(value).map(drop),
        _ if has_prefix(keys::LEASES) => record::decode_lease(value).map(drop),
        _ if has_prefix(keys::ORDERS) => record::check_spent_order(value),
        _ if has_prefix(keys::APPROVALS) => record::decode_orders(value).map(drop),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
