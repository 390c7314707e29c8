//! What the store keeps for plugins: their own values, and what they may order.
//!
//! Invariant: a value is reached only with the name of the plugin that it belongs to, whatever its key holds. Versions are
//! the revisions of the commits that wrote last, so they never come back, not even when a key does.
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    hosts::unreadable,
    keys,
    kv::{Commit, Entry, Key, Kv, KvError, MAX_OPS, Outcome, Revision},
    record,
};
use crate::domain::{HostId, PluginName};

/// What a plugin may order in one run, beside its grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "orders", rename_all = "snake_case")]
pub enum Orders {
    /// As many as its grant says.
    #[default]
    AsGranted,
    /// None, until somebody approves: in one run it wanted more than it may.
    Stopped {
        /// When.
        at: Timestamp,
        /// As many as it could give in that run.
        most: u32,
        /// For whom it wanted one more.
        host: HostId,
    },
    /// None, until somebody approves: the store came from a backup, which does not know the names of orders that were
    /// carried out after it was taken. Nothing is written for a plugin to say so: it follows from the store.
    Restored {
        /// When the backup was taken.
        taken_at: Timestamp,
    },
    /// This many in the next run that orders, where its grant says less.
    Approved {
        /// So many.
        most: u32,
        /// Who approved.
        by: String,
        /// The call that the approval was used by; it is of no use to any other.
        call: Option<String>,
    },
}

/// What became of a write that expected a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable, at this version.
    Done(u64),
    /// Nothing was written: the value has another version by now. Read it again.
    Conflict,
}

/// A value with its version.
pub(crate) type Versioned<T> = (T, u64);

impl Store {
    /// A plugin's value. Keys over the limit of the seam are [`KvError::Invalid`].
    pub(crate) async fn plugin_value(
        &self,
        plugin: &PluginName,
        key: &str,
    ) -> Result<Option<Versioned<Bytes>>, StoreError> {
        let (_, mut found) = self.kv.get(&[keys::plugin_value(plugin, key).map_err(KvError::from)?]).await?;
        Ok(found.pop().flatten().map(|entry| (entry.value, entry.revision.get())))
    }

    /// Writes a plugin's value, or removes it with `None`, if it still has this version; 0: if there is none.
    pub(crate) async fn put_plugin_value(
        &self,
        plugin: &PluginName,
        key: &str,
        value: Option<Bytes>,
        version: u64,
    ) -> Result<Written, StoreError> {
        let key = keys::plugin_value(plugin, key).map_err(KvError::from)?;
        self.put_if(key, value, version).await
    }

    /// A plugin's keys that begin with a prefix, from after a key on, with the lengths of their values in bytes and their
    /// versions.
    pub(crate) async fn plugin_keys(
        &self,
        plugin: &PluginName,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, Versioned<usize>)>, StoreError> {
        let space = keys::plugin_space(plugin);
        let after = after.map(|after| format!("{space}{after}"));
        let prefix = format!("{space}{prefix}");
        let (_, entries) = self.kv.scan(prefix.as_bytes(), after.as_deref().map(str::as_bytes), limit).await?;
        let own = |entry: &Entry| {
            let key = entry.key.as_bytes().strip_prefix(space.as_bytes())?;
            Some((String::from_utf8(key.to_vec()).ok()?, (entry.value.len(), entry.revision.get())))
        };
        Ok(entries.iter().filter_map(own).collect())
    }

    /// Removes everything that a plugin stored and what was noted of its orders; the names of orders that were carried out
    /// stay. Returns how many values that were.
    pub(crate) async fn clear_plugin(&self, plugin: &PluginName) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let (_, entries) = self.kv.scan(keys::plugin_space(plugin).as_bytes(), None, MAX_OPS as u32).await?;
            if entries.is_empty() {
                break;
            }
            let mut commit = Commit::default();
            for entry in &entries {
                commit.delete(entry.key.clone());
            }
            self.kv.commit(commit).await?;
            removed += entries.len() as u64;
        }
        let mut commit = Commit::default();
        commit.delete(keys::approval(plugin).map_err(KvError::from)?);
        self.kv.commit(commit).await?;
        Ok(removed)
    }

    /// What a plugin may order, and the version of that.
    pub(crate) async fn orders_of(&self, plugin: &PluginName) -> Result<Versioned<Orders>, StoreError> {
        let key = keys::approval(plugin).map_err(KvError::from)?;
        let (_, found) = self.kv.get(&[key.clone(), keys::UNAPPROVED]).await?;
        let mut found = found.into_iter();
        match (found.next().flatten(), found.next().flatten()) {
            (Some(entry), _) => {
                let orders = record::decode_orders(&entry.value);
                Ok((orders.map_err(|source| StoreError::Record { key, source })?, entry.revision.get()))
            }
            (None, Some(entry)) => {
                let restored = record::decode_restored(&entry.value).map_err(unreadable(&entry.key))?;
                Ok((Orders::Restored { taken_at: restored.taken_at }, 0))
            }
            (None, None) => Ok((Orders::AsGranted, 0)),
        }
    }

    /// Notes what a plugin may order, if the note still has this version.
    pub(crate) async fn put_orders_of(
        &self,
        plugin: &PluginName,
        orders: &Orders,
        version: u64,
    ) -> Result<Written, StoreError> {
        let key = keys::approval(plugin).map_err(KvError::from)?;
        let value = match orders {
            Orders::AsGranted | Orders::Restored { .. } => None,
            Orders::Stopped { .. } | Orders::Approved { .. } => {
                let value = record::encode_orders(orders);
                Some(value.map_err(|source| StoreError::Record { key: key.clone(), source })?)
            }
        };
        self.put_if(key, value, version).await
    }

    /// As if the store came from a backup.
    #[cfg(test)]
    pub(crate) async fn as_restored(&self, taken_at: Timestamp) {
        let restored = record::RestoredRecord { taken_at, restored_at: taken_at };
        let mut commit = Commit::default();
        commit.put(keys::UNAPPROVED, record::encode_restored(&restored).unwrap());
        self.kv.commit(commit).await.unwrap();
    }

    async fn put_if(&self, key: Key, value: Option<Bytes>, version: u64) -> Result<Written, StoreError> {
        let mut commit = Commit::default();
        commit.guard(key.clone(), Revision::new(version));
        match value {
            Some(value) => commit.put(key, value),
            None => commit.delete(key),
        }
        Ok(match self.kv.commit(commit).await? {
            Outcome::Committed(revision) => Written::Done(revision.get()),
            Outcome::Conflict(_) => Written::Conflict,
        })
    }
}
