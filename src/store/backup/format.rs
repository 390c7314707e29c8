//! How a backup lies in its file: a line that names it, then records `[kind: u8][length: u32][crc32c: u32][payload]`,
//! numbers big-endian. The first record is what the backup says of itself, the last one holds the SHA-256 of all before.
use std::io::{self, BufReader, Read};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{About, BackupError, Contents};
use crate::store::{
    hosts::SCHEMA,
    kv::{Key, MAX_KEY_BYTES, MAX_VALUE_BYTES, Op},
};

const MAGIC: &[u8] = b"kiwispray backup 1\n";
/// What every version begins with.
const FAMILY: &[u8] = b"kiwispray backup ";
const FRAME_BYTES: usize = 1 + 4 + 4;
const MAX_PAYLOAD_BYTES: usize = 2 + MAX_KEY_BYTES + MAX_VALUE_BYTES;

const ABOUT: u8 = b'A';
const PUT: u8 = b'P';
const DELETE: u8 = b'D';
const END: u8 = b'E';

#[derive(Serialize, Deserialize)]
struct End {
    records: u64,
    sha256: String,
}

/// Makes the bytes of a backup.
#[derive(Debug)]
pub(super) struct Writer {
    records: u64,
    sum: Sha256,
}

impl Writer {
    /// The writer and the first bytes.
    pub(super) fn begin(about: &About) -> (Self, Bytes) {
        let mut writer = Self { records: 0, sum: Sha256::new() };
        let mut bytes = BytesMut::from(MAGIC);
        // Plain texts and numbers always are JSON.
        frame(&mut bytes, ABOUT, &serde_json::to_vec(about).unwrap_or_default());
        writer.sum.update(&bytes);
        (writer, bytes.freeze())
    }

    /// The bytes of some changes.
    pub(super) fn ops<'a>(&mut self, ops: impl IntoIterator<Item = &'a Op>) -> Bytes {
        let mut bytes = BytesMut::new();
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    let mut payload = BytesMut::with_capacity(2 + key.as_bytes().len() + value.len());
                    // The seam bounds keys to 512 bytes.
                    payload.put_u16(u16::try_from(key.as_bytes().len()).unwrap_or(u16::MAX));
                    payload.put_slice(key.as_bytes());
                    payload.put_slice(value);
                    frame(&mut bytes, PUT, &payload);
                }
                Op::Delete(key) => frame(&mut bytes, DELETE, key.as_bytes()),
            }
            self.records += 1;
        }
        self.sum.update(&bytes);
        bytes.freeze()
    }

    /// The last bytes.
    pub(super) fn end(self) -> Bytes {
        let end = End { records: self.records, sha256: hex(self.sum) };
        let mut bytes = BytesMut::new();
        frame(&mut bytes, END, &serde_json::to_vec(&end).unwrap_or_default());
        bytes.freeze()
    }
}

fn frame(into: &mut BytesMut, kind: u8, payload: &[u8]) {
    into.put_u8(kind);
    // Payloads are bounded far below.
    into.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    into.put_u32(checksum(kind, payload));
    into.put_slice(payload);
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

fn hex(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One step towards the store that was saved.
pub type Record = Op;

/// Reads a backup, one record at a time.
#[derive(Debug)]
pub struct Reader<R> {
    from: BufReader<R>,
    about: About,
    records: u64,
    bytes: u64,
    sum: Sha256,
}

impl<R: Read> Reader<R> {
    /// Reads what the backup says of itself.
    pub fn open(from: R) -> Result<Self, BackupError> {
        let mut from = BufReader::with_capacity(256 << 10, from);
        let mut magic = Vec::with_capacity(MAGIC.len());
        from.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic.len() < FAMILY.len() && FAMILY.starts_with(&magic) && !magic.is_empty() {
            return Err(BackupError::Truncated);
        }
        if !magic.starts_with(FAMILY) {
            return Err(BackupError::Foreign);
        }
        if magic.len() < MAGIC.len() {
            return Err(BackupError::Truncated);
        }
        if magic != MAGIC {
            let program = String::from_utf8_lossy(magic.get(FAMILY.len()..).unwrap_or_default()).trim().to_owned();
            return Err(BackupError::Newer { program: format!("of format {}", program.escape_debug()) });
        }
        let nothing = About {
            program: String::new(),
            schema: 0,
            generation: String::new(),
            taken_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let mut sum = Sha256::new();
        sum.update(&magic);
        let mut reader = Self { from, about: nothing, records: 0, bytes: magic.len() as u64, sum };
        let (kind, payload) = reader.frame()?;
        let about: Option<About> = serde_json::from_slice(&payload).ok().filter(|_| kind == ABOUT);
        reader.about = about.ok_or(BackupError::Damaged { at: MAGIC.len() as u64 })?;
        if reader.about.schema > SCHEMA {
            return Err(BackupError::Newer { program: reader.about.program });
        }
        Ok(reader)
    }

    /// What the backup says of itself.
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// How many bytes were read.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next record; none after the last, when the whole was found to be what was written.
    pub fn record(&mut self) -> Result<Option<Record>, BackupError> {
        let at = self.bytes;
        let damaged = || BackupError::Damaged { at };
        let before = self.sum.clone();
        let (kind, payload) = self.frame()?;
        let op = match kind {
            PUT => {
                let (length, rest) = payload.split_first_chunk::<2>().ok_or_else(damaged)?;
                let length = usize::from(u16::from_be_bytes(*length));
                let (key, _) = rest.split_at_checked(length).ok_or_else(damaged)?;
                let key = Key::new(key.to_vec()).map_err(|_| damaged())?;
                Op::Put(key, payload.slice(2 + length..))
            }
            DELETE => Op::Delete(Key::new(payload).map_err(|_| damaged())?),
            END => {
                let end: End = serde_json::from_slice(&payload).map_err(|_| damaged())?;
                let is_whole = end.records == self.records && end.sha256 == hex(before) && self.is_at_end()?;
                return if is_whole { Ok(None) } else { Err(damaged()) };
            }
            _ => return Err(damaged()),
        };
        self.records += 1;
        Ok(Some(op))
    }

    /// Reads to the end, and throws away what it reads: is all of it there? `progress` is told how many bytes were read.
    pub fn check(mut self, mut progress: impl FnMut(u64)) -> Result<Contents, BackupError> {
        while self.record()?.is_some() {
            progress(self.bytes);
        }
        Ok(Contents { about: self.about, records: self.records, bytes: self.bytes })
    }

    fn frame(&mut self) -> Result<(u8, Bytes), BackupError> {
        let at = self.bytes;
        let mut frame = [0; FRAME_BYTES];
        self.exactly(&mut frame)?;
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = frame;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD_BYTES {
            return Err(BackupError::Damaged { at });
        }
        let mut payload = vec![0; length];
        self.exactly(&mut payload)?;
        if checksum(kind, &payload) != u32::from_be_bytes([c0, c1, c2, c3]) {
            return Err(BackupError::Damaged { at });
        }
        self.sum.update(frame);
        self.sum.update(&payload);
        Ok((kind, payload.into()))
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        match self.from.read_exact(buffer) {
            Ok(()) => {
                self.bytes += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(BackupError::Truncated),
            Err(error) => Err(error.into()),
        }
    }

    fn is_at_end(&mut self) -> Result<bool, BackupError> {
        Ok(self.from.read(&mut [0])? == 0)
    }
}
