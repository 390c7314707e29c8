//! What the machines of the boot test install: Debian's kernel, busybox, and a disk of one and a half megabytes.
//!
//! The system in memory fetches the script that `razorurl=` names and runs it, like the first boot of a real image.
//! Where the command line names a disk by `e2e.disk=`, it first writes there a disk that starts under BIOS and under
//! UEFI and prints [`DISK_BOOTED`]: that text on a console proves an installation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache;
use crate::net::run;

/// What an installed disk prints when it is booted.
pub(crate) const DISK_BOOTED: &str = "e2e: this is the local disk";

/// Kernel modules for QEMU's network card and disk; what a kernel has built in is no module of it.
const MODULES: [&str; 9] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
];

const INIT: &str = include_str!("payload-init.sh");
const UDHCPC: &str = "#!/bin/sh
case $1 in bound|renew)
    ip address flush dev $interface
    ip address add $ip/${mask:-24} dev $interface
    [ -n \"$router\" ] && ip route add default via ${router%% *}
esac
exit 0
";

/// Kernel and initrd, ready to be imported or copied into an image folder.
pub(crate) struct Payload {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
}

impl Payload {
    /// Takes the kernel from the cache, packs the initrd into `dir`.
    pub(crate) fn build(dir: &Path) -> Result<Self> {
        let tree = kernel_tree()?;
        let kernel = dir.join("linux");
        let version = fs::read_dir(tree.join("lib/modules"))?.next().context("the kernel package is empty")??;
        let version = version.file_name().into_string().ok().context("the kernel's version is no text")?;
        fs::copy(tree.join("boot").join(format!("vmlinuz-{version}")), &kernel)?;

        let mut initrd = Cpio::default();
        for name in ["bin", "dev", "proc", "sys", "lib", "tmp", "run", "etc"] {
            initrd.directory(name);
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| fs::read(path).ok());
        initrd.file("bin/busybox", 0o755, &busybox.context("no busybox (package busybox-static)")?);
        initrd.file("init", 0o755, INIT.as_bytes());
        initrd.file("etc/udhcpc.sh", 0o755, UDHCPC.as_bytes());
        initrd.file("disk", 0o644, &bootable_disk(dir)?);
        for name in MODULES {
            if let Some(module) = read_module(&tree.join("lib/modules"), name)? {
                initrd.file(&format!("lib/{name}.ko"), 0o644, &module);
            }
        }
        let path = dir.join("initrd");
        fs::write(&path, initrd.finish())?;
        Ok(Payload { kernel, initrd: path })
    }
}

/// The unpacked kernel package of this machine's Debian, from the cache or, outside the namespaces, from its mirror.
pub(crate) fn kernel_tree() -> Result<PathBuf> {
    let tree = cache::dir()?.join("linux");
    if tree.join("boot").is_dir() {
        return Ok(tree);
    }
    let depends = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output()?;
    let depends = String::from_utf8(depends.stdout)?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .context("apt knows no linux-image-cloud-amd64 (run apt-get update)")?;
    println!("fetching {package} into {}", tree.display());
    let work = tempfile::tempdir_in(cache::dir()?)?;
    let download = Command::new("apt-get").args(["download", "-q", package]).current_dir(work.path()).output()?;
    ensure!(download.status.success(), "apt-get download {package}: {}", String::from_utf8_lossy(&download.stderr));
    let archive = fs::read_dir(work.path())?.next().context("apt-get downloaded nothing")??.path();
    let unpacked = work.path().join("tree");
    run("dpkg-deb", &["-x", &archive.to_string_lossy(), &unpacked.to_string_lossy()])?;
    fs::rename(unpacked, &tree)?;
    Ok(tree)
}

/// The content of `<name>.ko` or `<name>.ko.xz`, wherever it is below a directory.
fn read_module(dir: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let file_name = entry.file_name();
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else if file_name == format!("{name}.ko").as_str() {
                return Ok(Some(fs::read(entry.path())?));
            } else if file_name == format!("{name}.ko.xz").as_str() {
                return Ok(Some(Command::new("xz").arg("-dc").arg(entry.path()).output()?.stdout));
            }
        }
    }
    Ok(None)
}

/// A FAT disk whose first sector, and whose EFI program, print [`DISK_BOOTED`] and stop.
fn bootable_disk(dir: &Path) -> Result<Vec<u8>> {
    let (disk, program) = (dir.join("disk.img"), dir.join("bootx64.efi"));
    fs::write(&program, efi_program())?;
    let (image, program) = (disk.to_string_lossy(), program.to_string_lossy());
    run("mformat", &["-C", "-i", &image, "-f", "1440", "::"]).context("package mtools")?;
    run("mmd", &["-i", &image, "::/EFI", "::/EFI/BOOT"])?;
    run("mcopy", &["-i", &image, &program, "::/EFI/BOOT/BOOTX64.EFI"])?;

    // xor ax,ax; mov ds,ax; mov si,text; cld; next: lodsb; test al,al; jz stop; mov ah,14; mov bx,7; int 16; jmp next;
    // stop: hlt; jmp stop; text:   -- the sector is loaded at 0x7c00, and FAT's own fields end at 0x3e.
    const CODE_AT: usize = 0x3e;
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x57, 0x7c, 0xfc, 0xac, 0x84, 0xc0, 0x74, 0x09, 0xb4, 0x0e, 0xbb, 0x07, 0x00,
        0xcd, 0x10, 0xeb, 0xf2, 0xf4, 0xeb, 0xfd,
    ];
    code.extend(format!("\r\n{DISK_BOOTED}\r\n\0").bytes());
    let mut bytes = fs::read(&disk)?;
    bytes.get_mut(CODE_AT..CODE_AT + code.len()).context("the disk is too small")?.copy_from_slice(&code);
    bytes.get_mut(510..512).context("the disk is too small")?.copy_from_slice(&[0x55, 0xaa]);
    Ok(bytes)
}

/// The smallest EFI program for x86-64 that prints a line: a PE32+ image with one section.
fn efi_program() -> Vec<u8> {
    const FILE_ALIGNMENT: usize = 0x200;
    const SECTION_ALIGNMENT: u32 = 0x1000;
    // sub rsp,40; mov rcx,[rdx+64] (ConOut); lea rdx,[rip+9] (text); call [rcx+8] (OutputString); stop: hlt; jmp stop
    let mut code = vec![
        0x48, 0x83, 0xec, 0x28, 0x48, 0x8b, 0x4a, 0x40, 0x48, 0x8d, 0x15, 0x09, 0, 0, 0, 0xff, 0x51, 0x08, 0xf4, 0xeb,
        0xfd, 0, 0, 0,
    ];
    code.extend(format!("\r\n{DISK_BOOTED}\r\n\0").encode_utf16().flat_map(u16::to_le_bytes));
    code.resize(FILE_ALIGNMENT, 0);

    let mut image = b"MZ".to_vec();
    image.resize(0x3c, 0);
    image.extend(0x40_u32.to_le_bytes()); // where the PE header is
    image.extend(b"PE\0\0");
    let words = |image: &mut Vec<u8>, words: &[u16]| image.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    let longs = |image: &mut Vec<u8>, longs: &[u32]| image.extend(longs.iter().flat_map(|long| long.to_le_bytes()));
    words(&mut image, &[0x8664, 1, 0, 0, 0, 0, 0, 0, 0xf0, 0x22]); // x86-64, one section, size of what follows, executable
    words(&mut image, &[0x20b, 0]); // PE32+
    longs(&mut image, &[0x200, 0, 0, SECTION_ALIGNMENT, SECTION_ALIGNMENT]); // sizes; entry point; begin of the code
    longs(&mut image, &[0, 0, SECTION_ALIGNMENT, 0x200, 0, 0, 0, 0]); // base 0, alignments, versions
    longs(&mut image, &[2 * SECTION_ALIGNMENT, 0x200, 0]); // sizes of image and headers
    words(&mut image, &[10, 0]); // an EFI application
    longs(&mut image, &[0; 9]); // stack and heap, which EFI does not use, and a reserved word
    longs(&mut image, &[16]); // data directories, all empty
    image.resize(image.len() + 16 * 8, 0);
    image.extend(b".text\0\0\0");
    longs(&mut image, &[0x200, SECTION_ALIGNMENT, 0x200, 0x200, 0, 0, 0, 0x6000_0020]);
    image.resize(FILE_ALIGNMENT, 0);
    image.extend(code);
    image
}

/// An archive in the "newc" format, which is what a kernel unpacks.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn directory(&mut self, name: &str) {
        self.entry(name, 0o40755, &[]);
    }

    fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | permissions, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name_bytes = name.len() + 1;
        self.bytes.extend(b"070701");
        for field in [self.entries, mode, 0, 0, 1, 0] {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(format!("{:08x}{:032x}{name_bytes:08x}{:08x}{name}\0", content.len(), 0, 0).bytes());
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
