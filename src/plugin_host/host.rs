//! The way in: a host that loads components, and the plugins it makes of them.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::about::Newcomer;
use super::broken::BrokenPlugin;
use super::cache::CodeCache;
use super::deck::Recorder;
use super::egress::{Egress, EgressError, Outside, Rule, Script};
use super::engine::{Allocation, EngineError, WasmEngine};
use super::journal::Journal;
use super::load::{COMPONENT_MAX_BYTES, Interface, LoadError, load};
use super::plugin::WasmPlugin;
use super::recording::{Recording, Replayed};
use super::sandbox::Sandbox;
use super::secret::SecretText;
use super::signing::Keys;
use crate::hooks::{Capabilities, Grants, Hook, HookSet, LogLine, Plugin};

/// The default plugin as it is shipped. `cargo xtask plugins check` holds it to its source.
const EMBEDDED_DEFAULT: &[u8] = include_bytes!("../../plugins/default/default.wasm");
/// The instance's name, and its file's and folder's.
const DEFAULT: &str = "default";

/// Loads plugins and gives them what they may ask.
pub struct PluginHost {
    sandbox: Sandbox,
    allocation: Allocation,
    capabilities: Arc<dyn Capabilities>,
    outside: Arc<Outside>,
    cache: Option<CodeCache>,
    journals: Mutex<BTreeMap<Arc<str>, Arc<Journal>>>,
    now_ms: fn() -> u64,
}

/// A component to load.
#[derive(Clone, Debug, Default)]
pub struct Component {
    /// The instance's name.
    pub name: String,
    /// Where the bytes come from, for the operator: `embedded` or a path.
    pub origin: String,
    /// The component in binary.
    pub bytes: Vec<u8>,
    /// What it may import, beyond what is free.
    pub imports: BTreeSet<Interface>,
    /// What it may do with the imports `hosts` and `kv`.
    pub grants: Grants,
    /// What it may reach with the import `http`.
    pub http: Vec<Rule>,
    /// What it may sign with, by name.
    pub signing: BTreeMap<String, SecretText>,
    /// The binding's configuration.
    pub config: Value,
}

impl PluginHost {
    /// Reserves the pool and starts the clock.
    ///
    /// # Errors
    /// The machine runs no WebAssembly at all. (Without room for a pool it runs without one, see [`PluginHost::allocation`].)
    pub fn new(capabilities: Arc<dyn Capabilities>) -> Result<Self, EngineError> {
        Self::with(capabilities, Outside::new())
    }

    /// A host without a network: what plugins send over http is answered by a script.
    ///
    /// # Errors
    /// As for [`PluginHost::new`].
    pub fn scripted(capabilities: Arc<dyn Capabilities>, http: Arc<dyn Script>) -> Result<Self, EngineError> {
        Self::with(capabilities, Outside::scripted(http))
    }

    fn with(capabilities: Arc<dyn Capabilities>, outside: Arc<Outside>) -> Result<Self, EngineError> {
        let engine = WasmEngine::start()?;
        let allocation = engine.allocation.clone();
        if let Allocation::OnDemand { why } = &allocation {
            tracing::warn!(why, "plugins run without a pool, which is slower");
        }
        Ok(Self {
            sandbox: Sandbox::new(engine),
            allocation,
            capabilities,
            outside,
            cache: None,
            journals: Mutex::default(),
            now_ms: || 0,
        })
    }

    /// Keeps compiled components in a folder, which nobody else may even enter. Without one, each is compiled at every start;
    /// so it is if the folder cannot be used, which the log says.
    #[must_use]
    pub fn with_cache(mut self, folder: &Path) -> Self {
        match CodeCache::open(folder, self.sandbox.engine()) {
            Ok(cache) => self.cache = Some(cache),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "compiled plugins are not kept");
            }
        }
        self
    }

    /// Tells what time it is, in milliseconds since 1970, when a plugin is loaded. All other calls are told by who makes
    /// them.
    #[must_use]
    pub fn with_clock(mut self, now_ms: fn() -> u64) -> Self {
        self.now_ms = now_ms;
        self
    }

    /// The newest lines that a plugin of this name wrote, oldest first.
    #[must_use]
    pub fn log_lines(&self, plugin: &str) -> Vec<LogLine> {
        let journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.get(plugin).map(|journal| journal.lines()).unwrap_or_default()
    }

    fn journal(&self, plugin: &Arc<str>) -> Arc<Journal> {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(journals.entry(Arc::clone(plugin)).or_default())
    }

    /// Where instances live.
    #[must_use]
    pub fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    /// What components run on, for benchmarks that compare with it.
    #[must_use]
    pub fn engine(&self) -> &wasmtime::Engine {
        self.sandbox.engine()
    }

    /// The default plugin: `default/default.wasm` or `default.wasm` in the plugins folder if there is one, else the embedded
    /// one. Never fails: if it does not load, what comes back says so in its status and answers `unavailable`.
    pub async fn load_default(&self, plugins_dir: Option<&Path>, config: Value) -> Arc<dyn Plugin> {
        let dir = plugins_dir.map(Path::to_owned);
        let found = tokio::task::spawn_blocking(move || find_default(dir.as_deref())).await;
        let (origin, bytes) = match found {
            Ok(Ok(found)) => found,
            Ok(Err((path, error))) => {
                let error = LoadError::Unreadable(error.to_string());
                return BrokenPlugin::new(DEFAULT, &path.display().to_string(), default_hooks(), &error);
            }
            Err(stopped) => return BrokenPlugin::new(DEFAULT, "embedded", default_hooks(), &stopped),
        };
        let grants = Grants::default();
        let imports = Interface::granted(&grants, &[], &BTreeMap::new());
        let component = Component {
            name: DEFAULT.to_owned(),
            origin: origin.clone(),
            bytes,
            imports,
            grants,
            http: Vec::new(),
            signing: BTreeMap::new(),
            config,
        };
        match self.load(component).await {
            Ok(plugin) => plugin,
            Err(error) => BrokenPlugin::new(DEFAULT, &origin, default_hooks(), &error),
        }
    }

    /// Loads a component: compiles it, checks its imports against the grants and its exports against the contract, and asks it
    /// what it is and whether its configuration fits.
    ///
    /// # Errors
    /// Why it is not used.
    pub async fn load(&self, component: Component) -> Result<Arc<dyn Plugin>, LoadError> {
        Ok(Arc::new(self.load_component(component).await?))
    }

    /// Runs a recorded call again with a component: every question is answered from the recording, and nothing is reached.
    ///
    /// # Errors
    /// Why the component, or the recording, cannot be used.
    pub async fn replay(&self, bytes: Vec<u8>, recording: &Recording) -> Result<Replayed, LoadError> {
        let component = Component {
            name: recording.plugin.clone(),
            origin: "replay".to_owned(),
            bytes,
            imports: Interface::ALL.into(),
            grants: Grants::default(),
            http: Vec::new(),
            signing: BTreeMap::new(),
            config: serde_json::from_str(&recording.config).map_err(|error| LoadError::Config(error.to_string()))?,
        };
        self.load_component(component).await?.replay(recording).await.map_err(LoadError::Recording)
    }

    async fn load_component(&self, component: Component) -> Result<WasmPlugin, LoadError> {
        let name: Arc<str> = component.name.into();
        let config: Arc<str> = component.config.to_string().into();
        let (rules, secrets, outside) = (component.http, component.signing, Arc::clone(&self.outside));
        let read = move || Ok((Egress::new(rules, outside)?, Keys::read(&secrets)?));
        let read = tokio::task::spawn_blocking(read).await.map_err(|stopped| LoadError::Grant(stopped.to_string()))?;
        let (egress, keys) = read.map_err(|error: EgressError| LoadError::Grant(error.to_string()))?;
        let newcomer = Newcomer { name: Arc::clone(&name), journal: self.journal(&name), now_ms: (self.now_ms)() };
        let loaded =
            load(&self.sandbox, self.cache.as_ref(), &newcomer, component.bytes, &component.imports, &config).await?;
        tracing::info!(plugin = &*name, origin = component.origin, version = ?loaded.version, "plugin loaded");
        Ok(WasmPlugin {
            journal: newcomer.journal,
            name,
            origin: component.origin,
            config,
            grants: Arc::new(component.grants),
            egress: Arc::new(egress),
            keys: Arc::new(keys),
            recorder: Recorder::default(),
            loaded,
            sandbox: self.sandbox.clone(),
            capabilities: Arc::clone(&self.capabilities),
        })
    }
}

/// What a default plugin that does not work is asked for all the same.
fn default_hooks() -> HookSet {
    HookSet::from([Hook::Boot, Hook::Discovery])
}

/// The bytes of the default plugin, and where they are from.
fn find_default(plugins_dir: Option<&Path>) -> Result<(String, Vec<u8>), (PathBuf, io::Error)> {
    for path in plugins_dir.into_iter().flat_map(|dir| [dir.join("default/default.wasm"), dir.join("default.wasm")]) {
        match read_component(&path) {
            Ok(bytes) => return Ok((path.display().to_string(), bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err((path, error)),
        }
    }
    Ok(("embedded".to_owned(), EMBEDDED_DEFAULT.to_vec()))
}

fn read_component(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, COMPONENT_MAX_BYTES)
}

/// Reads a file that has no more than so many bytes.
pub(super) fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
