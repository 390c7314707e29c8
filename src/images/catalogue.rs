//! Which images can be booted.
//!
//! Invariant: an image is offered only while its manifest is sound, every file is there in the size it was imported
//! with, and a writing image says which disk it writes. Whatever is wrong with one folder is said about that folder
//! and hides no other. Folders and files that are links are not followed: what is offered is what can be served.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::manifest::{Manifest, ManifestError};
use super::names::FileName;
use crate::domain::DevicePolicy;
use crate::domain::StateName;

/// The images folder. All calls block for some `stat`s, and for the manifest when it changed.
#[derive(Debug)]
pub struct Catalogue {
    root: PathBuf,
    keep_free_bytes: u64,
    manifests: Mutex<HashMap<StateName, (Stamp, Arc<Manifest>)>>,
}

/// An image that is whole and may be booted.
#[derive(Debug, Clone)]
pub struct Image {
    /// The state that boots it, which is also its folder's name.
    pub name: StateName,
    /// Its folder.
    pub folder: PathBuf,
    /// What its manifest says.
    pub manifest: Arc<Manifest>,
    /// The file whose whole delivery means "installed"; always there when the image writes a disk.
    pub payload: Option<Payload>,
    /// All its files together, in bytes.
    pub size_bytes: u64,
}

/// The file whose whole delivery means "installed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its name.
    pub name: FileName,
    /// Its size in bytes, above zero.
    pub size_bytes: u64,
}

/// Why an image is not booted: one sentence each, for the console and the operator.
#[derive(Debug, thiserror::Error)]
pub enum NotOffered {
    /// `new` and `finished` boot no image.
    #[error("the state {0} is built in and boots no image")]
    BuiltIn(StateName),
    /// There is no such folder.
    #[error("there is no image {0}")]
    NoFolder(StateName),
    /// Something else than a folder has its name.
    #[error("the image {0} is no folder (links are not followed)")]
    NotAFolder(StateName),
    /// The folder's name can be no state's.
    #[error("the folder {0:?} can be no image: its name is no state name")]
    FolderName(String),
    /// The folder has no manifest.
    #[error("the image {0} has no {manifest}", manifest = FileName::MANIFEST)]
    NoManifest(StateName),
    /// Its manifest is wrong.
    #[error("the image {name} has a wrong {manifest}: {error}", manifest = FileName::MANIFEST)]
    BadManifest {
        /// The image.
        name: StateName,
        /// What is wrong.
        error: ManifestError,
    },
    /// Its manifest is not text, or far too long.
    #[error("the image {0} has a {manifest} that is no text file of at most {most} bytes", manifest = FileName::MANIFEST, most = Catalogue::LONGEST_MANIFEST_BYTES)]
    NotText(StateName),
    /// It writes a disk, and nobody said which.
    #[error("the image {0} writes a disk and does not say which: set `device` in its {manifest} to {choices}", manifest = FileName::MANIFEST, choices = DevicePolicy::CHOICES)]
    NoDevice(StateName),
    /// None of its files is there: a folder that ships with a manifest and waits for its kernel.
    #[error("the image {0} is not built yet: none of its files is there")]
    NotBuilt(StateName),
    /// A file of it is missing, or is a link or a folder.
    #[error("the image {name} is not whole: {file} is missing, or no plain file")]
    MissingFile {
        /// The image.
        name: StateName,
        /// The file.
        file: FileName,
    },
    /// A file of it has another size than when it was imported.
    #[error("the image {name} is not whole: {file} has {found_bytes} bytes and should have {expected_bytes}")]
    WrongSize {
        /// The image.
        name: StateName,
        /// The file.
        file: FileName,
        /// Its size in bytes.
        found_bytes: u64,
        /// The size in bytes that the manifest says.
        expected_bytes: u64,
    },
    /// Its payload is empty.
    #[error("the image {name} is not whole: {file} is empty")]
    EmptyPayload {
        /// The image.
        name: StateName,
        /// The payload.
        file: FileName,
    },
    /// The system refused to read it.
    #[error("the image {name} cannot be read: {error}")]
    Unreadable {
        /// The image.
        name: StateName,
        /// What the system said.
        error: io::Error,
    },
}

/// What tells a changed manifest from the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
    size_bytes: u64,
}

impl Catalogue {
    const LONGEST_MANIFEST_BYTES: u64 = 256 * 1024;

    /// The images in this folder, which may be made later.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), keep_free_bytes: 0, manifests: Mutex::default() }
    }

    /// The same on a disk of which the server needs so much for itself: no import takes that.
    #[must_use]
    pub fn keeping_free(self, keep_free_bytes: u64) -> Self {
        Self { keep_free_bytes, ..self }
    }

    /// What imports leave free on the disk, besides a reserve of their own.
    pub const fn keep_free_bytes(&self) -> u64 {
        self.keep_free_bytes
    }

    /// The images folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a state has a folder, with an image in it that may be offered or not.
    pub fn has_folder(&self, name: &StateName) -> bool {
        !name.is_built_in() && fs::symlink_metadata(self.root.join(name.as_str())).is_ok_and(|found| found.is_dir())
    }

    /// The image that a state boots, looked at now.
    pub fn image(&self, name: &StateName) -> Result<Image, NotOffered> {
        let image = self.stored(name)?;
        if image.manifest.writes.is_order() && image.manifest.device.is_none() {
            return Err(NotOffered::NoDevice(name.clone()));
        }
        Ok(image)
    }

    /// The same, whether or not it says which disk it writes.
    pub fn stored(&self, name: &StateName) -> Result<Image, NotOffered> {
        if name.is_built_in() {
            return Err(NotOffered::BuiltIn(name.clone()));
        }
        let folder = self.root.join(name.as_str());
        match fs::symlink_metadata(&folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(NotOffered::NotAFolder(name.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotOffered::NoFolder(name.clone())),
            Err(error) => return Err(NotOffered::Unreadable { name: name.clone(), error }),
        }
        let manifest = self.manifest(name, &folder)?;
        let needed = manifest.needed_files();
        let is_there = |file: &&FileName| fs::symlink_metadata(folder.join(file.as_str())).is_ok();
        // One file that is not there may as well be a name that is wrong.
        if needed.len() > 1 && !needed.iter().any(is_there) {
            return Err(NotOffered::NotBuilt(name.clone()));
        }
        let (payload, size_bytes) = check_whole(name, &folder, &manifest)?;
        Ok(Image { name: name.clone(), folder, manifest, payload, size_bytes })
    }

    /// Every folder, by name, with its image or why it is not offered. No images folder means no images.
    pub fn list(&self) -> io::Result<Vec<(String, Result<Image, NotOffered>)>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut images = Vec::new();
        for entry in entries {
            let entry = entry?;
            let folder = entry.file_name().to_string_lossy().into_owned();
            // Loose files, such as a README, are no images; hidden folders are imports under way; and a file system of its own
            // has a folder of its own.
            if folder.starts_with('.') || folder == "lost+found" || entry.file_type()?.is_file() {
                continue;
            }
            let image = match folder.parse::<StateName>() {
                Ok(name) => self.image(&name),
                Err(_) => Err(NotOffered::FolderName(folder.clone())),
            };
            images.push((folder, image));
        }
        images.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(images)
    }

    fn manifest(&self, name: &StateName, folder: &Path) -> Result<Arc<Manifest>, NotOffered> {
        let path = folder.join(FileName::MANIFEST);
        let unreadable = |error: io::Error| NotOffered::Unreadable { name: name.clone(), error };
        let stamp = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => Stamp::of(&found),
            Ok(_) => return Err(NotOffered::NotText(name.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotOffered::NoManifest(name.clone())),
            Err(error) => return Err(unreadable(error)),
        };
        let known = self.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((known_stamp, manifest)) = known
            && known_stamp == stamp
        {
            return Ok(manifest);
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(unreadable)?;
        file.take(Self::LONGEST_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| NotOffered::NotText(name.clone()))?;
        if text.len() as u64 > Self::LONGEST_MANIFEST_BYTES {
            return Err(NotOffered::NotText(name.clone()));
        }
        let manifest = Manifest::parse(&text).map_err(|error| NotOffered::BadManifest { name: name.clone(), error })?;
        let manifest = Arc::new(manifest);
        let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        manifests.insert(name.clone(), (stamp, Arc::clone(&manifest)));
        Ok(manifest)
    }
}

/// The payload, and the size of all files together.
fn check_whole(name: &StateName, folder: &Path, manifest: &Manifest) -> Result<(Option<Payload>, u64), NotOffered> {
    let mut payload = None;
    let mut size_bytes: u64 = 0;
    for file in manifest.needed_files() {
        let found_bytes = match fs::symlink_metadata(folder.join(file.as_str())) {
            Ok(found) if found.is_file() => found.len(),
            Ok(_) => return Err(NotOffered::MissingFile { name: name.clone(), file: file.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NotOffered::MissingFile { name: name.clone(), file: file.clone() });
            }
            Err(error) => return Err(NotOffered::Unreadable { name: name.clone(), error }),
        };
        size_bytes = size_bytes.saturating_add(found_bytes);
        let expected_bytes = manifest.files.iter().find(|record| record.name == *file).map(|record| record.size_bytes);
        if let Some(expected_bytes) = expected_bytes
            && expected_bytes != found_bytes
        {
            return Err(NotOffered::WrongSize { name: name.clone(), file: file.clone(), found_bytes, expected_bytes });
        }
        if manifest.payload.as_ref() == Some(file) {
            if found_bytes == 0 {
                return Err(NotOffered::EmptyPayload { name: name.clone(), file: file.clone() });
            }
            payload = Some(Payload { name: file.clone(), size_bytes: found_bytes });
        }
    }
    Ok((payload, size_bytes))
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: (metadata.ctime(), metadata.ctime_nsec()),
            size_bytes: metadata.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    fn image_folder(root: &TempDir, name: &str, manifest: &str) -> PathBuf {
        let folder = root.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("image.toml"), manifest).unwrap();
        fs::write(folder.join("vmlinuz"), "kernel").unwrap();
        folder
    }

    fn reason(catalogue: &Catalogue, name: &str) -> String {
        catalogue.image(&name.parse().unwrap()).unwrap_err().to_string()
    }

    const LINUX: &str = "kind = \"linux\"\nkernel = \"vmlinuz\"\nwrites = \"nothing\"\n";

    #[test]
    fn each_thing_that_is_wrong_is_one_sentence() {
        let root = TempDir::new().unwrap();
        let catalogue = Catalogue::new(root.path());
        fs::create_dir(root.path().join("bare")).unwrap();
        image_folder(&root, "typo", "kind = \"linux\"\nkernel = \"vmlinuz\"\nwrite = \"disk\"\n");
        image_folder(&root, "anydisk", &LINUX.replace("nothing", "disk"));
        image_folder(&root, "nokernel", &LINUX.replace("vmlinuz", "other"));
        let sized = format!("{LINUX}[[file]]\nname = \"vmlinuz\"\nsize = 7\nsha256 = \"{}\"\n", "0".repeat(64));
        image_folder(&root, "short", &sized);
        let empty = image_folder(&root, "empty", &format!("{}device = \"first\"\n", LINUX.replace("nothing", "disk")));
        fs::write(empty.join("vmlinuz"), "").unwrap();
        let linked = image_folder(&root, "linked", LINUX);
        symlink(&linked, root.path().join("link")).unwrap();
        fs::remove_file(linked.join("vmlinuz")).unwrap();
        symlink("/etc/passwd", linked.join("vmlinuz")).unwrap();

        assert_eq!(reason(&catalogue, "finished"), "the state finished is built in and boots no image");
        assert_eq!(reason(&catalogue, "nothere"), "there is no image nothere");
        assert_eq!(reason(&catalogue, "bare"), "the image bare has no image.toml");
        assert_eq!(
            reason(&catalogue, "typo"),
            "the image typo has a wrong image.toml: it has the unknown key `write`: is `writes` meant?"
        );
        assert!(reason(&catalogue, "anydisk").starts_with("the image anydisk writes a disk and does not say which"));
        assert_eq!(
            reason(&catalogue, "nokernel"),
            "the image nokernel is not whole: other is missing, or no plain file"
        );
        assert_eq!(reason(&catalogue, "short"), "the image short is not whole: vmlinuz has 6 bytes and should have 7");
        assert_eq!(reason(&catalogue, "empty"), "the image empty is not whole: vmlinuz is empty");
        assert_eq!(reason(&catalogue, "linked"), "the image linked is not whole: vmlinuz is missing, or no plain file");
        assert_eq!(reason(&catalogue, "link"), "the image link is no folder (links are not followed)");
    }

    #[test]
    fn one_broken_image_hides_no_other() {
        let root = TempDir::new().unwrap();
        image_folder(&root, "broken", "kind = ");
        image_folder(&root, "good", LINUX);
        image_folder(&root, "two words", LINUX);
        fs::write(root.path().join("README.md"), "").unwrap();
        fs::create_dir(root.path().join(".import-x")).unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        let list = Catalogue::new(root.path()).list().unwrap();
        let catalogue = Catalogue::new(root.path());
        assert!(catalogue.has_folder(&"broken".parse().unwrap()) && !catalogue.has_folder(&"none".parse().unwrap()));
        let offered: Vec<_> = list.iter().map(|(folder, image)| (folder.as_str(), image.is_ok())).collect();
        assert_eq!(offered, [("broken", false), ("good", true), ("two words", false)]);
        assert!(Catalogue::new(root.path().join("none")).list().unwrap().is_empty());
    }

    #[test]
    fn a_changed_manifest_is_read_again() {
        let root = TempDir::new().unwrap();
        let folder = image_folder(&root, "image1", LINUX);
        let catalogue = Catalogue::new(root.path());
        let name = "image1".parse().unwrap();
        let first = catalogue.image(&name).unwrap();
        assert!(Arc::ptr_eq(&first.manifest, &catalogue.image(&name).unwrap().manifest));
        let changed = format!("{}device = \"smallest\"\n", LINUX.replace("nothing", "wipe"));
        fs::write(folder.join("image.toml"), changed).unwrap();
        let second = catalogue.image(&name).unwrap();
        assert_eq!(second.manifest.device, Some(DevicePolicy::Smallest));
        assert_eq!(second.payload, Some(Payload { name: "vmlinuz".parse().unwrap(), size_bytes: 6 }));
        fs::remove_file(folder.join("image.toml")).unwrap();
        assert!(matches!(catalogue.image(&name), Err(NotOffered::NoManifest(_))));
    }
}
