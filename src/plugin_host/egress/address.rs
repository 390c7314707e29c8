//! Where a name leads, and whether a plugin may go there.
//!
//! Invariant: the address that is connected to is one that was checked here: the resolver below answers only those, and the
//! connector asks nobody else. So a name that means something else a moment later changes nothing.
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

/// Questions to the system's resolver at once. One that hangs keeps a thread for as long as the system lets it.
const LOOKUPS_MAX: usize = 16;

/// What the network around this server is: the system's, or a double.
pub(super) trait Surroundings: Send + Sync {
    /// The addresses of a name.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;

    /// Whether this is an address of this machine.
    fn is_own(&self, ip: IpAddr) -> bool;
}

/// The system's resolver and interfaces.
pub(super) struct System {
    lookups: Arc<Semaphore>,
}

impl System {
    pub(super) fn new() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Surroundings for System {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let lookups = Arc::clone(&self.lookups);
        async move {
            let place = lookups.acquire_owned().await.map_err(io::Error::other)?;
            // A task of its own: its place is taken until the system answers, even if nobody waits any more.
            let lookup = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name, 0)).await;
                drop(place);
                found.map(|found| found.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        }
        .boxed()
    }

    /// The kernel says which address it would speak from: to itself, from that very address. Nothing is sent.
    fn is_own(&self, ip: IpAddr) -> bool {
        let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let asked = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect((ip, 9))?;
            socket.local_addr()
        });
        asked.is_ok_and(|from| from.ip() == ip)
    }
}

/// Where the name of one rule may lead.
pub(super) struct Checked {
    pub(super) surroundings: Arc<dyn Surroundings>,
    /// The rule is for `localhost`.
    pub(super) localhost: bool,
}

/// A name leads to a place that no rule names.
#[derive(Debug)]
pub(super) struct Forbidden {
    name: String,
    ip: Option<IpAddr>,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(f, "{} leads to {ip}, which only a rule that names this address allows", self.name),
            None => write!(f, "{} leads nowhere", self.name),
        }
    }
}

impl std::error::Error for Forbidden {}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().trim_end_matches('.').to_owned();
        if self.localhost {
            let addresses = [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()];
            return async move { Ok(addrs(addresses.to_vec())) }.boxed();
        }
        let surroundings = Arc::clone(&self.surroundings);
        async move {
            let found = surroundings.lookup(name.clone()).await?;
            let first = found.first().copied();
            let allowed: Vec<_> = found.into_iter().filter(|ip| is_elsewhere(*ip, &*surroundings)).collect();
            if allowed.is_empty() {
                return Err(Forbidden { name, ip: first }.into());
            }
            Ok(addrs(allowed))
        }
        .boxed()
    }
}

fn addrs(ips: Vec<IpAddr>) -> Addrs {
    // The connector puts the port of the URL in.
    Box::new(ips.into_iter().map(|ip| SocketAddr::new(ip, 0)))
}

/// Whether this is another machine, as far as an address tells.
fn is_elsewhere(ip: IpAddr, surroundings: &dyn Surroundings) -> bool {
    let ip = embedded(ip);
    !is_nobodys(ip) && !ip.is_loopback() && !is_link_local(ip) && !surroundings.is_own(ip)
}

/// Whether nobody in particular has it: no rule can name it.
pub(super) fn is_nobodys(ip: IpAddr) -> bool {
    match embedded(ip) {
        // All of 0.0.0.0/8 is this host on this network.
        IpAddr::V4(ip) => ip.octets().first() == Some(&0) || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
    }
}

/// Also where clouds keep the secrets of a machine.
fn is_link_local(ip: IpAddr) -> bool {
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == METADATA,
    }
}

/// The IPv4 address inside of an IPv6 one: mapped, translated (NAT64) or tunnelled (6to4).
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into();
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => v4(g, h),
        (0x2002, _) => v4(b, c),
        // `::127.0.0.1`, long abandoned; `::` and `::1` are what they are.
        (0, 0) if [c, d, e, f] == [0; 4] && g != 0 => v4(g, h),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_elsewhere_and_this_one_is_not() {
        let system = System::new();
        for ip in ["10.1.2.3", "192.168.1.1", "203.0.113.7", "2001:db8::1", "fd12:3456::1", "::ffff:203.0.113.7"] {
            assert!(is_elsewhere(ip.parse().unwrap(), &system), "{ip}");
        }
        let here = [
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ];
        for ip in here {
            assert!(!is_elsewhere(ip.parse().unwrap(), &system), "{ip}");
        }
    }

    #[test]
    fn the_kernel_knows_its_own_addresses() {
        let system = System::new();
        assert!(system.is_own("127.0.0.1".parse().unwrap()));
        assert!(!system.is_own("203.0.113.7".parse().unwrap()));
        // The address that this machine speaks from, if it can speak to others at all.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("203.0.113.7:9").is_ok() {
            assert!(system.is_own(socket.local_addr().unwrap().ip()));
        }
    }
}
