//! `webhook` against a receiver that verifies, refuses and remembers, and that shares no line with it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::peer::{self, Process, checkout, free_port, wait_for};
use crate::support::{Machine, Server, Site};

const SECRET: &str = "a secret that only the operator and the receiver know";

/// A server whose events go to a receiver, which is not there yet.
fn server(port: u16, path: &str, secret: &str, kinds: &str) -> Server {
    let site = Site::new().kiwi("image1");
    peer::install(&site, "webhook");
    fs::write(site.path("webhook.secret"), secret).unwrap();
    fs::set_permissions(site.path("webhook.secret"), PermissionsExt::from_mode(0o600)).unwrap();
    let secret = site.path("webhook.secret").display().to_string();
    let toml = format!(
        r#"
        [limits]
        new_hosts_per_minute = 0
        [[plugin]]
        name = "webhook"
        component = "plugins/webhook/webhook.wasm"
        [plugin.config]
        url = "http://127.0.0.1:{port}{path}"
        secret = "hook"
        kinds = {kinds}
        [plugin.grant.signing]
        hook = "${{file:{secret}}}"
        [[plugin.grant.http]]
        url = "http://127.0.0.1:{port}/"
        methods = ["POST"]
        "#
    );
    site.config(&toml).serve()
}

struct Receiver {
    _process: Process,
    file: std::path::PathBuf,
}

impl Receiver {
    fn start(server: &Server, port: u16) -> Self {
        let file = server.site.path("received.jsonl");
        let mut command = Command::new("python3");
        command.arg(checkout("tests/peers/webhook_receiver.py")).arg(port.to_string()).arg(SECRET).arg(&file);
        let process = Process::start(&mut command, &server.site.path("receiver.log"));
        wait_for("the receiver to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { _process: process, file }
    }

    /// Everything that came, in order.
    fn received(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it took: sequence number and kind.
    fn taken(&self) -> Vec<(u64, String)> {
        let taken = self.received().into_iter().filter(|record| record["answer"] == 200);
        let what = |record: Value| {
            let document = &record["document"];
            (document["seq"].as_u64().unwrap(), document["kind"].as_str().unwrap().to_owned())
        };
        taken.map(what).collect()
    }
}

#[test]
fn every_event_arrives_signed_and_in_order_though_the_receiver_was_away_and_answered_500() {
    let port = free_port();
    let mut server = server(port, "/hook", SECRET, r#"["*"]"#);
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    server.deploy("image1", id);
    // Committed, and delivered by nobody: it must not be lost with the server either.
    server.crash_and_restart();
    let receiver = Receiver::start(&server, port);
    peer::boots(&machine, &server).install(&server);

    let committed: Vec<(u64, String)> = (1..).zip(server.events(id)).collect();
    assert!(committed.iter().any(|(_, kind)| kind == "finished"));
    wait_for("all events", || (receiver.taken().len() >= committed.len()).then_some(()));
    let received = receiver.received();
    let answers: Vec<u64> = received.iter().map(|record| record["answer"].as_u64().unwrap()).collect();
    assert_eq!(answers[..4], [500, 500, 429, 200], "{received:#?}");
    let first = |key: &str| received[..4].iter().map(|record| record[key].clone()).collect::<Vec<_>>();
    assert!(first("delivery").windows(2).all(|pair| pair[0] == pair[1]), "a retry has the id of the first try");
    assert!(received[3]["at"].as_f64().unwrap() - received[2]["at"].as_f64().unwrap() >= 1.0, "Retry-After is kept");
    let mut taken = receiver.taken();
    // At least once: a repeat is allowed, a gap or another order is not.
    taken.dedup();
    assert_eq!(taken, committed);
    let last = received.last().unwrap();
    assert_eq!((&last["document"]["host"]["id"], &last["document"]["host"]["serial"]), (&id.into(), &"SN00001".into()));
}

#[test]
fn only_the_kinds_that_are_wanted_arrive() {
    let port = free_port();
    let server = server(port, "/hook", SECRET, r#"["finished"]"#);
    let receiver = Receiver::start(&server, port);
    for number in 1..=3 {
        let machine = Machine::new(number);
        let id = machine.boot(&server).host.unwrap();
        server.deploy("image1", id);
        peer::boots(&machine, &server).install(&server);
    }
    wait_for("three events", || (receiver.taken().len() >= 3).then_some(()));
    assert!(receiver.taken().iter().all(|(_, kind)| kind == "finished"));
}

#[test]
fn what_the_receiver_refuses_is_a_dead_letter_and_stops_nothing() {
    let port = free_port();
    let server = server(port, "/gone", SECRET, r#"["registered"]"#);
    let receiver = Receiver::start(&server, port);
    let id = Machine::new(1).boot(&server).host.unwrap();
    let said =
        wait_for("a dead letter", || server.log().lines().find(|line| line.contains("dead letter")).map(str::to_owned));
    assert!(said.contains("the receiver answers 410"), "{said}");
    assert_eq!(receiver.received()[0]["document"]["host"]["id"], id);
    // The server goes on.
    assert!(Machine::new(2).boot(&server).host.is_some());
    wait_for("the next event", || (receiver.received().len() >= 2).then_some(()));
}

#[test]
fn another_secret_is_seen_by_the_receiver() {
    let port = free_port();
    let server = server(port, "/hook", "a guess", r#"["registered"]"#);
    let receiver = Receiver::start(&server, port);
    Machine::new(1).boot(&server);
    let received = wait_for("a delivery", || receiver.received().first().cloned());
    assert_eq!(received["answer"], 401);
}
