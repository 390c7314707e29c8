//! Brings an image in that lies unpacked in a folder, such as one of the original KIWIspray.
//!
//! Invariant: as with archives, what becomes visible under the image's name is whole, and the folder it came from is
//! only read. Files that no image can have (other names, folders, links that lead elsewhere) are told, not taken.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::import::{ImportError, Imported, Incoming, lock, store_manifest};
use super::manifest::{Kind, Manifest, is_own_word};
use super::names::{FileName, KernelArgs};
use super::publish::{PREFIX, publish, sweep};
use crate::domain::{DevicePolicy, StateName, Writes};

/// What a folder is to become.
#[derive(Debug, Clone)]
pub struct FolderRequest {
    /// The state that will boot the image.
    pub name: StateName,
    /// What it boots.
    pub kind: FolderKind,
    /// Which disk it will write; without one, an image that writes is not offered.
    pub device: Option<DevicePolicy>,
    /// Kernel arguments; none: those of KIWI's `.append` file.
    pub append: Option<KernelArgs>,
    /// Whether machines in this state may report what they found out about themselves.
    pub inventory: bool,
    /// Templates that the image gets, by file name.
    pub templates: Vec<(FileName, String)>,
}

/// What an image of a folder boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderKind {
    /// KIWI's installer; its files have the names that KIWI gives them.
    Kiwi,
    /// A kernel, and mostly an initrd.
    Linux {
        /// The kernel.
        kernel: FileName,
        /// The initrd.
        initrd: Option<FileName>,
        /// The file whose whole delivery means "done"; none: the initrd.
        payload: Option<FileName>,
        /// What it does to disks.
        writes: Writes,
    },
}

impl FolderKind {
    /// Whether booting it changes a disk.
    #[must_use]
    pub fn writes(&self) -> bool {
        match self {
            Self::Kiwi => true,
            Self::Linux { writes, .. } => *writes != Writes::Nothing,
        }
    }
}

/// What a server needs on the disk of its store unless it is told otherwise.
const KEEP_FREE_BYTES: u64 = 256 << 20;

/// Copies a folder's files into the images folder and publishes them as an image, if there is none of that name.
///
/// Blocks; `progress` hears how many bytes were copied.
pub fn import_folder(
    images: &Path,
    request: &FolderRequest,
    from: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Imported, ImportError> {
    if request.name.is_built_in() {
        return Err(ImportError::BuiltIn(request.name.clone()));
    }
    if let Some(word) = request.append.iter().flat_map(KernelArgs::words).find(|word| is_own_word(word)) {
        return Err(ImportError::OwnWord(word.to_owned()));
    }
    let _lock = lock(images)?;
    sweep(images)?;
    if fs::symlink_metadata(images.join(request.name.as_str())).is_ok() {
        return Err(ImportError::Exists(request.name.clone()));
    }
    let staging = tempfile::Builder::new().prefix(PREFIX).tempdir_in(images)?;
    let mut incoming = match &request.kind {
        FolderKind::Kiwi => Incoming::new(staging.path(), KEEP_FREE_BYTES),
        FolderKind::Linux { .. } => Incoming::plain(staging.path(), KEEP_FREE_BYTES),
    };
    for (name, entry) in members(from)? {
        match entry {
            Entry::Link(target) => incoming.take(name, super::archive::Member::Link(target))?,
            Entry::File => {
                let file = File::open(from.join(name.as_str()))?;
                let size_bytes = file.metadata()?.len();
                let mut counted = Counted { file, progress: &mut progress };
                incoming.take(name, super::archive::Member::File(size_bytes, &mut counted))?;
            }
        }
    }
    let (mut manifest, dropped_args) = match &request.kind {
        FolderKind::Kiwi => incoming.finish()?,
        FolderKind::Linux { kernel, initrd, payload, writes } => {
            let needed = [Some(kernel), initrd.as_ref(), payload.as_ref()];
            let files = incoming.finish_plain()?;
            if let Some(lost) = needed.into_iter().flatten().find(|name| files.iter().all(|f| f.name != **name)) {
                let what = io::Error::new(io::ErrorKind::NotFound, format!("{lost} is missing, or no plain file"));
                return Err(what.into());
            }
            let manifest = Manifest {
                kind: Kind::Linux,
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                payload: payload.clone(),
                append: KernelArgs::default(),
                writes: *writes,
                device: None,
                inventory: false,
                first_boot: None,
                files,
            };
            (manifest, Vec::new())
        }
    };
    manifest.device.clone_from(&request.device);
    manifest.inventory = request.inventory;
    if let Some(append) = &request.append {
        manifest.append = append.clone();
    }
    for (name, text) in &request.templates {
        let mut file = File::create_new(staging.path().join(name.as_str()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    store_manifest(&staging, &manifest)?;
    publish(images, &request.name, staging)?;
    Ok(Imported { manifest, dropped_args, kept: Vec::new(), replaced: false })
}

enum Entry {
    File,
    /// To a file beside it.
    Link(FileName),
}

/// The files of a folder that an image may have, checksums first, so that payloads are checked as they are copied.
fn members(from: &Path) -> io::Result<Vec<(FileName, Entry)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<FileName>().ok()) else { continue };
        if !name.is_servable() {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_file() {
            found.push((name, Entry::File));
        } else if kind.is_symlink()
            && let Some(target) = fs::read_link(entry.path())?.to_str().and_then(|target| target.parse().ok())
            && fs::metadata(entry.path()).is_ok_and(|target| target.is_file())
        {
            found.push((name, Entry::Link(target)));
        }
    }
    found.sort_by_key(|(name, _)| (super::kiwi::checksum_algorithm(name).is_none(), name.clone()));
    Ok(found)
}

/// Tells how much was read.
struct Counted<'a, P: FnMut(u64)> {
    file: File,
    progress: &'a mut P,
}

impl<P: FnMut(u64)> Read for Counted<'_, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}
