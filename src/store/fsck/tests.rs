//! Every kind of damage is found, and a good store has none.
use super::*;
use crate::{
    domain::{self, Actor},
    store::{
        fixtures::{at, identity, registration},
        kv::{Backend, Commit},
        memory::MemoryKv,
    },
};

/// Three hosts, of which the last is forgotten.
async fn store() -> Store {
    let store = Store::over(Backend::Memory(MemoryKv::default())).await.unwrap();
    for number in 1..=3 {
        let found = store.candidates(&identity(number)).await.unwrap();
        let build = |id| domain::register(id, registration(number), Actor::Machine, at(0));
        let mut host = store.register(&found, build).await.unwrap();
        for second in 0..3 {
            let kind = domain::EventKind::ForeignBoot { from: [10, 0, 0, 9].into() };
            host = store.commit(&host, domain::note(&host, kind, Actor::Machine, at(second))).await.unwrap();
        }
    }
    let last = store.host(HostId::new(3)).await.unwrap().unwrap();
    store.forget(&last, domain::forget(&last, Actor::Server, at(9))).await.unwrap();
    store
}

async fn problems_after(damage: impl FnOnce(&mut Commit)) -> Vec<String> {
    let store = store().await;
    let mut commit = Commit::default();
    damage(&mut commit);
    store.kv.commit(commit).await.unwrap();
    let check = store.check(|_| ()).await.unwrap();
    assert_eq!(check.problem_count, check.problems.len() as u64);
    check.problems.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_good_store_is_counted_and_has_no_problem() {
    let mut read = 0;
    let check = store().await.check(|entries| read = entries).await.unwrap();
    assert_eq!((check.hosts, check.forgotten, check.events, check.indexed), (2, 1, 13, 8));
    assert_eq!(check.entries, read);
    assert!(check.bytes > 1_000 && check.is_good(), "{check:?}");
}

#[tokio::test]
async fn every_kind_of_damage_is_found() {
    let (one, three) = (HostId::new(1), HostId::new(3));
    let index = keys::index(&identity(1)).unwrap();
    let first = |text: &str| [text.to_owned()];
    let lost = problems_after(|commit| commit.delete(index[0].clone())).await;
    assert_eq!(lost, first(&format!("host 1 is not found by {}", index[0])));
    let wrong = problems_after(|commit| commit.put(index[0].clone(), record::encode_ids(&[one, HostId::new(2)]))).await;
    assert_eq!(wrong, first(&format!("{} names host 2, which has no such value", index[0])));
    let gap = problems_after(|commit| commit.delete(keys::event(one, 2))).await;
    assert_eq!(gap, first("the events of host 1 are not numbered up to its newest one"));
    let newest = problems_after(|commit| commit.delete(keys::event(one, 4))).await;
    assert_eq!(newest, first("the events of host 1 are not numbered up to its newest one"));
    let oldest = problems_after(|commit| commit.delete(keys::event(one, 1))).await;
    assert_eq!(oldest, first("the events of host 1 are not numbered up to its newest one"));
    let orphans = problems_after(|commit| commit.delete(keys::forgotten(three))).await;
    assert_eq!(orphans, first("there are events of host 3, which was never known"));
    let reused = problems_after(|commit| commit.put(keys::LAST_FORGOTTEN, record::encode_number(1))).await;
    assert_eq!(reused, first("host 3 is forgotten, but not for good"));
    let foreign = problems_after(|commit| commit.put(Key::new("zebra").unwrap(), "x")).await;
    assert_eq!(foreign, first("the key zebra does not belong here"));
    let unreadable = problems_after(|commit| commit.put(keys::event(one, 2), "x")).await;
    assert!(unreadable[0].contains("cannot be read"), "{unreadable:?}");
    for half in [keys::cold(one), keys::hot(one)] {
        let problems = problems_after(|commit| commit.delete(half)).await;
        assert!(problems.contains(&"of host 1 only one of two records is there".to_owned()), "{problems:?}");
    }
}

#[tokio::test]
async fn a_store_in_use_shows_no_problem_that_it_does_not_have() {
    let store = std::sync::Arc::new(store().await);
    let writer = {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            for number in 10..200 {
                let found = store.candidates(&identity(number)).await.unwrap();
                let build = |id| domain::register(id, registration(number), Actor::Machine, at(0));
                let host = store.register(&found, build).await.unwrap();
                tokio::task::yield_now().await;
                if number % 3 == 0 {
                    store.forget(&host, domain::forget(&host, Actor::Server, at(9))).await.unwrap();
                }
            }
        })
    };
    while !writer.is_finished() {
        let check = store.check(|_| ()).await.unwrap();
        assert!(check.is_good(), "{check:?}");
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}
