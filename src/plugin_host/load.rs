//! From bytes to something callable: imports against grants, exports against the contract, and a first conversation.
//!
//! What a component imports is what it can do, so the list is checked before anything of it runs, in words of our own.
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::contract::exports::kiwispray::plugin::{about, boot, discovery};
use super::contract::kiwispray::plugin as imports;
use super::sandbox::{Access, CallState, Sandbox};
use crate::hooks::{Call, Hook, HookError, HookSet, Run};

/// A component's file; a Python guest has 18 MB.
pub(super) const COMPONENT_MAX_BYTES: u64 = 64 << 20;
/// What a plugin has to say what it is.
const ABOUT_BUDGET: Duration = Duration::from_millis(200);
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
    const ALL: [Self; 5] = [Self::Catalog, Self::Hosts, Self::Kv, Self::Http, Self::Signing];
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
    /// Its configuration is wrong.
    #[error("has a wrong configuration: {0}")]
    Config(String),
}

/// A component that can be called.
pub(super) struct Loaded {
    pub(super) pre: InstancePre<CallState>,
    pub(super) boot: Option<boot::GuestIndices>,
    pub(super) discovery: Option<discovery::GuestIndices>,
    pub(super) version: String,
    pub(super) digest: String,
}

impl Loaded {
    pub(super) fn hooks(&self) -> HookSet {
        let boot = self.boot.as_ref().map(|_| Hook::Boot);
        boot.into_iter().chain(self.discovery.as_ref().map(|_| Hook::Discovery)).collect()
    }
}

/// Compiles a component, checks it and talks to it once. Compiling takes a thread for blocking work.
pub(super) async fn load(
    sandbox: &Sandbox,
    name: &Arc<str>,
    bytes: Vec<u8>,
    grants: &BTreeSet<Interface>,
    config: &str,
) -> Result<Loaded, LoadError> {
    let digest = sha256(&bytes);
    let engine = sandbox.engine().clone();
    let component = tokio::task::spawn_blocking(move || Component::from_binary(&engine, &bytes))
        .await
        .map_err(|stopped| LoadError::NotAComponent(stopped.to_string()))?
        .map_err(|error| LoadError::NotAComponent(error.root_cause().to_string()))?;
    check_imports(sandbox.engine(), &component, grants)?;
    let other = |error: wasmtime::Error| LoadError::OtherContract(format!("{error:#}"));
    let linker = linker(sandbox.engine(), grants).map_err(other)?;
    let pre = linker.instantiate_pre(&component).map_err(other)?;

    let exports = |hook: &str| component.get_export_index(None, &*format!("{PACKAGE}{hook}{VERSION}")).is_some();
    let boot = exports("boot").then(|| boot::GuestIndices::new(&pre)).transpose().map_err(other)?;
    let discovery = exports("discovery").then(|| discovery::GuestIndices::new(&pre)).transpose().map_err(other)?;
    if !exports("about") {
        return Err(LoadError::MissingExport("about"));
    }
    if boot.is_none() && discovery.is_none() {
        return Err(LoadError::MissingExport("boot or discovery"));
    }
    let about = about::GuestIndices::new(&pre).map_err(other)?;
    let mut loaded = Loaded { pre, boot, discovery, version: String::new(), digest };
    probe(sandbox, name, &loaded).await?;
    loaded.version = describe(sandbox, name, &loaded.pre, &about).await?;
    check_config(sandbox, name, &loaded.pre, &about, config).await?;
    Ok(loaded)
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

/// Loads every hook of one instance: looking exports up checks their names, only loading checks their types.
async fn probe(sandbox: &Sandbox, name: &Arc<str>, loaded: &Loaded) -> Result<(), LoadError> {
    let (boot, discovery) = (loaded.boot.clone(), loaded.discovery.clone());
    let probe = sandbox.run(about_state(name), &loaded.pre, move |store, instance| {
        async move {
            let boot = boot.map(|boot| boot.load(&mut *store, &instance)).transpose();
            let discovery = discovery.map(|discovery| discovery.load(&mut *store, &instance)).transpose();
            Ok(boot.err().or(discovery.err()))
        }
        .boxed()
    });
    match probe.await.0.map_err(LoadError::About)? {
        Some(error) => Err(LoadError::OtherContract(format!("{error:#}"))),
        None => Ok(()),
    }
}

/// Asks the plugin what it is. Returns its version.
async fn describe(
    sandbox: &Sandbox,
    name: &Arc<str>,
    pre: &InstancePre<CallState>,
    about: &about::GuestIndices,
) -> Result<String, LoadError> {
    let about = about.clone();
    let describe = sandbox.run(about_state(name), pre, move |store, instance| {
        async move { about.load(&mut *store, &instance)?.call_describe(store).await }.boxed()
    });
    let description = describe.await.0.map_err(LoadError::About)?;
    if description.name.is_empty() || description.version.is_empty() {
        return Err(LoadError::BadDescription("it has no name or no version".to_owned()));
    }
    match serde_json::from_str(&description.config_schema) {
        Ok(serde_json::Value::Object(_)) => Ok(description.version.chars().take(64).collect()),
        Ok(_) => Err(LoadError::BadDescription("its configuration's schema is no object".to_owned())),
        Err(error) => Err(LoadError::BadDescription(format!("its configuration's schema is no JSON: {error}"))),
    }
}

async fn check_config(
    sandbox: &Sandbox,
    name: &Arc<str>,
    pre: &InstancePre<CallState>,
    about: &about::GuestIndices,
    config: &str,
) -> Result<(), LoadError> {
    let (about, config) = (about.clone(), config.to_owned());
    let check = sandbox.run(about_state(name), pre, move |store, instance| {
        async move { about.load(&mut *store, &instance)?.call_check_config(store, &config).await }.boxed()
    });
    let problems = check.await.0.map_err(LoadError::About)?;
    if problems.is_empty() {
        return Ok(());
    }
    let sentence = |problem: &imports::types::ConfigProblem| {
        let at = if problem.at.is_empty() { String::new() } else { format!("{}: ", problem.at) };
        format!("{at}{}", problem.message).chars().take(300).collect::<String>()
    };
    Err(LoadError::Config(problems.iter().take(10).map(sentence).collect::<Vec<_>>().join("; ")))
}

/// A call in which nothing can be reached and the configuration is not known yet.
fn about_state(name: &Arc<str>) -> CallState {
    let call = Call { budget: ABOUT_BUDGET, ..Call::new("load", 0, Run::Dry) };
    CallState::new(Arc::clone(name), Arc::from("{}"), Access::Nothing, call)
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
