//! End-to-end tests: machines boot over a real network from a real server, nothing faked.
//!
//! Each run happens in network, process and mount namespaces of its own (see `net`): nothing outside is touched, and
//! whatever is left over ends with the namespace. The usual way to run one is `cargo xtask e2e <scenario>`.

#[path = "../support/book.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the integration tests', of which only the blocks are needed here"
)]
mod book;
mod boot;
mod built;
mod cache;
mod console;
mod firmware;
mod kiwi;
mod live;
mod machine;
mod manual;
mod net;
mod payload;
mod requests;
mod server;
#[path = "../support/shell.rs"]
#[allow(clippy::unwrap_used, reason = "the integration tests'")]
mod shell;
mod walks;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "End-to-end tests of kiwispray", long_about = None)]
struct Args {
    #[command(subcommand)]
    scenario: Scenario,
    /// Shows the machines' consoles while they boot.
    #[arg(long, global = true)]
    watch: bool,
}

#[derive(Subcommand)]
enum Scenario {
    /// Two machines, BIOS and UEFI, from unknown to booting what was installed, with a server that is killed on the way.
    Boot,
    /// Firmware of every kind reaches the boot script through the generated dnsmasq configuration.
    Firmware,
    /// What the manual's first chapter shows with machines in QEMU, typed as it stands there.
    Manual,
    /// A real KIWI image, built if it is not in the cache, deployed on a blank disk.
    Kiwi,
    /// Real live ISOs of KIWI, built if they are not in the cache, booted from the network.
    Live,
    /// A machine is discovered, wiped and configured by the images that ship.
    Walks,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let begin = Instant::now();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nFAILED after {} s: {error:#}", begin.elapsed().as_secs());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // What comes from elsewhere is fetched before the network is gone.
    match args.scenario {
        Scenario::Boot | Scenario::Manual | Scenario::Walks => drop(payload::kernel_tree()?),
        Scenario::Firmware => {}
        Scenario::Kiwi => drop(kiwi::archive()?),
        Scenario::Live => drop(live::isos()?),
    }
    if let net::Place::Outside(code) = net::enter().context("cannot make the namespaces of the test")? {
        return Ok(code);
    }
    let dir = tempfile::tempdir()?;
    net::end_with_parent(dir.path());
    if args.watch {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
    }
    let begin = Instant::now();
    let passed = match args.scenario {
        Scenario::Boot => boot::run(dir.path(), args.watch)?,
        Scenario::Firmware => firmware::run(dir.path(), args.watch)?,
        Scenario::Manual => manual::run(dir.path(), args.watch)?,
        Scenario::Kiwi => kiwi::run(dir.path(), &kiwi::archive()?, args.watch)?,
        Scenario::Live => live::run(dir.path(), &live::isos()?, args.watch)?,
        Scenario::Walks => walks::run(dir.path(), args.watch)?,
    };
    println!("\n{passed} passed, 0 failed, {} s", begin.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}
