//! The engine: settings that every component is compiled and run with, and the clock that ends calls.
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, Instance, InstanceAllocationStrategy, Module, PoolingAllocationConfig, Store};

/// All linear memories of one instance together.
pub(super) const MEMORY_MAX_BYTES: usize = 32 << 20;
/// Elements of one table.
pub(super) const TABLE_MAX_ELEMENTS: usize = 100_000;
/// Calls running at once; more wait for their turn within their time.
pub(super) const CALLS_MAX: u32 = 64;

/// How often running guests are interrupted to look at the time and let others run.
const TICK: Duration = Duration::from_millis(5);
/// Address space of one memory, and of the guard behind it. The defaults would reserve 4 GB each.
const MEMORY_RESERVATION_BYTES: u64 = 64 << 20;
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// What a slot keeps in memory between calls: clearing a little is faster than mapping it anew.
const MEMORY_KEEP_BYTES: usize = 2 << 20;
const TABLE_KEEP_BYTES: usize = 64 << 10;
const STACK_KEEP_BYTES: usize = 64 << 10;

/// Compiles and runs components. Its clock stops when the last clone is gone.
#[derive(Clone)]
pub(super) struct WasmEngine {
    pub(super) engine: Engine,
    pub(super) allocation: Allocation,
}

/// Where instances live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// In a pool that was reserved at the start: a fresh instance costs microseconds.
    Pool,
    /// Mapped for every call, as the pool could not be reserved: slower, not weaker.
    OnDemand {
        /// Why there is no pool.
        why: String,
    },
}

/// Plugins cannot run here at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The machine does not let us compile or run WebAssembly.
    #[error("this machine cannot run plugins: {0}")]
    Wasm(String),
    /// No thread for the clock.
    #[error("the plugins' clock has no thread")]
    Clock(#[source] std::io::Error),
}

impl WasmEngine {
    pub(super) fn start() -> Result<Self, EngineError> {
        let pool = probed(InstanceAllocationStrategy::Pooling(pool()));
        let (engine, allocation) = match pool {
            Ok(engine) => (engine, Allocation::Pool),
            Err(error) => {
                let engine = probed(InstanceAllocationStrategy::OnDemand)
                    .map_err(|error| EngineError::Wasm(format!("{error:#}")))?;
                (engine, Allocation::OnDemand { why: format!("{error:#}") })
            }
        };
        start_clock(&engine).map_err(EngineError::Clock)?;
        Ok(Self { engine, allocation })
    }
}

/// An engine that has run something, as some machines refuse only then.
fn probed(strategy: InstanceAllocationStrategy) -> wasmtime::Result<Engine> {
    /// `(module (memory 1))`
    const PROBE: &[u8] = b"\0asm\x01\0\0\0\x05\x03\x01\0\x01";
    let engine = Engine::new(&config(strategy))?;
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(u64::MAX / 2);
    Instance::new(&mut store, &Module::new(&engine, PROBE)?, &[])?;
    Ok(engine)
}

fn config(strategy: InstanceAllocationStrategy) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .allocation_strategy(strategy)
        .epoch_interruption(true)
        // The contract has no streams or futures; without them a call costs less.
        .concurrency_support(false)
        .memory_init_cow(true)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        // The same call gives the same answer on every machine, so that a recorded one can be replayed.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false);
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    // A component is a few core instances (its module, and shims that the encoder adds); one of Python is 38.
    pool.total_component_instances(CALLS_MAX)
        .total_core_instances(CALLS_MAX * 64)
        .total_memories(CALLS_MAX * 4)
        .total_tables(CALLS_MAX * 16)
        .total_stacks(CALLS_MAX)
        .max_core_instances_per_component(64)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(MEMORY_MAX_BYTES)
        .max_tables_per_module(4)
        .table_elements(TABLE_MAX_ELEMENTS)
        .linear_memory_keep_resident(MEMORY_KEEP_BYTES)
        .table_keep_resident(TABLE_KEEP_BYTES)
        .async_stack_keep_resident(STACK_KEEP_BYTES)
        .max_unused_warm_slots(CALLS_MAX)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// A thread of its own: an executor whose threads are all busy with guests must still interrupt them.
fn start_clock(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new().name("plugin-clock".to_owned()).spawn(move || {
        loop {
            thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_live_in_the_pool_or_the_reason_is_known() {
        match WasmEngine::start().unwrap().allocation {
            Allocation::Pool => {}
            Allocation::OnDemand { why } => assert!(!why.is_empty()),
        }
    }

    #[test]
    fn without_a_pool_the_engine_still_works() {
        probed(InstanceAllocationStrategy::OnDemand).unwrap();
    }
}
