//! Brings images into the images folder: KIWI's install archives and live ISOs, and plain kernels with an initrd.
//!
//! Invariant: what is visible under an image's name is whole. An import is stored in a hidden folder, checked, synced,
//! and then published by one rename; whatever interrupts it leaves at most a hidden folder, which the next start or
//! import removes. A file that is being served is never changed: replacing exchanges whole folders.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::archive::{ArchiveError, HEADER_BYTES, Member, is_archive, read_members};
use super::iso::{BEGINNING_BYTES, is_iso};
use super::kiwi::{Algorithm, Checksum, KiwiError, Layout, checksum_algorithm, is_payload, parse_append, stem};
use super::live::{self, LiveError};
use super::manifest::{FileRecord, Kind, Manifest, ManifestError, is_own_word};
use super::names::{FileName, KernelArgs, Sha256Sum};
use super::payload::{PayloadError, RawCheck, RawSums};
use super::plain::{self, Plain};
use super::publish::{PREFIX, manifest_of, publish, sweep};
use crate::domain::{DevicePolicy, StateName, Writes};

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The state that will boot the image.
    pub name: StateName,
    /// What is on its way.
    pub contents: Contents,
    /// Which disk it will write; needed by what writes one, as KIWI's install archives do.
    pub device: Option<DevicePolicy>,
    /// Kernel arguments behind those of the archive.
    pub append: KernelArgs,
    /// Whether machines in this state may report what they found out about themselves.
    pub inventory: bool,
    /// Whether an image of this name may be replaced.
    pub replace: bool,
    /// What the server needs on the disk of the images, as its store may lie there, in bytes. A reserve stays free besides.
    pub keep_free_bytes: u64,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// What KIWI built: an install archive or a live ISO, which the bytes say.
    Built {
        /// The name that an ISO keeps; another one, if machines could not fetch it by this.
        file: Option<FileName>,
    },
    /// A kernel, and mostly an initrd.
    Plain(Plain),
}

/// An image that was imported and is offered from now on.
#[derive(Debug, Clone)]
pub struct Imported {
    /// What was written to its manifest.
    pub manifest: Manifest,
    /// Kernel arguments of the archive that were dropped, as the server adds its own.
    pub dropped_args: Vec<String>,
    /// What somebody had put beside the files of the replaced image, templates above all: the new one keeps it.
    pub kept: Vec<FileName>,
    /// Whether it replaced another image.
    pub replaced: bool,
}

/// Why nothing was imported, or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The operator did not say which disk.
    #[error("this image writes a disk, so say which: {choices}", choices = DevicePolicy::CHOICES)]
    NoDevice,
    /// The operator named a disk for an image that writes none.
    #[error("this image writes no disk, so it takes no device: leave --device out")]
    NeedlessDevice,
    /// Kernel and initrd would be one file.
    #[error("kernel and initrd are both called {0}: rename one")]
    OneName(FileName),
    /// A file without a byte.
    #[error("{0} is empty")]
    Empty(FileName),
    /// A file that came in another length than was announced.
    #[error("{file} ended after {found_bytes} of {expected_bytes} bytes: import it again")]
    WrongLength {
        /// The file.
        file: FileName,
        /// The bytes that came.
        found_bytes: u64,
        /// The bytes that were announced.
        expected_bytes: u64,
    },
    /// There was something behind the last file.
    #[error("more bytes came than were announced: import it again")]
    TooMuch,
    /// `new` and `finished` name no image.
    #[error("no image can be called {0}: that state is built in")]
    BuiltIn(StateName),
    /// An argument that the server adds itself.
    #[error("`{0}` cannot be appended: the server sets it itself, the disk by the device")]
    OwnWord(String),
    /// There is such an image already.
    #[error("there is an image {0} already: it is replaced only on demand")]
    Exists(StateName),
    /// There is no such image.
    #[error("there is no image {0}")]
    Missing(StateName),
    /// Another import or removal is under way.
    #[error("another image is being imported or removed: try again when that is done")]
    Busy,
    /// The archive is refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive is none that could be deployed.
    #[error(transparent)]
    Kiwi(#[from] KiwiError),
    /// The ISO is none that could be booted.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The payload is not whole.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The payload is not the one that the checksum was computed of.
    #[error("the disk image is not the one that {0} describes: the archive is damaged")]
    WrongSum(FileName),
    /// The payload's raw size is not the one of the checksum file.
    #[error("the disk image has {found_bytes} raw bytes, and {file} says {expected_bytes}: the archive is damaged")]
    WrongRawSize {
        /// The checksum file.
        file: FileName,
        /// What the payload decompressed to, in bytes.
        found_bytes: u64,
        /// What the checksum file says, in bytes.
        expected_bytes: u64,
    },
    /// A link of the archive to something that it does not hold.
    #[error("the archive holds {0} as a link to {1}, which is no file of the archive")]
    DanglingLink(FileName, FileName),
    /// The disk would get too full.
    #[error("{file} has {size_bytes} bytes, and only {free_bytes} can be used on the disk of the images")]
    NoSpace {
        /// The file.
        file: FileName,
        /// Its size in bytes.
        size_bytes: u64,
        /// What is free on the disk in bytes, besides a reserve.
        free_bytes: u64,
    },
    /// The system refused something.
    #[error("the images folder: {0}")]
    Io(io::Error),
    /// The manifest would be refused, as with more kernel arguments than a kernel takes.
    #[error("the image would get a wrong {manifest}: {0}", manifest = FileName::MANIFEST)]
    BadManifest(ManifestError),
    /// The manifest could not be written down.
    #[error("the manifest could not be written: {0}")]
    Manifest(toml::ser::Error),
}

// Written out, as a derived `From` would make the cause a source too, and the sentence above says it already.
impl From<io::Error> for ImportError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Stays free beyond what the server needs, which writes while images come in.
const RESERVE_BYTES: u64 = 128 << 20;
/// Locked instead of the folder of images where folders cannot be: hidden, so that it is no image.
const LOCK_FILE: &str = ".lock";
/// More than any disk image: what decompresses to more is a bomb.
pub(super) const RAW_LIMIT_BYTES: u64 = 1 << 40;
/// Checksums and command lines are shorter.
pub(super) const LONGEST_TEXT_BYTES: u64 = 64 << 10;

/// Imports an image from `source` into the folder `images`: a KIWI install archive (plain tar, or tar in xz), a KIWI live
/// ISO, or the files of [`Contents::Plain`], one behind the other.
///
/// Blocks until the image is published; `progress` hears how many bytes of the source were read. An error of the source
/// ends the import.
pub fn import(
    images: &Path,
    request: &ImportRequest,
    source: impl Read,
    progress: impl FnMut(u64),
) -> Result<Imported, ImportError> {
    if request.name.is_built_in() {
        return Err(ImportError::BuiltIn(request.name.clone()));
    }
    if let Some(word) = request.append.words().find(|word| is_own_word(word)) {
        return Err(ImportError::OwnWord(word.to_owned()));
    }
    if let Contents::Plain(plain) = &request.contents {
        plain::check(plain, request.device.as_ref())?;
    }
    let _lock = lock(images)?;
    sweep(images)?;
    let exists = fs::symlink_metadata(images.join(request.name.as_str())).is_ok();
    if exists && !request.replace {
        return Err(ImportError::Exists(request.name.clone()));
    }
    let staging = tempfile::Builder::new().prefix(PREFIX).tempdir_in(images)?;
    let (mut manifest, dropped_args) = match &request.contents {
        Contents::Built { file } => store_built(staging.path(), file.clone(), request, source, progress)?,
        Contents::Plain(plain) => {
            let source = Counted { inner: source, read_bytes: 0, progress };
            (plain::store(Incoming::plain(staging.path(), request.keep_free_bytes), plain, source)?, Vec::new())
        }
    };
    manifest.device.clone_from(&request.device);
    manifest.inventory = request.inventory;
    manifest.append = manifest.append.and(&request.append);
    // No import can say it, so an operator did.
    manifest.first_boot = manifest_of(&images.join(request.name.as_str())).and_then(|old| old.first_boot);
    store_manifest(&staging, &manifest)?;
    let kept = publish(images, &request.name, staging)?;
    Ok(Imported { manifest, dropped_args, kept, replaced: exists })
}

/// Stores what KIWI built, and returns what was dropped of its kernel arguments, too.
fn store_built(
    folder: &Path,
    file: Option<FileName>,
    request: &ImportRequest,
    mut source: impl Read,
    progress: impl FnMut(u64),
) -> Result<(Manifest, Vec<String>), ImportError> {
    let mut beginning = Vec::new();
    (&mut source).take(HEADER_BYTES).read_to_end(&mut beginning).map_err(ArchiveError::Source)?;
    let of_archive = is_archive(&beginning);
    if !of_archive {
        (&mut source).take(BEGINNING_BYTES - HEADER_BYTES).read_to_end(&mut beginning).map_err(ArchiveError::Source)?;
    }
    let source = Cursor::new(&beginning).chain(source);
    match (!of_archive && is_iso(&beginning), &request.device) {
        (true, Some(_)) => Err(ImportError::NeedlessDevice),
        (true, None) => {
            let source = Counted { inner: source, read_bytes: 0, progress };
            let incoming = Incoming::plain(folder, request.keep_free_bytes);
            Ok((live::store(incoming, folder, file, source)?, Vec::new()))
        }
        (false, None) if of_archive => Err(ImportError::NoDevice),
        (false, None) => Err(ArchiveError::NotAnArchive.into()),
        (false, Some(_)) => {
            let mut incoming = Incoming::new(folder, request.keep_free_bytes);
            read_members(source, progress, |name, member| incoming.take(name, member))?;
            incoming.finish()
        }
    }
}

/// Tells how many bytes were read.
struct Counted<R, P> {
    inner: R,
    read_bytes: u64,
    progress: P,
}

impl<R: Read, P: FnMut(u64)> Read for Counted<R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read_bytes += read as u64;
        (self.progress)(self.read_bytes);
        Ok(read)
    }
}

/// Locks the images folder against other imports and removals, and makes it if it is missing.
pub(super) fn lock(images: &Path) -> Result<File, ImportError> {
    fs::create_dir_all(images)?;
    match locked(File::open(images)?) {
        // NFS locks only what is open for writing, which a folder cannot be.
        Err(ImportError::Io(error)) if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) => lock_by_file(images),
        tried => tried,
    }
}

/// The same where folders cannot be locked.
pub(super) fn lock_by_file(images: &Path) -> Result<File, ImportError> {
    locked(File::options().create(true).truncate(false).write(true).open(images.join(LOCK_FILE))?)
}

fn locked(file: File) -> Result<File, ImportError> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(ImportError::Busy),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

pub(super) fn store_manifest(staging: &TempDir, manifest: &Manifest) -> Result<(), ImportError> {
    let text = manifest.to_toml().map_err(ImportError::Manifest)?;
    // What the catalogue will refuse must not be published.
    Manifest::parse(&text).map_err(ImportError::BadManifest)?;
    let mut file = File::create_new(staging.path().join(FileName::MANIFEST))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // Temporary folders are private, images are not.
    fs::set_permissions(staging.path(), Permissions::from_mode(0o755))?;
    File::open(staging.path())?.sync_all()?;
    Ok(())
}

/// An archive on its way into its folder.
pub(super) struct Incoming<'a> {
    folder: &'a Path,
    files: BTreeMap<FileName, FileRecord>,
    links: BTreeMap<FileName, FileName>,
    checksums: BTreeMap<FileName, Checksum>,
    raw_sums: Option<RawSums>,
    /// Whether names mean what they mean to KIWI.
    is_kiwi: bool,
    /// What stays free on the disk.
    keep_free_bytes: u64,
}

impl<'a> Incoming<'a> {
    /// Into this folder, on whose disk the server needs so much.
    pub(super) fn new(folder: &'a Path, keep_free_bytes: u64) -> Self {
        let (files, links, checksums) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let keep_free_bytes = keep_free_bytes.saturating_add(RESERVE_BYTES);
        Self { folder, files, links, checksums, raw_sums: None, is_kiwi: true, keep_free_bytes }
    }

    /// The same, of files whose names mean nothing in particular.
    pub(super) fn plain(folder: &'a Path, keep_free_bytes: u64) -> Self {
        Self { is_kiwi: false, ..Self::new(folder, keep_free_bytes) }
    }

    pub(super) fn take(&mut self, name: FileName, member: Member<'_>) -> Result<(), ImportError> {
        match member {
            // Its target may still come.
            Member::Link(target) => {
                self.links.insert(name, target);
            }
            Member::File(size_bytes, bytes) => {
                let record = self.store(&name, size_bytes, bytes)?;
                self.files.insert(name.clone(), record);
                if self.is_kiwi && checksum_algorithm(&name).is_some() {
                    let checksum = Checksum::parse(&name, &self.read_text(&name)?)?;
                    self.checksums.insert(name, checksum);
                }
            }
        }
        Ok(())
    }

    fn store(&mut self, name: &FileName, size_bytes: u64, bytes: &mut dyn Read) -> Result<FileRecord, ImportError> {
        self.check_space(name, size_bytes)?;
        let mut check = match self.is_kiwi && is_payload(name) {
            true if self.raw_sums.is_none() => Some(self.start_check(name)?),
            true | false => None,
        };
        let mut file = File::create_new(self.folder.join(name.as_str()))?;
        let mut sum = Sha256::new();
        let mut stored_bytes = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = bytes.read(&mut buffer)?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
            if check.as_mut().is_some_and(|check| !check.feed(part)) {
                break;
            }
            sum.update(part);
            file.write_all(part)?;
            stored_bytes += part.len() as u64;
        }
        let mut raw_size_bytes = None;
        if let Some(check) = check {
            let sums = check.finish()?;
            raw_size_bytes = Some(sums.size_bytes);
            self.raw_sums = Some(sums);
        }
        file.sync_all()?;
        let sha256 = Sha256Sum::from(<[u8; 32]>::from(sum.finalize()));
        Ok(FileRecord { name: name.clone(), size_bytes: stored_bytes, sha256, raw_size_bytes })
    }

    /// Starts checking the payload against its checksums; if they come later in the archive, against any that may come.
    fn start_check(&self, payload: &FileName) -> Result<RawCheck, ImportError> {
        let known: Vec<_> = self.checksums.iter().filter(|(file, _)| stem(file) == stem(payload)).collect();
        if known.is_empty() {
            let any = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512];
            return Ok(RawCheck::start(&any, RAW_LIMIT_BYTES)?);
        }
        let algorithms: Vec<_> = known.iter().map(|(_, checksum)| checksum.algorithm).collect();
        let limit = known.iter().map(|(_, checksum)| checksum.raw_size_bytes).max().unwrap_or(RAW_LIMIT_BYTES);
        Ok(RawCheck::start(&algorithms, limit.min(RAW_LIMIT_BYTES))?)
    }

    fn check_space(&self, file: &FileName, size_bytes: u64) -> Result<(), ImportError> {
        let free_bytes = self.free_bytes()?;
        if size_bytes > free_bytes {
            return Err(ImportError::NoSpace { file: file.clone(), size_bytes, free_bytes });
        }
        Ok(())
    }

    /// What may be stored on the disk.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let disk = statvfs(self.folder)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(self.keep_free_bytes))
    }

    fn read_text(&self, name: &FileName) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(self.folder.join(name.as_str()))?.take(LONGEST_TEXT_BYTES).read_to_end(&mut text)?;
        Ok(text)
    }

    /// The archive has ended: what kind is it, is it whole, and what does it boot?
    pub(super) fn finish(mut self) -> Result<(Manifest, Vec<String>), ImportError> {
        self.materialise_links()?;
        self.finish_kiwi()
    }

    /// The same, of what is no KIWI archive: the files as they were stored.
    pub(super) fn finish_plain(mut self) -> Result<Vec<FileRecord>, ImportError> {
        self.materialise_links()?;
        Ok(self.files.into_values().collect())
    }

    fn finish_kiwi(self) -> Result<(Manifest, Vec<String>), ImportError> {
        let layout = Layout::recognise(&self.files.keys().cloned().collect())?;
        for file in &layout.checksums {
            self.check_sum(file)?;
        }
        let (append, dropped) = match &layout.append {
            Some(file) => parse_append(file, &self.read_text(file)?)?,
            None => (KernelArgs::default(), Vec::new()),
        };
        let manifest = Manifest {
            kind: Kind::Kiwi,
            kernel: layout.kernel,
            initrd: Some(layout.initrd),
            payload: Some(layout.payload),
            append,
            writes: Writes::Disk,
            device: None,
            inventory: false,
            first_boot: None,
            files: self.files.into_values().collect(),
        };
        Ok((manifest, dropped))
    }

    /// KIWI writes `B.kernel` as a link to `pxeboot.B.kernel`. Links are not served: both become one file of two names.
    fn materialise_links(&mut self) -> Result<(), ImportError> {
        for (name, target) in std::mem::take(&mut self.links) {
            let Some(record) = self.files.get(&target) else {
                return Err(ImportError::DanglingLink(name, target));
            };
            let record = FileRecord { name: name.clone(), ..record.clone() };
            fs::hard_link(self.folder.join(target.as_str()), self.folder.join(name.as_str()))?;
            self.files.insert(name, record);
        }
        Ok(())
    }

    fn check_sum(&self, file: &FileName) -> Result<(), ImportError> {
        let wrong = || ImportError::WrongSum(file.clone());
        let checksum = self.checksums.get(file).ok_or_else(wrong)?;
        let raw = self.raw_sums.as_ref().ok_or_else(wrong)?;
        if raw.size_bytes != checksum.raw_size_bytes {
            let (found_bytes, expected_bytes) = (raw.size_bytes, checksum.raw_size_bytes);
            return Err(ImportError::WrongRawSize { file: file.clone(), found_bytes, expected_bytes });
        }
        match raw.sum(checksum.algorithm) {
            Some(sum) if sum == checksum.sum => Ok(()),
            Some(_) => Err(wrong()),
            // It came behind the payload, which was summed for one that had come before and is compared as well.
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "import_test.rs"]
mod tests;
