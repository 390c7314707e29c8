//! Real live ISOs, built by KIWI, imported without mounting and booted from the network by the real server.
//!
//! One machine walks through both ways in which an ISO reaches its memory: dracut's `livenet` (`flags="dmsquash"`) and the
//! module of KIWI 10. What proves itself is userspace within the live system: the unit that `image hook --task discover` put
//! into it takes inventory and reports, and another says what the root is. The server is restarted while the second ISO is on
//! its way, as KIWI's module asks only once, and takes what it has for the whole. The disk must be as blank afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::built;
use crate::machine::{Firmware, Identity, Machine};
use crate::net::Bridge;
use crate::requests::Requests;
use crate::server::Server;

const FIRMWARE_TIME: Duration = Duration::from_secs(180);
/// Kernel, initrd, 200 MB into memory, a whole system's start; without KVM.
const LIVE_TIME: Duration = Duration::from_secs(400);
/// From a report to what follows from it.
const STEP_TIME: Duration = Duration::from_secs(120);
const DISK_MIB: u64 = 64;

/// The images, in the order of the walk, with what the root of each is made of.
const IMAGES: [(&str, &str); 2] = [("livenet", "/dev/mapper/live-rw ext4"), ("kiwi-live", "LiveOS_rootfs overlay")];

/// The server is restarted in the middle of this one.
const RESTARTED: &str = "kiwi-live";

/// The folder with an ISO for each image.
///
/// # Errors
/// The build needs root; it leaves its log next to the folder.
pub(crate) fn isos() -> Result<PathBuf> {
    built::image("live", &["--task", "discover"])
}

pub(crate) fn run(dir: &Path, isos: &Path, watch: bool) -> Result<u32> {
    let bridge = Bridge::new("e2e0", Bridge::ADDRESS)?;
    let requests = Requests::record(&bridge)?;
    let mut server = Server::new(dir, &bridge)?;
    server.start()?;
    let begin = Instant::now();
    for (name, _) in IMAGES {
        let iso = isos.join(format!("{name}.iso")).display().to_string();
        let append = "console=ttyS0,115200 net.ifnames=0";
        server.cli(&["image", "import", name, &iso, "--append", append, "--takes-inventory"])?;
    }
    println!("ok {:4} s: two live ISOs are imported", begin.elapsed().as_secs());
    server.cli(&["image", "verify"])?;

    let mut machine = Machine::new(dir, Identity::new("live", 5), Firmware::BiosRom, DISK_MIB, &bridge, watch)?;
    let walked = walk(&mut server, &mut machine, &requests);
    println!("\nHTTP requests in order:");
    requests.print();
    let passed = walked.with_context(|| server.last_log_lines())?;
    for (name, _) in IMAGES {
        ensure!(requests.count(&format!("/{name}.iso")) == 1, "{name}.iso was not fetched exactly once");
    }
    ensure!(fs::read(machine.disk())?.iter().all(|byte| *byte == 0), "a live system wrote the disk");
    println!("ok each ISO was fetched once, and the disk is untouched");
    Ok(passed + 2)
}

fn walk(server: &mut Server, machine: &mut Machine, requests: &Requests) -> Result<u32> {
    let begin = Instant::now();
    let ok = |claim: &str| println!("ok {:4} s: {claim}", begin.elapsed().as_secs());
    machine.power_on()?;
    machine.console.wait_for("it waits for a state", FIRMWARE_TIME)?;
    let id = server.host_id(&machine.identity.serial)?;
    ok("an unknown machine waits");

    let mut queue: Vec<&str> = IMAGES.iter().map(|(name, _)| *name).chain(["new"]).collect();
    server.cli(&["host", "set", &id, "--state", &queue.join(","), "--yes"])?;
    for (name, root) in IMAGES {
        server.cli(&["host", "set", &id, "--meta", r#"{"inventory":null}"#])?;
        machine.console.wait_for(&format!("boots {name}"), FIRMWARE_TIME)?;
        ok(&format!("it is told to boot {name}"));
        if name == RESTARTED {
            requests.wait_for(&format!("/{name}.iso"), LIVE_TIME)?;
            server.hand_over()?;
            ensure!(server.streams_on()?, "the ISO was there before the server was restarted");
            ok("the server is restarted while the ISO is on its way");
        }
        machine.console.wait_for(&format!("e2e: the root is {root}"), LIVE_TIME)?;
        machine.console.wait_for("e2e: the root can be written", STEP_TIME)?;
        ok(&format!("the live system's own userspace runs on {root}"));
        machine.console.wait_for("kiwispray: finished", STEP_TIME)?;
        queue.remove(0);
        server.wait_for_states(&id, &queue.join(","), STEP_TIME)?;
        let kernel = server.host(&id)?.pointer("/metadata/inventory/kernel").cloned().unwrap_or_default();
        ensure!(kernel.as_str().is_some_and(|kernel| kernel.ends_with("-amd64")), "the inventory's kernel is {kernel}");
        ok(&format!("it took inventory and reported; the queue is {}", queue.join(",")));
    }
    machine.console.wait_for("it waits for a state", FIRMWARE_TIME)?;
    ok("it waits again");
    let attempts = server.events(&id)?.iter().filter(|event| *event == "attempt_started").count();
    ensure!(attempts == IMAGES.len(), "it needed {attempts} attempts");
    Ok(9)
}
