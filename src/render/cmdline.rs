//! Kernel command lines, built from typed parts.
//!
//! The invariant: a [`SafeLine`] can be made only here, and every word of it is one [`KernelArg`], cloud-init's seed, or the constant
//! that lets iPXE name the network card. What the server decides (where the image is, which disk dies) can not be overridden by an
//! image's or a plugin's arguments. The parameters are KIWI's, from its documentation and its dracut modules.

use std::fmt;
use std::str::FromStr;

use crate::domain::{DevicePolicy, FirstBoot};
use serde::{Serialize, Serializer};

/// Longest command line in bytes: what the x86 kernel takes (`COMMAND_LINE_SIZE` less its NUL).
pub const LINE_BYTES_MAX: usize = 2047;
/// Longest single argument in bytes.
pub const ARG_BYTES_MAX: usize = 1536;

/// Names the card that iPXE booted from; iPXE fills it in.
const BOOTIF: &str = "BOOTIF=01-${mac:hexhyp}";

/// Before the URL of cloud-init's seed. The semicolon stands within a word, so to iPXE it ends no command.
const NOCLOUD: &str = "ds=nocloud-net;s=";

/// What only the server may say: an image's own value for these is left out. KIWI writes some of them into `.append`.
/// `rd.kiwi.oem.maxdisk` is not among them: it can only spare disks, and who gave it would lose one without it.
const SERVER_KEYS: [&str; 8] = [
    "rd.kiwi.install.pxe",
    "rd.kiwi.install.image",
    "rd.kiwi.install.pass.bootparam",
    "rd.kiwi.oem.installdevice",
    "rd.kiwi.oem.smallest_disk",
    "razorurl",
    "initrd",
    "BOOTIF",
];

/// What a plugin's argument may not begin with.
const PLUGIN_FORBIDDEN: [&str; 6] = ["rd.kiwi.", "kiwispray.", "razorurl", "initrd", "init", "root"];

/// Why a part of a command line was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// Not one argument of harmless characters.
    #[error(
        "{0:?} is no kernel argument: use letters, digits and ._/:=,+@%~?&!*[]- without spaces, at most 1536 bytes"
    )]
    BadArg(String),
    /// A plugin's argument that would change what is installed or run.
    #[error(
        "a plugin may not give the kernel argument {0:?}: rd.kiwi.*, kiwispray.*, razorurl, initrd, init and root belong to the server"
    )]
    Forbidden(String),
    /// Not a URL that KIWI's installer can fetch.
    #[error(
        "{0:?} is no image URL for KIWI: it must end in .xz and hold only letters, digits and ._/:- (no IPv6 address)"
    )]
    BadImageUrl(String),
    /// A disk image cannot be written to every disk.
    #[error("`all` is a choice for images that wipe: name the one disk that this image is written to")]
    OneDisk,
    /// Not a URL that a live system can fetch.
    #[error(
        "{0:?} is no URL of a live ISO: it must end in .iso and hold only letters, digits and ._/:- (no IPv6 address)"
    )]
    BadIsoUrl(String),
    /// The whole is too long.
    #[error(
        "the kernel command line has {0} bytes, and the kernel takes 2047: shorten the image's or the plugins' arguments"
    )]
    TooLong(usize),
}

/// One kernel argument: `key` or `key=value`, without spaces, nothing that iPXE would expand or end a command at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelArg(String);

impl KernelArg {
    /// One argument that a plugin gave.
    pub fn from_plugin(text: &str) -> Result<KernelArg, CmdlineError> {
        let arg: KernelArg = text.parse()?;
        if PLUGIN_FORBIDDEN.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(CmdlineError::Forbidden(text.to_owned()));
        }
        Ok(arg)
    }

    /// Every argument of a line, as in KIWI's `.append` file or an image's manifest.
    pub fn parse_line(line: &str) -> Result<Vec<KernelArg>, CmdlineError> {
        line.split_whitespace().map(str::parse).collect()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn key(&self) -> &str {
        self.0.split_once('=').map_or(self.0.as_str(), |(key, _)| key)
    }
}

impl FromStr for KernelArg {
    type Err = CmdlineError;

    fn from_str(text: &str) -> Result<KernelArg, CmdlineError> {
        // `#`, `||`, `&&` and `;` as words end an iPXE command; `$` begins a setting; `|` and `;` are never allowed.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._/:=,+@%~?&!*[]-".contains(c);
        let good = !text.is_empty() && text.len() <= ARG_BYTES_MAX && text != "&&" && text.chars().all(plain);
        if good { Ok(KernelArg(text.to_owned())) } else { Err(CmdlineError::BadArg(shortened(text))) }
    }
}

/// Whether the boot loads an initrd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initrd {
    /// It does; iPXE names it `initrd`.
    Loaded,
    /// The kernel runs alone.
    Absent,
}

/// The parts of an installer's command line.
#[derive(Clone, Debug)]
pub struct KiwiLine<'a> {
    /// URL of the compressed disk image; ends in `.xz`, has no query.
    pub image_url: &'a str,
    /// Which disk dies.
    pub disk: &'a DevicePolicy,
    /// URL of the post-install script, see [`BaseUrl::post_install`](super::BaseUrl::post_install).
    pub post_install_url: &'a str,
    /// The image's own arguments.
    pub image_append: &'a [KernelArg],
    /// What plugins add.
    pub plugin_append: &'a [KernelArg],
}

/// The parts of a plain kernel's command line.
#[derive(Clone, Debug)]
pub struct LinuxLine<'a> {
    /// Whether there is an initrd.
    pub initrd: Initrd,
    /// URL of the post-install script.
    pub post_install_url: &'a str,
    /// The image's own arguments.
    pub image_append: &'a [KernelArg],
    /// What plugins add.
    pub plugin_append: &'a [KernelArg],
}

/// The parts of a live system's command line.
#[derive(Clone, Debug)]
pub struct LiveLine<'a> {
    /// URL of the ISO; ends in `.iso`, has no query.
    pub iso_url: &'a str,
    /// Size of the ISO in bytes.
    pub iso_bytes: u64,
    /// URL of the post-install script.
    pub post_install_url: &'a str,
    /// The image's own arguments.
    pub image_append: &'a [KernelArg],
    /// What plugins add.
    pub plugin_append: &'a [KernelArg],
}

/// A finished command line for iPXE's `kernel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeLine(String);

impl SafeLine {
    /// The command line of KIWI's installer.
    pub fn kiwi(parts: &KiwiLine<'_>) -> Result<SafeLine, CmdlineError> {
        let mut words = vec!["initrd=initrd".to_owned(), "rd.kiwi.install.pxe".to_owned()];
        words.push(format!("rd.kiwi.install.image={}", checked_image_url(parts.image_url)?));
        // Hands the rest of the line, razorurl= too, to the installed system's first boot.
        words.push("rd.kiwi.install.pass.bootparam".to_owned());
        match parts.disk {
            DevicePolicy::Path(device) => words.push(format!("rd.kiwi.oem.installdevice={}", device.as_str())),
            DevicePolicy::Smallest => words.push("rd.kiwi.oem.smallest_disk".to_owned()),
            DevicePolicy::First => {}
            DevicePolicy::All => return Err(CmdlineError::OneDisk),
        }
        SafeLine::finish(words, parts.post_install_url, parts.image_append, parts.plugin_append)
    }

    /// The command line of a plain kernel.
    pub fn linux(parts: &LinuxLine<'_>) -> Result<SafeLine, CmdlineError> {
        let words = match parts.initrd {
            Initrd::Loaded => vec!["initrd=initrd".to_owned()],
            Initrd::Absent => Vec::new(),
        };
        SafeLine::finish(words, parts.post_install_url, parts.image_append, parts.plugin_append)
    }

    /// The command line of a KIWI live system, which fetches its ISO into a RAM disk.
    pub fn live(parts: &LiveLine<'_>) -> Result<SafeLine, CmdlineError> {
        let url =
            checked_url(parts.iso_url, ".iso").ok_or_else(|| CmdlineError::BadIsoUrl(shortened(parts.iso_url)))?;
        let says = |key: &str| parts.image_append.iter().chain(parts.plugin_append).any(|arg| arg.key() == key);
        // `rd.live.image` is what KIWI writes for its boot loader. No newer module asks dracut for the network by itself.
        let mut words = vec!["initrd=initrd".to_owned(), format!("root=live:{url}"), "rd.live.image".to_owned()];
        words.push("rd.neednet=1".to_owned());
        if !says("ip") {
            words.push("ip=dhcp".to_owned());
        }
        // In KiB. KIWI's module makes a RAM disk of 2 GiB unless it is told, and cuts off what does not fit.
        if !says("ramdisk_size") {
            words.push(format!("ramdisk_size={}", parts.iso_bytes.div_ceil(1 << 20) << 10));
        }
        SafeLine::finish(words, parts.post_install_url, parts.image_append, parts.plugin_append)
    }

    fn finish(
        mut words: Vec<String>,
        post_install_url: &str,
        image_append: &[KernelArg],
        plugin_append: &[KernelArg],
    ) -> Result<SafeLine, CmdlineError> {
        words.push(format!("razorurl={post_install_url}"));
        for word in &words {
            word.parse::<KernelArg>()?;
        }
        words.push(BOOTIF.to_owned());
        words.extend(image_append.iter().filter(|arg| !SERVER_KEYS.contains(&arg.key())).map(|arg| arg.0.clone()));
        for arg in plugin_append {
            words.push(KernelArg::from_plugin(&arg.0)?.0);
        }
        let line = words.join(" ");
        if line.len() > LINE_BYTES_MAX { Err(CmdlineError::TooLong(line.len())) } else { Ok(SafeLine(line)) }
    }

    /// The same, with what tells the installed system where the documents of its first boot are. `files` is the URL below
    /// which they are, with a slash at the end.
    pub fn with_first_boot(self, first_boot: FirstBoot, files: &str) -> Result<SafeLine, CmdlineError> {
        files.parse::<KernelArg>()?;
        let words = match first_boot {
            // `nocloud-net` for older cloud-inits, which new ones still read.
            FirstBoot::Nocloud => format!("{NOCLOUD}{files}"),
            FirstBoot::Ignition => {
                format!("ignition.firstboot ignition.platform.id=metal ignition.config.url={files}config.ign")
            }
        };
        let line = format!("{} {words}", self.0);
        if line.len() > LINE_BYTES_MAX { Err(CmdlineError::TooLong(line.len())) } else { Ok(SafeLine(line)) }
    }

    /// Whether a text is what [`SafeLine`] makes: a template's variable could have been given by someone else.
    pub(crate) fn is_safe(text: &str) -> bool {
        text.len() <= LINE_BYTES_MAX
            && !text.contains(['\n', '\r', '\t'])
            && text
                .split(' ')
                .all(|word| word == BOOTIF || word.strip_prefix(NOCLOUD).unwrap_or(word).parse::<KernelArg>().is_ok())
    }
}

impl fmt::Display for SafeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SafeLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// KIWI passes the URL through an unquoted `eval` and rewrites every `.xz` in it.
fn checked_image_url(url: &str) -> Result<&str, CmdlineError> {
    let good = checked_url(url, ".xz").filter(|url| url.matches(".xz").count() == 1);
    good.ok_or_else(|| CmdlineError::BadImageUrl(shortened(url)))
}

/// A URL with this end, of nothing that an unquoted `eval` would see.
fn checked_url<'a>(url: &'a str, end: &str) -> Option<&'a str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | ':' | '-');
    let good = url.starts_with("http://") && url.ends_with(end) && url.chars().all(plain);
    good.then_some(url)
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_documents_of_the_first_boot_are_named_at_the_end_and_only_by_plain_urls() {
        let line = || SafeLine("initrd=initrd".to_owned());
        let seed = line().with_first_boot(FirstBoot::Nocloud, "http://192.0.2.1:5000/b/x/").unwrap();
        assert_eq!(seed.to_string(), "initrd=initrd ds=nocloud-net;s=http://192.0.2.1:5000/b/x/");
        assert!(SafeLine::is_safe(&seed.to_string()));
        let config = line().with_first_boot(FirstBoot::Ignition, "http://192.0.2.1:5000/b/x/").unwrap();
        assert!(config.to_string().ends_with(" ignition.config.url=http://192.0.2.1:5000/b/x/config.ign"));
        assert!(SafeLine::is_safe(&config.to_string()));
        for bad in ["", "http://x/ y", "http://x/;reboot", "http://x/${net0/mac}"] {
            assert!(line().with_first_boot(FirstBoot::Nocloud, bad).is_err(), "{bad}");
        }
        assert!(!SafeLine::is_safe("ds=nocloud-net;s=a;b"));
    }

    use super::*;
    use crate::render::escape::tests::hostile_values;

    const IMAGE: &str = "http://10.0.0.1:5000/b/7-0f3a/leap.x86_64-1.0.0.xz";
    const CALLBACK: &str = "http://10.0.0.1:5000/post-install?id=7&bootid=7-0f3a";

    fn kiwi(disk: &DevicePolicy, append: &str) -> SafeLine {
        SafeLine::kiwi(&KiwiLine {
            image_url: IMAGE,
            disk,
            post_install_url: CALLBACK,
            image_append: &KernelArg::parse_line(append).unwrap(),
            plugin_append: &[KernelArg::from_plugin("site=fra1").unwrap()],
        })
        .unwrap()
    }

    #[test]
    fn a_kiwi_line_names_image_disk_and_callback() {
        let device = "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4".parse::<DevicePolicy>().unwrap();
        // What KIWI itself writes into .append; the server's own words win.
        let append = "rd.kiwi.install.pxe rd.kiwi.install.image=http://example.com/image.xz console=tty0 \
                      console=ttyS0,115200 rd.kiwi.oem.installdevice=/dev/sdz net.ifnames=0";
        let all = [device, DevicePolicy::Smallest, DevicePolicy::First].map(|disk| kiwi(&disk, append).to_string());
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn an_image_that_spares_large_disks_spares_them() {
        for disk in [DevicePolicy::First, DevicePolicy::Smallest] {
            let line = kiwi(&disk, "quiet rd.kiwi.oem.maxdisk=500G").to_string();
            assert!(line.split(' ').any(|word| word == "rd.kiwi.oem.maxdisk=500G"), "{line}");
        }
        assert!(KernelArg::from_plugin("rd.kiwi.oem.maxdisk=9T").is_err());
    }

    #[test]
    fn a_linux_line_has_an_initrd_only_when_one_is_loaded() {
        let line = |initrd| {
            let parts = LinuxLine { initrd, post_install_url: CALLBACK, image_append: &[], plugin_append: &[] };
            SafeLine::linux(&parts).unwrap().to_string()
        };
        insta::assert_snapshot!([line(Initrd::Loaded), line(Initrd::Absent)].join("\n"));
    }

    #[test]
    fn a_live_line_names_the_iso_and_a_ram_disk_that_holds_it() {
        let line = |append: &str, iso_url: &str| {
            let image_append = &KernelArg::parse_line(append).unwrap();
            let iso_bytes = (3 << 30) + 1;
            SafeLine::live(&LiveLine {
                iso_url,
                iso_bytes,
                post_install_url: CALLBACK,
                image_append,
                plugin_append: &[],
            })
        };
        let iso = "http://10.0.0.1:5000/b/7-0f3a/rescue.x86_64-1.0.0.iso";
        let of_operator = "console=ttyS0 ip=eth1:dhcp ramdisk_size=8000000";
        let both = ["console=ttyS0", of_operator].map(|append| line(append, iso).unwrap().to_string());
        insta::assert_snapshot!(both.join("\n"));
        for bad in ["http://h/a.xz", "http://h/a.iso?x", "http://h/$(a).iso", "http://[::1]/a.iso", "file:///a.iso"] {
            assert!(matches!(line("", bad), Err(CmdlineError::BadIsoUrl(_))), "{bad}");
        }
    }

    #[test]
    fn hostile_text_is_no_argument_device_or_url() {
        for value in hostile_values().iter().filter(|value| *value != "--kill -x") {
            assert!(value.parse::<KernelArg>().is_err(), "{value:?}");
            assert!(format!("/dev/{value}").parse::<DevicePolicy>().is_err(), "{value:?}");
            assert!(checked_image_url(&format!("http://h/{value}.xz")).is_err() || value.is_empty(), "{value:?}");
        }
        for bad in ["/dev/../etc/passwd", "/dev/", "sda", "/dev//sda", "/etc/passwd", "/dev/sda;x"] {
            assert!(bad.parse::<DevicePolicy>().is_err(), "{bad}");
        }
        for bad in ["http://h/a.xz?x=1", "http://h/a.raw", "http://h/a.xz/b.xz", "http://[::1]/a.xz", "file:///a.xz"] {
            assert!(checked_image_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plugins_cannot_say_what_belongs_to_the_server() {
        for bad in
            ["rd.kiwi.oem.installdevice=/dev/sda", "razorurl=http://x", "initrd=x", "init=/bin/sh", "root=/dev/sda"]
        {
            assert!(matches!(KernelArg::from_plugin(bad), Err(CmdlineError::Forbidden(_))), "{bad}");
        }
        assert!(KernelArg::from_plugin("console=ttyS0,115200").is_ok());
    }

    #[test]
    fn an_over_long_line_is_refused_rather_than_cut() {
        let append = vec!["a".repeat(500).parse::<KernelArg>().unwrap(); 5];
        let parts =
            LinuxLine { initrd: Initrd::Loaded, post_install_url: CALLBACK, image_append: &append, plugin_append: &[] };
        assert!(matches!(SafeLine::linux(&parts), Err(CmdlineError::TooLong(_))));
    }

    #[test]
    fn only_lines_made_here_are_safe() {
        assert!(SafeLine::is_safe(&kiwi(&DevicePolicy::First, "quiet").0));
        for bad in ["a ${uuid}", "a || reboot", "a\nreboot", "a  b", "", "BOOTIF=01-${mac:hexhyp}x"] {
            assert!(!SafeLine::is_safe(bad), "{bad:?}");
        }
    }
}
