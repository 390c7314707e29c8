//! A real KIWI image, built by Debian's own KIWI and deployed on a blank disk by the real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::built;
use crate::machine::{Firmware, Identity, Machine};
use crate::net::Bridge;
use crate::requests::Requests;
use crate::server::Server;

const FIRMWARE_TIME: Duration = Duration::from_secs(180);
const NOTICE_TIME: Duration = Duration::from_secs(60);
/// Kernel, installer, 600 MB to the disk and back, kexec, first boot; without KVM.
const INSTALL_TIME: Duration = Duration::from_secs(900);
const DISK_MIB: u64 = 2048;

/// The network archive of the test's image: from the cache if nothing of its description changed, else built.
///
/// # Errors
/// The build needs root; it leaves its log next to the archive.
pub(crate) fn archive() -> Result<PathBuf> {
    let dir = built::image("kiwi", &[])?;
    let mut files = fs::read_dir(&dir)?;
    let archive = files.find_map(|entry| entry.ok().map(|entry| entry.path()));
    archive.with_context(|| format!("{} is empty: remove it", dir.display()))
}

pub(crate) fn run(dir: &Path, archive: &Path, watch: bool) -> Result<u32> {
    let bridge = Bridge::new("e2e0", Bridge::ADDRESS)?;
    let requests = Requests::record(&bridge)?;
    let mut server = Server::new(dir, &bridge)?;
    server.start()?;
    let begin = Instant::now();
    server.cli(&["image", "import", "sprayling", &archive.to_string_lossy(), "--device", "/dev/vda"])?;
    println!("ok {:4} s: the image is imported", begin.elapsed().as_secs());

    let identity = Identity::new("kiwi", 3);
    let mut machine = Machine::new(dir, identity, Firmware::BiosRom, DISK_MIB, &bridge, watch)?;
    let walked = walk(&server, &mut machine);
    println!("\nHTTP requests in order:");
    requests.print();
    let passed = walked.with_context(|| server.last_log_lines())?;
    ensure!(requests.count(".xz") == 1, "the image was not fetched exactly once");
    Ok(passed)
}

fn walk(server: &Server, machine: &mut Machine) -> Result<u32> {
    let begin = Instant::now();
    let ok = |claim: &str| println!("ok {:4} s: {claim}", begin.elapsed().as_secs());
    machine.power_on()?;
    machine.console.wait_for("it waits for a state", FIRMWARE_TIME)?;
    let id = server.host_id(&machine.identity.serial)?;
    ok("an unknown machine waits");

    server.cli(&["deploy", "sprayling", &id, "--yes"])?;
    machine.console.wait_for("installs sprayling on /dev/vda", NOTICE_TIME)?;
    ok("it starts KIWI's installer");

    let deadline = Instant::now() + INSTALL_TIME;
    let mut shown = String::new();
    while server.states(&id)? != "finished" {
        ensure!(Instant::now() < deadline, "not finished after {} s", INSTALL_TIME.as_secs());
        let progress = progress(&server.host(&id)?);
        if progress != shown {
            println!("   {:4} s: {progress}", begin.elapsed().as_secs());
            shown = progress;
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    ok("the installed system has reported");

    machine.console.wait_for("boots its local disk", FIRMWARE_TIME)?;
    machine.console.wait_for("sprayling login:", FIRMWARE_TIME)?;
    ok("it boots from its disk");
    ensure!(server.states(&id)? == "finished", "the machine is not finished any more");
    Ok(4)
}

/// What an installation has come to, in steps of a tenth.
fn progress(host: &Value) -> String {
    let field = |name: &str| host.pointer(&format!("/progress/{name}"));
    let file = field("file").and_then(Value::as_str).unwrap_or("nothing yet");
    let percent = field("percent").and_then(Value::as_u64).unwrap_or(0);
    format!("{} % of {file}", percent / 10 * 10)
}
