//! A store of the plugin's own, with the grant `kv`. What a plugin is to remember between calls stands here.
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
pub use crate::bindings::kv::{Entry, Expect, KvError};

#[cfg(target_family = "wasm")]
use crate::bindings::kv as core;
#[cfg(not(target_family = "wasm"))]
use crate::testing::kv as core;

use super::retry;

/// Keys that the core gives at a time, however many are asked for.
pub(crate) const PAGE_KEYS: usize = 256;

/// What stands at a key, with its version.
///
/// # Errors
/// `Denied`, `Unavailable`.
pub fn get(key: &str) -> Result<Option<Entry>, KvError> {
    core::get(key)
}

/// What stands at a key, as JSON.
///
/// # Errors
/// As for [`get`], and `failed` when it is not a `T`: it was written by another version of the plugin, perhaps.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    let Some(entry) = core::get(key)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&entry.value);
    parsed.map(Some).map_err(|error| Error::Failed(format!("the kv entry {key:?} does not fit: {error}")))
}

/// Writes, if what stands there is as expected; returns the new version. In a dry run nothing changes.
///
/// # Errors
/// `Conflict` with the version that stands there (0: nothing), `TooLarge`, `Full`, `Denied` (in decision hooks always),
/// `Unavailable`.
pub fn put(key: &str, value: &[u8], expect: Expect) -> Result<u64, KvError> {
    core::put(key, value, expect)
}

/// Writes JSON over whatever stood there; returns the new version.
///
/// # Errors
/// As for [`put`], and `failed` when the value cannot be written as JSON.
pub fn put_json<T: Serialize>(key: &str, value: &T) -> Result<u64, Error> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Error::Failed(format!("the kv entry {key:?} cannot be written: {error}")))?;
    Ok(core::put(key, &text, Expect::Whatever)?)
}

/// Removes, if what stands there is as expected. What is not there is removed already.
///
/// # Errors
/// As for [`put`].
pub fn delete(key: &str, expect: Expect) -> Result<(), KvError> {
    core::delete(key, expect)
}

/// Keys that begin with `prefix`, in order, at most `limit`, from after a key on.
///
/// # Errors
/// As for [`get`].
pub fn list(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
    let most = limit as usize;
    let mut keys: Vec<String> = Vec::new();
    while keys.len() < most {
        let wanted = (most - keys.len()).min(PAGE_KEYS);
        let page = core::list(prefix, keys.last().map(String::as_str).or(after), wanted as u32)?;
        let is_last = page.len() < wanted;
        keys.extend(page);
        if is_last {
            break;
        }
    }
    Ok(keys)
}

impl From<KvError> for Error {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Denied(why) => Self::Failed(format!("may not use kv: {why}")),
            KvError::Conflict(version) => retry(format!("the kv entry has changed: it is at version {version}")),
            KvError::TooLarge => Self::Failed("the kv entry is too large".into()),
            KvError::Full => Self::Failed("the plugin's kv is full".into()),
            KvError::Unavailable(why) => retry(format!("kv cannot be reached: {why}")),
        }
    }
}
