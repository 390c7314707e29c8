//! Runs the end-to-end tests (`tests/e2e`) after making sure that the packages they need are there.

use std::process::Command as Process;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::packages::{self, Purpose};

/// Boot machines over a real network from a real server.
#[derive(Debug, clap::Args)]
pub(crate) struct Command {
    #[arg(value_enum)]
    scenario: Scenario,
    /// Show the machines' consoles while they boot.
    #[arg(long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Firmware of every kind reaches the boot script through the generated dnsmasq configuration (2 minutes).
    Firmware,
    /// Unknown machines are deployed, walk their queue and boot their disk, BIOS and UEFI (7 minutes).
    Boot,
    /// A real KIWI image is built, imported and installed (20 minutes, the first time).
    Kiwi,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    run_scenario(command.scenario, command.watch)
}

/// Runs one scenario to its end.
///
/// # Errors
/// A package cannot be installed, or the scenario failed; it has said why.
pub(crate) fn run_scenario(scenario: Scenario, watch: bool) -> Result<()> {
    packages::ensure_installed(Purpose::Test)?;
    let name = match scenario {
        Scenario::Firmware => "firmware",
        Scenario::Boot => "boot",
        Scenario::Kiwi => "kiwi",
    };
    let mut cargo = Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--quiet", "--package", "kiwispray", "--test", "e2e", "--", name]);
    if watch {
        cargo.arg("--watch");
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the scenario {name} failed");
    Ok(())
}
