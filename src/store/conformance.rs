//! One suite over every backend: what the seam promises, as claims. A new backend joins by a line in `Fixture` and one
//! in `suite!`.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    kv::{Backend, Commit, Entry, Invalid, Key, Kv, KvError, MAX_GET_KEYS, MAX_OPS, Op, Outcome, Revision},
    memory::MemoryKv,
    sled::{SledKv, SledOptions},
    watch::WatchError,
};

/// A backend and what must outlive it.
struct Fixture {
    kv: Arc<Backend>,
    dir: Option<tempfile::TempDir>,
}

impl Fixture {
    fn memory() -> Self {
        Self { kv: Arc::new(Backend::Memory(MemoryKv::default())), dir: None }
    }

    fn sled() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { kv: Arc::new(open_sled(dir.path())), dir: Some(dir) }
    }

    /// Closes and opens again what can be opened again.
    async fn reopened(self) -> Self {
        let Some(dir) = self.dir else { return self };
        self.kv.close().await;
        drop(Arc::into_inner(self.kv).unwrap());
        Self { kv: Arc::new(open_sled(dir.path())), dir: Some(dir) }
    }
}

fn open_sled(dir: &std::path::Path) -> Backend {
    Backend::Sled(SledKv::open(dir, &SledOptions { cache_bytes: 8 << 20, min_free_bytes: 0 }).unwrap())
}

fn key(text: impl AsRef<[u8]>) -> Key {
    Key::new(text.as_ref().to_vec()).unwrap()
}

fn put(pairs: &[(&str, &str)]) -> Commit {
    let mut commit = Commit::default();
    for (name, value) in pairs {
        commit.put(key(name), value.to_string());
    }
    commit
}

async fn committed(kv: &Backend, commit: Commit) -> Revision {
    match kv.commit(commit).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict(key) => panic!("conflict on {key}"),
    }
}

async fn read(kv: &Backend, name: &str) -> Option<Entry> {
    kv.get(&[key(name)]).await.unwrap().1.remove(0)
}

async fn text(kv: &Backend, name: &str) -> Option<String> {
    read(kv, name).await.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

async fn names(kv: &Backend, prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    let entries = kv.scan(prefix.as_bytes(), after.map(str::as_bytes), limit).await.unwrap().1;
    entries.iter().map(|entry| entry.key.to_string()).collect()
}

macro_rules! suite {
    ($($claim:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")] async fn $claim() { super::$claim(super::Fixture::memory()).await })*
        }
        mod sled {
            $(#[tokio::test(flavor = "multi_thread")] async fn $claim() { super::$claim(super::Fixture::sled()).await })*
        }
    };
}

suite! {
    a_committed_key_is_read_back_with_its_revision
    every_commit_has_the_next_revision
    a_guard_for_an_absent_key_holds_once
    a_guard_of_an_older_revision_is_a_conflict_and_changes_nothing
    a_recreated_key_does_not_satisfy_its_old_guard
    deleting_an_absent_key_changes_nothing
    a_scan_pages_through_a_prefix_in_key_order
    values_of_every_size_come_back_unchanged
    what_breaks_a_limit_is_refused
    a_watch_delivers_every_change_under_its_prefix_once_and_in_order
    a_watch_starts_in_the_past_as_far_as_memory_goes
    a_watch_ends_with_the_store
    concurrent_increments_lose_nothing
    a_read_of_two_keys_is_one_snapshot
    a_dropped_future_does_not_cancel_a_write
    a_closed_store_refuses_writes_and_still_reads
}

async fn a_committed_key_is_read_back_with_its_revision(at: Fixture) {
    let revision = committed(&at.kv, put(&[("a", "1"), ("b", "2")])).await;
    let (as_of, found) = at.kv.get(&[key("b"), key("x"), key("a")]).await.unwrap();
    let entry = |name, value| Some(Entry { key: key(name), revision, value: Bytes::from_static(value) });
    assert_eq!(found, [entry("b", b"2"), None, entry("a", b"1")]);
    assert_eq!(as_of, revision);
}

async fn every_commit_has_the_next_revision(at: Fixture) {
    for number in 1..=5 {
        assert_eq!(committed(&at.kv, put(&[("a", "1")])).await, Revision::new(number));
    }
    let at = at.reopened().await;
    assert_eq!(committed(&at.kv, put(&[("a", "1")])).await, Revision::new(6));
}

async fn a_guard_for_an_absent_key_holds_once(at: Fixture) {
    let mut create = put(&[("a", "1")]);
    create.guard(key("a"), Revision::ZERO);
    committed(&at.kv, create.clone()).await;
    assert_eq!(at.kv.commit(create).await.unwrap(), Outcome::Conflict(key("a")));
}

async fn a_guard_of_an_older_revision_is_a_conflict_and_changes_nothing(at: Fixture) {
    let old = committed(&at.kv, put(&[("a", "1"), ("b", "1")])).await;
    let new = committed(&at.kv, put(&[("a", "2")])).await;
    let mut stale = put(&[("b", "3"), ("c", "3")]);
    stale.guard(key("b"), old);
    stale.guard(key("a"), old);
    assert_eq!(at.kv.commit(stale.clone()).await.unwrap(), Outcome::Conflict(key("a")));
    assert_eq!(text(&at.kv, "b").await.as_deref(), Some("1"));
    assert_eq!(text(&at.kv, "c").await, None);
    stale.guards[1].revision = new;
    committed(&at.kv, stale).await;
    assert_eq!(text(&at.kv, "c").await.as_deref(), Some("3"));
}

async fn a_recreated_key_does_not_satisfy_its_old_guard(at: Fixture) {
    let first = committed(&at.kv, put(&[("a", "1")])).await;
    let mut delete = Commit::default();
    delete.delete(key("a"));
    committed(&at.kv, delete).await;
    assert_eq!(read(&at.kv, "a").await, None);
    let at = at.reopened().await;
    committed(&at.kv, put(&[("a", "1")])).await;
    let mut stale = put(&[("a", "2")]);
    stale.guard(key("a"), first);
    assert_eq!(at.kv.commit(stale).await.unwrap(), Outcome::Conflict(key("a")));
}

async fn deleting_an_absent_key_changes_nothing(at: Fixture) {
    let mut commit = put(&[("b", "1")]);
    commit.delete(key("a"));
    committed(&at.kv, commit).await;
    assert_eq!(names(&at.kv, "", None, 9).await, ["b"]);
}

async fn a_scan_pages_through_a_prefix_in_key_order(at: Fixture) {
    committed(&at.kv, put(&[("h/2", ""), ("h/1", ""), ("h/3", ""), ("g/9", ""), ("i/0", ""), ("h", "")])).await;
    assert_eq!(names(&at.kv, "h/", None, 2).await, ["h/1", "h/2"]);
    assert_eq!(names(&at.kv, "h/", Some("h/2"), 2).await, ["h/3"]);
    assert_eq!(names(&at.kv, "h/", Some("h/25"), 9).await, ["h/3"]);
    assert_eq!(names(&at.kv, "h/", Some("a"), 9).await, ["h/1", "h/2", "h/3"]);
    assert_eq!(names(&at.kv, "h/", Some("z"), 9).await, [""; 0]);
    assert_eq!(names(&at.kv, "h/", None, 0).await, [""; 0]);
    assert_eq!(names(&at.kv, "", None, 9).await, ["g/9", "h", "h/1", "h/2", "h/3", "i/0"]);
}

async fn values_of_every_size_come_back_unchanged(mut at: Fixture) {
    let sizes = [0, 1, 3_999, 4_000, 4_001, 12_345, 1 << 20, 8_000, 5, 300_000];
    let mut last = Vec::new();
    for (round, size) in sizes.into_iter().enumerate() {
        last = (0..size).map(|index| (index * 7 + round) as u8).collect();
        let mut commit = put(&[("b", "neighbour")]);
        commit.put(key("a"), last.clone());
        committed(&at.kv, commit).await;
        assert_eq!(read(&at.kv, "a").await.unwrap().value, last, "of {size} bytes");
    }
    at = at.reopened().await;
    assert_eq!(at.kv.scan(b"", None, 9).await.unwrap().1[0].value, last);
    let mut delete = Commit::default();
    delete.delete(key("a"));
    committed(&at.kv, delete).await;
    at = at.reopened().await;
    assert_eq!(names(&at.kv, "", None, 9).await, ["b"]);
}

async fn what_breaks_a_limit_is_refused(at: Fixture) {
    assert_eq!(Key::new(""), Err(Invalid::EmptyKey));
    assert_eq!(Key::new(vec![0; 513]), Err(Invalid::KeyTooLong { length: 513 }));
    let mut many = Commit::default();
    (0..=MAX_OPS).for_each(|index| many.delete(key(index.to_string())));
    let mut twice = put(&[("a", "1")]);
    twice.delete(key("a"));
    let mut guarded_twice = put(&[("a", "1")]);
    guarded_twice.guard(key("b"), Revision::ZERO);
    guarded_twice.guard(key("b"), Revision::new(1));
    let mut large = Commit::default();
    large.put(key("a"), vec![0; (1 << 20) + 1]);
    let mut heavy = Commit::default();
    heavy.put(key("a"), vec![0; 1 << 20]);
    heavy.put(key("b"), vec![0; 1 << 20]);
    for commit in [Commit::default(), many, twice, guarded_twice, large, heavy] {
        let refused = at.kv.commit(commit).await;
        assert!(matches!(refused, Err(KvError::Invalid(_))), "{refused:?}");
    }
    let keys: Vec<_> = (0..=MAX_GET_KEYS).map(|index| key(index.to_string())).collect();
    assert!(matches!(at.kv.get(&keys).await, Err(KvError::Invalid(Invalid::TooManyKeys { .. }))));
    assert_eq!(committed(&at.kv, put(&[("a", "1")])).await, Revision::new(1));
}

async fn a_watch_delivers_every_change_under_its_prefix_once_and_in_order(at: Fixture) {
    committed(&at.kv, put(&[("e/0", "before")])).await;
    let mut changes = at.kv.watch(b"e/", Revision::ZERO);
    let writer = Arc::clone(&at.kv);
    let writing = tokio::spawn(async move {
        for number in 1..=100 {
            committed(&writer, put(&[("a", "other"), ("e/1", &number.to_string())])).await;
            committed(&writer, put(&[("a", "other")])).await;
        }
    });
    for number in 1..=100_u64 {
        let change = changes.next().await.unwrap();
        assert_eq!(change.revision, Revision::new(2 * number));
        assert_eq!(change.ops, [(1, Op::Put(key("e/1"), number.to_string().into()))]);
    }
    writing.await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), changes.next()).await.is_err());
}

async fn a_watch_starts_in_the_past_as_far_as_memory_goes(at: Fixture) {
    for name in ["a", "b", "c"] {
        committed(&at.kv, put(&[(name, "1")])).await;
    }
    let mut changes = at.kv.watch(b"", Revision::new(2));
    assert_eq!(changes.next().await.unwrap().ops[0].1.key(), &key("b"));
    assert_eq!(changes.next().await.unwrap().ops[0].1.key(), &key("c"));
    if at.dir.is_some() {
        let at = at.reopened().await;
        let mut changes = at.kv.watch(b"", Revision::new(2));
        assert_eq!(changes.next().await, Err(WatchError::Compacted { oldest: Revision::new(4) }));
    }
}

async fn a_watch_ends_with_the_store(at: Fixture) {
    let mut changes = at.kv.watch(b"", Revision::ZERO);
    committed(&at.kv, put(&[("a", "1")])).await;
    at.kv.close().await;
    assert_eq!(changes.next().await.unwrap().revision, Revision::new(1));
    assert_eq!(changes.next().await, Err(WatchError::Stopped));
}

async fn concurrent_increments_lose_nothing(at: Fixture) {
    const TASKS: usize = 16;
    const EACH: usize = 10;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let kv = Arc::clone(&at.kv);
            tokio::spawn(async move {
                for _ in 0..EACH {
                    while !increment(&kv, task).await {}
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let at = at.reopened().await;
    assert_eq!(text(&at.kv, "counter").await, Some((TASKS * EACH).to_string()));
    assert_eq!(text(&at.kv, "task/3").await, Some(EACH.to_string()));
}

async fn increment(kv: &Backend, task: usize) -> bool {
    let names = [key("counter"), key(format!("task/{task}"))];
    let (_, entries) = kv.get(&names).await.unwrap();
    let mut commit = Commit::default();
    for (name, entry) in names.into_iter().zip(entries) {
        let count = entry.as_ref().map_or(0, |entry| str::from_utf8(&entry.value).unwrap().parse().unwrap());
        commit.guard(name.clone(), entry.map_or(Revision::ZERO, |entry| entry.revision));
        commit.put(name, (count + 1_u64).to_string());
    }
    matches!(kv.commit(commit).await.unwrap(), Outcome::Committed(_))
}

async fn a_read_of_two_keys_is_one_snapshot(at: Fixture) {
    let writer = Arc::clone(&at.kv);
    let writing = tokio::spawn(async move {
        for number in 0..300 {
            let value = number.to_string();
            committed(&writer, put(&[("a", &value), ("m", &value), ("z", &value)])).await;
        }
    });
    while !writing.is_finished() {
        let (as_of, found) = at.kv.get(&[key("a"), key("z")]).await.unwrap();
        assert_eq!(found[0].as_ref().map(|entry| &entry.value), found[1].as_ref().map(|entry| &entry.value));
        assert!(found[0].as_ref().is_none_or(|entry| entry.revision <= as_of));
        let (_, found) = at.kv.scan(b"", None, 9).await.unwrap();
        assert!(found.windows(2).all(|pair| pair[0].value == pair[1].value));
    }
    writing.await.unwrap();
}

async fn a_dropped_future_does_not_cancel_a_write(at: Fixture) {
    for number in 0..20 {
        let (kv, name) = (&at.kv, format!("dropped/{number:02}"));
        let mut commit = Box::pin(kv.commit(put(&[(&name, "1")])));
        // One poll hands it over; then nobody waits for it any more.
        let _ = futures_util::poll!(&mut commit);
    }
    committed(&at.kv, put(&[("last", "1")])).await;
    assert_eq!(names(&at.kv, "dropped/", None, 99).await.len(), 20);
}

async fn a_closed_store_refuses_writes_and_still_reads(at: Fixture) {
    committed(&at.kv, put(&[("a", "1")])).await;
    at.kv.close().await;
    at.kv.close().await;
    let refused = at.kv.commit(put(&[("a", "2")])).await;
    assert!(matches!(refused, Err(KvError::NotApplied(_))), "{refused:?}");
    assert!(at.kv.writable().is_err());
    at.kv.stopped().await;
    assert_eq!(text(&at.kv, "a").await.as_deref(), Some("1"));
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Commit { guards: Vec<(u8, GuardKind)>, ops: Vec<(u8, Option<usize>)> },
    Scan { prefix: u8, after: Option<u8>, limit: u32 },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum GuardKind {
    Current,
    Absent,
    Wrong,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![8 => Just(GuardKind::Current), 1 => Just(GuardKind::Absent), 1 => Just(GuardKind::Wrong)];
    let size = prop_oneof![8 => 0..200_usize, 2 => 3_990..9_000_usize];
    let guards = prop::collection::vec((0..40_u8, kind), 0..3);
    let ops = prop::collection::vec((0..40_u8, prop::option::weighted(0.7, size)), 1..8);
    let commit = (guards, ops).prop_map(|(guards, ops)| Step::Commit { guards, ops });
    let scan = (0..5_u8, prop::option::of(0..40_u8), 0..20_u32).prop_map(|(prefix, after, limit)| Step::Scan {
        prefix,
        after,
        limit,
    });
    prop::collection::vec(prop_oneof![12 => commit, 4 => scan, 1 => Just(Step::Reopen)], 1..60)
}

/// Ten keys under each of four prefixes.
fn numbered(number: u8) -> Key {
    key(format!("{}/{number:02}", number / 10))
}

type Model = BTreeMap<Key, (Revision, Bytes)>;

async fn follows_a_map(mut at: Fixture, steps: Vec<Step>) {
    let (mut model, mut revision) = (Model::new(), Revision::ZERO);
    for step in steps {
        match step {
            Step::Commit { guards, ops } => {
                let commit = random_commit(&model, &guards, &ops, revision);
                if commit.check().is_err() {
                    continue;
                }
                let holds = |key: &Key| model.get(key).map_or(Revision::ZERO, |(revision, _)| *revision);
                let broken = commit.guards.iter().find(|guard| holds(&guard.key) != guard.revision);
                let expected =
                    broken.map_or(Outcome::Committed(revision.next()), |guard| Outcome::Conflict(guard.key.clone()));
                assert_eq!(at.kv.commit(commit.clone()).await.unwrap(), expected);
                if let Outcome::Committed(new) = expected {
                    revision = new;
                    apply(&mut model, commit.ops, new);
                }
            }
            Step::Scan { prefix, after, limit } => {
                let (prefix, after) = (prefix.to_string(), after.map(numbered));
                let found = at.kv.scan(prefix.as_bytes(), after.as_ref().map(Key::as_bytes), limit).await.unwrap().1;
                let expected = entries(&model).filter(|entry| entry.key.as_bytes().starts_with(prefix.as_bytes()));
                let expected = expected.filter(|entry| Some(&entry.key) > after.as_ref()).take(limit as usize);
                assert_eq!(found, expected.collect::<Vec<_>>());
            }
            Step::Reopen => at = at.reopened().await,
        }
    }
    assert_eq!(at.kv.scan(b"", None, 999).await.unwrap().1, entries(&model).collect::<Vec<_>>());
}

fn random_commit(model: &Model, guards: &[(u8, GuardKind)], ops: &[(u8, Option<usize>)], now: Revision) -> Commit {
    let mut commit = Commit::default();
    for (number, kind) in guards {
        let current = model.get(&numbered(*number)).map_or(Revision::ZERO, |(revision, _)| *revision);
        commit.guard(
            numbered(*number),
            match kind {
                GuardKind::Current => current,
                GuardKind::Absent => Revision::ZERO,
                GuardKind::Wrong => current.next(),
            },
        );
    }
    for (number, size) in ops {
        match size {
            Some(size) => commit.put(numbered(*number), vec![(now.get() + u64::from(*number)) as u8; *size]),
            None => commit.delete(numbered(*number)),
        }
    }
    commit
}

fn apply(model: &mut Model, ops: Vec<Op>, revision: Revision) {
    for op in ops {
        match op {
            Op::Put(key, value) => drop(model.insert(key, (revision, value))),
            Op::Delete(key) => drop(model.remove(&key)),
        }
    }
}

fn entries(model: &Model) -> impl Iterator<Item = Entry> {
    let entry = |(key, (revision, value)): (&Key, &(Revision, Bytes))| Entry {
        key: key.clone(),
        revision: *revision,
        value: value.clone(),
    };
    model.iter().map(entry)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_follows_a_map(steps in steps()) {
        run(follows_a_map(Fixture::memory(), steps));
    }

    #[test]
    fn sled_follows_a_map(steps in steps()) {
        run(follows_a_map(Fixture::sled(), steps));
    }
}
