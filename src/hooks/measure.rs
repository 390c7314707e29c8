//! How long one plugin takes for `boot.decide`: the figure that the speed of every boot of a waiting host hangs on.
use std::time::{Duration, Instant};

use super::{BootRequest, Call, HookError, Plugin};

/// Figures over many calls, each with everything that belongs to it: for a component a fresh store and instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// How many.
    pub calls: usize,
    /// Half were faster.
    pub median: Duration,
    /// One in a hundred was slower.
    pub p99: Duration,
    /// All together, one after the other.
    pub total: Duration,
}

/// Asks a plugin `calls` times, one after the other.
///
/// # Errors
/// The first error: a plugin that fails fast must not look fast.
pub async fn boot_decide(
    plugin: &dyn Plugin,
    call: &Call,
    request: &BootRequest,
    calls: usize,
) -> Result<Measured, HookError> {
    let mut times = Vec::with_capacity(calls);
    let start = Instant::now();
    for _ in 0..calls {
        let asked = Instant::now();
        plugin.decide(call, request).await.result?;
        times.push(asked.elapsed());
    }
    let total = start.elapsed();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    Ok(Measured { calls, median: at(50), p99: at(99), total })
}
