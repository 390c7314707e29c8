//! The way in: a host that loads components, and the plugins it makes of them.
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::convert;
use super::engine::{Allocation, EngineError, WasmEngine};
use super::load::{COMPONENT_MAX_BYTES, Interface, LoadError, Loaded, load};
use super::sandbox::{Access, CallState, Sandbox};
use crate::hooks::{
    BootDecision, BootRequest, Call, Capabilities, DiscoveryDecision, Hook, HookError, HookSet, Plugin, PluginStatus,
    Reply,
};

/// The default plugin as it is shipped. `cargo xtask plugins check` holds it to its source.
const EMBEDDED_DEFAULT: &[u8] = include_bytes!("../../plugins/default/default.wasm");
/// The instance's name, and its file's and folder's.
const DEFAULT: &str = "default";

/// Loads plugins and gives them what they may ask.
pub struct PluginHost {
    sandbox: Sandbox,
    allocation: Allocation,
    capabilities: Arc<dyn Capabilities>,
}

/// A component to load.
#[derive(Clone, Debug)]
pub struct Component {
    /// The instance's name.
    pub name: String,
    /// Where the bytes come from, for the operator: `embedded` or a path.
    pub origin: String,
    /// The component in binary.
    pub bytes: Vec<u8>,
    /// What it may import, beyond what is free.
    pub grants: BTreeSet<Interface>,
    /// The binding's configuration.
    pub config: Value,
}

impl PluginHost {
    /// Reserves the pool and starts the clock.
    ///
    /// # Errors
    /// The machine runs no WebAssembly at all. (Without room for a pool it runs without one, see [`PluginHost::allocation`].)
    pub fn new(capabilities: Arc<dyn Capabilities>) -> Result<Self, EngineError> {
        let engine = WasmEngine::start()?;
        let allocation = engine.allocation.clone();
        if let Allocation::OnDemand { why } = &allocation {
            tracing::warn!(why, "plugins run without a pool, which is slower");
        }
        Ok(Self { sandbox: Sandbox::new(engine), allocation, capabilities })
    }

    /// Where instances live.
    #[must_use]
    pub fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    /// The default plugin: `default/default.wasm` or `default.wasm` in the plugins folder if there is one, else the embedded
    /// one. Never fails: if it does not load, what comes back says so in its status and answers `unavailable`.
    pub async fn load_default(&self, plugins_dir: Option<&Path>, config: Value) -> Arc<dyn Plugin> {
        let dir = plugins_dir.map(Path::to_owned);
        let found = tokio::task::spawn_blocking(move || find_default(dir.as_deref())).await;
        let (origin, bytes) = match found {
            Ok(Ok(found)) => found,
            Ok(Err((path, error))) => {
                return BrokenPlugin::new(
                    DEFAULT,
                    &path.display().to_string(),
                    &LoadError::Unreadable(error.to_string()),
                );
            }
            Err(stopped) => return BrokenPlugin::new(DEFAULT, "embedded", &stopped),
        };
        let grants = BTreeSet::from([Interface::Catalog]);
        let component = Component { name: DEFAULT.to_owned(), origin: origin.clone(), bytes, grants, config };
        match self.load(component).await {
            Ok(plugin) => plugin,
            Err(error) => BrokenPlugin::new(DEFAULT, &origin, &error),
        }
    }

    /// Loads a component: compiles it, checks its imports against the grants and its exports against the contract, and asks it
    /// what it is and whether its configuration fits.
    ///
    /// # Errors
    /// Why it is not used.
    pub async fn load(&self, component: Component) -> Result<Arc<dyn Plugin>, LoadError> {
        let name: Arc<str> = component.name.into();
        let config: Arc<str> = component.config.to_string().into();
        let loaded = load(&self.sandbox, &name, component.bytes, &component.grants, &config).await?;
        tracing::info!(plugin = &*name, origin = component.origin, version = ?loaded.version, "plugin loaded");
        Ok(Arc::new(WasmPlugin {
            name,
            origin: component.origin,
            config,
            loaded: Arc::new(loaded),
            sandbox: self.sandbox.clone(),
            capabilities: Arc::clone(&self.capabilities),
        }))
    }
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
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(COMPONENT_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > COMPONENT_MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {COMPONENT_MAX_BYTES} bytes"),
        ));
    }
    Ok(bytes)
}

/// A loaded component with its binding's configuration.
struct WasmPlugin {
    name: Arc<str>,
    origin: String,
    config: Arc<str>,
    loaded: Arc<Loaded>,
    sandbox: Sandbox,
    capabilities: Arc<dyn Capabilities>,
}

impl WasmPlugin {
    fn state(&self, call: &Call) -> CallState {
        let access = Access::Core(Arc::clone(&self.capabilities));
        CallState::new(Arc::clone(&self.name), Arc::clone(&self.config), access, call.clone())
    }

    fn not_exported<T>(hook: Hook) -> Reply<T> {
        Reply::from(Err(HookError::Unavailable(format!("it has no hook `{hook}`"))))
    }
}

impl Plugin for WasmPlugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn hooks(&self) -> HookSet {
        self.loaded.hooks()
    }

    fn status(&self) -> PluginStatus {
        PluginStatus::Ready {
            version: self.loaded.version.clone(),
            origin: self.origin.clone(),
            digest: self.loaded.digest.clone(),
        }
    }

    fn decide<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        async move {
            let Some(boot) = self.loaded.boot.clone() else { return Self::not_exported(Hook::Boot) };
            let request = convert::request(request);
            let run = self.sandbox.run(self.state(call), &self.loaded.pre, move |store, instance| {
                async move { boot.load(&mut *store, &instance)?.call_decide(store, &request).await }.boxed()
            });
            let (answer, notes) = run.await;
            let result = answer.and_then(|answer| convert::boot_decision(answer.map_err(convert::error)?));
            Reply { result, notes }
        }
        .boxed()
    }

    fn discovered<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        async move {
            let Some(discovery) = self.loaded.discovery.clone() else { return Self::not_exported(Hook::Discovery) };
            let request = convert::request(request);
            let run = self.sandbox.run(self.state(call), &self.loaded.pre, move |store, instance| {
                async move { discovery.load(&mut *store, &instance)?.call_discovered(store, &request).await }.boxed()
            });
            let (answer, notes) = run.await;
            let result = answer.and_then(|answer| convert::discovery_decision(answer.map_err(convert::error)?));
            Reply { result, notes }
        }
        .boxed()
    }
}

/// Stands in for a plugin that could not be loaded: it is asked like the plugin would be, and fails, so that the bindings'
/// rules for failure hold.
#[derive(Debug)]
pub struct BrokenPlugin {
    name: String,
    origin: String,
    why: String,
}

impl BrokenPlugin {
    /// Says why in the log, once.
    #[expect(clippy::new_ret_no_self, reason = "it is only ever used as a plugin")]
    pub fn new(name: &str, origin: &str, why: &dyn std::fmt::Display) -> Arc<dyn Plugin> {
        let why = why.to_string();
        tracing::error!(plugin = name, origin, ?why, "plugin is unavailable");
        Arc::new(Self { name: name.to_owned(), origin: origin.to_owned(), why })
    }

    fn error(&self) -> HookError {
        HookError::Unavailable(format!("{} {}", self.origin, self.why))
    }
}

impl Plugin for BrokenPlugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn hooks(&self) -> HookSet {
        HookSet::from([Hook::Boot, Hook::Discovery])
    }

    fn status(&self) -> PluginStatus {
        PluginStatus::Unavailable { why: self.why.clone(), origin: self.origin.clone() }
    }

    fn decide<'a>(&'a self, _call: &'a Call, _request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        std::future::ready(Reply::from(Err(self.error()))).boxed()
    }

    fn discovered<'a>(&'a self, _call: &'a Call, _request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        std::future::ready(Reply::from(Err(self.error()))).boxed()
    }
}

#[cfg(test)]
mod tests;
