//! The text of a dnsmasq configuration: a function of [`Config`] and nothing else.
//!
//! Machines are known to DHCP by their MAC only. Firmware, iPXE, installer and installed system each send another client
//! identifier; by these one machine would get up to four addresses, and the server could not tell a colleague's `curl`
//! from the machine.

use std::fmt::{self, Write as _};
use std::net::{AddrParseError, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::interface::Interface;
use super::ipxe::IpxeFiles;

/// Everything that the configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The interface that machines boot on.
    pub interface: Interface,
    /// Who serves addresses.
    pub mode: Mode,
    /// What boot URLs begin with, such as `http://192.168.42.1:5000`, without a slash at the end.
    pub public_url: String,
    /// The iPXE binaries, whose directory becomes the TFTP root.
    pub ipxe: IpxeFiles,
    /// Where dnsmasq keeps its leases and its process id.
    pub data_dir: PathBuf,
    /// Which account dnsmasq runs as.
    pub account: Account,
}

/// Who serves addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// dnsmasq does, from this range.
    Full(DhcpRange),
    /// Another server does; dnsmasq adds what to boot.
    Proxy,
}

/// Which account dnsmasq runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The distribution's own for dnsmasq.
    Own,
    /// The only one that there is, in a user namespace with a single account.
    Only,
}

impl Account {
    /// Finds out whether this process could change to another account at all.
    #[must_use]
    pub fn of_this_process() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let accounts = map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok());
        if accounts.sum::<u64>() == 1 { Account::Only } else { Account::Own }
    }
}

/// First and last address that dnsmasq may hand out; written `A,B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// Why a text is no range.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// Not two words.
    #[error("a range is two addresses with a comma between, such as 192.168.42.100,192.168.42.199")]
    Shape,
    /// One of the two is no address.
    #[error("{word:?} is not an IPv4 address")]
    Address {
        /// What was given.
        word: String,
        /// Why it is none.
        source: AddrParseError,
    },
    /// The last address comes before the first.
    #[error("the range ends before it begins")]
    Backwards,
}

impl FromStr for DhcpRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (first, last) = text.split_once(',').ok_or(RangeError::Shape)?;
        let address = |word: &str| {
            word.trim().parse().map_err(|source| RangeError::Address { word: word.trim().to_owned(), source })
        };
        let (first, last) = (address(first)?, address(last)?);
        if last < first { Err(RangeError::Backwards) } else { Ok(DhcpRange { first, last }) }
    }
}

impl fmt::Display for DhcpRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{},{}", self.first, self.last)
    }
}

impl DhcpRange {
    /// The range between two addresses, in either order.
    pub(super) fn spanning(one: Ipv4Addr, other: Ipv4Addr) -> Self {
        DhcpRange { first: one.min(other), last: one.max(other) }
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> Ipv4Addr {
        self.last
    }
}

/// Why no configuration can be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A path or URL with a character that means something to dnsmasq.
    #[error("{0:?} cannot be written into a dnsmasq configuration: use a name without spaces, quotes, commas and such")]
    Unwritable(String),
    /// Machines in the range could not reach the server.
    #[error("the range {range} is not in the network of {interface} ({address}, mask {mask})")]
    RangeElsewhere {
        /// What was asked for.
        range: DhcpRange,
        /// The interface's name.
        interface: String,
        /// Its address.
        address: Ipv4Addr,
        /// Its mask.
        mask: Ipv4Addr,
    },
}

/// One kind of firmware that can be started over the network.
struct Firmware {
    title: &'static str,
    tag: &'static str,
    /// DHCP client architectures (option 93, RFC 4578 and IANA's list).
    architectures: &'static [u16],
    /// The file's name, and the name a reader could look for.
    file: Option<&'static str>,
    usual_name: &'static str,
    loads_by: LoadsBy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LoadsBy {
    Tftp,
    Http,
}

fn firmwares(ipxe: &IpxeFiles) -> [Firmware; 5] {
    let of = |title, tag, architectures, file, usual_name, loads_by| Firmware {
        title,
        tag,
        architectures,
        file,
        usual_name,
        loads_by,
    };
    // 7 and 9 were swapped in RFC 4578; firmware for x86-64 sends either.
    [
        of("BIOS", "bios", &[0], ipxe.bios, "undionly.kpxe", LoadsBy::Tftp),
        of("UEFI on x86-64", "efi-x64", &[7, 9], ipxe.x64, "snponly.efi", LoadsBy::Tftp),
        of("UEFI on ARM64", "efi-arm64", &[11], ipxe.arm64, "snp-arm64.efi", LoadsBy::Tftp),
        of("UEFI HTTP boot on x86-64", "http-x64", &[16], ipxe.x64, "snponly.efi", LoadsBy::Http),
        of("UEFI HTTP boot on ARM64", "http-arm64", &[19], ipxe.arm64, "snp-arm64.efi", LoadsBy::Http),
    ]
}

impl Config {
    /// The file that [`super::Child`] writes the configuration to.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.data_dir.join("dnsmasq.conf")
    }

    /// The file that holds the process id of a running dnsmasq.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.data_dir.join("dnsmasq.pid")
    }

    /// The whole configuration, complete: dnsmasq needs nothing else.
    ///
    /// # Errors
    /// A path or URL that dnsmasq would read as something else, or a range outside the interface's network.
    pub fn text(&self) -> Result<String, ConfigError> {
        let data_dir = &writable_path(&self.data_dir)?;
        let url = writable(&self.public_url)?.trim_end_matches('/');
        let root = self.ipxe.directory.as_deref().map(writable_path).transpose()?;
        self.check_range()?;

        let mut text = String::new();
        let mut line = |args: fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = text.write_fmt(args);
            text.push('\n');
        };
        line(format_args!("# dnsmasq for kiwispray: {}.", self.summary()));
        line(format_args!("# Generated: `kiwispray dnsmasq config` prints it again."));
        line(format_args!("\n# DHCP and TFTP on one interface, no DNS."));
        line(format_args!("port=0\ninterface={}\nexcept-interface=lo\nbind-interfaces", self.interface.name()));
        line(format_args!("pid-file={data_dir}/dnsmasq.pid"));
        if let Account::Only = self.account {
            line(format_args!("# There is no other account in this user namespace.\nuser=root\ngroup="));
        }
        self.addresses(&mut line, data_dir);

        match root {
            Some(root) => line(format_args!("\n# iPXE for firmware that asks by TFTP.\nenable-tftp\ntftp-root={root}")),
            None => line(format_args!("\n# No iPXE was found, so nothing is served by TFTP.")),
        }
        line(format_args!("\n# iPXE itself, however it was started, goes on with the server's script."));
        let next_server = match self.mode {
            Mode::Full(_) => String::new(),
            // iPXE overlooks a proxy's answer without the address of a boot server, though it does not use it.
            Mode::Proxy => format!(",,{}", self.interface.address()),
        };
        line(format_args!("dhcp-userclass=set:ipxe,iPXE\ndhcp-boot=tag:ipxe,{url}/bootstrap.ipxe{next_server}"));
        for firmware in firmwares(&self.ipxe) {
            self.firmware(&mut line, &firmware, url);
        }
        Ok(text)
    }

    fn summary(&self) -> String {
        let name = self.interface.name();
        match self.mode {
            Mode::Full(_) => format!("addresses and boot files on {name}"),
            Mode::Proxy => format!("boot files on {name}, addresses come from another DHCP server"),
        }
    }

    fn check_range(&self) -> Result<(), ConfigError> {
        let Mode::Full(range) = self.mode else {
            return Ok(());
        };
        if self.interface.reaches(range.first) && self.interface.reaches(range.last) {
            return Ok(());
        }
        Err(ConfigError::RangeElsewhere {
            range,
            interface: self.interface.name().to_owned(),
            address: self.interface.address(),
            mask: self.interface.mask(),
        })
    }

    fn addresses(&self, line: &mut impl FnMut(fmt::Arguments<'_>), data_dir: &str) {
        match self.mode {
            Mode::Full(range) => {
                line(format_args!(
                    "\n# One address per MAC: firmware, iPXE, installer and system send different client ids."
                ));
                line(format_args!("dhcp-ignore-clid\ndhcp-range={range},{},1h", self.interface.mask()));
            }
            Mode::Proxy => {
                line(format_args!("\n# No addresses: another DHCP server gives them."));
                line(format_args!("dhcp-range={},proxy,{}", self.interface.network(), self.interface.mask()));
            }
        }
        // dnsmasq opens it in proxy mode too, and by default one that belongs to the distribution's own service.
        line(format_args!("dhcp-leasefile={data_dir}/dnsmasq.leases"));
    }

    /// The lines that start iPXE on one kind of firmware, or a comment that says why there are none.
    fn firmware(&self, line: &mut impl FnMut(fmt::Arguments<'_>), firmware: &Firmware, url: &str) {
        let Firmware { title, tag, architectures, file, usual_name, loads_by } = firmware;
        let Some(file) = file else {
            let dirs = match &self.ipxe.directory {
                Some(directory) => directory.display().to_string(),
                None => self.ipxe.looked_in.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "),
            };
            // Every control character is dropped: a comment must stay one.
            let dirs: String = dirs.chars().filter(|c| !c.is_control()).collect();
            return line(format_args!("\n# {title} is not offered: no {usual_name} (or alike) in {dirs}."));
        };
        match (self.mode, loads_by) {
            (Mode::Full(_), LoadsBy::Tftp) => {
                line(format_args!("\n# {title}"));
                match_architectures(line, tag, architectures);
                line(format_args!("dhcp-boot=tag:!ipxe,tag:{tag},{file}"));
            }
            (Mode::Full(_), LoadsBy::Http) => {
                line(format_args!("\n# {title}: the firmware takes a URL only from who calls itself HTTPClient."));
                match_architectures(line, tag, architectures);
                line(format_args!("dhcp-option-force=tag:!ipxe,tag:{tag},option:vendor-class,HTTPClient"));
                line(format_args!("dhcp-boot=tag:!ipxe,tag:{tag},{url}/ipxe/{file}"));
            }
            (Mode::Proxy, LoadsBy::Tftp) => {
                line(format_args!("\n# {title}"));
                for architecture in *architectures {
                    line(format_args!("pxe-service=tag:!ipxe,{architecture},\"iPXE\",{file}"));
                }
            }
            (Mode::Proxy, LoadsBy::Http) => {
                line(format_args!("\n# {title} is not offered: dnsmasq cannot do it in proxy mode."));
            }
        }
    }
}

fn match_architectures(line: &mut impl FnMut(fmt::Arguments<'_>), tag: &str, architectures: &[u16]) {
    for architecture in architectures {
        line(format_args!("dhcp-match=set:{tag},option:client-arch,{architecture}"));
    }
}

/// A word that dnsmasq reads as itself: no separator, comment, quote, escape, or end of line.
fn writable(word: &str) -> Result<&str, ConfigError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%~=[]".contains(c);
    if word.chars().all(good) { Ok(word) } else { Err(ConfigError::Unwritable(word.to_owned())) }
}

/// The same for a path, made absolute, as dnsmasq runs in `/`.
fn writable_path(path: &Path) -> Result<String, ConfigError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let word = path.to_str().ok_or_else(|| ConfigError::Unwritable(path.display().to_string()))?;
    writable(word).map(str::to_owned)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
