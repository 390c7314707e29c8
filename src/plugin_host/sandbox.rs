//! One call of one guest: what it may use up, and what becomes of it when it wants more.
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, Trap, UpdateDeadline};

use super::deck::Deck;
use super::egress::Egress;
use super::engine::{CALLS_MAX, MEMORY_MAX_BYTES, TABLE_MAX_ELEMENTS, WasmEngine};
use super::journal::Journal;
use super::signing::Keys;
use crate::hooks::{Allowance, Call, Capabilities, Hook, HookError};

/// What the host copies for one import or answer. The default lets aliased lists make it allocate 128 MB.
const HOSTCALL_FUEL: usize = 1 << 20;
/// Places that calls which may take long (events and jobs) never have: `/bootstrap` waits for nobody's download.
const DECISION_PLACES: u32 = CALLS_MAX * 5 / 8;
/// Log lines of one call that are written; the rest is counted.
pub(super) const LOG_LINES_MAX: u32 = 100;

/// What one call may ask the core. Fuel is per question, so a flood of small ones is bounded here.
#[derive(Clone, Copy, Debug)]
struct AskingLimits {
    questions: u32,
    /// Of questions and answers together.
    bytes: usize,
}

impl AskingLimits {
    /// A decision asks little. Whoever synchronises thousands of hosts asks much, and has a minute for it.
    const fn of(hook: Option<Hook>) -> Self {
        match hook {
            Some(hook) if !hook.is_decision() => Self { questions: 200_000, bytes: 256 << 20 },
            Some(_) | None => Self { questions: 10_000, bytes: 4 << 20 },
        }
    }
}

/// Runs calls, a bounded number at once.
#[derive(Clone)]
pub(super) struct Sandbox {
    engine: WasmEngine,
    places: Arc<Semaphore>,
    /// Those of the places that calls which may take long share.
    background: Arc<Semaphore>,
}

/// What one call of a guest may reach beyond itself.
pub(super) struct Reach {
    pub(super) core: Arc<dyn Capabilities>,
    pub(super) allowance: Allowance,
    pub(super) egress: Arc<Egress>,
    pub(super) keys: Arc<Keys>,
}

/// The host's side of one call.
pub(super) struct CallState {
    pub(super) plugin: Arc<str>,
    pub(super) config: Arc<str>,
    /// None while the plugin is being loaded: then it can reach nothing.
    pub(super) reach: Option<Arc<Reach>>,
    pub(super) call: Call,
    pub(super) ends: Instant,
    pub(super) notes: Vec<String>,
    pub(super) log_lines: u32,
    /// The last words of a panic, if the guest had time for them.
    pub(super) panic: Option<String>,
    /// What becomes of its questions beside their answers.
    pub(super) deck: Deck,
    /// Where its lines go, besides the log.
    pub(super) journal: Arc<Journal>,
    memory: MemorySum,
    imports: u32,
    import_bytes: usize,
}

/// What is left of a call.
pub(super) struct Ended<T> {
    pub(super) result: Result<T, HookError>,
    pub(super) notes: Vec<String>,
    pub(super) deck: Deck,
}

/// Why the host ended a call.
#[derive(Clone, Debug, thiserror::Error)]
enum Stop {
    #[error("time is up")]
    Time,
    #[error("memory is used up")]
    Memory,
    #[error("{0}")]
    Flood(String),
}

impl Sandbox {
    pub(super) fn new(engine: WasmEngine) -> Self {
        let places = |count: u32| Arc::new(Semaphore::new(count as usize));
        Self { engine, places: places(CALLS_MAX), background: places(CALLS_MAX - DECISION_PLACES) }
    }

    pub(super) fn engine(&self) -> &wasmtime::Engine {
        &self.engine.engine
    }

    /// Makes a fresh instance and runs `guest` on it, until the call's budget is over; start code counts too.
    pub(super) async fn run<T>(
        &self,
        state: CallState,
        pre: &InstancePre<CallState>,
        guest: impl for<'s> FnOnce(&'s mut Store<CallState>, Instance) -> BoxFuture<'s, wasmtime::Result<T>>,
    ) -> Ended<T> {
        let budget = state.call.budget;
        let ends = state.ends;
        let late = HookError::Timeout { budget };
        let in_background = state.hook().is_some_and(|hook| !hook.is_decision());
        let Ok(places) = timeout_at(ends.into(), self.place(in_background)).await else {
            let result = Err(HookError::Unavailable("too many plugin calls at once".to_owned()));
            return Ended { result, notes: Vec::new(), deck: Deck::Off };
        };
        let mut store = Store::new(&self.engine.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        // Yielding keeps the executor alive beside a guest that never returns; the error ends it.
        store.epoch_deadline_callback(move |_| {
            if Instant::now() >= ends { Err(Stop::Time.into()) } else { Ok(UpdateDeadline::Yield(1)) }
        });
        store.set_epoch_deadline(1);
        // The deadline of the epoch ends guest code, this one imports that do not come back.
        let called = async {
            let instance = pre.instantiate_async(&mut store).await?;
            guest(&mut store, instance).await
        };
        let ended = timeout_at(ends.into(), called).await;
        let state = store.into_data();
        drop(places);
        let result = match ended {
            Ok(result) => result.map_err(|error| classify(&error, &state)),
            Err(_) => Err(late),
        };
        Ended { result, notes: state.notes, deck: state.deck }
    }

    /// Waits for a place to run.
    async fn place(&self, in_background: bool) -> [Option<SemaphorePermit<'_>>; 2] {
        // These semaphores are never closed.
        let background = if in_background { self.background.acquire().await.ok() } else { None };
        [background, self.places.acquire().await.ok()]
    }
}

impl CallState {
    pub(super) fn new(
        plugin: Arc<str>,
        config: Arc<str>,
        reach: Option<Reach>,
        call: Call,
        journal: Arc<Journal>,
    ) -> Self {
        let ends = Instant::now() + call.budget;
        Self {
            plugin,
            config,
            reach: reach.map(Arc::new),
            call,
            ends,
            notes: Vec::new(),
            log_lines: 0,
            panic: None,
            deck: Deck::Off,
            journal,
            memory: MemorySum::default(),
            imports: 0,
            import_bytes: 0,
        }
    }

    /// The hook it is in; none while the plugin is being loaded.
    pub(super) fn hook(&self) -> Option<Hook> {
        self.reach.as_ref().map(|reach| reach.allowance.hook)
    }

    /// Every question is paid for before anything is done about it, so that a flood ends the call and not the server's
    /// memory or disk.
    pub(super) fn pay(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.imports += 1;
        let most = AskingLimits::of(self.hook()).questions;
        if self.imports > most {
            return Err(Stop::Flood(format!("more than {most} questions in one call")).into());
        }
        self.pay_bytes(bytes)
    }

    /// Answers are paid for, too.
    pub(super) fn pay_bytes(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.import_bytes = self.import_bytes.saturating_add(bytes);
        let most = AskingLimits::of(self.hook()).bytes;
        if self.import_bytes > most {
            return Err(Stop::Flood(format!("more than {most} bytes in one call")).into());
        }
        Ok(())
    }

    /// What is left of the call's time.
    pub(super) fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }
}

/// Sums all linear memories of a call; wasmtime's own limits check each alone.
#[derive(Default)]
struct MemorySum {
    bytes: usize,
}

impl ResourceLimiter for MemorySum {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > MEMORY_MAX_BYTES {
            return Err(Stop::Memory.into());
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_MAX_ELEMENTS)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        4
    }
}

/// What ended a call, in the words of the core.
fn classify(error: &wasmtime::Error, state: &CallState) -> HookError {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Time => HookError::Timeout { budget: state.call.budget },
            Stop::Memory => HookError::Memory { limit_bytes: MEMORY_MAX_BYTES },
            Stop::Flood(what) => HookError::Flood(what.clone()),
        };
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return HookError::Unavailable("the pool of instances is used up".to_owned());
    }
    if let Some(panic) = &state.panic {
        return HookError::Failed(panic.clone());
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return HookError::Trap(trap.to_string());
    }
    let cause = error.root_cause().to_string();
    // wasmtime keeps this error's type to itself; a test notices when its words change.
    if cause.starts_with("too much data is being copied") {
        return HookError::Flood(format!("more than {HOSTCALL_FUEL} bytes at once"));
    }
    // What is left are answers that are no values of the contract: strings that are no UTF-8, pointers to nowhere.
    HookError::BadAnswer(cause)
}
