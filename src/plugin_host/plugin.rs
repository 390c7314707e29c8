//! A loaded component with its binding's configuration and grants, as the core calls it.
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use wasmtime::Store;
use wasmtime::component::Instance;

use super::contract::kiwispray::plugin::types as wit;
use super::convert;
use super::egress::Egress;
use super::journal::Journal;
use super::load::Loaded;
use super::sandbox::{CallState, Reach, Sandbox};
use super::signing::Keys;
use crate::hooks::{
    About, Allowance, BootDecision, BootRequest, Call, Capabilities, DiscoveryDecision, Event, Grants, Hook, HookError,
    HookSet, NextRun, Plugin, PluginStatus, RenderRequest, Reply, TransitionDecision, TransitionRequest,
};

/// A plugin that is a component.
pub(super) struct WasmPlugin {
    pub(super) name: Arc<str>,
    pub(super) origin: String,
    pub(super) config: Arc<str>,
    pub(super) grants: Arc<Grants>,
    pub(super) egress: Arc<Egress>,
    pub(super) keys: Arc<Keys>,
    pub(super) journal: Arc<Journal>,
    pub(super) loaded: Loaded,
    pub(super) sandbox: Sandbox,
    pub(super) capabilities: Arc<dyn Capabilities>,
}

/// What a hook of a guest returns: the outer error ended the call.
type Answered<T> = wasmtime::Result<Result<T, wit::Error>>;

impl WasmPlugin {
    /// One call of one hook: a fresh instance, `guest` on it, and its answer translated by `read`.
    async fn ask<E: Clone, A, T>(
        &self,
        hook: Hook,
        call: &Call,
        export: Option<&E>,
        read: impl FnOnce(A) -> Result<T, HookError>,
        guest: impl for<'s> FnOnce(E, &'s mut Store<CallState>, Instance) -> BoxFuture<'s, Answered<A>>,
    ) -> Reply<T> {
        let Some(export) = export.cloned() else {
            return Reply::from(Err(HookError::Unavailable(format!("has no hook `{hook}`"))));
        };
        let run = self
            .sandbox
            .run(self.state(hook, call), &self.loaded.pre, |store, instance| guest(export, store, instance));
        let (answer, notes) = run.await;
        Reply { result: answer.and_then(|answer| read(answer.map_err(convert::error)?)), notes }
    }

    fn state(&self, hook: Hook, call: &Call) -> CallState {
        let (plugin, grants) = (Arc::clone(&self.name), Arc::clone(&self.grants));
        let reach = Reach {
            core: Arc::clone(&self.capabilities),
            allowance: Allowance::new(plugin, grants, hook, call.run, call.id.clone()),
            egress: Arc::clone(&self.egress),
            keys: Arc::clone(&self.keys),
        };
        let mut state = CallState::new(Arc::clone(&self.name), Arc::clone(&self.config), Some(reach), call.clone());
        state.journal = Some(Arc::clone(&self.journal));
        state
    }
}

impl Plugin for WasmPlugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn hooks(&self) -> HookSet {
        self.loaded.exports.hooks()
    }

    fn status(&self) -> PluginStatus {
        PluginStatus::Ready {
            version: self.loaded.version.clone(),
            origin: self.origin.clone(),
            digest: self.loaded.digest.clone(),
        }
    }

    fn about(&self) -> About {
        self.loaded.about.clone()
    }

    fn decide<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        let request = convert::boot_request(request);
        let export = self.loaded.exports.boot.as_ref();
        let reply = self.ask(Hook::Boot, call, export, convert::boot_decision, move |boot, store, instance| {
            async move { boot.load(&mut *store, &instance)?.call_decide(store, &request).await }.boxed()
        });
        reply.boxed()
    }

    fn discovered<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        let request = convert::boot_request(request);
        let export = self.loaded.exports.discovery.as_ref();
        let reply =
            self.ask(Hook::Discovery, call, export, convert::discovery_decision, move |discovery, store, instance| {
                async move { discovery.load(&mut *store, &instance)?.call_discovered(store, &request).await }.boxed()
            });
        reply.boxed()
    }

    fn variables<'a>(&'a self, call: &'a Call, request: &'a RenderRequest) -> BoxFuture<'a, Reply<Map<String, Value>>> {
        let request = convert::render_request(request);
        let export = self.loaded.exports.render.as_ref();
        let reply = self.ask(Hook::Render, call, export, convert::variables, move |render, store, instance| {
            async move { render.load(&mut *store, &instance)?.call_variables(store, &request).await }.boxed()
        });
        reply.boxed()
    }

    fn before<'a>(
        &'a self,
        call: &'a Call,
        request: &'a TransitionRequest,
    ) -> BoxFuture<'a, Reply<TransitionDecision>> {
        let request = convert::transition_request(request);
        let export = self.loaded.exports.transition.as_ref();
        let reply = self.ask(
            Hook::Transition,
            call,
            export,
            convert::transition_decision,
            move |transition, store, instance| {
                async move { transition.load(&mut *store, &instance)?.call_before(store, &request).await }.boxed()
            },
        );
        reply.boxed()
    }

    fn handle<'a>(&'a self, call: &'a Call, events: &'a [Event]) -> BoxFuture<'a, Reply<u32>> {
        let list = events.iter().map(convert::event).collect::<Vec<_>>();
        let export = self.loaded.exports.events.as_ref();
        let reply = self.ask(Hook::Events, call, export, Ok, move |events, store, instance| {
            async move { events.load(&mut *store, &instance)?.call_handle(store, &list).await }.boxed()
        });
        reply.boxed()
    }

    fn run<'a>(&'a self, call: &'a Call, job: &'a str) -> BoxFuture<'a, Reply<NextRun>> {
        let job = job.to_owned();
        let export = self.loaded.exports.schedule.as_ref();
        let reply = self.ask(Hook::Schedule, call, export, convert::next_run, move |schedule, store, instance| {
            async move { schedule.load(&mut *store, &instance)?.call_run(store, &job).await }.boxed()
        });
        reply.boxed()
    }
}
