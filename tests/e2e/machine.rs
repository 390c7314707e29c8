//! A machine: QEMU without KVM, which behaves the same everywhere, with a serial console and a disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::console::Console;
use crate::net::Bridge;

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const IPXE_KERNEL: &str = "/boot/ipxe.lkrn";

/// How a machine starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// SeaBIOS, and in place of the network card's ROM an iPXE that does not say what it is. The ROM that QEMU brings
    /// is iPXE too and would be recognised, so that `undionly.kpxe` was never loaded.
    Bios,
    /// SeaBIOS and the network card's own ROM.
    BiosRom,
    /// OVMF, whose own PXE client loads iPXE by TFTP.
    Uefi,
    /// OVMF, whose own HTTP client loads iPXE.
    UefiHttp,
}

/// What distinguishes a machine from others.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) serial: String,
    pub(crate) uuid: String,
}

impl Identity {
    pub(crate) fn new(name: &str, number: u8) -> Self {
        Identity {
            name: name.to_owned(),
            mac: format!("52:54:00:e2:e0:{number:02x}"),
            serial: format!("E2E-{name}-{number:03}"),
            uuid: format!("6b697769-7370-4261-b900-0000000000{number:02x}"),
        }
    }
}

pub(crate) struct Machine {
    pub(crate) identity: Identity,
    pub(crate) console: Console,
    firmware: Firmware,
    dir: PathBuf,
    watch: bool,
    extra: Vec<String>,
    qemu: Option<Child>,
}

impl Machine {
    /// Builds the machine, with a blank disk, and plugs it into the switch. It is off.
    pub(crate) fn new(
        dir: &Path,
        identity: Identity,
        firmware: Firmware,
        disk_mib: u64,
        bridge: &Bridge,
        watch: bool,
    ) -> Result<Self> {
        let dir = dir.join(&identity.name);
        fs::create_dir(&dir)?;
        fs::File::create_new(dir.join("disk"))?.set_len(disk_mib << 20)?;
        match firmware {
            Firmware::Bios => fs::write(dir.join("rom.ipxe"), PLAIN_PXE)?,
            Firmware::BiosRom => {}
            Firmware::Uefi | Firmware::UefiHttp => {
                fs::copy(OVMF_VARS, dir.join("vars")).context("no OVMF (package ovmf)")?;
            }
        }
        bridge.tap(&identity.name)?;
        let console = Console::new(&identity.name);
        Ok(Machine { identity, console, firmware, dir, watch, extra: Vec::new(), qemu: None })
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Builds in more hardware, in QEMU's words, from the next power-on.
    pub(crate) fn build_in(&mut self, arguments: &[&str]) {
        self.extra.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    pub(crate) fn power_on(&mut self) -> Result<()> {
        ensure!(self.qemu.is_none(), "{} is on already", self.identity.name);
        self.console = Console::new(&self.identity.name);
        let errors = fs::File::create(self.dir.join("qemu.log"))?;
        let mut qemu = self.command();
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut qemu = qemu.spawn().context("cannot run QEMU (package qemu-system-x86)")?;
        let serial = qemu.stdout.take().context("QEMU has no standard output")?;
        self.console.follow(serial, self.watch);
        self.qemu = Some(qemu);
        Ok(())
    }

    /// Gives a BIOS machine the network card's own ROM from the next power-on.
    ///
    /// `undionly.kpxe` removes the network stack that loaded it. A card's ROM stays for the next boot device, but the
    /// iPXE in place of it runs in memory: leaving for the disk (`exit 1`) ends nowhere.
    pub(crate) fn use_card_rom(&mut self) {
        if self.firmware == Firmware::Bios {
            self.firmware = Firmware::BiosRom;
        }
    }

    /// Pulls the plug.
    pub(crate) fn power_off(&mut self) -> Result<()> {
        if let Some(mut qemu) = self.qemu.take() {
            qemu.kill()?;
            qemu.wait()?;
        }
        Ok(())
    }

    pub(crate) fn power_cycle(&mut self) -> Result<()> {
        self.power_off()?;
        self.power_on()
    }

    fn command(&self) -> Command {
        let Identity { name, mac, serial, uuid } = &self.identity;
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,graphics=off"]);
        // A translation cache of the default size makes kexec take five minutes.
        qemu.args(["-accel", "tcg,tb-size=64", "-smp", "1", "-m", "1200"]);
        qemu.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        qemu.arg("-smbios").arg(format!("type=1,manufacturer=QEMU,product=e2e,serial={serial},uuid={uuid}"));
        qemu.arg("-drive").arg(format!("file={},format=raw,if=none,id=disk,cache=unsafe", self.disk().display()));
        qemu.args(["-device", "virtio-blk-pci,drive=disk,bootindex=2,serial=e2e-disk"]);
        qemu.arg("-netdev").arg(format!("tap,id=net,ifname={name},script=no,downscript=no"));
        let rom = if self.firmware == Firmware::BiosRom { "" } else { ",romfile=" };
        qemu.arg("-device").arg(format!("virtio-net-pci,netdev=net,mac={mac},bootindex=1{rom}"));
        qemu.args(["-device", "virtio-rng-pci"]);
        qemu.args(&self.extra);
        match self.firmware {
            Firmware::Bios => {
                qemu.args(["-kernel", IPXE_KERNEL, "-initrd"]).arg(self.dir.join("rom.ipxe"));
            }
            Firmware::BiosRom => {}
            Firmware::Uefi | Firmware::UefiHttp => {
                let vars = self.dir.join("vars");
                qemu.arg("-drive").arg(format!("if=pflash,format=raw,readonly=on,file={OVMF_CODE}"));
                qemu.arg("-drive").arg(format!("if=pflash,format=raw,file={}", vars.display()));
                // Each protocol that nobody answers costs minutes.
                let off: &[&str] = match self.firmware {
                    Firmware::UefiHttp => &["IPv6PXESupport", "IPv4PXESupport"],
                    Firmware::Uefi | Firmware::Bios | Firmware::BiosRom => &["IPv6PXESupport"],
                };
                for option in off {
                    qemu.arg("-fw_cfg").arg(format!("name=opt/org.tianocore/{option},string=n"));
                }
            }
        }
        qemu
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The namespace ends what is left.
        let _ = self.power_off();
    }
}

/// Makes iPXE ask like a network card that is not iPXE.
const PLAIN_PXE: &str = "#!ipxe
set user-class PlainCard
autoboot
";
