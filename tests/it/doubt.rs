//! Recognition over HTTP: only unanimous evidence installs (P3), and each decision is explained.

use crate::support::machine::uuid;
use crate::support::{Machine, Server, Site};

const DOUBT: &str = "this machine cannot be told from others for certain";

/// Two known hosts, the first with an order.
fn two_hosts() -> (Server, Machine, Machine) {
    let server = Site::new().kiwi("image1").serve();
    let (first, second) = (Machine::new(1), Machine::new(2));
    assert_eq!((first.boot(&server).host, second.boot(&server).host), (Some(1), Some(2)));
    server.deploy("image1", 1);
    (server, first, second)
}

fn without(machine: &Machine, names: &[&str]) -> Machine {
    let mut less = machine.clone();
    less.parameters.retain(|(name, _)| !names.contains(&name.as_str()));
    less
}

fn with_card(machine: &Machine, mac: &str) -> Machine {
    machine.clone().but("net0", mac).but("dhcp_mac", mac)
}

#[test]
fn strong_evidence_boots_whatever_else_is_junk_or_absent() {
    let (server, first, _) = two_hosts();
    let swapped = "01000000-3412-bc4a-8def-00163e000001";
    for machine in [
        first.clone(),
        first.clone().but("serial", "  sn00001 "),
        first.clone().but("uuid", swapped),
        first.clone().but("serial", "To be filled by O.E.M."),
        first.clone().but("uuid", "03000200-0400-0500-0006-000700080009"),
        without(&first, &["serial"]),
        without(&first, &["uuid"]),
        first.clone().but("net5", "52:54:00:99:99:99"),
        first.clone().but("net6", "00:00:00:00:00:00"),
    ] {
        assert_eq!(machine.boots(&server).host, Some(1), "{machine:?}");
    }
}

#[test]
fn weak_evidence_never_installs() {
    let (server, first, _) = two_hosts();
    let new_card = with_card(&first, "52:54:00:77:77:77");
    let no_dmi = without(&first, &["serial", "uuid"]);
    for machine in [&new_card, &no_dmi] {
        let boot = machine.holds(&server, DOUBT);
        assert_eq!(boot.host, None);
        machine.holds(&server, DOUBT);
    }
    assert_eq!(server.json(&["host", "list"]).as_array().unwrap().len(), 2, "no host was made of it");
    assert!(server.count(1, "doubted") >= 1);
    assert_eq!(server.count(1, "boot_offered"), 0);
}

#[test]
fn conflicting_evidence_never_installs() {
    let (server, first, second) = two_hosts();
    let stranger = "52:54:00:77:77:77";
    for machine in [
        first.clone().but("uuid", &uuid(9)),
        first.clone().but("serial", "OTHER-1"),
        first.clone().but("serial", "OTHER-1").but("uuid", &uuid(9)),
        // The card of the one, the board of the other.
        with_card(&first, &second.parameters[0].1),
        first.clone().but("net1", &second.parameters[0].1),
        with_card(&first, stranger).but("serial", "OTHER-1"),
    ] {
        machine.holds(&server, DOUBT);
    }
    assert_eq!(server.count(1, "boot_offered"), 0);
    let explained = server.cli(&["host", "explain", "1"]).done().out;
    assert!(explained.contains("host 1: serial different, uuid same"), "{explained}");
}

#[test]
fn a_shared_serial_makes_a_new_host() {
    let (server, first, _) = two_hosts();
    let twin = with_card(&first, "52:54:00:77:77:77").but("uuid", &uuid(9));
    let boot = twin.boot(&server);
    assert_eq!((boot.host, boot.outcome.as_str()), (Some(3), "hold"));
    let events = server.json(&["host", "events", "3"]);
    assert!(events[0]["text"].as_str().unwrap().contains("shared"), "{}", events[0]);
    // Both are told apart from then on.
    assert_eq!(first.boots(&server).host, Some(1));
    assert_eq!(twin.boot(&server).host, Some(3));
}

#[test]
fn a_card_that_two_machines_share_holds_until_the_site_ignores_it() {
    let mut server = Site::new().serve();
    let bmc = "52:54:00:bb:bb:bb";
    let [first, second] = [1, 2].map(|number| Machine::new(number).but("net1", bmc));
    assert_eq!(first.boot(&server).host, Some(1));
    // It differs from the first in everything else, but nobody has said yet that this card proves nothing.
    second.holds(&server, DOUBT);
    server.terminate();
    let configuration = server.site.path("kiwispray.toml");
    std::fs::write(&configuration, format!("[identity]\nignore = [\"{bmc}\"]\n")).unwrap();
    server.restart();
    assert_eq!((first.boot(&server).host, second.boot(&server).host), (Some(1), Some(2)));
}

#[test]
fn doubt_about_finished_hosts_means_their_local_disk() {
    let (server, first, second) = two_hosts();
    first.boots(&server).install(&server);
    let weak = with_card(&first, "52:54:00:77:77:77");
    weak.boots_its_disk(&server);
    first.clone().but("uuid", &uuid(9)).boots_its_disk(&server);
    let both = first.clone().but("net1", &second.parameters[0].1);
    both.holds(&server, DOUBT);
    second.installed(&server, "image1");
    both.boots_its_disk(&server);
    assert_eq!(server.states(1), "finished");
}

#[test]
fn a_machine_without_any_identity_holds() {
    let server = Site::new().serve();
    for machine in [
        Machine::with(&[]),
        Machine::with(&[("net0", ""), ("serial", ""), ("uuid", "")]),
        Machine::with(&[("serial", "Default string"), ("uuid", "00000000-0000-0000-0000-000000000000")]),
    ] {
        machine.holds(&server, "reports no usable serial number");
    }
    assert_eq!(server.json(&["host", "list"]), serde_json::json!([]));
}

#[test]
fn what_the_site_ignores_is_no_evidence() {
    let site = Site::new().config("[identity]\nignore = [\"SN00001\", \"52:54:00:bb:bb:bb\"]\n");
    let server = site.serve();
    assert_eq!(Machine::new(1).but("net1", "52:54:00:bb:bb:bb").boot(&server).host, Some(1));
    assert_eq!(Machine::new(2).but("serial", "sn00001").but("net1", "52:54:00:bb:bb:bb").boot(&server).host, Some(2));
    assert_eq!(server.host(1)["serial"], serde_json::Value::Null);
}
