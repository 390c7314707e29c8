//! The seam over sled 0.34.7, which is fast and must be distrusted: its `flush` does not reach the platter, it opens a
//! shortened log without a word, and it panics over flipped bits.
//!
//! Invariants. One thread writes, so guards need no locks. A commit is applied first and acknowledged after `flush` and
//! an own `fdatasync`, many at a time; readers who saw it earlier wait for the same moment. After any error of these
//! nothing is acknowledged until the process is started anew. Never used, as each has hung or lied: `flush_async`,
//! `generate_id`, sled's transactions and subscribers.
//!
//! `open` decides whether the files may be used at all, `layout` is what lies in them, `writer` the threads,
//! `watermark` the proof that nothing acknowledged is missing.
mod layout;
mod open;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod torture;
mod watermark;
mod writer;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot};

pub use self::open::{Damage, OpenError, SledOptions};
use self::{open::LockFile, writer::Request};
use super::{
    kv::{
        Commit, Corrupt, Entry, Invalid, Key, Kv, KvError, MAX_GET_KEYS, MAX_SCAN_ENTRIES, Outcome, Revision, Snapshot,
        Stopped,
    },
    progress::Progress,
    watch::{ChangeStream, Ring},
};

/// A store in one folder of one machine.
pub struct SledKv {
    shared: Arc<Shared>,
    /// Taken away by `close`.
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads and the readers have in common.
struct Shared {
    /// Readers share it, the writer takes it to apply a commit: so a read of several keys is one snapshot. None once the
    /// store was given back.
    files: RwLock<Option<Files>>,
    applied: AtomicU64,
    /// Keys that are gone but not yet durably; a reader who finds nothing waits for their revisions.
    deleted: Mutex<BTreeMap<Key, Revision>>,
    ring: Arc<Ring>,
    progress: Progress,
    min_free_bytes: u64,
    #[cfg(test)]
    fail_next_sync: std::sync::atomic::AtomicBool,
}

/// What keeps other processes from the store as long as it is there. The writer has copies, and ends first.
struct Files {
    tree: ::sled::Db,
    log_file: File,
    /// Declared last, so that it is released after sled has closed its files.
    _lock_file: LockFile,
}

/// A read before it may be shown.
struct Touched<T> {
    data: T,
    /// The newest commit that the data depends on.
    newest: Revision,
    /// The data is the truth up to here.
    as_of: Revision,
}

/// Keeps every other process from the store in a folder, whatever state it is in, until what is returned is dropped.
pub(super) fn lock_folder(dir: &Path) -> Result<impl Drop + use<>, OpenError> {
    open::lock(dir)
}

impl SledKv {
    /// Opens or creates the store in `dir`. Blocks for as long as reading the log takes.
    pub fn open(dir: &Path, options: &SledOptions) -> Result<Self, OpenError> {
        let opened = open::open(dir, options)?;
        let progress = Progress::new(opened.head.revision);
        let failed = |source| OpenError::Io { doing: "start the writer of", dir: dir.to_owned(), source };
        let log = writer::Log { tree: opened.tree.clone(), file: opened.log_file.try_clone().map_err(failed)? };
        let files = Files { tree: opened.tree, log_file: opened.log_file, _lock_file: opened.lock_file };
        let shared = Arc::new(Shared {
            files: RwLock::new(Some(files)),
            applied: AtomicU64::new(opened.head.revision.get()),
            deleted: Mutex::default(),
            ring: Arc::new(Ring::new(opened.head.revision)),
            progress,
            min_free_bytes: options.min_free_bytes,
            #[cfg(test)]
            fail_next_sync: std::sync::atomic::AtomicBool::new(false),
        });
        let (requests, writer) = writer::spawn(&shared, log, opened.head, opened.watermark).map_err(failed)?;
        Ok(Self { shared, requests: Mutex::new(Some(requests)), writer: Mutex::new(Some(writer)) })
    }
}

impl Kv for SledKv {
    /// Runs on the caller's thread: the keys are few, nearly always cached (some microseconds), and a hop to another
    /// thread would cost more than the read. The writer holds the lock for one commit in memory, never over a sync.
    async fn get(&self, keys: &[Key]) -> Result<Snapshot<Vec<Option<Entry>>>, KvError> {
        if keys.len() > MAX_GET_KEYS {
            return Err(Invalid::TooManyKeys { count: keys.len() }.into());
        }
        // A read that finds everything would never suspend: a loop of such reads must not starve its neighbours.
        tokio::task::coop::consume_budget().await;
        let touched = self.shared.get(keys)?;
        self.shared.once_durable(touched).await
    }

    /// Runs on a thread for blocking work, as it may read a thousand entries from the disk.
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Snapshot<Vec<Entry>>, KvError> {
        let shared = Arc::clone(&self.shared);
        let (prefix, after) = (prefix.to_vec(), after.map(<[u8]>::to_vec));
        let limit = limit.min(MAX_SCAN_ENTRIES);
        let scan = tokio::task::spawn_blocking(move || shared.scan(&prefix, after.as_deref(), limit));
        // The task cannot panic; it is cancelled only if the runtime is being torn down.
        let touched = scan.await.map_err(|_| KvError::NotApplied(Stopped::Closed))??;
        self.shared.once_durable(touched).await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        commit.check()?;
        let requests = lock(&self.requests).clone();
        let Some(requests) = requests else {
            return Err(KvError::NotApplied(self.stop_reason()));
        };
        let (reply, answer) = oneshot::channel();
        if requests.send(Request::Commit { commit, reply }).await.is_err() {
            return Err(KvError::NotApplied(self.stop_reason()));
        }
        drop(requests);
        answer.await.unwrap_or_else(|_| Err(KvError::Unknown(self.stop_reason())))
    }

    fn watch(&self, prefix: &[u8], from: Revision) -> ChangeStream {
        self.shared.ring.watch(&self.shared.progress, prefix, from)
    }
}

impl SledKv {
    pub(super) fn writable(&self) -> Result<(), KvError> {
        self.shared.writable()
    }

    pub(super) async fn stopped(&self) -> Stopped {
        self.shared.progress.stopped().await
    }

    pub(super) async fn close(&self) {
        let requests = lock(&self.requests).take();
        if let Some(requests) = requests {
            // An error means that the writer has ended already.
            drop(requests.send(Request::End).await);
        }
        let writer = lock(&self.writer).take();
        let joined = tokio::task::spawn_blocking(move || writer.into_iter().for_each(join));
        // Whoever closes at the same time waits for the same end.
        let (_, _) = (joined.await, self.stopped().await);
    }

    /// Closes the store and gives its files back: another process may open it once this returns. Nothing can be read
    /// any more.
    pub(super) async fn release(&self) {
        self.close().await;
        let shared = Arc::clone(&self.shared);
        // Waits for readers, and closing sled's files takes a moment. The task cannot panic.
        let released = tokio::task::spawn_blocking(move || {
            drop(shared.files.write().unwrap_or_else(PoisonError::into_inner).take());
        });
        drop(released.await);
    }

    fn stop_reason(&self) -> Stopped {
        self.shared.progress.mark().stopped.unwrap_or(Stopped::Closed)
    }
}

/// Without `close`, dropping still waits for what was submitted, so that the folder can be opened again at once.
impl Drop for SledKv {
    fn drop(&mut self) {
        drop(lock(&self.requests).take());
        lock(&self.writer).take().into_iter().for_each(join);
    }
}

impl fmt::Debug for SledKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledKv").field("mark", &self.shared.progress.mark()).finish_non_exhaustive()
    }
}

impl Shared {
    fn get(&self, keys: &[Key]) -> Result<Touched<Vec<Option<Entry>>>, KvError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let tree = &files.as_ref().ok_or(KvError::NotApplied(Stopped::Closed))?.tree;
        let read = || keys.iter().map(|key| layout::get(tree, key)).collect::<Result<Vec<_>, _>>();
        let data = caught(read).map_err(KvError::Corrupt)?;
        let deleted = lock(&self.deleted);
        let revision = |(key, entry): (&Key, &Option<Entry>)| match entry {
            Some(entry) => entry.revision,
            None => deleted.get(key).copied().unwrap_or_default(),
        };
        let newest = keys.iter().zip(&data).map(revision).max().unwrap_or_default();
        drop(deleted);
        Ok(Touched { data, newest, as_of: self.applied() })
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Touched<Vec<Entry>>, KvError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let tree = &files.as_ref().ok_or(KvError::NotApplied(Stopped::Closed))?.tree;
        let data = caught(|| layout::scan(tree, prefix, after, limit)).map_err(KvError::Corrupt)?;
        // Deletions elsewhere under the prefix may be among these; waiting for them too is harmless.
        let deleted = lock(&self.deleted);
        let gone = deleted.iter().filter(|(key, _)| key.as_bytes().starts_with(prefix)).map(|(_, revision)| *revision);
        let newest = gone.chain(data.iter().map(|entry| entry.revision)).max().unwrap_or_default();
        drop(deleted);
        Ok(Touched { data, newest, as_of: self.applied() })
    }

    /// Nothing that the data depends on was changed between `newest` and `as_of`, so any revision between is true.
    async fn once_durable<T>(&self, touched: Touched<T>) -> Result<Snapshot<T>, KvError> {
        let durable = self.progress.reached(touched.newest).await.map_err(KvError::Unknown)?;
        Ok((durable.min(touched.as_of), touched.data))
    }

    fn applied(&self) -> Revision {
        Revision::new(self.applied.load(Ordering::Acquire))
    }

    fn writable(&self) -> Result<(), KvError> {
        if let Some(reason) = self.progress.mark().stopped {
            return Err(KvError::NotApplied(reason));
        }
        let floor_bytes = self.min_free_bytes;
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        match free_bytes(&files.as_ref().ok_or(KvError::NotApplied(Stopped::Closed))?.log_file) {
            Ok(free_bytes) if free_bytes < floor_bytes => Err(KvError::Full { free_bytes, floor_bytes }),
            // A file system that cannot tell is asked by writing to it.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// What an ordinary user may still write on the file system of this file.
fn free_bytes(file: &File) -> std::io::Result<u64> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// sled answers some damage with a panic; here it becomes the error that it is.
fn caught<T>(read: impl FnOnce() -> Result<T, Corrupt>) -> Result<T, Corrupt> {
    panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Corrupt::Backend { cause: Arc::from(said.unwrap_or("it panicked")) })
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(thread: JoinHandle<()>) {
    // The writer catches its panics and reports them through `Progress`.
    drop(thread.join());
}
