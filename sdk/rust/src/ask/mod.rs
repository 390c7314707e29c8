//! What a plugin may ask of the core, and tell it.
//!
//! In a component these are imports; in native tests [`crate::testing::Core`] answers. Only what a plugin really calls is
//! imported by its component, and the imports are the permissions it needs. Every error becomes an [`Error`] by `?`: what
//! may pass is `retry`, what the plugin did wrong is `failed`.
pub mod hosts;
pub mod http;
pub mod kv;
pub mod signing;

use serde::de::DeserializeOwned;

use crate::bindings::catalog::CatalogError;
pub use crate::bindings::log::Level;
use crate::{Error, RetryLater};

#[cfg(not(target_family = "wasm"))]
use crate::testing as core;
#[cfg(target_family = "wasm")]
mod core {
    //! The imports, under the names that the native double has too.
    pub(super) use crate::bindings::call::{attempt, budget_ms, config, dry_run, id, note, now_ms};
    pub(super) use crate::bindings::catalog::{has_image, has_template, images};
    pub(super) use crate::bindings::log::write;
}

/// How long to wait for something that does not answer now.
const RETRY_MS: u32 = 5_000;

/// The configuration of this binding.
///
/// # Errors
/// `invalid` when it does not fit `T`; [`crate::Plugin::check_config`] should have said so before.
pub fn config<T: DeserializeOwned>() -> Result<T, Error> {
    parse_config(&core::config()).map_err(|error| Error::Invalid(format!("the configuration does not fit: {error}")))
}

/// Reads a configuration as [`config`] does; an empty document counts as `{}`.
///
/// # Errors
/// What serde says about it.
pub fn parse_config<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(if text.trim().is_empty() { "{}" } else { text })
}

/// A line for the trace of this decision, shown by `kiwispray host explain`.
pub fn note(text: &str) {
    core::note(text);
}

/// A log line with fields. Never fails: too long is cut, too many are counted and dropped.
pub fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
    let fields: Vec<_> = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    core::write(level, message, &fields);
}

/// Whether the server has an image of this name.
///
/// # Errors
/// `retry` when the catalogue does not answer, `failed` when the plugin may not ask.
pub fn has_image(name: &str) -> Result<bool, Error> {
    core::has_image(name).map_err(catalog_error)
}

/// Whether the server has a boot template of this name.
///
/// # Errors
/// As for [`has_image`].
pub fn has_template(name: &str) -> Result<bool, Error> {
    core::has_template(name).map_err(catalog_error)
}

/// The names of all images.
///
/// # Errors
/// As for [`has_image`].
pub fn images() -> Result<Vec<String>, Error> {
    core::images().map_err(catalog_error)
}

/// The same for every retry of the same call: an idempotency key.
#[must_use]
pub fn call_id() -> String {
    core::id()
}

/// 1 for the first try.
#[must_use]
pub fn attempt() -> u32 {
    core::attempt()
}

/// Milliseconds since 1970, fixed for the call.
#[must_use]
pub fn now_ms() -> u64 {
    core::now_ms()
}

/// Milliseconds that this call has left.
#[must_use]
pub fn budget_ms() -> u32 {
    core::budget_ms()
}

/// Whether nothing of this call will be committed.
#[must_use]
pub fn dry_run() -> bool {
    core::dry_run()
}

fn catalog_error(error: CatalogError) -> Error {
    match error {
        CatalogError::Unavailable(reason) => retry(reason),
        CatalogError::Denied(reason) => Error::Failed(format!("may not ask the catalogue: {reason}")),
    }
}

fn retry(reason: String) -> Error {
    Error::Retry(RetryLater { after_ms: RETRY_MS, reason })
}
