//! What the core asks plugins, in which order, and what becomes of their answers.
//!
//! Invariant: asking always ends, within a fixed time, in an answer that is safe to act on. A plugin that fails, is slow or
//! answers what it may not makes waiting hosts hold and leaves finished hosts their local disk; it never reaches further.
//!
//! The types mirror the contract in `sdk/wit` as plain data, so neither the core nor its tests need a WebAssembly runtime:
//! `plugin_host` implements [`Plugin`] with components, [`native`] is a double of the default plugin.
mod allowance;
mod apply;
mod ask;
mod binding;
mod breaker;
mod capabilities;
mod check;
mod error;
mod log;
pub mod measure;
pub mod native;
mod outcome;
mod plugin;
mod quota;
mod trace;
mod transition;
mod types;
mod variables;

pub(crate) use allowance::DISCOVER;
pub use allowance::{Allowance, Denied, Grants, ORDERING_METADATA};
pub use apply::{Edited, parse_path, searched_path};
pub use ask::{Budgets, Hooks};
pub use binding::{Binding, Grant, OnError, Selector, SelectorError, StatesFilter};
pub use breaker::{Admission, Breaker, BreakerState, Breakers};
pub use capabilities::{Capabilities, CapabilityError, Expect, HostPage, HostsError, KvEntry, KvError, Page};
pub use check::{BadAnswer, check_boot, check_discovery, check_kernel_arguments, check_transition};
pub use error::{ErrorClass, HookError};
pub use log::{LogLevel, LogLine};
pub use outcome::{BootAnswer, BootOutcome, DecidedBy, DiscoveryAnswer, DiscoveryOutcome, GivenPatch};
pub use plugin::{Absent, Call, Hook, HookSet, Plugin, PluginStatus, Reply, Run};
pub use quota::{KvUsed, check_kv_key, check_kv_list, check_kv_value};
pub use trace::{Trace, TraceResult, TraceStep};
pub use transition::{TransitionAnswer, TransitionOutcome};
pub use types::{
    About, BootDecision, BootPlan, BootRequest, BootVerdict, DiscoveryDecision, DiscoveryVerdict, Edit, Event, Hold,
    ImageBoot, Job, KnownHost, NextRun, Patch, RenderRequest, TemplateBoot, TransitionDecision, TransitionRequest,
    TransitionVerdict,
};
pub use variables::{RenderOutcome, RenderRefused};
