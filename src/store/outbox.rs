//! What the store keeps for those who tell plugins of events and run their jobs, and how they read what they missed.
//!
//! Invariant: the cursor of a plugin moves over a commit only after each of its events was told, or its host is durably
//! parked, or a copy lies among the dead letters. So whoever goes on from a cursor and the parked hosts misses nothing.
use futures_util::FutureExt as _;
use jiff::Timestamp;

use super::{
    events::{EventStream, StreamError, Unreadable},
    hosts::{Store, StoreError, unreadable},
    keys,
    kv::{Commit, Entry, Key, Kv, KvError, MAX_OPS, MAX_SCAN_ENTRIES, Outcome, Revision},
    record::{self, CatchUpStage, DeadLetter, JobRun, Lease, OutboxCursor, Parked, RecordError},
};
use crate::domain::{Event, Host, HostId};

/// An event and the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventAt {
    /// What happened.
    pub event: Event,
    /// When, in the history of the store.
    pub revision: Revision,
}

/// A part of a timeline, oldest first. An event that cannot be read stands at its beginning, or the part ends before it:
/// so whoever passes the part knows what was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelinePart {
    /// Events before the others that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Those behind them.
    pub events: Vec<EventAt>,
    /// Whether there is nothing behind this part.
    pub is_last: bool,
}

impl TimelinePart {
    /// The number of the first event, whether or not it can be read.
    pub fn first_seq(&self) -> Option<u64> {
        self.unreadable.first().map(|lost| lost.seq).or(self.events.first().map(|at| at.event.seq))
    }

    /// The number and the commit of the last event, whether or not it can be read.
    pub fn last(&self) -> Option<(u64, Revision)> {
        let last = self.events.last().map(|at| (at.event.seq, at.revision));
        last.or(self.unreadable.last().map(|lost| (lost.seq, lost.revision)))
    }
}

/// A host that changed since a revision, and how many events it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which one.
    pub host: HostId,
    /// The number of its newest event.
    pub newest_seq: u64,
}

/// A page of a pass over all hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPage {
    /// Those that changed.
    pub changed: Vec<Changed>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<HostId>,
}

// ---- Cursors ----

impl Store {
    /// How far a plugin was told; none if it was never told of anything.
    pub async fn outbox_cursor(&self, plugin: &str) -> Result<Option<OutboxCursor>, StoreError> {
        let key = keys::cursor(plugin).map_err(KvError::from)?;
        self.record(&key, record::decode_cursor).await
    }

    /// Moves a plugin's cursor. Events before it may leave the timeline from then on.
    pub async fn move_cursor(&self, plugin: &str, cursor: &OutboxCursor) -> Result<(), StoreError> {
        let key = keys::cursor(plugin).map_err(KvError::from)?;
        let mut commit = Commit::default();
        commit.put(key, record::encode_cursor(cursor));
        self.kv.commit(commit).await?;
        self.retention.keep_after(plugin, cursor.revision);
        Ok(())
    }

    /// The plugins that were ever told of events, in order.
    pub async fn outbox_plugins(&self) -> Result<Vec<String>, StoreError> {
        let entries = self.scan_all(keys::CURSORS.as_bytes()).await?;
        Ok(entries.iter().filter_map(|entry| keys::cursor_plugin(&entry.key)).collect())
    }

    /// Events after this commit stay for a plugin, whether or not timelines have room for them.
    pub fn keep_events(&self, plugin: &str, after: Revision) {
        self.retention.keep_after(plugin, after);
    }

    /// Events that a plugin was not told of yet no longer stay for it; its cursor does.
    pub fn release_events(&self, plugin: &str) {
        self.retention.release(plugin);
    }

    /// Takes away everything that is kept for a plugin: its cursor, parked hosts, dead letters and leases.
    pub async fn forget_outbox(&self, plugin: &str) -> Result<(), StoreError> {
        self.retention.release(plugin);
        let own = [keys::cursor(plugin), keys::lease(plugin)].into_iter().collect::<Result<Vec<_>, _>>();
        self.delete_all(own.map_err(KvError::from)?).await?;
        let prefixes = [keys::parked_of(plugin), keys::dead_letters_of(plugin), keys::jobs_of(plugin)];
        for prefix in prefixes.into_iter().collect::<Result<Vec<_>, _>>().map_err(KvError::from)? {
            let entries = self.scan_all(prefix.as_bytes()).await?;
            self.delete_all(entries.into_iter().map(|entry| entry.key).collect()).await?;
        }
        Ok(())
    }
}

// ---- Parked hosts ----

impl Store {
    /// All parked hosts of a plugin, in order.
    pub async fn parked_hosts(&self, plugin: &str) -> Result<Vec<(HostId, Parked)>, StoreError> {
        let prefix = keys::parked_of(plugin).map_err(KvError::from)?;
        let parked = |entry: Entry| {
            let place = keys::parked_place(&entry.key).ok_or(RecordError::Field { field: "key" });
            let parked = place.and_then(|(_, host)| Ok((host, record::decode_parked(&entry.value)?)));
            parked.map_err(unreadable(&entry.key))
        };
        self.scan_all(prefix.as_bytes()).await?.into_iter().map(parked).collect()
    }

    /// Parks a host, or writes what became of one that is parked.
    pub async fn park(&self, plugin: &str, host: HostId, parked: &Parked) -> Result<(), StoreError> {
        let mut commit = Commit::default();
        self.put_parked(&mut commit, plugin, host, Some(parked))?;
        self.commit_parked(commit, plugin, host, Some(parked)).await
    }

    /// Everything was told: the host is like any other again.
    pub async fn unpark(&self, plugin: &str, host: HostId) -> Result<(), StoreError> {
        let mut commit = Commit::default();
        self.put_parked(&mut commit, plugin, host, None)?;
        self.commit_parked(commit, plugin, host, None).await
    }

    /// Puts an event among the dead letters, and writes where its host stands from then on, in one commit.
    pub async fn bury(&self, plugin: &str, letter: &DeadLetter, parked: Option<&Parked>) -> Result<(), StoreError> {
        let (host, seq) = (letter.event.host, letter.event.seq);
        let key = keys::dead_letter(plugin, host, seq).map_err(KvError::from)?;
        let mut commit = Commit::default();
        commit.put(key.clone(), record::encode_dead_letter(letter).map_err(unreadable(&key))?);
        self.put_parked(&mut commit, plugin, host, parked)?;
        self.commit_parked(commit, plugin, host, parked).await
    }

    fn put_parked(
        &self,
        commit: &mut Commit,
        plugin: &str,
        host: HostId,
        parked: Option<&Parked>,
    ) -> Result<(), StoreError> {
        let key = keys::parked(plugin, host).map_err(KvError::from)?;
        match parked {
            Some(parked) => {
                commit.put(key.clone(), record::encode_parked(parked).map_err(unreadable(&key))?);
            }
            None => commit.delete(key),
        }
        Ok(())
    }

    async fn commit_parked(
        &self,
        commit: Commit,
        plugin: &str,
        host: HostId,
        parked: Option<&Parked>,
    ) -> Result<(), StoreError> {
        // Held before it is parked and let go after it is not: events never leave in between.
        if let Some(parked) = parked {
            self.retention.keep_from(plugin, host, parked.from_seq);
        }
        self.kv.commit(commit).await?;
        if parked.is_none() {
            self.retention.let_go(plugin, host);
        }
        Ok(())
    }
}

// ---- Dead letters ----

impl Store {
    /// A plugin's dead letters, by host and number, after one if given; of one host only if given.
    pub async fn dead_letters(
        &self,
        plugin: &str,
        host: Option<HostId>,
        after: Option<(HostId, u64)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let prefix = match host {
            Some(host) => keys::dead_letters_about(plugin, host),
            None => keys::dead_letters_of(plugin),
        };
        let prefix = prefix.map_err(KvError::from)?;
        let after = after.map(|(host, seq)| keys::dead_letter(plugin, host, seq)).transpose().map_err(KvError::from)?;
        let (_, entries) = self.kv.scan(prefix.as_bytes(), after.as_ref().map(Key::as_bytes), limit).await?;
        entries.iter().map(dead_letter).collect()
    }

    /// How many dead letters a plugin has.
    pub async fn count_dead_letters(&self, plugin: &str) -> Result<u64, StoreError> {
        let prefix = keys::dead_letters_of(plugin).map_err(KvError::from)?;
        Ok(self.scan_all(prefix.as_bytes()).await?.len() as u64)
    }

    /// One dead letter.
    pub async fn dead_letter(&self, plugin: &str, host: HostId, seq: u64) -> Result<Option<DeadLetter>, StoreError> {
        let key = keys::dead_letter(plugin, host, seq).map_err(KvError::from)?;
        self.record(&key, |bytes| record::decode_dead_letter(host, seq, bytes)).await
    }

    /// Writes what became of a dead letter that was replayed in vain, unless it was dropped meanwhile.
    pub async fn keep_dead_letter(&self, plugin: &str, letter: &DeadLetter) -> Result<(), StoreError> {
        let key = keys::dead_letter(plugin, letter.event.host, letter.event.seq).map_err(KvError::from)?;
        let (_, mut found) = self.kv.get(std::slice::from_ref(&key)).await?;
        let Some(there) = found.pop().flatten() else { return Ok(()) };
        let mut commit = Commit::default();
        commit.guard(key.clone(), there.revision);
        commit.put(key.clone(), record::encode_dead_letter(letter).map_err(unreadable(&key))?);
        // A conflict: it was dropped, or another replay wrote what became of it.
        self.kv.commit(commit).await?;
        Ok(())
    }

    /// Takes dead letters away.
    pub async fn drop_dead_letters(&self, plugin: &str, places: &[(HostId, u64)]) -> Result<(), StoreError> {
        let keys = places.iter().map(|(host, seq)| keys::dead_letter(plugin, *host, *seq));
        self.delete_all(keys.collect::<Result<_, _>>().map_err(KvError::from)?).await
    }
}

fn dead_letter(entry: &Entry) -> Result<DeadLetter, StoreError> {
    let place = keys::dead_letter_place(&entry.key).ok_or(RecordError::Field { field: "key" });
    let letter = place.and_then(|(host, seq)| record::decode_dead_letter(host, seq, &entry.value));
    letter.map_err(unreadable(&entry.key))
}

// ---- Reading what was missed ----

impl Store {
    /// The events of all hosts as they are committed, after a commit.
    pub fn subscribe_after(&self, revision: Revision) -> EventStream {
        EventStream::new(self.kv.watch(keys::EVENTS.as_bytes(), revision.next()), self.generation, None)
    }

    /// How many events were committed since a commit; none if they are more than are kept at hand.
    pub async fn events_since(&self, revision: Revision) -> Option<u64> {
        let mut stream = self.subscribe_after(revision);
        let mut count = 0;
        loop {
            match stream.next().now_or_never() {
                Some(Ok(_) | Err(StreamError::Record(_))) => count += 1,
                Some(Err(StreamError::Resync | StreamError::Stopped)) => return None,
                None => return Some(count),
            }
            // Thousands of events may be counted: others have their turn.
            if count % 256 == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The hosts whose events a plugin may have missed since a commit, a page of a pass over all of them.
    pub async fn changed_hosts(
        &self,
        stage: CatchUpStage,
        after: Option<HostId>,
        since: Revision,
    ) -> Result<ChangedPage, StoreError> {
        let (prefix, after) = match stage {
            CatchUpStage::Known => (keys::HOT, after.map(keys::hot)),
            CatchUpStage::Forgotten => (keys::FORGOTTEN, after.map(keys::forgotten)),
        };
        let after = after.as_ref().map(Key::as_bytes);
        let (_, entries) = self.kv.scan(prefix.as_bytes(), after, MAX_SCAN_ENTRIES).await?;
        let is_full = entries.len() >= MAX_SCAN_ENTRIES as usize;
        let next = entries.last().filter(|_| is_full).and_then(|entry| keys::host_id(&entry.key));
        let mut changed = Vec::new();
        for entry in entries.iter().filter(|entry| entry.revision > since) {
            let read = || {
                let host = keys::host_id(&entry.key).ok_or(RecordError::Field { field: "key" })?;
                let newest_seq = match stage {
                    CatchUpStage::Known => record::decode_event_count(&entry.value)?,
                    CatchUpStage::Forgotten => record::decode_forgotten(host, &entry.value)?.event_count,
                };
                Ok(Changed { host, newest_seq })
            };
            changed.push(read().map_err(unreadable(&entry.key))?);
        }
        Ok(ChangedPage { changed, next })
    }

    /// The number of a host's first event after a commit. Its events are in the order of commits, so the numbers are
    /// halved until it is found; what has left the timeline counts as before.
    pub async fn first_event_after(&self, host: Changed, since: Revision) -> Result<u64, StoreError> {
        let (mut low, mut high) = (0, host.newest_seq);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.event_revision(host.host, middle).await? {
                Some(revision) if revision > since => high = middle,
                Some(_) | None => low = middle + 1,
            }
        }
        Ok(low)
    }

    /// The commit that wrote an event; none if it has left the timeline.
    pub(super) async fn event_revision(&self, host: HostId, seq: u64) -> Result<Option<Revision>, StoreError> {
        let (_, entries) = self.kv.get(&[keys::event(host, seq)]).await?;
        Ok(entries.into_iter().flatten().next().map(|entry| entry.revision))
    }

    /// The timeline of a host from an event on, with the commits; at most `limit` events. One that cannot be read is no
    /// error: it must not keep a plugin from all that came after it.
    pub async fn events_at(&self, id: HostId, from_seq: u64, limit: u32) -> Result<TimelinePart, StoreError> {
        let after = from_seq.checked_sub(1).map(|seq| keys::event(id, seq));
        let prefix = keys::events_of(id);
        let (_, entries) = self.kv.scan(prefix.as_bytes(), after.as_ref().map(Key::as_bytes), limit).await?;
        let is_full = entries.len() >= limit as usize;
        let mut part = TimelinePart { unreadable: Vec::new(), events: Vec::new(), is_last: !is_full };
        for Entry { key, value, revision } in entries {
            let place = keys::event_place(&key).ok_or(RecordError::Field { field: "key" });
            let (host, seq) = place.map_err(unreadable(&key))?;
            match record::decode_event(host, seq, &value) {
                Ok(event) => part.events.push(EventAt { event, revision }),
                Err(source) if part.events.is_empty() => {
                    part.unreadable.push(Unreadable { host, seq, revision, source });
                }
                Err(_) => {
                    part.is_last = false;
                    break;
                }
            }
        }
        Ok(part)
    }

    /// The commit that forgot a host.
    #[cfg(test)]
    pub(super) async fn forgotten_revision(&self, id: HostId) -> Revision {
        let (_, entries) = self.kv.get(&[keys::forgotten(id)]).await.unwrap();
        entries.into_iter().flatten().next().unwrap().revision
    }

    /// Damages the record of an event.
    #[cfg(test)]
    pub(crate) async fn damage_event(&self, id: HostId, seq: u64) {
        let mut commit = Commit::default();
        commit.put(keys::event(id, seq), &b"\xff"[..]);
        self.kv.commit(commit).await.unwrap();
    }

    /// Those of the hosts that exist, in the order asked for.
    pub async fn some_hosts(&self, ids: &[HostId]) -> Result<Vec<Host>, StoreError> {
        self.load(ids).await
    }

    /// A forgotten host as it was at last.
    pub async fn forgotten_host(&self, id: HostId) -> Result<Option<Host>, StoreError> {
        self.record(&keys::forgotten(id), |bytes| record::decode_forgotten(id, bytes)).await
    }
}

// ---- Jobs ----

impl Store {
    /// The newest run of a job.
    pub async fn job_run(&self, plugin: &str, job: &str) -> Result<Option<JobRun>, StoreError> {
        self.record(&keys::job(plugin, job).map_err(KvError::from)?, record::decode_job).await
    }

    /// Writes what became of a run.
    pub async fn put_job_run(&self, plugin: &str, job: &str, run: &JobRun) -> Result<(), StoreError> {
        let key = keys::job(plugin, job).map_err(KvError::from)?;
        let mut commit = Commit::default();
        commit.put(key.clone(), record::encode_job(run).map_err(unreadable(&key))?);
        self.kv.commit(commit).await?;
        Ok(())
    }

    /// Takes the right to run a plugin's jobs until a moment, if nobody else has it. Whoever has it may extend it.
    pub async fn take_lease(
        &self,
        plugin: &str,
        holder: u64,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let key = keys::lease(plugin).map_err(KvError::from)?;
        let (_, mut found) = self.kv.get(std::slice::from_ref(&key)).await?;
        let found = found.pop().flatten();
        if let Some(entry) = &found {
            let lease = record::decode_lease(&entry.value).map_err(unreadable(&key))?;
            if lease.holder != holder && lease.until > now {
                return Ok(false);
            }
        }
        let mut commit = Commit::default();
        commit.guard(key.clone(), found.map_or(Revision::ZERO, |entry| entry.revision));
        commit.put(key.clone(), record::encode_lease(&Lease { holder, until }).map_err(unreadable(&key))?);
        Ok(matches!(self.kv.commit(commit).await?, Outcome::Committed(_)))
    }

    /// Gives the right back, if it is still this holder's.
    pub async fn release_lease(&self, plugin: &str, holder: u64) -> Result<(), StoreError> {
        let key = keys::lease(plugin).map_err(KvError::from)?;
        let (_, mut found) = self.kv.get(std::slice::from_ref(&key)).await?;
        let Some(entry) = found.pop().flatten() else { return Ok(()) };
        if record::decode_lease(&entry.value).map_err(unreadable(&key))?.holder == holder {
            let mut commit = Commit::default();
            commit.guard(key.clone(), entry.revision);
            commit.delete(key);
            // A conflict means that another has it by now.
            self.kv.commit(commit).await?;
        }
        Ok(())
    }

    /// Only one process opens this store, so leases of earlier ones, that were killed, are nobody's.
    pub(super) async fn clear_leases(&self) -> Result<(), StoreError> {
        let entries = self.scan_all(keys::LEASES.as_bytes()).await?;
        self.delete_all(entries.into_iter().map(|entry| entry.key).collect()).await
    }
}

// ---- Small ones ----

impl Store {
    async fn record<T>(
        &self,
        key: &Key,
        decode: impl FnOnce(&[u8]) -> Result<T, RecordError>,
    ) -> Result<Option<T>, StoreError> {
        let (_, mut found) = self.kv.get(std::slice::from_ref(key)).await?;
        let entry = found.pop().flatten();
        entry.map(|entry| decode(&entry.value).map_err(unreadable(key))).transpose()
    }

    pub(super) async fn scan_all(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.key.clone());
            let (_, page) = self.kv.scan(prefix, after.as_ref().map(Key::as_bytes), MAX_SCAN_ENTRIES).await?;
            let is_last = page.len() < MAX_SCAN_ENTRIES as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    pub(super) async fn delete_all(&self, keys: Vec<Key>) -> Result<(), StoreError> {
        for keys in keys.chunks(MAX_OPS) {
            let mut commit = Commit::default();
            keys.iter().for_each(|key| commit.delete(key.clone()));
            self.kv.commit(commit).await?;
        }
        Ok(())
    }
}
