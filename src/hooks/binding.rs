//! Where a plugin is asked, in which order, and what its failure means. All of it comes from the configuration; nothing is
//! inferred.
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Plugin;
use super::types::FINISHED;

/// One plugin in the chain.
#[derive(Clone)]
pub struct Binding {
    /// Whom to ask.
    pub plugin: Arc<dyn Plugin>,
    /// Low first; ties by name.
    pub priority: i32,
    /// For hosts in which states it is asked what they boot. Unknown machines have none: all are asked about them.
    pub states: StatesFilter,
    /// What its failure means for a host that is not finished.
    pub on_error: OnError,
    /// What its answers may change.
    pub grants: BTreeSet<Grant>,
}

impl Binding {
    /// A plugin asked for all hosts that are not finished, that may change nothing and whose failure holds.
    #[must_use]
    pub fn new(plugin: Arc<dyn Plugin>) -> Self {
        Self {
            plugin,
            priority: 0,
            states: StatesFilter::unfinished(),
            on_error: OnError::Hold,
            grants: BTreeSet::new(),
        }
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("plugin", &self.plugin.name())
            .field("priority", &self.priority)
            .field("states", &self.states)
            .field("on_error", &self.on_error)
            .field("grants", &self.grants)
            .finish()
    }
}

/// What the failure of a plugin means for a host that is not finished. A finished one gets its local disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The host waits.
    #[default]
    Hold,
    /// The next plugin is asked.
    Skip,
}

/// What a plugin's answers may change. What its component may import is granted where it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// The hostname of a known host. (A machine that is being discovered may always be named.)
    Hostname,
    /// The metadata of a known host. (As above.)
    Metadata,
    /// The first states of a machine that is being discovered, beyond `discover` and `new`. Orders for known hosts do not
    /// exist in decision hooks yet.
    States,
    /// Letting a finished host wait.
    HoldFinished,
}

/// For which current states a plugin is asked: `*` means all but `finished`, which must be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct StatesFilter {
    all_unfinished: bool,
    named: BTreeSet<String>,
}

impl StatesFilter {
    /// `["*"]`.
    #[must_use]
    pub fn unfinished() -> Self {
        Self { all_unfinished: true, named: BTreeSet::new() }
    }

    /// Whether a host in this state is asked about.
    #[must_use]
    pub fn takes(&self, state: &str) -> bool {
        (self.all_unfinished && state != FINISHED) || self.named.contains(state)
    }
}

impl From<Vec<String>> for StatesFilter {
    fn from(mut states: Vec<String>) -> Self {
        let before = states.len();
        states.retain(|state| state != "*");
        Self { all_unfinished: states.len() < before, named: states.into_iter().collect() }
    }
}

impl From<StatesFilter> for Vec<String> {
    fn from(filter: StatesFilter) -> Self {
        let star = filter.all_unfinished.then(|| "*".to_owned());
        star.into_iter().chain(filter.named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(states: &[&str]) -> StatesFilter {
        states.iter().map(|state| (*state).to_owned()).collect::<Vec<_>>().into()
    }

    #[test]
    fn a_star_leaves_out_finished() {
        assert!(filter(&["*"]).takes("new") && filter(&["*"]).takes("web"));
        assert!(!filter(&["*"]).takes("finished"));
        assert!(filter(&["*", "finished"]).takes("finished"));
    }

    #[test]
    fn named_states_are_taken_alone() {
        assert!(filter(&["web"]).takes("web"));
        assert!(!filter(&["web"]).takes("new") && !filter(&[]).takes("new"));
    }
}
