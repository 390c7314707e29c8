//! Where a dispatcher's events come from: live, or from the timelines of all hosts that changed since its cursor.
//!
//! Invariant: [`Source::take_in`] gives every event after the cursor at least once, those of one host in order; and
//! [`Source::cursor`] never names a place behind which an event waits that was not given out or is still in the buffer.

use std::collections::VecDeque;

use futures_util::FutureExt as _;

use crate::domain::HostId;
use crate::service::Service;
use crate::store::{
    CatchUp, CatchUpStage, Changed, EventAt, EventStream, OutboxCursor, Revision, Store, StoreError, StreamError,
    Unreadable,
};

/// Events that one call takes in at most.
const TAKEN_AT_ONCE: usize = 512;
/// Events of one host that one read takes.
const PER_READ: u32 = 64;

/// A place in the history of all events.
pub(super) enum Source {
    /// As they are committed.
    Live(EventStream),
    /// From the timelines.
    CatchingUp(Box<Pass>),
}

/// A pass over all hosts.
pub(super) struct Pass {
    since: Revision,
    at: CatchUp,
    page: VecDeque<Changed>,
    /// Where the next page begins; none before the first and after the last.
    next_page: Option<HostId>,
    /// Whether there are no more pages in this stage.
    is_last_page: bool,
    /// The host that is being read, and from which event on.
    reading: Option<(Changed, u64)>,
    /// The last host of which all is read.
    read: Option<HostId>,
}

/// What taking events in came to.
pub(super) enum Taken {
    /// As many as there was room for: there may be more at hand.
    Some,
    /// Everything that is at hand.
    All,
}

impl Source {
    /// Goes on from a cursor; without one, from now.
    pub(super) fn from(store: &Store, cursor: Option<OutboxCursor>) -> Self {
        match cursor {
            None => Self::Live(store.subscribe(None)),
            Some(OutboxCursor { revision, catch_up: Some(at), .. }) => {
                Self::CatchingUp(Box::new(Pass::new(revision, at)))
            }
            Some(OutboxCursor { revision, catch_up: None, .. }) => Self::Live(store.subscribe_after(revision)),
        }
    }

    /// What can be written down while these events wait to be told.
    pub(super) fn cursor(&self, store: &Store, waiting: &VecDeque<EventAt>) -> OutboxCursor {
        let generation = store.generation();
        let first = waiting.front();
        match self {
            Self::Live(stream) => {
                let revision = first.map_or_else(|| stream.passed(), |at| at.revision.before());
                OutboxCursor { generation, revision, catch_up: None }
            }
            Self::CatchingUp(pass) => {
                // Whatever waits or is being read is read again, and with it all of its host.
                let not_done = first.map(|at| at.event.host).or(pass.reading.map(|(changed, _)| changed.host));
                let after = match not_done {
                    Some(host) => Some(HostId::new(host.get().saturating_sub(1))),
                    None => pass.read,
                };
                OutboxCursor { generation, revision: pass.since, catch_up: Some(CatchUp { after, ..pass.at }) }
            }
        }
    }

    pub(super) const fn is_catching_up(&self) -> bool {
        matches!(self, Self::CatchingUp(_))
    }

    /// Puts events that are at hand behind those that wait, up to `most` of them. `wanted` says which, and
    /// hears of those that cannot be read.
    pub(super) async fn take_in(
        &mut self,
        service: &Service,
        waiting: &mut VecDeque<EventAt>,
        most: usize,
        mut wanted: impl FnMut(Result<&EventAt, &Unreadable>) -> bool,
    ) -> Result<Taken, StreamEnded> {
        for _ in 0..TAKEN_AT_ONCE {
            if waiting.len() >= most {
                return Ok(Taken::Some);
            }
            match self {
                Self::Live(stream) => match stream.next().now_or_never() {
                    None => return Ok(Taken::All),
                    Some(Ok(committed)) => {
                        let at = EventAt { event: committed.event, revision: committed.position.revision };
                        if wanted(Ok(&at)) {
                            waiting.push_back(at);
                        }
                    }
                    Some(Err(StreamError::Resync)) => {
                        // What waits was given out live; the pass would give it out again.
                        let since = self.cursor(&service.store, waiting).revision;
                        waiting.clear();
                        *self = Self::CatchingUp(Box::new(Pass::begin(&service.store, since)));
                    }
                    Some(Err(StreamError::Record(lost))) => {
                        wanted(Err(&lost));
                    }
                    Some(Err(error @ StreamError::Stopped)) => return Err(StreamEnded::Live(error)),
                },
                Self::CatchingUp(pass) => match pass.read_on(&service.store, waiting, &mut wanted).await? {
                    PassStep::Read => {}
                    PassStep::AwaitsTelling => return Ok(Taken::Some),
                    PassStep::Over => *self = Self::Live(service.store.subscribe_after(pass.at.until)),
                },
            }
        }
        Ok(Taken::Some)
    }

    /// Resolves when there may be something to take in. Dropping the future loses nothing.
    pub(super) async fn stirs(&mut self) -> Result<(), StreamEnded> {
        match self {
            Self::Live(stream) => match stream.stirs().await {
                Ok(()) | Err(StreamError::Resync | StreamError::Record(_)) => Ok(()),
                Err(error @ StreamError::Stopped) => Err(error.into()),
            },
            Self::CatchingUp(_) => Ok(()),
        }
    }

    /// A host was parked: nothing more of it is read in this pass.
    pub(super) fn leave_out(&mut self, host: HostId) {
        if let Self::CatchingUp(pass) = self
            && pass.reading.is_some_and(|(changed, _)| changed.host == host)
        {
            (pass.reading, pass.read) = (None, Some(host));
        }
    }
}

/// Why a source has no more events.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnded {
    #[error(transparent)]
    Live(#[from] StreamError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a step of a pass came to.
enum PassStep {
    Read,
    /// A stage is read; what waits of it must be told before the next one begins.
    AwaitsTelling,
    Over,
}

impl Pass {
    fn new(since: Revision, at: CatchUp) -> Self {
        Self {
            since,
            at,
            page: VecDeque::new(),
            next_page: at.after,
            is_last_page: false,
            reading: None,
            read: at.after,
        }
    }

    /// Covers everything that is durable now.
    fn begin(store: &Store, since: Revision) -> Self {
        let until = store.subscribe(None).passed();
        Self::new(since, CatchUp { until, stage: CatchUpStage::Known, after: None })
    }

    async fn read_on(
        &mut self,
        store: &Store,
        waiting: &mut VecDeque<EventAt>,
        wanted: &mut impl FnMut(Result<&EventAt, &Unreadable>) -> bool,
    ) -> Result<PassStep, StoreError> {
        if let Some((changed, from_seq)) = self.reading {
            let part = store.events_at(changed.host, from_seq, PER_READ).await?;
            let next = part.last().map(|(seq, _)| seq.saturating_add(1)).filter(|_| !part.is_last);
            let mut goes_on = next;
            for lost in part.unreadable.iter().filter(|lost| lost.revision > self.since) {
                // Beyond the pass, it comes by live.
                if lost.revision <= self.at.until {
                    wanted(Err(lost));
                }
            }
            for at in part.events {
                if at.revision > self.at.until {
                    goes_on = None;
                    break;
                }
                if at.revision > self.since && wanted(Ok(&at)) {
                    waiting.push_back(at);
                }
            }
            self.reading = goes_on.map(|seq| (changed, seq));
            if self.reading.is_none() {
                self.read = Some(changed.host);
            }
        } else if let Some(changed) = self.page.pop_front() {
            let from_seq = store.first_event_after(changed, self.since).await?;
            self.reading = Some((changed, from_seq));
        } else if !self.is_last_page {
            let page = store.changed_hosts(self.at.stage, self.next_page, self.since).await?;
            (self.page, self.next_page, self.is_last_page) = (page.changed.into(), page.next, page.next.is_none());
        } else if !waiting.is_empty() {
            return Ok(PassStep::AwaitsTelling);
        } else if self.at.stage == CatchUpStage::Known {
            *self = Self::new(self.since, CatchUp { stage: CatchUpStage::Forgotten, after: None, ..self.at });
        } else {
            return Ok(PassStep::Over);
        }
        Ok(PassStep::Read)
    }
}
