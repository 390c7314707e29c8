//! From bytes to something callable: imports against grants, exports against the contract, and a first conversation.
//!
//! What a component imports is what it can do, so the list is checked before anything of it runs, in words of our own.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::component::{Component, HasSelf, Instance, InstancePre, Linker};
use wasmtime::{Engine, Store};

use super::about::{self, Newcomer};
use super::cache::CodeCache;
use super::contract::exports::kiwispray::plugin as exports;
use super::contract::kiwispray::plugin as imports;
use super::egress::Rule;
use super::sandbox::{CallState, Sandbox};
use super::secret::SecretText;
use crate::hooks::{About, Grants, Hook, HookError, HookSet};

/// A component's file; a Python guest has 18 MB.
pub(super) const COMPONENT_MAX_BYTES: u64 = 64 << 20;
/// Before the digest of a component.
const DIGEST_PREFIX: &str = "sha256:";
/// The package and version whose interfaces are offered and looked for.
const PACKAGE: &str = "kiwispray:plugin/";
const VERSION: &str = "@0.1.0";

/// Interfaces that must be granted. `types`, `call` and `log` are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the interface of the same name")]
pub enum Interface {
    Catalog,
    Hosts,
    Kv,
    Http,
    Signing,
}

impl Interface {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Catalog, Self::Hosts, Self::Kv, Self::Http, Self::Signing];

    /// What follows from grants: the imports that something was granted for. The names of images and templates are no
    /// secret.
    #[must_use]
    pub fn granted(grants: &Grants, http: &[Rule], signing: &BTreeMap<String, SecretText>) -> BTreeSet<Self> {
        let is_granted = |interface: &Self| match interface {
            Self::Catalog => true,
            Self::Hosts => !grants.hosts.is_empty(),
            Self::Kv => grants.kv,
            Self::Http => !http.is_empty(),
            Self::Signing => !signing.is_empty(),
        };
        Self::ALL.into_iter().filter(is_granted).collect()
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Catalog => "catalog",
            Self::Hosts => "hosts",
            Self::Kv => "kv",
            Self::Http => "http",
            Self::Signing => "signing",
        })
    }
}

/// Why a component is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is no component that compiles.
    #[error("is not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// It wants something that the operator has not granted.
    #[error("needs `{0}`, which it was not granted")]
    MissingGrant(Interface),
    /// A grant cannot be used: a secret or a certificate is missing.
    #[error("cannot have what it was granted: {0}")]
    Grant(String),
    /// It wants something that the contract does not have.
    #[error("needs `{0}`, which this server does not offer")]
    UnknownImport(String),
    /// It was built for another contract.
    #[error("was built for another version of the contract: {0}")]
    OtherContract(String),
    /// It says nothing about itself, or has nothing to do.
    #[error("exports no `{0}`")]
    MissingExport(&'static str),
    /// It broke while it said what it is.
    #[error("does not say what it is: it {0}")]
    About(HookError),
    /// What it says about itself is no description.
    #[error("describes itself badly: {0}")]
    BadDescription(String),
    /// What was recorded cannot be replayed.
    #[error("cannot be replayed: {0}")]
    Recording(String),
    /// Its configuration is wrong.
    #[error("has a wrong configuration: {0}")]
    Config(String),
}

/// A component that can be called.
pub(super) struct Loaded {
    pub(super) pre: InstancePre<CallState>,
    pub(super) exports: Exports,
    pub(super) about: About,
    pub(super) version: String,
    pub(super) digest: String,
}

/// Where a component has its hooks.
#[derive(Clone)]
pub(super) struct Exports {
    pub(super) about: exports::about::GuestIndices,
    pub(super) boot: Option<exports::boot::GuestIndices>,
    pub(super) discovery: Option<exports::discovery::GuestIndices>,
    pub(super) render: Option<exports::render::GuestIndices>,
    pub(super) transition: Option<exports::transition::GuestIndices>,
    pub(super) events: Option<exports::events::GuestIndices>,
    pub(super) schedule: Option<exports::schedule::GuestIndices>,
}

impl Exports {
    fn find(pre: &InstancePre<CallState>) -> Result<Self, LoadError> {
        macro_rules! find {
            ($hook:ident) => {
                exported(pre.component(), stringify!($hook))
                    .then(|| exports::$hook::GuestIndices::new(pre))
                    .transpose()
                    .map_err(other_contract)?
            };
        }
        Ok(Self {
            about: find!(about).ok_or(LoadError::MissingExport("about"))?,
            boot: find!(boot),
            discovery: find!(discovery),
            render: find!(render),
            transition: find!(transition),
            events: find!(events),
            schedule: find!(schedule),
        })
    }

    pub(super) fn hooks(&self) -> HookSet {
        let has = |hook: &Hook| match hook {
            Hook::Boot => self.boot.is_some(),
            Hook::Discovery => self.discovery.is_some(),
            Hook::Render => self.render.is_some(),
            Hook::Transition => self.transition.is_some(),
            Hook::Events => self.events.is_some(),
            Hook::Schedule => self.schedule.is_some(),
        };
        Hook::ALL.into_iter().filter(has).collect()
    }

    /// Loads all of them: looking exports up checks their names, only loading checks their types.
    fn check(&self, store: &mut Store<CallState>, instance: &Instance) -> wasmtime::Result<()> {
        self.about.load(&mut *store, instance)?;
        macro_rules! check {
            ($($hook:ident),*) => { $(
                if let Some(hook) = &self.$hook {
                    hook.load(&mut *store, instance)?;
                }
            )* };
        }
        check!(boot, discovery, render, transition, events, schedule);
        Ok(())
    }
}

fn exported(component: &Component, hook: &str) -> bool {
    component.get_export_index(None, &*format!("{PACKAGE}{hook}{VERSION}")).is_some()
}

fn other_contract(error: wasmtime::Error) -> LoadError {
    LoadError::OtherContract(format!("{error:#}"))
}

/// Compiles a component, checks it and talks to it. Compiling takes a thread for blocking work.
pub(super) async fn load(
    sandbox: &Sandbox,
    cache: Option<&CodeCache>,
    newcomer: &Newcomer,
    bytes: Vec<u8>,
    granted: &BTreeSet<Interface>,
    config: &str,
) -> Result<Loaded, LoadError> {
    let digest = sha256(&bytes);
    let (engine, cache, content) = (sandbox.engine().clone(), cache.cloned(), digest.clone());
    let compile = move || match cache {
        Some(cache) => cache.component(&engine, content.trim_start_matches(DIGEST_PREFIX), &bytes),
        None => Component::from_binary(&engine, &bytes),
    };
    let component = tokio::task::spawn_blocking(compile)
        .await
        .map_err(|stopped| LoadError::NotAComponent(stopped.to_string()))?
        .map_err(|error| LoadError::NotAComponent(error.root_cause().to_string()))?;
    check_imports(sandbox.engine(), &component, granted)?;
    let linker = linker(sandbox.engine(), granted).map_err(other_contract)?;
    let pre = linker.instantiate_pre(&component).map_err(other_contract)?;
    let exports = Exports::find(&pre)?;
    if exports.hooks().is_empty() {
        return Err(LoadError::MissingExport("hook"));
    }
    check_exports(sandbox, newcomer, &pre, &exports).await?;
    let (version, about) = about::describe(sandbox, newcomer, &pre, &exports.about).await?;
    about::check_config(sandbox, newcomer, &pre, &exports.about, config).await?;
    Ok(Loaded { pre, exports, about, version, digest })
}

/// Answers a missing grant in our own words; wasmtime's are about linking.
fn check_imports(engine: &Engine, component: &Component, grants: &BTreeSet<Interface>) -> Result<(), LoadError> {
    for (import, _) in component.component_type().imports(engine) {
        let ours = import.strip_prefix(PACKAGE).and_then(|name| name.split_once('@'));
        let Some((interface, version)) = ours else { return Err(LoadError::UnknownImport(import.to_owned())) };
        if !version.starts_with("0.1.") {
            return Err(LoadError::OtherContract(import.to_owned()));
        }
        if ["types", "call", "log"].contains(&interface) {
            continue;
        }
        match Interface::ALL.into_iter().find(|known| known.to_string() == interface) {
            Some(known) if grants.contains(&known) => {}
            Some(known) => return Err(LoadError::MissingGrant(known)),
            None => return Err(LoadError::UnknownImport(import.to_owned())),
        }
    }
    Ok(())
}

/// Holds exactly what was granted.
fn linker(engine: &Engine, grants: &BTreeSet<Interface>) -> wasmtime::Result<Linker<CallState>> {
    type Own = HasSelf<CallState>;
    let mut linker = Linker::new(engine);
    imports::types::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    imports::call::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    imports::log::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    for interface in grants {
        match interface {
            Interface::Catalog => imports::catalog::add_to_linker::<_, Own>(&mut linker, |state| state)?,
            Interface::Hosts => imports::hosts::add_to_linker::<_, Own>(&mut linker, |state| state)?,
            Interface::Kv => imports::kv::add_to_linker::<_, Own>(&mut linker, |state| state)?,
            Interface::Http => imports::http::add_to_linker::<_, Own>(&mut linker, |state| state)?,
            Interface::Signing => imports::signing::add_to_linker::<_, Own>(&mut linker, |state| state)?,
        }
    }
    Ok(linker)
}

async fn check_exports(
    sandbox: &Sandbox,
    newcomer: &Newcomer,
    pre: &InstancePre<CallState>,
    exports: &Exports,
) -> Result<(), LoadError> {
    let exports = exports.clone();
    let check = sandbox.run(newcomer.state(), pre, move |store, instance| {
        // The outer result is about running it, the inner one about its types.
        async move { Ok(exports.check(store, &instance)) }.boxed()
    });
    check.await.result.map_err(LoadError::About)?.map_err(other_contract)
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{DIGEST_PREFIX}{hex}")
}
