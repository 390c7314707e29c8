//! What stands in for a plugin that could not be loaded.
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::hooks::{
    BootDecision, BootRequest, Call, DiscoveryDecision, Event, HookError, HookSet, NextRun, Plugin, PluginStatus,
    RenderRequest, Reply, TransitionDecision, TransitionRequest,
};

/// Is asked like the plugin would be, and fails, so that the bindings' rules for failure hold: a change that the plugin
/// guards is refused, an event it wants waits.
#[derive(Debug)]
pub struct BrokenPlugin {
    name: String,
    origin: String,
    hooks: HookSet,
    why: String,
}

impl BrokenPlugin {
    /// Claims `hooks`: those that its binding names, and all if it names none, as nobody knows what it would have exported.
    /// Says why in the log, once.
    #[expect(clippy::new_ret_no_self, reason = "it is only ever used as a plugin")]
    pub fn new(name: &str, origin: &str, hooks: HookSet, why: &dyn std::fmt::Display) -> Arc<dyn Plugin> {
        let why = why.to_string();
        tracing::error!(plugin = name, origin, ?why, "plugin is unavailable");
        Arc::new(Self { name: name.to_owned(), origin: origin.to_owned(), hooks, why })
    }

    fn fail<T: Send + 'static>(&self) -> BoxFuture<'static, Reply<T>> {
        let error = HookError::Unavailable(format!("{} {}", self.origin, self.why));
        std::future::ready(Reply::from(Err(error))).boxed()
    }
}

impl Plugin for BrokenPlugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn hooks(&self) -> HookSet {
        self.hooks.clone()
    }

    fn status(&self) -> PluginStatus {
        PluginStatus::Unavailable { why: self.why.clone(), origin: self.origin.clone() }
    }

    fn decide<'a>(&'a self, _: &'a Call, _: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        self.fail()
    }

    fn discovered<'a>(&'a self, _: &'a Call, _: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        self.fail()
    }

    fn variables<'a>(&'a self, _: &'a Call, _: &'a RenderRequest) -> BoxFuture<'a, Reply<Map<String, Value>>> {
        self.fail()
    }

    fn before<'a>(&'a self, _: &'a Call, _: &'a TransitionRequest) -> BoxFuture<'a, Reply<TransitionDecision>> {
        self.fail()
    }

    fn handle<'a>(&'a self, _: &'a Call, _: &'a [Event]) -> BoxFuture<'a, Reply<u32>> {
        self.fail()
    }

    fn run<'a>(&'a self, _: &'a Call, _: &'a str) -> BoxFuture<'a, Reply<NextRun>> {
        self.fail()
    }
}
