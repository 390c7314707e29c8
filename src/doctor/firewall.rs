//! Hints about the firewall. Its rules are a language of their own, so this never fails: it says where to look.

use std::process::{Command, Stdio};

use super::Finding;

const CHECK: &str = "firewall";

/// What one of the tools said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// There is no such tool.
    NoTool,
    /// It refused.
    NotAllowed,
    /// The rules as text.
    Text(String),
}

pub(super) struct Facts {
    pub(super) nft: Rules,
    pub(super) iptables: Rules,
}

pub(super) fn look() -> Facts {
    Facts { nft: rules("nft", &["list", "ruleset"]), iptables: rules("iptables-save", &[]) }
}

fn rules(tool: &str, arguments: &[&str]) -> Rules {
    match Command::new(tool).args(arguments).env("PATH", super::PATH).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Rules::Text(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(_) => Rules::NotAllowed,
        Err(_) => Rules::NoTool,
    }
}

pub(super) fn judge(facts: &Facts, listen_port: u16, runs_dnsmasq: bool) -> Vec<Finding> {
    let mut wanted = vec![listen_port];
    if runs_dnsmasq {
        wanted.extend([67, 69, 4011]);
    }
    let told = [("nftables", &facts.nft, drops_nft as fn(&str) -> bool), ("iptables", &facts.iptables, drops_iptables)];
    let mut findings = Vec::new();
    for (name, rules, drops) in told {
        findings.push(match rules {
            Rules::NoTool => continue,
            Rules::NotAllowed => {
                Finding::warn(CHECK, name, "its rules cannot be read by this user", "run `kiwispray doctor` as root")
            }
            Rules::Text(text) if !drops(text) => Finding::ok(CHECK, name, "drops nothing that comes in"),
            Rules::Text(text) => {
                let closed: Vec<u16> = wanted.iter().copied().filter(|port| !names(text, *port)).collect();
                if closed.is_empty() {
                    Finding::ok(CHECK, name, "drops what comes in, and has rules for the ports of machines")
                } else {
                    closed_ports(name, &closed, listen_port)
                }
            }
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "rules", "neither nft nor iptables is installed"));
    }
    findings
}

fn closed_ports(name: &str, closed: &[u16], listen_port: u16) -> Finding {
    let port = |port: &u16| format!("{port}/{}", if *port == listen_port { "tcp" } else { "udp" });
    let ports: Vec<String> = closed.iter().map(port).collect();
    let add: Vec<String> = ports.iter().map(|port| format!("--add-port={port}")).collect();
    Finding::warn(
        CHECK,
        name,
        format!("drops what comes in and names no rule for {}", ports.join(", ")),
        format!(
            "if machines get no answer, open them: `firewall-cmd --permanent {} && firewall-cmd --reload`, or a rule in \
             your own firewall",
            add.join(" ")
        ),
    )
}

/// Whether a chain of nftables that sees what comes in drops by its policy, or rejects at its end.
fn drops_nft(text: &str) -> bool {
    text.split("chain ").any(|chain| {
        let sees_input = chain.contains("hook input");
        let refuses = chain.lines().map(str::trim).any(|line| line == "drop" || line.starts_with("reject"));
        sees_input && (chain.contains("policy drop") || refuses)
    })
}

fn drops_iptables(text: &str) -> bool {
    let is_last_rule = |line: &str| line.starts_with("-A INPUT -j DROP") || line.starts_with("-A INPUT -j REJECT");
    text.lines().any(|line| line.starts_with(":INPUT DROP") || is_last_rule(line))
}

/// Whether the rules name a port, as a number of its own.
fn names(text: &str, port: u16) -> bool {
    let port = port.to_string();
    let service = match port.as_str() {
        "67" => "bootps",
        "69" => "tftp",
        _ => "",
    };
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| word == port || (!service.is_empty() && word == service))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const CLOSED: &str = "table inet filter {\n chain input {\n  type filter hook input priority filter; policy drop;\n  tcp dport 22 accept\n }\n}\n";

    fn nft(text: &str) -> Facts {
        Facts { nft: Rules::Text(text.to_owned()), iptables: Rules::NoTool }
    }

    #[test]
    fn a_firewall_that_drops_warns_until_it_names_the_ports() {
        let finding = |text: &str| judge(&nft(text), 5000, true).remove(0);
        assert_eq!(finding("").verdict, Verdict::Ok);
        let closed = finding(CLOSED);
        assert_eq!(closed.verdict, Verdict::Warn);
        assert_eq!(closed.said, "drops what comes in and names no rule for 5000/tcp, 67/udp, 69/udp, 4011/udp");
        let opened = CLOSED.replace("dport 22", "dport { 22, 5000, 67, tftp, 4011 }");
        assert_eq!(finding(&opened).verdict, Verdict::Ok);
        let forwards = CLOSED.replace("hook input", "hook forward");
        assert_eq!(finding(&forwards).verdict, Verdict::Ok);
    }

    #[test]
    fn iptables_is_read_too_and_what_may_not_be_read_is_said() {
        let text = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 15000 -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n";
        let facts = Facts { nft: Rules::NotAllowed, iptables: Rules::Text(text.to_owned()) };
        let findings = judge(&facts, 5000, false);
        assert_eq!(findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Verdict::Warn, Verdict::Warn]);
        assert_eq!(findings[1].said, "drops what comes in and names no rule for 5000/tcp");
    }
}
