//! One call of one guest: what it may use up, and what becomes of it when it wants more.
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, Trap, UpdateDeadline};

use super::engine::{CALLS_MAX, MEMORY_MAX_BYTES, TABLE_MAX_ELEMENTS, WasmEngine};
use crate::hooks::{Call, Capabilities, HookError};

/// What the host copies for one import or answer. The default lets aliased lists make it allocate 128 MB.
const HOSTCALL_FUEL: usize = 1 << 20;
/// Imports called in one call: fuel is per import, so a flood of small ones is bounded here.
const IMPORTS_MAX: u32 = 10_000;
/// Bytes given to imports in one call.
const IMPORTS_MAX_BYTES: usize = 4 << 20;
/// Log lines of one call that are written; the rest is counted.
pub(super) const LOG_LINES_MAX: u32 = 100;

/// Runs calls, a bounded number at once.
#[derive(Clone)]
pub(super) struct Sandbox {
    engine: WasmEngine,
    places: Arc<Semaphore>,
}

/// What a guest may reach beyond itself.
#[derive(Clone)]
pub(super) enum Access {
    /// Nothing: it is being loaded.
    Nothing,
    /// What the core offers.
    Core(Arc<dyn Capabilities>),
}

/// The host's side of one call.
pub(super) struct CallState {
    pub(super) plugin: Arc<str>,
    pub(super) config: Arc<str>,
    pub(super) access: Access,
    pub(super) call: Call,
    pub(super) ends: Instant,
    pub(super) notes: Vec<String>,
    pub(super) log_lines: u32,
    /// The last words of a panic, if the guest had time for them.
    pub(super) panic: Option<String>,
    memory: MemorySum,
    imports: u32,
    import_bytes: usize,
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
        Self { engine, places: Arc::new(Semaphore::new(CALLS_MAX as usize)) }
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
    ) -> (Result<T, HookError>, Vec<String>) {
        let budget = state.call.budget;
        let ends = state.ends;
        let late = HookError::Timeout { budget };
        let Ok(place) = timeout_at(ends.into(), self.places.acquire()).await else {
            return (Err(HookError::Unavailable("too many plugin calls at once".to_owned())), Vec::new());
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
        drop(place);
        let result = match ended {
            Ok(result) => result.map_err(|error| classify(&error, &state)),
            Err(_) => Err(late),
        };
        (result, state.notes)
    }
}

impl CallState {
    pub(super) fn new(plugin: Arc<str>, config: Arc<str>, access: Access, call: Call) -> Self {
        let ends = Instant::now() + call.budget;
        Self {
            plugin,
            config,
            access,
            call,
            ends,
            notes: Vec::new(),
            log_lines: 0,
            panic: None,
            memory: MemorySum::default(),
            imports: 0,
            import_bytes: 0,
        }
    }

    /// Every import pays before it acts, so that a flood ends the call and not the server's memory or disk.
    pub(super) fn pay(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.imports += 1;
        self.import_bytes = self.import_bytes.saturating_add(bytes);
        if self.imports > IMPORTS_MAX {
            return Err(Stop::Flood(format!("more than {IMPORTS_MAX} questions in one call")).into());
        }
        if self.import_bytes > IMPORTS_MAX_BYTES {
            return Err(Stop::Flood(format!("more than {IMPORTS_MAX_BYTES} bytes in one call")).into());
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
