//! One bound plugin, as the core calls it.
use std::fmt;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    About, BootDecision, BootRequest, DiscoveryDecision, Event, HookError, NextRun, RenderRequest, TransitionDecision,
    TransitionRequest,
};

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

    /// What it told about itself when it was loaded; nothing while it does not work.
    fn about(&self) -> About {
        About::default()
    }

    /// Records its next calls, so many, for its author to replay. What was recorded before is forgotten.
    fn record(&self, calls: u32) {
        let _ = calls;
    }

    /// What was recorded, oldest first, each a document that `kiwispray plugin replay` takes.
    fn recorded(&self) -> Vec<Value> {
        Vec::new()
    }

    /// Hook `boot`: what a host boots now.
    fn decide<'a>(&'a self, _call: &'a Call, _request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        not_exported(Hook::Boot)
    }

    /// Hook `discovery`: what becomes of a machine that nobody knew.
    fn discovered<'a>(&'a self, _call: &'a Call, _request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        not_exported(Hook::Discovery)
    }

    /// Hook `render`: variables for a document.
    fn variables<'a>(
        &'a self,
        _call: &'a Call,
        _request: &'a RenderRequest,
    ) -> BoxFuture<'a, Reply<Map<String, Value>>> {
        not_exported(Hook::Render)
    }

    /// Hook `transition`: asked before a queue changes.
    fn before<'a>(
        &'a self,
        _call: &'a Call,
        _request: &'a TransitionRequest,
    ) -> BoxFuture<'a, Reply<TransitionDecision>> {
        not_exported(Hook::Transition)
    }

    /// Hook `events`: events in order per host. Answers how many, from the front, are done.
    fn handle<'a>(&'a self, _call: &'a Call, _events: &'a [Event]) -> BoxFuture<'a, Reply<u32>> {
        not_exported(Hook::Events)
    }

    /// Hook `schedule`: one run of a job.
    fn run<'a>(&'a self, _call: &'a Call, _job: &'a str) -> BoxFuture<'a, Reply<NextRun>> {
        not_exported(Hook::Schedule)
    }
}

fn not_exported<T: Send + 'static>(hook: Hook) -> BoxFuture<'static, Reply<T>> {
    std::future::ready(Reply::from(Err(HookError::Unavailable(format!("has no hook `{hook}`"))))).boxed()
}

/// Nobody yet: has no hooks, and is never asked.
#[derive(Clone, Copy, Debug)]
pub struct Absent;

impl Plugin for Absent {
    fn name(&self) -> &str {
        "default"
    }

    fn hooks(&self) -> HookSet {
        HookSet::new()
    }

    fn status(&self) -> PluginStatus {
        PluginStatus::Unavailable { why: "is not loaded yet".to_owned(), origin: "nowhere".to_owned() }
    }
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
    /// The call that this one goes on from, of a job that has more to do than fits into one call. Orders of both count together.
    pub goes_on_from: Option<String>,
}

impl Call {
    /// A first try; `now_ms` in milliseconds since 1970.
    #[must_use]
    pub fn new(id: impl Into<String>, now_ms: u64, run: Run) -> Self {
        Self { id: id.into(), attempt: 1, now_ms, budget: Duration::ZERO, run, goes_on_from: None }
    }

    /// Under which name its orders are counted: the same for all calls of one run.
    #[must_use]
    pub fn run_id(&self) -> &str {
        self.goes_on_from.as_deref().unwrap_or(&self.id)
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

/// The points at which the core asks plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// What a host boots.
    Boot,
    /// What becomes of an unknown machine.
    Discovery,
    /// Variables for a document.
    Render,
    /// Whether a queue may change.
    Transition,
    /// What happened.
    Events,
    /// Jobs that run now and then.
    Schedule,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Boot, Self::Discovery, Self::Render, Self::Transition, Self::Events, Self::Schedule];

    /// Whether something waits for the answer. In these hooks nothing that writes, and no `http`, is to be had: changes
    /// travel in the answer.
    #[must_use]
    pub const fn is_decision(self) -> bool {
        match self {
            Self::Boot | Self::Discovery | Self::Render | Self::Transition => true,
            Self::Events | Self::Schedule => false,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "boot",
            Self::Discovery => "discovery",
            Self::Render => "render",
            Self::Transition => "transition",
            Self::Events => "events",
            Self::Schedule => "schedule",
        })
    }
}

/// Some of the hooks.
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
    /// It does, but not the component or configuration that it should: what is there now is broken.
    Degraded {
        /// The version that the running one told.
        version: String,
        /// Where the running one comes from.
        origin: String,
        /// Its digest.
        digest: String,
        /// What is wrong with the one that should run; continues the plugin's name.
        why: String,
    },
    /// An operator switched it off: it is not asked.
    Disabled,
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
