//! Loads everything that is bound as a server would, for whoever only wants to know whether that works.
//!
//! Invariant: nothing is written and nothing is bound.

use std::sync::Arc;

use crate::config::{Config, PluginBinding};
use crate::hooks::PluginStatus;
use crate::plugin_host::PluginHost;

use super::bindings;
use super::library::{Library, Record};
use super::slot::Workshop;

/// A bound plugin that was loaded, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The instance's name.
    pub name: String,
    /// Whether and why not; the sentence continues the name.
    pub outcome: Outcome,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works, in this version.
    Works(String),
    /// An operator switched it off.
    Disabled,
    /// It does not; the sentence continues the name.
    Broken(String),
}

/// Loads every bound plugin, one after the other.
pub async fn look(config: &Config, host: Result<PluginHost, String>) -> Vec<Looked> {
    let library = Arc::new(Library::new(&config.data_dir));
    let workshop = Workshop { host, library, plugins_dir: config.plugins_dir.clone() };
    let mut all = Vec::new();
    for binding in bindings(config) {
        let outcome = match workshop.library.record(&binding.name) {
            Ok(record) if record.disabled => Outcome::Disabled,
            Ok(record) => load(&workshop, &binding, &record).await,
            Err(error) => {
                let path = workshop.library.record_path(&binding.name);
                Outcome::Broken(format!("is not known to be switched on: {}: {error}", path.display()))
            }
        };
        all.push(Looked { name: binding.name.to_string(), outcome });
    }
    all
}

async fn load(workshop: &Workshop, binding: &PluginBinding, record: &Record) -> Outcome {
    match (workshop.find(binding, record).await, &workshop.host) {
        (Err(why), _) => Outcome::Broken(why),
        (Ok(Some(found)), _) => match workshop.make(binding, &found).await {
            Ok(running) => outcome(&running.plugin.status()),
            Err(why) => Outcome::Broken(why),
        },
        // The default plugin that is part of this program.
        (Ok(None), Ok(host)) => outcome(&host.load_default(None, binding.config.clone()).await.status()),
        (Ok(None), Err(why)) => Outcome::Broken(why.clone()),
    }
}

fn outcome(status: &PluginStatus) -> Outcome {
    match status {
        PluginStatus::Ready { version, .. } => Outcome::Works(version.clone()),
        PluginStatus::Disabled => Outcome::Disabled,
        PluginStatus::Degraded { why, .. } | PluginStatus::Unavailable { why, .. } => Outcome::Broken(why.clone()),
    }
}
