//! The seam between the store and what keeps its bytes: ordered keys with compare-and-set, and nothing more.
//!
//! Every backend promises the same: a commit is atomic and is acknowledged only once it is durable; a read is one
//! linearizable snapshot that shows durable data only; every commit has its own [`Revision`], larger by one than the
//! one before; a key's revision is that of the commit that wrote it last, so a guard can never mistake a re-created key
//! for the old one. Invalid requests are refused alike everywhere, by [`Commit::check`].
use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;

use super::{memory::MemoryKv, sled::SledKv, watch::ChangeStream};

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Largest value in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Largest sum of all keys and values of one commit, in bytes (etcd takes 1.5 MiB with its framing).
pub const MAX_COMMIT_BYTES: usize = 1_400_000;
/// Most operations, and most guards, of one commit (etcd's limit).
pub const MAX_OPS: usize = 128;
/// Most keys of one `get`.
pub const MAX_GET_KEYS: usize = 256;
/// Most entries of one `scan`; a larger limit is cut to this.
pub const MAX_SCAN_ENTRIES: u32 = 1_000;

/// A position in the history of the store. Each commit takes the next one; zero stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before every commit; as a guard: the key must be absent.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number, for encodings.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision of the commit after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The revision of the commit before this one.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key: 1 to [`MAX_KEY_BYTES`] bytes, ordered bytewise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Refuses an empty or over-long key.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, Invalid> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(Invalid::EmptyKey),
            1..=MAX_KEY_BYTES => Ok(Self(bytes)),
            length => Err(Invalid::KeyTooLong { length }),
        }
    }

    /// A short prefix and numbers, so that keys stand in the order of the numbers.
    pub(super) fn numbered(prefix: &'static str, numbers: &[u64]) -> Self {
        let mut bytes = Vec::with_capacity(prefix.len() + 8 * numbers.len());
        bytes.extend_from_slice(prefix.as_bytes());
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Self(bytes.into())
    }

    /// For keys that are written in the program.
    pub(super) const fn from_static(bytes: &'static [u8]) -> Self {
        Self(Bytes::from_static(bytes))
    }

    /// The bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

/// A key with its value and the commit that wrote it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, prefix included.
    pub key: Key,
    /// The commit that wrote it last.
    pub revision: Revision,
    /// What that commit wrote.
    pub value: Bytes,
}

/// What must hold for a commit to happen: the key was last written by exactly this revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The key that is compared.
    pub key: Key,
    /// [`Revision::ZERO`] demands that the key is absent.
    pub revision: Revision,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes the value, whether or not the key exists.
    Put(Key, Bytes),
    /// Removes the key; removing an absent one changes nothing.
    Delete(Key),
}

impl Op {
    /// The key that is changed.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// All of it happens, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Compared first; each key at most once.
    pub guards: Vec<Guard>,
    /// Applied together; each key at most once, at least one.
    pub ops: Vec<Op>,
}

impl Commit {
    /// Adds a guard.
    pub fn guard(&mut self, key: Key, revision: Revision) {
        self.guards.push(Guard { key, revision });
    }

    /// Adds a write.
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>) {
        self.ops.push(Op::Put(key, value.into()));
    }

    /// Adds a removal.
    pub fn delete(&mut self, key: Key) {
        self.ops.push(Op::Delete(key));
    }

    /// The limits of the seam, the same over every backend.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.ops.is_empty() {
            return Err(Invalid::NothingToDo);
        }
        let count = self.ops.len().max(self.guards.len());
        if count > MAX_OPS {
            return Err(Invalid::TooManyOps { count });
        }
        let mut bytes = 0;
        for op in &self.ops {
            let length = match op {
                Op::Put(_, value) => value.len(),
                Op::Delete(_) => 0,
            };
            if length > MAX_VALUE_BYTES {
                return Err(Invalid::ValueTooLarge { key: op.key().clone(), length });
            }
            bytes += length + op.key().as_bytes().len();
        }
        if bytes > MAX_COMMIT_BYTES {
            return Err(Invalid::CommitTooLarge { bytes });
        }
        first_duplicate(self.ops.iter().map(Op::key).collect())?;
        first_duplicate(self.guards.iter().map(|guard| &guard.key).collect())
    }
}

fn first_duplicate(mut keys: Vec<&Key>) -> Result<(), Invalid> {
    keys.sort_unstable();
    for (one, next) in keys.iter().zip(keys.iter().skip(1)) {
        if one == next {
            return Err(Invalid::DuplicateKey { key: (*one).clone() });
        }
    }
    Ok(())
}

/// What became of a commit that was understood and could be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied and durable, at this revision.
    Committed(Revision),
    /// Nothing happened, as the guard on this key did not hold.
    Conflict(Key),
}

/// Why a request was not answered with data or an outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// Nothing was written, and nothing will be.
    #[error("the store takes no requests any more")]
    NotApplied(#[source] Stopped),
    /// The commit may or may not survive. Repeat it with the same guards: a conflict then means that it did.
    #[error("it is not known whether the write is durable")]
    Unknown(#[source] Stopped),
    /// Nothing was written, as the disk is nearly full.
    #[error("the store refuses writes: {free_bytes} bytes are free on its disk, and it keeps {floor_bytes} in reserve")]
    Full {
        /// What is left on the file system.
        free_bytes: u64,
        /// What the store wants to keep, to be able to start again.
        floor_bytes: u64,
    },
    /// What is stored cannot be what was written. Nothing was changed.
    #[error("the stored data is damaged; `kiwispray restore` brings back a backup")]
    Corrupt(#[source] Corrupt),
    /// The request breaks a limit of the seam. Nothing was written.
    #[error("the request is not valid")]
    Invalid(#[from] Invalid),
}

/// Why a backend works no longer. It stays so until the process ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was closed on request.
    #[error("it was closed")]
    Closed,
    /// It failed: whatever it wrote after this point could be lost, so it writes nothing.
    #[error("{doing} failed: {cause}")]
    Failed {
        /// The step that failed, as a noun.
        doing: &'static str,
        /// The text of the whole chain of causes.
        cause: Arc<str>,
    },
}

/// What is wrong with stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// A record that is too short to be one, or of a format that this program does not know.
    #[error("the record of {key} has no readable envelope")]
    Envelope {
        /// Whose record it is.
        key: Key,
    },
    /// The bytes are not the ones that were written.
    #[error("the checksum of {key} is wrong")]
    Checksum {
        /// Whose record it is.
        key: Key,
    },
    /// A part of a large value is missing or of another commit.
    #[error("a part of {key} is missing")]
    Chunk {
        /// Whose record it is.
        key: Key,
    },
    /// A key that this program cannot have written.
    #[error("there is a key that does not belong here")]
    ForeignKey,
    /// The database below found damage by itself, or panicked over it.
    #[error("the database cannot read its files: {cause}")]
    Backend {
        /// Its own words.
        cause: Arc<str>,
    },
    /// Records are missing.
    #[error("{found} records were found where {expected} were written")]
    Count {
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
}

/// A request that breaks a limit of the seam.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A key without bytes.
    #[error("a key is empty")]
    EmptyKey,
    /// A key over [`MAX_KEY_BYTES`].
    #[error("a key has {length} bytes, and at most {MAX_KEY_BYTES} are possible")]
    KeyTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A value over [`MAX_VALUE_BYTES`].
    #[error("the value of {key} has {length} bytes, and at most {MAX_VALUE_BYTES} are possible")]
    ValueTooLarge {
        /// Whose value it is.
        key: Key,
        /// Its length in bytes.
        length: usize,
    },
    /// A commit over [`MAX_COMMIT_BYTES`].
    #[error("a commit has {bytes} bytes, and at most {MAX_COMMIT_BYTES} are possible")]
    CommitTooLarge {
        /// Its keys and values together.
        bytes: usize,
    },
    /// More than [`MAX_OPS`] operations or guards.
    #[error("a commit has {count} operations, and at most {MAX_OPS} are possible")]
    TooManyOps {
        /// Operations or guards, whichever are more.
        count: usize,
    },
    /// More than [`MAX_GET_KEYS`] keys.
    #[error("{count} keys were asked for at once, and at most {MAX_GET_KEYS} are possible")]
    TooManyKeys {
        /// How many were asked for.
        count: usize,
    },
    /// The same key twice among the operations, or among the guards.
    #[error("{key} occurs twice in one commit")]
    DuplicateKey {
        /// Which one.
        key: Key,
    },
    /// A commit without operations.
    #[error("a commit has no operations")]
    NothingToDo,
}

/// What a read returns: the revision as of which all of it was true, and the data.
pub type Snapshot<T> = (Revision, T);

/// The seam itself.
pub trait Kv: Send + Sync {
    /// One linearizable, durable snapshot of the keys, in the order asked for; `None` where there is none.
    fn get(&self, keys: &[Key]) -> impl Future<Output = Result<Snapshot<Vec<Option<Entry>>>, KvError>> + Send;

    /// The first `limit` entries under a prefix in the order of their keys, after `after` (a whole key) if given.
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> impl Future<Output = Result<Snapshot<Vec<Entry>>, KvError>> + Send;

    /// Checks the guards and applies the operations; `Committed` only once they are durable. Once polled to its first
    /// suspension, dropping the future does not take the commit back.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<Outcome, KvError>> + Send;

    /// Every later change under a prefix, from the commit `from` on; see [`ChangeStream`] for what happens if that is
    /// no longer in memory.
    fn watch(&self, prefix: &[u8], from: Revision) -> ChangeStream;
}

/// The backends that there are. An enum, as there are few and a call should cost nothing.
#[derive(Debug)]
pub enum Backend {
    /// For tests and trials: gone with the process.
    Memory(MemoryKv),
    /// One machine, files in one folder.
    Sled(SledKv),
}

impl Kv for Backend {
    async fn get(&self, keys: &[Key]) -> Result<Snapshot<Vec<Option<Entry>>>, KvError> {
        match self {
            Self::Memory(kv) => kv.get(keys).await,
            Self::Sled(kv) => kv.get(keys).await,
        }
    }

    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Snapshot<Vec<Entry>>, KvError> {
        match self {
            Self::Memory(kv) => kv.scan(prefix, after, limit).await,
            Self::Sled(kv) => kv.scan(prefix, after, limit).await,
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        match self {
            Self::Memory(kv) => kv.commit(commit).await,
            Self::Sled(kv) => kv.commit(commit).await,
        }
    }

    fn watch(&self, prefix: &[u8], from: Revision) -> ChangeStream {
        match self {
            Self::Memory(kv) => kv.watch(prefix, from),
            Self::Sled(kv) => kv.watch(prefix, from),
        }
    }
}

impl Backend {
    /// `Ok` while a commit has a chance; the error says why not.
    pub fn writable(&self) -> Result<(), KvError> {
        match self {
            Self::Memory(kv) => kv.writable(),
            Self::Sled(kv) => kv.writable(),
        }
    }

    /// Resolves once the backend works no longer, with the reason.
    pub async fn stopped(&self) -> Stopped {
        match self {
            Self::Memory(kv) => kv.stopped().await,
            Self::Sled(kv) => kv.stopped().await,
        }
    }

    /// Waits for what was submitted, and refuses everything after it. Calling it again is harmless.
    pub async fn close(&self) {
        match self {
            Self::Memory(kv) => kv.close(),
            Self::Sled(kv) => kv.close().await,
        }
    }

    /// Closes, and lets go of the files: another process may open them once this returns. Nothing can be read any more.
    pub async fn release(&self) {
        match self {
            Self::Memory(kv) => kv.close(),
            Self::Sled(kv) => kv.release().await,
        }
    }
}
