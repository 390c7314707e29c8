//! `image-select` has no counterpart but the machines themselves.

use serde_json::json;

use crate::peer::{self, wait_for};
use crate::support::{Machine, Server, Site};

fn server() -> Server {
    let site = Site::new().kiwi("image1").linux("memtest", "writes = \"nothing\"");
    peer::install(&site, "image-select");
    site.config(
        r#"
        [limits]
        new_hosts_per_minute = 0
        [[plugin]]
        name = "image-select"
        component = "plugins/image-select/image-select.wasm"
        [plugin.config]
        rules = [
          { name = "lab", when = { product = "KVM*" }, give = ["new"], set = { lab = true } },
          { name = "tested", when = { manufacturer = "exam*", "metadata.role" = "web" }, give = ["memtest", "image1"] },
          { name = "r750", when = { product = "R750", mac = "52-54-00" }, give = ["image1"] },
        ]
        [plugin.grant]
        hosts = ["read", "states", "metadata"]
        "#,
    )
    .serve()
}

#[test]
fn a_machine_nobody_knew_installs_by_its_rule_and_others_wait() {
    let server = server();
    let machine = Machine::new(1).but("product", "R750");
    peer::boots(&machine, &server).install(&server);
    machine.boots_its_disk(&server);
    let lab = Machine::new(2).but("product", "KVM guest").boot(&server).host.unwrap();
    assert_eq!((server.states(lab).as_str(), &server.host(lab)["metadata"]), ("new", &json!({"lab": true})));
    let other = Machine::new(3).boot(&server).host.unwrap();
    assert_eq!(server.states(other), "new");
}

#[test]
fn a_machine_that_a_person_puts_back_to_wait_before_it_installed_waits() {
    let server = server();
    let machine = Machine::new(1).but("product", "R750").boot(&server).host.unwrap();
    assert_eq!(server.states(machine), "image1");
    server.cli(&["host", "set", &machine.to_string(), "--state", "new"]).done();
    server.cli(&["host", "set", &machine.to_string(), "-m", r#"{"rack":"r7"}"#]).done();
    server.cli(&["plugin", "run", "image-select", "look"]).done();
    let other = Machine::new(2).boot(&server).host.unwrap();
    server.cli(&["host", "set", &other.to_string(), "-m", r#"{"role":"web"}"#]).done();
    wait_for("the other host's states", || (server.states(other) != "new").then_some(()));
    assert_eq!(server.states(machine), "new");
}

#[test]
fn a_waiting_host_gets_the_states_of_a_rule_that_comes_to_fit_and_only_once() {
    let server = server();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap().to_string();
    let number = id.parse().unwrap();
    server.cli(&["host", "set", &id, "-m", r#"{"role":"web"}"#]).done();
    wait_for("the rule's states", || (server.states(number) == "memtest,image1").then_some(()));
    peer::boots(&machine, &server).install(&server);
    peer::boots(&machine, &server).install(&server);
    machine.boots_its_disk(&server);

    // Put back to wait: it waits, whatever changes about it.
    server.cli(&["host", "set", &id, "--state", "new", "--reinstall", "--yes"]).done();
    server.cli(&["host", "set", &id, "-m", r#"{"rack":"r7"}"#]).done();
    let second = Machine::new(2);
    let other = second.boot(&server).host.unwrap();
    server.cli(&["host", "set", &other.to_string(), "-m", r#"{"role":"web"}"#]).done();
    wait_for("the other host's states", || (server.states(other) != "new").then_some(()));
    assert_eq!(server.states(number), "new");
}
