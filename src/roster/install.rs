//! How plugins come and go while the server runs: a component by its digest, and a file of its own in `plugins.d`.
//!
//! Invariant: a file in `plugins.d` names a component that was loaded with just these grants and is kept; nobody is allowed
//! more than before unless whoever installs says so.
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::config::{Config, PluginBinding, PluginName};
use crate::hooks::Hooks;
use crate::service::{Installation, Installed, RosterError};

use super::library::{remove_whole, write_whole};
use super::reach::{beyond, reach};
use super::slot::{Found, Load, Running, Slot};
use super::text::{binding_in, keep, written};
use super::{Inner, chain, in_order, is_installed, place, read};

/// A component that works, with its binding.
struct Prepared {
    binding: PluginBinding,
    running: Running,
    found: Found,
    /// The binding's file.
    text: String,
}

impl Inner {
    pub(super) async fn install(self: &Arc<Self>, wanted: Installation) -> Result<Installed, RosterError> {
        let mut slots = self.slots.lock().await;
        let config = self.config().await?;
        let old = slots.iter().find(|slot| slot.binding.name.as_str() == wanted.name).cloned();
        let file = config.plugins.iter().find(|binding| binding.name.as_str() == wanted.name);
        if let Some(binding) = file.filter(|binding| !is_installed(binding)) {
            return Err(RosterError::Elsewhere { name: wanted.name, file: binding.file.clone() });
        }
        let folder = file.and_then(|binding| binding.file.parent().map(Path::to_owned)).unwrap_or(config.plugins_d);
        let (widen, dry_run) = (wanted.widen, wanted.dry_run);
        let Prepared { binding, running, found, text } = self.prepare(wanted, old.as_ref(), &folder, file).await?;
        let mut record = self.record(&binding.name)?;
        if let Some(bound) = file {
            let digest = bound.digest.or_else(|| old.as_ref()?.digest()).map(|digest| digest.to_string());
            record.keep_text(digest.as_deref(), read(bound.file.clone()).await?);
        }
        record.rolled_back_to = None;
        let name = binding.name.clone();
        let status = running.plugin.status();
        let trial = Slot { binding, installed: true, record: record.clone(), running: Some(running), status };
        let new_reach = reach(&trial.binding, &trial.hooks());
        let old_reach = old.as_ref().map(|old| reach(&old.binding, &old.hooks())).unwrap_or_default();
        let mut installed = Installed {
            member: trial.member(Instant::now()),
            widened: beyond(&new_reach, &old_reach),
            narrowed: beyond(&old_reach, &new_reach),
            replaces: old.as_ref().and_then(Slot::digest).map(|digest| digest.to_string()),
        };
        if dry_run {
            return Ok(installed);
        }
        if old.is_some() && !widen && !installed.widened.is_empty() {
            let reach = installed.widened.into_iter().map(|line| line.what).collect();
            return Err(RosterError::Widened { name: name.to_string(), reach });
        }
        let path = folder.join(format!("{name}.toml"));
        let (library, kept) = (Arc::clone(&self.workshop.library), found.digest);
        let (bytes, remembered) = (found.bytes.clone(), record.clone());
        let plugin = name.clone();
        let written = spawn_blocking(move || {
            library.keep(&kept, &bytes)?;
            // With the file that is about to be replaced.
            library.remember(&plugin, &remembered)?;
            fs::DirBuilder::new().recursive(true).mode(0o750).create(&folder)?;
            write_whole(&path, text.as_bytes(), 0o640).map_err(|error| io::Error::new(error.kind(), error))
        });
        let written = written.await.map_err(|_| RosterError::Interrupted)?;
        written.map_err(|error| RosterError::File { path: trial.binding.file.clone(), error })?;
        let is_disabled = record.disabled;
        let Slot { binding, running, .. } = trial;
        let running = running.ok_or(RosterError::Interrupted)?;
        let mut slot = self.workshop.seat(binding, true, record, running, found, self.service.now()).await;
        if is_disabled {
            let binding = slot.binding.clone();
            slot = self.workshop.fill(binding, true, Some(slot), Load::IfChanged, self.service.now()).await;
        }
        installed.member = slot.member(Instant::now());
        slots.retain(|slot| slot.binding.name != name);
        slots.push(slot);
        in_order(&mut slots);
        self.publish(&slots).await;
        Ok(installed)
    }

    pub(super) async fn remove(self: &Arc<Self>, name: &str) -> Result<(), RosterError> {
        let mut slots = self.slots.lock().await;
        let place = place(&slots, name)?;
        let slot = slots.get(place).cloned().ok_or(RosterError::Interrupted)?;
        if slot.binding.name.is_default() {
            return Err(RosterError::Default("removed"));
        }
        let file = slot.binding.file.clone();
        if !slot.installed {
            return Err(RosterError::Elsewhere { name: name.to_owned(), file });
        }
        let (library, name) = (Arc::clone(&self.workshop.library), slot.binding.name.clone());
        let removed = spawn_blocking(move || {
            // What is remembered goes first: of a file that is gone nobody would ask again to forget it.
            let record = library.record_path(&name);
            let remembered = library.record(&name);
            library.forget(&name).map_err(|error| RosterError::File { path: record, error })?;
            remove_whole(&file).map_err(|error| {
                // It stays bound, and as it was: one that is switched off is not switched on by this.
                if let Err(error) = remembered.and_then(|remembered| library.remember(&name, &remembered)) {
                    tracing::error!(plugin = %name, %error, "what was remembered of a plugin is lost");
                }
                RosterError::File { path: file, error }
            })
        });
        removed.await.map_err(|_| RosterError::Interrupted)??;
        slots.remove(place);
        self.publish(&slots).await;
        Ok(())
    }

    /// The chain as it would be.
    pub(super) async fn with(self: &Arc<Self>, more: Option<Installation>) -> Result<Hooks, RosterError> {
        let mut slots = self.shown.load().as_ref().clone();
        if let Some(wanted) = more {
            let config = self.config().await?;
            let old = slots.iter().find(|slot| slot.binding.name.as_str() == wanted.name).cloned();
            let file = config.plugins.iter().find(|binding| binding.name.as_str() == wanted.name);
            let prepared = self.prepare(wanted, old.as_ref(), &config.plugins_d, file).await?;
            let Prepared { binding, running, .. } = prepared;
            let status = running.plugin.status();
            let record = old.map(|old| old.record).unwrap_or_default();
            slots.retain(|slot| slot.binding.name != binding.name);
            slots.push(Slot { binding, installed: true, record, running: Some(running), status });
            in_order(&mut slots);
        }
        chain(&slots).ok_or(RosterError::Interrupted)
    }

    /// Loads what is to be installed; nothing is written yet.
    async fn prepare(
        &self,
        wanted: Installation,
        old: Option<&Slot>,
        folder: &Path,
        bound: Option<&PluginBinding>,
    ) -> Result<Prepared, RosterError> {
        let name: PluginName = wanted.name.parse().map_err(|error| RosterError::Binding(format!("{error}")))?;
        if name.is_default() {
            return Err(RosterError::Default("installed"));
        }
        let not_loaded = |why: String| RosterError::NotLoaded { name: name.to_string(), why };
        let bytes = match (wanted.component, old.and_then(Slot::digest)) {
            (Some(bytes), _) => bytes,
            (None, Some(digest)) => {
                let library = Arc::clone(&self.workshop.library);
                let bytes = spawn_blocking(move || library.component(&digest)).await;
                bytes
                    .map_err(|_| RosterError::Interrupted)?
                    .map_err(|error| not_loaded(format!("cannot be read: {error}")))?
            }
            (None, None) => return Err(not_loaded("has no component: send one".to_owned())),
        };
        let mut binding = wanted.binding;
        let found = Found::of("its installed component".to_owned(), bytes);
        binding.insert("name".to_owned(), Value::from(name.as_str()));
        binding.insert("digest".to_owned(), Value::from(found.digest.to_string()));
        if binding.contains_key("component") {
            return Err(RosterError::Binding(
                "an installed plugin is found by its digest, not by `component`".to_owned(),
            ));
        }
        let mut table = toml::Table::try_from(&binding).map_err(|error| RosterError::Binding(error.to_string()))?;
        let mut hint = "";
        if let Some(bound) = bound.filter(|_| !wanted.grants_from_plugin) {
            let bound = binding_in(&read(bound.file.clone()).await?, &name).ok_or(RosterError::Interrupted)?;
            if keep(&mut table, &bound) {
                hint = ", with the grants, hooks and events that it is bound with: --grants-from-plugin takes its own";
            }
        }
        let text = written(&name, &table)?;
        let file = folder.join(format!("{name}.toml"));
        let binding = Config::binding(&file, table).map_err(|error| RosterError::Binding(error.to_string()))?;
        let path = self.workshop.library.path(&found.digest).display().to_string();
        let found = Found::of(path, found.bytes);
        let running = self.workshop.make(&binding, &found).await;
        let running = running.map_err(|why| not_loaded(format!("{why}{hint}")))?;
        Ok(Prepared { binding, running, found, text })
    }
}
