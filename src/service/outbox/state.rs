//! What an operator sees of the outbox.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::{OutboxError, lock};
use crate::domain::HostId;
use crate::hooks::Hook;
use crate::service::Service;

/// What a plugin's dispatcher does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: the plugin is not bound to events, or the server is starting.
    #[default]
    Stopped,
    /// It tells events as they happen.
    Following,
    /// It reads timelines, as events were missed live.
    CatchingUp,
    /// It waits; nothing is lost meanwhile.
    Waiting {
        /// What for.
        why: String,
    },
}

/// One plugin's outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxState {
    /// The plugin's instance name.
    pub plugin: String,
    /// What its dispatcher does.
    pub mode: Mode,
    /// The store's commit up to which events are done with; none before the first.
    pub position: Option<u64>,
    /// Events that happened since, wanted or not; none if they are too many to be counted.
    pub behind: Option<u64>,
    /// Hosts whose events wait for another attempt, in the order of their numbers.
    pub parked: Vec<ParkedHost>,
    /// How many events could not be told.
    pub dead_letters: u64,
    /// Events that had left their timeline before they could be told, or cannot be read, since the server started.
    pub lost: u64,
}

/// A host whose events wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedHost {
    /// Which one.
    pub host: HostId,
    /// The first event that is not done.
    pub from_seq: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next.
    pub next_at: Timestamp,
    /// Since when it waits.
    pub since: Timestamp,
    /// Why: the newest attempt's error.
    pub why: String,
}

impl Service {
    /// The outbox of every plugin that is told of events, or was: in the order of their names.
    pub async fn outbox_state(&self) -> Result<Vec<OutboxState>, OutboxError> {
        let mut plugins = self.store.outbox_plugins().await?;
        let hooks = self.hooks();
        plugins.extend(hooks.asked(Hook::Events).map(|binding| binding.plugin.name().to_owned()));
        plugins.sort();
        plugins.dedup();
        let mut states = Vec::with_capacity(plugins.len());
        for plugin in plugins {
            states.push(self.outbox_of(plugin).await?);
        }
        Ok(states)
    }

    async fn outbox_of(&self, plugin: String) -> Result<OutboxState, OutboxError> {
        let desk = self.outbox.desk(&plugin);
        let parked = self.store.parked_hosts(&plugin).await?;
        let written = self.store.outbox_cursor(&plugin).await?;
        let cursor = lock(&desk.position).or(written);
        let behind = match cursor {
            Some(cursor) if cursor.catch_up.is_none() => self.store.events_since(cursor.revision).await,
            Some(_) | None => None,
        };
        let mode = lock(&desk.mode).clone();
        Ok(OutboxState {
            mode,
            position: cursor.map(|cursor| cursor.revision.get()),
            behind,
            parked: parked
                .into_iter()
                .map(|(host, parked)| ParkedHost {
                    host,
                    from_seq: parked.from_seq,
                    attempts: parked.attempts,
                    next_at: parked.next_at,
                    since: parked.since,
                    why: parked.error,
                })
                .collect(),
            dead_letters: self.store.count_dead_letters(&plugin).await?,
            lost: desk.lost.load(Ordering::Relaxed),
            plugin,
        })
    }
}
