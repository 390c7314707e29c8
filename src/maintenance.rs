//! What is done to the store of a server that is stopped, and to backups, which are files.
//!
//! Invariant: a running server's store is never touched (its lock says so), and nothing is created where nobody asked for it.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;

use crate::store::backup::{BackupError, Dump, DumpError, Reader};
use crate::store::restore::{self, RestoreError, STORE_FOLDER};
use crate::store::{Check, OpenError, Store, StoreError, StoreOptions};
use crate::wire::{BackupView, CheckView, RestoredView};

pub use crate::store::restore::{Existing, Progress};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// There is no store.
    #[error("there is no store in {}", .0.display())]
    NoStore(PathBuf),
    /// The store cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No backup was taken.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The backup is no good.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Nothing was restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Reads a backup to its end. `progress` is told how many bytes were read.
///
/// # Errors
/// What is wrong with it.
pub fn read_backup(file: &Path, progress: impl FnMut(u64)) -> Result<BackupView, MaintenanceError> {
    let contents = Reader::open(File::open(file).map_err(BackupError::Io)?)?.check(progress)?;
    let (about, records, bytes) = (contents.about, contents.records, contents.bytes);
    Ok(BackupView { taken_at: about.taken_at, program: about.program, records, bytes })
}

/// A store that no server uses.
#[derive(Debug)]
pub struct StoppedStore(Store);

impl StoppedStore {
    /// Opens the store of a data directory.
    ///
    /// # Errors
    /// There is none, a server uses it, or it is damaged.
    pub async fn open(data_dir: &Path) -> Result<Self, MaintenanceError> {
        let place = data_dir.join(STORE_FOLDER);
        if !restore::is_used(&place)? {
            return Err(MaintenanceError::NoStore(data_dir.to_owned()));
        }
        // It is only read, save for leases that nobody has any more, and a layout of before, which is brought forward.
        let options = StoreOptions { min_free_bytes: 0, ..StoreOptions::default() };
        Ok(Self(Store::open(&place, &options).await?))
    }

    /// Begins a backup.
    pub fn dump(&self, now: Timestamp) -> Dump {
        self.0.dump(now)
    }

    /// The next piece of a backup of this store; none after the last.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn next(&self, dump: &mut Dump) -> Result<Option<Bytes>, MaintenanceError> {
        Ok(dump.next(&self.0).await?)
    }

    /// Reads everything. `progress` is told how many entries were read.
    ///
    /// # Errors
    /// The store cannot be read; what is wrong with its contents is no error.
    pub async fn check(&self, progress: impl FnMut(u64)) -> Result<CheckView, MaintenanceError> {
        Ok(checked(&self.0.check(progress).await?))
    }

    /// Ends the use of the store.
    pub async fn close(self) {
        self.0.close().await;
    }
}

/// Makes the store of a data directory out of a backup.
///
/// # Errors
/// Why not; then nothing was changed.
pub async fn restore(
    backup: &Path,
    data_dir: &Path,
    existing: Existing,
    now: Timestamp,
    progress: impl FnMut(Progress),
) -> Result<RestoredView, MaintenanceError> {
    let made = restore::restore(backup, data_dir, existing, now, progress).await?;
    let kept = made.kept.map(|path| path.display().to_string());
    Ok(RestoredView { taken_at: made.taken_at, hosts: made.hosts, holding: made.holding, kept })
}

fn checked(check: &Check) -> CheckView {
    CheckView {
        hosts: check.hosts,
        forgotten: check.forgotten,
        tombstones: check.tombstones,
        events: check.events,
        indexed: check.indexed,
        plugin_values: check.plugin_values,
        entries: check.entries,
        bytes: check.bytes,
        problems: check.problems.iter().map(ToString::to_string).collect(),
        problem_count: check.problem_count,
    }
}
