//! Looks for other DHCP servers: sends a DHCPDISCOVER (RFC 2131) and collects who makes an offer.
//!
//! An offer binds nobody: it is never requested, and the server forgets it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::interface::Interface;

/// How long answers are waited for: a server may first ping the address that it offers, which takes some 3 s.
pub const PROBE_TIME: Duration = Duration::from_secs(4);
/// Asked twice, as one datagram may get lost.
const REPEAT_AFTER: Duration = Duration::from_millis(1500);
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const SERVERS_MAX: usize = 16;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const FIXED_BYTES: usize = 236;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_SERVER_ID: u8 = 54;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;

/// A DHCP server that made an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenServer {
    /// Who it says it is.
    pub address: Ipv4Addr,
    /// The address that it offered.
    pub offered: Ipv4Addr,
}

/// Why the network could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No Ethernet address, so no DHCP.
    #[error("{0} is not an Ethernet interface, so nobody boots on it")]
    NotEthernet(String),
    /// Ports below 1024 need a right.
    #[error("looking for DHCP servers needs root or CAP_NET_BIND_SERVICE (UDP port 68)")]
    NotAllowed(#[source] io::Error),
    /// Something else went wrong with the sockets.
    #[error("cannot look for DHCP servers on {interface}")]
    Socket {
        /// The interface.
        interface: String,
        /// What went wrong.
        source: io::Error,
    },
}

/// Asks for [`PROBE_TIME`] who serves addresses on an interface. Blocks for that long.
///
/// `transaction` is any number that others are unlikely to use just then.
///
/// # Errors
/// The right to use port 68 is missing, or the interface is not usable.
pub fn probe(interface: &Interface, transaction: u32) -> Result<Vec<SeenServer>, ProbeError> {
    let socket_error = |source: io::Error| {
        if source.kind() == io::ErrorKind::PermissionDenied {
            ProbeError::NotAllowed(source)
        } else {
            ProbeError::Socket { interface: interface.name().to_owned(), source }
        }
    };
    let not_ethernet = || ProbeError::NotEthernet(interface.name().to_owned());
    let hardware = interface.hardware_address().ok_or_else(not_ethernet)?;
    // Two sockets: bound to the interface's address a broadcast leaves by that interface, but only an unbound socket
    // hears the broadcast that answers.
    let out = udp_socket(interface.address()).map_err(socket_error)?;
    let back = udp_socket(Ipv4Addr::UNSPECIFIED).map_err(socket_error)?;
    ask(&out, &back, &discover(transaction, hardware), transaction).map_err(socket_error)
}

fn udp_socket(address: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // A DHCP client of this machine may hold the port; broadcasts reach both.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_broadcast(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(address, CLIENT_PORT))?;
    Ok(UdpSocket::from(socket))
}

fn ask(out: &UdpSocket, back: &UdpSocket, question: &[u8], transaction: u32) -> io::Result<Vec<SeenServer>> {
    let begin = Instant::now();
    let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
    let mut seen: Vec<SeenServer> = Vec::new();
    let mut asked = 0_u32;
    while begin.elapsed() < PROBE_TIME && seen.len() < SERVERS_MAX {
        if asked < 2 && begin.elapsed() >= REPEAT_AFTER * asked {
            out.send_to(question, everyone)?;
            asked += 1;
        }
        back.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut answer = [0_u8; 1500];
        let length = match back.recv(&mut answer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(server) = answer.get(..length).and_then(|answer| offer(answer, transaction))
            && !seen.iter().any(|known| known.address == server.address)
        {
            seen.push(server);
        }
    }
    Ok(seen)
}

/// A DHCPDISCOVER that asks for a broadcast answer.
fn discover(transaction: u32, hardware: [u8; 6]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.extend(transaction.to_be_bytes());
    message.extend([0, 0, 0x80, 0]); // no time passed; answer by broadcast
    message.extend([0; 16]); // no addresses yet
    message.extend(hardware);
    message.resize(FIXED_BYTES, 0);
    message.extend(MAGIC);
    message.extend([OPTION_MESSAGE_TYPE, 1, DISCOVER]);
    message.extend([55, 3, 1, 3, OPTION_SERVER_ID]); // the parameters that an ordinary client would like
    message.push(255);
    message.resize(300, 0); // the smallest message of BOOTP, below which relays may drop it
    message
}

/// The offer in a datagram, if it is one and answers `transaction`.
fn offer(message: &[u8], transaction: u32) -> Option<SeenServer> {
    let word = |at: usize| <[u8; 4]>::try_from(message.get(at..at + 4)?).ok();
    if message.first() != Some(&2) || word(4)? != transaction.to_be_bytes() || word(FIXED_BYTES)? != MAGIC {
        return None;
    }
    let offered = Ipv4Addr::from(word(16)?);
    let next_server = Ipv4Addr::from(word(20)?);
    let mut options = message.get(FIXED_BYTES + MAGIC.len()..)?;
    let (mut is_offer, mut address) = (false, next_server);
    loop {
        match options {
            [] | [255, ..] => break,
            [0, rest @ ..] => options = rest,
            [code, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                match (*code, value) {
                    (OPTION_MESSAGE_TYPE, [OFFER]) => is_offer = true,
                    (OPTION_SERVER_ID, &[a, b, c, d]) => address = Ipv4Addr::new(a, b, c, d),
                    _ => {}
                }
                options = rest;
            }
            [_] => return None,
        }
    }
    // A proxy answers too, but offers no address.
    (is_offer && !offered.is_unspecified()).then_some(SeenServer { address, offered })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offer that a server would send back.
    fn answer(transaction: u32, message_type: u8, offered: [u8; 4]) -> Vec<u8> {
        let mut message = vec![2, 1, 6, 0];
        message.extend(transaction.to_be_bytes());
        message.resize(16, 0);
        message.extend(offered);
        message.resize(FIXED_BYTES, 0);
        message.extend(MAGIC);
        message.extend([0, OPTION_MESSAGE_TYPE, 1, message_type, OPTION_SERVER_ID, 4, 10, 0, 0, 1, 255]);
        message
    }

    #[test]
    fn an_offer_names_server_and_address() {
        let seen = offer(&answer(7, OFFER, [10, 0, 0, 50]), 7).unwrap();
        assert_eq!(seen, SeenServer { address: Ipv4Addr::new(10, 0, 0, 1), offered: Ipv4Addr::new(10, 0, 0, 50) });
    }

    #[test]
    fn other_transactions_other_messages_and_proxies_are_no_offers() {
        assert_eq!(offer(&answer(8, OFFER, [10, 0, 0, 50]), 7), None);
        assert_eq!(offer(&answer(7, 5, [10, 0, 0, 50]), 7), None);
        assert_eq!(offer(&answer(7, OFFER, [0, 0, 0, 0]), 7), None);
        assert_eq!(offer(&discover(7, [2; 6]), 7), None);
    }

    #[test]
    fn truncated_answers_are_no_offers_and_no_panics() {
        let whole = answer(7, OFFER, [10, 0, 0, 50]);
        for length in 0..whole.len() - 8 {
            assert_eq!(offer(whole.get(..length).unwrap(), 7), None, "{length} bytes");
        }
    }

    #[test]
    fn discover_has_the_shape_of_the_protocol() {
        let message = discover(0x0102_0304, [2, 0, 0, 0, 0, 9]);
        assert_eq!(message.len(), 300);
        assert_eq!(message[4..8], [1, 2, 3, 4]);
        assert_eq!(message[28..34], [2, 0, 0, 0, 0, 9]);
        assert_eq!(message[236..243], [99, 130, 83, 99, 53, 1, 1]);
    }
}
