//! The ports that machines need, and which program holds them.

use std::collections::BTreeMap;
use std::fs;

use super::Finding;

const CHECK: &str = "ports";

/// DHCP, TFTP, and PXE's own port.
const DNSMASQ_PORTS: [(u16, &str); 3] = [(67, "DHCP"), (69, "TFTP"), (4011, "PXE")];

/// The state of a TCP socket that listens, as the kernel prints it.
const LISTENS: &str = "0A";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// A socket that waits for strangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// The program's name; none if this user may not see it.
    pub(super) program: Option<String>,
    pub(super) pid: Option<u32>,
}

impl Held {
    fn by(&self) -> String {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => format!("held by {program} (process {pid})"),
            _ => "held by a program of another user (run as root to see which)".to_owned(),
        }
    }

    fn is(&self, program: &str) -> bool {
        self.program.as_deref() == Some(program)
    }
}

/// Who listens on a TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    /// The program's name; none if this user may not see it.
    pub program: Option<String>,
    /// As in a sentence: `held by python3 (process 42)`.
    pub by: String,
}

/// Who listens on a TCP port at this moment, if anybody does. Blocks while it reads `/proc`.
pub fn port_holder(port: u16) -> Option<PortHolder> {
    let held = look().into_iter().find(|held| held.protocol == Protocol::Tcp && held.port == port)?;
    Some(PortHolder { by: held.by(), program: held.program })
}

pub(super) fn look() -> Vec<Held> {
    let tables = [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];
    let sockets: Vec<(Protocol, u16, u64)> = tables
        .into_iter()
        .flat_map(|(name, protocol)| {
            let text = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
            parse(&text, protocol)
        })
        .collect();
    let owners = owners();
    let held = |(protocol, port, inode): (Protocol, u16, u64)| {
        let owner = owners.get(&inode);
        Held { protocol, port, program: owner.map(|(_, name)| name.clone()), pid: owner.map(|(pid, _)| *pid) }
    };
    sockets.into_iter().map(held).collect()
}

/// Protocol, port and inode of every socket in a table of `/proc/net` that is bound and connected to nobody.
fn parse(text: &str, protocol: Protocol) -> Vec<(Protocol, u16, u64)> {
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let waits = protocol == Protocol::Udp || *state == LISTENS;
        Some((protocol, port, inode.parse().ok()?)).filter(|_| waits)
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// Process and program by the inode of each socket that this user may see.
fn owners() -> BTreeMap<u64, (u32, String)> {
    let mut owners = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default().trim().to_owned();
        for descriptor in descriptors.flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                owners.insert(inode, (pid, program.clone()));
            }
        }
    }
    owners
}

pub(super) fn judge(held: &[Held], listen_port: u16, runs_dnsmasq: bool) -> Vec<Finding> {
    let on = |protocol, port| held.iter().find(|held| held.protocol == protocol && held.port == port);
    let server = on(Protocol::Tcp, listen_port);
    let is_running = server.is_some_and(|held| held.is("kiwispray"));
    let subject = format!("TCP {listen_port}");
    let mut findings = vec![match server {
        None => Finding::ok(CHECK, subject, "free for machines"),
        Some(held) if is_running => Finding::ok(CHECK, subject, format!("{}: a server runs", held.by())),
        Some(held) => Finding::fail(
            CHECK,
            subject,
            held.by(),
            "end that program, or choose another address by --listen (and tell dnsmasq by --public-url)",
        ),
    }];
    for (port, what) in DNSMASQ_PORTS {
        let subject = format!("UDP {port} ({what})");
        findings.push(match on(Protocol::Udp, port) {
            None if runs_dnsmasq => Finding::ok(CHECK, subject, "free for dnsmasq"),
            None => Finding::ok(CHECK, subject, "free: no dnsmasq runs on this machine"),
            // Its own child, or the one of a running server.
            Some(held) if held.is("dnsmasq") && (is_running || !runs_dnsmasq) => Finding::ok(CHECK, subject, held.by()),
            Some(held) if held.is("dnsmasq") => Finding::warn(
                CHECK,
                subject,
                format!("{}, which may serve the same network", held.by()),
                "end it (`systemctl disable --now dnsmasq`), or serve without --dnsmasq and put the output of \
                 `kiwispray dnsmasq config` into /etc/dnsmasq.d",
            ),
            Some(held) if runs_dnsmasq => Finding::fail(
                CHECK,
                subject,
                held.by(),
                "end that program, or run dnsmasq on another machine: it cannot start beside it",
            ),
            Some(held) => Finding::ok(CHECK, subject, held.by()),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1388 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
";

    fn held(protocol: Protocol, port: u16, program: &str) -> Held {
        Held { protocol, port, program: Some(program.to_owned()), pid: Some(42) }
    }

    #[test]
    fn only_sockets_that_listen_are_read_from_the_kernels_table() {
        assert_eq!(parse(TCP, Protocol::Tcp), [(Protocol::Tcp, 5000, 4711)]);
        assert_eq!(parse(TCP, Protocol::Udp).len(), 2);
        assert_eq!(parse("nonsense\nx y\n", Protocol::Tcp), []);
    }

    #[test]
    fn a_port_in_use_fails_unless_kiwispray_holds_it() {
        let verdict = |held: &[Held]| judge(held, 5000, false)[0].verdict;
        assert_eq!(verdict(&[]), Verdict::Ok);
        assert_eq!(verdict(&[held(Protocol::Tcp, 5000, "kiwispray")]), Verdict::Ok);
        assert_eq!(verdict(&[held(Protocol::Tcp, 5000, "python3")]), Verdict::Fail);
        assert_eq!(verdict(&[held(Protocol::Udp, 5000, "python3")]), Verdict::Ok);
        let finding = &judge(&[held(Protocol::Tcp, 5000, "python3")], 5000, false)[0];
        assert_eq!(finding.said, "held by python3 (process 42)");
    }

    #[test]
    fn another_dhcp_program_fails_and_another_dnsmasq_warns_only_where_dnsmasq_is_to_run() {
        let verdict = |program, runs_dnsmasq| judge(&[held(Protocol::Udp, 67, program)], 5000, runs_dnsmasq)[1].verdict;
        assert_eq!(verdict("dhcpd", true), Verdict::Fail);
        assert_eq!(verdict("dnsmasq", true), Verdict::Warn);
        assert_eq!(verdict("dhcpd", false), Verdict::Ok);
        let running = [held(Protocol::Tcp, 5000, "kiwispray"), held(Protocol::Udp, 69, "dnsmasq")];
        assert!(judge(&running, 5000, true).iter().all(|finding| finding.verdict == Verdict::Ok));
    }

    #[test]
    fn a_socket_of_this_process_is_found_with_its_program() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = look().into_iter().find(|held| held.protocol == Protocol::Udp && held.port == port).unwrap();
        assert_eq!(found.pid, Some(std::process::id()));
    }
}
