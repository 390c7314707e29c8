//! All persistence. [`Store`] is all that the rest of the program sees: hosts with their indexes and events. Below it
//! stands the seam, `kv`: ordered keys with compare-and-set, over `memory` or `sled`, both held to one suite
//! (`conformance`).
//!
//! Invariant: nothing above the seam sees a write, not even through a read or a live stream, before it would survive a
//! power cut; and nothing that was acknowledged is ever missing without the store refusing to open.
pub mod backup;
mod codec;
#[cfg(test)]
mod conformance;
mod events;
#[cfg(test)]
mod fixtures;
mod fleet;
mod fsck;
mod hosts;
mod keys;
pub mod kv;
pub mod memory;
mod outbox;
mod plugins;
mod progress;
mod quarantine;
mod record;
pub mod restore;
mod retention;
pub mod sled;
pub mod watch;

pub use self::{
    events::{Committed, EventStream, Generation, Position, PositionError, StreamError, Unreadable},
    fsck::{Check, Problem},
    hosts::{Candidates, MAX_IDS_PER_VALUE, OpenError, Store, StoreError, TIMELINE_EVENTS},
    kv::{KvError, Revision, Stopped},
    outbox::{Changed, ChangedPage, EventAt, TimelinePart},
    plugins::{Orders, Written},
    record::{CatchUp, CatchUpStage, DeadLetter, JobOutcome, JobRun, OutboxCursor, Parked, RecordError},
    retention::UNDELIVERED_FOR,
    sled::SledOptions as StoreOptions,
};
