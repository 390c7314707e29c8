//! Everything that builds, tests and measures kiwispray.
use clap::Parser;

mod plugins;

/// Everything that builds, tests and measures kiwispray.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Build the shipped plugins, or check that they are built from what stands beside them.
    #[command(subcommand)]
    Plugins(plugins::Command),
}

fn main() -> anyhow::Result<()> {
    match Xtask::parse() {
        Xtask::Plugins(command) => plugins::run(command),
    }
}
