//! What plugins store, within quotas.
//!
//! Invariant: the sums that quotas are checked against are those of the store. They are read once and moved with every
//! write, and every write is guarded by the very value that it replaces, so that none is counted twice or not at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::domain::PluginName;
use crate::hooks::{Expect, KvEntry, KvError, KvUsed, Run, check_kv_key, check_kv_list, check_kv_value};
use crate::service::Service;
use crate::store::{StoreError, Written};

/// Keys per read when everything is summed up.
const SUM_PAGE: u32 = 1_000;
/// How often a write is tried whose value others write at the same time.
const MOST_TRIES: u32 = 16;

/// The sums of all plugins that have written.
#[derive(Debug, Default)]
pub(in crate::service) struct Spaces(Mutex<HashMap<PluginName, Arc<OnceCell<Space>>>>);

/// What one plugin uses.
#[derive(Debug, Default)]
struct Space(Mutex<KvUsed>);

/// A key that a plugin stores something under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginKey {
    /// As the plugin wrote it.
    pub key: String,
    /// Length of its value in bytes.
    pub bytes: usize,
    /// Grows with every write.
    pub version: u64,
}

/// What a plugin stores under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginValue {
    /// As the plugin wrote it.
    pub value: Bytes,
    /// Grows with every write.
    pub version: u64,
}

// ---- For operators ----

impl Service {
    /// The keys of a plugin that begin with a prefix, from after a key on, at most `limit`. An empty answer: that was all.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn plugin_keys(
        &self,
        plugin: &PluginName,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<PluginKey>, StoreError> {
        let keys = self.store.plugin_keys(plugin, prefix, after, limit).await?;
        Ok(keys.into_iter().map(|(key, (bytes, version))| PluginKey { key, bytes, version }).collect())
    }

    /// What a plugin stores under a key.
    ///
    /// # Errors
    /// The store could not be read, or no key is that long.
    pub async fn plugin_value(&self, plugin: &PluginName, key: &str) -> Result<Option<PluginValue>, StoreError> {
        let found = self.store.plugin_value(plugin, key).await?;
        Ok(found.map(|(value, version)| PluginValue { value, version }))
    }

    /// Removes all that a plugin stored, and that it was stopped or approved; to be asked when the plugin is gone. The names
    /// of orders that it gave stay remembered. Returns how many values that were.
    ///
    /// # Errors
    /// The store did not do it, or not all of it.
    pub async fn clear_plugin(&self, plugin: &PluginName) -> Result<u64, StoreError> {
        let removed = self.store.clear_plugin(plugin).await;
        self.spaces.forget(plugin);
        removed
    }
}

// ---- For plugins ----

impl Service {
    pub(super) async fn stored(&self, plugin: &PluginName, key: &str) -> Result<Option<KvEntry>, KvError> {
        check_kv_key(key)?;
        let found = self.store.plugin_value(plugin, key).await.map_err(unavailable)?;
        Ok(found.map(|(value, version)| KvEntry { value: value.to_vec(), version }))
    }

    pub(super) async fn listed(
        &self,
        plugin: &PluginName,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, KvError> {
        let limit = check_kv_list(prefix, after, limit)?;
        let keys = self.store.plugin_keys(plugin, prefix, after, limit).await.map_err(unavailable)?;
        Ok(keys.into_iter().map(|(key, _)| key).collect())
    }

    /// Writes a value, or removes it with `None`. Returns its version; in a dry run one that it could get.
    pub(super) async fn keep(
        self: Arc<Self>,
        plugin: PluginName,
        key: String,
        value: Option<Vec<u8>>,
        expect: Expect,
        run: Run,
    ) -> Result<u64, KvError> {
        check_kv_key(&key)?;
        value.as_deref().map_or(Ok(()), check_kv_value)?;
        let value = value.map(Bytes::from);
        // On its own: a write whose plugin ran out of time must be counted all the same.
        let writing = tokio::spawn(async move { self.write(&plugin, &key, value, expect, run).await });
        writing.await.unwrap_or_else(|error| Err(KvError::Unavailable(error.to_string())))
    }

    async fn write(
        &self,
        plugin: &PluginName,
        key: &str,
        value: Option<Bytes>,
        expect: Expect,
        run: Run,
    ) -> Result<u64, KvError> {
        let cell = self.spaces.of(plugin);
        let space = cell.get_or_try_init(|| self.sum_up(plugin)).await.map_err(unavailable)?;
        let size = |bytes: usize| KvUsed::of(key, bytes);
        let new = value.as_ref().map_or_else(KvUsed::default, |value| size(value.len()));
        for _ in 0..MOST_TRIES {
            let found = self.store.plugin_value(plugin, key).await.map_err(unavailable)?;
            let version = found.as_ref().map_or(0, |(_, version)| *version);
            let is_expected = match expect {
                Expect::Whatever => true,
                Expect::Absent => version == 0,
                Expect::Version(expected) => version == expected,
            };
            if !is_expected {
                return Err(KvError::Conflict(version));
            }
            if found.is_none() && value.is_none() {
                return Ok(version);
            }
            let old = found.map_or_else(KvUsed::default, |(value, _)| size(value.len()));
            space.replace(old, new)?;
            let written = match run {
                Run::Dry => Ok(Written::Conflict),
                Run::Real => self.store.put_plugin_value(plugin, key, value.clone(), version).await,
            };
            match (written, run) {
                (Ok(Written::Done(version)), _) => return Ok(version),
                (written, run) => {
                    space.restore(old, new);
                    written.map_err(unavailable)?;
                    if run == Run::Dry {
                        return Ok(version.saturating_add(1));
                    }
                }
            }
        }
        Err(KvError::Unavailable("others write this value all the time".to_owned()))
    }

    async fn sum_up(&self, plugin: &PluginName) -> Result<Space, StoreError> {
        let mut used = KvUsed::default();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.plugin_keys(plugin, "", after.as_deref(), SUM_PAGE).await?;
            for (key, (bytes, _)) in &page {
                used = used.and(KvUsed::of(key, *bytes));
            }
            let Some((last, _)) = page.into_iter().last() else { return Ok(Space(Mutex::new(used))) };
            after = Some(last);
        }
    }
}

impl Spaces {
    fn of(&self, plugin: &PluginName) -> Arc<OnceCell<Space>> {
        let mut spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(spaces.entry(plugin.clone()).or_default())
    }

    pub(super) fn forget(&self, plugin: &PluginName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(plugin);
    }
}

impl Space {
    /// Counts a value in another's place, if there is room. What needs less room than before is always allowed.
    fn replace(&self, old: KvUsed, new: KvUsed) -> Result<(), KvError> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.replaced(old, new)?;
        Ok(())
    }

    /// Takes [`Self::replace`] back.
    fn restore(&self, old: KvUsed, new: KvUsed) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.with(new, old);
    }
}

fn unavailable(error: StoreError) -> KvError {
    KvError::Unavailable(error.to_string())
}
