//! The images that ship, as one machine meets them: `discover` when it is unknown, then `wipe` and `hardware-config`.
//!
//! Their manifests and scripts are those of `images/`; kernel and initrd are made by `images/build-initrd.sh`. The wiping
//! initrd first fills the disks with everything that must go, and the test looks at the bytes afterwards.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::machine::{Firmware, Identity, Machine};
use crate::net::{Bridge, run as run_command};
use crate::payload;
use crate::server::Server;

/// From power-on to the first script, on a busy machine without KVM.
const FIRMWARE_TIME: Duration = Duration::from_secs(180);
/// From a script to the next thing that it causes.
const STEP_TIME: Duration = Duration::from_secs(120);
const NOTICE_TIME: Duration = Duration::from_secs(40);
const DISK_MIB: u64 = 256;

/// What firmware may say of a board, and what must come of it.
const BOARD: &str = "Board \"X\" \\1 $(reboot) `y` 100% \u{e9}\u{20ac}";
/// Cards that iPXE has no driver for: one that nobody answers, one without a cable.
const OTHER_CARDS: [&str; 2] = ["52:54:00:e2:e1:01", "52:54:00:e2:e1:02"];
/// The last words of a configuration that does not work.
const COMPLAINT: &str = "controller 0: the battery is missing";

pub(crate) fn run(dir: &Path, watch: bool) -> Result<u32> {
    let bridge = Bridge::new("e2e0", Bridge::ADDRESS)?;
    let mut server = Server::new(dir, &bridge)?.with(&["--discover"]);
    let begin = Instant::now();
    for task in ["discover", "wipe", "hardware-config"] {
        add_image(&server, task, dir)?;
    }
    server.start()?;
    let mut machine = Machine::new(dir, Identity::new("walk", 4), Firmware::BiosRom, DISK_MIB, &bridge, watch)?;
    let spared = build_in(&mut machine, dir)?;
    let mut walk = Walk { machine, server, spared, begin, passed: 0 };
    walk.run().with_context(|| walk.server.last_log_lines())?;
    Ok(walk.passed)
}

/// An image as it ships, with a kernel and an initrd made for it.
fn add_image(server: &Server, task: &str, dir: &Path) -> Result<()> {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
    let folder = server.image_dir(task);
    fs::create_dir_all(&folder)?;
    for file in fs::read_dir(images.join(task))? {
        let file = file?;
        // What someone built in the checkout is not what is tested.
        if !["vmlinuz", "initrd"].contains(&&*file.file_name().to_string_lossy()) {
            fs::copy(file.path(), folder.join(file.file_name()))?;
        }
    }
    let mut build = Command::new(images.join("build-initrd.sh"));
    build.arg(task).arg(&folder).env("KERNEL_TREE", payload::kernel_tree()?);
    if task == "wipe" {
        let overlay = dir.join("overlay");
        fs::create_dir(&overlay)?;
        fs::write(overlay.join("before.sh"), include_str!("walks-dirt.sh"))?;
        build.env("OVERLAY", overlay).env("TOOLS", "sgdisk");
    }
    let output = build.output().context("cannot run images/build-initrd.sh")?;
    ensure!(output.status.success(), "build-initrd.sh {task}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Puts cards and drives into the machine. Returns the drives that must not be touched, with what they hold.
fn build_in(machine: &mut Machine, dir: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let [silent, loose] = OTHER_CARDS;
    machine.build_in(&["-smbios", &format!("type=2,product={BOARD},serial= B-7 ")]);
    machine.build_in(&["-netdev", "hubport,id=silent,hubid=1"]);
    machine.build_in(&["-device", &format!("vmxnet3,netdev=silent,mac={silent},romfile=")]);
    machine.build_in(&["-device", &format!("vmxnet3,mac={loose},romfile=")]);
    fs::File::create_new(dir.join("second"))?.set_len(DISK_MIB << 20)?;
    machine.build_in(&["-drive", &format!("file={}/second,format=raw,if=none,id=second", dir.display())]);
    machine.build_in(&["-device", "virtio-blk-pci,drive=second", "-device", "virtio-scsi-pci"]);

    let mut spared = Vec::new();
    for (name, drive, device) in [
        ("stick", "", "scsi-hd,drive=stick,removable=on"),
        ("cd", ",readonly=on", "scsi-cd,drive=cd"),
        ("fixed", ",readonly=on", "virtio-blk-pci,drive=fixed"),
    ] {
        let path = dir.join(name);
        let mut bytes = vec![0_u8; 4 << 20];
        // A swap signature, which wipefs would find.
        let (at, signature) = (4096 - 10, b"SWAPSPACE2");
        bytes.get_mut(at..at + signature.len()).context("the drive is too small")?.copy_from_slice(signature);
        bytes.iter_mut().take(64).for_each(|byte| *byte = 0x5a);
        fs::write(&path, &bytes)?;
        machine.build_in(&["-drive", &format!("file={},format=raw,if=none,id={name}{drive}", path.display())]);
        machine.build_in(&["-device", device]);
        spared.push((path, bytes));
    }
    Ok(spared)
}

struct Walk {
    machine: Machine,
    server: Server,
    spared: Vec<(PathBuf, Vec<u8>)>,
    begin: Instant,
    passed: u32,
}

impl Walk {
    fn run(&mut self) -> Result<()> {
        self.machine.power_on()?;
        self.machine.console.wait_for("boots discover", FIRMWARE_TIME)?;
        self.ok("an unknown machine boots discover");
        self.said("kiwispray: finished")?;
        let id = self.server.host_id(&self.machine.identity.serial)?;
        self.server.wait_for_states(&id, "new", STEP_TIME)?;
        self.inventory(&id)?;
        self.machine.console.wait_for("it waits for a state", FIRMWARE_TIME)?;
        self.ok("it waits as new");

        self.wipe(&id)?;
        self.fail_to_configure(&id)?;
        self.configure(&id)
    }

    fn inventory(&mut self, id: &str) -> Result<()> {
        let host = self.server.host(id)?;
        let macs = host.get("macs").and_then(Value::as_array).context("a host has no MACs")?;
        let macs: Vec<&str> = macs.iter().filter_map(Value::as_str).collect();
        for mac in OTHER_CARDS.into_iter().chain([&*self.machine.identity.mac]) {
            ensure!(macs.contains(&mac), "the card {mac} is not among {macs:?}");
        }
        self.ok("all three cards are known, the one without an answer and the one without a cable too");

        let found = |path: &str| host.pointer(&format!("/metadata/inventory/{path}")).cloned().unwrap_or_default();
        for (path, expected) in [
            ("dmi/board_name", Value::from(BOARD)),
            ("dmi/board_serial", Value::from("B-7")),
            ("dmi/product_serial", Value::from(&*self.machine.identity.serial)),
            ("cpus", Value::from(1)),
            ("firmware", Value::from("bios")),
        ] {
            ensure!(found(path) == expected, "{path} is {}, not {expected}", found(path));
        }
        let disks = found("disks");
        let sizes = disks.as_array().into_iter().flatten().filter_map(|disk| disk.get("size_mib")?.as_u64());
        ensure!(sizes.filter(|size| *size == DISK_MIB).count() == 2, "the disks are {disks}");
        ensure!(found("nics").as_array().is_some_and(|nics| nics.len() == 3), "the cards are {}", found("nics"));
        self.ok("what the firmware says is known as it says it, with quotes and backslashes; disks and memory too");
        Ok(())
    }

    fn wipe(&mut self, id: &str) -> Result<()> {
        self.tarball(&format!("echo looking >&2; echo '{COMPLAINT}' >&2; exit 3"))?;
        let order = ["host", "set", id, "--state", "wipe,hardware-config", "--yes"];
        let unconfirmed =
            self.server.cli(order.split_last().context("no words")?.1).unwrap_or_else(|refusal| refusal.to_string());
        ensure!(unconfirmed.contains("all its disks"), "it is not said what will be lost: {unconfirmed}");
        self.server.cli(&order)?;
        self.machine.console.wait_for("boots wipe", NOTICE_TIME)?;
        for held in ["vda held gpt gpt PMBR", "vda1 held ext2", "vda2 held linux_raid_member", "md0 held LVM2_member"] {
            self.said(held)?;
        }
        self.said("vdb held LVM2_member")?;
        self.said("running: site-root data-data")?;
        self.said("e2e: the disks are dirty")?;
        self.said("kiwispray: empty: vda vdb")?;
        self.said("kiwispray: finished")?;
        self.server.wait_for_states(id, "hardware-config", STEP_TIME)?;
        self.ok("wipe stops arrays and volumes, reports, and the queue advances");

        let second = self.machine.disk().parent().and_then(Path::parent).context("no folder")?.join("second");
        for disk in [self.machine.disk(), second] {
            ensure_empty(&disk)?;
        }
        for (path, before) in &self.spared {
            ensure!(fs::read(path)? == *before, "{} was touched", path.display());
        }
        self.ok("both disks are empty at both ends and have no signature; stick, CD and read-only disk are untouched");
        Ok(())
    }

    fn fail_to_configure(&mut self, id: &str) -> Result<()> {
        self.machine.console.wait_for("boots hardware-config", FIRMWARE_TIME)?;
        self.said(&format!("kiwispray: failed: run ended with 3: {COMPLAINT}"))?;
        self.machine.console.wait_for("is held", FIRMWARE_TIME)?;
        self.said("a failure ?run ended with 3: controller 0")?;
        ensure!(self.server.states(id)? == "hardware-config", "a failed step is left");
        for command in [&["host", "list"][..], &["host", "events", id]] {
            ensure!(self.server.cli(command)?.contains(COMPLAINT), "{} does not say why", command.join(" "));
        }
        self.ok("a configuration that fails holds, with its last line on console, list and timeline");
        Ok(())
    }

    fn configure(&mut self, id: &str) -> Result<()> {
        self.tarball(
            "grep -q '\"serial\"' host.json || exit 4\n\
             printf '{\"bios\": {\"profile\": \"performance\"}}' >metadata.json\n\
             echo \"e2e: the hardware is $(cat tool/adjective)\"",
        )?;
        self.server.cli(&["host", "retry", id, "--yes"])?;
        self.machine.console.wait_for("boots hardware-config", NOTICE_TIME)?;
        self.said("e2e: the hardware is configured")?;
        self.server.wait_for_states(id, "finished", STEP_TIME)?;
        let profile = self.server.host(id)?.pointer("/metadata/bios/profile").cloned().unwrap_or_default();
        ensure!(profile == "performance", "the metadata of the configuration is {profile}");
        self.ok("with a better tarball and a retry it is configured, and what it found out is remembered");
        self.machine.console.wait_for("boots its local disk", FIRMWARE_TIME)?;
        ensure!(self.server.states(id)? == "finished", "the machine is not finished any more");
        self.ok("it is sent to its disk");
        Ok(())
    }

    /// Puts a tarball with this `run` where the next boot finds it.
    fn tarball(&self, script: &str) -> Result<()> {
        let folder = self.server.image_dir("hardware-config");
        let content = tempfile::tempdir()?;
        fs::create_dir(content.path().join("tool"))?;
        fs::write(content.path().join("tool/adjective"), "configured\n")?;
        let mut run = fs::File::create(content.path().join("run"))?;
        write!(run, "#!/bin/sh\n{script}\n")?;
        let (new, dir) = (folder.join("new.tar.gz"), content.path().to_string_lossy().into_owned());
        run_command("tar", &["-czf", &new.to_string_lossy(), "-C", &dir, "."])?;
        Ok(fs::rename(new, folder.join("hardware-config.tar.gz"))?)
    }

    fn said(&self, text: &str) -> Result<()> {
        self.machine.console.wait_for(text, STEP_TIME)
    }

    fn ok(&mut self, claim: &str) {
        self.passed += 1;
        println!("ok {:4} s: {claim}", self.begin.elapsed().as_secs());
    }
}

/// Neither tools nor bytes find anything on a disk.
fn ensure_empty(disk: &Path) -> Result<()> {
    for (tool, arguments) in [("wipefs", &["--no-act"][..]), ("blkid", &["--probe"])] {
        let output = Command::new(tool).args(arguments).arg(disk).output().with_context(|| format!("no {tool}"))?;
        let found = String::from_utf8_lossy(&output.stdout);
        ensure!(found.trim().is_empty(), "{tool} still finds on {}: {found}", disk.display());
    }
    const END_BYTES: usize = 1 << 20;
    let mut file = fs::File::open(disk)?;
    for from in [SeekFrom::Start(0), SeekFrom::End(-i64::try_from(END_BYTES)?)] {
        let mut end = vec![0_u8; END_BYTES];
        file.seek(from)?;
        file.read_exact(&mut end)?;
        ensure!(end.iter().all(|byte| *byte == 0), "{} is not zero near {from:?}", disk.display());
    }
    Ok(())
}
