//! End-to-end tests: machines boot over a real network from a real server, nothing faked.
//!
//! Each run happens in network, process and mount namespaces of its own (see `net`): nothing outside is touched, and
//! whatever is left over ends with the namespace. The usual way to run one is `cargo xtask e2e <scenario>`.

mod cache;
mod console;
mod firmware;
mod machine;
mod net;
mod payload;

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
    /// Firmware of every kind reaches the boot script through the generated dnsmasq configuration.
    Firmware,
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
    if let net::Place::Outside(code) = net::enter().context("cannot make the namespaces of the test")? {
        return Ok(code);
    }
    let begin = Instant::now();
    let passed = match args.scenario {
        Scenario::Firmware => firmware::run(args.watch)?,
    };
    println!("\n{passed} passed, 0 failed, {} s", begin.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}
