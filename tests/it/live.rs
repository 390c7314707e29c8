//! The scripts that ship for booted machines, run here by two shells against the real server, over folders that stand for
//! a machine's own. What needs a machine is in the end-to-end walks.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Boot, Machine, Server, Site};

const SHELLS: [&[&str]; 2] = [&["sh"], &["busybox", "sh"]];
const TAKES: &str = "writes = \"nothing\"\ninventory = true";

/// The scripts as they lie in an image, and what the machine is made of.
struct Live {
    dir: TempDir,
    shell: &'static [&'static str],
}

impl Live {
    fn new(shell: &'static [&'static str]) -> Self {
        let dir = TempDir::new().unwrap();
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
        for script in [
            "kiwispray.sh",
            "first-boot.sh",
            "discover/discover.sh",
            "wipe/wipe.sh",
            "hardware-config/hardware-config.sh",
        ] {
            fs::copy(images.join(script), dir.path().join(Path::new(script).file_name().unwrap())).unwrap();
        }
        fs::create_dir(dir.path().join("sys")).unwrap();
        fs::write(dir.path().join("cmdline"), "quiet\n").unwrap();
        Self { dir, shell }
    }

    /// A machine that was booted like this.
    fn booted(shell: &'static [&'static str], boot: &Boot, more: &str) -> Self {
        let live = Self::new(shell);
        fs::write(live.path("cmdline"), format!("{} {more}\n", boot.cmdline().join(" "))).unwrap();
        live
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A file of the machine, with the folders above it.
    fn file(&self, below: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Runs a piece of shell, which finds the script as `$0`, and returns what it printed.
    fn sh(&self, script: &str, piece: &str, input: &[u8]) -> Vec<u8> {
        let (program, arguments) = self.shell.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).args(["-c", piece]).arg(self.path(script)).current_dir(self.dir.path());
        command.env("KIWISPRAY_DIR", self.path("run")).env("KIWISPRAY_SYS", self.path("sys"));
        command.env("KIWISPRAY_CMDLINE", self.path("cmdline")).env("KIWISPRAY_PAUSE", "0.2");
        command.env("KIWISPRAY_MOUNTINFO", self.path("mountinfo")).env("KIWISPRAY_SWAPS", self.path("swaps"));
        command.env("KIWISPRAY_DEV", self.path("dev"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    /// Runs a script as a booted machine does.
    fn run(&self, script: &str) -> String {
        String::from_utf8(self.sh(script, ". \"$0\"", b"")).unwrap()
    }

    /// Runs functions of a script without the rest of it.
    fn call(&self, script: &str, functions: &str) -> String {
        let piece = format!("KIWISPRAY_SOURCED=1; . \"$0\"; {functions}");
        String::from_utf8(self.sh(script, &piece, b"")).unwrap()
    }
}

/// A server with host 1 in a state, booted.
fn booted(site: Site, state: &str) -> (Server, Boot) {
    let server = site.serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy(state, 1);
    let boot = machine.boots(&server);
    boot.load(&server);
    (server, boot)
}

#[test]
fn every_byte_that_firmware_may_say_reaches_json_and_forms_as_what_it_is() {
    let all: Vec<u8> = (1..=255).collect();
    let samples: [&[u8]; 7] = [
        br#"Say "hi" \ $(reboot) `x` 100% a+b&c=d"#,
        b"",
        b" \n\t ",
        "é€😀 \u{2028}\u{feff}\u{202e}".as_bytes(),
        b"\xff\xfe\xc3 \x07\x00\x1b[2Jz \xe2\x82",
        b"\xed\xa0\x80 \xc0\x80 \xf5\x80\x80\x80 \xf4\x90\x80\x80",
        &all,
    ];
    for shell in SHELLS {
        let live = Live::new(shell);
        for sample in samples {
            let json = live.sh("kiwispray.sh", ". \"$0\"; ks_json", sample);
            let said: String = serde_json::from_slice(&json).unwrap();
            let blank = |byte: &u8| *byte <= 32;
            let from = sample.iter().position(|byte| !blank(byte)).unwrap_or(sample.len());
            let to = sample.iter().rposition(|byte| !blank(byte)).map_or(from, |at| at + 1);
            // How many marks stand for bytes that are no text does not matter.
            let plain = |text: &str| text.replace('\u{fffd}', "");
            assert_eq!(plain(&said), plain(&String::from_utf8_lossy(&sample[from..to])), "{shell:?} {sample:?}");
            let encoded = String::from_utf8(live.sh("kiwispray.sh", ". \"$0\"; ks_encoded", sample)).unwrap();
            assert_eq!(percent_decode_str(encoded.trim_end()).collect::<Vec<_>>(), sample, "{shell:?}");
        }
    }
}

#[test]
fn discover_posts_all_cards_and_what_the_firmware_says_and_goes_on() {
    for shell in SHELLS {
        let (server, boot) = booted(Site::new().linux("discover", TAKES), "discover");
        let live = Live::booted(shell, &boot, "");
        for (card, mac) in
            [("eth0", "52:54:00:00:00:01"), ("eth1", "52:54:00:aa:00:02"), ("ib0", "80:00:02:08:fe:80:00")]
        {
            live.file(&format!("sys/class/net/{card}/address"), format!("{mac}\n"));
            live.file(&format!("sys/class/net/{card}/device/vendor"), "");
        }
        live.file("sys/class/net/docker0/address", "52:54:00:bb:00:03\n");
        live.file("sys/class/net/vf0/address", "52:54:00:bb:00:04\n");
        live.file("sys/class/net/vf0/device/physfn/x", "");
        live.file("sys/class/dmi/id/board_name", b"Board \"X\" \x07 \\ &mac=1 \xff\n");
        live.file("sys/class/dmi/id/chassis_asset_tag", " \n");
        for (name, value) in [("size", "2097152"), ("device/model", "Disk \"9\""), ("removable", "0")] {
            live.file(&format!("sys/block/sda/{name}"), format!("{value}\n"));
        }
        live.file("sys/block/loop0/size", "0\n");
        let said = live.run("discover.sh");
        assert!(said.ends_with("kiwispray: finished\n") && !said.contains(boot.bootid()), "{shell:?} {said}");

        assert_eq!(server.states(1), "finished");
        let host = server.host(1);
        assert_eq!(host["macs"], json!(["52:54:00:00:00:01", "52:54:00:aa:00:02"]), "{shell:?}");
        let inventory = &host["metadata"]["inventory"];
        assert_eq!(inventory["dmi"], json!({"board_name": "Board \"X\" \u{7} \\ &mac=1 \u{fffd}"}));
        let disk = json!({"name": "sda", "size_mib": 1024, "model": "Disk \"9\"", "removable": 0});
        assert_eq!(inventory["disks"], json!([disk]));
        assert_eq!(inventory["nics"].as_array().map(Vec::len), Some(3));
    }
}

#[test]
fn an_inventory_that_is_refused_holds_with_what_the_server_said() {
    let (server, boot) = booted(Site::new().linux("census", "writes = \"nothing\""), "census");
    Live::booted(SHELLS[0], &boot, "").run("discover.sh");
    Machine::new(1).holds(&server, "the server did not take the inventory: 401 the state census takes no inventory");
}

#[test]
fn a_discovered_machine_that_waits_leaves_when_it_is_given_a_state() {
    let (server, boot) = booted(Site::new().linux("discover", TAKES).linux("next", TAKES), "discover,new");
    let live = Live::booted(SHELLS[1], &boot, "kiwispray.discover=wait");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| live.run("discover.sh"));
        while server.states(1) != "new" {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(!waiting.is_finished());
        server.cli(&["host", "set", "1", "--state", "next"]).done();
        assert!(waiting.join().unwrap().contains("waits for a state"));
    });
    assert_eq!((server.states(1).as_str(), server.count(1, "failed")), ("next", 0));
}

#[test]
fn a_machine_that_no_server_booted_reports_nothing_and_stays_up() {
    for script in ["discover.sh", "wipe.sh", "hardware-config.sh", "first-boot.sh"] {
        assert_eq!(
            Live::new(SHELLS[0]).run(script),
            "kiwispray: the kernel command line has no razorurl= of a kiwispray server\n"
        );
    }
}

#[test]
fn nothing_is_wiped_by_a_boot_that_is_no_order() {
    let (server, boot) = booted(Site::new().linux("wipe", TAKES), "wipe");
    Live::booted(SHELLS[0], &boot, "").run("wipe.sh");
    Machine::new(1).holds(&server, "this boot is no order to write a disk");
}

#[test]
fn only_disks_that_may_be_wiped_are_chosen_and_never_the_one_in_use() {
    let live = Live::new(SHELLS[1]);
    let number = ["sda", "sdb", "sdc", "sdd", "nvme0n1", "sde", "sdf", "sr0", "loop0", "dm-0", "vda"];
    for (minor, disk) in number.iter().enumerate() {
        for (name, value) in [("removable", "0"), ("ro", "0"), ("size", "2000000"), ("dev", &format!("9:{minor}0"))] {
            live.file(&format!("sys/block/{disk}/{name}"), format!("{value}\n"));
        }
        live.file(&format!("dev/{disk}"), "");
        if !["loop0", "dm-0"].contains(disk) {
            live.file(&format!("sys/block/{disk}/device/x"), "");
        }
        fs::create_dir_all(live.path("sys/dev/block")).unwrap();
        symlink(live.path(&format!("sys/block/{disk}")), live.path(&format!("sys/dev/block/9:{minor}0"))).unwrap();
    }
    live.file("sys/block/sdb/removable", "1\n");
    live.file("sys/block/sdc/ro", "1\n");
    live.file("sys/block/nvme0n1/size", "1000\n");
    live.file("sys/block/sde/size", "0\n");
    // A stick that does not say so, as USB disks do not.
    fs::remove_dir_all(live.path("sys/block/sdf/device")).unwrap();
    live.file("sys/devices/pci0/usb1/1-1/x", "");
    symlink(live.path("sys/devices/pci0/usb1/1-1"), live.path("sys/block/sdf/device")).unwrap();
    // The system runs from a volume on a partition of sdd, and swaps on vda.
    live.file("sys/block/sdd/sdd1/partition", "1\n");
    live.file("sys/block/sdd/sdd1/dev", "9:31\n");
    symlink(live.path("sys/block/sdd/sdd1"), live.path("sys/dev/block/9:31")).unwrap();
    fs::create_dir_all(live.path("sys/block/dm-0/slaves")).unwrap();
    symlink(live.path("sys/block/sdd/sdd1"), live.path("sys/block/dm-0/slaves/sdd1")).unwrap();
    live.file("mountinfo", "1 0 9:90 / / rw - ext4 /dev/mapper/root rw\n2 1 0:5 / /dev rw - devtmpfs dev rw\n");
    fs::create_dir_all(live.path("sys/class/block")).unwrap();
    symlink(live.path("sys/block/vda"), live.path("sys/class/block/vda")).unwrap();
    live.file("swaps", format!("Filename Type\n{} partition 1 0 -2\n", live.path("dev/vda").display()));

    let chosen = |policy: &str| live.call("wipe.sh", &format!("chosen '{policy}'"));
    assert_eq!(chosen("all"), "nvme0n1\nsda\n");
    assert_eq!(chosen("first"), "nvme0n1\n");
    assert_eq!(chosen("smallest"), "nvme0n1\n");
    symlink(live.path("dev/sda"), live.path("dev/by-id")).unwrap();
    assert_eq!(chosen(&live.path("dev/by-id").display().to_string()), "sda\n");
    for spared in ["sdb", "sdc", "sdd", "sdf", "vda", "nosuch"] {
        assert_eq!(chosen(&live.path("dev").join(spared).display().to_string()), "", "{spared}");
    }
    assert_eq!(chosen("everything"), "");
}

/// A disk of so many bytes, with a node that is a file.
fn disk(live: &Live, name: &str, bytes: u64) {
    for (attribute, value) in [("removable", 0), ("ro", 0), ("size", bytes / 512)] {
        live.file(&format!("sys/block/{name}/{attribute}"), format!("{value}\n"));
    }
    live.file(&format!("sys/block/{name}/device/x"), "");
    live.file(&format!("dev/{name}"), "");
    fs::File::options().write(true).open(live.path(&format!("dev/{name}"))).unwrap().set_len(bytes).unwrap();
    fs::create_dir_all(live.path("sys/class/block")).unwrap();
    symlink(live.path(&format!("sys/block/{name}")), live.path(&format!("sys/class/block/{name}"))).unwrap();
    live.file("mountinfo", "");
    live.file("swaps", "");
}

#[test]
fn what_lies_on_a_storage_network_is_never_chosen_on_however_many_paths_it_is_reached() {
    for shell in SHELLS {
        let live = Live::new(shell);
        // Those with several paths hang below their subsystem, which has links to its controllers.
        for (name, controller, transport) in [
            ("nvme0n1", "", "pcie"),
            ("nvme1n1", "nvme1/", "pcie"),
            ("nvme2n1", "", "tcp"),
            ("nvme3n1", "nvme3/", "rdma"),
            ("nvme4n1", "nvme4/", "fc"),
        ] {
            disk(&live, name, 1 << 20);
            live.file(&format!("sys/block/{name}/device/{controller}transport"), format!("{transport}\n"));
        }
        for (name, place) in [("sda", "host1/rport-1:0-0/target1:0:0"), ("sdb", "platform/host3/session1/target3:0:0")]
        {
            disk(&live, name, 1 << 20);
            live.file(&format!("sys/devices/{place}/x"), "");
            fs::remove_dir_all(live.path(&format!("sys/block/{name}/device"))).unwrap();
            symlink(live.path(&format!("sys/devices/{place}")), live.path(&format!("sys/block/{name}/device")))
                .unwrap();
        }
        disk(&live, "rbd0", 1 << 20);
        disk(&live, "mmcblk0", 1 << 20);
        disk(&live, "mmcblk1", 1 << 20);
        live.file("sys/block/mmcblk0/device/type", "MMC\n");
        live.file("sys/block/mmcblk1/device/type", "SD\n");
        assert_eq!(live.call("wipe.sh", "chosen all"), "mmcblk0\nnvme0n1\nnvme1n1\n", "{shell:?}");
    }
}

#[test]
fn a_disk_is_found_by_its_lasting_name_where_nobody_made_links() {
    for shell in SHELLS {
        let live = Live::new(shell);
        for name in ["nvme0n1", "sda", "sdb", "vda", "vdb", "vdc"] {
            disk(&live, name, 1 << 20);
        }
        for (file, text) in [
            ("nvme0n1/wwid", "eui.0025385b01234567\n"),
            ("nvme0n1/nsid", "1\n"),
            ("nvme0n1/device/model", "Samsung SSD 980 PRO                     \n"),
            ("nvme0n1/device/serial", "S5GXNX0T        \n"),
            ("sda/device/wwid", "naa.5000c500a1b2c3d4\n"),
            ("vda/serial", "disk 1\n"),
            ("vdb/serial", "twin\n"),
            ("vdc/serial", "twin\n"),
        ] {
            live.file(&format!("sys/block/{file}"), text);
        }
        // As libata says it: the serial number, then manufacturer, model and serial number, then the WWN.
        let mut page = b"\x00\x83\x00\x6c\x02\x00\x00\x14            ZA1B2C3D".to_vec();
        page.extend(format!("\x02\x01\x00\x44{:8}{:40}{:>20}", "ATA", "ST4000NM0035-1V4107", "ZA1B2C3D").bytes());
        page.extend(b"\x01\x03\x00\x08\x50\x00\xc5\x00\xa1\xb2\xc3\xd5");
        live.file("sys/block/sdb/device/vpd_pg83", page);
        let chosen = |id: &str| {
            let path = live.path("dev/disk/by-id").join(id);
            live.call("wipe.sh", &format!("chosen '{}'", path.display()))
        };
        for (id, disk) in [
            ("nvme-eui.0025385b01234567", "nvme0n1\n"),
            ("nvme-Samsung_SSD_980_PRO_S5GXNX0T", "nvme0n1\n"),
            ("nvme-Samsung_SSD_980_PRO_S5GXNX0T_1", "nvme0n1\n"),
            ("wwn-0x5000c500a1b2c3d4", "sda\n"),
            ("scsi-35000c500a1b2c3d4", "sda\n"),
            ("ata-ST4000NM0035-1V4107_ZA1B2C3D", "sdb\n"),
            ("virtio-disk_1", "vda\n"),
            // Neither a part of a name nor a name that two disks have is one disk.
            ("virtio-twin", ""),
            ("virtio-disk", ""),
            ("wwn-0x5000c500a1b2c3d", ""),
            ("nosuch", ""),
        ] {
            assert_eq!(chosen(id), disk, "{shell:?} {id}");
        }
    }
}

#[test]
fn a_disk_is_called_empty_only_when_both_its_ends_were_read_back_as_zeros() {
    const BYTES: u64 = 20 << 20;
    for shell in SHELLS {
        let live = Live::new(shell);
        fs::create_dir(live.path("run")).unwrap();
        let wiped =
            |name: &str| live.call("wipe.sh", &format!("wipe_disk '{name}' && echo empty || echo \"$ks_reason\""));
        disk(&live, "sda", BYTES);
        fs::write(live.path("dev/sda"), vec![0x5a; BYTES as usize]).unwrap();
        assert_eq!(wiped("sda"), "empty\n", "{shell:?}");
        let bytes = fs::read(live.path("dev/sda")).unwrap();
        assert_eq!(bytes.len() as u64, BYTES);
        assert!(bytes[..4 << 20].iter().chain(&bytes[16 << 20..]).all(|byte| *byte == 0));
        // One whose end cannot be read says nothing of what is there.
        fs::File::options().write(true).open(live.path("dev/sda")).unwrap().set_len(BYTES - 512).unwrap();
        let verified = live.call("wipe.sh", "verify sda || echo \"$ks_reason\"");
        assert_eq!(verified, "sda cannot be read back\n", "{shell:?}");
        // What has no node is no plain file that could be wiped instead; and some names have slashes in them.
        disk(&live, "sdb", BYTES);
        fs::remove_file(live.path("dev/sdb")).unwrap();
        assert!(wiped("sdb").starts_with("sdb cannot be wiped: there is no "), "{shell:?}");
        assert!(!live.path("dev/sdb").exists());
        disk(&live, "cciss!c0d0", BYTES);
        fs::create_dir(live.path("dev/cciss")).unwrap();
        fs::rename(live.path("dev/cciss!c0d0"), live.path("dev/cciss/c0d0")).unwrap();
        assert_eq!(wiped("cciss!c0d0"), "empty\n", "{shell:?}");
        assert!(!live.path("dev/cciss!c0d0").exists());
    }
}

#[test]
fn a_wipe_waits_for_disks_that_a_controller_finds_late() {
    let live = Live::new(SHELLS[0]);
    disk(&live, "sda", 1 << 20);
    std::thread::scope(|scope| {
        let settling = scope.spawn(|| live.call("wipe.sh", "KIWISPRAY_PAUSE=3; settle; chosen all"));
        std::thread::sleep(std::time::Duration::from_millis(500));
        disk(&live, "sdb", 1 << 20);
        assert_eq!(settling.join().unwrap(), "sda\nsdb\n");
    });
}

#[test]
fn a_script_that_dies_in_the_middle_is_reported_too() {
    for shell in SHELLS {
        let (server, boot) = booted(Site::new().linux("tool", TAKES), "tool");
        let live = Live::booted(shell, &boot, "");
        // What is reckoned with a size that a drive took with it ends the shell.
        let piece = ". \"$0\"; reckon() { echo \"$(($(cat gone) * 512))\"; }; ks_run reckon 2>/dev/null";
        live.sh("kiwispray.sh", piece, b"");
        Machine::new(1).holds(&server, "the script ended before its end");
    }
}

/// A tarball of these files; names may lead anywhere.
fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let mut command = Command::new("tar");
    command.args(["-czPf", "-", "-C"]).arg(dir.path());
    for (name, text) in files {
        let plain = name.replace(['/', '.'], "_");
        fs::write(dir.path().join(&plain), text).unwrap();
        command.arg(format!("--transform=s,^{plain}$,{name},")).arg(plain);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn configured(shell: &'static [&'static str], metadata: &str, name: &str, bytes: &[u8]) -> (Server, String) {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/hardware-config");
    let template = |name: &str| fs::read(images.join(name)).unwrap();
    let site = Site::new()
        .linux("hardware-config", TAKES)
        .with_file("hardware-config", name, bytes)
        .with_file("hardware-config", "tarball.txt.hbs", template("tarball.txt.hbs"))
        .with_file("hardware-config", "host.json.hbs", template("host.json.hbs"));
    let server = site.serve();
    Machine::new(1).boot(&server);
    server.cli(&["host", "set", "1", "--meta", metadata]).done();
    server.deploy("hardware-config", 1);
    let boot = Machine::new(1).boots(&server);
    boot.load(&server);
    let said = Live::booted(shell, &boot, "").run("hardware-config.sh");
    (server, said)
}

#[test]
fn a_hardware_configuration_runs_with_the_host_beside_it_and_what_it_found_is_kept() {
    let run = "#!/bin/sh\necho \"serial $(grep -c SN00001 host.json)\"\necho '{\"raid\": \"ok\"}' >metadata.json\n";
    for shell in SHELLS {
        let (server, said) = configured(shell, "{\"a\": 1}", "hardware-config.tar.gz", &tarball(&[("run", run)]));
        assert!(said.contains("serial 1\n"), "{shell:?} {said}");
        assert_eq!(server.states(1), "finished");
        assert_eq!(server.host(1)["metadata"], json!({"a": 1, "raid": "ok"}));
    }
    let own = "{\"hardware_config\": \"gpu-1.tar.gz\"}";
    let (server, _) = configured(SHELLS[0], own, "gpu-1.tar.gz", &tarball(&[("run", run)]));
    assert_eq!(server.states(1), "finished");
}

#[test]
fn what_a_hardware_configuration_leaves_running_keeps_it_from_nothing() {
    let run = "#!/bin/sh\nsleep 60 &\necho done\n";
    for shell in SHELLS {
        let begin = std::time::Instant::now();
        let (server, said) = configured(shell, "{}", "hardware-config.tar.gz", &tarball(&[("run", run)]));
        assert!(said.contains("done\n"), "{shell:?} {said}");
        assert_eq!(server.states(1), "finished", "{shell:?}");
        assert!(begin.elapsed().as_secs() < 40, "{shell:?}");
    }
}

#[test]
fn a_hardware_configuration_that_fails_or_is_no_good_holds_with_the_reason() {
    let name = "hardware-config.tar.gz";
    let good = tarball(&[("run", "#!/bin/sh\n")]);
    let failing = tarball(&[("run", "#!/bin/sh\necho first\nprintf 'no \\033[2J\"battery\"\\n\\n' >&2\nexit 3\n")]);
    for (metadata, bytes, reason) in [
        ("{}", failing.as_slice(), "run ended with 3: no [2J"),
        ("{}", &good[..good.len() / 2], "the tarball is damaged"),
        ("{}", b"no tarball", "the tarball is damaged"),
        ("{}", &tarball(&[("walk", "#!/bin/sh\n")]), "the tarball has no file run"),
        ("{\"hardware_config\": \"nosuch.tar.gz\"}", &good, "the tarball could not be fetched: 404"),
        ("{\"hardware_config\": \"../image1/x\"}", &good, "the server names no tarball that could be fetched"),
        ("{\"hardware_config\": \"http://h/$(reboot)\"}", &good, "the server names no tarball that could be fetched"),
    ] {
        let (server, said) = configured(SHELLS[1], metadata, name, bytes);
        let hold = server.host(1)["hold"].as_str().unwrap_or_default().to_owned();
        assert!(hold.contains(reason), "{hold:?} is not {reason:?}: {said}");
    }
}

#[test]
fn a_tarball_writes_nothing_outside_its_folder() {
    let live = Live::new(SHELLS[1]);
    fs::create_dir(live.path("busybox")).unwrap();
    symlink("/usr/bin/busybox", live.path("busybox/tar")).unwrap();
    let absolute = live.path("evil3").display().to_string();
    let names = ["../evil1", "a/../../evil2", &absolute];
    for (tar, path) in [("gnu", "$PATH"), ("busybox", "$PWD/busybox:$PATH")] {
        for (number, name) in names.iter().enumerate() {
            live.file("tarball", tarball(&[(name, "x")]));
            let folder = format!("{tar}{number}");
            live.call("hardware-config.sh", &format!("PATH={path}; mkdir -p run {folder}; unpack tarball {folder}"));
            assert!(live.path(&folder).is_dir());
            let evil = |dir: &Path| {
                fs::read_dir(dir).unwrap().any(|it| it.unwrap().file_name().to_string_lossy().starts_with("evil"))
            };
            assert!(!evil(live.dir.path()), "{tar} {name}");
        }
    }
}

#[test]
fn the_first_boot_waits_for_its_script_and_reports_one_that_fails() {
    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    server.site.file("image1", "post_install.sh.hbs", "echo {{host.nosuch}}\n");
    let live = Live::booted(SHELLS[0], &boot, "");
    let said = std::thread::scope(|scope| {
        let booting = scope.spawn(|| live.run("first-boot.sh"));
        std::thread::sleep(std::time::Duration::from_millis(500));
        let script = "#!/bin/sh -e\necho \"host $1\"{{host.id}}\nfalse\necho never\n";
        server.site.file("image1", "post_install.sh.hbs", script);
        booting.join().unwrap()
    });
    assert!(said.contains("no answer yet (503), asking again") && said.contains("host 1\n"), "{said}");
    assert!(!said.contains("never"), "the interpreter's argument was dropped: {said}");
    Machine::new(1).holds(&server, "the post-install script ended with 1");

    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    server.cli(&["host", "set", "1", "--state", "new", "--abort", "--yes"]).done();
    let said = Live::booted(SHELLS[1], &boot, "").run("first-boot.sh");
    assert!(said.contains("the post-install script could not be fetched: 401"), "{said}");
}

#[test]
fn a_description_gets_folders_that_everybody_may_read_whoever_runs_the_hook() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.xml"), "<image/>").unwrap();
    let mut hook = Command::new("sh");
    hook.args(["-c", "umask 077; exec \"$0\" image hook \"$1\"", env!("CARGO_BIN_EXE_kiwispray")]).arg(dir.path());
    assert!(hook.output().unwrap().status.success());
    for folder in ["root", "root/usr", "root/usr/lib", "root/etc/systemd/system/multi-user.target.wants"] {
        let mode = fs::metadata(dir.path().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{folder}");
    }
}

#[test]
fn an_initrd_that_cannot_be_stored_leaves_kernel_and_initrd_as_they_were() {
    let dir = TempDir::new().unwrap();
    let file = |below: &str, text: &str| {
        let path = dir.path().join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file("tree/boot/vmlinuz-6.1.0-9-test", "a new kernel");
    file("tree/lib/modules/6.1.0-9-test/modules.order", "");
    // The disk is full when the initrd comes.
    file("bin/install", "#!/bin/sh\ncase $* in *initrd*) exit 1;; esac\nexec /usr/bin/install \"$@\"\n");
    fs::set_permissions(dir.path().join("bin/install"), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["vmlinuz", "initrd"] {
        file(&format!("out/{name}"), "old");
    }
    let build = |path: &str| {
        let mut build = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("images/build-initrd.sh"));
        build.arg("discover").arg(dir.path().join("out")).env("KERNEL_TREE", dir.path().join("tree")).env("PATH", path);
        build.output().unwrap()
    };
    let stored = || {
        let mut names: Vec<_> =
            fs::read_dir(dir.path().join("out")).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["initrd", "vmlinuz"]);
        ["vmlinuz", "initrd"].map(|name| fs::read(dir.path().join("out").join(name)).unwrap())
    };
    let path = std::env::var("PATH").unwrap();
    assert!(!build(&format!("{}/bin:{path}", dir.path().display())).status.success());
    assert_eq!(stored(), [b"old", b"old"]);
    let built = build(&path);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let [kernel, initrd] = stored();
    assert!(kernel == b"a new kernel" && initrd.starts_with(b"\x1f\x8b"));
}

#[test]
fn the_manifests_that_ship_are_sound_and_lack_only_what_is_built() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
    let mut site = Site::new();
    for name in ["discover", "wipe", "hardware-config"] {
        site = site.with_file(name, "image.toml", fs::read(images.join(name).join("image.toml")).unwrap());
    }
    let server = site.serve();
    for (name, writes, device) in [
        ("discover", "nothing", Value::Null),
        ("wipe", "wipe", json!("all")),
        ("hardware-config", "nothing", Value::Null),
    ] {
        let image = server.json(&["image", "show", name]);
        assert!(image["problem"].as_str().unwrap().contains("is not built yet"), "{image}");
        server.site.file(name, "vmlinuz", "a kernel");
        server.site.file(name, "initrd", "an initrd");
        let image = server.json(&["image", "show", name]);
        assert_eq!((image["writes"].as_str(), &image["device"]), (Some(writes), &device));
    }
    Machine::new(1).boot(&server);
    server.deploy("wipe", 1);
    assert_eq!(Machine::new(1).boots(&server).argument("kiwispray.device"), "all");
}
