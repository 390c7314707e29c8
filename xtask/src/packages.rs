//! The Debian packages, and the target of Rust, that tests need. Only what is missing is installed, and each step says what it does.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command as Process;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::deny::cache;

/// What plugins are compiled for.
const GUEST_TARGET: &str = "wasm32-unknown-unknown";

/// Install the Debian packages that tests need, as far as they are missing.
#[derive(Debug, clap::Args)]
pub(crate) struct Command {
    /// What they are for.
    #[arg(value_enum, default_values_t = [Purpose::Test])]
    purposes: Vec<Purpose>,
}

/// What packages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Unit, integration and PXE boot tests.
    Test,
    /// Building initrds that wipe and configure, and dirtying disks for them.
    Live,
    /// Building a KIWI image.
    Kiwi,
    /// A real NetBox to test the plugin `netbox` against.
    Netbox,
}

impl Purpose {
    fn packages(self) -> &'static [&'static str] {
        match self {
            Purpose::Test => &[
                "bsdutils",
                "busybox-static",
                "cpio",
                "curl",
                "dnsmasq-base",
                "genisoimage",
                "iproute2",
                "ipxe",
                "ipxe-qemu",
                "libvirt-clients",
                "libvirt-daemon",
                "libvirt-daemon-driver-qemu",
                "mtools",
                "ovmf",
                "python3-configobj",
                "python3-jinja2",
                "python3-jsonpatch",
                "python3-jsonschema",
                "python3-libvirt",
                "python3-netifaces",
                "python3-oauthlib",
                "python3-requests",
                "python3-serial",
                "python3-venv",
                "python3-yaml",
                "qemu-system-x86",
                "seabios",
                "tcpdump",
                "util-linux",
                "xorriso",
                "xz-utils",
            ],
            Purpose::Live => &["busybox-static", "cpio", "gdisk", "lvm2", "mdadm", "util-linux"],
            Purpose::Kiwi => &[
                "debootstrap",
                "dosfstools",
                "e2fsprogs",
                "fdisk",
                "gdisk",
                "grub-pc-bin",
                "grub2-common",
                "isomd5sum",
                "kiwi",
                "kpartx",
                "mtools",
                "parted",
                "pigz",
                "python3-solv",
                "qemu-utils",
                "rsync",
                "squashfs-tools",
                "xfsprogs",
                "xorriso",
                "xz-utils",
            ],
            Purpose::Netbox => &[
                "curl",
                "gcc",
                "libc6-dev",
                "libpq-dev",
                "nginx-light",
                "postgresql",
                "python3-venv",
                "redis-server",
                "util-linux",
                "xz-utils",
            ],
        }
    }

    /// Packages whose programs tests run from a folder: installed, they would configure this machine at its next boot.
    fn unpacked(self) -> &'static [&'static str] {
        match self {
            Purpose::Test => &["cloud-init", "ignition"],
            Purpose::Kiwi | Purpose::Live | Purpose::Netbox => &[],
        }
    }

    /// Packages that apt must not choose: dracut would replace the machine's own initramfs.
    fn unwanted(self) -> &'static [&'static str] {
        match self {
            Purpose::Test | Purpose::Live | Purpose::Netbox => &[],
            Purpose::Kiwi => &["dracut-core-"],
        }
    }
}

pub(crate) fn run(command: &Command) -> Result<()> {
    command.purposes.iter().try_for_each(|purpose| ensure_installed(*purpose))
}

/// Installs what is missing for a purpose.
///
/// # Errors
/// The machine is not a Debian, or apt fails.
pub(crate) fn ensure_installed(purpose: Purpose) -> Result<()> {
    if purpose == Purpose::Test {
        ensure_guest_target()?;
    }
    purpose.unpacked().iter().try_for_each(|package| ensure_unpacked(package))?;
    let missing = missing(purpose.packages())?;
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages: {}", missing.join(" "));
    if missing.iter().any(|package| !is_known(package)) {
        println!("reading the package lists anew first");
        apt_get(&["update", "-q"])?;
    }
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(missing);
    arguments.extend(purpose.unwanted());
    apt_get(&arguments)
}

/// Unpacks a package into `tools/<package>` of the cache, whole or not at all.
fn ensure_unpacked(package: &str) -> Result<()> {
    let tools = cache()?.join("tools");
    let place = tools.join(package);
    if place.is_dir() {
        return Ok(());
    }
    println!("unpacking the Debian package {package}");
    if !is_known(package) {
        apt_get(&["update", "-q"])?;
    }
    let half = tools.join(format!(".{package}-{}", std::process::id()));
    std::fs::create_dir_all(&half)?;
    let script = "cd \"$1\" && apt-get download -q \"$2\" && dpkg-deb -x ./*.deb . && rm ./*.deb";
    let status = Process::new("sh").args(["-c", script, "sh"]).arg(&half).arg(package).status();
    let status = status.context("cannot run apt-get")?;
    ensure!(status.success(), "{package} cannot be downloaded and unpacked: {status}");
    std::fs::rename(&half, &place).with_context(|| place.display().to_string())
}

/// Plugins are compiled for a target of their own, also by tests.
fn ensure_guest_target() -> Result<()> {
    let libraries = Process::new("rustc").args(["--print", "target-libdir", "--target", GUEST_TARGET]).output();
    let libraries = libraries.context("cannot run rustc")?.stdout;
    if Path::new(String::from_utf8_lossy(&libraries).trim()).is_dir() {
        return Ok(());
    }
    println!("installing the target {GUEST_TARGET}");
    let status = Process::new("rustup").args(["target", "add", GUEST_TARGET]).status();
    let status = status.with_context(|| format!("cannot run rustup; tests need the target {GUEST_TARGET}"))?;
    ensure!(status.success(), "rustup target add {GUEST_TARGET} failed: {status}");
    Ok(())
}

fn missing(packages: &'static [&'static str]) -> Result<Vec<&'static str>> {
    let query =
        Process::new("dpkg-query").args(["-W", "-f", "${db:Status-Status} ${Package}\n"]).args(packages).output();
    let query = query.context("cannot run dpkg-query: the tests need a Debian 12 or newer")?;
    let answer = String::from_utf8_lossy(&query.stdout).into_owned();
    let installed: BTreeSet<&str> = answer.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    Ok(packages.iter().copied().filter(|package| !installed.contains(package)).collect())
}

/// Whether apt could install a package from the lists that it has.
fn is_known(package: &str) -> bool {
    let policy = Process::new("apt-cache").args(["policy", package]).output();
    policy.is_ok_and(|policy| String::from_utf8_lossy(&policy.stdout).contains("Candidate: "))
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let root = Process::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    let mut apt = if root { Process::new("env") } else { Process::new("sudo") };
    apt.arg("DEBIAN_FRONTEND=noninteractive").arg("apt-get").args(arguments);
    let status = apt.status().context("cannot run apt-get")?;
    ensure!(status.success(), "apt-get {} failed: {status}", arguments.join(" "));
    Ok(())
}
