//! The interface that machines boot on: there, connected, and with an address that reaches this server.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use super::Finding;
use crate::dnsmasq::Interface;
use crate::render::BaseUrl;

const CHECK: &str = "network";

pub(super) struct Facts {
    pub(super) name: String,
    /// Or why it cannot be used.
    pub(super) interface: Result<Interface, String>,
    /// `up`, `down`, `unknown` (loopback, some virtual ones), as the kernel says.
    pub(super) state: Option<String>,
}

pub(super) fn look(name: &str) -> Facts {
    let interface = Interface::find(name).map_err(|error| error.to_string());
    // The name was checked to be one, if there is an interface.
    let state = interface.as_ref().ok().and_then(|interface| state(interface.name()));
    Facts { name: name.to_owned(), interface, state }
}

/// Asks `ip`, as /sys shows the network of whoever mounted it, which in a container is another one.
fn state(name: &str) -> Option<String> {
    let answer =
        Command::new("ip").args(["-json", "link", "show", "dev", name]).env("PATH", super::PATH).output().ok()?;
    state_in(&answer.stdout)
}

fn state_in(json: &[u8]) -> Option<String> {
    let links: serde_json::Value = serde_json::from_slice(json).ok()?;
    Some(links.get(0)?.get("operstate")?.as_str()?.to_lowercase())
}

pub(super) fn judge(facts: &Facts, listen: SocketAddr, public_url: Option<&BaseUrl>) -> Vec<Finding> {
    let interface = match &facts.interface {
        Ok(interface) => interface,
        Err(why) => {
            let remedy = "name the interface of the boot network (`ip -br address` lists them), and give it an address";
            return vec![Finding::fail(CHECK, &facts.name, why, remedy)];
        }
    };
    let address = interface.address();
    let mut findings = vec![match facts.state.as_deref() {
        Some("down" | "lowerlayerdown" | "notpresent" | "dormant") => Finding::fail(
            CHECK,
            &facts.name,
            format!("has the address {address} and no link"),
            format!("check cable and switch, and `ip link set {} up`", facts.name),
        ),
        Some(_) | None => Finding::ok(CHECK, &facts.name, format!("is up, with the address {address}")),
    }];
    if !listen.ip().is_unspecified() && listen.ip() != std::net::IpAddr::V4(address) {
        findings.push(Finding::fail(
            CHECK,
            format!("--listen {listen}"),
            format!("is not the address of {}, so machines there are not answered", facts.name),
            format!("listen on {address}:{} or 0.0.0.0:{}", listen.port(), listen.port()),
        ));
    }
    if let Some(host) = public_url.and_then(numeric_host)
        && host != address
    {
        findings.push(if interface.reaches(host) {
            Finding::fail(
                CHECK,
                format!("--public-url {host}"),
                format!("is an address of the network of {} that this server does not have", facts.name),
                format!("name {address}, or leave --public-url out"),
            )
        } else {
            Finding::warn(
                CHECK,
                format!("--public-url {host}"),
                format!("lies outside the network of {}", facts.name),
                "machines need a router to reach it; leave --public-url out unless they have one",
            )
        });
    }
    findings
}

fn numeric_host(url: &BaseUrl) -> Option<Ipv4Addr> {
    match url::Url::parse(&url.to_string()).ok()?.host()? {
        url::Host::Ipv4(address) => Some(address),
        url::Host::Ipv6(_) | url::Host::Domain(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn facts(state: &str) -> Facts {
        let interface = Interface::new("br0", Ipv4Addr::new(192, 168, 42, 1), 24).unwrap();
        Facts { name: "br0".to_owned(), interface: Ok(interface), state: Some(state.to_owned()) }
    }

    fn verdicts(facts: &Facts, listen: &str, url: Option<&str>) -> Vec<Verdict> {
        let url = url.map(|url| url.parse::<BaseUrl>().unwrap());
        judge(facts, listen.parse().unwrap(), url.as_ref()).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn the_state_is_read_from_what_ip_prints() {
        assert_eq!(state_in(br#"[{"ifname":"br0","operstate":"LOWERLAYERDOWN"}]"#).as_deref(), Some("lowerlayerdown"));
        assert_eq!(state_in(b"nonsense"), None);
    }

    #[test]
    fn an_interface_must_be_there_and_connected() {
        assert_eq!(verdicts(&facts("up"), "0.0.0.0:5000", None), [Verdict::Ok]);
        assert_eq!(verdicts(&facts("unknown"), "0.0.0.0:5000", None), [Verdict::Ok]);
        assert_eq!(verdicts(&facts("down"), "0.0.0.0:5000", None), [Verdict::Fail]);
        let missing = Facts { interface: Err("no network interface br0".to_owned()), ..facts("up") };
        assert_eq!(verdicts(&missing, "0.0.0.0:5000", None), [Verdict::Fail]);
    }

    #[test]
    fn addresses_that_machines_cannot_reach_are_found() {
        let up = facts("up");
        assert_eq!(verdicts(&up, "192.168.42.1:5000", Some("http://192.168.42.1:5000")), [Verdict::Ok]);
        assert_eq!(verdicts(&up, "127.0.0.1:5000", None), [Verdict::Ok, Verdict::Fail]);
        assert_eq!(verdicts(&up, "0.0.0.0:5000", Some("http://192.168.42.9:5000")), [Verdict::Ok, Verdict::Fail]);
        assert_eq!(verdicts(&up, "0.0.0.0:5000", Some("http://10.0.0.1:5000")), [Verdict::Ok, Verdict::Warn]);
        assert_eq!(verdicts(&up, "0.0.0.0:5000", Some("http://deploy.example:5000")), [Verdict::Ok]);
    }
}
