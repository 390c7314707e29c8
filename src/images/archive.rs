//! Reads the members of an install archive, and trusts it with nothing.
//!
//! Invariant: the taker sees each member once, under a name that is one plain path component, as bytes or as a link to
//! another such name; and only an archive with its end mark is read to its end without an error. Nothing is unpacked
//! here, so nothing outside the taker's folder can be touched.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, BufReader, Cursor, Read};
use std::rc::Rc;

use tar::{Archive, Entry};

use super::names::FileName;
use super::payload::XzStreams;

/// One member of an archive.
pub(super) enum Member<'a> {
    /// A file: its size in bytes, and its bytes; fewer of them mean a truncated archive, which is found afterwards.
    File(u64, &'a mut dyn Read),
    /// A link to this name.
    Link(FileName),
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No tar archive, plain or in xz.
    #[error(
        "this is nothing that KIWI built for the network: neither an install archive (tar, or tar in xz) nor a live ISO"
    )]
    NotAnArchive,
    /// The archive ends before its end.
    #[error("the archive is truncated: it ends after {0} bytes")]
    Truncated(u64),
    /// The archive cannot be read on.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// Where the archive comes from failed.
    #[error("the archive could not be read: {0}")]
    Source(io::Error),
    /// A name that is no file's name.
    #[error(
        "the archive holds {0:?}: an install archive has plain names of letters, digits, `.`, `_` and `-`, and no folders"
    )]
    Name(String),
    /// A name that means something to the server.
    #[error("the archive holds {0}, which only the server or its operator may write")]
    Reserved(FileName),
    /// Something that is neither a file nor a link.
    #[error("the archive holds {0} as {1}: an install archive has files only")]
    Kind(FileName, &'static str),
    /// A link that leads out of the archive.
    #[error("the archive holds {0} as a link to {1:?}, which is no file of the archive")]
    Link(FileName, String),
    /// Two members of one name.
    #[error("the archive holds {0} twice")]
    Twice(FileName),
    /// Too many members.
    #[error("the archive holds more than {most} files", most = MOST_MEMBERS)]
    TooMany,
    /// A header that does not end, or data behind the end.
    #[error("the archive is damaged: it has more than {most} bytes between two files, or behind the last", most = BETWEEN_LIMIT_BYTES)]
    Between,
}

impl ArchiveError {
    /// The tar reader quotes names of the archive in its errors.
    fn damaged(error: &io::Error) -> Self {
        Self::Damaged(error.to_string().chars().filter(|c| !c.is_control()).take(200).collect())
    }
}

/// An install archive has eight or nine.
const MOST_MEMBERS: usize = 64;
/// Headers with long names and attributes, which the tar reader keeps in memory; also the padding behind the end.
const BETWEEN_LIMIT_BYTES: u64 = 1 << 20;
/// How much of a file [`is_archive`] wants to see: the header of a tar archive's first member.
pub(super) const HEADER_BYTES: u64 = 512;
const XZ_MAGIC: &[u8] = b"\xFD7zXZ\0";

/// Whether something begins as an install archive does.
pub(super) fn is_archive(beginning: &[u8]) -> bool {
    beginning.starts_with(XZ_MAGIC) || beginning.get(257..262) == Some(b"ustar")
}

/// Hands each member to `take`. `progress` hears after every read how many bytes of the source have been read.
pub(super) fn read_members<E: From<ArchiveError>>(
    mut source: impl Read,
    progress: impl FnMut(u64),
    take: impl FnMut(FileName, Member<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut magic = Vec::new();
    (&mut source).take(XZ_MAGIC.len() as u64).read_to_end(&mut magic).map_err(ArchiveError::Source)?;
    let compressed = magic == XZ_MAGIC;
    let seen = Rc::new(Seen::default());
    let source = Tap { inner: Cursor::new(magic).chain(source), seen: Rc::clone(&seen), progress };
    if compressed {
        let source = BufReader::with_capacity(64 * 1024, source);
        let tar = XzStreams::new(source, 1).map_err(|error| ArchiveError::damaged(&error))?;
        read_tar(tar, &seen, take)
    } else {
        read_tar(source, &seen, take)
    }
}

fn read_tar<E: From<ArchiveError>>(
    tar: impl Read,
    source: &Seen,
    mut take: impl FnMut(FileName, Member<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let bound = Rc::new(Bound { allowance_bytes: Cell::new(BETWEEN_LIMIT_BYTES), ended: Cell::new(false) });
    let mut archive = Archive::new(Bounded { inner: tar, bound: Rc::clone(&bound) });
    let mut names = BTreeSet::new();
    let explain = |error: io::Error, first: bool| {
        if source.failed.get() {
            ArchiveError::Source(error)
        } else if bound.allowance_bytes.get() == 0 {
            ArchiveError::Between
        } else if source.ended.get() && error.kind() == io::ErrorKind::UnexpectedEof || bound.ended.get() {
            ArchiveError::Truncated(source.read_bytes.get())
        } else if first {
            ArchiveError::NotAnArchive
        } else {
            ArchiveError::damaged(&error)
        }
    };
    let mut entries = archive.entries().map_err(|error| explain(error, true))?;
    loop {
        bound.allowance_bytes.set(BETWEEN_LIMIT_BYTES);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|error| explain(error, names.is_empty()))?;
        let Some(name) = member_name(&entry)? else { continue };
        if !name.is_servable() {
            return Err(ArchiveError::Reserved(name).into());
        }
        if names.len() >= MOST_MEMBERS {
            return Err(ArchiveError::TooMany.into());
        }
        if !names.insert(name.clone()) {
            return Err(ArchiveError::Twice(name).into());
        }
        match member_kind(&entry, &name)? {
            Some(target) => take(name, Member::Link(target))?,
            None => {
                let size_bytes = entry.size();
                bound.allowance_bytes.set(size_bytes);
                let mut bytes = Failing::new(entry.by_ref());
                let taken = take(name, Member::File(size_bytes, &mut bytes));
                // The archive's own trouble explains a taker's, who only sees that reading failed.
                if let Some(error) = bytes.error {
                    return Err(explain(error, false).into());
                }
                if bound.ended.get() && bytes.read_bytes < size_bytes {
                    return Err(ArchiveError::Truncated(source.read_bytes.get()).into());
                }
                taken?;
            }
        }
    }
    // The tar reader takes the end of its input for the end of the archive; only the mark of zeros is one.
    if bound.ended.get() {
        return Err(ArchiveError::Truncated(source.read_bytes.get()).into());
    }
    // What follows is padding, and the check sums of an outer xz.
    bound.allowance_bytes.set(BETWEEN_LIMIT_BYTES);
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| explain(error, false))?;
    Ok(())
}

/// The name of a member; `None` for the archive's own folder, which some archives begin with.
fn member_name(entry: &Entry<'_, impl Read>) -> Result<Option<FileName>, ArchiveError> {
    let bytes = entry.path_bytes();
    let refused = || ArchiveError::Name(shortened(&bytes));
    let name = str::from_utf8(&bytes).map_err(|_| refused())?;
    let name = name.strip_prefix("./").unwrap_or(name);
    if entry.header().entry_type().is_dir() && matches!(name, "" | ".") {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|_| refused())
}

/// The target of a link, `None` for a file.
fn member_kind(entry: &Entry<'_, impl Read>, name: &FileName) -> Result<Option<FileName>, ArchiveError> {
    let kind = entry.header().entry_type();
    if kind.is_file() {
        return Ok(None);
    }
    if kind.is_symlink() || kind.is_hard_link() {
        let target = entry.link_name_bytes().unwrap_or_default();
        let refused = || ArchiveError::Link(name.clone(), shortened(&target));
        let text = str::from_utf8(&target).map_err(|_| refused())?;
        let text = text.strip_prefix("./").unwrap_or(text);
        return text.parse().map(Some).map_err(|_| refused());
    }
    let word = if kind.is_dir() {
        "a folder"
    } else if kind.is_character_special() || kind.is_block_special() {
        "a device"
    } else if kind.is_fifo() {
        "a fifo"
    } else if kind.is_gnu_sparse() {
        "a sparse file"
    } else {
        "something unknown"
    };
    Err(ArchiveError::Kind(name.clone(), word))
}

fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(80).collect()
}

/// What happened to the source.
#[derive(Default)]
struct Seen {
    read_bytes: Cell<u64>,
    ended: Cell<bool>,
    failed: Cell<bool>,
}

struct Tap<R, P> {
    inner: R,
    seen: Rc<Seen>,
    progress: P,
}

impl<R: Read, P: FnMut(u64)> Read for Tap<R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer).inspect_err(|error| {
            self.seen.failed.set(error.kind() != io::ErrorKind::Interrupted);
        })?;
        self.seen.ended.set(read == 0 && !buffer.is_empty());
        self.seen.read_bytes.set(self.seen.read_bytes.get() + read as u64);
        (self.progress)(self.seen.read_bytes.get());
        Ok(read)
    }
}

/// How far the tar reader may read, and whether it has met the end of its input.
struct Bound {
    allowance_bytes: Cell<u64>,
    ended: Cell<bool>,
}

struct Bounded<R> {
    inner: R,
    bound: Rc<Bound>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowance_bytes = self.bound.allowance_bytes.get();
        let most = usize::try_from(allowance_bytes).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..most).filter(|part| !part.is_empty()) else {
            return if buffer.is_empty() { Ok(0) } else { Err(io::Error::other("too much data")) };
        };
        let read = self.inner.read(part)?;
        self.bound.ended.set(read == 0);
        self.bound.allowance_bytes.set(allowance_bytes - read as u64);
        Ok(read)
    }
}

/// Remembers the error that the taker of a member met.
pub(super) struct Failing<R> {
    inner: R,
    pub(super) read_bytes: u64,
    pub(super) error: Option<io::Error>,
}

impl<R> Failing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, read_bytes: 0, error: None }
    }
}

impl<R: Read> Read for Failing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Ok(read) => {
                    self.read_bytes += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.error = Some(error);
                    return Err(kind.into());
                }
            }
        }
    }
}
