//! Events as they are committed, for those who follow them live, and their places in the history of the whole store.
//!
//! Invariant: an event is seen here only after it is durable, in the order of commits, and each once.
use std::{collections::VecDeque, fmt, num::ParseIntError, str::FromStr};

use super::{
    keys,
    kv::{Op, Revision},
    record::{self, RecordError},
    watch::{Change, ChangeStream, WatchError},
};
use crate::domain::{Event, HostId};

/// The random name of one store. A restored one has another, so that no position in the old history is taken for one in
/// the new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

impl Generation {
    pub(super) const fn new(random: u64) -> Self {
        Self(random)
    }

    pub(super) const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where an event stands among all events of all hosts: it is not allocated, but follows from the commit. Written
/// `<generation>-<revision>-<index>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The store that numbered it.
    pub generation: Generation,
    /// The commit.
    pub revision: Revision,
    /// The place within the commit.
    pub index: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.generation, self.revision, self.index)
    }
}

/// The text is no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no position of an event: <generation>-<revision>-<index> is expected")]
pub struct PositionError;

impl From<ParseIntError> for PositionError {
    fn from(_: ParseIntError) -> Self {
        Self
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(PositionError);
        let generation = Generation(u64::from_str_radix(part()?, 16)?);
        Ok(Self { generation, revision: Revision::new(part()?.parse()?), index: part()?.parse()? })
    }
}

/// A committed event and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// To follow from here again later.
    pub position: Position,
    /// What happened.
    pub event: Event,
}

/// An event whose record cannot be read: it is known that it happened, but not what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} of host {host} cannot be read")]
pub struct Unreadable {
    /// Whose.
    pub host: HostId,
    /// Which one.
    pub seq: u64,
    /// The commit that wrote it.
    pub revision: Revision,
    /// What is wrong.
    pub source: RecordError,
}

/// Why an [`EventStream`] does not give the next event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The follower was too slow, or asks for events of long ago or of another store: it reads the hosts anew and
    /// follows from now on.
    #[error("some events are no longer at hand; read the hosts anew")]
    Resync,
    /// The store stopped; everything before that was delivered.
    #[error("the store stopped")]
    Stopped,
    /// The next event cannot be read. It is passed: the stream goes on behind it.
    #[error(transparent)]
    Record(#[from] Unreadable),
}

impl From<WatchError> for StreamError {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Compacted { .. } => Self::Resync,
            WatchError::Stopped => Self::Stopped,
        }
    }
}

/// All events of all hosts, in the order of their commits.
#[derive(Debug)]
pub struct EventStream {
    changes: ChangeStream,
    generation: Generation,
    after: Option<Position>,
    ready: VecDeque<Result<Committed, Unreadable>>,
}

impl EventStream {
    pub(super) fn new(changes: ChangeStream, generation: Generation, after: Option<Position>) -> Self {
        Self { changes, generation, after, ready: VecDeque::new() }
    }

    /// The newest commit of which all events were given out, and with it all commits before.
    pub fn passed(&self) -> Revision {
        match self.ready.front() {
            Some(Ok(Committed { position: Position { revision, .. }, .. }) | Err(Unreadable { revision, .. })) => {
                revision.before()
            }
            None => self.changes.passed(),
        }
    }

    /// Waits for the next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Committed, StreamError> {
        if self.after.is_some_and(|position| position.generation != self.generation) {
            return Err(StreamError::Resync);
        }
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Ok(next?);
            }
            let change = self.changes.next().await?;
            self.unpack(change);
        }
    }

    /// Waits until there is a next event, without taking it. Dropping the future loses nothing.
    pub async fn stirs(&mut self) -> Result<(), StreamError> {
        while self.ready.is_empty() {
            let change = self.changes.next().await?;
            self.unpack(change);
        }
        Ok(())
    }

    fn unpack(&mut self, change: Change) {
        for (index, op) in change.ops {
            let position = Position { generation: self.generation, revision: change.revision, index };
            let was_seen = |after: Position| (after.revision, after.index) >= (position.revision, index);
            // Deletions are events that leave the timeline.
            if let Op::Put(key, value) = op
                && !self.after.is_some_and(was_seen)
                && let Some((host, seq)) = keys::event_place(&key)
            {
                let event = record::decode_event(host, seq, &value);
                let unreadable = |source| Unreadable { host, seq, revision: change.revision, source };
                self.ready.push_back(event.map(|event| Committed { position, event }).map_err(unreadable));
            }
        }
    }
}
