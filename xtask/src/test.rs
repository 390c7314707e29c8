//! The test command: everything that must hold before a change lands, in order of cost, with a table at the end.

use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::deny;
use crate::e2e::{self, Scenario};
use crate::packages::{self, Purpose};
use crate::plugins;

/// Everything that must hold before a change lands.
#[derive(Debug, clap::Args)]
pub(crate) struct Command {
    /// Also what takes too long for every change: the licences of all dependencies; machines that are discovered, wiped and
    /// configured; a real KIWI image, built and installed; real live ISOs; a real NetBox.
    #[arg(long)]
    long: bool,
    /// Leave out the machines that boot: for the minutes between two edits, never before a change lands.
    #[arg(long, conflicts_with = "long")]
    no_boot: bool,
}

/// Tests that ran within one step.
#[derive(Clone, Copy, Default)]
struct Count {
    passed: u64,
    failed: u64,
}

struct Step {
    name: &'static str,
    run: fn() -> Result<Count>,
}

/// What every change must pass.
const STEPS: &[Step] = &[
    Step { name: "packages", run: || packages::ensure_installed(Purpose::Test).map(|()| Count::default()) },
    Step { name: "format", run: || both(&["fmt", "--all", "--check"]) },
    Step { name: "lints", run: || both(&["clippy", "--all-targets", "--workspace", "--", "-D", "warnings"]) },
    Step { name: "plugins are fresh", run: || one(plugins::run(plugins::Command::Check)) },
    Step { name: "tests", run: || cargo(&["test", "--workspace"]) },
    Step { name: "plugin tests", run: || cargo(&["test", "--workspace", "--manifest-path", PLUGINS]) },
];

const BOOT: &[Step] = &[
    Step { name: "firmware boots", run: || one(e2e::run_scenario(Scenario::Firmware, false)) },
    Step { name: "machines boot", run: || one(e2e::run_scenario(Scenario::Boot, false)) },
];

const LONG: &[Step] = &[
    Step { name: "dependencies", run: || one(deny::check()) },
    Step { name: "large ISOs", run: || cargo(&["test", "--lib", "images::live::tests::large", "--", "--ignored"]) },
    // One after the other: their compilers take all of a machine.
    Step {
        name: "JavaScript and Python plugins",
        run: || cargo(&["test", "--test", "langs", "--", "--test-threads", "1"]),
    },
    Step { name: "discover, wipe, configure", run: || one(e2e::run_scenario(Scenario::Walks, false)) },
    Step { name: "the manual deploys", run: || one(e2e::run_scenario(Scenario::Manual, false)) },
    Step { name: "KIWI installs", run: || one(e2e::run_scenario(Scenario::Kiwi, false)) },
    Step { name: "live ISOs boot", run: || one(e2e::run_scenario(Scenario::Live, false)) },
    Step { name: "NetBox syncs", run: netbox },
];

const PLUGINS: &str = "plugins/Cargo.toml";

pub(crate) fn run(command: &Command) -> Result<()> {
    let mut steps: Vec<&Step> = STEPS.iter().collect();
    if !command.no_boot {
        steps.extend(BOOT);
    }
    if command.long {
        steps.extend(LONG);
    }
    let mut lines = Vec::new();
    let mut total = Count::default();
    for step in steps {
        println!("\n== {}", step.name);
        let begun = Instant::now();
        let outcome = (step.run)();
        let seconds = begun.elapsed().as_secs();
        let (word, count) = match outcome {
            Ok(count) => ("ok", count),
            Err(error) => {
                println!("{error:#}");
                ("FAILED", Count { passed: 0, failed: 1 })
            }
        };
        total.passed += count.passed;
        total.failed += count.failed;
        let word = if count.failed > 0 { "FAILED" } else { word };
        lines.push(format!("{word:<7} {seconds:>5} s  {}", step.name));
    }
    println!("\n{}", lines.join("\n"));
    println!("\n{} passed, {} failed", total.passed, total.failed);
    ensure!(total.failed == 0, "something failed: see above");
    Ok(())
}

/// The plugin `netbox` against a real NetBox.
fn netbox() -> Result<Count> {
    packages::ensure_installed(Purpose::Netbox)?;
    cargo(&["test", "--test", "peers", "netbox::", "--", "--ignored", "--nocapture"])
}

fn one(outcome: Result<()>) -> Result<Count> {
    outcome.map(|()| Count { passed: 1, failed: 0 })
}

/// The server's workspace and the plugins'.
fn both(arguments: &[&str]) -> Result<Count> {
    let (words, rest) = arguments.split_at(1);
    let plugins: Vec<&str> = words.iter().chain(&["--manifest-path", PLUGINS]).chain(rest).copied().collect();
    cargo(arguments)?;
    cargo(&plugins)
}

/// Runs cargo, passes its output on and adds up what its test runners closed with.
fn cargo(arguments: &[&str]) -> Result<Count> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Process::new(cargo).args(arguments).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut count = Count::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read cargo's output")?;
        // One line per test would bury what matters; a failing test is printed again below its name.
        if !line.ends_with("... ok") {
            println!("{line}");
        }
        if let Some(found) = closing_line(&line) {
            count.passed += found.passed;
            count.failed += found.failed;
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && count.failed == 0 {
        bail!("cargo {} failed: {status}", arguments.join(" "));
    }
    Ok(count)
}

/// `test result: ok. 35 passed; 0 failed; …`
fn closing_line(line: &str) -> Option<Count> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut count = Count::default();
    for part in counts.split(';') {
        match part.trim().split_once(' ') {
            Some((number, "passed")) => count.passed = number.parse().ok()?,
            Some((number, "failed")) => count.failed = number.parse().ok()?,
            Some(_) | None => {}
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let line =
            "test result: FAILED. 35 passed; 2 failed; 0 ignored; 0 measured; 103 filtered out; finished in 0.42s";
        let count = closing_line(line).unwrap();
        assert_eq!((count.passed, count.failed), (35, 2));
        assert!(closing_line("running 3 tests").is_none());
    }
}
