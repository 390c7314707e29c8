//! What sled must be distrusted for, as failures: damaged files, failing syncs, full disks. Killed processes are in
//! `torture`.
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering,
};

use tempfile::TempDir;

use super::{
    OpenError, SledKv, SledOptions, lock_folder,
    open::{Damage, LOG_FILE, PARAMETERS_FILE, WATERMARK_FILE},
};
use crate::store::kv::{Commit, Key, Kv, KvError, Outcome, Revision, Stopped};

const OPTIONS: SledOptions = SledOptions { cache_bytes: 8 << 20, min_free_bytes: 0 };
const ENTRIES: u64 = 600;

fn open(dir: &Path) -> Result<SledKv, OpenError> {
    SledKv::open(dir, &OPTIONS)
}

fn key(number: u64) -> Key {
    Key::new(format!("key/{number:05}")).unwrap()
}

fn value(number: u64) -> Vec<u8> {
    let byte = |index: u64| (number.wrapping_mul(2_654_435_761).wrapping_add(index * 97) >> 3) as u8;
    (0..400 + number % 300).map(byte).collect()
}

fn put(number: u64) -> Commit {
    let mut commit = Commit::default();
    commit.put(key(number), value(number));
    commit
}

/// A closed store with all entries, written in `ENTRIES` commits by many clients at once.
async fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path()).unwrap();
    let writes = (0..ENTRIES).map(|number| kv.commit(put(number)));
    for outcome in futures_util::future::join_all(writes).await {
        assert!(matches!(outcome.unwrap(), Outcome::Committed(_)));
    }
    kv.close().await;
    dir
}

fn copied(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    fs::create_dir(copy.path().join("blobs")).unwrap();
    copy
}

/// What a user sees of an error: the whole chain.
fn sentence(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Complete,
    Refused(String),
}

/// Opens and reads everything. Missing or wrong data without an error fails the test.
async fn verdict(dir: &Path) -> Verdict {
    let kv = match open(dir) {
        Ok(kv) => kv,
        Err(error) => return refused(&error),
    };
    for number in 0..ENTRIES {
        match kv.get(&[key(number)]).await {
            Ok((_, found)) => {
                let entry = found[0].as_ref().unwrap_or_else(|| panic!("entry {number} is missing silently"));
                assert_eq!(entry.value, value(number), "entry {number} is wrong silently");
            }
            Err(error) => return refused(&error),
        }
    }
    match kv.scan(b"", None, 1_000).await {
        Ok((_, entries)) => assert_eq!(entries.len() as u64, ENTRIES, "a scan is short silently"),
        Err(error) => return refused(&error),
    }
    Verdict::Complete
}

fn refused(error: &dyn std::error::Error) -> Verdict {
    let sentence = sentence(error);
    assert!(sentence.contains("kiwispray restore"), "{sentence}");
    Verdict::Refused(sentence)
}

fn log(dir: &Path) -> (fs::File, u64) {
    let file = fs::File::options().read(true).write(true).open(dir.join(LOG_FILE)).unwrap();
    let length = file.metadata().unwrap().len();
    (file, length)
}

/// The end of what was written: sled's file ends in zeros up to its segment.
fn written_length(dir: &Path) -> u64 {
    let bytes = fs::read(dir.join(LOG_FILE)).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

#[tokio::test]
async fn a_truncated_log_is_refused_or_complete() {
    let base = filled().await;
    let length = written_length(base.path());
    let mut refusals = 0;
    for cut in [1, 7, 100, 333, 1_000, 4_096, 10_000, 60_000, 150_000, length / 2, length - 10, length] {
        let copy = copied(base.path());
        log(copy.path()).0.set_len(length - cut).unwrap();
        refusals += usize::from(verdict(copy.path()).await != Verdict::Complete);
    }
    assert!(refusals >= 11, "only {refusals} of 12 truncations were noticed");
}

#[tokio::test]
async fn a_zeroed_page_is_refused_or_complete() {
    let base = filled().await;
    let length = written_length(base.path());
    let mut refusals = 0;
    for step in 1..=12 {
        let copy = copied(base.path());
        let at = (length - length * step / 13) / 4_096 * 4_096;
        log(copy.path()).0.write_all_at(&[0; 4_096], at).unwrap();
        refusals += usize::from(verdict(copy.path()).await != Verdict::Complete);
    }
    assert!(refusals > 0, "no zeroed page was noticed");
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_complete() {
    let base = filled().await;
    // Once with the log alone, once with the snapshot that an opening leaves behind.
    for _ in 0..2 {
        let length = written_length(base.path());
        for step in 0..24 {
            let copy = copied(base.path());
            let (file, _) = log(copy.path());
            let (at, mut byte) = (length * step / 24 + step * 31 % 64, [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
            verdict(copy.path()).await;
        }
        open(base.path()).unwrap().close().await;
    }
}

#[tokio::test]
async fn missing_files_are_named() {
    let base = filled().await;
    for (file, damage) in [(LOG_FILE, Damage::NoLog), (WATERMARK_FILE, Damage::NoWatermark)] {
        let copy = copied(base.path());
        fs::remove_file(copy.path().join(file)).unwrap();
        match open(copy.path()) {
            Err(OpenError::Damaged { source, .. }) => assert_eq!(source, damage),
            other => panic!("{other:?}"),
        }
        assert!(!copy.path().join(file).exists(), "{file} was created anew");
    }
}

#[tokio::test]
async fn an_older_log_is_refused_with_both_revisions() {
    let base = filled().await;
    let older = copied(base.path());
    let kv = open(base.path()).unwrap();
    kv.commit(put(0)).await.unwrap();
    kv.close().await;
    fs::copy(base.path().join(WATERMARK_FILE), older.path().join(WATERMARK_FILE)).unwrap();
    let (found, acknowledged) = (Revision::new(ENTRIES), Revision::new(ENTRIES + 1));
    match open(older.path()) {
        Err(OpenError::Damaged { source, .. }) => assert_eq!(source, Damage::Behind { found, acknowledged }),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_torn_watermark_slot_is_survived_and_two_are_refused() {
    let base = filled().await;
    let both = copied(base.path());
    let watermark = fs::File::options().write(true).open(both.path().join(WATERMARK_FILE)).unwrap();
    watermark.write_all_at(&[0xff; 40], 0).unwrap();
    watermark.write_all_at(&[0xff; 40], 4_096).unwrap();
    let Err(OpenError::Damaged { source: Damage::BadWatermark, .. }) = open(both.path()) else {
        panic!("was opened");
    };
    for slot in 0..2 {
        let one = copied(base.path());
        let watermark = fs::File::options().write(true).open(one.path().join(WATERMARK_FILE)).unwrap();
        watermark.write_all_at(&[0xff; 40], slot * 4_096).unwrap();
        assert_eq!(verdict(one.path()).await, Verdict::Complete);
    }
}

#[tokio::test]
async fn what_a_kill_while_opening_leaves_is_removed() {
    let base = filled().await;
    fs::write(base.path().join("snap.0000000000001234.generating"), b"half").unwrap();
    assert_eq!(verdict(base.path()).await, Verdict::Complete);
}

#[tokio::test]
async fn a_kill_in_the_first_start_leaves_no_folder_that_can_never_be_opened() {
    let base = filled().await;
    let parameters = fs::read(base.path().join(PARAMETERS_FILE)).unwrap();
    for length in 0..parameters.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PARAMETERS_FILE), &parameters[..length]).unwrap();
        open(dir.path()).unwrap().close().await;
    }
}

#[tokio::test]
async fn a_store_is_opened_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::InUse { .. })));
    first.close().await;
    drop(first);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_released_store_can_be_opened_while_its_old_owner_lives_and_shows_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(dir.path()).unwrap();
    old.commit(put(1)).await.unwrap();
    let refused = open(dir.path()).unwrap_err().to_string();
    assert!(refused.ends_with(&format!("is in use by process {}", std::process::id())), "{refused}");
    old.release().await;
    let new = open(dir.path()).unwrap();
    new.commit(put(2)).await.unwrap();
    assert!(new.get(&[key(1)]).await.unwrap().1[0].is_some());
    let is_closed = |error: KvError| matches!(error, KvError::NotApplied(Stopped::Closed));
    assert!(is_closed(old.get(&[key(2)]).await.unwrap_err()));
    assert!(is_closed(old.commit(put(3)).await.unwrap_err()));
    assert!(is_closed(old.scan(b"", None, 1).await.unwrap_err()));
    assert!(is_closed(old.writable().unwrap_err()));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_or_shown() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path()).unwrap();
    kv.commit(put(1)).await.unwrap();
    let mut changes = kv.watch(b"", Revision::ZERO);
    kv.shared.fail_next_sync.store(true, Ordering::Release);
    let unknown = kv.commit(put(2)).await;
    assert!(matches!(unknown, Err(KvError::Unknown(Stopped::Failed { .. }))), "{unknown:?}");
    let refused = kv.commit(put(3)).await;
    assert!(matches!(refused, Err(KvError::NotApplied(Stopped::Failed { .. }))), "{refused:?}");
    let unseen = kv.get(&[key(2)]).await;
    assert!(matches!(unseen, Err(KvError::Unknown(_))), "{unseen:?}");
    assert!(kv.get(&[key(1)]).await.unwrap().1[0].is_some());
    assert!(changes.next().await.is_err());
    assert!(matches!(kv.stopped().await, Stopped::Failed { .. }));
    assert!(kv.writable().is_err());
    kv.close().await;
}

#[test]
fn who_waits_for_a_folder_gets_the_one_that_is_in_its_place_by_then() {
    let base = tempfile::tempdir().unwrap();
    let [place, aside, new] = ["store", "aside", "new"].map(|name| base.path().join(name));
    fs::create_dir(&place).unwrap();
    fs::create_dir(&new).unwrap();
    let restoring = lock_folder(&place).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lock_folder(&place).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(200));
        fs::rename(&place, &aside).unwrap();
        fs::rename(&new, &place).unwrap();
        drop(restoring);
        let _waited_for = waiting.join().unwrap();
        assert!(matches!(open(&place), Err(OpenError::InUse { .. })), "it has the folder that it named");
        drop(lock_folder(&aside).unwrap());
    });
}

#[tokio::test]
async fn below_the_floor_writes_are_refused_and_reads_go_on() {
    let base = filled().await;
    let kv = SledKv::open(base.path(), &SledOptions { min_free_bytes: u64::MAX, ..OPTIONS }).unwrap();
    let full = kv.commit(put(ENTRIES)).await;
    assert!(matches!(full, Err(KvError::Full { .. })), "{full:?}");
    assert!(matches!(kv.writable(), Err(KvError::Full { .. })));
    assert!(kv.get(&[key(1)]).await.unwrap().1[0].is_some());
}

/// A small file system of its own, unmounted at the end.
struct Tmpfs(TempDir);

impl Tmpfs {
    /// `None` where mounting is not allowed.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        mount.ok().filter(|output| output.status.success()).map(|_| Self(dir))
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
    }
}

/// Writes until the first refusal and returns how many were acknowledged.
async fn fill(kv: &SledKv) -> (u64, KvError) {
    for number in 0.. {
        match kv.commit(put(number)).await {
            Ok(outcome) => assert!(matches!(outcome, Outcome::Committed(_))),
            Err(error) => return (number, error),
        }
    }
    unreachable!("a disk without end");
}

#[tokio::test]
async fn a_full_disk_costs_nothing_that_was_acknowledged() {
    // The first keeps a reserve, as the shipped options do; the second runs into the wall.
    for floor in [4 << 20, 0] {
        let Some(tmpfs) = Tmpfs::mount("12m") else {
            eprintln!("not tested: a tmpfs cannot be mounted here");
            return;
        };
        let options = SledOptions { min_free_bytes: floor, ..OPTIONS };
        let kv = SledKv::open(&tmpfs.store(), &options).unwrap();
        let (acknowledged, error) = fill(&kv).await;
        assert!(acknowledged > 100, "only {acknowledged}: {}", sentence(&error));
        assert_eq!(matches!(error, KvError::Full { .. }), floor > 0, "{}", sentence(&error));
        assert!(kv.get(&[key(7)]).await.unwrap().1[0].is_some());
        kv.close().await;
        drop(kv);
        // Without a reserve, opening needs some space first, and says so.
        if floor == 0 {
            match open(&tmpfs.store()) {
                Ok(kv) => drop(kv),
                Err(error) => assert!(matches!(error, OpenError::DiskFull { .. }), "{}", sentence(&error)),
            }
            let grown = Command::new("mount").args(["-o", "remount,size=40m"]).arg(tmpfs.0.path()).status();
            assert!(grown.unwrap().success());
        }
        let kv = open(&tmpfs.store()).unwrap();
        for number in 0..acknowledged {
            let entry = kv.get(&[key(number)]).await.unwrap().1.remove(0);
            assert_eq!(entry.unwrap().value, value(number));
        }
    }
}
