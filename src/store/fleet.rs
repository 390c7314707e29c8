//! What holds for all hosts: the freeze, and the reinstalls of the last hour.
//!
//! Invariant: a commit that hands out a boot which writes a disk guards that there is no freeze, and one that counts as a
//! reinstall guards the list that it was added to. So nothing that writes is handed out once a freeze is acknowledged, and no
//! two count as the same one.
use super::{
    Store, StoreError,
    hosts::unreadable,
    keys,
    kv::{Commit, Key, Kv, Outcome, Revision},
    record,
};
use crate::domain::{Clearance, Fleet, Reinstalls, Safeguard};

/// How often a freeze is tried while others freeze and thaw.
const MOST_TRIES: u32 = 16;

impl Store {
    /// What holds for all hosts now, under this limit of reinstalls.
    pub async fn fleet(&self, most_reinstalls: u32) -> Result<Fleet, StoreError> {
        let (_, found) = self.kv.get(&[keys::FROZEN, keys::REINSTALLS]).await?;
        let mut fleet = Fleet { most_reinstalls, ..Fleet::default() };
        for entry in found.into_iter().flatten() {
            let unreadable = unreadable(&entry.key);
            if entry.key == keys::FROZEN {
                fleet.frozen = Some(record::decode_safeguard(&entry.value).map_err(unreadable)?);
            } else {
                let moments = record::decode_moments(&entry.value).map_err(unreadable)?;
                fleet.reinstalls = Reinstalls::new(moments, entry.revision.get());
            }
        }
        Ok(fleet)
    }

    /// The freeze, if there is one.
    pub async fn frozen(&self) -> Result<Option<Safeguard>, StoreError> {
        Ok(self.fleet(0).await?.frozen)
    }

    /// Freezes, in place of the freeze that there may be. Returns that one.
    pub async fn freeze(&self, freeze: &Safeguard) -> Result<Option<Safeguard>, StoreError> {
        let value = record::encode_safeguard(freeze).map_err(unreadable(&keys::FROZEN))?;
        for _ in 0..MOST_TRIES {
            let (_, mut found) = self.kv.get(&[keys::FROZEN]).await?;
            let before = found.pop().flatten();
            let mut commit = Commit::default();
            commit.guard(keys::FROZEN, before.as_ref().map_or(Revision::ZERO, |entry| entry.revision));
            commit.put(keys::FROZEN, value.clone());
            if let Outcome::Committed(_) = self.kv.commit(commit).await? {
                // One that cannot be read froze all the same, and does no longer.
                return Ok(before.and_then(|entry| record::decode_safeguard(&entry.value).ok()));
            }
        }
        Err(StoreError::Conflict)
    }

    /// Thaws. Returns the freeze that there was.
    pub async fn thaw(&self) -> Result<Option<Safeguard>, StoreError> {
        let (_, mut found) = self.kv.get(&[keys::FROZEN]).await?;
        let Some(before) = found.pop().flatten() else { return Ok(None) };
        let mut commit = Commit::default();
        commit.guard(keys::FROZEN, before.revision);
        commit.delete(keys::FROZEN);
        match self.kv.commit(commit).await? {
            Outcome::Committed(_) => {
                record::decode_safeguard(&before.value).map(Some).map_err(unreadable(&keys::FROZEN))
            }
            Outcome::Conflict(_) => Err(StoreError::Conflict),
        }
    }
}

/// Makes a commit depend on what its clearance says.
pub(super) fn guard_clearance(commit: &mut Commit, clearance: &Clearance) {
    match clearance {
        Clearance::NotNeeded => {}
        Clearance::Writing => commit.guard(keys::FROZEN, Revision::ZERO),
        Clearance::Reinstalling(counted) => {
            commit.guard(keys::FROZEN, Revision::ZERO);
            commit.guard(keys::REINSTALLS, Revision::new(counted.version()));
            commit.put(keys::REINSTALLS, record::encode_moments(counted.moments()));
        }
    }
}

/// Whether a commit failed as its clearance is no longer good.
pub(super) fn is_of_clearance(key: &Key) -> bool {
    *key == keys::FROZEN || *key == keys::REINSTALLS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Actor, Host, HostId, Offer, Order, StateName, Writes, offer, order, register};
    use crate::store::fixtures::{at, registration};

    async fn ordered(store: &Store, number: u64, again: bool) -> Host {
        let found = store.candidates(&registration(number).identity).await.unwrap();
        let host =
            store.register(&found, |id| register(id, registration(number), Actor::Machine, at(0))).await.unwrap();
        let before = Host { installed: again, ..host };
        let name = Some(format!("CHG{number}").parse().unwrap());
        let wanted = Order { to: "image1".parse().unwrap(), name, reinstall: true };
        let change = order(&before, &wanted, &"cmdb".parse().unwrap(), at(1)).unwrap().unwrap();
        store.commit(&before, change).await.unwrap()
    }

    fn offered(host: &Host) -> Offer {
        let (bootid, from) = (crate::domain::BootId::new(host.id, [1; 16]), [10, 0, 0, 7].into());
        let image: StateName = "image1".parse().unwrap();
        Offer { bootid, from, image: Some(image), writes: Writes::Disk, detour: false }
    }

    #[tokio::test]
    async fn a_freeze_between_decision_and_commit_wins() {
        let store = Store::memory();
        let host = ordered(&store, 7, false).await;
        let seen = store.fleet(10).await.unwrap();
        let change = offer(&host, offered(&host), &seen, at(2)).unwrap();
        let freeze = Safeguard::new(Actor::Operator("ada".to_owned()), "fire", at(2));
        assert_eq!(store.freeze(&freeze).await.unwrap(), None);
        assert!(matches!(store.commit(&host, change.clone()).await, Err(StoreError::Conflict)));
        assert_eq!(store.host(host.id).await.unwrap().unwrap(), host, "nothing was handed out");
        let seen = store.fleet(10).await.unwrap();
        assert!(offer(&host, offered(&host), &seen, at(3)).unwrap_err().to_string().contains("kiwispray thaw"));
        assert_eq!(store.thaw().await.unwrap(), Some(freeze));
        assert_eq!(store.thaw().await.unwrap(), None);
        store.commit(&host, change).await.unwrap();
        assert!(store.check(|_| ()).await.unwrap().is_good());
    }

    #[tokio::test]
    async fn however_many_ask_at_once_no_more_are_installed_again_than_the_limit_allows() {
        let store = std::sync::Arc::new(Store::memory());
        let mut hosts = Vec::new();
        for number in 1..=100 {
            hosts.push(ordered(&store, number, true).await);
        }
        // All of them decide on what they saw before anybody was counted, again and again.
        let asking = hosts.into_iter().map(|host| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                loop {
                    let seen = store.fleet(10).await.unwrap();
                    tokio::task::yield_now().await;
                    let Ok(change) = offer(&host, offered(&host), &seen, at(60)) else { return None };
                    match store.commit(&host, change).await {
                        Ok(host) => return Some(host.id),
                        Err(StoreError::Conflict) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        });
        let answers = futures_util::future::join_all(asking).await;
        let handed_out: Vec<HostId> = answers.into_iter().filter_map(|answer| answer.unwrap()).collect();
        assert_eq!(handed_out.len(), 10);
        assert_eq!(store.fleet(10).await.unwrap().reinstalls.moments().len(), 10);
        // Another attempt at one of them is of the same order, and does not count; those left wait for their hour.
        let host = store.host(handed_out[0]).await.unwrap().unwrap();
        let seen = store.fleet(10).await.unwrap();
        let again = offer(&host, offered(&host), &seen, at(61)).unwrap();
        assert_eq!(again.clearance, Clearance::Writing);
        assert!(store.check(|_| ()).await.unwrap().is_good());
    }
}
