//! How far running boots have come: which files, how many bytes. In memory, as only whole payloads must survive a crash.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::domain::{Activity, BootId, HostId};
use crate::images::Coverage;

use super::Carried;

/// After this long without a request, a boot is no longer taken to be running. KIWI verifies the disk between its last
/// download and its first report, which takes minutes.
const ACTIVITY_LINGERS: SignedDuration = SignedDuration::from_mins(5);

/// The files of running boots.
#[derive(Debug, Default)]
pub(super) struct Progress {
    hosts: Mutex<HashMap<HostId, Running>>,
    /// Whether machines may fetch other parts of the same files from another process.
    is_shared: AtomicBool,
}

#[derive(Debug)]
struct Running {
    bootid: BootId,
    files: BTreeMap<String, Coverage>,
    newest: String,
    streams: u32,
    active_at: Timestamp,
    history: History,
}

/// Whether everything that was fetched in a boot is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// The boot's first file was fetched from this process.
    Whole,
    /// Files were fetched from a process before this one.
    Lost,
    /// A file changed while it was fetched: any byte may have been the last one.
    Muddled,
}

/// How far the boot of a host has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProgress {
    /// The files fetched so far, by name.
    pub files: Vec<FileProgress>,
    /// The file fetched last.
    pub newest: FileProgress,
    /// When bytes last moved.
    pub active_at: Timestamp,
}

/// How much of a file was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProgress {
    /// Its name.
    pub name: String,
    /// Bytes delivered, each counted once.
    pub delivered_bytes: u64,
    /// Its size.
    pub size_bytes: u64,
}

impl Progress {
    /// A request for a file of this boot begins. A boot before it is forgotten.
    pub(super) fn begin(&self, bootid: BootId, history: History, file: &str, size_bytes: u64, now: Timestamp) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let running = hosts.entry(bootid.host()).or_insert_with(|| Running::new(bootid, history, now));
        if running.bootid != bootid {
            *running = Running::new(bootid, history, now);
        }
        running.file(file, size_bytes);
        running.streams = running.streams.saturating_add(1);
        running.active_at = now;
    }

    /// Bytes of a file are about to be handed out. Answers whether the file is whole with them.
    pub(super) fn add(&self, bootid: BootId, file: &str, bytes: Range<u64>, now: Timestamp) -> bool {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = hosts.get_mut(&bootid.host()).filter(|running| running.bootid == bootid) else {
            // A transfer of a boot that was superseded goes on to its end; it counts for nothing.
            return false;
        };
        running.active_at = now;
        let history = running.history;
        running.files.get_mut(file).is_some_and(|coverage| {
            let may_complete = match history {
                History::Whole if !self.is_shared.load(Ordering::Acquire) => false,
                // What another process delivers is not known either.
                History::Whole => bytes.end == coverage.size_bytes(),
                // What a former process delivered is not known: the end of a file may have been all that was missing.
                History::Lost => bytes.end == coverage.size_bytes(),
                History::Muddled => true,
            };
            coverage.add(bytes);
            coverage.is_whole() || may_complete
        })
    }

    /// A request for a file of this boot has ended, one way or another.
    pub(super) fn end(&self, bootid: BootId, now: Timestamp) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = hosts.get_mut(&bootid.host()).filter(|running| running.bootid == bootid) {
            running.streams = running.streams.saturating_sub(1);
            running.active_at = now;
        }
    }

    /// From now on machines may fetch files of the same boots from another process, too.
    pub(super) fn share(&self) {
        // Whoever adds bytes after this sees it.
        let _hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_shared.store(true, Ordering::Release);
    }

    /// The files of boots that are being fetched.
    pub(super) fn streaming(&self) -> Vec<Carried> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let fetched = hosts.values().filter(|running| running.streams > 0);
        fetched.filter_map(|running| running.carried(&running.newest)).collect()
    }

    /// How far a file of a boot came; none if it is not the host's newest boot.
    pub(super) fn carried(&self, bootid: BootId, file: &str) -> Option<Carried> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(&bootid.host()).filter(|running| running.bootid == bootid)?.carried(file)
    }

    /// Takes over how far a file came in another process. A boot that this process serves is a newer one.
    pub(super) fn carry(&self, carried: &Carried, now: Timestamp) {
        let Carried { bootid, file, size_bytes, pieces } = carried;
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let running = hosts.entry(bootid.host()).or_insert_with(|| Running::new(*bootid, History::Lost, now));
        if running.bootid != *bootid {
            return;
        }
        let coverage = running.file(file, *size_bytes);
        pieces.iter().for_each(|piece| coverage.add(piece.clone()));
        running.active_at = now;
    }

    /// Whether files of this boot are being fetched.
    pub(super) fn activity(&self, bootid: &BootId, now: Timestamp) -> Activity {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get(&bootid.host()).filter(|running| running.bootid == *bootid) {
            Some(running) if running.streams > 0 => Activity::Fetching,
            Some(running) if now.duration_since(running.active_at) < ACTIVITY_LINGERS => Activity::Fetching,
            Some(_) | None => Activity::Quiet,
        }
    }

    /// This boot is over. A boot of the same host that has begun meanwhile stays.
    pub(super) fn forget(&self, bootid: &BootId) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.get(&bootid.host()).is_some_and(|running| running.bootid == *bootid) {
            hosts.remove(&bootid.host());
        }
    }

    pub(super) fn of(&self, id: HostId) -> Option<HostProgress> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let running = hosts.get(&id)?;
        let files: Vec<FileProgress> = running
            .files
            .iter()
            .map(|(name, coverage)| FileProgress {
                name: name.clone(),
                delivered_bytes: coverage.delivered_bytes(),
                size_bytes: coverage.size_bytes(),
            })
            .collect();
        let newest = files.iter().find(|file| file.name == running.newest)?.clone();
        Some(HostProgress { files, newest, active_at: running.active_at })
    }
}

impl Running {
    /// The file that is fetched now.
    fn file(&mut self, file: &str, size_bytes: u64) -> &mut Coverage {
        file.clone_into(&mut self.newest);
        let coverage = self.files.entry(file.to_owned()).or_insert_with(|| Coverage::new(size_bytes));
        if coverage.size_bytes() != size_bytes {
            // The image was replaced in the middle of a boot: what has been delivered of which file is not known any more.
            *coverage = Coverage::new(size_bytes);
            self.history = History::Muddled;
        }
        coverage
    }

    fn carried(&self, file: &str) -> Option<Carried> {
        let coverage = self.files.get(file)?;
        let (size_bytes, pieces) = (coverage.size_bytes(), coverage.pieces().to_vec());
        Some(Carried { bootid: self.bootid, file: file.to_owned(), size_bytes, pieces })
    }

    const fn new(bootid: BootId, history: History, now: Timestamp) -> Self {
        Self { bootid, files: BTreeMap::new(), newest: String::new(), streams: 0, active_at: now, history }
    }
}
