//! What the core gets out of a chain: one answer, what to commit with it, and how it came about.
use serde::{Deserialize, Serialize};

use super::{BootPlan, Hold, KnownHost, Patch, Trace};

/// What a host boots, and how that came about.
#[derive(Clone, Debug, PartialEq)]
pub struct BootOutcome {
    /// What to do.
    pub answer: BootAnswer,
    /// Who said so.
    pub decided_by: DecidedBy,
    /// Why, in a few words; may be empty.
    pub reason: String,
    /// To commit with the decision, in this order. Empty whenever a failure decided.
    pub patches: Vec<GivenPatch>,
    /// Everything that was said.
    pub trace: Trace,
}

/// What to do with a host that wants to boot. An image that writes a disk counts only if it is the host's current state,
/// which whoever acts on this must check against the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootAnswer {
    /// Boot this.
    Boot(BootPlan),
    /// Wait.
    Hold(Hold),
}

/// Where an answer comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecidedBy {
    /// A plugin's verdict.
    Plugin(String),
    /// A plugin's failure.
    FailureOf(String),
    /// No plugin had an opinion.
    Nobody,
}

/// A patch and who gave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenPatch {
    /// The plugin's name.
    pub plugin: String,
    /// What it changes.
    pub patch: Patch,
}

/// What becomes of an unknown machine, and how that came about.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoveryOutcome {
    /// What to do.
    pub answer: DiscoveryAnswer,
    /// The wish behind the states that the machine is admitted with: by the last plugin that named one.
    pub order: Option<String>,
    /// Everything that was said.
    pub trace: Trace,
}

/// What to do with an unknown machine.
#[derive(Clone, Debug, PartialEq)]
pub enum DiscoveryAnswer {
    /// Store it with this name, these states and this metadata.
    Admit(Box<KnownHost>),
    /// Store nothing.
    Refuse {
        /// Who refused.
        plugin: String,
        /// The console's text.
        text: String,
    },
}
