//! Who used the processors, as Linux counts it.
use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time.
pub(crate) type Time = Duration;

/// Linux counts in hundredths of a second wherever it shows this to programs.
const TICK: Duration = Duration::from_millis(10);

/// By the calling thread.
pub(crate) fn used_by_thread() -> Result<Time> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// By all threads of this process, in user and kernel mode.
pub(crate) fn used_by_process() -> Result<Time> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, may hold spaces.
    let (_, fields) = text.rsplit_once(") ").context("no name in /proc/self/stat")?;
    ticks(fields.split(' ').skip(11).take(2))
}

/// By all programs of the machine.
pub(crate) fn used_by_all() -> Result<Time> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().context("an empty /proc/stat")?.split_whitespace();
    // user nice system idle iowait irq softirq
    let busy = fields.skip(1).enumerate().filter(|(place, _)| matches!(place, 0..=2 | 5..=6));
    ticks(busy.map(|(_, field)| field))
}

fn ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Time> {
    fields.map(|field| Ok(TICK * field.parse::<u32>()?)).sum()
}
