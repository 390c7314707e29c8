//! Other DHCP servers on the boot network.

use super::Finding;
use crate::dnsmasq::{Interface, SeenServer, Wish, decide, probe};

const CHECK: &str = "dhcp";

/// Asks the network for some seconds. The error is a sentence.
pub(super) fn look(interface: &Interface, transaction: u32) -> Result<Vec<SeenServer>, String> {
    probe(interface, transaction).map_err(|error| error.to_string())
}

pub(super) fn judge(seen: &Result<Vec<SeenServer>, String>, wish: Wish, interface: &Interface) -> Vec<Finding> {
    let name = interface.name();
    let seen = match seen {
        Ok(seen) => seen,
        Err(why) => return vec![Finding::warn(CHECK, name, why, "run `kiwispray doctor` as root")],
    };
    // A server that runs already has a dnsmasq of its own, which is no other server.
    let (own, seen): (Vec<SeenServer>, Vec<SeenServer>) =
        seen.iter().partition(|server| server.address == interface.address());
    if seen.is_empty() && !own.is_empty() {
        return vec![Finding::ok(CHECK, name, "this machine answers, and no other")];
    }
    let servers: Vec<String> = seen.iter().map(|server| server.address.to_string()).collect();
    let answers = match servers.as_slice() {
        [] => "no DHCP server answers".to_owned(),
        [one] => format!("the DHCP server {one} answers"),
        many => format!("{} DHCP servers answer: {}", many.len(), many.join(", ")),
    };
    if let [_, _, ..] = seen.as_slice() {
        let remedy = "leave one of them: machines take the address of whoever is faster";
        return vec![Finding::warn(CHECK, name, answers, remedy)];
    }
    vec![match decide(wish, interface, &seen) {
        Ok(decision) => match decision.warning {
            None => Finding::ok(CHECK, name, answers),
            Some(warning) => Finding::warn(CHECK, name, answers, warning.to_string()),
        },
        Err(refused) => Finding::fail(CHECK, name, answers, refused.to_string()),
    }]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_answers_must_fit_what_is_wanted() {
        let interface = Interface::new("br0", Ipv4Addr::new(192, 168, 42, 1), 24).unwrap();
        let server =
            |last| SeenServer { address: Ipv4Addr::new(192, 168, 42, last), offered: Ipv4Addr::new(192, 168, 42, 77) };
        let range = || Wish::Range("192.168.42.100,192.168.42.200".parse().unwrap());
        let verdict = |seen: &[SeenServer], wish| judge(&Ok(seen.to_vec()), wish, &interface)[0].verdict;
        assert_eq!(verdict(&[], range()), Verdict::Ok);
        assert_eq!(verdict(&[server(9)], Wish::Unstated), Verdict::Ok);
        assert_eq!(verdict(&[server(9)], range()), Verdict::Warn);
        assert_eq!(verdict(&[], Wish::Proxy), Verdict::Warn);
        assert_eq!(verdict(&[server(8), server(9)], Wish::Unstated), Verdict::Warn);
        assert_eq!(verdict(&[server(1)], range()), Verdict::Ok, "its own dnsmasq");
        assert_eq!(verdict(&[server(1), server(9)], range()), Verdict::Warn);
        let refused = judge(&Ok(Vec::new()), Wish::Unstated, &interface).remove(0);
        assert_eq!(refused.verdict, Verdict::Fail);
        assert!(refused.remedy.unwrap().contains("--dhcp-range 192.168.42.100,192.168.42.199"));
    }
}
