//! What every peer needs: built components where the server looks for them, ports, processes that end with the test, and
//! patience.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Boot, Machine, Server, Site};

/// How long a busy machine may take for what a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A path within the checkout.
pub(crate) fn checkout(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

/// Installs a shipped plugin's built component: `plugins/NAME/NAME.wasm` of the site is the one of the checkout.
#[track_caller]
pub(crate) fn install(site: &Site, plugin: &str) {
    let built = checkout(&format!("plugins/{plugin}/{plugin}.wasm"));
    let folder = site.path("plugins").join(plugin);
    fs::create_dir_all(&folder).unwrap();
    let copied = fs::copy(&built, folder.join(format!("{plugin}.wasm")));
    copied.unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask plugins build`", built.display()));
}

/// A port of the loopback interface that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A process that is ended with the test.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it; what it writes goes to this file.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let out = fs::File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Process {
    /// Asks it to end first: it may have started others.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asks until it is told to boot: on a busy machine a plugin may not answer in time, and then a machine holds and asks again.
#[track_caller]
pub(crate) fn boots(machine: &Machine, server: &Server) -> Boot {
    wait_for("a boot", || Some(machine.boot(server)).filter(|boot| boot.outcome == "boot"))
}

/// Asks until it is told to hold for this reason.
#[track_caller]
pub(crate) fn holds(machine: &Machine, server: &Server, reason: &str) {
    wait_for(reason, || {
        let boot = machine.boot(server);
        assert_eq!(boot.outcome, "hold", "{}", boot.script);
        boot.script.contains(reason).then_some(())
    });
}
