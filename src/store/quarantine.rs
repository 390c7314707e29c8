//! What is left of a restored backup in the store itself, beside the hosts that hold because of it.
//!
//! Invariant: from the restore on until somebody lifts it, hosts that become known are quarantined like those of the
//! backup: they may have been known, and installed, after it was taken.
use std::sync::atomic::Ordering;

use super::{
    Store, StoreError,
    hosts::unreadable,
    keys,
    kv::{Backend, Commit, Kv},
    record,
};

/// Whether the store came from a backup and its quarantine was not lifted.
pub(super) async fn is_restored(kv: &Backend) -> Result<bool, StoreError> {
    let (_, mut found) = kv.get(&[keys::RESTORED]).await?;
    let Some(entry) = found.pop().flatten() else { return Ok(false) };
    record::decode_restored(&entry.value).map_err(unreadable(&entry.key))?;
    Ok(true)
}

impl Store {
    /// Whether hosts that become known are quarantined, as a backup was restored.
    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined.load(Ordering::Acquire)
    }

    /// From now on hosts that become known are trusted again. Those that are quarantined stay so until they are released.
    pub async fn lift_quarantine(&self) -> Result<(), StoreError> {
        let mut commit = Commit::default();
        commit.delete(keys::RESTORED);
        self.kv.commit(commit).await?;
        self.is_quarantined.store(false, Ordering::Release);
        Ok(())
    }
}
