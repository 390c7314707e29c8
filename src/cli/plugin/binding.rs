//! A component and its binding as they go to the server: what `plugin.toml` wants, what is bound already, what flags say.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use super::super::client::Client;
use super::super::error::{CliError, Exit, Result};
use crate::wire::{InstallPlugin, PluginDetail};
use crate::workbench::Manifest;

/// The binding of a plugin that is to be installed or tried.
#[derive(Debug, Clone, Args)]
pub(crate) struct BindingArgs {
    /// Bind it under this name [default: the plugin's own]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its configuration, in TOML or JSON [default: as it is bound; at first the example of its plugin.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For hosts in which states it is asked [default: as it is bound; at first *, which leaves out finished]
    #[arg(long, value_name = "STATES", value_delimiter = ',')]
    states: Option<Vec<String>>,
    /// For which hosts, such as metadata.site=fra1 (several: all must be true) [default: as it is bound; at first all]
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
    /// When it is asked: low first [default: as it is bound; at first 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// What its failure means for a host: hold, or skip to the next plugin [default: as it is bound; at first hold]
    #[arg(long, value_name = "WHAT", value_parser = ["hold", "skip"])]
    on_error: Option<String>,
    /// Take grants, hooks and events from plugin.toml [default: as it is bound; at first those of plugin.toml]
    #[arg(long)]
    grants_from_plugin: bool,
}

/// Ready to be sent.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The instance's name.
    pub(crate) name: String,
    /// The component's file.
    pub(crate) file: PathBuf,
    /// Whether a plugin of this name is bound.
    pub(crate) is_bound: bool,
    binding: Map<String, Value>,
    component: Vec<u8>,
    grants_from_plugin: bool,
}

impl Wanted {
    /// Reads a component, or the folder that it stands in, and puts its binding together.
    pub(crate) async fn read(client: &Client, path: &Path, args: &BindingArgs) -> Result<Self> {
        let (file, folder) = if path.is_dir() {
            let manifest = Manifest::read(path).map_err(|error| CliError::usage(error.to_string()))?;
            (manifest.component(path), Some((manifest, path.to_owned())))
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // What stands beside it is about it only if it says so.
            let manifest = folder.join("plugin.toml").exists().then(|| Manifest::read(folder)).transpose();
            let manifest = manifest.map_err(|error| CliError::usage(error.to_string()))?;
            let own = |manifest: &Manifest| manifest.component(folder).file_name() == path.file_name();
            (path.to_owned(), manifest.filter(own).map(|manifest| (manifest, folder.to_owned())))
        };
        let component = fs::read(&file).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                let path = file.display();
                return CliError::not_found(format!(
                    "there is no component {path}: is the plugin built? `kiwispray plugin build` does it"
                ));
            }
            CliError::failed(format!("{}: {error}", file.display()))
        })?;
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let own = folder.as_ref().map(|(manifest, _)| manifest.name.to_string());
        let name = args.name.clone().or(own).unwrap_or(stem);
        let bound = bound(client, &name).await?;
        let mut binding = Map::new();
        if let Some((manifest, folder)) = &folder {
            let hooks = manifest.hooks.iter().map(|hook| Value::from(hook.to_string()));
            binding.insert("hooks".to_owned(), hooks.collect());
            let written = table(&folder.join("plugin.toml"))?;
            for key in ["grant", "config"] {
                binding.extend(written.get(key).map(|value| (key.to_owned(), value.clone())));
            }
        }
        if let Some(bound) = &bound {
            binding.extend(kept(bound));
        }
        args.add_to(&mut binding)?;
        let grants_from_plugin = args.grants_from_plugin;
        if grants_from_plugin && folder.is_none() {
            return Err(CliError::usage(format!("there is no plugin.toml beside {}", file.display())));
        }
        Ok(Self { name, file, is_bound: bound.is_some(), binding, component, grants_from_plugin })
    }

    /// The body of a request.
    pub(crate) fn body(&self, widen: bool, dry_run: bool) -> Result<Vec<u8>> {
        let grants_from_plugin = self.grants_from_plugin;
        let head = InstallPlugin { binding: self.binding.clone(), widen, grants_from_plugin, dry_run };
        let mut body = serde_json::to_vec(&head).map_err(|error| CliError::failed(error.to_string()))?;
        body.push(b'\n');
        body.extend(&self.component);
        Ok(body)
    }
}

impl BindingArgs {
    fn add_to(&self, binding: &mut Map<String, Value>) -> Result {
        let mut add = |key: &str, value: Value| binding.insert(key.to_owned(), value);
        if let Some(path) = &self.config {
            add("config", Value::Object(table(path)?));
        }
        if let Some(states) = &self.states {
            add("states", states.clone().into());
        }
        if let Some(priority) = self.priority {
            add("priority", priority.into());
        }
        if let Some(on_error) = &self.on_error {
            add("on_error", on_error.clone().into());
        }
        if !self.conditions.is_empty() {
            let fields = self.conditions.iter().map(|condition| {
                let (field, value) = condition
                    .split_once('=')
                    .ok_or_else(|| CliError::usage(format!("{condition:?} is no FIELD=VALUE")))?;
                let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
                Ok((field.trim().to_owned(), value))
            });
            add("where", Value::Object(fields.collect::<Result<_>>()?));
        }
        Ok(())
    }
}

/// The plugin as it is bound, if it is.
async fn bound(client: &Client, name: &str) -> Result<Option<PluginDetail>> {
    match client.get::<PluginDetail>(&super::path(name)).await {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if error.exit == Exit::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What another component of the same plugin keeps.
fn kept(bound: &PluginDetail) -> [(String, Value); 5] {
    [
        ("config".to_owned(), bound.config.clone()),
        ("states".to_owned(), bound.states.clone().into()),
        ("where".to_owned(), Value::Object(bound.selector.clone())),
        ("priority".to_owned(), bound.priority.into()),
        ("on_error".to_owned(), bound.on_error.clone().into()),
    ]
}

/// A file of TOML or JSON.
fn table(path: &Path) -> Result<Map<String, Value>> {
    let wrong = |why: String| CliError::usage(format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).map_err(|error| wrong(error.to_string()));
    }
    let table: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
    match serde_json::to_value(table) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(wrong("a table is expected".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}
