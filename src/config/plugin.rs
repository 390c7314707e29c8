//! `[[plugin]]`: one plugin, where it is asked and what it may do, as an operator writes it.
//!
//! Invariant: a [`PluginBinding`] grants exactly what was written. Every key is known, every word is checked, and whatever is
//! wrong is said with the file and the key, all of it at once.

mod digest;
mod read;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::hooks::{Grant, Grants, HookSet, OnError, Selector, StatesFilter};

pub use crate::domain::{PluginName, PluginNameError};
pub use digest::{Digest, DigestError};
pub(super) use read::{bindings, duplicates};

/// Orders of one run, unless the grant says otherwise.
const ORDERS_PER_RUN: u32 = 5;
/// The name under which the default plugin is configured.
pub const DEFAULT_PLUGIN: &str = PluginName::DEFAULT;

/// One `[[plugin]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginBinding {
    /// The instance's name.
    pub name: PluginName,
    /// Where it is written.
    pub file: PathBuf,
    /// The component's file; none: found by the digest among those that were installed, else by the name in the plugins folder.
    pub component: Option<PathBuf>,
    /// The only component that may run.
    pub digest: Option<Digest>,
    /// Where it is asked; none: in all hooks that it exports.
    pub hooks: Option<HookSet>,
    /// For hosts in which states it is asked.
    pub states: StatesFilter,
    /// About which hosts it is asked and told.
    pub selector: Selector,
    /// The same as it was written, for people.
    pub selector_text: Vec<(String, Value)>,
    /// Kinds of events that it is told of, of those that it wants; none: all that it wants.
    pub events: Option<Vec<String>>,
    /// Low first; ties by name.
    pub priority: i32,
    /// What its failure means for a host that is not finished.
    pub on_error: OnError,
    /// What the plugin itself is told: an object.
    pub config: Value,
    /// What it may import and do.
    pub grant: PluginGrant,
}

/// `[plugin.grant]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginGrant {
    /// What it may read and change of hosts.
    pub hosts: BTreeSet<Grant>,
    /// Orders of one run; above, it stops and waits for `kiwispray plugin approve`.
    pub max_orders_per_run: u32,
    /// Whether it has a store of its own.
    pub kv: bool,
    /// Whether it may ask for the names of images and templates.
    pub catalog: bool,
    /// `[[plugin.grant.http]]` as written; the plugin host reads the rules.
    pub http: Vec<toml::Table>,
    /// `[plugin.grant.signing]`: names of secrets, and the secrets as written.
    pub signing: toml::Table,
}

impl PluginGrant {
    /// The part that the core checks.
    #[must_use]
    pub fn core(&self) -> Grants {
        Grants { hosts: self.hosts.clone(), kv: self.kv, max_orders_per_run: self.max_orders_per_run }
    }
}
