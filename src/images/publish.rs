//! Publishes, replaces and removes whole image folders.
//!
//! Invariant: at every moment the name of an image leads to one whole folder, the old or the new one, or, once removed,
//! to none. The one gap, on file systems that cannot exchange two names, is closed by [`sweep`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use super::import::{ImportError, lock};
use super::manifest::{Kind, Manifest};
use super::names::FileName;
use crate::domain::StateName;

/// How the folders of imports and removals under way begin: hidden, so that they are no images.
pub(super) const PREFIX: &str = ".import-";
/// How a replaced image's folder begins where names cannot be exchanged.
const OLD_PREFIX: &str = ".replaced-";

/// Removes what interrupted imports and removals left behind. Called at the start of the server; imports do it too.
pub fn clean(images: &Path) -> Result<(), ImportError> {
    if !images.exists() {
        return Ok(());
    }
    match lock(images) {
        Ok(_lock) => Ok(sweep(images)?),
        // What is under way belongs to somebody who lives.
        Err(ImportError::Busy) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes an image. Transfers under way go on to their end, as its files stay open.
pub fn remove(images: &Path, name: &StateName) -> Result<(), ImportError> {
    let _lock = lock(images)?;
    sweep(images)?;
    let folder = images.join(name.as_str());
    if name.is_built_in() || fs::symlink_metadata(&folder).is_err() {
        return Err(ImportError::Missing(name.clone()));
    }
    let away = tempfile::Builder::new().prefix(PREFIX).tempdir_in(images)?;
    fs::rename(&folder, away.path().join(name.as_str()))?;
    sync(images)?;
    Ok(away.close()?)
}

/// The same as [`clean`], for who holds the lock. What another account left, and this one may not touch, keeps nobody from
/// anything but its space.
pub(super) fn sweep(images: &Path) -> io::Result<()> {
    for entry in fs::read_dir(images)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(folder) = file_name.to_str() else { continue };
        let swept = if folder.starts_with(PREFIX) {
            remove_tree(&entry.path())
        } else if let Some(name) = folder.strip_prefix(OLD_PREFIX) {
            let published = images.join(name);
            if fs::symlink_metadata(&published).is_ok() {
                remove_tree(&entry.path())
            } else {
                fs::rename(entry.path(), published)
            }
        } else {
            Ok(())
        };
        if let Err(error) = swept {
            tracing::warn!(folder = %entry.path().display(), %error, "what an import left behind could not be tidied up");
        }
    }
    Ok(())
}

/// Publishes a staged folder under an image's name; the caller holds the lock. What somebody put beside the files of the
/// image that is replaced, templates above all, is kept, unless the new one has its own. Returns the names.
pub(super) fn publish(images: &Path, name: &StateName, staging: TempDir) -> Result<Vec<FileName>, ImportError> {
    let published = images.join(name.as_str());
    let mut kept = Vec::new();
    if published.is_dir() {
        kept = keep_own(&published, staging.path())?;
        sync(staging.path())?;
    }
    if fs::symlink_metadata(&published).is_ok() {
        replace(images, name, &published, staging)?;
    } else {
        match renameat_with(CWD, staging.path(), CWD, &published, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(staging.path(), &published)?,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        // There is nothing left to remove at its old name.
        let _: PathBuf = staging.keep();
    }
    sync(images)?;
    Ok(kept)
}

fn replace(images: &Path, name: &StateName, published: &Path, staging: TempDir) -> io::Result<()> {
    match renameat_with(CWD, staging.path(), CWD, published, RenameFlags::EXCHANGE) {
        Ok(()) => {
            let old = staging.keep();
            // The exchange must be on disk before the old files go.
            sync(images)?;
            remove_replaced(&old);
            Ok(())
        }
        // NFS and some overlays cannot exchange. A crash between the two renames is repaired by the next sweep.
        Err(Errno::INVAL | Errno::NOSYS | Errno::XDEV) => {
            let old = images.join(format!("{OLD_PREFIX}{name}"));
            fs::rename(published, &old)?;
            let renamed = fs::rename(staging.path(), published);
            if renamed.is_err() {
                fs::rename(&old, published)?;
            }
            renamed?;
            let _: PathBuf = staging.keep();
            sync(images)?;
            remove_replaced(&old);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The manifest of a published image, if it has a sound one.
pub(super) fn manifest_of(published: &Path) -> Option<Manifest> {
    Manifest::parse(&fs::read_to_string(published.join(FileName::MANIFEST)).ok()?).ok()
}

fn keep_own(from: &Path, to: &Path) -> io::Result<Vec<FileName>> {
    // Of KIWI's files those beside kernel and payload mean something too, so which they were must have been recorded.
    let manifest = manifest_of(from).filter(|old| old.kind != Kind::Kiwi || !old.files.is_empty());
    let is_own = |name: &FileName| {
        let came_with_image = |old: &Manifest| !name.is_servable() || old.needed_files().contains(name);
        name.is_template() || manifest.as_ref().is_some_and(|old| !came_with_image(old))
    };
    let mut kept = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(|name| name.parse::<FileName>().ok());
        let Some(name) = name.filter(is_own) else { continue };
        let target = to.join(name.as_str());
        if entry.file_type()?.is_file() && !target.exists() {
            // The same file while it can be: it may be large, and the old folder goes.
            if fs::hard_link(entry.path(), &target).is_err() {
                fs::copy(entry.path(), &target)?;
            }
            File::open(&target)?.sync_all()?;
            kept.push(name);
        }
    }
    kept.sort();
    Ok(kept)
}

/// The new image is published by now: what cannot be removed of the old one is left to the next [`sweep`].
fn remove_replaced(old: &Path) {
    if let Err(error) = remove_tree(old) {
        tracing::warn!(folder = %old.display(), %error, "replaced image could not be removed");
    }
}

/// Removes a folder with all that is in it, or whatever else has that name.
fn remove_tree(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
