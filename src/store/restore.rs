//! Making a store of a backup, in place of the one that is there, if any.
//!
//! Invariants: the backup is read to its end and found whole before anything is written; the new store is made beside the
//! old one, checked, and takes its place in one step, so that whoever is killed at any moment leaves the old store or the new
//! one, whole, or none where there was none. (Where the file system cannot exchange two folders, a kill between two renames
//! leaves both under other names, and no store in place.) The old store is kept. The new one has another name and is
//! quarantined: nothing writes a disk until somebody releases hosts, and no plugin orders until somebody approves it. Plugins
//! are told of every host's quarantine, and of nothing before it: which events a plugin knew is no longer known. No number of
//! a host is given away twice, as long as fewer than some hundred were given away after the backup.
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use rustix::fs::{CWD, Gid, RenameFlags, Uid, chown, renameat_with};

use super::{
    OpenError, Orders, OutboxCursor, Store, StoreError, StoreOptions,
    backup::{BackupError, LoadError, Reader, load},
    hosts::{highest_id, unreadable},
    keys,
    kv::{Backend, Commit, Kv, Outcome, Revision},
    record::{self, RestoredRecord},
    sled::{self, SledKv},
};
use crate::domain::{BootId, Host, HostId, quarantine};

/// The store's folder in the data directory.
pub const STORE_FOLDER: &str = "store";
/// In a folder that is not a whole store yet.
const UNFINISHED: &str = "unfinished-restore";
/// Hosts that are quarantined at the same time.
const HOSTS_AT_ONCE: usize = 64;
/// Hosts per read.
const HOSTS_PER_READ: u32 = 500;
/// Numbers of hosts that are not given away after a restore, at least.
const FEWEST_LEFT_OUT: u64 = 500;
/// The last of them is a multiple of this.
const ROUND: u64 = 1_000;

/// What becomes of a store that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is done.
    Refuse,
    /// It is put aside.
    Replace,
}

/// How far a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of the backup that were checked.
    Checked(u64),
    /// Bytes of the backup that were written to the new store.
    Written(u64),
    /// Hosts that were quarantined.
    Quarantined(u64),
}

/// A new store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// When its backup was taken.
    pub taken_at: Timestamp,
    /// Its hosts.
    pub hosts: u64,
    /// Those that boot something else than their own disk, and hold now.
    pub holding: u64,
    /// Where the store is that was there before.
    pub kept: Option<PathBuf>,
}

/// Why no store was made. Whatever was there is there still.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is a store, and nobody said that it may be replaced.
    #[error("there is a store in {} already; to put it aside and use the backup in its place, add --replace-store", .0.display())]
    Exists(PathBuf),
    /// The backup is no good.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The store that is there is in use, or the new one cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new store could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What came of it is not a good store.
    #[error("the restored store does not fit together ({0}), and is not used; the backup was taken of a damaged store")]
    Misfit(String),
    /// The operating system refused something.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The operating system has no randomness.
    #[error("there is no randomness for new secrets: {0}")]
    Randomness(getrandom::Error),
}

impl From<LoadError> for RestoreError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Backup(error) => Self::Backup(error),
            LoadError::Store(error) => Self::Store(error),
        }
    }
}

/// Makes the store of a data directory out of a backup. `progress` is told now and then how far it is.
pub async fn restore(
    backup: &Path,
    data_dir: &Path,
    existing: Existing,
    now: Timestamp,
    mut progress: impl FnMut(Progress),
) -> Result<Restored, RestoreError> {
    Reader::open(open(backup)?)?.check(|bytes| progress(Progress::Checked(bytes)))?;
    let place = data_dir.join(STORE_FOLDER);
    let is_there = is_used(&place)?;
    if is_there && existing == Existing::Refuse {
        return Err(RestoreError::Exists(place));
    }
    fs::DirBuilder::new().recursive(true).mode(0o750).create(data_dir).map_err(failed("create", data_dir))?;
    // Kept to the end: no server may open it meanwhile.
    let _lock = if is_there { Some(sled::lock_folder(&place).map_err(OpenError::from)?) } else { None };
    remove_unfinished(data_dir)?;
    let (staging, aside) = free_names(data_dir, now);
    fs::create_dir(&staging).map_err(failed("create", &staging))?;
    let marker = staging.join(UNFINISHED);
    File::create(&marker).map_err(failed("create", &marker))?;
    let made = fill(backup, &staging, now, &mut progress).await;
    let (taken_at, hosts, holding) = match made {
        Ok(made) => made,
        Err(error) => {
            // It is of no use to anybody; what stays is removed by the next restore.
            let _ = fs::remove_dir_all(&staging);
            return Err(error);
        }
    };
    hand_over(&staging, data_dir)?;
    let kept = publish(&staging, &marker, &place, is_there.then_some(aside))?;
    Ok(Restored { taken_at, hosts, holding, kept })
}

/// Fills a new store: the backup, its own name, the quarantine; and sees whether it fits together.
async fn fill(
    backup: &Path,
    staging: &Path,
    now: Timestamp,
    progress: &mut impl FnMut(Progress),
) -> Result<(Timestamp, u64, u64), RestoreError> {
    let options = StoreOptions { min_free_bytes: 64 << 20, ..StoreOptions::default() };
    let kv = SledKv::open(staging, &options).map_err(OpenError::from)?;
    let store = fill_over(Backend::Sled(kv), open(backup)?, now, progress).await?;
    let (hosts, holding) = (store.hosts, store.holding);
    store.store.close().await;
    Ok((store.taken_at, hosts, holding))
}

/// The number after which new hosts are numbered, when a backup knows numbers up to this one: those given away after it was
/// taken are other machines in people's lists. They go on at a round number, so that it is seen why.
fn last_given(highest: u64) -> u64 {
    let round = highest.checked_add(FEWEST_LEFT_OUT).and_then(|number| number.checked_next_multiple_of(ROUND));
    round.unwrap_or(highest)
}

/// A filled store.
pub(super) struct Filled {
    pub(super) store: Store,
    pub(super) taken_at: Timestamp,
    pub(super) hosts: u64,
    pub(super) holding: u64,
}

/// The same over any backend, which is empty.
pub(super) async fn fill_over(
    kv: Backend,
    backup: impl io::Read,
    now: Timestamp,
    progress: &mut impl FnMut(Progress),
) -> Result<Filled, RestoreError> {
    let about = load(&kv, Reader::open(backup)?, |bytes| progress(Progress::Written(bytes))).await?;
    let restored = RestoredRecord { taken_at: about.taken_at, restored_at: now };
    let mut commit = Commit::default();
    let [name] = random()?;
    commit.put(keys::GENERATION, record::encode_number(u64::from_be_bytes(name)));
    let restored = record::encode_restored(&restored).map_err(unreadable(&keys::RESTORED))?;
    commit.put(keys::RESTORED, restored.clone());
    commit.put(keys::UNAPPROVED, restored);
    commit.put(keys::LAST_FORGOTTEN, record::encode_number(last_given(highest_id(&kv).await?)));
    let Outcome::Committed(loaded) = kv.commit(commit).await.map_err(StoreError::from)? else {
        return Err(StoreError::Conflict.into());
    };
    let store = Store::over(kv).await?;
    store.begin_history(loaded).await?;
    let why = format!("the backup of {} was restored", about.taken_at);
    let (hosts, holding) = quarantine_all(&store, &why, now, progress).await?;
    let check = store.check(|_| ()).await?;
    if let Some(problem) = check.problems.first() {
        return Err(RestoreError::Misfit(problem.to_string()));
    }
    Ok(Filled { store, taken_at: about.taken_at, hosts, holding })
}

impl Store {
    /// What plugins were told and allowed belongs to another history. They are told of what follows this commit, and
    /// approvals are void; what stopped a plugin still does. Parked hosts and dead letters go by the numbers of events,
    /// which are the same.
    async fn begin_history(&self, loaded: Revision) -> Result<(), StoreError> {
        for plugin in self.outbox_plugins().await? {
            let cursor = OutboxCursor { generation: self.generation(), revision: loaded, catch_up: None };
            self.move_cursor(&plugin, &cursor).await?;
        }
        let mut void = Vec::new();
        for entry in self.scan_all(keys::APPROVALS.as_bytes()).await? {
            match record::decode_orders(&entry.value).map_err(unreadable(&entry.key))? {
                Orders::Stopped { .. } => {}
                Orders::AsGranted | Orders::Restored { .. } | Orders::Approved { .. } => void.push(entry.key),
            }
        }
        self.delete_all(void).await
    }
}

/// Quarantines every host. Returns how many there are, and how many of them hold now.
async fn quarantine_all(
    store: &Store,
    why: &str,
    now: Timestamp,
    progress: &mut impl FnMut(Progress),
) -> Result<(u64, u64), RestoreError> {
    let (mut hosts, mut holding) = (0, 0);
    let mut after: Option<HostId> = None;
    loop {
        let page = store.hosts(after, HOSTS_PER_READ).await?;
        let Some(last) = page.last() else { return Ok((hosts, holding)) };
        after = Some(last.id);
        hosts += page.len() as u64;
        holding += page.iter().filter(|host| !host.states.current().is_built_in()).count() as u64;
        let commits = page.iter().map(|host| quarantine_one(store, host, why, now));
        stream::iter(commits).buffer_unordered(HOSTS_AT_ONCE).try_collect::<()>().await?;
        progress(Progress::Quarantined(hosts));
    }
}

async fn quarantine_one(store: &Store, host: &Host, why: &str, now: Timestamp) -> Result<(), RestoreError> {
    let [one, two] = random()?;
    let mut secret = [0; 16];
    for (byte, random) in secret.iter_mut().zip([one, two].concat()) {
        *byte = random;
    }
    store.commit(host, quarantine(host, BootId::new(host.id, secret), why, now)).await?;
    Ok(())
}

fn random<const COUNT: usize>() -> Result<[[u8; 8]; COUNT], RestoreError> {
    let mut random = [[0; 8]; COUNT];
    for part in &mut random {
        getrandom::fill(part).map_err(RestoreError::Randomness)?;
    }
    Ok(random)
}

// ---- Files ----

fn open(backup: &Path) -> Result<File, RestoreError> {
    let file = File::open(backup).map_err(failed("read", backup))?;
    if file.metadata().map_err(failed("read", backup))?.is_dir() {
        return Err(BackupError::Foreign.into());
    }
    Ok(file)
}

/// Whether a folder is a store, or has anything in it.
pub fn is_used(place: &Path) -> Result<bool, RestoreError> {
    match fs::read_dir(place) {
        Ok(mut files) => Ok(files.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed("read", place)(source)),
    }
}

/// Where the new store is made, and where the old one is put: places where nothing is.
fn free_names(data_dir: &Path, now: Timestamp) -> (PathBuf, PathBuf) {
    let name = |what: &str, number: i64| data_dir.join(format!("{STORE_FOLDER}.{what}-{number}"));
    let names = (now.as_second()..).map(|number| (name("restore", number), name("before-restore", number)));
    let mut free = names.skip_while(|(staging, aside)| staging.exists() || aside.exists());
    free.next().unwrap_or_else(|| (name("restore", 0), name("before-restore", 0)))
}

/// A restore that was killed leaves half a store, which nobody needs. Those that were put aside are never touched.
fn remove_unfinished(data_dir: &Path) -> Result<(), RestoreError> {
    for entry in fs::read_dir(data_dir).map_err(failed("read", data_dir))? {
        let path = entry.map_err(failed("read", data_dir))?.path();
        let is_ours = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.strip_prefix(STORE_FOLDER).is_some_and(|rest| rest.starts_with(".restore-")));
        if is_ours && path.join(UNFINISHED).exists() {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Whoever restores may be root; the server is whom the data directory belongs to.
fn hand_over(staging: &Path, data_dir: &Path) -> Result<(), RestoreError> {
    let owner = fs::metadata(data_dir).map_err(failed("read", data_dir))?;
    let mut paths = vec![staging.to_owned()];
    while let Some(path) = paths.pop() {
        let about = fs::symlink_metadata(&path).map_err(failed("read", &path))?;
        if (about.uid(), about.gid()) != (owner.uid(), owner.gid()) {
            let to = (Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())));
            chown(&path, to.0, to.1).map_err(|error| failed("hand over", &path)(error.into()))?;
        }
        if about.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed("read", &path))? {
                paths.push(entry.map_err(failed("read", &path))?.path());
            }
        }
    }
    Ok(())
}

/// The new store takes its place in one step; the old one goes where the new one was made, and then gets a name that tells
/// what it is.
fn publish(
    staging: &Path,
    marker: &Path,
    place: &Path,
    aside: Option<PathBuf>,
) -> Result<Option<PathBuf>, RestoreError> {
    fs::remove_file(marker).map_err(failed("finish", staging))?;
    sync(staging)?;
    let Some(aside) = aside else {
        // An empty folder is in nobody's way.
        fs::rename(staging, place).map_err(failed("move", staging))?;
        sync_parent(place)?;
        return Ok(None);
    };
    match renameat_with(CWD, staging, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => {
            sync_parent(place)?;
            fs::rename(staging, &aside).map_err(failed("put aside", staging))?;
        }
        // Some file systems cannot exchange: for a moment there is no store, and never a wrong one.
        Err(_) => {
            fs::rename(place, &aside).map_err(failed("put aside", place))?;
            fs::rename(staging, place).map_err(failed("move", staging))?;
        }
    }
    sync_parent(place)?;
    Ok(Some(aside))
}

fn sync_parent(path: &Path) -> Result<(), RestoreError> {
    path.parent().map_or(Ok(()), sync)
}

fn sync(folder: &Path) -> Result<(), RestoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> RestoreError + use<> {
    let path = path.to_owned();
    move |source| RestoreError::Io {
        doing,
        path: path.clone(),
        source: io::Error::new(source.kind(), source.to_string()),
    }
}
