//! Native tests: a stand-in for the server, and requests to ask with.
//!
//! ```
//! use kiwispray_sdk::testing::{Core, host, request};
//! use kiwispray_sdk::{Error, ask};
//!
//! let core = Core::new().image("web").config(r#"{"site": "fra1"}"#);
//! assert_eq!(core.run(|| ask::has_image("web")), Ok(true));
//! assert_eq!(core.run(|| ask::has_image("db")), Ok(false));
//! ```
//!
//! What plugins' safety depends on is as in the server: revisions and conflicts of hosts, orders, versions in kv, dry runs
//! that change nothing, decisions that may not write or send ([`Core::deciding`]). Grants are not checked: `kiwispray plugin
//! test` does that, on the real host.
pub(crate) mod hosts;
pub(crate) mod http;
pub(crate) mod kv;
pub(crate) mod signing;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub use http::response;

use crate::bindings::catalog::CatalogError;
use crate::bindings::log::Level;
use crate::{BootRequest, Event, KnownHost};

/// What calls outside of [`Core::run`] are told.
const OUTSIDE: &str = "outside of `testing::Core::run` there is no server";
/// What calls that write or send are told by a core that is [`Core::deciding`].
const DECIDING: &str = "not in a hook that decides";

/// What the plugin sees of the server, for the length of [`Core::run`]. Clones share hosts, kv and what was written.
#[derive(Clone, Debug)]
pub struct Core {
    images: BTreeSet<String>,
    templates: BTreeSet<String>,
    config: String,
    catalog_is_down: Option<String>,
    call_id: String,
    attempt: u32,
    now_ms: u64,
    budget_ms: u32,
    dry_run: bool,
    deciding: bool,
    http: Option<http::Handler>,
    secrets: BTreeMap<String, Vec<u8>>,
    written: Rc<RefCell<Written>>,
}

#[derive(Clone, Debug, Default)]
struct Written {
    notes: Vec<String>,
    log: Vec<(Level, String)>,
    hosts: hosts::Hosts,
    kv: kv::Kv,
    requests: Vec<crate::ask::http::Request>,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            images: BTreeSet::new(),
            templates: BTreeSet::new(),
            config: String::new(),
            catalog_is_down: None,
            call_id: "test".to_owned(),
            attempt: 1,
            now_ms: 0,
            budget_ms: 200,
            dry_run: false,
            deciding: false,
            http: None,
            secrets: BTreeMap::new(),
            written: Rc::default(),
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Core>> = const { RefCell::new(None) };
}

impl Core {
    /// A server without images, templates and configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has an image.
    #[must_use]
    pub fn image(mut self, name: &str) -> Self {
        self.images.insert(name.to_owned());
        self
    }

    /// Has a boot template.
    #[must_use]
    pub fn template(mut self, name: &str) -> Self {
        self.templates.insert(name.to_owned());
        self
    }

    /// The binding's configuration, as JSON.
    #[must_use]
    pub fn config(mut self, json: &str) -> Self {
        json.clone_into(&mut self.config);
        self
    }

    /// The catalogue answers `unavailable`.
    #[must_use]
    pub fn catalog_is_down(mut self, reason: &str) -> Self {
        self.catalog_is_down = Some(reason.to_owned());
        self
    }

    /// The time of the call.
    #[must_use]
    pub fn now_ms(mut self, now_ms: u64) -> Self {
        self.now_ms = now_ms;
        self
    }

    /// What is the same for every retry of the call.
    #[must_use]
    pub fn call_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.call_id);
        self
    }

    /// Which try of the call it is; 1 for the first.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// What the call has left, in milliseconds.
    #[must_use]
    pub fn budget_ms(mut self, budget_ms: u32) -> Self {
        self.budget_ms = budget_ms;
        self
    }

    /// Nothing is committed: what writes answers as if it had written.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// As inside `boot`, `discovery`, `render` and `transition`: what writes or sends is denied.
    #[must_use]
    pub fn deciding(mut self) -> Self {
        self.deciding = true;
        self
    }

    /// Runs a hook against this server, on this thread.
    pub fn run<T>(&self, hook: impl FnOnce() -> T) -> T {
        let outer = CURRENT.replace(Some(self.clone()));
        let answer = hook();
        CURRENT.set(outer);
        answer
    }

    /// The notes that hooks made so far.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.written.borrow().notes.clone()
    }

    /// The log lines that hooks wrote so far.
    #[must_use]
    pub fn log(&self) -> Vec<(Level, String)> {
        self.written.borrow().log.clone()
    }

    fn ask<T>(&self, answer: impl FnOnce(&Self) -> T) -> Result<T, CatalogError> {
        match &self.catalog_is_down {
            Some(reason) => Err(CatalogError::Unavailable(reason.clone())),
            None => Ok(answer(self)),
        }
    }
}

/// A host with id 7 in the given state, without metadata.
#[must_use]
pub fn host(state: &str) -> KnownHost {
    KnownHost {
        id: 7,
        revision: 3,
        hostname: None,
        serial: "S7".into(),
        uuid: "4c4c4544-0000-1000-8000-000000000007".into(),
        macs: vec!["52:54:00:00:00:07".into()],
        states: vec![state.into()],
        attempts: 0,
        metadata: "{}".into(),
        more: "{}".into(),
    }
}

/// A boot of a host, without facts.
#[must_use]
pub fn request(host: KnownHost) -> BootRequest {
    BootRequest { host, facts: Vec::new() }
}

/// An event about a host, or about none, without detail.
#[must_use]
pub fn event(kind: &str, host: Option<KnownHost>) -> Event {
    Event { id: "7-1".into(), host_seq: 1, at_ms: 0, kind: kind.into(), host, detail: "{}".into() }
}

/// The core that runs a hook on this thread, if one does.
fn with<T>(answer: impl FnOnce(&Core) -> T) -> Option<T> {
    CURRENT.with_borrow(|core| core.as_ref().map(answer))
}

fn current<T: Default>(answer: impl FnOnce(&Core) -> T) -> T {
    with(answer).unwrap_or_default()
}

fn catalog<T>(answer: impl FnOnce(&Core) -> T) -> Result<T, CatalogError> {
    with(|core| core.ask(answer)).unwrap_or_else(|| Err(CatalogError::Denied(OUTSIDE.into())))
}

pub(crate) fn has_image(name: &str) -> Result<bool, CatalogError> {
    catalog(|core| core.images.contains(name))
}

pub(crate) fn has_template(name: &str) -> Result<bool, CatalogError> {
    catalog(|core| core.templates.contains(name))
}

pub(crate) fn images() -> Result<Vec<String>, CatalogError> {
    catalog(|core| core.images.iter().cloned().collect())
}

pub(crate) fn config() -> String {
    current(|core| core.config.clone())
}

pub(crate) fn note(text: &str) {
    current(|core| core.written.borrow_mut().notes.push(text.to_owned()));
}

pub(crate) fn write(level: Level, message: &str, _fields: &[(String, String)]) {
    current(|core| core.written.borrow_mut().log.push((level, message.to_owned())));
}

pub(crate) fn id() -> String {
    current(|core| core.call_id.clone())
}

pub(crate) fn attempt() -> u32 {
    current(|core| core.attempt)
}

pub(crate) fn now_ms() -> u64 {
    current(|core| core.now_ms)
}

pub(crate) fn budget_ms() -> u32 {
    current(|core| core.budget_ms)
}

pub(crate) fn dry_run() -> bool {
    current(|core| core.dry_run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ask};

    #[test]
    fn a_catalogue_that_is_down_means_retry() {
        let core = Core::new().catalog_is_down("starting");
        assert!(matches!(core.run(ask::images), Err(Error::Retry(later)) if later.reason == "starting"));
    }

    #[test]
    fn notes_and_log_lines_are_kept_for_the_test() {
        let core = Core::new();
        core.run(|| {
            ask::note("looked");
            ask::log(Level::Warn, "odd", &[("rack", "r7")]);
        });
        assert_eq!(core.notes(), ["looked"]);
        assert!(matches!(core.log().as_slice(), [(Level::Warn, text)] if text == "odd"));
    }

    #[test]
    fn an_empty_configuration_counts_as_an_empty_object() {
        let config: serde_json::Value = Core::new().run(ask::config).unwrap();
        assert_eq!(config, serde_json::json!({}));
    }
}
