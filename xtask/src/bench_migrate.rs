//! How long it takes to move over: the real `kiwispray migrate` against a real server that knows no host yet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench_server::Server;

/// What the default number of hosts may take.
const TARGET: Duration = Duration::from_secs(10);
const HOSTS: u32 = 10_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many hosts are taken over. The target is for the default number.
    #[arg(long, default_value_t = HOSTS)]
    hosts: u32,
    /// How often, each time by a new server; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure this kiwispray, and build none.
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
}

pub(crate) fn run(program: &Path, arguments: &Arguments) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..arguments.rounds.max(1) {
        let server = Server::start(program, "bench-migrate-data")?;
        times.push(server.migrate(arguments.hosts, |_| "finished")?);
    }
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!("{} hosts\n  migrate {median:>8.2?}   of {times:.2?}", arguments.hosts);
    ensure!(arguments.hosts != HOSTS || median < TARGET, "migrate took {median:.2?}, and {TARGET:?} is the target");
    Ok(())
}
