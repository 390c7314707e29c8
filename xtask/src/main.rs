//! Everything that builds, tests and measures kiwispray.

use clap::Parser;

mod bench;
mod bench_backup;
mod bench_list;
mod bench_migrate;
mod bench_server;
mod deny;
mod e2e;
mod packages;
mod plugins;
mod reference;
mod test;

/// Everything that builds, tests and measures kiwispray.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Everything that must hold before a change lands: formatting, lints, tests, plugins, machines that boot.
    Test(test::Command),
    /// Boot machines over a real network from a real server.
    E2e(e2e::Command),
    /// Measure, as ratios within one run.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Build the shipped plugins, or check that they are built from what stands beside them.
    #[command(subcommand)]
    Plugins(plugins::Command),
    /// Make the manual's references of the plugin contract and of the command line.
    Reference(reference::Command),
    /// Install the Debian packages that tests need, as far as they are missing.
    Packages(packages::Command),
}

fn main() -> anyhow::Result<()> {
    match Xtask::parse() {
        Xtask::Test(command) => test::run(&command),
        Xtask::E2e(command) => e2e::run(&command),
        Xtask::Bench(command) => bench::run(&command),
        Xtask::Plugins(command) => plugins::run(command),
        Xtask::Reference(command) => reference::run(command),
        Xtask::Packages(command) => packages::run(&command),
    }
}
