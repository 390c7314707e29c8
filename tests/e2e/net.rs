//! A network of its own: namespaces, a bridge that stands for the switch, a tap for each machine.
//!
//! The test process runs itself again by `unshare`, as process 1 of a new process namespace. Everything it starts lives
//! in there, QEMU and dnsmasq included, and the kernel ends and removes it all when process 1 ends, however it ends.
//! As root these are plain namespaces; for everyone else a user namespace comes around them, where the kernel allows it.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

const INSIDE: &str = "KIWISPRAY_E2E_INSIDE";

/// On which side of the namespaces this process is.
pub(crate) enum Place {
    /// In the namespaces: do the work.
    Inside,
    /// The work was done by another process, which ended like this.
    Outside(ExitCode),
}

/// Runs this program again in new namespaces, or finds that this has happened.
pub(crate) fn enter() -> Result<Place> {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"])?;
        return Ok(Place::Inside);
    }
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    unshare.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    // The pipe closes when this process ends, by whatever cause; the inner one watches it.
    let mut child = unshare.stdin(Stdio::piped()).spawn().context("cannot run `unshare` (package util-linux)")?;
    let alive = child.stdin.take();
    let status = child.wait()?;
    drop(alive);
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(Place::Outside(ExitCode::from(code)))
}

/// Ends this process, and removes its files, when the outer one ends: process 1 of a namespace ignores Ctrl-C.
pub(crate) fn end_with_parent(dir: &Path) {
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        let _ = std::fs::remove_dir_all(dir);
        std::process::exit(130);
    });
}

/// The switch of the test, with the server's own address on it.
pub(crate) struct Bridge {
    name: String,
}

impl Bridge {
    /// The server's address.
    pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 42, 1);

    pub(crate) fn new(name: &str, address: Ipv4Addr) -> Result<Self> {
        // Without spanning tree and its delays, as firmware asks for an address within seconds of link-up.
        run("ip", &["link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
        run("ip", &["address", "add", &format!("{address}/24"), "broadcast", "+", "dev", name])?;
        run("ip", &["link", "set", name, "up"])?;
        Ok(Bridge { name: name.to_owned() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A socket of the switch.
    pub(crate) fn tap(&self, tap: &str) -> Result<()> {
        run("ip", &["tuntap", "add", tap, "mode", "tap"])?;
        run("ip", &["link", "set", tap, "master", &self.name, "up"])
    }
}

/// Runs a command that prints nothing of interest when it works.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => bail!("cannot run {program}: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}
