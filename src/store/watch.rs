//! The newest changes in memory, for those who follow the store live.
//!
//! Invariant: a change enters the ring after it is durable and before the durable revision moves on to it, so nobody
//! sees a change that a power cut could take back, and nobody who waits for the revision misses one. Revisions in the
//! ring are gapless; who asks for older ones is told so and reads the store instead.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    kv::{Op, Revision},
    progress::{Mark, Progress},
};

/// Most commits in the ring.
const MAX_CHANGES: usize = 8_192;
/// Most bytes of keys and values in the ring.
const MAX_RING_BYTES: usize = 16 << 20;

/// What one commit changed under the watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The commit.
    pub revision: Revision,
    /// Each change with its index within the commit; with the revision, a global position that is never allocated.
    pub ops: Vec<(u32, Op)>,
}

/// Why a [`ChangeStream`] gives no more changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The changes asked for are no longer in memory: read the store, then watch from there.
    #[error("changes before revision {oldest} are no longer in memory")]
    Compacted {
        /// The oldest revision that can still be watched from.
        oldest: Revision,
    },
    /// The store stopped; all changes before that were delivered.
    #[error("the store stopped")]
    Stopped,
}

#[derive(Debug)]
struct Committed {
    revision: Revision,
    ops: Vec<Op>,
    bytes: usize,
}

#[derive(Debug)]
struct Inner {
    changes: VecDeque<Arc<Committed>>,
    bytes: usize,
    oldest: Revision,
}

/// The ring. Backends share it by `Arc` with every stream.
#[derive(Debug)]
pub(super) struct Ring {
    inner: Mutex<Inner>,
}

impl Ring {
    /// An empty ring of a store whose last commit was `durable`.
    pub(super) fn new(durable: Revision) -> Self {
        Self { inner: Mutex::new(Inner { changes: VecDeque::new(), bytes: 0, oldest: durable.next() }) }
    }

    /// Call in the order of revisions, each only once durable.
    pub(super) fn push(&self, revision: Revision, ops: Vec<Op>) {
        let bytes = ops.iter().map(op_bytes).sum();
        let mut inner = self.lock();
        inner.bytes += bytes;
        inner.changes.push_back(Arc::new(Committed { revision, ops, bytes }));
        while inner.changes.len() > MAX_CHANGES || inner.bytes > MAX_RING_BYTES {
            let Some(gone) = inner.changes.pop_front() else {
                break;
            };
            inner.bytes -= gone.bytes;
            inner.oldest = gone.revision.next();
        }
    }

    pub(super) fn watch(self: &Arc<Self>, progress: &Progress, prefix: &[u8], from: Revision) -> ChangeStream {
        let marks = progress.subscribe();
        let next = if from == Revision::ZERO { marks.borrow().durable.next() } else { from };
        ChangeStream { ring: Arc::clone(self), marks, prefix: Bytes::copy_from_slice(prefix), next }
    }

    /// The change at `from` or the first one after it.
    fn at(&self, from: Revision) -> Result<Option<Arc<Committed>>, WatchError> {
        let inner = self.lock();
        if from < inner.oldest {
            return Err(WatchError::Compacted { oldest: inner.oldest });
        }
        let index = inner.changes.partition_point(|change| change.revision < from);
        Ok(inner.changes.get(index).map(Arc::clone))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn op_bytes(op: &Op) -> usize {
    let value = match op {
        Op::Put(_, value) => value.len(),
        Op::Delete(_) => 0,
    };
    op.key().as_bytes().len() + value
}

/// Changes under a prefix, in order, each exactly once. Slow readers are not waited for: they get
/// [`WatchError::Compacted`].
#[derive(Debug)]
pub struct ChangeStream {
    ring: Arc<Ring>,
    marks: watch::Receiver<Mark>,
    prefix: Bytes,
    next: Revision,
}

impl ChangeStream {
    /// The newest commit that was looked at, and with it all commits before.
    pub(super) const fn passed(&self) -> Revision {
        self.next.before()
    }

    /// Waits for the next change. Dropping the future loses nothing. After an error, the same error again.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            let stopped = self.marks.borrow_and_update().stopped.is_some();
            while let Some(committed) = self.ring.at(self.next)? {
                self.next = committed.revision.next();
                let ops = self.under_prefix(&committed.ops);
                if !ops.is_empty() {
                    return Ok(Change { revision: committed.revision, ops });
                }
            }
            if stopped || self.marks.changed().await.is_err() {
                return Err(WatchError::Stopped);
            }
        }
    }

    fn under_prefix(&self, ops: &[Op]) -> Vec<(u32, Op)> {
        let indexed = (0u32..).zip(ops);
        indexed
            .filter(|(_, op)| op.key().as_bytes().starts_with(&self.prefix))
            .map(|(index, op)| (index, op.clone()))
            .collect()
    }
}
