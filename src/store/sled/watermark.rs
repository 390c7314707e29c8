//! A file beside the database that remembers the last acknowledged revision, as sled opens a log that lost its tail
//! without an error.
//!
//! Invariant: the watermark is never ahead of what is durable, and behind it by at most the batch that was acknowledged
//! last. Two slots are written in turn and in place, so a torn write costs one of them, and the file never grows.
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use bytes::BufMut;

use crate::store::kv::{Revision, Stopped};

const MAGIC: &[u8; 8] = b"kiwispr1";
/// A slot is a block of its own, so that writing one cannot tear the other.
const SLOT_BYTES: u64 = 4_096;
const RECORD_BYTES: usize = 8 + 8 + 8 + 1 + 4;

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermark {
    /// Every commit up to this one was durable.
    pub(super) revision: Revision,
    /// The store was closed after it: nothing came later.
    pub(super) closed: bool,
}

/// The open file.
#[derive(Debug)]
pub(super) struct WatermarkFile {
    file: File,
    sequence: u64,
}

impl WatermarkFile {
    /// `None` if there is no such file; an error of kind `InvalidData` if neither slot can be read.
    pub(super) fn open(path: &Path) -> io::Result<Option<(Self, Watermark)>> {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let slots = [read_slot(&file, 0)?, read_slot(&file, 1)?];
        let newest = slots.into_iter().flatten().max_by_key(|(sequence, _)| *sequence);
        let (sequence, watermark) = newest.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some((Self { file, sequence }, watermark)))
    }

    /// Makes the file of a new store, whole or not at all.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let unfinished = path.with_extension("new");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        file.write_all_at(&[0; 2 * SLOT_BYTES as usize], 0)?;
        let mut this = Self { file, sequence: 0 };
        this.write(Watermark { revision: Revision::ZERO, closed: false })?;
        this.file.sync_all()?;
        fs::rename(&unfinished, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(this)
    }

    /// Returns once it is on the disk.
    pub(super) fn write(&mut self, watermark: Watermark) -> io::Result<()> {
        self.sequence += 1;
        let mut record = Vec::with_capacity(RECORD_BYTES);
        record.put_slice(MAGIC);
        record.put_u64(self.sequence);
        record.put_u64(watermark.revision.get());
        record.put_u8(u8::from(watermark.closed));
        record.put_u32(crc32c::crc32c(&record));
        self.file.write_all_at(&record, (self.sequence % 2) * SLOT_BYTES)?;
        self.file.sync_data()
    }
}

/// `None` for a slot that was never written, is torn, or is damaged.
fn read_slot(file: &File, index: u64) -> io::Result<Option<(u64, Watermark)>> {
    let mut record = [0; RECORD_BYTES];
    match file.read_exact_at(&mut record, index * SLOT_BYTES) {
        Ok(()) => Ok(parse(&record)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(record: &[u8]) -> Option<(u64, Watermark)> {
    let (body, sum) = record.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (revision, rest) = rest.split_first_chunk::<8>()?;
    let revision = Revision::new(u64::from_be_bytes(*revision));
    Some((u64::from_be_bytes(*sequence), Watermark { revision, closed: rest == [1] }))
}

#[derive(Debug, Default)]
struct State {
    wanted: Revision,
    written: Revision,
    ending: bool,
    failed: Option<Stopped>,
}

/// Hands revisions to the thread that writes them: beside the next batch, or at once when there is none.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    state: Mutex<State>,
    changed: Condvar,
}

impl Pacer {
    pub(super) fn new(written: Revision) -> Self {
        let state = State { wanted: written, written, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Call only once `revision` is durable. Does not wait.
    pub(super) fn advance(&self, revision: Revision) {
        self.lock().wanted = revision;
        self.changed.notify_all();
    }

    /// Waits until everything handed over is on the disk.
    pub(super) fn settled(&self) -> Result<(), Stopped> {
        let waiting = |state: &mut State| state.failed.is_none() && state.written < state.wanted;
        let state = self.changed.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner);
        match &state.failed {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }

    /// The thread ends after what was handed over.
    pub(super) fn end(&self) {
        self.lock().ending = true;
        self.changed.notify_all();
    }

    /// The thread: writes until told to end or until a write fails, and gives the file back.
    pub(super) fn run(&self, mut file: WatermarkFile) -> WatermarkFile {
        loop {
            let idle = |state: &mut State| !state.ending && state.wanted == state.written;
            let state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            let revision = state.wanted;
            if revision == state.written || state.failed.is_some() {
                return file;
            }
            drop(state);
            let result = file.write(Watermark { revision, closed: false });
            let mut state = self.lock();
            match result {
                Ok(()) => state.written = revision,
                Err(error) => {
                    let cause = error.to_string().into();
                    state.failed = Some(Stopped::Failed { doing: "writing the watermark", cause });
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
