//! Plugins on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A bound plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginDetail {
    /// Its instance name.
    pub name: String,
    /// `ok`, `degraded` (an earlier component runs), `disabled` or `broken`.
    pub status: String,
    /// What is wrong; absent when nothing is.
    pub problem: Option<String>,
    /// The version that the running component told.
    pub version: Option<String>,
    /// The running component: `sha256:<hex>`.
    pub digest: Option<String>,
    /// Where it comes from.
    pub origin: Option<String>,
    /// What it is for, in its words.
    pub summary: String,
    /// Where its binding is written.
    pub file: Option<String>,
    /// Whether `kiwispray plugin install` brought it.
    pub installed: bool,
    /// Whether it was put back to an earlier component.
    pub rolled_back: bool,
    /// The hooks it is asked in.
    pub hooks: Vec<String>,
    /// For hosts in which states; `*` for all but `finished`.
    pub states: Vec<String>,
    /// For which hosts.
    #[serde(rename = "where")]
    pub selector: Map<String, Value>,
    /// Low first.
    pub priority: i32,
    /// `hold` or `skip`.
    pub on_error: String,
    /// What it is told.
    pub config: Value,
    /// What it may do.
    pub reach: Vec<ReachView>,
    /// Jobs that it runs now and then.
    pub jobs: Vec<JobView>,
    /// How far it has been told of events; absent if it is told of none.
    pub outbox: Option<OutboxView>,
    /// Hooks in which it is not asked for a while, as it broke again and again.
    pub breakers: Vec<BreakerView>,
    /// Components that ran, newest last.
    pub history: Vec<KeptView>,
    /// Orders that it stopped at and that wait for an approval; absent when there are none.
    pub stopped: Option<String>,
}

/// One thing that a plugin may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachView {
    /// As it is granted.
    pub what: String,
    /// What that means, in a sentence.
    pub meaning: String,
}

/// A job of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its name.
    pub name: String,
    /// How often it runs, in seconds.
    pub period_s: u32,
    /// When it runs next; absent before its first run.
    pub next_at: Option<Timestamp>,
}

/// How far a plugin has been told of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxView {
    /// Events that it was not told of yet, wanted or not; absent if they are too many to be counted.
    pub behind: Option<u64>,
    /// Hosts whose events wait for another attempt.
    pub parked: u64,
    /// Events that could not be told.
    pub dead_letters: u64,
    /// Events that had left their timeline before they could be told.
    pub lost: u64,
}

/// An event that a plugin could not be told of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LetterView {
    /// The event.
    pub event: super::EventView,
    /// Why, in the words of the newest attempt.
    pub error: String,
    /// When it was last tried.
    pub at: Timestamp,
    /// How often.
    pub attempts: u32,
}

/// What became of dead letters that were told again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayedView {
    /// Told, and gone.
    pub told: u64,
    /// Failed again, and kept.
    pub failed: u64,
    /// Where to go on, as `after`; none: all were tried.
    pub next: Option<String>,
    /// Letters that the plugin still has, tried or not.
    pub left: u64,
    /// Why the newest of them failed.
    pub error: Option<String>,
}

/// Dead letters that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedView {
    /// How many.
    pub dropped: u64,
}

/// How a job is to be run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunJob {
    /// Change nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A job that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRanView {
    /// What went wrong; absent when nothing did.
    pub error: Option<String>,
    /// What it noted.
    pub notes: Vec<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A key of a plugin's own store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// The key.
    pub key: String,
    /// Length of its value.
    pub bytes: u64,
    /// Grows with every write.
    pub version: u64,
    /// The value as text; only of a single key, and only if it is text.
    pub value: Option<String>,
}

/// A line that a plugin wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLineView {
    /// Grows with every line; what came after it is asked for with `?after=`.
    pub number: u64,
    /// When its call began.
    pub at: Timestamp,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The hook it was in; none while it was loaded.
    pub hook: Option<String>,
    /// Which call: the same for every retry.
    pub call: String,
    /// What it says.
    pub text: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}

/// A hook in which a plugin is not asked as usual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerView {
    /// The hook.
    pub hook: String,
    /// `open`, `half-open` or `out-of-order`.
    pub state: String,
    /// Seconds until it is tried again, when that is known.
    pub for_s: Option<u64>,
    /// Its last fault.
    pub why: String,
}

/// A component that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptView {
    /// `sha256:<hex>`
    pub digest: String,
    /// The version it told.
    pub version: String,
    /// When it was loaded.
    pub at: Timestamp,
}

/// What became of a plugin when everything was read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadedView {
    /// Its name.
    pub name: String,
    /// `unchanged`, `added`, `changed`, `removed` or `failed`.
    pub change: String,
}

/// A plugin to be installed: the first line of the request's body, as JSON; the component follows after its newline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstallPlugin {
    /// The binding, as in a `[[plugin]]` of the configuration.
    pub binding: Map<String, Value>,
    /// Whether it may be allowed more than the one it replaces.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub widen: bool,
    /// Whether `grant`, `hooks` and `events` replace those with which it is bound; else these stay.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub grants_from_plugin: bool,
    /// Say what would change, and change nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A plugin that was installed, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstalledPlugin {
    /// The plugin as it is now, or would be.
    pub plugin: PluginDetail,
    /// What it may do that the one it replaces may not; everything, if it replaces none.
    pub widened: Vec<ReachView>,
    /// What the one it replaces may do and it may not.
    pub narrowed: Vec<ReachView>,
    /// The component that it replaces.
    pub replaces: Option<String>,
}

/// How many orders a stopped plugin may give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApproveOrders {
    /// So many; absent: those that it stopped at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orders: Option<u32>,
}

/// Records the next calls of a plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordCalls {
    /// So many.
    pub calls: u32,
}

/// Orders that were approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// How many.
    pub orders: u32,
}

/// A line of a rehearsal: first how many hosts there are, then one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RehearsalLine {
    /// The hosts that will be asked about, as far as is known.
    Hosts(u64),
    /// One host.
    Host(RehearsedView),
    /// That was all.
    End,
}

/// What a host would be answered now, and with the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsedView {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub hostname: Option<String>,
    /// Its current state.
    pub state: String,
    /// What it would be answered as plugins are bound now.
    pub before: String,
    /// What it would be answered with the new one; the same as `before` when there is no new one.
    pub after: String,
    /// Which failure of a plugin decided, or was passed over.
    pub error: Option<String>,
    /// How long the plugins took, in microseconds.
    pub took_us: u64,
}
