//! Live ISOs for tests, made by the program that KIWI makes them with.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

pub(super) const KERNEL: &[u8] = b"kernel of the live system";
pub(super) const INITRD: &[u8] = &[9; 5000];

/// What makes an ISO, by the programs that people make them with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Maker {
    /// `xorriso` as KIWI calls it.
    Xorriso,
    /// `genisoimage` as older versions of KIWI called it for large systems: with UDF beside ISO9660, which alone tells the size of
    /// files over 4 GiB.
    UdfBridge,
}

/// An ISO of these files, as `xorriso` writes it for KIWI.
pub(super) fn iso_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let iso = Maker::Xorriso.make(folder.path(), files, 0);
    fs::read(iso).unwrap()
}

/// A live ISO as KIWI builds it, but small.
pub(super) fn live_iso() -> &'static [u8] {
    static ISO: OnceLock<Vec<u8>> = OnceLock::new();
    ISO.get_or_init(|| iso_of(&live_files()))
}

pub(super) fn live_files() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("LiveOS/squashfs.img", &[7; 10_000]),
        ("boot/grub2/grub.cfg", b"menuentry"),
        ("boot/x86_64/loader/linux", KERNEL),
        ("boot/x86_64/loader/initrd", INITRD),
        ("boot/x86_64/loader/a file with quite a long name.cfg", b"x"),
    ]
}

impl Maker {
    /// Makes an ISO of these files in a folder. The first one is as large as is said, by zeros that take no disk, here and in
    /// the ISO.
    pub(super) fn make(self, folder: &Path, files: &[(&str, &[u8])], first_bytes: u64) -> PathBuf {
        let (tree, iso) = (folder.join("tree"), folder.join("test.iso"));
        for (index, (path, bytes)) in files.iter().enumerate() {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = File::create(path).unwrap();
            file.write_all(bytes).unwrap();
            if index == 0 && first_bytes > 0 {
                file.set_len(first_bytes).unwrap();
            }
        }
        let mut maker = self.command(&tree).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let maker = maker.as_mut().expect("cargo xtask packages installs xorriso and genisoimage");
        let mut sparse = Command::new("dd");
        sparse.args(["bs=1M", "iflag=fullblock", "conv=sparse", "status=none"]).arg(format!("of={}", iso.display()));
        assert!(sparse.stdin(maker.stdout.take().unwrap()).status().unwrap().success());
        assert!(maker.wait().unwrap().success());
        iso
    }

    /// Prints the ISO of a tree.
    fn command(self, tree: &Path) -> Command {
        let mut command = Command::new(match self {
            Self::Xorriso => "xorriso",
            Self::UdfBridge => "genisoimage",
        });
        match self {
            Self::Xorriso => {
                command.args(["-preparer_id", "KIWI", "-volid", "CDROM", "-joliet", "on", "-padding", "0"]);
                command.args(["-compliance", "no_emul_toc", "-outdev", "-", "-map"]).arg(tree).arg("/");
                command.args(["-chmod", "0755", "/", "--", "-boot_image", "any", "partition_offset=16"]);
            }
            Self::UdfBridge => {
                command.args(["-quiet", "-p", "KIWI", "-V", "CDROM", "-iso-level", "3", "-udf", "-allow-limited-size"]);
                command.args(["-R", "-J", "-f", "-pad", "-joliet-long"]).arg(tree);
            }
        }
        command
    }
}
