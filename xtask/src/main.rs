//! Everything that builds, tests and measures kiwispray.
use clap::Parser;

mod e2e;
mod packages;

/// Everything that builds, tests and measures kiwispray.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Boot machines over a real network from a real server.
    E2e(e2e::Command),
    /// Install the Debian packages that tests need, as far as they are missing.
    Packages(packages::Command),
}

fn main() -> anyhow::Result<()> {
    match Xtask::parse() {
        Xtask::E2e(command) => e2e::run(&command),
        Xtask::Packages(command) => packages::run(&command),
    }
}
