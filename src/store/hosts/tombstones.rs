//! What is left of forgotten hosts that may be installed.
//!
//! Invariant: a tombstone and its index entries are written in the commit that forgets the host, and go in the commit that makes
//! its machine known again, or when somebody says that it is gone for good. Age does not take them away: they are small, and a
//! machine may be in a store-room for years.
use super::{Store, StoreError, unreadable, write::Entries};
use crate::{
    domain::{HostId, Tombstone},
    store::{
        keys,
        kv::{Commit, Key, Kv, KvError, MAX_SCAN_ENTRIES, Outcome},
        record::{self, RecordError},
    },
};

/// How often one is removed while its neighbours change.
const MOST_TRIES: u32 = 16;

impl Store {
    /// What is left of a forgotten host, if it may be installed.
    pub async fn tombstone(&self, id: HostId) -> Result<Option<Tombstone>, StoreError> {
        Ok(self.load_tombstones(&[id]).await?.pop())
    }

    /// Tombstones in the order of their numbers, after `after` if given, at most `limit`.
    pub async fn tombstones(&self, after: Option<HostId>, limit: u32) -> Result<Vec<Tombstone>, StoreError> {
        let (after, limit) = (after.map(keys::tombstone), limit.min(MAX_SCAN_ENTRIES));
        let (_, entries) = self.kv.scan(keys::TOMBSTONES.as_bytes(), after.as_ref().map(Key::as_bytes), limit).await?;
        let tombstone = |entry: &crate::store::kv::Entry| {
            let id = keys::host_id(&entry.key).ok_or(RecordError::Field { field: "key" });
            id.and_then(|id| record::decode_tombstone(id, &entry.value)).map_err(unreadable(&entry.key))
        };
        entries.iter().map(tombstone).collect()
    }

    /// Takes a tombstone away: the machine is new if it ever comes back. None if there is none.
    pub async fn remove_tombstone(&self, id: HostId) -> Result<Option<Tombstone>, StoreError> {
        for _ in 0..MOST_TRIES {
            let Some(tombstone) = self.tombstone(id).await? else { return Ok(None) };
            let gone = keys::tombstone_index(&tombstone.identity).map_err(KvError::from)?;
            let mut commit = Commit::default();
            self.put_index(&mut commit, &[Entries { id, gone: &gone, new: &[] }], &[]).await?;
            commit.delete(keys::tombstone(id));
            if let Outcome::Committed(_) = self.kv.commit(commit).await? {
                return Ok(Some(tombstone));
            }
        }
        Err(StoreError::Conflict)
    }

    /// Writes a tombstone with the rest of a commit.
    pub(super) fn put_tombstone(commit: &mut Commit, tombstone: &Tombstone) -> Result<(), StoreError> {
        let key = keys::tombstone(tombstone.id);
        commit.put(key.clone(), record::encode_tombstone(tombstone).map_err(unreadable(&key))?);
        Ok(())
    }

    pub(super) async fn load_tombstones(&self, ids: &[HostId]) -> Result<Vec<Tombstone>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<Key> = ids.iter().map(|id| keys::tombstone(*id)).collect();
        let (_, found) = self.kv.get(&wanted).await?;
        let there = ids.iter().zip(found).filter_map(|(id, entry)| Some((*id, entry?)));
        there.map(|(id, entry)| record::decode_tombstone(id, &entry.value).map_err(unreadable(&entry.key))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{self, Actor, Evidence, Host, Recognition, recognise};
    use crate::store::fixtures::{at, registration};

    async fn installed(store: &Store, number: u64) -> Host {
        let found = store.candidates(&registration(number).identity).await.unwrap();
        let build = |id| domain::register(id, registration(number), Actor::Machine, at(0));
        let host = store.register(&found, build).await.unwrap();
        let change = domain::finish_by_operator(&host, Actor::Server, at(1)).unwrap();
        store.commit(&host, change).await.unwrap()
    }

    async fn forget(store: &Store, host: &Host) {
        store.forget(host, domain::forget(host, Actor::Server, at(2))).await.unwrap();
    }

    /// The machine of a forgotten host comes back, as the service has it.
    async fn come_back(store: &Store, number: u64) -> Result<Host, StoreError> {
        let wanted = registration(number);
        let found = store.candidates(&wanted.identity).await?;
        let Recognition::Returned { was, evidence } = recognise(&wanted.identity, &found.judged()).0 else {
            panic!("it was never forgotten")
        };
        assert_eq!(evidence, Evidence::Strong);
        let was = found.forgotten(&was);
        let build = |id| domain::take_back(id, wanted, &was, true, Actor::Machine, at(3));
        store.register_back(&found, was.first().copied(), build).await
    }

    #[tokio::test]
    async fn a_tombstone_stays_until_its_machine_comes_back() {
        let store = Store::memory();
        let host = installed(&store, 7).await;
        forget(&store, &host).await;
        let left = store.tombstone(host.id).await.unwrap().unwrap();
        assert_eq!((left.id, &left.identity, left.forgotten_at), (host.id, &host.identity, at(2)));
        assert_eq!(store.check(|_| ()).await.unwrap().tombstones, 1);
        let back = come_back(&store, 7).await.unwrap();
        assert!(back.id > host.id && back.installed && back.states.is_finished());
        assert_eq!(store.tombstones(None, 9).await.unwrap(), []);
        let check = store.check(|_| ()).await.unwrap();
        assert!(check.is_good() && check.tombstones == 0, "{check:?}");
    }

    #[tokio::test]
    async fn a_machine_that_asks_twice_at_once_comes_back_once() {
        let store = Store::memory();
        let host = installed(&store, 7).await;
        forget(&store, &host).await;
        let wanted = registration(7);
        let found = store.candidates(&wanted.identity).await.unwrap();
        let was = found.forgotten(&[host.id]);
        come_back(&store, 7).await.unwrap();
        let build = |id| domain::take_back(id, wanted, &was, true, Actor::Machine, at(3));
        let late = store.register_back(&found, was.first().copied(), build).await;
        assert!(matches!(late, Err(StoreError::Conflict)));
        assert_eq!(store.hosts(None, 9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_machine_that_is_forgotten_while_it_registers_is_judged_anew() {
        let store = Store::memory();
        let host = installed(&store, 7).await;
        // It was looked for before it was forgotten, and would be taken for a new one.
        let found = store.candidates(&registration(7).identity).await.unwrap();
        forget(&store, &host).await;
        let build = |id| domain::register(id, registration(7), Actor::Machine, at(3));
        assert!(matches!(store.register(&found, build).await, Err(StoreError::Conflict)));
    }

    #[tokio::test]
    async fn what_was_never_installed_leaves_nothing_and_what_is_gone_for_good_neither() {
        let store = Store::memory();
        let found = store.candidates(&registration(1).identity).await.unwrap();
        let build = |id| domain::register(id, registration(1), Actor::Machine, at(0));
        let new = store.register(&found, build).await.unwrap();
        forget(&store, &new).await;
        let host = installed(&store, 2).await;
        store.forget(&host, domain::forget_for_good(&host, Actor::Server, at(2))).await.unwrap();
        let buried = installed(&store, 3).await;
        forget(&store, &buried).await;
        assert_eq!(store.remove_tombstone(buried.id).await.unwrap().map(|left| left.id), Some(buried.id));
        assert_eq!(store.remove_tombstone(buried.id).await.unwrap(), None);
        for number in 1..=3 {
            let found = store.candidates(&registration(number).identity).await.unwrap();
            assert!(found.judged().is_empty());
        }
        assert!(store.check(|_| ()).await.unwrap().is_good());
    }

    #[tokio::test]
    async fn the_number_of_a_tombstone_is_not_given_away() {
        let store = Store::memory();
        let host = installed(&store, 7).await;
        forget(&store, &host).await;
        let found = store.candidates(&registration(8).identity).await.unwrap();
        let build = |id| domain::register(id, registration(8), Actor::Machine, at(3));
        let taken = store.register_at(host.id, &found, None, build).await;
        assert!(matches!(taken, Err(StoreError::NumberUsed(id)) if id == host.id));
    }
}
