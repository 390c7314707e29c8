//! Where a plugin is asked, in which order, and what its failure means. All of it comes from the configuration; nothing is
//! inferred.
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::types::FINISHED;
use super::{Breakers, Hook, HookSet, KnownHost, Plugin, parse_path};

/// One plugin, and where it is asked.
#[derive(Clone)]
pub struct Binding {
    /// Whom to ask.
    pub plugin: Arc<dyn Plugin>,
    /// Where; none: in all hooks that it exports.
    pub hooks: Option<HookSet>,
    /// Low first; ties by name.
    pub priority: i32,
    /// For hosts in which states it is asked what they boot, and for variables. The other hooks look at changes, for which
    /// a host's current state says little.
    pub states: StatesFilter,
    /// About which hosts it is asked and told, in all hooks.
    pub selector: Selector,
    /// Kinds of events that it is told of, of those that it wants; none: all that it wants.
    pub events: Option<Vec<String>>,
    /// What its failure means for a host that is not finished.
    pub on_error: OnError,
    /// What its answers may change.
    pub grants: BTreeSet<Grant>,
    /// Keep it from being asked while it breaks.
    pub breakers: Arc<Breakers>,
}

impl Binding {
    /// A plugin asked for all hosts that are not finished, that may change nothing and whose failure holds.
    #[must_use]
    pub fn new(plugin: Arc<dyn Plugin>) -> Self {
        Self {
            plugin,
            hooks: None,
            priority: 0,
            states: StatesFilter::unfinished(),
            selector: Selector::default(),
            events: None,
            on_error: OnError::Hold,
            grants: BTreeSet::new(),
            breakers: Arc::default(),
        }
    }

    /// Whether it is bound to this hook, and exports it.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.hooks.as_ref().is_none_or(|hooks| hooks.contains(&hook)) && self.plugin.hooks().contains(&hook)
    }

    /// Whether it is told of events of this kind: both the plugin and the configuration name it, or `*`.
    #[must_use]
    pub fn wants_event(&self, wanted: &[String], kind: &str) -> bool {
        let names = |kinds: &[String]| kinds.iter().any(|name| name == "*" || name == kind);
        names(wanted) && self.events.as_deref().is_none_or(names)
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("plugin", &self.plugin.name())
            .field("hooks", &self.hooks)
            .field("priority", &self.priority)
            .field("states", &self.states)
            .field("selector", &self.selector)
            .field("events", &self.events)
            .field("on_error", &self.on_error)
            .field("grants", &self.grants)
            .finish_non_exhaustive()
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

/// What a plugin may do with hosts, in its answers and with the import `hosts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// Reading them by the import `hosts`.
    Read,
    /// Changing the hostname of a known host. (A machine that is being discovered may always be named.)
    Hostname,
    /// Changing the metadata of a known host. (As above.)
    Metadata,
    /// Giving states: the first ones of a machine that is being discovered, beyond `discover` and `new`, and those of known
    /// hosts that are not finished.
    States,
    /// Giving states to a finished host, under an order's name that was never used for it.
    Reinstall,
    /// Letting a finished host wait.
    HoldFinished,
}

/// Which hosts: all those for which every named value is this one. Written `{ "metadata.site" = "fra1" }`; besides metadata
/// `hostname` and `serial` can be named.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector(Vec<(Field, Value)>);

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Hostname,
    Serial,
    Metadata(Vec<String>),
}

/// The text names nothing by which hosts can be selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` selects nothing: hostname, serial or metadata.<path> is expected")]
pub struct SelectorError(String);

impl Selector {
    /// Of names and the values they must have.
    ///
    /// # Errors
    /// A name that is none.
    pub fn new(fields: impl IntoIterator<Item = (String, Value)>) -> Result<Self, SelectorError> {
        let parse = |(name, value): (String, Value)| {
            let field = match name.as_str() {
                "hostname" => Some(Field::Hostname),
                "serial" => Some(Field::Serial),
                path => path.strip_prefix("metadata.").and_then(parse_path).map(Field::Metadata),
            };
            field.map(|field| (field, value)).ok_or(SelectorError(name))
        };
        fields.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether all hosts are meant.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a host is meant. Texts are compared as they are, serial numbers without regard to case.
    #[must_use]
    pub fn takes(&self, host: &KnownHost) -> bool {
        self.0.iter().all(|(field, wanted)| match field {
            Field::Hostname => wanted.as_str() == host.hostname.as_deref() && wanted.is_string(),
            Field::Serial => wanted.as_str().is_some_and(|wanted| wanted.eq_ignore_ascii_case(&host.serial)),
            Field::Metadata(path) => {
                let (first, rest) = match path.split_first() {
                    Some(split) => split,
                    None => return false,
                };
                let value = host.metadata.get(first);
                rest.iter().fold(value, |value, key| value.and_then(|value| value.get(key))) == Some(wanted)
            }
        })
    }
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

    #[test]
    fn a_selector_compares_metadata_by_path_and_takes_all_when_empty() {
        let mut host = super::super::native::tests::host("web");
        host.metadata.insert("rack".into(), serde_json::json!({"row": 7}));
        let selector = |name: &str, value: Value| Selector::new([(name.to_owned(), value)]).unwrap();
        assert!(Selector::default().takes(&host));
        assert!(selector("metadata.rack.row", 7.into()).takes(&host));
        assert!(!selector("metadata.rack.row", "7".into()).takes(&host));
        assert!(!selector("metadata.site", Value::Null).takes(&host));
        assert!(selector("serial", "s7".into()).takes(&host) && selector("hostname", "node7".into()).takes(&host));
        assert!(Selector::new([("site".to_owned(), Value::Null)]).is_err());
    }
}
