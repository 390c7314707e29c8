//! Backups over both backends: what was saved comes back, while others write, and nothing else comes from a bad file.
use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{format::Writer, *};
use crate::{
    domain::{self, Actor, BootId, EventKind, Host, HostId, NextBoot, Offer, Writes},
    store::{
        CatchUpStage, OpenError, Orders, Store, StoreOptions,
        fixtures::{at, event, identity, mac, registration},
        hosts::SCHEMA,
        keys,
        kv::{Backend, Commit, Key, Kv, MAX_SCAN_ENTRIES, Op},
        memory::MemoryKv,
        record::{self, DeadLetter, OutboxCursor},
        restore::{Filled, RestoreError, fill_over},
        sled::SledKv,
    },
};

const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 8 << 20, min_free_bytes: 0 };

/// One thing that happens to a store.
#[derive(Clone, Debug)]
enum Step {
    Register(u64),
    Boot(u64, u8),
    Order(u64, &'static str),
    Forget(u64),
    Value(u8, usize),
    Letter(u64),
    Freeze,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = 1_u64..6;
    let step = prop_oneof![
        3 => (1_u64..9).prop_map(Step::Register),
        3 => (host.clone(), any::<u8>()).prop_map(|(host, byte)| Step::Boot(host, byte)),
        2 => (host.clone(), prop_oneof![Just("finished"), Just("image1"), Just("wipe,image1")])
            .prop_map(|(host, states)| Step::Order(host, states)),
        1 => host.clone().prop_map(Step::Forget),
        1 => (any::<u8>(), 0_usize..20_000).prop_map(|(key, bytes)| Step::Value(key, bytes)),
        1 => host.prop_map(Step::Letter),
        1 => Just(Step::Freeze),
    ];
    prop::collection::vec(step, 0..40)
}

async fn happen(store: &Store, step: &Step) {
    let plugin = "cmdb".parse().unwrap();
    let host = async |number: u64| store.host(HostId::new(number)).await.unwrap();
    match step {
        Step::Register(number) => {
            // Every other one shares a card with its neighbour.
            let mut wanted = registration(*number);
            wanted.identity.macs.insert(mac(*number / 2));
            let found = store.candidates(&wanted.identity).await.unwrap();
            store.register(&found, |id| domain::register(id, wanted, Actor::Machine, at(0))).await.unwrap();
        }
        Step::Boot(number, byte) => {
            if let Some(host) = host(*number).await {
                let bootid = BootId::new(host.id, [*byte; 16]);
                let offered =
                    Offer { bootid, from: [10, 0, 0, 1].into(), image: None, writes: Writes::Disk, detour: false };
                if let Ok(change) = domain::offer(&host, offered, &store.fleet(3).await.unwrap(), at(1)) {
                    store.commit(&host, change).await.unwrap();
                }
            }
        }
        Step::Order(number, states) => {
            if let Some(host) = host(*number).await {
                let name = format!("CHG-{}", host.event_count).parse().unwrap();
                let wanted = domain::Order { to: states.parse().unwrap(), name: Some(name), reinstall: true };
                if let Ok(Some(change)) = domain::order(&host, &wanted, &plugin, at(2)) {
                    store.commit(&host, change).await.unwrap();
                }
            }
        }
        Step::Forget(number) => {
            if let Some(host) = host(*number).await {
                store.forget(&host, domain::forget(&host, Actor::Server, at(3))).await.unwrap();
            }
        }
        Step::Value(key, bytes) => {
            let key = format!("key {key}");
            let version = store.plugin_value(&plugin, &key).await.unwrap().map_or(0, |(_, version)| version);
            let value = (*bytes > 0).then(|| Bytes::from(vec![*bytes as u8; *bytes]));
            store.put_plugin_value(&plugin, &key, value, version).await.unwrap();
        }
        Step::Freeze => {
            let freeze = domain::Safeguard::new(Actor::Server, "fire", at(6));
            store.freeze(&freeze).await.unwrap();
        }
        Step::Letter(number) => {
            let event = event(HostId::new(*number), 1, at(4));
            let letter = DeadLetter { event, error: "trapped".to_owned(), at: at(5), attempts: 3 };
            store.bury("cmdb", &letter, None).await.unwrap();
            let cursor = OutboxCursor {
                generation: store.generation(),
                revision: crate::store::Revision::new(1),
                catch_up: None,
            };
            store.move_cursor("cmdb", &cursor).await.unwrap();
        }
    }
}

async fn all(store: &Store) -> BTreeMap<Key, Bytes> {
    let mut all = BTreeMap::new();
    loop {
        let after = all.last_key_value().map(|(key, _): (&Key, &Bytes)| key.clone());
        let (_, page) = store.kv.scan(b"", after.as_ref().map(Key::as_bytes), MAX_SCAN_ENTRIES).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page.into_iter().map(|entry| (entry.key, entry.value)));
    }
}

async fn dumped(store: &Store) -> Vec<u8> {
    let mut dump = store.dump(at(10));
    let mut bytes = Vec::new();
    while let Some(piece) = dump.next(store).await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

async fn filled(backup: &[u8]) -> Result<Store, RestoreError> {
    let filled = fill_over(Backend::Memory(MemoryKv::default()), backup, at(100), &mut |_| ()).await;
    filled.map(|filled| filled.store)
}

fn ask(now: jiff::Timestamp) -> domain::Ask {
    domain::Ask { from: [10, 0, 0, 1].into(), now, activity: domain::Activity::Quiet, most_attempts: 3 }
}

/// The restored store is the old one, but for its name and the quarantine.
fn assert_restored(old: &BTreeMap<Key, Bytes>, new: &BTreeMap<Key, Bytes>) {
    let quarantined = |id: HostId, all: &BTreeMap<Key, Bytes>| -> Host {
        record::decode_host(id, &all[&keys::cold(id)], &all[&keys::hot(id)]).unwrap()
    };
    let mut hosts = 0;
    for (key, value) in old {
        if *key == keys::LAST_FORGOTTEN {
            continue;
        }
        if *key == keys::GENERATION {
            assert_ne!(new[key], value, "a restored store is another one");
        } else if key.as_bytes().starts_with(keys::HOT.as_bytes()) {
            hosts += 1;
            let id = keys::host_id(key).unwrap();
            let (before, after) = (quarantined(id, old), quarantined(id, new));
            assert!(after.quarantined);
            assert_eq!(after.event_count, before.event_count + 1);
            let secret = |host: &Host| host.boot.as_ref().map(|boot| boot.bootid);
            assert!(secret(&before).is_none() || secret(&before) != secret(&after), "its secret is nobody's now");
            let expected = match (&after.states, before.states.is_finished(), before.states.is_new()) {
                (_, true, _) => NextBoot::LocalDisk,
                (_, _, true) => NextBoot::Wait,
                _ => NextBoot::Hold(domain::HoldReason::Quarantined(id)),
            };
            assert_eq!(domain::next_boot(&after, &ask(at(200))), expected);
            let why = "x";
            let unknown = after.boot.as_ref().map_or(BootId::new(id, [0; 16]), |boot| boot.bootid);
            let change = domain::quarantine(&before, unknown, why, at(100));
            assert_eq!(after, change.host, "nothing else is changed");
        } else if let Some(plugin) = keys::cursor_plugin(key) {
            let (before, after) = [value, &new[key]].map(|cursor| record::decode_cursor(cursor).unwrap()).into();
            assert_ne!(before.generation, after.generation, "{plugin} goes on in the new history");
        } else {
            assert_eq!(new.get(key), Some(value), "{key}");
        }
    }
    let numbers = usize::from(!old.contains_key(&keys::LAST_FORGOTTEN));
    assert_eq!(
        new.len(),
        old.len() + hosts + 2 + numbers,
        "an event for each host, and the notes that it was restored"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_store_is_the_saved_one_but_for_its_name_and_its_quarantine(steps in steps(), on_sled: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (dir, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let store = if on_sled {
                Store::open(dir.path(), &OPTIONS).await.unwrap()
            } else {
                Store::over(Backend::Memory(MemoryKv::default())).await.unwrap()
            };
            for step in &steps {
                happen(&store, step).await;
            }
            assert!(store.check(|_| ()).await.unwrap().is_good(), "{:?}", store.check(|_| ()).await);
            let (old, backup) = (all(&store).await, dumped(&store).await);
            let kv = if on_sled {
                Backend::Sled(SledKv::open(restored.path(), &OPTIONS).unwrap())
            } else {
                Backend::Memory(MemoryKv::default())
            };
            let Filled { store: new, hosts, .. } = fill_over(kv, &*backup, at(100), &mut |_| ()).await.unwrap();
            assert_restored(&old, &all(&new).await);
            assert_eq!(hosts, store.hosts(None, 100).await.unwrap().len() as u64);
        });
    }
}

#[tokio::test]
async fn a_backup_taken_under_writes_is_the_store_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &OPTIONS).await.unwrap();
    for number in 1..=60 {
        happen(&store, &Step::Register(number)).await;
    }
    let mut dump = store.dump(at(10));
    let mut bytes = Vec::new();
    let mut turn = 0;
    while let Some(piece) = dump.next(&store).await.unwrap() {
        bytes.extend_from_slice(&piece);
        // Between any two pages hosts come, go and change, before and behind the place that is read.
        turn += 1;
        for step in [
            Step::Register(100 + turn),
            Step::Boot(turn, 7),
            Step::Forget(turn + 10),
            Step::Order(59 - turn % 40, "image1"),
            Step::Value(turn as u8, 9_000),
        ] {
            happen(&store, &step).await;
        }
    }
    assert!(turn > 4, "there were several pages");
    // Checked within: indexes, events and hosts fit together.
    let new = filled(&bytes).await.unwrap();
    let known = new.hosts(None, 1_000).await.unwrap();
    assert!(known.iter().any(|host| host.id.get() > 60), "hosts that came meanwhile are in it");
    assert!(known.iter().all(|host| host.id.get() != 11), "and those that went are not");
}

#[tokio::test]
async fn a_host_that_becomes_known_after_a_restore_is_quarantined_until_that_is_lifted() {
    let store = Store::over(Backend::Memory(MemoryKv::default())).await.unwrap();
    let new = filled(&dumped(&store).await).await.unwrap();
    assert!(new.is_quarantined());
    happen(&new, &Step::Register(1)).await;
    new.lift_quarantine().await.unwrap();
    happen(&new, &Step::Register(3)).await;
    let quarantined: Vec<bool> = new.hosts(None, 9).await.unwrap().iter().map(|host| host.quarantined).collect();
    assert_eq!(quarantined, [true, false]);
    assert!(new.check(|_| ()).await.unwrap().is_good());
}

#[tokio::test]
async fn a_number_that_was_given_away_after_the_backup_is_given_to_no_other_machine() {
    let store = Store::over(Backend::Memory(MemoryKv::default())).await.unwrap();
    for step in [Step::Register(1), Step::Register(3), Step::Forget(2)] {
        happen(&store, &step).await;
    }
    let backup = dumped(&store).await;
    happen(&store, &Step::Register(5)).await;
    assert!(store.host(HostId::new(3)).await.unwrap().is_some(), "what the backup does not know");
    let new = filled(&backup).await.unwrap();
    happen(&new, &Step::Register(7)).await;
    let known: Vec<u64> = new.hosts(None, 9).await.unwrap().iter().map(|host| host.id.get()).collect();
    assert_eq!(known, [1, 1_001]);
    // Nor after the next one.
    let again = filled(&dumped(&new).await).await.unwrap();
    happen(&again, &Step::Register(9)).await;
    assert!(again.host(HostId::new(2_001)).await.unwrap().is_some());
    assert!(again.check(|_| ()).await.unwrap().is_good());
}

#[tokio::test]
async fn after_a_restore_no_plugin_orders_until_it_is_approved_and_all_are_told_of_the_quarantine() {
    let store = Store::over(Backend::Memory(MemoryKv::default())).await.unwrap();
    let [cmdb, wild, unknown] = ["cmdb", "wild", "unknown"].map(|name| name.parse().unwrap());
    for step in [Step::Register(1), Step::Boot(1, 7), Step::Register(3), Step::Letter(1)] {
        happen(&store, &step).await;
    }
    let approved = |call: Option<&str>| Orders::Approved { most: 9, by: "ada".into(), call: call.map(Into::into) };
    let stopped = Orders::Stopped { at: at(6), most: 2, host: HostId::new(1) };
    store.put_orders_of(&cmdb, &approved(None), 0).await.unwrap();
    store.put_orders_of(&wild, &stopped, 0).await.unwrap();

    let new = filled(&dumped(&store).await).await.unwrap();
    let waits = Orders::Restored { taken_at: at(10) };
    assert_eq!(new.orders_of(&cmdb).await.unwrap(), (waits.clone(), 0), "an approval of before is void");
    assert_eq!(new.orders_of(&unknown).await.unwrap(), (waits.clone(), 0), "also one that the backup does not know");
    assert_eq!(new.orders_of(&wild).await.unwrap().0, stopped);
    // Lifting the quarantine of hosts says nothing of plugins, and neither does clearing away what one stored.
    new.lift_quarantine().await.unwrap();
    new.put_orders_of(&cmdb, &approved(Some("run-1")), 0).await.unwrap();
    assert_eq!(new.orders_of(&cmdb).await.unwrap().0, approved(Some("run-1")));
    new.clear_plugin(&cmdb).await.unwrap();
    assert_eq!(new.orders_of(&cmdb).await.unwrap().0, waits);

    // What a plugin reads that goes on from its cursor: of each host the quarantine, and nothing before.
    let cursor = new.outbox_cursor("cmdb").await.unwrap().unwrap();
    assert_eq!(cursor.generation, new.generation());
    let changed = new.changed_hosts(CatchUpStage::Known, None, cursor.revision).await.unwrap().changed;
    assert_eq!(changed.len(), 2);
    for host in changed {
        let first = new.first_event_after(host, cursor.revision).await.unwrap();
        let events = new.events_at(host.host, first, 9).await.unwrap().events;
        let kinds: Vec<&str> = events.iter().map(|at| at.event.kind.name()).collect();
        assert_eq!(kinds, ["quarantined"]);
    }
    assert_eq!(new.count_dead_letters("cmdb").await.unwrap(), 1, "they are delivered by hand only");
    // A backup of it, restored, waits for its own approval.
    new.put_orders_of(&cmdb, &approved(None), 0).await.unwrap();
    let again = filled(&dumped(&new).await).await.unwrap();
    assert_eq!(again.orders_of(&cmdb).await.unwrap().0, waits);
    assert!(again.check(|_| ()).await.unwrap().is_good());
}

#[tokio::test]
async fn a_backup_that_was_cut_or_changed_anywhere_is_refused() {
    let store = Store::over(Backend::Memory(MemoryKv::default())).await.unwrap();
    for step in [Step::Register(1), Step::Boot(1, 7), Step::Value(1, 300)] {
        happen(&store, &step).await;
    }
    let good = dumped(&store).await;
    let check = |bytes: &[u8]| Reader::open(bytes).and_then(|reader| reader.check(|_| ()));
    let contents = check(&good).unwrap();
    assert_eq!((contents.bytes, contents.about.taken_at), (good.len() as u64, at(10)));
    for length in 0..good.len() {
        let refused = check(&good[..length]).unwrap_err();
        let is_empty = length == 0 && matches!(refused, BackupError::Foreign);
        assert!(matches!(refused, BackupError::Truncated) || is_empty, "cut to {length}: {refused}");
    }
    for index in 0..good.len() {
        let mut flipped = good.clone();
        flipped[index] ^= 1 << (index % 8);
        assert!(check(&flipped).is_err(), "bit flipped in byte {index}");
    }
    let longer = [good.as_slice(), b"x"].concat();
    assert!(matches!(check(&longer), Err(BackupError::Damaged { .. })));
    assert!(matches!(check(b"PK\x03\x04 a zip file of somebody"), Err(BackupError::Foreign)));
    let newer = String::from_utf8_lossy(&good).replace("kiwispray backup 1", "kiwispray backup 2");
    assert!(matches!(check(newer.as_bytes()), Err(BackupError::Newer { .. })));
    assert!(matches!(filled(&good[..good.len() - 1]).await, Err(RestoreError::Backup(_))));
}

/// The bytes before the first record of a backup by this program, and what makes the next ones.
fn begun(schema: u64) -> (Writer, Vec<u8>) {
    let about = About { program: "9.9".to_owned(), schema, generation: "0".to_owned(), taken_at: at(10) };
    let (writer, bytes) = Writer::begin(&about);
    (writer, bytes.to_vec())
}

#[test]
fn a_length_that_cannot_be_is_refused_before_anything_is_made_of_it() {
    let check = |bytes: &[u8]| Reader::open(bytes).and_then(|reader| reader.check(|_| ()));
    let frame = |kind: u8, length: u32, sum: u32, payload: &[u8]| {
        [&[kind][..], &length.to_be_bytes(), &sum.to_be_bytes(), payload].concat()
    };
    for length in [u32::MAX, 1 << 31, 2 << 20] {
        let first = [b"kiwispray backup 1\n".to_vec(), frame(b'A', length, 0, b"")].concat();
        assert!(matches!(check(&first), Err(BackupError::Damaged { at: 19 })), "{length}");
        let later = [begun(1).1, frame(b'P', length, 0, b"")].concat();
        assert!(matches!(check(&later), Err(BackupError::Damaged { .. })), "{length}");
    }
    // A key that is longer than its record, longer than any, or none; and a record that ends within the length of its key.
    for payload in [&b"\xff\xffkey"[..], &[&[0x02, 0x01][..], &[b'k'; 600]].concat(), b"\0\0value", b"\0"] {
        let sum = crc32c::crc32c(&[b"P", payload].concat());
        let bytes = [begun(1).1, frame(b'P', u32::try_from(payload.len()).unwrap(), sum, payload)].concat();
        assert!(matches!(check(&bytes), Err(BackupError::Damaged { .. })), "{payload:?}");
    }
}

#[tokio::test]
async fn a_newer_layout_is_refused_wherever_the_backup_says_it() {
    let refused = filled(&begun(SCHEMA + 1).1).await.map(drop).unwrap_err();
    assert!(matches!(&refused, RestoreError::Backup(BackupError::Newer { program }) if program == "9.9"), "{refused}");
    // It says so only in the store that it holds.
    let (mut writer, mut bytes) = begun(SCHEMA);
    bytes.extend(writer.ops(&[Op::Put(keys::SCHEMA, record::encode_number(SCHEMA + 1))]));
    bytes.extend(writer.end());
    let refused = filled(&bytes).await.map(drop).unwrap_err();
    assert!(matches!(refused, RestoreError::Open(OpenError::Newer { .. })), "{refused}");
}

#[tokio::test]
async fn a_backup_of_a_store_that_does_not_fit_together_is_not_used() {
    let store = Store::over(Backend::Memory(MemoryKv::default())).await.unwrap();
    happen(&store, &Step::Register(1)).await;
    let mut commit = Commit::default();
    commit.delete(keys::index(&identity(1)).unwrap().remove(0));
    store.kv.commit(commit).await.unwrap();
    let host = store.host(HostId::new(1)).await.unwrap().unwrap();
    store.commit(&host, domain::note(&host, EventKind::Released {}, Actor::Server, at(9))).await.unwrap();
    assert!(matches!(filled(&dumped(&store).await).await, Err(RestoreError::Misfit(_))));
}

#[tokio::test]
async fn who_reads_a_backup_too_slowly_is_told() {
    let store = Store::over(Backend::Memory(MemoryKv::default())).await.unwrap();
    let mut dump = store.dump(at(10));
    dump.next(&store).await.unwrap();
    for number in 0..9_000_u64 {
        let mut commit = Commit::default();
        commit.put(Key::new(format!("p/x/{}", number % 3)).unwrap(), number.to_string());
        store.kv.commit(commit).await.unwrap();
    }
    assert!(matches!(dump.next(&store).await, Err(DumpError::Overrun)));
    assert!(dump.next(&store).await.unwrap().is_none());
}
