//! The network interface that machines boot on: its name, its IPv4 address, its network.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use serde::Deserialize;

use super::config::DhcpRange;

/// Linux's IFNAMSIZ, without the NUL.
const NAME_BYTES_MAX: usize = 15;

/// An interface with an IPv4 address.
///
/// The name is safe to put into a dnsmasq configuration: letters, digits and `._:@-` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    name: String,
    address: Ipv4Addr,
    prefix_bits: u8,
    hardware: Option<[u8; 6]>,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// Not a name that Linux would give.
    #[error("{0:?} is not the name of a network interface")]
    Name(String),
    /// A prefix above 30 leaves no address for a machine.
    #[error("the network of {name} is too small for machines: /{prefix_bits}")]
    Prefix {
        /// The interface.
        name: String,
        /// Its prefix length.
        prefix_bits: u8,
    },
    /// `ip` could not be run.
    #[error("cannot run `ip` (package iproute2)")]
    Ip(#[source] std::io::Error),
    /// `ip` knows no such interface.
    #[error("no network interface {name}: {said}")]
    Missing {
        /// The interface.
        name: String,
        /// What `ip` said.
        said: String,
    },
    /// The answer of `ip` is not what it prints on other machines.
    #[error("`ip -json address` gave an answer that is not understood")]
    Answer(#[from] serde_json::Error),
    /// Up or down, but without an address.
    #[error("{0} has no IPv4 address: machines could not reach this server")]
    NoAddress(String),
}

impl Interface {
    /// An interface from its parts.
    ///
    /// # Errors
    /// A name that is no interface's, or a network without room for machines.
    pub fn new(name: &str, address: Ipv4Addr, prefix_bits: u8) -> Result<Self, InterfaceError> {
        let good = |c: char| c.is_ascii_alphanumeric() || "._:@-".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('-') || !name.chars().all(good) {
            return Err(InterfaceError::Name(name.to_owned()));
        }
        if !(1..=30).contains(&prefix_bits) {
            return Err(InterfaceError::Prefix { name: name.to_owned(), prefix_bits });
        }
        Ok(Interface { name: name.to_owned(), address, prefix_bits, hardware: None })
    }

    /// Asks the system for the interface's first IPv4 address. Blocks for the run of `ip`.
    ///
    /// # Errors
    /// No such interface, no IPv4 address on it, or `ip` missing.
    pub fn find(name: &str) -> Result<Self, InterfaceError> {
        // Checked before it becomes an argument.
        Interface::new(name, Ipv4Addr::UNSPECIFIED, 24)?;
        let answer = Command::new("ip")
            .args(["-json", "address", "show", "dev", name])
            .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
            .output()
            .map_err(InterfaceError::Ip)?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
            return Err(InterfaceError::Missing { name: name.to_owned(), said });
        }
        Self::from_ip_json(name, &answer.stdout)
    }

    fn from_ip_json(name: &str, json: &[u8]) -> Result<Self, InterfaceError> {
        #[derive(Deserialize)]
        struct Link {
            address: Option<String>,
            #[serde(default)]
            addr_info: Vec<Address>,
        }
        #[derive(Deserialize)]
        struct Address {
            local: IpAddr,
            prefixlen: u8,
        }
        let links: Vec<Link> = serde_json::from_slice(json)?;
        for link in links {
            for Address { local, prefixlen } in link.addr_info {
                if let IpAddr::V4(address) = local {
                    let hardware = link.address.as_deref().and_then(ethernet_address);
                    return Ok(Interface { hardware, ..Interface::new(name, address, prefixlen)? });
                }
            }
        }
        Err(InterfaceError::NoAddress(name.to_owned()))
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This machine's address there.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its Ethernet address, if it has one.
    #[must_use]
    pub fn hardware_address(&self) -> Option<[u8; 6]> {
        self.hardware
    }

    /// The address of the network, with no host bits.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask().to_bits())
    }

    /// The network mask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(self.prefix_bits)))
    }

    /// Whether an address belongs to the interface's network.
    #[must_use]
    pub fn reaches(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask().to_bits() == self.network().to_bits()
    }

    /// The second two fifths of the network (`.100` to `.199` of a /24), at most 4,096 addresses.
    ///
    /// The first addresses usually belong to routers and servers. dnsmasq itself leaves out its own address.
    #[must_use]
    pub fn suggested_range(&self) -> DhcpRange {
        let size = 1_u32 << (32 - u32::from(self.prefix_bits)).min(31);
        let first = (size / 5 * 2).clamp(1, 100 * (size / 256).max(1));
        let count = (size / 5 * 2).clamp(1, 100.max(size / 8)).min(4096);
        let network = self.network().to_bits();
        DhcpRange::spanning(
            Ipv4Addr::from_bits(network.saturating_add(first)),
            Ipv4Addr::from_bits(network.saturating_add(first + count - 1)),
        )
    }
}

fn ethernet_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_configuration_are_refused() {
        for name in ["", "-x", "eth0\nport=53", "a b", "eth0,eth1", "0123456789abcdef", "e#"] {
            assert!(Interface::new(name, Ipv4Addr::LOCALHOST, 24).is_err(), "{name:?}");
        }
        assert!(Interface::new("enp3s0f1.100", Ipv4Addr::LOCALHOST, 24).is_ok());
    }

    #[test]
    fn the_answer_of_ip_is_understood() {
        let json = br#"[{"ifindex":2,"ifname":"br0","address":"52:54:00:00:00:09","addr_info":[
            {"family":"inet6","local":"fe80::1","prefixlen":64},
            {"family":"inet","local":"10.1.2.3","prefixlen":20,"broadcast":"10.1.15.255","label":"br0"}]}]"#;
        let interface = Interface::from_ip_json("br0", json).unwrap();
        assert_eq!(interface.network(), Ipv4Addr::new(10, 1, 0, 0));
        assert_eq!(interface.hardware_address(), Some([0x52, 0x54, 0, 0, 0, 9]));
        assert_eq!(interface.mask(), Ipv4Addr::new(255, 255, 240, 0));
        assert!(interface.reaches(Ipv4Addr::new(10, 1, 15, 254)));
        assert!(!interface.reaches(Ipv4Addr::new(10, 1, 16, 1)));
        assert!(matches!(Interface::from_ip_json("br0", b"[{}]"), Err(InterfaceError::NoAddress(_))));
    }

    #[test]
    fn suggested_ranges_lie_inside_their_network() {
        for prefix_bits in 1..=30 {
            let interface = Interface::new("eth1", Ipv4Addr::new(172, 16, 0, 1), prefix_bits).unwrap();
            let range = interface.suggested_range();
            assert!(range.first() <= range.last(), "/{prefix_bits}: {range}");
            assert!(interface.reaches(range.first()) && interface.reaches(range.last()), "/{prefix_bits}: {range}");
        }
        let usual = Interface::new("eth1", Ipv4Addr::new(192, 168, 42, 1), 24).unwrap();
        assert_eq!(usual.suggested_range().to_string(), "192.168.42.100,192.168.42.199");
    }

    #[test]
    fn loopback_is_found_and_nonsense_is_not() {
        assert!(matches!(Interface::find("no-such-if"), Err(InterfaceError::Missing { .. })));
    }
}
