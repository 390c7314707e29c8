//! Whether the files in a folder may be used as the store.
//!
//! Invariant: an opened store contains every acknowledged commit; whatever cannot be proven to do so is refused and
//! left untouched, as an empty or shortened store would make a fleet of machines unknown. Nothing is ever re-created in
//! a folder that had a store.
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    caught,
    layout::{self, Head},
    watermark::{Watermark, WatermarkFile},
};
use crate::store::kv::{Corrupt, Revision};

const LOCK_FILE: &str = "lock";
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
pub(super) const WATERMARK_FILE: &str = "watermark";
/// Named by sled.
pub(super) const LOG_FILE: &str = "db";
/// sled's parameters, named by sled.
pub(super) const PARAMETERS_FILE: &str = "conf";

/// How to open a store.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// Memory for sled's page cache, in bytes.
    pub cache_bytes: u64,
    /// Writes are refused while less than this is free on the file system: a store on a full disk cannot even be
    /// opened.
    pub min_free_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 128 << 20, min_free_bytes: 128 << 20 }
    }
}

/// Why a store was not opened. Nothing was re-created.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store in {} is in use by {}", dir.display(), named(*.by))]
    InUse {
        /// The folder of the store.
        dir: PathBuf,
        /// The number of that process, if it said so.
        by: Option<u32>,
    },
    /// The disk is too full to open it; nothing is damaged.
    #[error("the disk of the store in {} is full: free some space and start again, nothing is lost", dir.display())]
    DiskFull {
        /// The folder of the store.
        dir: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {doing} the store in {}", dir.display())]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// The folder of the store.
        dir: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Acknowledged data is missing or unreadable.
    #[error(
        "the store in {} is damaged and is not used; keep its files, and bring back your last backup with `kiwispray restore`",
        dir.display()
    )]
    Damaged {
        /// The folder of the store.
        dir: PathBuf,
        /// What is wrong.
        source: Damage,
    },
}

/// What is wrong with the files of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The log ends early.
    #[error("it ends at revision {found}, but revision {acknowledged} was acknowledged")]
    Behind {
        /// The last revision that is there.
        found: Revision,
        /// The last revision that was acknowledged for certain.
        acknowledged: Revision,
    },
    /// The database file is gone.
    #[error("its file `db` is missing")]
    NoLog,
    /// There is data, but not the file that tells whether it is all of it.
    #[error("its file `watermark` is missing")]
    NoWatermark,
    /// Neither slot of the watermark can be read.
    #[error("its file `watermark` cannot be read")]
    BadWatermark,
    /// Records are unreadable or missing.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Everything that an open store is made of.
pub(super) struct Opened {
    pub(super) tree: ::sled::Db,
    pub(super) head: Head,
    pub(super) log_file: File,
    pub(super) watermark: WatermarkFile,
    pub(super) lock_file: LockFile,
}

pub(super) fn open(dir: &Path, options: &SledOptions) -> Result<Opened, OpenError> {
    fs::create_dir_all(dir).map_err(|source| failed("create", dir, source))?;
    let lock_file = lock(dir)?;
    remove_unfinished(dir).map_err(|source| failed("clean up", dir, source))?;
    let found = read_watermark(dir)?;
    if !dir.join(LOG_FILE).exists() {
        if found.is_some() {
            return Err(damaged(dir, Damage::NoLog));
        }
        remove_half_written_parameters(dir).map_err(|source| failed("clean up", dir, source))?;
    }
    let tree = open_sled(dir, options)?;
    let head = caught(|| layout::head(&tree)).map_err(|corrupt| damaged(dir, corrupt.into()))?;
    let log_file = File::options().read(true).write(true).open(dir.join(LOG_FILE));
    let log_file = log_file.map_err(|source| failed("open", dir, source))?;
    match &found {
        Some((_, watermark)) => prove(&tree, head, *watermark).map_err(|damage| damaged(dir, damage))?,
        None if head.revision > Revision::ZERO => return Err(damaged(dir, Damage::NoWatermark)),
        None => {}
    }
    // After a kill the log may be only in the kernel's cache. Whoever reads it from here on must be able to rely on it.
    caught(|| tree.flush().map_err(|error| layout::backend_error(&error)))
        .map_err(|corrupt| damaged(dir, corrupt.into()))?;
    sync_files(dir).map_err(|source| failed("sync", dir, source))?;
    let watermark = open_watermark(dir, found, head).map_err(|source| failed("write the watermark of", dir, source))?;
    Ok(Opened { tree, head, log_file, watermark, lock_file })
}

/// Before everything else: a second process must not even look at sled's files.
pub(super) fn lock(dir: &Path) -> Result<LockFile, OpenError> {
    let path = dir.join(LOCK_FILE);
    let file = loop {
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = LockFile(file.map_err(|source| failed("lock", dir, source))?);
        wait_for_lock(&file.0, dir)?;
        // A restore that had it may have put another folder in the place of this one, which has a lock of its own.
        if is_at(&file.0, &path).map_err(|source| failed("lock", dir, source))? {
            break file;
        }
    };
    // sled locks its log too, and would call it an error of reading that another process still does.
    match File::open(dir.join(LOG_FILE)) {
        Ok(log) => {
            wait_for_lock(&log, dir)?;
            log.unlock().map_err(|source| failed("unlock", dir, source))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("open", dir, source)),
    }
    // Only for the message to others; that the file cannot be written is found out by those who must.
    drop(file.0.set_len(0).and_then(|()| file.0.write_all_at(std::process::id().to_string().as_bytes(), 0)));
    Ok(file)
}

/// Whether this very file is found at a path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Patient, as locks outlive their process for a moment: it may be ending, or another may just have forked from it.
fn wait_for_lock(file: &File, dir: &Path) -> Result<(), OpenError> {
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
                waited += LOCK_PAUSE;
            }
            Err(TryLockError::WouldBlock) => {
                let by = fs::read_to_string(dir.join(LOCK_FILE)).ok().and_then(|text| text.parse().ok());
                return Err(OpenError::InUse { dir: dir.to_owned(), by });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", dir, source)),
        }
    }
}

/// The lock on the whole folder, given back explicitly: a process forked meanwhile would keep it.
#[derive(Debug)]
pub(super) struct LockFile(File);

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing the file does the same, only later.
        drop(self.0.unlock());
    }
}

/// A process killed while opening leaves `snap.*.generating`, which sled would take for a damaged snapshot ever after.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let file = file?;
        let name = file.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b"snap.") && name.ends_with(b".generating") {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// A process killed in its first start may leave sled's parameters without their checksum, which sled cannot read ever after.
/// sled writes them in two pieces, and begins its log only then: without a log they say nothing of any data.
fn remove_half_written_parameters(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(PARAMETERS_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// All of them, as sled never syncs the small file with its parameters, and cannot open the log without it.
fn sync_files(dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let file = file?;
        if file.file_type()?.is_file() {
            File::open(file.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

fn read_watermark(dir: &Path) -> Result<Option<(WatermarkFile, Watermark)>, OpenError> {
    match WatermarkFile::open(&dir.join(WATERMARK_FILE)) {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged(dir, Damage::BadWatermark)),
        Err(source) => Err(failed("read the watermark of", dir, source)),
    }
}

fn open_sled(dir: &Path, options: &SledOptions) -> Result<::sled::Db, OpenError> {
    let config = ::sled::Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .mode(::sled::Mode::LowSpace)
        // Its thread is also the one that gives space back.
        .flush_every_ms(Some(500));
    let mut io_error = None;
    let opened = caught(|| {
        config.open().map_err(|error| {
            let corrupt = layout::backend_error(&error);
            if let ::sled::Error::Io(error) = error {
                io_error = Some(error);
            }
            corrupt
        })
    });
    match (opened, io_error) {
        (Ok(tree), _) => Ok(tree),
        (Err(_), Some(error)) if error.kind() == io::ErrorKind::StorageFull => {
            Err(OpenError::DiskFull { dir: dir.to_owned() })
        }
        // sled reports some damage as an error of reading, and no errno stands behind it.
        (Err(_), Some(source)) if source.raw_os_error().is_some() => Err(failed("open", dir, source)),
        (Err(corrupt), _) => Err(damaged(dir, corrupt.into())),
    }
}

/// After anything but a regular close everything is read once: that is when files are damaged.
fn prove(tree: &::sled::Tree, head: Head, watermark: Watermark) -> Result<(), Damage> {
    if head.revision < watermark.revision {
        return Err(Damage::Behind { found: head.revision, acknowledged: watermark.revision });
    }
    if watermark.closed && head.revision == watermark.revision {
        return Ok(());
    }
    Ok(caught(|| layout::verify(tree))?)
}

fn open_watermark(dir: &Path, found: Option<(WatermarkFile, Watermark)>, head: Head) -> io::Result<WatermarkFile> {
    let Some((mut file, _)) = found else {
        return WatermarkFile::create(&dir.join(WATERMARK_FILE));
    };
    file.write(Watermark { revision: head.revision, closed: false })?;
    Ok(file)
}

fn named(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn failed(doing: &'static str, dir: &Path, source: io::Error) -> OpenError {
    if source.kind() == io::ErrorKind::StorageFull {
        return OpenError::DiskFull { dir: dir.to_owned() };
    }
    OpenError::Io { doing, dir: dir.to_owned(), source }
}

fn damaged(dir: &Path, damage: Damage) -> OpenError {
    OpenError::Damaged { dir: dir.to_owned(), source: damage }
}
