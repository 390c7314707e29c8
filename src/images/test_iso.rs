//! Live ISOs for tests, made by the program that KIWI makes them with.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

pub(super) const KERNEL: &[u8] = b"kernel of the live system";
pub(super) const INITRD: &[u8] = &[9; 5000];

/// An ISO of these files, as `xorriso` writes it for KIWI.
pub(super) fn iso_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let tree = folder.path().join("tree");
    for (path, bytes) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let iso = folder.path().join("test.iso");
    xorriso(&tree, &iso);
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

fn xorriso(tree: &Path, iso: &Path) {
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-preparer_id", "KIWI", "-volid", "CDROM", "-joliet", "on", "-padding", "0"]);
    xorriso.args(["-compliance", "no_emul_toc", "-outdev"]).arg(iso).arg("-map").arg(tree).arg("/");
    xorriso.args(["-chmod", "0755", "/", "--", "-boot_image", "any", "partition_offset=16"]);
    let status = xorriso.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("cargo xtask packages installs xorriso").success());
}
