//! How far the store is durable, and whether it still works: the one thing that readers, watchers and callers wait for.
//!
//! Invariant: `durable` only grows, and once `stopped` is set it neither changes nor goes away.
use tokio::sync::watch;

use super::kv::{Revision, Stopped};

/// One consistent look at the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    /// The highest revision that survives a power cut, with all before it.
    pub(super) durable: Revision,
    /// Set when nothing more will become durable.
    pub(super) stopped: Option<Stopped>,
}

/// The writing end; backends share it by `Arc`.
#[derive(Debug)]
pub(super) struct Progress {
    mark: watch::Sender<Mark>,
}

impl Progress {
    pub(super) fn new(durable: Revision) -> Self {
        Self { mark: watch::Sender::new(Mark { durable, stopped: None }) }
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark.borrow().clone()
    }

    pub(super) fn durable(&self) -> Revision {
        self.mark.borrow().durable
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Mark> {
        self.mark.subscribe()
    }

    pub(super) fn advance(&self, durable: Revision) {
        self.mark.send_if_modified(|mark| {
            let grows = mark.stopped.is_none() && durable > mark.durable;
            if grows {
                mark.durable = durable;
            }
            grows
        });
    }

    /// The first reason stays.
    pub(super) fn stop(&self, reason: Stopped) {
        self.mark.send_if_modified(|mark| {
            let first = mark.stopped.is_none();
            if first {
                mark.stopped = Some(reason);
            }
            first
        });
    }

    /// Returns the durable revision once it is at least `revision`.
    pub(super) async fn reached(&self, revision: Revision) -> Result<Revision, Stopped> {
        let now = self.durable();
        if now >= revision {
            return Ok(now);
        }
        let mut marks = self.subscribe();
        let mark = marks.wait_for(|mark| mark.durable >= revision || mark.stopped.is_some()).await;
        match mark.as_deref() {
            Ok(Mark { durable, .. }) if *durable >= revision => Ok(*durable),
            Ok(Mark { stopped: Some(reason), .. }) => Err(reason.clone()),
            // The sender lives in `self`, so neither can happen.
            Ok(Mark { stopped: None, .. }) | Err(_) => Err(Stopped::Closed),
        }
    }

    pub(super) async fn stopped(&self) -> Stopped {
        let mut marks = self.subscribe();
        let mark = marks.wait_for(|mark| mark.stopped.is_some()).await;
        mark.ok().and_then(|mark| mark.stopped.clone()).unwrap_or(Stopped::Closed)
    }
}
