//! Finds files in an ISO9660 file system, and trusts it with nothing.
//!
//! Invariant: whatever the bytes are, a look-up ends after a bounded number of bounded reads, and a file that is found
//! lies within the source. Files are looked up by paths that the caller knows, so no name of the file system becomes a
//! path outside, and folders that lead in circles are never followed.
//!
//! Only the primary tree is read (ECMA-119), not Joliet's or Rock Ridge's: what KIWI's live ISOs hold fits its names, which
//! are compared without case, version and final dot.

use std::io::{self, Read, Seek, SeekFrom};

/// The unit of all addresses.
const SECTOR_BYTES: u64 = 2048;
/// Where the descriptors begin; what is before them belongs to boot loaders.
const FIRST_DESCRIPTOR: u64 = 16;
/// There are three or four.
const MOST_DESCRIPTORS: u64 = 32;
/// A folder of an honest ISO has a few kilobytes.
const MOST_FOLDER_BYTES: u64 = 1 << 20;
const IDENTIFIER: &[u8] = b"CD001";

/// How much of a file [`is_iso`] wants to see.
pub(super) const BEGINNING_BYTES: u64 = (FIRST_DESCRIPTOR + 1) * SECTOR_BYTES;

/// Why something is not read as an ISO9660 file system.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    /// It ends before its end.
    #[error("the ISO is truncated: it has {found_bytes} of at least {expected_bytes} bytes")]
    Truncated {
        /// Its size in bytes.
        found_bytes: u64,
        /// What its descriptor says, in bytes.
        expected_bytes: u64,
    },
    /// It contradicts itself.
    #[error("the ISO is damaged: {0}")]
    Damaged(&'static str),
    /// It could not be read.
    #[error("the ISO could not be read: {0}")]
    Read(io::Error),
}

impl From<io::Error> for IsoError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Whether a file with this beginning is an ISO9660 file system, unless it is an archive: its first 32 KiB may be anything.
pub(super) fn is_iso(beginning: &[u8]) -> bool {
    let at = usize::try_from(FIRST_DESCRIPTOR * SECTOR_BYTES).unwrap_or(usize::MAX);
    beginning.get(at + 1..at + 6) == Some(IDENTIFIER)
}

/// An ISO9660 file system.
pub(super) struct Iso<R> {
    source: R,
    length_bytes: u64,
    root: Record,
}

/// Where a file or folder lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    offset_bytes: u64,
    size_bytes: u64,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    name: Vec<u8>,
    pub(super) is_folder: bool,
    extent: Extent,
    /// Whether the file goes on in the next record: it has more than 4 GiB.
    goes_on: bool,
}

impl<R: Read + Seek> Iso<R> {
    /// Reads the descriptors of a file system that fills the source.
    pub(super) fn open(mut source: R) -> Result<Self, IsoError> {
        let length_bytes = source.seek(SeekFrom::End(0))?;
        for sector in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MOST_DESCRIPTORS {
            let place = Extent { offset_bytes: sector * SECTOR_BYTES, size_bytes: SECTOR_BYTES };
            let descriptor = read_at(&mut source, place)?;
            if (descriptor.len() as u64) < SECTOR_BYTES {
                return Err(IsoError::Truncated {
                    found_bytes: length_bytes,
                    expected_bytes: place.offset_bytes + SECTOR_BYTES,
                });
            }
            if descriptor.get(1..6) != Some(IDENTIFIER) {
                return Err(IsoError::Damaged("its descriptors do not end"));
            }
            match descriptor.first() {
                Some(1) => return Self::of_descriptor(source, length_bytes, &descriptor),
                Some(255) => break,
                Some(_) | None => {}
            }
        }
        Err(IsoError::Damaged("it has no primary descriptor"))
    }

    fn of_descriptor(source: R, length_bytes: u64, descriptor: &[u8]) -> Result<Self, IsoError> {
        let short = IsoError::Damaged("its primary descriptor is cut short");
        let sector_bytes = descriptor.get(128..130).and_then(|bytes| Some(u16::from_le_bytes(*bytes.first_chunk()?)));
        if sector_bytes.map(u64::from) != Some(SECTOR_BYTES) {
            return Err(IsoError::Damaged("its sectors have not 2048 bytes"));
        }
        let Some(volume) = number(descriptor, 80) else { return Err(short) };
        let expected_bytes = volume * SECTOR_BYTES;
        if expected_bytes > length_bytes {
            return Err(IsoError::Truncated { found_bytes: length_bytes, expected_bytes });
        }
        let Some(root) = descriptor.get(156..190) else { return Err(short) };
        let root = Record::parse(root, length_bytes)?;
        if !root.is_folder {
            return Err(IsoError::Damaged("its root is no folder"));
        }
        Ok(Self { source, length_bytes, root })
    }

    /// The entry at a path of names below the root; `None` if there is none.
    pub(super) fn find(&mut self, path: &[&str]) -> Result<Option<Record>, IsoError> {
        let root = self.root.clone();
        self.find_in(&root, path)
    }

    /// The same below a folder.
    pub(super) fn find_in(&mut self, folder: &Record, path: &[&str]) -> Result<Option<Record>, IsoError> {
        let mut found = folder.clone();
        for name in path {
            if !found.is_folder {
                return Ok(None);
            }
            let entries = self.entries(&found)?;
            let Some(entry) = entries.into_iter().find(|entry| entry.is_called(name)) else { return Ok(None) };
            found = entry;
        }
        Ok(Some(found))
    }

    /// What is in a folder, besides itself and the one above it. A file of several extents is one entry with them all.
    pub(super) fn entries(&mut self, folder: &Record) -> Result<Vec<Record>, IsoError> {
        if folder.extent.size_bytes > MOST_FOLDER_BYTES {
            return Err(IsoError::Damaged("a folder of it has more than 1 MiB"));
        }
        let bytes = read_at(&mut self.source, folder.extent)?;
        let mut entries: Vec<Record> = Vec::new();
        for sector in bytes.chunks(usize::try_from(SECTOR_BYTES).unwrap_or(usize::MAX)) {
            let mut rest = sector;
            // A length of zero ends the sector, as no record crosses into the next.
            while let Some(length) = rest.first().map(|length| usize::from(*length)).filter(|length| *length > 0) {
                let Some((record, behind)) = rest.split_at_checked(length) else {
                    return Err(IsoError::Damaged("an entry of a folder leaves its sector"));
                };
                rest = behind;
                let record = Record::parse(record, self.length_bytes)?;
                match entries.last_mut() {
                    Some(before) if before.goes_on => before.continue_with(&record)?,
                    Some(_) | None if matches!(record.name.as_slice(), [0 | 1]) => {}
                    Some(_) | None => entries.push(record),
                }
            }
        }
        match entries.last() {
            Some(last) if last.goes_on => Err(IsoError::Damaged("a file of it does not end")),
            Some(_) | None => Ok(entries),
        }
    }

    /// The bytes of a file of one extent.
    pub(super) fn open_file(&mut self, file: &Record) -> Result<impl Read, IsoError> {
        self.source.seek(SeekFrom::Start(file.extent.offset_bytes))?;
        Ok((&mut self.source).take(file.extent.size_bytes))
    }
}

impl Extent {
    /// A part of it, if it is one.
    fn part(self, offset_bytes: u64, size_bytes: u64) -> Result<Self, IsoError> {
        match offset_bytes.checked_add(size_bytes) {
            Some(end) if end <= self.size_bytes => {
                Ok(Self { offset_bytes: self.offset_bytes + offset_bytes, size_bytes })
            }
            Some(_) | None => Err(IsoError::Damaged("it speaks of data behind its end")),
        }
    }
}

impl Record {
    /// Reads an entry of a folder, of a source of this length.
    fn parse(bytes: &[u8], length_bytes: u64) -> Result<Self, IsoError> {
        let damaged = || IsoError::Damaged("an entry of a folder is cut short");
        let byte = |at: usize| bytes.get(at).copied().ok_or_else(damaged);
        let attributes = u64::from(byte(1)?);
        let first = number(bytes, 2).ok_or_else(damaged)?;
        let size_bytes = number(bytes, 10).ok_or_else(damaged)?;
        let flags = byte(25)?;
        if byte(26)? != 0 || byte(27)? != 0 {
            return Err(IsoError::Damaged("a file of it is interleaved, which no KIWI image is"));
        }
        let name_end = 33 + usize::from(byte(32)?);
        let name = bytes.get(33..name_end).ok_or_else(damaged)?.to_vec();
        let whole = Extent { offset_bytes: 0, size_bytes: length_bytes };
        // An empty file may lie anywhere.
        let offset_bytes = if size_bytes == 0 { 0 } else { (first + attributes) * SECTOR_BYTES };
        let extent = whole.part(offset_bytes, size_bytes)?;
        Ok(Self { name, is_folder: flags & 2 != 0, extent, goes_on: flags & 0x80 != 0 })
    }

    /// Its size in bytes, over all extents.
    pub(super) fn size_bytes(&self) -> u64 {
        self.extent.size_bytes
    }

    fn is_called(&self, name: &str) -> bool {
        let own = self.name.split(|byte| *byte == b';').next().unwrap_or_default();
        own.strip_suffix(b".").unwrap_or(own).eq_ignore_ascii_case(name.as_bytes())
    }

    /// The name as it can be shown.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).chars().filter(|c| !c.is_control()).take(40).collect()
    }

    /// Extents of one file have one name and lie one behind the other.
    fn continue_with(&mut self, next: &Self) -> Result<(), IsoError> {
        let end_bytes = self.extent.offset_bytes + self.extent.size_bytes;
        if next.name != self.name || next.extent.offset_bytes != end_bytes {
            return Err(IsoError::Damaged("the parts of a file of it do not fit together"));
        }
        self.extent.size_bytes += next.extent.size_bytes;
        self.goes_on = next.goes_on;
        Ok(())
    }
}

/// The little-endian half of a number that is written in both orders.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from(u32::from_le_bytes(*bytes)))
}

fn read_at(source: &mut (impl Read + Seek), extent: Extent) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.seek(SeekFrom::Start(extent.offset_bytes))?;
    source.take(extent.size_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}
