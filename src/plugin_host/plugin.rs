//! A loaded component with its binding's configuration and grants, as the core calls it.
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::contract::kiwispray::plugin::types as wit;
use super::convert;
use super::deck::{Deck, Recorder};
use super::egress::Egress;
use super::journal::Journal;
use super::load::Loaded;
use super::recording::{ImportCall, RECORDING_FORMAT, RecordedAnswer, RecordedCall, Recording, Replayed, Tape};
use super::sandbox::{CallState, Ended, Reach, Sandbox};
use super::signing::Keys;
use crate::hooks::{
    About, Allowance, BootDecision, BootRequest, Call, Capabilities, DiscoveryDecision, Event, Grants, Hook, HookError,
    HookSet, NextRun, Plugin, PluginStatus, RenderRequest, Reply, Run, TransitionDecision, TransitionRequest,
};

/// A plugin that is a component.
pub(super) struct WasmPlugin {
    pub(super) name: Arc<str>,
    pub(super) origin: String,
    pub(super) config: Arc<str>,
    pub(super) grants: Arc<Grants>,
    pub(super) egress: Arc<Egress>,
    pub(super) keys: Arc<Keys>,
    pub(super) recorder: Recorder,
    pub(super) journal: Arc<Journal>,
    pub(super) loaded: Loaded,
    pub(super) sandbox: Sandbox,
    pub(super) capabilities: Arc<dyn Capabilities>,
}

/// A hook of a guest that ran; none: it has no such hook.
type Ran<'a, A> = BoxFuture<'a, Option<Ended<Result<A, wit::Error>>>>;

/// One function per hook: a fresh instance, the guest's export on it, its answer in the contract's types.
macro_rules! hooks {
    ($($hook:ident: $function:ident($request:ty) -> $answer:ty;)*) => { $(
        fn $hook(&self, state: CallState, request: $request) -> Ran<'_, $answer> {
            async move {
                let export = self.loaded.exports.$hook.clone()?;
                let guest = self.sandbox.run(state, &self.loaded.pre, move |store, instance| {
                    async move { export.load(&mut *store, &instance)?.$function(store, &request).await }.boxed()
                });
                Some(guest.await)
            }
            .boxed()
        }
    )* };
}

impl WasmPlugin {
    hooks! {
        boot: call_decide(wit::BootRequest) -> wit::BootDecision;
        discovery: call_discovered(wit::BootRequest) -> wit::DiscoveryDecision;
        render: call_variables(wit::RenderRequest) -> String;
        transition: call_before(wit::TransitionRequest) -> wit::TransitionDecision;
        events: call_handle(Vec<wit::Event>) -> u32;
        schedule: call_run(String) -> wit::NextRun;
    }

    /// One call of one hook, recorded if that is wanted, and its answer translated by `read`.
    fn ask<'a, Q: Serialize + Send + 'a, A: Serialize + Send + 'a, T: 'a>(
        &'a self,
        hook: Hook,
        call: &'a Call,
        request: Q,
        run: fn(&'a Self, CallState, Q) -> Ran<'a, A>,
        read: fn(A) -> Result<T, HookError>,
    ) -> BoxFuture<'a, Reply<T>> {
        async move {
            let recorded = if self.recorder.takes_one() { serde_json::to_value(&request).ok() } else { None };
            let mut state = self.state(hook, call);
            if recorded.is_some() {
                state.deck = Deck::recording();
            }
            let Some(ended) = run(self, state, request).await else {
                return Reply::from(Err(HookError::Unavailable(format!("has no hook `{hook}`"))));
            };
            if let (Some(request), Deck::Recording(imports, _)) = (recorded, ended.deck) {
                self.recorder.keep(self.recording(hook, call, request, imports, answered(&ended.result)));
            }
            Reply { result: ended.result.and_then(|answer| read(answer.map_err(convert::error)?)), notes: ended.notes }
        }
        .boxed()
    }

    fn recording(
        &self,
        hook: Hook,
        call: &Call,
        request: Value,
        imports: Vec<ImportCall>,
        answer: RecordedAnswer,
    ) -> Recording {
        Recording {
            format: RECORDING_FORMAT,
            plugin: self.name.to_string(),
            digest: self.loaded.digest.clone(),
            hook: hook.to_string(),
            config: self.config.to_string(),
            call: RecordedCall {
                id: call.id.clone(),
                attempt: call.attempt,
                now_ms: call.now_ms,
                budget_ms: u64::try_from(call.budget.as_millis()).unwrap_or(u64::MAX),
                dry_run: call.run == Run::Dry,
            },
            request,
            imports,
            answer,
        }
    }

    /// Runs a recorded call again: every question is answered from the recording.
    ///
    /// # Errors
    /// A sentence: what was recorded is no call of a hook.
    pub(super) async fn replay(&self, recording: &Recording) -> Result<Replayed, String> {
        let hook = serde_json::from_value::<Hook>(Value::String(recording.hook.clone()))
            .map_err(|_| format!("`{}` is no hook", recording.hook))?;
        let RecordedCall { id, attempt, now_ms, budget_ms, dry_run } = &recording.call;
        let run = if *dry_run { Run::Dry } else { Run::Real };
        let budget = Duration::from_millis(*budget_ms);
        let call = Call { attempt: *attempt, budget, ..Call::new(id.clone(), *now_ms, run) };
        let mut state = self.state(hook, &call);
        state.deck = Deck::Playing(Tape::new(recording), None);
        let request = recording.request.clone();
        match hook {
            Hook::Boot => replayed(self.boot(state, read(request)?).await),
            Hook::Discovery => replayed(self.discovery(state, read(request)?).await),
            Hook::Render => replayed(self.render(state, read(request)?).await),
            Hook::Transition => replayed(self.transition(state, read(request)?).await),
            Hook::Events => replayed(self.events(state, read(request)?).await),
            Hook::Schedule => replayed(self.schedule(state, read(request)?).await),
        }
    }

    fn state(&self, hook: Hook, call: &Call) -> CallState {
        let (plugin, grants) = (Arc::clone(&self.name), Arc::clone(&self.grants));
        let reach = Reach {
            core: Arc::clone(&self.capabilities),
            allowance: Allowance::new(plugin, grants, hook, call.run, call.run_id().to_owned()),
            egress: Arc::clone(&self.egress),
            keys: Arc::clone(&self.keys),
        };
        let (name, config, journal) = (Arc::clone(&self.name), Arc::clone(&self.config), Arc::clone(&self.journal));
        CallState::new(name, config, Some(reach), call.clone(), journal)
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

    fn record(&self, calls: u32) {
        self.recorder.want(calls);
    }

    fn recorded(&self) -> Vec<Value> {
        self.recorder.kept().iter().filter_map(|recording| serde_json::to_value(recording).ok()).collect()
    }

    fn decide<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        self.ask(Hook::Boot, call, convert::boot_request(request), Self::boot, convert::boot_decision)
    }

    fn discovered<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        self.ask(Hook::Discovery, call, convert::boot_request(request), Self::discovery, convert::discovery_decision)
    }

    fn variables<'a>(&'a self, call: &'a Call, request: &'a RenderRequest) -> BoxFuture<'a, Reply<Map<String, Value>>> {
        self.ask(Hook::Render, call, convert::render_request(request), Self::render, convert::variables)
    }

    fn before<'a>(
        &'a self,
        call: &'a Call,
        request: &'a TransitionRequest,
    ) -> BoxFuture<'a, Reply<TransitionDecision>> {
        let request = convert::transition_request(request);
        self.ask(Hook::Transition, call, request, Self::transition, convert::transition_decision)
    }

    fn handle<'a>(&'a self, call: &'a Call, events: &'a [Event]) -> BoxFuture<'a, Reply<u32>> {
        self.ask(Hook::Events, call, events.iter().map(convert::event).collect(), Self::events, Ok)
    }

    fn run<'a>(&'a self, call: &'a Call, job: &'a str) -> BoxFuture<'a, Reply<NextRun>> {
        self.ask(Hook::Schedule, call, job.to_owned(), Self::schedule, convert::next_run)
    }
}

/// The request of a recording, in the contract's types.
fn read<T: DeserializeOwned>(request: Value) -> Result<T, String> {
    serde_json::from_value(request).map_err(|error| format!("the recorded request is none: {error}"))
}

/// How a call ended, as it is recorded.
fn answered<A: Serialize>(result: &Result<Result<A, wit::Error>, HookError>) -> RecordedAnswer {
    match result {
        Ok(answer) => RecordedAnswer::Answered(serde_json::to_value(answer).unwrap_or_default()),
        Err(error) => RecordedAnswer::Broke { class: error.class().to_string(), text: error.to_string() },
    }
}

fn replayed<A: Serialize>(ended: Option<Ended<Result<A, wit::Error>>>) -> Result<Replayed, String> {
    let ended = ended.ok_or("the component has no such hook")?;
    let diverged = match ended.deck {
        Deck::Playing(_, Some(diverged)) => Some(diverged),
        Deck::Playing(tape, None) => tape.end().err(),
        Deck::Off | Deck::Recording(..) | Deck::TooMuch => None,
    };
    Ok(Replayed { answer: answered(&ended.result), diverged, notes: ended.notes })
}
