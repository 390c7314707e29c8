use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use proptest::prelude::*;

use super::*;
use crate::{
    domain::{self, Actor, BootId, Change, EventKind, Facts, Offer, Writes},
    store::{
        Orders, StreamError, Written,
        fixtures::{at as time, identity, mac, registration},
        record,
        sled::SledOptions,
    },
};

/// A store and the folder it lies in, if it does.
struct Fixture {
    store: Arc<Store>,
    dir: Option<tempfile::TempDir>,
}

const OPTIONS: SledOptions = SledOptions { cache_bytes: 8 << 20, min_free_bytes: 0 };

async fn fixtures() -> [Fixture; 2] {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), &OPTIONS).await.unwrap());
    [Fixture { store: Arc::new(Store::memory()), dir: None }, Fixture { store, dir: Some(dir) }]
}

impl Fixture {
    async fn reopened(self) -> Self {
        let Some(dir) = self.dir else { return self };
        self.store.close().await;
        drop(Arc::into_inner(self.store).unwrap());
        Self { store: Arc::new(Store::open(dir.path(), &OPTIONS).await.unwrap()), dir: Some(dir) }
    }
}

async fn register(store: &Store, number: u64) -> Host {
    let candidates = store.candidates(&identity(number)).await.unwrap();
    let build = |id| domain::register(id, registration(number), Actor::Machine, time(0));
    store.register(&candidates, build).await.unwrap()
}

fn rotation(host: &Host, byte: u8) -> Change {
    let bootid = BootId::new(host.id, [byte; 16]);
    domain::offer(
        host,
        Offer { bootid, from: [10, 0, 0, 1].into(), image: None, writes: Writes::Nothing, detour: false },
        &domain::Fleet::default(),
        time(1),
    )
    .unwrap()
}

fn note(host: &Host) -> Change {
    domain::note(host, EventKind::ForeignBoot { from: [10, 0, 0, 9].into() }, Actor::Machine, time(2))
}

fn numbers(hosts: &[Host]) -> Vec<u64> {
    hosts.iter().map(|host| host.id.get()).collect()
}

async fn sharing(store: &Store, identity: &Identity) -> Vec<u64> {
    numbers(&store.candidates(identity).await.unwrap().hosts)
}

/// Every index entry and every host it names, as the store has it.
async fn stored_index(store: &Store) -> BTreeMap<Key, Vec<HostId>> {
    let (_, entries) = store.kv.scan(b"x/", None, MAX_SCAN_ENTRIES).await.unwrap();
    entries.into_iter().map(|entry| (entry.key, record::decode_ids(&entry.value).unwrap())).collect()
}

/// The same as it follows from the hosts.
async fn derived_index(store: &Store) -> BTreeMap<Key, Vec<HostId>> {
    let mut index: BTreeMap<Key, Vec<HostId>> = BTreeMap::new();
    for host in store.hosts(None, MAX_SCAN_ENTRIES).await.unwrap() {
        for key in keys::index(&host.identity).unwrap() {
            index.entry(key).or_default().push(host.id);
        }
    }
    index
}

#[tokio::test]
async fn a_server_that_was_killed_in_a_job_starts_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &OPTIONS).await.unwrap();
    assert!(store.take_lease("cmdb", 7, time(0), time(60)).await.unwrap());
    let host = register(&store, 1).await;
    drop(store);
    let full = SledOptions { min_free_bytes: u64::MAX, ..OPTIONS };
    let store = Store::open(dir.path(), &full).await.unwrap();
    assert_eq!(store.host(host.id).await.unwrap(), Some(host));
    assert!(matches!(store.writable(), Err(StoreError::Kv(KvError::Full { .. }))));
    drop(store);
    // With room again nobody waits for whoever was killed.
    let store = Store::open(dir.path(), &OPTIONS).await.unwrap();
    assert!(store.take_lease("cmdb", 8, time(1), time(61)).await.unwrap());
}

#[tokio::test]
async fn a_registered_host_is_found_by_every_value_it_has() {
    for at in fixtures().await {
        let host = register(&at.store, 7).await;
        register(&at.store, 8).await;
        let at = at.reopened().await;
        let all = identity(7);
        let only = |serial: bool, uuid: bool, macs: &[u64]| Identity {
            serial: all.serial.clone().filter(|_| serial),
            uuid: all.uuid.filter(|_| uuid),
            macs: macs.iter().map(|number| mac(*number)).collect(),
        };
        for some in [only(true, false, &[]), only(false, true, &[]), only(false, false, &[15]), all.clone()] {
            assert_eq!(at.store.candidates(&some).await.unwrap().hosts, std::slice::from_ref(&host), "{some:?}");
        }
        let other_case = Identity { serial: Some("czj0000007x".parse().unwrap()), ..Identity::default() };
        assert_eq!(sharing(&at.store, &other_case).await, [1]);
        assert_eq!(sharing(&at.store, &only(false, false, &[15, 16])).await, [1, 2]);
        assert_eq!(sharing(&at.store, &only(false, false, &[99])).await, [0_u64; 0]);
        assert_eq!(at.store.host(host.id).await.unwrap(), Some(host));
        assert_eq!(at.store.host(HostId::new(3)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn numbers_are_dense_and_never_used_again() {
    for mut at in fixtures().await {
        for number in 1..=3 {
            assert_eq!(register(&at.store, number).await.id, HostId::new(number));
        }
        for number in [3, 1] {
            let host = at.store.host(HostId::new(number)).await.unwrap().unwrap();
            at.store.forget(&host, domain::forget(&host, Actor::Server, time(9))).await.unwrap();
        }
        at = at.reopened().await;
        assert_eq!(register(&at.store, 4).await.id, HostId::new(4));
        at = at.reopened().await;
        assert_eq!(register(&at.store, 5).await.id, HostId::new(5));
    }
}

#[tokio::test]
async fn of_two_registrations_that_share_a_value_one_is_a_conflict() {
    for at in fixtures().await {
        let mut twin = registration(7);
        twin.identity = Identity { macs: identity(7).macs, ..identity(8) };
        let candidates = at.store.candidates(&identity(7)).await.unwrap();
        let twins_candidates = at.store.candidates(&twin.identity).await.unwrap();
        let build = |registration| move |id| domain::register(id, registration, Actor::Machine, time(0));
        at.store.register(&candidates, build(registration(7))).await.unwrap();
        let late = at.store.register(&twins_candidates, build(twin.clone())).await;
        assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
        let again = at.store.candidates(&twin.identity).await.unwrap();
        assert_eq!(numbers(&again.hosts), [1]);
        let host = at.store.register(&again, build(twin.clone())).await.unwrap();
        assert_eq!(host.id, HostId::new(2), "the number of the conflict was lost");
        assert_eq!(sharing(&at.store, &identity(7)).await, [1, 2]);
    }
}

#[tokio::test]
async fn concurrent_registrations_get_different_numbers() {
    for at in fixtures().await {
        let hosts = join_all((0..64).map(|number| register(&at.store, number))).await;
        let ids: BTreeSet<u64> = hosts.iter().map(|host| host.id.get()).collect();
        assert_eq!(ids, (1..=64).collect());
        assert_eq!(stored_index(&at.store).await, derived_index(&at.store).await);
    }
}

#[tokio::test]
async fn a_change_from_an_outdated_host_is_a_conflict_and_changes_nothing() {
    for at in fixtures().await {
        let old = register(&at.store, 7).await;
        let new = at.store.commit(&old, rotation(&old, 1)).await.unwrap();
        for late in [at.store.commit(&old, rotation(&old, 2)).await.map(drop), at.store.forget(&old, note(&old)).await]
        {
            assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
        }
        assert_eq!(at.store.host(old.id).await.unwrap(), Some(new.clone()));
        at.store.forget(&new, note(&new)).await.unwrap();
        let late = at.store.commit(&new, rotation(&new, 3)).await;
        assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
    }
}

#[tokio::test]
async fn concurrent_changes_of_one_host_leave_a_gapless_timeline() {
    for at in fixtures().await {
        let host = register(&at.store, 7).await;
        let clients = (0..8).map(|client| {
            let store = Arc::clone(&at.store);
            let id = host.id;
            tokio::spawn(async move {
                let mut done = 0;
                while done < 5 {
                    let host = store.host(id).await.unwrap().unwrap();
                    match store.commit(&host, rotation(&host, client)).await {
                        Ok(_) => done += 1,
                        Err(StoreError::Conflict) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        });
        join_all(clients).await.into_iter().for_each(Result::unwrap);
        let host = at.store.host(host.id).await.unwrap().unwrap();
        let seqs: Vec<u64> = at.store.events(host.id, 0, 999).await.unwrap().iter().map(|event| event.seq).collect();
        // A registration, and an offer and an attempt by each rotation.
        assert_eq!(seqs, (1..=81).collect::<Vec<_>>());
        assert_eq!(host.event_count, 81);
    }
}

#[tokio::test]
async fn a_boot_writes_the_hot_record_and_its_events_only() {
    for at in fixtures().await {
        let host = register(&at.store, 7).await;
        let mut changes = at.store.kv.watch(b"", Revision::ZERO);
        at.store.commit(&host, rotation(&host, 1)).await.unwrap();
        let ops = changes.next().await.unwrap().ops;
        let keys: Vec<Key> = ops.iter().map(|(_, op)| op.key().clone()).collect();
        assert_eq!(keys, [keys::hot(host.id), keys::event(host.id, 2), keys::event(host.id, 3)]);
    }
}

#[tokio::test]
async fn a_changed_identity_moves_its_index_entries() {
    for at in fixtures().await {
        let host = register(&at.store, 7).await;
        register(&at.store, 8).await;
        let facts = Facts {
            identity: Identity { macs: [mac(100), mac(16)].into(), ..Identity::default() },
            ..Facts::default()
        };
        let learned = domain::learn(&host, &facts, time(3)).unwrap();
        let host = at.store.commit(&host, learned).await.unwrap();
        assert_eq!(sharing(&at.store, &facts.identity).await, [1, 2]);
        assert_eq!(at.store.host(host.id).await.unwrap().as_ref(), Some(&host));
        let mut change = note(&host);
        change.host.identity = identity(9);
        at.store.commit(&host, change).await.unwrap();
        assert_eq!(sharing(&at.store, &identity(7)).await, [0_u64; 0]);
        assert_eq!(sharing(&at.store, &identity(9)).await, [1]);
        assert_eq!(stored_index(&at.store).await, derived_index(&at.store).await);
    }
}

#[tokio::test]
async fn a_forgotten_host_leaves_its_events_and_nothing_else() {
    for at in fixtures().await {
        let host = register(&at.store, 7).await;
        let last = domain::forget(&host, Actor::Operator("uid 0".to_owned()), time(5));
        at.store.forget(&host, last.clone()).await.unwrap();
        let at = at.reopened().await;
        assert_eq!(at.store.host(host.id).await.unwrap(), None);
        assert_eq!(sharing(&at.store, &identity(7)).await, [0_u64; 0]);
        assert_eq!(stored_index(&at.store).await, BTreeMap::new());
        assert_eq!(at.store.events(host.id, 2, 9).await.unwrap(), last.events);
    }
}

#[tokio::test]
async fn a_timeline_keeps_its_newest_events() {
    for at in fixtures().await {
        let mut host = register(&at.store, 7).await;
        let other = register(&at.store, 8).await;
        // Many events at a time, as any number may come at once.
        while host.event_count < TIMELINE_EVENTS + 60 {
            let mut change = note(&host);
            for _ in 0..40 {
                let next = note(&change.host);
                change.events.extend(next.events);
                change.host = next.host;
            }
            host = at.store.commit(&host, change).await.unwrap();
        }
        let oldest = host.event_count + 1 - TIMELINE_EVENTS;
        let seqs: Vec<u64> = at.store.events(host.id, 0, 1_000).await.unwrap().iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (oldest..=host.event_count).collect::<Vec<_>>());
        let some = at.store.events(host.id, oldest + 10, 3).await.unwrap();
        assert_eq!(some.iter().map(|event| event.seq).collect::<Vec<_>>(), [oldest + 10, oldest + 11, oldest + 12]);
        assert_eq!(at.store.events(other.id, 0, 9).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_change_without_following_events_is_refused() {
    for at in fixtures().await {
        let host = register(&at.store, 7).await;
        let good = note(&host);
        let mut silent = good.clone();
        silent.events.clear();
        let mut gap = good.clone();
        gap.events[0].seq += 1;
        let mut foreign = good.clone();
        foreign.events[0].host = HostId::new(9);
        let mut uncounted = good.clone();
        uncounted.host.event_count -= 1;
        for bad in [silent, gap, foreign, uncounted] {
            let refused = at.store.commit(&host, bad).await;
            assert!(matches!(refused, Err(StoreError::Misnumbered { .. })), "{refused:?}");
        }
        at.store.commit(&host, good).await.unwrap();
    }
}

#[tokio::test]
async fn hosts_are_listed_in_pages() {
    for at in fixtures().await {
        join_all((0..70).map(|number| register(&at.store, number))).await;
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let page = at.store.hosts(after, 32).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            listed.extend(page);
        }
        assert_eq!(numbers(&listed), (1..=70).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_stream_gives_each_event_once_and_goes_on_from_a_position() {
    for at in fixtures().await {
        let host = register(&at.store, 7).await;
        let mut stream = at.store.subscribe(None);
        let rotated = rotation(&host, 1);
        let host = at.store.commit(&host, rotated.clone()).await.unwrap();
        let noted = note(&host);
        at.store.commit(&host, noted.clone()).await.unwrap();
        let (first, second, third) =
            (stream.next().await.unwrap(), stream.next().await.unwrap(), stream.next().await.unwrap());
        let expected: Vec<_> = rotated.events.iter().chain(&noted.events).collect();
        assert_eq!([&first.event, &second.event, &third.event], expected[..]);

        let position: Position = first.position.to_string().parse().unwrap();
        let mut resumed = at.store.subscribe(Some(position));
        assert_eq!(resumed.next().await.unwrap(), second);
        assert_eq!(resumed.next().await.unwrap(), third);

        let foreign = Position { generation: Generation::new(0xbad), ..position };
        assert_eq!(at.store.subscribe(Some(foreign)).next().await, Err(StreamError::Resync));
        at.store.close().await;
        assert_eq!(stream.next().await, Err(StreamError::Stopped));
    }
}

#[tokio::test]
async fn a_store_keeps_its_generation_and_each_has_its_own() {
    let [_, one] = fixtures().await;
    let [_, other] = fixtures().await;
    let generation = one.store.generation();
    assert_ne!(generation, other.store.generation());
    assert_eq!(one.reopened().await.store.generation(), generation);
}

#[tokio::test]
async fn a_value_of_very_many_hosts_stops_being_indexed() {
    let store = Store::memory();
    let shared = mac(9_999);
    for number in 0..MAX_IDS_PER_VALUE as u64 + 3 {
        let mut registration = registration(number);
        registration.identity.macs.insert(shared);
        let candidates = store.candidates(&registration.identity).await.unwrap();
        store.register(&candidates, |id| domain::register(id, registration, Actor::Machine, time(0))).await.unwrap();
    }
    let by_mac = Identity { macs: [shared].into(), ..Identity::default() };
    assert_eq!(sharing(&store, &by_mac).await.len(), MAX_IDS_PER_VALUE);
    assert_eq!(sharing(&store, &identity(66)).await, [67]);
}

/// What a random history does next, to a host of a small number.
#[derive(Clone, Debug)]
enum Step {
    Register(u64, u64),
    Exchange(u64, u64, u64),
    Forget(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..6_u64, 0..12_u64).prop_map(|(number, card)| Step::Register(number, card)),
        2 => (1..9_u64, 0..6_u64, 0..12_u64).prop_map(|(id, number, card)| Step::Exchange(id, number, card)),
        1 => (1..9_u64).prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 1..40)
}

/// Few serials and cards, so that hosts share them.
fn random_identity(number: u64, card: u64) -> Identity {
    let serial = identity(number).serial.filter(|_| number > 0);
    Identity { serial, uuid: identity(card).uuid.filter(|_| card > 6), macs: [mac(card), mac(card / 2)].into() }
}

async fn take(store: &Store, step: Step) {
    match step {
        Step::Register(number, card) => {
            let mut registration = registration(0);
            registration.identity = random_identity(number, card);
            let candidates = store.candidates(&registration.identity).await.unwrap();
            store.register(&candidates, |id| domain::register(id, registration, Actor::Server, time(0))).await.unwrap();
        }
        Step::Exchange(id, number, card) => {
            let Some(host) = store.host(HostId::new(id)).await.unwrap() else { return };
            let mut change = note(&host);
            change.host.identity = random_identity(number, card);
            store.commit(&host, change).await.unwrap();
        }
        Step::Forget(id) => {
            let Some(host) = store.host(HostId::new(id)).await.unwrap() else { return };
            store.forget(&host, note(&host)).await.unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_always_follows_from_the_hosts(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Store::memory();
            for step in steps {
                take(&store, step).await;
                assert_eq!(stored_index(&store).await, derived_index(&store).await);
            }
        });
    }
}

// ---- Orders by name ----

/// The host is finished, or ordered for by this name.
fn ordered(host: &Host, states: &str, name: &str) -> Change {
    let order = domain::Order { to: states.parse().unwrap(), name: Some(name.parse().unwrap()), reinstall: true };
    domain::order(host, &order, &"cmdb".parse().unwrap(), time(3)).unwrap().unwrap()
}

fn finished(host: &Host) -> Change {
    domain::finish_by_operator(host, Actor::Operator("ada".to_owned()), time(4)).unwrap()
}

async fn is_spent(store: &Store, host: &Host, name: &str) -> bool {
    store.is_order_spent(host.id, &name.parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_order_by_name_is_committed_once_per_host_and_for_ever() {
    for fixture in fixtures().await {
        let store = &fixture.store;
        let (host, other) = (register(store, 1).await, register(store, 2).await);
        let host = store.commit(&host, ordered(&host, "web", "CHG1")).await.unwrap();
        let host = store.commit(&host, finished(&host)).await.unwrap();
        let again = store.commit(&host, ordered(&host, "web", "CHG1")).await;
        assert!(matches!(again, Err(StoreError::OrderSpent)), "{again:?}");
        assert_eq!(store.host(host.id).await.unwrap().unwrap(), host, "nothing was written");
        store.commit(&other, ordered(&other, "web", "CHG1")).await.unwrap();
        assert!(!is_spent(store, &host, "chg1").await, "names are compared as they are");

        let fixture = fixture.reopened().await;
        let again = fixture.store.commit(&host, ordered(&host, "web", "CHG1")).await;
        assert!(matches!(again, Err(StoreError::OrderSpent)), "{again:?}");
        let forgotten = domain::forget(&host, Actor::Server, time(5));
        fixture.store.forget(&host, forgotten).await.unwrap();
        assert!(is_spent(&fixture.store, &host, "CHG1").await, "also when the host is forgotten");
    }
}

#[tokio::test]
async fn a_server_killed_after_an_order_remembers_its_name() {
    let [_, Fixture { store, dir }] = fixtures().await;
    let host = register(&store, 1).await;
    let host = store.commit(&host, ordered(&host, "web", "CHG1")).await.unwrap();
    // What a killed process leaves: its files as they are at this moment, never closed.
    let left = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.unwrap().path()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
        }
    }
    let killed = Store::open(left.path(), &OPTIONS).await.unwrap();
    assert_eq!(killed.host(host.id).await.unwrap().unwrap(), host, "the order was acknowledged, so it is there");
    assert!(is_spent(&killed, &host, "CHG1").await, "and with it its name");
}

#[tokio::test]
async fn what_stops_a_plugin_survives_a_restart() {
    let [_, fixture] = fixtures().await;
    let plugin = "cmdb".parse().unwrap();
    let stopped = Orders::Stopped { at: time(0), most: 5, host: HostId::new(7) };
    fixture.store.put_orders_of(&plugin, &stopped, 0).await.unwrap();
    let fixture = fixture.reopened().await;
    let (found, version) = fixture.store.orders_of(&plugin).await.unwrap();
    assert_eq!(found, stopped);
    assert_eq!(fixture.store.put_orders_of(&plugin, &Orders::AsGranted, 0).await.unwrap(), Written::Conflict);
    fixture.store.put_orders_of(&plugin, &Orders::AsGranted, version).await.unwrap();
    assert_eq!(fixture.store.orders_of(&plugin).await.unwrap(), (Orders::AsGranted, 0));
}

#[tokio::test]
async fn a_given_number_is_taken_once_and_later_ones_are_higher() {
    for fixture in fixtures().await {
        let store = &fixture.store;
        let at = |number: u64| async move {
            let candidates = store.candidates(&identity(number)).await.unwrap();
            let build = |id| domain::register(id, registration(number), Actor::Machine, time(0));
            store.register_at(HostId::new(number), &candidates, None, build).await
        };
        let forgotten = at(7).await.unwrap();
        at(3).await.unwrap();
        assert_eq!(register(store, 100).await.id.get(), 8);
        let forget = domain::forget(&forgotten, Actor::Machine, time(1));
        store.forget(&forgotten, forget).await.unwrap();
        for used in [3, 7, 8] {
            assert!(matches!(at(used).await, Err(StoreError::NumberUsed(id)) if id.get() == used), "{used}");
        }
        let reopened = fixture.reopened().await;
        assert_eq!(register(&reopened.store, 101).await.id.get(), 9);
    }
}
