//! How long `host import` and `host list` of a whole fleet take: the real command line against the real server, over its socket.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bench_server::{Server, mac, uuid};

/// `host list` of the default number of hosts takes less than this.
const TARGET: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many hosts the server knows.
    #[arg(long, default_value_t = 100_000)]
    hosts: u32,
    /// How often each thing is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

pub(crate) fn run(program: &Path, arguments: &Arguments) -> Result<()> {
    let server = Server::start(program, "bench-list-data")?;
    fs::write(server.folder.join("hosts.csv"), list(arguments.hosts)?)?;
    let median = measure(&server, arguments)?;
    let is_judged = arguments.hosts == 100_000;
    ensure!(!is_judged || median < TARGET, "host list took {median:.2?}, and {TARGET:?} is the target");
    Ok(())
}

/// Measures, and returns the median of `host list`.
fn measure(server: &Server, arguments: &Arguments) -> Result<Duration> {
    let timed = |words: &[&str]| server.timed(words);
    println!("{} hosts", arguments.hosts);
    println!("  host import          {:>8.2?}", timed(&["host", "import", "hosts.csv", "--yes"])?);
    println!("  the same again       {:>8.2?}", timed(&["host", "import", "hosts.csv", "--yes"])?);
    let mut medians = Vec::new();
    for words in [&["host", "list"][..], &["host", "list", "--json"], &["host", "export"]] {
        let mut times = (0..arguments.rounds.max(1)).map(|_| timed(words)).collect::<Result<Vec<_>>>()?;
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        println!("  {:<20} {median:>8.2?}", words.join(" "));
        medians.push(median);
    }
    medians.first().copied().context("nothing was measured")
}

/// A list of that many hosts, with what hosts usually have.
fn list(hosts: u32) -> Result<String> {
    let mut text = "hostname,serial,uuid,macs,metadata.site,metadata.rack\n".to_owned();
    for n in 1..=hosts {
        writeln!(text, "node{n},SN{n:06},{},{},fra{},{}", uuid(n), mac(n), n % 7, n % 40)?;
    }
    Ok(text)
}
