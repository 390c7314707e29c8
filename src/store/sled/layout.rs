//! How entries lie in the one sled tree, and the envelope that every record wears.
//!
//! Three key spaces, told apart by the first byte: the head record (revision and number of entries), the entries, and
//! the chunks of large values: sled writes values of about 8 KB and more to files of their own, which it never syncs.
//! Every record is `[schema: u8][revision: u64][crc32c: u32][payload]`, big-endian; the checksum covers the sled key as
//! well, so a record at the wrong place is damage too.
use std::{collections::HashSet, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::kv::{Commit, Corrupt, Entry, Key, Op, Revision};

/// Largest payload of one sled record, in bytes. Seventeen of them, the most that sled keeps on one page, stay below
/// the 128 KiB from which on it writes a page to a file of its own.
const MAX_PAYLOAD_BYTES: usize = 4_000;
const ENVELOPE_BYTES: usize = 1 + 8 + 4;

const HEAD_KEY: &[u8] = b"\x00head";
const ENTRY_SPACE: u8 = 1;
const CHUNK_SPACE: u8 = 2;

/// The payload is the value.
const WHOLE: u8 = 1;
/// The payload is the length of the value (u32), which lies in chunks.
const CHUNKED: u8 = 2;
/// The payload is a part of a value.
const CHUNK: u8 = 3;
/// The payload is the number of entries (u64).
const HEAD: u8 = 4;

/// The record that every commit rewrites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) revision: Revision,
    pub(super) entries: u64,
}

struct Sealed {
    schema: u8,
    revision: Revision,
    payload: Bytes,
}

/// What there is to know of an entry without reading its value.
#[derive(Clone, Copy, Default)]
struct Found {
    revision: Revision,
    exists: bool,
    chunks: u16,
}

pub(super) fn backend_error(error: &::sled::Error) -> Corrupt {
    Corrupt::Backend { cause: Arc::from(error.to_string()) }
}

pub(super) fn head(tree: &::sled::Tree) -> Result<Head, Corrupt> {
    let Some(bytes) = tree.get(HEAD_KEY).map_err(|error| backend_error(&error))? else {
        return Ok(Head::default());
    };
    let damaged = || Corrupt::Envelope { key: displayable(HEAD_KEY) };
    let sealed = unseal(HEAD_KEY, &bytes)?;
    let entries = sealed.payload.first_chunk::<8>().filter(|_| sealed.schema == HEAD).ok_or_else(damaged)?;
    Ok(Head { revision: sealed.revision, entries: u64::from_be_bytes(*entries) })
}

pub(super) fn get(tree: &::sled::Tree, key: &Key) -> Result<Option<Entry>, Corrupt> {
    let at = entry_key(key.as_bytes());
    match tree.get(&at).map_err(|error| backend_error(&error))? {
        Some(bytes) => entry(tree, key.clone(), unseal(&at, &bytes)?).map(Some),
        None => Ok(None),
    }
}

pub(super) fn scan(
    tree: &::sled::Tree,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: u32,
) -> Result<Vec<Entry>, Corrupt> {
    let start = entry_key(after.filter(|after| *after >= prefix).unwrap_or(prefix));
    let prefix = entry_key(prefix);
    let mut entries = Vec::new();
    for record in tree.range(start..) {
        if entries.len() >= limit as usize {
            break;
        }
        let (at, bytes) = record.map_err(|error| backend_error(&error))?;
        let key = at.get(1..).unwrap_or_default();
        if !at.starts_with(&prefix) {
            break;
        }
        if after.is_some_and(|after| key <= after) {
            continue;
        }
        let key = Key::new(key.to_vec()).map_err(|_| Corrupt::ForeignKey)?;
        entries.push(entry(tree, key, unseal(&at, &bytes)?)?);
    }
    Ok(entries)
}

/// Reads everything: every checksum, every chunk, and whether as many entries are there as were written.
pub(super) fn verify(tree: &::sled::Tree) -> Result<(), Corrupt> {
    let expected = head(tree)?.entries;
    let mut found = 0;
    for record in tree {
        let (at, bytes) = record.map_err(|error| backend_error(&error))?;
        let sealed = unseal(&at, &bytes)?;
        match at.split_first() {
            Some((&ENTRY_SPACE, key)) => {
                let key = Key::new(key.to_vec()).map_err(|_| Corrupt::ForeignKey)?;
                entry(tree, key, sealed)?;
                found += 1;
            }
            Some((&CHUNK_SPACE, _)) => {}
            _ if *at == *HEAD_KEY => {}
            _ => return Err(Corrupt::ForeignKey),
        }
    }
    if found == expected { Ok(()) } else { Err(Corrupt::Count { expected, found }) }
}

/// Commits whose guards hold, ready to be applied together: sled takes as long for one as for many.
pub(super) struct Plan {
    batch: ::sled::Batch,
    pub(super) head: Head,
    /// Keys that exist and will not, and by which commit.
    pub(super) deleted: Vec<(Key, Revision)>,
    /// What the tree does not tell yet, as nothing of this is applied.
    changed: HashSet<Key>,
    /// The sum of keys and values, in bytes.
    pub(super) bytes: usize,
}

impl Plan {
    pub(super) fn after(head: Head) -> Self {
        Self { batch: ::sled::Batch::default(), head, deleted: Vec::new(), changed: HashSet::new(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// Whether a commit depends on what is planned: then it can be added only to a later plan.
    pub(super) fn precedes(&self, commit: &Commit) -> bool {
        let mut keys = commit.guards.iter().map(|guard| &guard.key).chain(commit.ops.iter().map(Op::key));
        keys.any(|key| self.changed.contains(key))
    }

    /// Compares the guards with what is there and lays out the records; `Ok(Err)` names the key whose guard does not
    /// hold. Without success nothing is added.
    pub(super) fn add(&mut self, tree: &::sled::Tree, commit: &Commit) -> Result<Result<Revision, Key>, Corrupt> {
        let mut guarded = Vec::with_capacity(commit.guards.len());
        for guard in &commit.guards {
            let found = found(tree, &guard.key)?;
            if found.revision != guard.revision {
                return Ok(Err(guard.key.clone()));
            }
            guarded.push((&guard.key, found));
        }
        let old = |op: &Op| match guarded.iter().find(|(key, _)| *key == op.key()) {
            Some((_, found)) => Ok(*found),
            None => found(tree, op.key()),
        };
        let old = commit.ops.iter().map(old).collect::<Result<Vec<Found>, Corrupt>>()?;
        self.head.revision = self.head.revision.next();
        for (op, old) in commit.ops.iter().zip(old) {
            self.change(op, old);
        }
        Ok(Ok(self.head.revision))
    }

    fn change(&mut self, op: &Op, old: Found) {
        match op {
            Op::Put(key, value) => {
                put(self, key, value, old);
                self.head.entries += u64::from(!old.exists);
                self.bytes += value.len();
            }
            Op::Delete(key) if old.exists => {
                self.batch.remove(entry_key(key.as_bytes()));
                remove_chunks(self, key, 0..old.chunks);
                self.deleted.push((key.clone(), self.head.revision));
                self.head.entries = self.head.entries.saturating_sub(1);
            }
            Op::Delete(_) => {}
        }
        self.bytes += op.key().as_bytes().len();
        self.changed.insert(op.key().clone());
    }

    /// All records, with the head that tells of them.
    pub(super) fn into_batch(mut self) -> ::sled::Batch {
        let record = seal(HEAD_KEY, HEAD, self.head.revision, &self.head.entries.to_be_bytes());
        self.batch.insert(HEAD_KEY, record);
        self.batch
    }
}

fn put(plan: &mut Plan, key: &Key, value: &Bytes, old: Found) {
    let revision = plan.head.revision;
    let at = entry_key(key.as_bytes());
    if value.len() <= MAX_PAYLOAD_BYTES {
        let record = seal(&at, WHOLE, revision, value);
        plan.batch.insert(at, record);
        remove_chunks(plan, key, 0..old.chunks);
        return;
    }
    // The seam bounds values to 1 MiB, so neither conversion saturates.
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    let record = seal(&at, CHUNKED, revision, &length.to_be_bytes());
    plan.batch.insert(at, record);
    for (index, part) in (0..u16::MAX).zip(value.chunks(MAX_PAYLOAD_BYTES)) {
        let at = chunk_key(key.as_bytes(), index);
        let record = seal(&at, CHUNK, revision, part);
        plan.batch.insert(at, record);
    }
    remove_chunks(plan, key, chunk_count(value.len())..old.chunks);
}

fn remove_chunks(plan: &mut Plan, key: &Key, indexes: std::ops::Range<u16>) {
    for index in indexes {
        plan.batch.remove(chunk_key(key.as_bytes(), index));
    }
}

fn found(tree: &::sled::Tree, key: &Key) -> Result<Found, Corrupt> {
    let at = entry_key(key.as_bytes());
    let Some(bytes) = tree.get(&at).map_err(|error| backend_error(&error))? else {
        return Ok(Found::default());
    };
    let sealed = unseal(&at, &bytes)?;
    let chunks = if sealed.schema == CHUNKED { chunk_count(chunked_length(key, &sealed)?) } else { 0 };
    Ok(Found { revision: sealed.revision, exists: true, chunks })
}

/// Puts the value together. Chunks carry the revision of their entry, so parts of two commits never mix.
fn entry(tree: &::sled::Tree, key: Key, sealed: Sealed) -> Result<Entry, Corrupt> {
    let revision = sealed.revision;
    match sealed.schema {
        WHOLE => {
            return Ok(Entry { key, revision, value: sealed.payload });
        }
        CHUNKED => {}
        _ => return Err(Corrupt::Envelope { key }),
    }
    let length = chunked_length(&key, &sealed)?;
    let mut value = BytesMut::with_capacity(length);
    for index in 0..chunk_count(length) {
        let at = chunk_key(key.as_bytes(), index);
        let bytes = tree.get(&at).map_err(|error| backend_error(&error))?;
        let missing = || Corrupt::Chunk { key: key.clone() };
        let chunk = unseal(&at, &bytes.ok_or_else(missing)?)?;
        if chunk.schema != CHUNK || chunk.revision != revision {
            return Err(missing());
        }
        value.extend_from_slice(&chunk.payload);
    }
    if value.len() == length { Ok(Entry { key, revision, value: value.freeze() }) } else { Err(Corrupt::Chunk { key }) }
}

fn chunked_length(key: &Key, sealed: &Sealed) -> Result<usize, Corrupt> {
    let length = sealed.payload.first_chunk::<4>().ok_or_else(|| Corrupt::Envelope { key: key.clone() })?;
    Ok(u32::from_be_bytes(*length) as usize)
}

fn chunk_count(length: usize) -> u16 {
    u16::try_from(length.div_ceil(MAX_PAYLOAD_BYTES)).unwrap_or(u16::MAX)
}

fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut at = Vec::with_capacity(1 + key.len());
    at.push(ENTRY_SPACE);
    at.extend_from_slice(key);
    at
}

/// The length comes first, so no chunk of one key can be taken for one of another.
fn chunk_key(key: &[u8], index: u16) -> Vec<u8> {
    let mut at = Vec::with_capacity(1 + 2 + key.len() + 2);
    at.put_u8(CHUNK_SPACE);
    at.put_u16(u16::try_from(key.len()).unwrap_or(u16::MAX));
    at.put_slice(key);
    at.put_u16(index);
    at
}

fn seal(at: &[u8], schema: u8, revision: Revision, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    record.put_u8(schema);
    record.put_u64(revision.get());
    record.put_u32(checksum(at, schema, revision, payload));
    record.put_slice(payload);
    record
}

fn unseal(at: &[u8], record: &[u8]) -> Result<Sealed, Corrupt> {
    let envelope = || {
        let (envelope, payload) = record.split_first_chunk::<ENVELOPE_BYTES>()?;
        let [schema, r0, r1, r2, r3, r4, r5, r6, r7, c0, c1, c2, c3] = *envelope;
        let revision = Revision::new(u64::from_be_bytes([r0, r1, r2, r3, r4, r5, r6, r7]));
        Some((schema, revision, u32::from_be_bytes([c0, c1, c2, c3]), payload))
    };
    let Some((schema, revision, sum, payload)) = envelope() else {
        return Err(Corrupt::Envelope { key: displayable(at) });
    };
    if checksum(at, schema, revision, payload) != sum {
        return Err(Corrupt::Checksum { key: displayable(at) });
    }
    Ok(Sealed { schema, revision, payload: Bytes::copy_from_slice(payload) })
}

fn checksum(at: &[u8], schema: u8, revision: Revision, payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c(at);
    let sum = crc32c::crc32c_append(sum, &[schema]);
    let sum = crc32c::crc32c_append(sum, &revision.get().to_be_bytes());
    crc32c::crc32c_append(sum, payload)
}

/// The sled key as it goes into a message: entries without their space.
fn displayable(at: &[u8]) -> Key {
    let shown = at.strip_prefix(&[ENTRY_SPACE]).unwrap_or(at);
    Key::new(shown.to_vec()).unwrap_or_else(|_| Key::from_static(b"?"))
}
