//! One plugin's place: from a binding to something that can be asked, whatever state its file is in.
//!
//! Invariant: what runs was allowed by the binding as it is written now. A broken file or configuration leaves the last
//! component that worked in its place if the grants are the same, else one that works with the grants of now and is asked
//! wherever the one that should run is, else a stand-in that fails every call there: what guarded something goes on to.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::task::spawn_blocking;

use crate::config::{Digest, PluginBinding, PluginGrant};
use crate::hooks::{About, Binding, Breakers, Hook, HookSet, Plugin, PluginStatus};
use crate::plugin_host::{BrokenPlugin, Component, Interface, PluginHost, SecretText, egress::Rule};
use crate::service::{Kept, Member};

use super::library::{Library, Ran, Record, read_component};
use super::reach::reach;
use super::secrets::fingerprint;

/// How far back an earlier component is looked for.
const FALL_BACKS: usize = 3;

/// A bound plugin.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) binding: PluginBinding,
    /// Whether the binding was written by `kiwispray plugin install`.
    pub(super) installed: bool,
    pub(super) record: Record,
    /// None while it is switched off.
    pub(super) running: Option<Running>,
    pub(super) status: PluginStatus,
}

/// Something that can be asked.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) plugin: Arc<dyn Plugin>,
    pub(super) breakers: Arc<Breakers>,
    /// What it was made of; none for a stand-in, which is never kept.
    key: Option<Key>,
}

#[derive(Clone, Debug, PartialEq)]
struct Key {
    /// None: the default plugin that is part of this program.
    digest: Option<Digest>,
    config: Value,
    grant: PluginGrant,
    /// Of what is in the files that the grant names.
    secrets: Digest,
}

/// When a plugin is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// If it is not what runs already.
    IfChanged,
    /// In any case: somebody wants its breakers closed, or does not trust what runs.
    Anew,
}

/// What plugins are made with.
pub(super) struct Workshop {
    /// Or why there is none.
    pub(super) host: Result<PluginHost, String>,
    pub(super) library: Arc<Library>,
    pub(super) plugins_dir: PathBuf,
}

/// A component's bytes.
pub(super) struct Found {
    origin: String,
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
}

impl Found {
    pub(super) fn of(origin: String, bytes: Vec<u8>) -> Self {
        Self { origin, digest: Digest::of(&bytes), bytes }
    }
}

impl Workshop {
    /// Fills a slot, and keeps what runs in the old one if it is the same and nobody wants it loaded anew.
    pub(super) async fn fill(
        &self,
        binding: PluginBinding,
        installed: bool,
        old: Option<Slot>,
        load: Load,
        now: Timestamp,
    ) -> Slot {
        let record = match self.library.record(&binding.name) {
            Ok(record) => record,
            Err(error) => return self.unremembered(binding, installed, old, &error),
        };
        if record.disabled {
            return Slot { binding, installed, record, running: None, status: PluginStatus::Disabled };
        }
        let found = match self.find(&binding, &record).await {
            Ok(Some(found)) => found,
            Ok(None) => return self.embedded(binding, record, old.filter(|_| load == Load::IfChanged)).await,
            Err(why) => return self.fall_back(binding, installed, record, old, None, why).await,
        };
        let digest = found.digest;
        let wanted = key(&binding, Some(digest)).await;
        let old = match old {
            Some(Slot { running: Some(running), .. })
                if load == Load::IfChanged
                    && running.key.as_ref() == Some(&wanted)
                    && exports(&binding, &running.plugin.hooks()).is_ok() =>
            {
                let status = running.plugin.status();
                return Slot { binding, installed, record, running: Some(running), status };
            }
            old => old,
        };
        match self.make(&binding, &found).await {
            Ok(running) => self.seat(binding, installed, record, running, found, now).await,
            Err(why) => self.fall_back(binding, installed, record, old, Some(digest), why).await,
        }
    }

    /// Gives a plugin that works its slot, and remembers it.
    pub(super) async fn seat(
        &self,
        binding: PluginBinding,
        installed: bool,
        mut record: Record,
        running: Running,
        found: Found,
        now: Timestamp,
    ) -> Slot {
        let status = running.plugin.status();
        if record.rolled_back_to().is_some_and(|back| back != found.digest) {
            record.rolled_back_to = None;
        }
        if record.rolled_back_to.is_none() {
            let version = if let PluginStatus::Ready { version, .. } = &status { version.as_str() } else { "" };
            record.ran(&found.digest, version, running.plugin.hooks(), now);
        }
        let (library, name, remembered) = (Arc::clone(&self.library), binding.name.clone(), record.clone());
        let kept = spawn_blocking(move || {
            library.keep(&found.digest, &found.bytes)?;
            if library.record(&name)? == remembered { Ok(()) } else { library.remember(&name, &remembered) }
        });
        if let Ok(Err(error)) = kept.await {
            // It works all the same; only there is no way back to it.
            tracing::error!(plugin = %binding.name, %error, "a component that works could not be kept");
        }
        Slot { binding, installed, record, running: Some(running), status }
    }

    /// Loads a component. The error continues the plugin's name.
    pub(super) async fn make(&self, binding: &PluginBinding, found: &Found) -> Result<Running, String> {
        let host = self.host.as_ref().map_err(Clone::clone)?;
        let (http, signing) = egress(&binding.grant)?;
        let component = Component {
            http,
            signing,
            name: binding.name.to_string(),
            origin: found.origin.clone(),
            bytes: found.bytes.clone(),
            imports: imports(&binding.grant),
            grants: binding.grant.core(),
            config: binding.config.clone(),
        };
        // Before they are read to be used: of a secret that is rotated meanwhile, the next reload takes notice.
        let key = key(binding, Some(found.digest)).await;
        let plugin = host.load(component).await.map_err(|error| error.to_string())?;
        exports(binding, &plugin.hooks())?;
        Ok(Running { plugin, breakers: Arc::default(), key: Some(key) })
    }

    /// The component that a binding means; none for the default plugin that is part of this program.
    pub(super) async fn find(&self, binding: &PluginBinding, record: &Record) -> Result<Option<Found>, String> {
        let (library, plugins_dir) = (Arc::clone(&self.library), self.plugins_dir.clone());
        let (binding, back) = (binding.clone(), record.rolled_back_to());
        let found = spawn_blocking(move || find(&binding, back, &library, &plugins_dir)).await;
        found.map_err(|_| "could not be read: the server was interrupted".to_owned())?
    }

    /// The default plugin that is part of this program.
    async fn embedded(&self, binding: PluginBinding, record: Record, old: Option<Slot>) -> Slot {
        let wanted = key(&binding, None).await;
        let running = match (old.and_then(|old| old.running), &self.host) {
            (Some(running), _) if running.key.as_ref() == Some(&wanted) => running,
            (_, Ok(host)) => {
                let plugin = host.load_default(None, binding.config.clone()).await;
                let key = plugin.status().is_ready().then_some(wanted);
                Running { plugin, breakers: Arc::default(), key }
            }
            (_, Err(why)) => stand_in(&binding, &record, "built in", why),
        };
        let status = running.plugin.status();
        Slot { binding, installed: false, record, running: Some(running), status }
    }

    /// Nobody knows whether this plugin was switched off, or rolled back: what stands there stays, else nothing runs.
    fn unremembered(&self, binding: PluginBinding, installed: bool, old: Option<Slot>, error: &std::io::Error) -> Slot {
        let path = self.library.record_path(&binding.name);
        let why = format!(
            "is held back, as nobody knows whether it was switched off: {}: {error}; repair that file, or remove it to begin anew",
            path.display()
        );
        if let Some(mut slot) = old.as_ref().filter(|old| old.binding == binding).cloned() {
            tracing::error!(plugin = %binding.name, why, "what was remembered of a plugin cannot be read");
            if let Some(running) = &slot.running {
                slot.status = degraded(running, &why);
            }
            return slot;
        }
        let record = old.map(|old| old.record).unwrap_or_default();
        let running = stand_in(&binding, &record, &path.display().to_string(), &why);
        let status = running.plugin.status();
        Slot { binding, installed, record, running: Some(running), status }
    }

    /// The last component that worked, or a stand-in.
    async fn fall_back(
        &self,
        binding: PluginBinding,
        installed: bool,
        record: Record,
        old: Option<Slot>,
        broken: Option<Digest>,
        why: String,
    ) -> Slot {
        tracing::error!(plugin = %binding.name, why, "a plugin could not be loaded");
        let may = |digest: &Digest| binding.digest.is_none_or(|pinned| pinned == *digest);
        let runs = old.and_then(|old| old.running).filter(|running| {
            let key = running.key.as_ref();
            let same = key.is_some_and(|key| key.grant == binding.grant && key.digest.as_ref().is_some_and(may));
            same && exports(&binding, &running.plugin.hooks()).is_ok()
        });
        if let Some(running) = runs {
            let status = degraded(&running, &why);
            return Slot { binding, installed, record, running: Some(running), status };
        }
        let standing = record.standing();
        let earlier = record.history.iter().rev().filter_map(|ran| ran.digest.parse::<Digest>().ok());
        // `make` sees to it that hooks which the binding names are exported.
        let guarded = match &binding.hooks {
            Some(hooks) => hooks.clone(),
            None => hooks_of(standing),
        };
        let is_standing = |digest: &Digest| standing.is_some_and(|ran| ran.digest == digest.to_string());
        for digest in earlier.filter(|digest| Some(*digest) != broken && may(digest)).take(FALL_BACKS) {
            let (library, path) = (Arc::clone(&self.library), self.library.path(&digest));
            let Ok(Ok(bytes)) = spawn_blocking(move || library.component(&digest)).await else { continue };
            let found = Found { origin: path.display().to_string(), digest, bytes };
            if let Ok(running) = self.make(&binding, &found).await
                && (guarded.is_subset(&running.plugin.hooks()) || is_standing(&digest))
            {
                let status = degraded(&running, &why);
                return Slot { binding, installed, record, running: Some(running), status };
            }
        }
        let origin = binding.component.as_ref().map_or_else(|| binding.file.clone(), Clone::clone);
        let running = stand_in(&binding, &record, &origin.display().to_string(), &why);
        let status = running.plugin.status();
        Slot { binding, installed, record, running: Some(running), status }
    }
}

impl Slot {
    /// As the chain asks it; none while it is switched off.
    pub(super) fn bound(&self) -> Option<Binding> {
        let running = self.running.as_ref()?;
        let binding = &self.binding;
        Some(Binding {
            plugin: Arc::clone(&running.plugin),
            hooks: binding.hooks.clone(),
            priority: binding.priority,
            states: binding.states.clone(),
            selector: binding.selector.clone(),
            events: binding.events.clone(),
            on_error: binding.on_error,
            grants: binding.grant.hosts.clone(),
            breakers: Arc::clone(&running.breakers),
        })
    }

    /// The digest of the component that runs.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.running.as_ref()?.key.as_ref()?.digest
    }

    /// Whether the very same runs, or nothing.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.running, &other.running) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.plugin, &other.plugin),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// The hooks that it is asked in.
    pub(super) fn hooks(&self) -> HookSet {
        let exported = self.running.as_ref().map(|running| running.plugin.hooks());
        match (exported, &self.binding.hooks) {
            (Some(exported), Some(bound)) => exported.intersection(bound).copied().collect(),
            (Some(exported), None) => exported,
            (None, bound) => bound.clone().unwrap_or_default(),
        }
    }

    /// As people see it.
    pub(super) fn member(&self, now: std::time::Instant) -> Member {
        let binding = &self.binding;
        let hooks = self.hooks();
        let running = self.running.as_ref();
        let history = self.record.history.iter();
        let is_configured = !binding.file.as_os_str().is_empty();
        Member {
            name: binding.name.to_string(),
            status: self.status.clone(),
            about: running.map_or_else(About::default, |running| running.plugin.about()),
            file: is_configured.then(|| binding.file.clone()),
            installed: self.installed,
            states: binding.states.clone().into(),
            selector: Map::from_iter(binding.selector_text.iter().cloned()),
            priority: binding.priority,
            on_error: binding.on_error,
            config: binding.config.clone(),
            reach: reach(binding, &hooks),
            hooks: hooks.into_iter().collect(),
            breakers: running.map(|running| running.breakers.states(now)).unwrap_or_default(),
            rolled_back: self.record.rolled_back_to.is_some(),
            history: history
                .map(|ran| Kept { digest: ran.digest.clone(), version: ran.version.clone(), at: ran.at })
                .collect(),
        }
    }
}

async fn key(binding: &PluginBinding, digest: Option<Digest>) -> Key {
    let grant = binding.grant.clone();
    let secrets = spawn_blocking(move || fingerprint(&grant)).await.unwrap_or_else(|_| Digest::of(&[]));
    Key { digest, config: binding.config.clone(), grant: binding.grant.clone(), secrets }
}

/// Where to look, in this order: what an operator went back to if the binding allows it, the file that the binding names, the component that was
/// installed, the plugins folder.
fn find(
    binding: &PluginBinding,
    back: Option<Digest>,
    library: &Library,
    plugins_dir: &Path,
) -> Result<Option<Found>, String> {
    let installed = |digest: &Digest| {
        let path = library.path(digest).display().to_string();
        let bytes = library.component(digest).map_err(|error| format!("has no component: {path}: {error}"))?;
        Ok(Some(Found { origin: path, digest: *digest, bytes }))
    };
    // A digest that was pinned since says more than a rollback does.
    if let Some(digest) = back.filter(|back| binding.digest.is_none_or(|pinned| pinned == *back)) {
        return installed(&digest);
    }
    let name = &binding.name;
    let by_name =
        [plugins_dir.join(name.as_str()).join(format!("{name}.wasm")), plugins_dir.join(format!("{name}.wasm"))];
    let paths = match (&binding.component, &binding.digest) {
        (Some(path), _) => vec![path.clone()],
        (None, Some(digest)) if library.path(digest).exists() => return installed(digest),
        (None, _) => by_name.to_vec(),
    };
    for path in &paths {
        let found = match read_component(path) {
            Ok(bytes) => Found::of(path.display().to_string(), bytes),
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(format!("cannot be read: {}: {error}", path.display())),
        };
        return match binding.digest.filter(|pinned| *pinned != found.digest) {
            None => Ok(Some(found)),
            Some(pinned) => Err(format!(
                "is not the component that was pinned: {} is {}, and {} says {pinned}",
                path.display(),
                found.digest,
                binding.file.display()
            )),
        };
    }
    if name.is_default() {
        return Ok(None);
    }
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Err(format!("has no component: there is no {}", paths.join(" and no ")))
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// The interfaces that a grant opens.
fn imports(grant: &PluginGrant) -> BTreeSet<Interface> {
    let opens = [
        (Interface::Catalog, grant.catalog),
        (Interface::Hosts, !grant.hosts.is_empty()),
        (Interface::Kv, grant.kv),
        (Interface::Http, !grant.http.is_empty()),
        (Interface::Signing, !grant.signing.is_empty()),
    ];
    opens.into_iter().filter(|(_, is_granted)| *is_granted).map(|(interface, _)| interface).collect()
}

/// What it may reach, and what it may sign with. The error continues the plugin's name.
fn egress(grant: &PluginGrant) -> Result<(Vec<Rule>, BTreeMap<String, SecretText>), String> {
    let mut rules = Vec::new();
    for rule in &grant.http {
        let read = toml::Value::Table(rule.clone()).try_into::<Rule>();
        let url = rule.get("url").and_then(toml::Value::as_str).unwrap_or("no url");
        rules.push(read.map_err(|error| format!("has a wrong grant http ({url}): {}", error.message()))?);
    }
    let read = toml::Value::Table(grant.signing.clone()).try_into::<BTreeMap<String, SecretText>>();
    Ok((rules, read.map_err(|error| format!("has a wrong grant signing: {}", error.message()))?))
}

/// The running component's status, with what is wrong with the one that should run.
fn degraded(running: &Running, why: &str) -> PluginStatus {
    match running.plugin.status() {
        PluginStatus::Ready { version, origin, digest } | PluginStatus::Degraded { version, origin, digest, .. } => {
            PluginStatus::Degraded { version, origin, digest, why: why.to_owned() }
        }
        other @ (PluginStatus::Unavailable { .. } | PluginStatus::Disabled) => other,
    }
}

/// Whether a component has the hooks that its binding names. The error continues the plugin's name.
fn exports(binding: &PluginBinding, exported: &HookSet) -> Result<(), String> {
    let bound = binding.hooks.as_ref();
    let missing: Vec<String> =
        bound.into_iter().flat_map(|bound| bound.difference(exported)).map(Hook::to_string).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let exported: Vec<String> = exported.iter().map(Hook::to_string).collect();
    let (missing, exported) = (missing.join(" and "), exported.join(" and "));
    Err(format!("is bound to {missing}, which its component does not export: it exports {exported}"))
}

/// The hooks of a component that ran; all of them if nobody knows: what may have been guarded is.
fn hooks_of(ran: Option<&Ran>) -> HookSet {
    ran.and_then(|ran| ran.hooks.clone()).unwrap_or_else(|| Hook::ALL.into())
}

/// Fails every call in the hooks that the plugin is bound to, else in those that it was asked in before.
fn stand_in(binding: &PluginBinding, record: &Record, origin: &str, why: &str) -> Running {
    let hooks = match &binding.hooks {
        Some(hooks) => hooks.clone(),
        // It was never asked in others, and changes of hosts must not hang on it.
        None if binding.name.is_default() => HookSet::from([Hook::Boot, Hook::Discovery]),
        None => hooks_of(record.standing()),
    };
    let plugin = BrokenPlugin::new(binding.name.as_str(), origin, hooks, &why);
    Running { plugin, breakers: Arc::default(), key: None }
}
