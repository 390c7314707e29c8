//! Hosts of this server, with the grant `hosts`: read them, and change what else was granted.
pub use crate::bindings::hosts::{HostPage, HostsError};
use crate::{Error, KnownHost, Patch};

#[cfg(target_family = "wasm")]
use crate::bindings::hosts as core;
#[cfg(not(target_family = "wasm"))]
use crate::testing::hosts as core;

use super::retry;

/// Hosts that [`find`] asks for at a time.
const PAGE_HOSTS: u32 = 100;

/// One host.
///
/// # Errors
/// `NotFound` if there is none with this id; `Denied`, `Unavailable`.
pub fn get(id: u64) -> Result<KnownHost, HostsError> {
    core::get(id)
}

/// All hosts with a value: of `serial`, `uuid`, `mac`, `hostname` or a dotted metadata path.
///
/// # Errors
/// `Invalid` for a key that is none of these; `Denied`, `Unavailable`.
pub fn find(key: &str, value: &str) -> Result<Vec<KnownHost>, HostsError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = core::find(key, value, after, PAGE_HOSTS)?;
        found.extend(page.hosts);
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// Hosts in the order of their ids, at most `limit`, from after an id on.
///
/// # Errors
/// `Denied`, `Unavailable`.
pub fn page(after: Option<u64>, limit: u32) -> Result<HostPage, HostsError> {
    core::page(after, limit)
}

/// Changes a host as it was read: a change that somebody made meanwhile makes this a `Conflict`. Returns the changed host.
/// In a dry run nothing changes, and the answer is as if it had.
///
/// # Errors
/// `Conflict` with the revision the host has now, `Denied` for what was not granted, `Invalid`, `NotFound`, `Unavailable`.
pub fn apply(host: &KnownHost, patch: Patch) -> Result<KnownHost, HostsError> {
    core::apply(host.id, host.revision, &patch)
}

impl From<HostsError> for Error {
    fn from(error: HostsError) -> Self {
        match error {
            HostsError::Denied(why) => Self::Failed(format!("may not do that to hosts: {why}")),
            HostsError::Invalid(why) => Self::Failed(format!("asked for hosts in a wrong way: {why}")),
            HostsError::NotFound => Self::Invalid("there is no such host any more".into()),
            HostsError::Conflict(revision) => retry(format!("the host has changed: it is at revision {revision}")),
            HostsError::Unavailable(why) => retry(format!("the hosts cannot be reached: {why}")),
        }
    }
}
