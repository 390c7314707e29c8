//! Bringing a backup into an empty backend.
use std::{collections::BTreeSet, collections::VecDeque, future::Future, io::Read, pin::Pin};

use super::{About, BackupError, format::Reader};
use crate::store::{
    StoreError,
    kv::{Backend, Commit, Key, Kv, KvError, MAX_OPS, Op, Outcome},
};

/// Bytes of one commit, roughly.
const BATCH_BYTES: usize = 256 << 10;
/// Commits that wait for the disk together.
const IN_FLIGHT: usize = 16;

/// Why a backup was not brought in.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is no good.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The new store could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Committing<'a> = Pin<Box<dyn Future<Output = Result<Outcome, KvError>> + Send + 'a>>;

/// Commits on their way to the disk, in order.
struct Pipeline<'a> {
    kv: &'a Backend,
    batch: Commit,
    keys: BTreeSet<Key>,
    bytes: usize,
    waiting: VecDeque<Committing<'a>>,
}

/// Applies every record in order. `progress` is told how many bytes of the backup were read.
pub(in crate::store) async fn load<R: Read>(
    kv: &Backend,
    mut from: Reader<R>,
    mut progress: impl FnMut(u64),
) -> Result<About, LoadError> {
    let mut pipeline =
        Pipeline { kv, batch: Commit::default(), keys: BTreeSet::new(), bytes: 0, waiting: VecDeque::new() };
    while let Some(op) = from.record()? {
        progress(from.bytes());
        pipeline.add(op).await?;
    }
    pipeline.send().await?;
    pipeline.wait(0).await?;
    Ok(from.about().clone())
}

impl Pipeline<'_> {
    async fn add(&mut self, op: Op) -> Result<(), StoreError> {
        let bytes = op.key().as_bytes().len()
            + match &op {
                Op::Put(_, value) => value.len(),
                Op::Delete(_) => 0,
            };
        let is_full = self.batch.ops.len() >= MAX_OPS || self.bytes + bytes > BATCH_BYTES;
        // A key may change twice, but not within one commit.
        if (is_full && !self.batch.ops.is_empty()) || self.keys.contains(op.key()) {
            self.send().await?;
        }
        self.bytes += bytes;
        self.keys.insert(op.key().clone());
        self.batch.ops.push(op);
        Ok(())
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        if self.batch.ops.is_empty() {
            return Ok(());
        }
        self.keys.clear();
        self.bytes = 0;
        let mut committing: Committing<'_> = Box::pin(self.kv.commit(std::mem::take(&mut self.batch)));
        // Handed over now, so that commits are applied in this order.
        match futures_util::poll!(&mut committing) {
            std::task::Poll::Ready(done) => drop(done.map_err(StoreError::from)?),
            std::task::Poll::Pending => self.waiting.push_back(committing),
        }
        self.wait(IN_FLIGHT).await
    }

    /// Waits until no more than so many commits are under way.
    async fn wait(&mut self, most: usize) -> Result<(), StoreError> {
        while self.waiting.len() > most
            && let Some(oldest) = self.waiting.pop_front()
        {
            oldest.await?;
        }
        Ok(())
    }
}
