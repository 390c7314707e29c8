//! One bound plugin, as the core calls it.
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{BootDecision, BootRequest, DiscoveryDecision, HookError};

/// A plugin instance with its configuration: a component, or a native double.
///
/// A call may take as long as its budget; the chain gives up shortly after and drops the future, so calls must be safe to
/// drop.
pub trait Plugin: Send + Sync {
    /// The instance's name: one component may be bound twice.
    fn name(&self) -> &str;

    /// The hooks it exports. One that could not be loaded claims those it stands for, so that asking it fails.
    fn hooks(&self) -> HookSet;

    /// Whether it works, for readiness and `plugin list`.
    fn status(&self) -> PluginStatus;

    /// Hook `boot`: what a host boots now.
    fn decide<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>>;

    /// Hook `discovery`: what becomes of a machine that nobody knew.
    fn discovered<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>>;
}

/// What a plugin can ask about the call it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The same for every retry of the same call.
    pub id: String,
    /// 1 for the first try.
    pub attempt: u32,
    /// Milliseconds since 1970, fixed for the call.
    pub now_ms: u64,
    /// What the plugin has for this call. The chain sets it.
    pub budget: Duration,
    /// Whether anything will come of it.
    pub run: Run,
}

impl Call {
    /// A first try; `now_ms` in milliseconds since 1970.
    #[must_use]
    pub fn new(id: impl Into<String>, now_ms: u64, run: Run) -> Self {
        Self { id: id.into(), attempt: 1, now_ms, budget: Duration::ZERO, run }
    }
}

/// Whether a decision is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It is committed.
    Real,
    /// It is only looked at (`host plan`).
    Dry,
}

/// An answer and what the plugin noted on its way to it. Notes of a call that failed are kept: they tell how far it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<T> {
    /// The answer.
    pub result: Result<T, HookError>,
    /// Lines for the trace.
    pub notes: Vec<String>,
}

impl<T> From<Result<T, HookError>> for Reply<T> {
    fn from(result: Result<T, HookError>) -> Self {
        Self { result, notes: Vec::new() }
    }
}

/// The hooks that the core asks by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// What a host boots.
    Boot,
    /// What becomes of an unknown machine.
    Discovery,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "boot",
            Self::Discovery => "discovery",
        })
    }
}

/// Some hooks.
pub type HookSet = std::collections::BTreeSet<Hook>;

/// Whether a plugin works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum PluginStatus {
    /// It does.
    Ready {
        /// The version it told.
        version: String,
        /// Where it comes from: `embedded`, `native`, or a path.
        origin: String,
        /// SHA-256 of the component as `sha256:<hex>`; empty for a native one.
        digest: String,
    },
    /// It does not; every call answers [`HookError::Unavailable`].
    Unavailable {
        /// One sentence.
        why: String,
        /// The file that does not work.
        origin: String,
    },
}

impl PluginStatus {
    /// Whether it works.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}
