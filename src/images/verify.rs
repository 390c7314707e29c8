//! Reads a stored image again and compares it with what its import recorded.
//!
//! Invariant: an image is called whole only if every file that it needs was read to its end and has the size and sum that
//! were recorded, and its KIWI payload decompresses to its end. An image that is replaced meanwhile is verified as the old or
//! the new one, never as a mixture: all files are opened before one is read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::catalogue::{Catalogue, Image, NotOffered};
use super::import::{LONGEST_TEXT_BYTES, RAW_LIMIT_BYTES};
use super::kiwi::{Checksum, KiwiError, stem};
use super::manifest::{FileRecord, Kind};
use super::names::{FileName, Sha256Sum};
use super::payload::{PayloadError, RawCheck};
use crate::domain::StateName;

/// What was found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The files that were read.
    pub files: usize,
    /// Their bytes.
    pub size_bytes: u64,
    /// Those of them that no sum was recorded of, as in a manifest that was written by hand.
    pub unrecorded: Vec<FileName>,
}

/// Why an image is not whole, or could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum NotWhole {
    /// A file is missing or has another size, or the manifest is wrong.
    #[error(transparent)]
    NotOffered(#[from] NotOffered),
    /// A file has other bytes than when it was imported.
    #[error("{0} is not as it was imported: its SHA-256 is another")]
    Changed(FileName),
    /// A file changed while it was read.
    #[error("{file} had {found_bytes} of {expected_bytes} bytes when it was read")]
    Length {
        /// The file.
        file: FileName,
        /// The bytes that were read.
        found_bytes: u64,
        /// The bytes that were recorded.
        expected_bytes: u64,
    },
    /// The payload does not decompress.
    #[error("{file}: {error}")]
    Payload {
        /// The payload.
        file: FileName,
        /// What is wrong with it.
        error: PayloadError,
    },
    /// The payload decompresses to something else.
    #[error("{0} does not decompress to what was imported")]
    Raw(FileName),
    /// KIWI's checksum file cannot be read.
    #[error(transparent)]
    Checksum(#[from] KiwiError),
    /// A file cannot be read.
    #[error("{file} cannot be read: {error}")]
    Unreadable {
        /// The file.
        file: FileName,
        /// What the system said.
        error: io::Error,
    },
    /// Whoever asked does not want to know any more.
    #[error("the verification was stopped")]
    Stopped,
}

/// How often an image may be replaced while its files are opened.
const TRIES: usize = 4;
const PIECE_BYTES: usize = 256 * 1024;

/// Verifies an image. Blocks for as long as its files take to be read; `progress` hears how many bytes of how many were
/// read, and may stop it.
pub fn verify(
    catalogue: &Catalogue,
    name: &StateName,
    mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Verified, NotWhole> {
    let (image, files) = open_all(catalogue, name)?;
    let mut verified = Verified { files: 0, size_bytes: 0, unrecorded: Vec::new() };
    for (name, file) in files {
        let record = image.manifest.files.iter().find(|record| record.name == name);
        let before = verified.size_bytes;
        let piece = |read_bytes: u64| progress(before + read_bytes, image.size_bytes);
        verified.size_bytes += verify_file(&image, &name, record, file, piece)?;
        verified.files += 1;
        if record.is_none() {
            verified.unrecorded.push(name);
        }
    }
    Ok(verified)
}

/// An image and all its files, of one moment.
fn open_all(catalogue: &Catalogue, name: &StateName) -> Result<(Image, Vec<(FileName, File)>), NotWhole> {
    let mut image = catalogue.stored(name)?;
    for _ in 0..TRIES {
        let names = image.manifest.needed_files().into_iter();
        let files: Result<Vec<_>, _> =
            names.map(|file| Ok((file.clone(), open(&image.folder, file)?))).collect::<Result<_, NotWhole>>();
        let now = catalogue.stored(name)?;
        if now.manifest == image.manifest {
            return Ok((image, files?));
        }
        image = now;
    }
    Err(NotWhole::Stopped)
}

fn open(folder: &Path, name: &FileName) -> Result<File, NotWhole> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(folder.join(name.as_str()));
    file.map_err(|error| NotWhole::Unreadable { file: name.clone(), error })
}

/// Reads a file to its end and returns its size in bytes.
fn verify_file(
    image: &Image,
    name: &FileName,
    record: Option<&FileRecord>,
    mut file: File,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<u64, NotWhole> {
    let mut raw = RawExpectation::of(image, name, record)?;
    let mut sum = Sha256::new();
    let mut read_bytes = 0;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(NotWhole::Unreadable { file: name.clone(), error }),
        };
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
        // What does not decompress any more still has a sum, which says more.
        if let Some(raw) = &mut raw {
            raw.check.feed(piece);
        }
        sum.update(piece);
        read_bytes += read as u64;
        if progress(read_bytes).is_break() {
            return Err(NotWhole::Stopped);
        }
    }
    if let Some(record) = record {
        if read_bytes != record.size_bytes {
            let (found_bytes, expected_bytes) = (read_bytes, record.size_bytes);
            return Err(NotWhole::Length { file: name.clone(), found_bytes, expected_bytes });
        }
        if Sha256Sum::from(<[u8; 32]>::from(sum.finalize())) != record.sha256 {
            return Err(NotWhole::Changed(name.clone()));
        }
    }
    raw.map_or(Ok(()), |raw| raw.compare(name))?;
    Ok(read_bytes)
}

/// What a KIWI payload must decompress to.
struct RawExpectation {
    check: RawCheck,
    size_bytes: Option<u64>,
    checksum: Option<Checksum>,
}

impl RawExpectation {
    /// `None` for every file that is not decompressed by the installer.
    fn of(image: &Image, name: &FileName, record: Option<&FileRecord>) -> Result<Option<Self>, NotWhole> {
        if image.manifest.kind != Kind::Kiwi || image.manifest.payload.as_ref() != Some(name) {
            return Ok(None);
        }
        let size_bytes = record.and_then(|record| record.raw_size_bytes);
        // Where nothing was recorded, KIWI's own sum is the proof, as it was for the import.
        let checksum = if size_bytes.is_none() { checksum_beside(&image.folder, name)? } else { None };
        let size_bytes = size_bytes.or(checksum.as_ref().map(|checksum| checksum.raw_size_bytes));
        let algorithms: Vec<_> = checksum.iter().map(|checksum| checksum.algorithm).collect();
        let check = RawCheck::start(&algorithms, size_bytes.unwrap_or(RAW_LIMIT_BYTES))
            .map_err(|error| NotWhole::Payload { file: name.clone(), error })?;
        Ok(Some(Self { check, size_bytes, checksum }))
    }

    fn compare(self, name: &FileName) -> Result<(), NotWhole> {
        let sums = self.check.finish().map_err(|error| NotWhole::Payload { file: name.clone(), error })?;
        let same_size = self.size_bytes.is_none_or(|expected| expected == sums.size_bytes);
        let same_sum = self.checksum.is_none_or(|checksum| sums.sum(checksum.algorithm) == Some(&checksum.sum));
        if same_size && same_sum { Ok(()) } else { Err(NotWhole::Raw(name.clone())) }
    }
}

fn checksum_beside(folder: &Path, payload: &FileName) -> Result<Option<Checksum>, NotWhole> {
    for end in ["sha512", "sha256", "md5"] {
        let Ok(name) = format!("{}.{end}", stem(payload)).parse::<FileName>() else { continue };
        match open(folder, &name) {
            Ok(file) => {
                let mut text = Vec::new();
                let read = file.take(LONGEST_TEXT_BYTES).read_to_end(&mut text);
                read.map_err(|error| NotWhole::Unreadable { file: name.clone(), error })?;
                return Ok(Some(Checksum::parse(&name, &text)?));
            }
            Err(NotWhole::Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::import::{Contents, ImportRequest, import};
    use super::*;
    use crate::domain::DevicePolicy;
    use crate::images::KernelArgs;
    use crate::images::test_archive::{kiwi_archive, xz};
    use tempfile::TempDir;

    const RAW: &[u8] = &[7; 100_000];

    fn stored() -> (TempDir, Catalogue) {
        let images = TempDir::new().unwrap();
        let request = ImportRequest {
            name: "image1".parse().unwrap(),
            contents: Contents::Built { file: None },
            device: Some(DevicePolicy::First),
            append: KernelArgs::default(),
            inventory: false,
            replace: false,
            keep_free_bytes: 0,
        };
        import(images.path(), &request, kiwi_archive(RAW).as_slice(), |_| {}).unwrap();
        let catalogue = Catalogue::new(images.path());
        (images, catalogue)
    }

    fn verified(catalogue: &Catalogue) -> Result<Verified, NotWhole> {
        verify(catalogue, &"image1".parse().unwrap(), |_, _| ControlFlow::Continue(()))
    }

    fn change(images: &TempDir, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = images.path().join("image1").join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn an_image_is_whole_as_it_was_imported_and_not_with_one_bit_changed() {
        let (images, catalogue) = stored();
        let mut heard = Vec::new();
        let whole = verify(&catalogue, &"image1".parse().unwrap(), |read_bytes, of_bytes| {
            heard.push((read_bytes, of_bytes));
            ControlFlow::Continue(())
        });
        let size_bytes = catalogue.image(&"image1".parse().unwrap()).unwrap().size_bytes;
        assert_eq!(whole.unwrap(), Verified { files: 8, size_bytes, unrecorded: Vec::new() });
        assert_eq!(heard.last(), Some(&(size_bytes, size_bytes)));
        for file in ["pxeboot.B.initrd", "B.xz", "B.append"] {
            change(&images, file, |bytes| bytes[3] ^= 1);
            assert_eq!(
                verified(&catalogue).unwrap_err().to_string(),
                format!("{file} is not as it was imported: its SHA-256 is another")
            );
            change(&images, file, |bytes| bytes[3] ^= 1);
        }
        change(&images, "B.xz", |bytes| bytes.truncate(20));
        assert!(verified(&catalogue).unwrap_err().to_string().contains("B.xz has 20 bytes and should have"));
        fs::remove_file(images.path().join("image1/B.xz")).unwrap();
        assert!(verified(&catalogue).unwrap_err().to_string().contains("B.xz is missing"));
    }

    #[test]
    fn what_nobody_recorded_is_proved_by_kiwis_own_sum() {
        let (images, catalogue) = stored();
        change(&images, "image.toml", |text| {
            let tables = text.windows(8).position(|bytes| bytes == b"[[file]]").unwrap();
            text.truncate(tables);
        });
        assert_eq!(verified(&catalogue).unwrap().unrecorded.len(), 3);
        change(&images, "B.xz", |bytes| *bytes = xz(&[8; 100_000]));
        assert_eq!(verified(&catalogue).unwrap_err().to_string(), "B.xz does not decompress to what was imported");
        change(&images, "B.xz", |bytes| bytes.truncate(40));
        assert!(verified(&catalogue).unwrap_err().to_string().starts_with("B.xz: the disk image does not decompress"));
    }

    #[test]
    fn an_image_without_a_disk_policy_is_verified_too() {
        let (images, catalogue) = stored();
        change(&images, "image.toml", |text| {
            *text = String::from_utf8_lossy(text).replace("device = \"first\"\n", "").into_bytes();
        });
        assert!(catalogue.image(&"image1".parse().unwrap()).is_err());
        assert!(verified(&catalogue).is_ok());
    }

    #[test]
    fn who_asked_may_go_away() {
        let (_images, catalogue) = stored();
        let stopped = verify(&catalogue, &"image1".parse().unwrap(), |_, _| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(NotWhole::Stopped)));
    }
}
