//! The contract's data, as plain Rust. JSON texts are parsed here: a plugin that sends something
//! else has failed before its answer gets this far.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A machine known to the server, as plugins see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnownHost {
    /// 0 in the hook `discovery`, where the machine has none yet.
    pub id: u64,
    /// Grows with every change; a decision counts only for the revision it saw.
    pub revision: u64,
    /// The name, if it has one.
    pub hostname: Option<String>,
    /// Empty if the firmware told none.
    pub serial: String,
    /// The DMI UUID; empty if the firmware told none.
    pub uuid: String,
    /// Lower case, with colons.
    pub macs: Vec<String>,
    /// The queue; the first is the current state. A finished host has `finished`.
    pub states: Vec<String>,
    /// Boots into the current state so far.
    pub attempts: u32,
    /// What operators, discovery and plugins wrote down.
    pub metadata: Map<String, Value>,
    /// What else the server knows.
    pub more: Map<String, Value>,
}

impl KnownHost {
    /// The current state. An empty queue means `finished`.
    #[must_use]
    pub fn state(&self) -> &str {
        self.states.first().map_or(FINISHED, String::as_str)
    }

    /// Whether the host has nothing left to do, so that doubt gives it its local disk.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state() == FINISHED
    }
}

/// The built-in state of a host with nothing left to do.
pub(super) const FINISHED: &str = "finished";
/// The built-in state of a host that nobody has given anything to do.
pub(super) const NEW: &str = "new";

/// One boot of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootRequest {
    /// As the core knows it.
    pub host: KnownHost,
    /// What the firmware reported in this boot, by name: platform, buildarch, manufacturer, product, asset, …
    pub facts: Vec<(String, String)>,
}

/// What a plugin answers to `boot.decide`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootDecision {
    /// What to do.
    pub verdict: BootVerdict,
    /// Changes that later plugins see and that are committed with the decision.
    pub patch: Option<Patch>,
    /// Why, in a few words; may be empty.
    pub reason: String,
}

/// A verdict on one boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootVerdict {
    /// No opinion: the next plugin is asked.
    Pass,
    /// Boot this; the chain ends.
    Boot(BootPlan),
    /// Wait and ask again; the chain ends.
    Hold(Hold),
}

/// What to boot. The core renders it, and boots an image that writes a disk only if it is the host's current state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootPlan {
    /// An image of the catalogue.
    Image(ImageBoot),
    /// A script template.
    Template(TemplateBoot),
    /// The machine's own disk.
    LocalDisk,
}

/// Boots an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageBoot {
    /// Its name in the catalogue.
    pub image: String,
    /// Kernel arguments after the image's own, each checked by [`super::check_kernel_arguments`].
    pub append: Vec<String>,
    /// Variables for the script.
    pub vars: Vec<(String, Value)>,
}

/// Boots a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemplateBoot {
    /// Its name, without `.ipxe.hbs`.
    pub template: String,
    /// Variables for the script.
    pub vars: Vec<(String, Value)>,
}

/// Lets a machine wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Shown on the console.
    pub text: String,
    /// When to ask again, in milliseconds; the core's own choice if absent.
    pub again_after_ms: Option<u32>,
}

/// What a plugin answers to `discovery.discovered`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiscoveryDecision {
    /// What to do.
    pub verdict: DiscoveryVerdict,
    /// Why, in a few words; may be empty.
    pub reason: String,
}

/// A verdict on a machine that nobody knew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoveryVerdict {
    /// Becomes a known host, changed by the patch.
    Admit(Patch),
    /// Does not: it waits with this text on its console, and nothing is stored.
    Refuse(String),
}

/// A document about to be rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenderRequest {
    /// Whom it is for.
    pub host: KnownHost,
    /// Which it is: `post-install`, `user-data`, ...
    pub document: String,
    /// The variables so far: those of the core, and what plugins asked before have added under `vars`.
    pub vars: Map<String, Value>,
}

/// A change of a host's queue that is about to be committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransitionRequest {
    /// As it still is.
    pub host: KnownHost,
    /// The queue it is to have; a finished host has `finished`.
    pub to: Vec<String>,
    /// Why: `finish`, `operator`, `plugin`, `retry`.
    pub cause: String,
    /// Who: an operator's or a plugin's name; empty for the machine itself.
    pub actor: String,
}

/// A verdict on a change of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransitionVerdict {
    /// Go on.
    Allow,
    /// Go on with this queue. It may add steps that write no disk and leave steps out; it cannot order.
    Redirect(Vec<String>),
    /// Do not.
    Deny(String),
}

/// What a plugin answers to `transition.before`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionDecision {
    /// What to do.
    pub verdict: TransitionVerdict,
    /// Why, in a few words; may be empty.
    pub reason: String,
}

/// A committed event, as plugins are told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique over all: the key for doing things once.
    pub id: String,
    /// Its place on the host's timeline, from 1 on without gaps.
    pub host_seq: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What kind, by the name that the interface has for it: `finished`, `failed`, ...
    pub kind: String,
    /// The host as it is now; none when it was forgotten.
    pub host: Option<KnownHost>,
    /// What the event changed: `actor`, and the fields of its kind.
    pub detail: Map<String, Value>,
}

/// When a job runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextRun {
    /// When its period is over.
    AtPeriod,
    /// Earlier, after so many milliseconds.
    AfterMs(u32),
}

/// What a plugin tells about itself when it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// What it is for, in a sentence.
    pub summary: String,
    /// Kinds of events that it wants; `*` for all.
    pub events: Vec<String>,
    /// What it wants to run now and then.
    pub jobs: Vec<Job>,
    /// JSON Schema of its configuration.
    pub config_schema: Value,
    /// Anything else it says.
    pub more: Value,
}

/// Something that a plugin runs now and then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// How often, in seconds.
    pub period_s: u32,
}

/// Changes to a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Patch {
    /// What becomes of its name.
    pub hostname: Edit,
    /// Replaces the queue; an empty one means finished.
    pub states: Option<Vec<String>>,
    /// Names the wish behind `states`, so that it is carried out once.
    pub order: Option<String>,
    /// Dotted paths into the metadata (a dot inside a key is written `\.`) and their values.
    pub set: Vec<(String, Value)>,
    /// Dotted paths that vanish from the metadata.
    pub unset: Vec<String>,
}

/// A change to something that may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// Stays.
    #[default]
    Keep,
    /// Vanishes.
    Clear,
    /// Becomes this.
    Set(String),
}
