//! Taking a backup of a store that is in use.
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use jiff::Timestamp;

use super::{About, DumpError, format::Writer};
use crate::store::{
    Store, StoreError,
    hosts::SCHEMA,
    keys,
    kv::{Key, Kv, Op, Revision},
    watch::{ChangeStream, WatchError},
};

/// Entries per read. Few, as a commit waits for a read that is under way.
const ENTRIES_PER_READ: u32 = 64;

/// A backup that is being taken: its pieces are asked for one by one, so that it takes no more memory than one of them.
#[derive(Debug)]
pub struct Dump {
    changes: ChangeStream,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin(About),
    /// After which key to go on.
    Entries(Writer, Option<Key>),
    Over,
}

impl Store {
    /// Begins a backup. Changes from now on are in it, too.
    pub fn dump(&self, now: Timestamp) -> Dump {
        let about = About {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            schema: SCHEMA,
            generation: self.generation().to_string(),
            taken_at: now,
        };
        Dump { changes: self.kv.watch(b"", Revision::ZERO), stage: Stage::Begin(about) }
    }
}

impl Dump {
    /// The next piece of the backup of this very store; none after the last. After an error, none.
    pub async fn next(&mut self, store: &Store) -> Result<Option<Bytes>, DumpError> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Begin(about) => {
                let (writer, bytes) = Writer::begin(&about);
                self.stage = Stage::Entries(writer, None);
                Ok(Some(bytes))
            }
            Stage::Entries(mut writer, after) => {
                let page = store.kv.scan(b"", after.as_ref().map(Key::as_bytes), ENTRIES_PER_READ).await;
                let (_, page) = page.map_err(StoreError::from)?;
                let last = page.last().map(|entry| entry.key.clone());
                let is_last = page.len() < ENTRIES_PER_READ as usize;
                let ops: Vec<Op> =
                    page.into_iter().map(|entry| Op::Put(entry.key, entry.value)).filter(belongs).collect();
                let mut bytes = BytesMut::from(writer.ops(&ops).as_ref());
                // After each page: whatever the page has shown of a commit is durable, so the rest of it is at hand now.
                self.follow(&mut writer, &mut bytes)?;
                if is_last {
                    bytes.extend_from_slice(&writer.end());
                } else {
                    self.stage = Stage::Entries(writer, last);
                }
                Ok(Some(bytes.freeze()))
            }
            Stage::Over => Ok(None),
        }
    }

    /// Writes what was changed meanwhile.
    fn follow(&mut self, writer: &mut Writer, bytes: &mut BytesMut) -> Result<(), DumpError> {
        loop {
            match self.changes.next().now_or_never() {
                Some(Ok(change)) => {
                    let ops: Vec<Op> = change.ops.into_iter().map(|(_, op)| op).filter(belongs).collect();
                    bytes.extend_from_slice(&writer.ops(&ops));
                }
                Some(Err(WatchError::Compacted { .. })) => return Err(DumpError::Overrun),
                // Closed: nothing was changed after what is at hand.
                Some(Err(WatchError::Stopped)) | None => return Ok(()),
            }
        }
    }
}

/// Leases are of processes, and the name is of this store alone.
fn belongs(op: &Op) -> bool {
    *op.key() != keys::GENERATION && !op.key().as_bytes().starts_with(keys::LEASES.as_bytes())
}
