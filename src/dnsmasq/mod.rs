//! dnsmasq: DHCP and TFTP for machines that boot, as generated text and as a supervised child.
//!
//! Invariant: kiwispray never becomes a second DHCP server unasked. Addresses are served only when the operator named a
//! range; otherwise [`decide`] chooses proxy mode, which adds boot information to another server's answers, and refuses
//! when there is no other server to add to.
//!
//! The modules: `interface` knows the network, `ipxe` the firmware files on this machine, `config` turns both into the
//! text of a configuration, `probe` looks for other DHCP servers, `child` keeps the process running.

mod child;
mod config;
mod interface;
mod ipxe;
mod probe;

use std::fmt;

pub use child::{Child, ChildError};
pub use config::{Account, Config, ConfigError, DhcpRange, Mode, RangeError};
pub use interface::{Interface, InterfaceError};
pub use ipxe::IpxeFiles;
pub use probe::{PROBE_TIME, ProbeError, SeenServer, probe};

/// What the operator asked for on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `--dhcp-range A,B`: serve these addresses.
    Range(DhcpRange),
    /// `--proxy-dhcp`: serve no addresses.
    Proxy,
    /// Neither: find out.
    Unstated,
}

/// How dnsmasq is to run, and what the operator should be told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Full DHCP or proxy.
    pub mode: Mode,
    /// Something that is legal but may not be meant.
    pub warning: Option<Warning>,
}

/// A legal wish that does not fit what was seen on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A range was asked for, and these servers answer there too.
    SecondServer(Vec<SeenServer>),
    /// Proxy mode was asked for, and nobody serves addresses yet.
    NobodyServes,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::SecondServer(servers) => write!(
                out,
                "another DHCP server answers here ({}): two servers of addresses confuse machines; use --proxy-dhcp to \
                 leave the addresses to it",
                List(servers)
            ),
            Warning::NobodyServes => {
                write!(out, "no DHCP server answers here: in proxy mode machines get no address until one does")
            }
        }
    }
}

/// dnsmasq is not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No range was given and no other server serves addresses; the text holds the command that would.
    #[error(
        "no DHCP server answers on {interface}, so machines there would get no address. To serve addresses from this \
         machine:\n    kiwispray serve --dnsmasq {interface} --dhcp-range {range}"
    )]
    NobodyServes {
        /// The interface that was probed.
        interface: String,
        /// A range that fits its network.
        range: DhcpRange,
    },
}

/// Chooses the mode from the operator's wish and the servers that answered [`probe`].
///
/// # Errors
/// [`Refused::NobodyServes`] when nothing was asked for and nobody serves addresses.
pub fn decide(wish: Wish, interface: &Interface, seen: &[SeenServer]) -> Result<Decision, Refused> {
    match (wish, seen) {
        (Wish::Range(range), []) => Ok(Decision { mode: Mode::Full(range), warning: None }),
        (Wish::Range(range), others) => {
            Ok(Decision { mode: Mode::Full(range), warning: Some(Warning::SecondServer(others.to_vec())) })
        }
        (Wish::Proxy, []) => Ok(Decision { mode: Mode::Proxy, warning: Some(Warning::NobodyServes) }),
        (Wish::Proxy | Wish::Unstated, [_, ..]) => Ok(Decision { mode: Mode::Proxy, warning: None }),
        (Wish::Unstated, []) => {
            Err(Refused::NobodyServes { interface: interface.name().to_owned(), range: interface.suggested_range() })
        }
    }
}

/// Servers, separated by commas.
struct List<'a>(&'a [SeenServer]);

impl fmt::Display for List<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, SeenServer { address, .. }) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(out, "{separator}{address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn interface() -> Interface {
        Interface::new("eth1", Ipv4Addr::new(192, 168, 42, 1), 24).unwrap()
    }

    fn other() -> SeenServer {
        SeenServer { address: Ipv4Addr::new(192, 168, 42, 9), offered: Ipv4Addr::new(192, 168, 42, 77) }
    }

    fn range() -> DhcpRange {
        "192.168.42.100,192.168.42.200".parse().unwrap()
    }

    #[test]
    fn without_a_range_another_server_means_proxy() {
        let decision = decide(Wish::Unstated, &interface(), &[other()]).unwrap();
        assert_eq!(decision, Decision { mode: Mode::Proxy, warning: None });
    }

    #[test]
    fn without_a_range_and_without_a_server_the_refusal_names_the_command() {
        let refused = decide(Wish::Unstated, &interface(), &[]).unwrap_err();
        insta::assert_snapshot!(refused, @"
        no DHCP server answers on eth1, so machines there would get no address. To serve addresses from this machine:
            kiwispray serve --dnsmasq eth1 --dhcp-range 192.168.42.100,192.168.42.199
        ");
    }

    #[test]
    fn a_range_is_asking_so_a_second_server_only_warns() {
        let decision = decide(Wish::Range(range()), &interface(), &[other()]).unwrap();
        assert_eq!(decision.mode, Mode::Full(range()));
        insta::assert_snapshot!(decision.warning.unwrap(), @"another DHCP server answers here (192.168.42.9): two servers of addresses confuse machines; use --proxy-dhcp to leave the addresses to it");
    }

    #[test]
    fn what_fits_the_network_is_not_warned_about() {
        assert_eq!(decide(Wish::Range(range()), &interface(), &[]).unwrap().warning, None);
        assert_eq!(decide(Wish::Proxy, &interface(), &[other()]).unwrap().warning, None);
        assert_eq!(decide(Wish::Proxy, &interface(), &[]).unwrap().warning, Some(Warning::NobodyServes));
    }
}
