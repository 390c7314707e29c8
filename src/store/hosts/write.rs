//! How hosts are written: every commit guards the version of its host and the index entries that it touches.
use std::{collections::BTreeSet, sync::atomic::Ordering};

use super::{
    Candidates, Indexed, MAX_IDS_PER_VALUE, Store, StoreError, TIMELINE_EVENTS, highest_id, number, unreadable,
};
use crate::{
    domain::{Change, Event, Host, HostId, Identity, Tombstone},
    store::{
        fleet::{guard_clearance, is_of_clearance},
        keys,
        kv::{Commit, Key, Kv, KvError, Outcome, Revision},
        record,
    },
};

/// How often a commit is tried whose host did not change but whose neighbours did.
const MOST_TRIES: u32 = 16;

impl Store {
    /// Gives the next number to a new host and writes it. `Conflict` if meanwhile another host got, or lost, a value of
    /// the identity that the candidates were asked for: they must be judged anew.
    ///
    /// Numbers are dense, save for those of registrations that conflicted while others were under way.
    pub async fn register(
        &self,
        candidates: &Candidates,
        build: impl FnOnce(HostId) -> Change,
    ) -> Result<Host, StoreError> {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let id = HostId::new(number);
        let registered = self.register_as(id, candidates, build(id), None).await;
        if registered.is_err() {
            // Given back if nobody took the next one meanwhile. After an unknown end the guard tells whether it is
            // free.
            let _ = self.next_id.compare_exchange(number + 1, number, Ordering::Relaxed, Ordering::Relaxed);
        }
        registered
    }

    /// The same for a machine that comes back: what was left of its forgotten host goes in the same commit.
    pub async fn register_back(
        &self,
        candidates: &Candidates,
        tombstone: Option<&Tombstone>,
        build: impl FnOnce(HostId) -> Change,
    ) -> Result<Host, StoreError> {
        let id = HostId::new(self.next_id.fetch_add(1, Ordering::Relaxed));
        self.register_as(id, candidates, build(id), tombstone).await
    }

    /// Writes a new host under a number that was never given to any. `NumberUsed` if it was, `Conflict` as for
    /// [`Self::register`]. The numbers that are given from now on are higher.
    pub async fn register_at(
        &self,
        id: HostId,
        candidates: &Candidates,
        tombstone: Option<&Tombstone>,
        build: impl FnOnce(HostId) -> Change,
    ) -> Result<Host, StoreError> {
        // The events of a host stay when it is forgotten, so they tell of every number that was ever given.
        let (_, events) = self.kv.scan(keys::events_of(id).as_bytes(), None, 1).await?;
        // Unless that is long ago.
        if !events.is_empty() || self.tombstone(id).await?.is_some() {
            return Err(StoreError::NumberUsed(id));
        }
        self.next_id.fetch_max(id.get().saturating_add(1), Ordering::Relaxed);
        self.register_as(id, candidates, build(id), tombstone).await
    }

    async fn register_as(
        &self,
        id: HostId,
        candidates: &Candidates,
        mut change: Change,
        tombstone: Option<&Tombstone>,
    ) -> Result<Host, StoreError> {
        let mut commit = Commit::default();
        // Who registered under this number and forgot it meanwhile.
        commit.guard(keys::forgotten(id), Revision::ZERO);
        // It may have been known, and installed, after the backup was taken.
        change.host.quarantined |= self.is_quarantined();
        check_numbers(id, 0, &change)?;
        let own = keys::index(&change.host.identity).map_err(KvError::from)?;
        let mut seen = candidates.seen.clone();
        let is_unseen = |key: &&Key| !seen.iter().any(|indexed| indexed.key == **key);
        let gone = tombstone.map_or_else(|| Ok(Vec::new()), |tombstone| keys::tombstone_index(&tombstone.identity));
        let gone = gone.map_err(KvError::from)?;
        let unseen = own.iter().chain(&gone).filter(is_unseen).cloned().collect();
        seen.extend(self.indexed(unseen).await?);
        commit.guard(keys::hot(id), Revision::ZERO);
        for mut indexed in seen {
            commit.guard(indexed.key.clone(), indexed.revision);
            let before = indexed.ids.clone();
            if own.contains(&indexed.key) {
                indexed.add(id);
            } else if let Some(tombstone) = tombstone.filter(|_| gone.contains(&indexed.key)) {
                indexed.ids.retain(|id| *id != tombstone.id);
            }
            if indexed.ids != before {
                indexed.put(&mut commit);
            }
        }
        if let Some(tombstone) = tombstone {
            commit.delete(keys::tombstone(tombstone.id));
        }
        if let Some((key, value)) = spent_order(id, &change) {
            commit.put(key, value);
        }
        commit.put(keys::cold(id), record::encode_cold(&change.host).map_err(unreadable(&keys::cold(id)))?);
        commit.put(keys::hot(id), record::encode_hot(&change.host));
        self.put_events(&mut commit, &change.events).await?;
        match self.kv.commit(commit).await? {
            Outcome::Committed(_) => Ok(change.host),
            Outcome::Conflict(key) => {
                if key == keys::hot(id) {
                    // Another server gave this number away.
                    let next = highest_id(&self.kv).await?.saturating_add(1);
                    self.next_id.fetch_max(next, Ordering::Relaxed);
                }
                Err(StoreError::Conflict)
            }
        }
    }

    /// Writes a change that was made from `before`, with its events and whatever the indexes need. `Conflict` if the
    /// host is another by now, or what cleared its boot is so no longer; `OrderSpent` if the change is an order whose name was used for this host before.
    pub async fn commit(&self, before: &Host, change: Change) -> Result<Host, StoreError> {
        self.commit_beside(before, change, None).await
    }

    /// The same for a change of the identity by hand: `Conflict` also if meanwhile another host got, or lost, a value that the
    /// candidates were asked for. They must be judged anew.
    pub async fn commit_beside(
        &self,
        before: &Host,
        change: Change,
        candidates: Option<&Candidates>,
    ) -> Result<Host, StoreError> {
        check_numbers(before.id, before.event_count, &change)?;
        let after = &change.host;
        let (gone, new) = index_difference(&before.identity, &after.identity)?;
        let cold = match record::cold_is_same(before, after) {
            true => None,
            false => Some(record::encode_cold(after).map_err(unreadable(&keys::cold(after.id)))?),
        };
        // In the very commit of the order: neither can be durable without the other.
        let spent = spent_order(before.id, &change);
        for _ in 0..MOST_TRIES {
            let mut commit = Commit::default();
            self.guard_version(&mut commit, before).await?;
            guard_clearance(&mut commit, &change.clearance);
            let judged = candidates.map_or(&[][..], |candidates| &candidates.seen);
            self.put_index(&mut commit, &[Entries { id: before.id, gone: &gone, new: &new }], judged).await?;
            if let Some(cold) = &cold {
                commit.put(keys::cold(after.id), cold.clone());
            }
            commit.put(keys::hot(after.id), record::encode_hot(after));
            if let Some((key, value)) = &spent {
                commit.guard(key.clone(), Revision::ZERO);
                commit.put(key.clone(), value.clone());
            }
            self.put_events(&mut commit, &change.events).await?;
            match self.kv.commit(commit).await? {
                Outcome::Committed(_) => return Ok(change.host),
                Outcome::Conflict(key) if key == keys::hot(before.id) => return Err(StoreError::Conflict),
                Outcome::Conflict(key) if spent.as_ref().is_some_and(|(spent, _)| *spent == key) => {
                    return Err(StoreError::OrderSpent);
                }
                // What it was decided on is no longer so.
                Outcome::Conflict(key) if is_of_clearance(&key) => return Err(StoreError::Conflict),
                Outcome::Conflict(key) if judged.iter().any(|judged| judged.key == key) => {
                    return Err(StoreError::Conflict);
                }
                // Another host entered or left an index entry of this one.
                Outcome::Conflict(_) => {}
            }
        }
        Err(StoreError::Conflict)
    }

    /// Takes a host out: its records and index entries go, its events stay and get the ones of `change`, and its tombstone is
    /// set up if `change` has one. Its number is not used again.
    pub async fn forget(&self, before: &Host, change: Change) -> Result<(), StoreError> {
        check_numbers(before.id, before.event_count, &change)?;
        let gone = keys::index(&before.identity).map_err(KvError::from)?;
        let tombstone = change.tombstone.as_ref();
        let buried = tombstone.map_or_else(|| Ok(Vec::new()), |tombstone| keys::tombstone_index(&tombstone.identity));
        let buried = buried.map_err(KvError::from)?;
        for _ in 0..MOST_TRIES {
            let mut commit = Commit::default();
            self.guard_version(&mut commit, before).await?;
            self.put_index(&mut commit, &[Entries { id: before.id, gone: &gone, new: &buried }], &[]).await?;
            if let Some(tombstone) = tombstone {
                Self::put_tombstone(&mut commit, tombstone)?;
            }
            self.put_farewell(&mut commit, before, &change).await?;
            match self.kv.commit(commit).await? {
                Outcome::Committed(_) => return Ok(()),
                Outcome::Conflict(key) if key == keys::hot(before.id) => return Err(StoreError::Conflict),
                Outcome::Conflict(_) => {}
            }
        }
        Err(StoreError::Conflict)
    }

    /// Gives a host the identity of another, and takes that other one out, in one commit: at no time do both have it, or
    /// neither. `Conflict` if one of them, or who shares the identity with them, changed meanwhile.
    pub async fn adopt(
        &self,
        old: &Host,
        change: Change,
        newcomer: &Host,
        farewell: Change,
        candidates: &Candidates,
    ) -> Result<Host, StoreError> {
        check_numbers(old.id, old.event_count, &change)?;
        check_numbers(newcomer.id, newcomer.event_count, &farewell)?;
        let (gone, new) = index_difference(&old.identity, &change.host.identity)?;
        let newcomers = keys::index(&newcomer.identity).map_err(KvError::from)?;
        let entries =
            [Entries { id: newcomer.id, gone: &newcomers, new: &[] }, Entries { id: old.id, gone: &gone, new: &new }];
        let mut commit = Commit::default();
        self.guard_version(&mut commit, old).await?;
        self.guard_version(&mut commit, newcomer).await?;
        self.put_index(&mut commit, &entries, &candidates.seen).await?;
        self.put_farewell(&mut commit, newcomer, &farewell).await?;
        let key = keys::cold(old.id);
        commit.put(key.clone(), record::encode_cold(&change.host).map_err(unreadable(&key))?);
        commit.put(keys::hot(old.id), record::encode_hot(&change.host));
        self.put_events(&mut commit, &change.events).await?;
        match self.kv.commit(commit).await? {
            Outcome::Committed(_) => Ok(change.host),
            Outcome::Conflict(_) => Err(StoreError::Conflict),
        }
    }

    /// What remains of a host that is taken out.
    async fn put_farewell(&self, commit: &mut Commit, before: &Host, change: &Change) -> Result<(), StoreError> {
        self.raise_last_forgotten(commit, before.id).await?;
        commit.delete(keys::cold(before.id));
        commit.delete(keys::hot(before.id));
        // Plugins are told of its last events, wherever they are with their reading.
        let key = keys::forgotten(before.id);
        commit.put(key.clone(), record::encode_forgotten(&change.host).map_err(unreadable(&key))?);
        self.put_events(commit, &change.events).await
    }

    async fn guard_version(&self, commit: &mut Commit, before: &Host) -> Result<(), StoreError> {
        let key = keys::hot(before.id);
        let (_, mut found) = self.kv.get(std::slice::from_ref(&key)).await?;
        let hot = found.pop().flatten().ok_or(StoreError::Conflict)?;
        if record::decode_event_count(&hot.value).map_err(unreadable(&key))? != before.event_count {
            return Err(StoreError::Conflict);
        }
        commit.guard(key, hot.revision);
        Ok(())
    }

    /// Changes index entries: those that were `judged` as they were read then, and the rest as it is now.
    pub(super) async fn put_index(
        &self,
        commit: &mut Commit,
        entries: &[Entries<'_>],
        judged: &[Indexed],
    ) -> Result<(), StoreError> {
        let touched: BTreeSet<&Key> = entries.iter().flat_map(|of| of.gone.iter().chain(of.new)).collect();
        let (mut indexed, rest): (Vec<Indexed>, Vec<Indexed>) =
            judged.iter().cloned().partition(|judged| touched.contains(&judged.key));
        rest.into_iter().for_each(|rest| commit.guard(rest.key, rest.revision));
        let is_unread = |key: &&&Key| !indexed.iter().any(|indexed| indexed.key == ***key);
        let unread: Vec<Key> = touched.iter().filter(is_unread).map(|key| (*key).clone()).collect();
        if !unread.is_empty() {
            indexed.extend(self.indexed(unread).await?);
        }
        for mut indexed in indexed {
            commit.guard(indexed.key.clone(), indexed.revision);
            let before = indexed.ids.clone();
            for of in entries.iter().filter(|of| of.gone.contains(&indexed.key)) {
                indexed.ids.retain(|id| *id != of.id);
            }
            for of in entries {
                if of.new.contains(&indexed.key) {
                    indexed.add(of.id);
                }
            }
            if indexed.ids != before {
                indexed.put(commit);
            }
        }
        Ok(())
    }

    async fn raise_last_forgotten(&self, commit: &mut Commit, id: HostId) -> Result<(), StoreError> {
        let (_, mut found) = self.kv.get(&[keys::LAST_FORGOTTEN]).await?;
        let entry = found.pop().flatten();
        let highest = entry.as_ref().map_or(Ok(0), number)?;
        if id.get() > highest {
            commit.guard(keys::LAST_FORGOTTEN, entry.map_or(Revision::ZERO, |entry| entry.revision));
            commit.put(keys::LAST_FORGOTTEN, record::encode_number(id.get()));
        }
        Ok(())
    }

    /// As many old events leave as new ones come, so the timeline needs no cleaner; unless a plugin must still be told
    /// of one.
    async fn put_events(&self, commit: &mut Commit, events: &[Event]) -> Result<(), StoreError> {
        let operation = self.next_operation.fetch_add(1, Ordering::Relaxed);
        for event in events {
            let key = keys::event(event.host, event.seq);
            let value = record::encode_event(event, operation).map_err(unreadable(&key))?;
            commit.put(key, value);
            if let Some(old @ 1..) = event.seq.checked_sub(TIMELINE_EVENTS)
                && self.may_leave(event.host, old).await?
            {
                commit.delete(keys::event(event.host, old));
            }
        }
        Ok(())
    }
}

/// What changes in the indexes for one host.
pub(super) struct Entries<'a> {
    pub(super) id: HostId,
    pub(super) gone: &'a [Key],
    pub(super) new: &'a [Key],
}

impl Indexed {
    /// Whether that changed anything. A full entry stays as it is: a value that so many machines have identifies none of them.
    fn add(&mut self, id: HostId) -> bool {
        match self.ids.binary_search(&id) {
            Err(place) if self.ids.len() < MAX_IDS_PER_VALUE => {
                self.ids.insert(place, id);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn put(self, commit: &mut Commit) {
        if self.ids.is_empty() {
            commit.delete(self.key);
        } else {
            commit.put(self.key, record::encode_ids(&self.ids));
        }
    }
}

/// What leaves the indexes and what enters them.
/// Where the name of the order that a change is stays remembered, for ever.
fn spent_order(id: HostId, change: &Change) -> Option<(Key, bytes::Bytes)> {
    let name = change.order.as_ref()?;
    Some((keys::spent_order(id, name), record::encode_spent_order(name, change.host.event_count)))
}

fn index_difference(before: &Identity, after: &Identity) -> Result<(Vec<Key>, Vec<Key>), StoreError> {
    // Most commits are boots; they compare two identities and build no keys.
    if before == after {
        return Ok((Vec::new(), Vec::new()));
    }
    let (mut gone, mut new) = (keys::index(before).map_err(KvError::from)?, keys::index(after).map_err(KvError::from)?);
    gone.retain(|key| {
        let stays = new.iter().position(|other| other == key);
        stays.map(|at| new.swap_remove(at)).is_none()
    });
    Ok((gone, new))
}

fn check_numbers(id: HostId, event_count: u64, change: &Change) -> Result<(), StoreError> {
    let mut last = event_count;
    let follows = |event: &Event| {
        last += 1;
        event.host == id && event.seq == last
    };
    let good = !change.events.is_empty() && change.events.iter().all(follows);
    if good && change.host.id == id && change.host.event_count == last {
        Ok(())
    } else {
        Err(StoreError::Misnumbered { host: id })
    }
}
