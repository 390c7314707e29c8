//! What people may do with plugins while the server runs; the roster implements it, `app` injects it into the admin plane.
//!
//! Invariant: whatever is refused has changed nothing, and whatever was answered is durable.
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::hooks::{About, BreakerState, Hook, Hooks, LogLine, OnError, PluginStatus};

/// All plugins that are bound, and how they come and go.
pub trait Roster: Send + Sync {
    /// Every plugin in the order in which they are asked, the default plugin last.
    fn members(&self) -> Vec<Member>;

    /// The newest lines that a plugin of this name wrote since the server started, oldest first.
    fn log_lines(&self, name: &str) -> Vec<LogLine>;

    /// Reads configuration, components and secrets again, all of them or one plugin's. What did not change is left as it is;
    /// a plugin that is named is loaded again in any case, which ends its rollback and closes its breakers.
    fn reload(&self, name: Option<String>) -> BoxFuture<'_, Result<Vec<Reloaded>, RosterError>>;

    /// Runs the component that ran before the present one, until the next install, or reload by name.
    fn rollback(&self, name: String) -> BoxFuture<'_, Result<Member, RosterError>>;

    /// Whether a plugin is asked at all; survives restarts.
    fn set_enabled(&self, name: String, enabled: bool) -> BoxFuture<'_, Result<Member, RosterError>>;

    /// Takes in a component and its binding, or in a dry run only looks at them.
    fn install(&self, wanted: Installation) -> BoxFuture<'_, Result<Installed, RosterError>>;

    /// Takes an installed plugin out.
    fn remove(&self, name: String) -> BoxFuture<'_, Result<(), RosterError>>;

    /// The plugins as they would be with one more, or another one of its name, for a rehearsal. None: as they are.
    fn with(&self, more: Option<Installation>) -> BoxFuture<'_, Result<Hooks, RosterError>>;
}

/// A bound plugin as people see it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The instance's name.
    pub name: String,
    /// Whether it works.
    pub status: PluginStatus,
    /// What it told about itself.
    pub about: About,
    /// Where its binding is written; none for a default plugin that nobody configured.
    pub file: Option<PathBuf>,
    /// Whether `kiwispray plugin install` brought it.
    pub installed: bool,
    /// The hooks it is asked in.
    pub hooks: Vec<Hook>,
    /// For hosts in which states.
    pub states: Vec<String>,
    /// For which hosts.
    pub selector: Map<String, Value>,
    /// Low first.
    pub priority: i32,
    /// What its failure means.
    pub on_error: OnError,
    /// What it is told.
    pub config: Value,
    /// What it may do, in words.
    pub reach: Vec<Reach>,
    /// Hooks in which it is not asked for a while, as it broke again and again.
    pub breakers: Vec<(Hook, BreakerState)>,
    /// Whether it was put back to an earlier component.
    pub rolled_back: bool,
    /// The components that ran, newest last.
    pub history: Vec<Kept>,
}

/// One thing that a plugin may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// As it is granted: `hosts: states`.
    pub what: String,
    /// What that means, in a sentence.
    pub meaning: String,
}

/// A component that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `sha256:<hex>`
    pub digest: String,
    /// The version it told.
    pub version: String,
    /// When it was first loaded.
    pub at: Timestamp,
}

/// What became of a plugin when everything was read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The instance's name.
    pub name: String,
    /// What.
    pub change: Reload,
}

/// What became of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Nothing: it goes on as it is.
    Unchanged,
    /// It is bound now.
    Added,
    /// Its component, configuration, grants, secrets or binding are others, or it was named and loaded again.
    Changed,
    /// It is bound no longer.
    Removed,
    /// It could not be loaded: see its status.
    Failed,
}

/// A component to be taken in.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The instance's name.
    pub name: String,
    /// The binding, as a `[[plugin]]` in JSON; `name` and `digest` are added. Of one that is bound already, `grant`, `hooks`
    /// and `events` stay as its operator wrote them.
    pub binding: Map<String, Value>,
    /// The component; none: that of the plugin as it is bound.
    pub component: Option<Vec<u8>>,
    /// Whether it may be allowed more than the one it replaces.
    pub widen: bool,
    /// Whether `grant`, `hooks` and `events` are those of `binding`, even if the plugin is bound with others.
    pub grants_from_plugin: bool,
    /// Only look at it.
    pub dry_run: bool,
}

/// A component that was taken in, or would be.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The plugin, as it is bound now or would be.
    pub member: Member,
    /// What it may do that the one it replaces may not; everything if it replaces none.
    pub widened: Vec<Reach>,
    /// What the one it replaces may do and it may not.
    pub narrowed: Vec<Reach>,
    /// The digest of the one it replaces.
    pub replaces: Option<String>,
}

/// How alike a name must be to be suggested, from 0 to 1.
const SUGGESTION_LIKENESS: f64 = 0.6;

impl RosterError {
    /// There is no plugin of this name, but there may be one that is meant.
    #[must_use]
    pub fn not_found<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Self {
        let likeness = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
        let best = names.map(|known| (likeness(known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
        let meant = best.filter(|(likeness, _)| *likeness >= SUGGESTION_LIKENESS).map(|(_, known)| known.to_owned());
        Self::NotFound { name: name.chars().take(80).collect(), meant }
    }
}

/// Why something was not done with plugins.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// There is no such plugin.
    #[error("there is no plugin {name}{}", meant.as_ref().map(|meant| format!("; is {meant} meant?")).unwrap_or_default())]
    NotFound {
        /// The name.
        name: String,
        /// One that looks like it.
        meant: Option<String>,
    },
    /// The configuration as it is written now cannot be used.
    #[error("the configuration is wrong, so nothing was changed:\n{0}")]
    Config(String),
    /// The binding that came with a component cannot be used.
    #[error("{0}")]
    Binding(String),
    /// The component does not work.
    #[error("the plugin {name} {why}; nothing was changed")]
    NotLoaded {
        /// Its name.
        name: String,
        /// Continues the sentence.
        why: String,
    },
    /// It may do more than the one it replaces, and nobody agreed to that.
    #[error("this would allow the plugin {name} more than now: {}", reach.join(", "))]
    Widened {
        /// Its name.
        name: String,
        /// What.
        reach: Vec<String>,
    },
    /// There is nothing to go back to.
    #[error("the plugin {0} has no earlier component that worked")]
    NothingBefore(String),
    /// A person wrote the binding, so a person has to change it.
    #[error("the plugin {name} is bound in {}: change it there, then `kiwispray plugin reload {name}`", file.display())]
    Elsewhere {
        /// Its name.
        name: String,
        /// Where.
        file: PathBuf,
    },
    /// The default plugin is always there.
    #[error(
        "the default plugin cannot be {0}: hosts would have nothing that boots them; bind another plugin before it"
    )]
    Default(&'static str),
    /// A file cannot be written or read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The work was broken off.
    #[error("the server was interrupted in the middle of this")]
    Interrupted,
}
