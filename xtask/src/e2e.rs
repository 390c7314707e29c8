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
    /// Two machines, BIOS and UEFI, from unknown to booting what was installed (4 minutes).
    Boot,
    /// A real KIWI image, built if it is not in the cache, deployed on a blank disk (6 to 20 minutes, the build needs root).
    Kiwi,
    /// Real live ISOs of KIWI, built if they are not in the cache, booted from the network (5 to 20 minutes, the build needs root).
    Live,
    /// What the manual's first chapter shows with machines in QEMU, typed as it stands there (5 minutes).
    Manual,
    /// Firmware of every kind reaches the boot script through the generated dnsmasq configuration (2 minutes).
    Firmware,
    /// A machine is discovered, wiped and configured by the images that ship (4 minutes).
    Walks,
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
        Scenario::Boot => "boot",
        Scenario::Firmware => "firmware",
        Scenario::Manual => "manual",
        Scenario::Kiwi => {
            packages::ensure_installed(Purpose::Kiwi)?;
            "kiwi"
        }
        Scenario::Live => {
            packages::ensure_installed(Purpose::Kiwi)?;
            "live"
        }
        Scenario::Walks => {
            packages::ensure_installed(Purpose::Live)?;
            "walks"
        }
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
