//! `cargo deny`: licences and sources of every dependency. Its advisories need a database from the network, so they are
//! left to whoever has one.

use std::path::PathBuf;
use std::process::Command as Process;

use anyhow::{Context, Result, ensure};

const CHECK: [&str; 4] = ["check", "licenses", "bans", "sources"];

/// Runs the check, and installs the tool first where it is missing: some minutes, once.
///
/// # Errors
/// The tool cannot be installed, or a dependency is not allowed; the tool has said why.
pub(crate) fn check() -> Result<()> {
    let tool = cache()?.join("tools/bin/cargo-deny");
    if !tool.exists() {
        println!("installing cargo-deny into {}", tool.display());
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = cache()?.join("tools");
        let installed =
            Process::new(cargo).args(["install", "--quiet", "--locked", "cargo-deny", "--root"]).arg(root).status();
        ensure!(installed.context("cannot run cargo")?.success(), "cargo-deny cannot be installed");
    }
    let checked = Process::new(&tool).args(CHECK).status().with_context(|| format!("cannot run {}", tool.display()))?;
    ensure!(checked.success(), "a dependency is not allowed");
    Ok(())
}

pub(crate) fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("kiwispray"))
}
