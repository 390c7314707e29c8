//! The whole way of one machine, twice: one starts by BIOS, the other by UEFI.
//!
//! Unknown -> waits as `new` -> gets an order from the command line -> starts by itself -> installs -> reports -> boots
//! what it installed. On the way the server is killed twice, the UEFI machine waits through ten holds, and it is the one
//! that walks a queue of two steps, in the middle of which the server is restarted in order.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::machine::{Firmware, Identity, Machine};
use crate::net::Bridge;
use crate::payload::{DISK_BOOTED, Payload};
use crate::server::Server;

/// From power-on to the first script, on a busy machine without KVM.
const FIRMWARE_TIME: Duration = Duration::from_secs(180);
/// From a script to the next thing that it causes.
const STEP_TIME: Duration = Duration::from_secs(120);
/// An order must be noticed in this time: the longest pause between two questions of a waiting machine, and a little.
const NOTICE_TIME: Duration = Duration::from_secs(40);
const WAITING: &str = "it waits for a state";
const LEAVING: &str = "boots its local disk";
const HOLDS: usize = 10;
const PAYLOAD_BYTES: u64 = 32 << 20;

pub(crate) fn run(dir: &Path, watch: bool) -> Result<u32> {
    let bridge = Bridge::new("e2e0", Bridge::ADDRESS)?;
    let mut server = Server::new(dir, &bridge)?;
    let payload = Payload::build(dir)?;
    for (name, writes) in [("wipe", "wipe"), ("image1", "disk"), ("image2", "disk")] {
        add_image(&server, &payload, name, writes)?;
    }
    server.start()?;
    let new = |name, number, firmware| Machine::new(dir, Identity::new(name, number), firmware, 64, &bridge, watch);
    let mut walk = Walk {
        bios: new("bios", 1, Firmware::Bios)?,
        uefi: new("uefi", 2, Firmware::Uefi)?,
        server,
        begin: Instant::now(),
        passed: 0,
    };
    walk.run().with_context(|| walk.server.last_log_lines())?;
    Ok(walk.passed)
}

fn add_image(server: &Server, payload: &Payload, name: &str, writes: &str) -> Result<()> {
    let dir = server.image_dir(name);
    fs::create_dir_all(&dir)?;
    fs::copy(&payload.kernel, dir.join("linux"))?;
    fs::copy(&payload.initrd, dir.join("initrd"))?;
    // Only these leave a disk that boots, and one of them is fetched for a while.
    let (payload, append) = match name {
        "image1" => ("", "e2e.disk=/dev/vda"),
        "image2" => ("payload = \"payload\"\n", "e2e.disk=/dev/vda e2e.payload=payload"),
        _ => ("", ""),
    };
    if !payload.is_empty() {
        fs::write(dir.join("payload"), large_payload())?;
    }
    let manifest = format!(
        "kind = \"linux\"\nkernel = \"linux\"\ninitrd = \"initrd\"\n{payload}writes = \"{writes}\"\ndevice = \"/dev/vda\"\n\
         append = \"console=ttyS0,115200 quiet panic=5 net.ifnames=0 e2e.image={name} {append}\"\n"
    );
    Ok(fs::write(dir.join("image.toml"), manifest)?)
}

/// More than fits between two machines, and different everywhere.
fn large_payload() -> Vec<u8> {
    (0..PAYLOAD_BYTES / 8).flat_map(|number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

struct Walk {
    bios: Machine,
    uefi: Machine,
    server: Server,
    begin: Instant,
    passed: u32,
}

impl Walk {
    fn run(&mut self) -> Result<()> {
        self.bios.power_on()?;
        self.uefi.power_on()?;

        self.bios.console.wait_for(WAITING, FIRMWARE_TIME)?;
        self.ok("an unknown BIOS machine registers and waits");
        self.uefi.console.wait_for(WAITING, FIRMWARE_TIME)?;
        self.ok("an unknown UEFI machine registers and waits");
        let bios = self.server.host_id(&self.bios.identity.serial)?;
        let uefi = self.server.host_id(&self.uefi.identity.serial)?;
        ensure!(self.server.states(&bios)? == "new", "the BIOS machine is not new");

        self.kill_and_restart()?;
        self.uefi.console.wait_for(WAITING, STEP_TIME)?;
        ensure!(self.server.host_id(&self.uefi.identity.serial)? == uefi, "the UEFI machine got another number");
        self.ok("a killed server knows its hosts again, and they wait on");

        self.server.cli(&["deploy", "image1", &bios, "--yes"])?;
        let ordered = Instant::now();
        self.bios.console.wait_for("boots image1", NOTICE_TIME)?;
        self.ok(&format!("the BIOS machine starts {} s after its order", ordered.elapsed().as_secs()));
        self.bios.console.wait_for("e2e: the system of image1 runs", STEP_TIME)?;
        self.kill_and_restart()?;
        self.bios.console.wait_for("e2e: the script of image1 ended with 0", STEP_TIME)?;
        self.server.wait_for_states(&bios, "finished", STEP_TIME)?;
        self.ok("the server is killed during an installation, and the installation is finished");

        while self.uefi.console.count(WAITING) < HOLDS {
            self.uefi.console.wait_for(WAITING, STEP_TIME)?;
        }
        self.server.cli(&["host", "set", &uefi, "--state", "wipe,image2", "--yes"])?;
        for (step, rest) in [("wipe", "image2"), ("image2", "finished")] {
            self.uefi.console.wait_for(&format!("boots {step}"), FIRMWARE_TIME)?;
            if step == "image2" {
                self.uefi.console.wait_for("e2e: the payload of image2 comes", STEP_TIME)?;
                self.server.hand_over()?;
                let sum: String = Sha256::digest(large_payload()).iter().map(|byte| format!("{byte:02x}")).collect();
                self.uefi.console.wait_for(&format!("e2e: the payload of image2 is {sum}"), STEP_TIME)?;
            }
            self.uefi.console.wait_for(&format!("e2e: the script of {step} ended with 0"), STEP_TIME)?;
            self.server.wait_for_states(&uefi, rest, STEP_TIME)?;
        }
        let attempts = self.server.events(&uefi)?.iter().filter(|event| *event == "attempt_started").count();
        ensure!(attempts == 2, "the UEFI machine needed {attempts} attempts for two steps");
        self.ok("after ten holds the UEFI machine walks wipe and image2 in order, over a restart in the middle of a payload");

        self.bios.console.wait_for(LEAVING, FIRMWARE_TIME)?;
        self.uefi.console.wait_for(LEAVING, FIRMWARE_TIME)?;
        self.uefi.console.wait_for(DISK_BOOTED, STEP_TIME)?;
        self.ok("both machines are sent to their disks");

        self.bios.use_card_rom();
        for machine in [&mut self.bios, &mut self.uefi] {
            machine.power_cycle()?;
        }
        for (machine, id) in [(&self.bios, &bios), (&self.uefi, &uefi)] {
            machine.console.wait_for(LEAVING, FIRMWARE_TIME)?;
            machine.console.wait_for(DISK_BOOTED, STEP_TIME)?;
            ensure!(self.server.states(id)? == "finished", "host {id} is not finished any more");
        }
        self.ok("after a power loss both boot what was installed, and install nothing");
        Ok(())
    }

    fn kill_and_restart(&mut self) -> Result<()> {
        self.server.kill()?;
        // Long enough that machines ask in vain.
        std::thread::sleep(Duration::from_secs(4));
        self.server.start()
    }

    fn ok(&mut self, claim: &str) {
        self.passed += 1;
        println!("ok {:4} s: {claim}", self.begin.elapsed().as_secs());
    }
}
