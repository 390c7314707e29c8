//! What keeps disks alive on the second day: locks, the freeze, the limit of reinstalls, and what is left of hosts that were
//! forgotten.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Machine, Server, Site};

/// A server with image1, `live`, which writes nothing, and this many new hosts.
fn hosts(count: u32) -> Server {
    let server = Site::new().kiwi("image1").linux("live", "writes = \"nothing\"\n").serve();
    for number in 1..=count {
        assert_eq!(Machine::new(number).boot(&server).host, Some(u64::from(number)));
    }
    server
}

fn event(server: &Server, id: u64, kind: &str) -> Value {
    let events = server.json(&["host", "events", &id.to_string()]);
    events.as_array().unwrap().iter().rev().find(|event| event["kind"] == kind).unwrap().clone()
}

#[test]
fn a_locked_host_takes_no_orders_and_writes_no_disk() {
    let mut server = hosts(2);
    let (done, ordered) = (Machine::new(1), Machine::new(2));
    done.installed(&server, "image1");
    server.deploy("image1", 2);
    let told = server.cli(&["host", "lock", "1-2", "--why", "evidence"]).done();
    assert!(told.out.contains("lock: none -> by operator"), "{}", told.out);
    assert!(told.out.contains(": evidence") && told.out.contains("undo: kiwispray host unlock 2"), "{}", told.out);
    server.crash_and_restart();
    for command in [
        &["deploy", "image1", "1", "--yes", "--reinstall"][..],
        &["host", "set", "2", "--state", "live", "--yes"],
        &["host", "retry", "2", "--yes"],
        &["host", "forget", "1", "--yes"],
    ] {
        server.cli(command).refused(4, "evidence; it takes no orders until `kiwispray host unlock");
    }
    done.boots_its_disk(&server);
    ordered.holds(&server, "kiwispray host unlock 2");
    ordered.holds(&server, ": evidence");
    assert_eq!(server.count(2, "boot_offered"), 0);
    let list = server.cli(&["host", "list"]).done();
    for part in ["finished (locked)", "host 2 holds: locked by", "host 1 is locked by", "evidence"] {
        assert!(list.out.contains(part), "{part}: {}", list.out);
    }
    assert!(server.json(&["host", "plan", "2"])["text"].as_str().unwrap().contains("locked"));
    assert_eq!(server.json(&["host", "list", "--where", "locked=yes"]).as_array().unwrap().len(), 2);
    let locked = event(&server, 1, "locked");
    assert_eq!(locked["data"]["why"], "evidence");
    assert_eq!(server.host(1)["lock"]["by"], locked["actor"]);
    assert!(server.cli(&["host", "lock", "1"]).done().out.contains("already so"));

    // To unlock a host that was ordered something is to let its disk die.
    server.cli(&["host", "unlock", "2"]).refused(2, "erases /dev/sda");
    server.cli(&["host", "unlock", "1-2", "--yes"]).done();
    ordered.boots(&server).install(&server);
    server.cli(&["deploy", "image1", "1", "--yes", "--reinstall"]).done();
}

#[test]
fn a_locked_host_boots_what_writes_nothing_and_goes_on_with_what_it_was_handed() {
    let server = hosts(2);
    server.deploy("live", 1);
    server.deploy("image1", 2);
    let boot = Machine::new(2).boots(&server);
    server.cli(&["host", "lock", "1-2"]).done();
    Machine::new(1).boots(&server);
    // Handed out before: it is installed, and that is not lost.
    boot.install(&server);
    assert_eq!(server.states(2), "finished");
    server.cli(&["host", "set", "1", "--state", "finished"]).done();
    assert_eq!(server.states(1), "finished", "an order can be taken back");
}

#[test]
fn nothing_that_writes_boots_while_frozen_not_even_after_a_restart_or_a_restore() {
    let mut server = hosts(4);
    Machine::new(1).installed(&server, "image1");
    server.deploy("image1", 2);
    server.deploy("live", 3);
    server.deploy("image1", 4);
    let running = Machine::new(4).boots(&server);
    running.load(&server);
    let told = server.cli(&["freeze", "--why", "hall 2 moves"]).done();
    assert!(told.out.contains("not frozen -> frozen by operator") && told.out.contains("undo: kiwispray thaw"));

    let frozen = |server: &Server| {
        Machine::new(1).boots_its_disk(server);
        Machine::new(2).holds(server, "kiwispray thaw");
        Machine::new(2).holds(server, ": hall 2 moves");
    };
    frozen(&server);
    Machine::new(3).boots(&server);
    running.install(&server);
    assert_eq!(server.states(4), "finished", "what was handed out before goes on");
    assert_eq!(server.count(2, "boot_offered"), 0);
    assert_eq!(server.count(2, "held"), 1, "it is on the timeline, once");
    let remark = server.cli(&["deploy", "image1", "1", "--yes", "--reinstall"]).done();
    assert!(remark.err.contains("frozen by operator"), "{}", remark.err);
    server.cli(&["host", "set", "1", "--state", "finished"]).done();
    assert!(server.cli(&["host", "list"]).done().err.contains("kiwispray thaw"));
    assert!(server.json(&["host", "plan", "2"])["text"].as_str().unwrap().contains("frozen"));

    server.crash_and_restart();
    frozen(&server);
    assert!(server.log().contains(": hall 2 moves"), "{}", server.log());
    server.cli(&["backup", "frozen.backup"]).done();
    server.cli(&["fsck"]).done();
    server.terminate();
    server.restart();
    let thawed = server.cli(&["thaw"]).done();
    assert!(thawed.out.contains("undo: kiwispray freeze --why 'hall 2 moves'"), "{}", thawed.out);
    server.terminate();
    server.cli(&["restore", "frozen.backup", "--data-dir", "data", "--replace-store"]).done();
    server.restart();
    server.cli(&["release", "--all", "--yes"]).done();
    frozen(&server);
    server.cli(&["thaw"]).done();
    assert!(server.cli(&["thaw"]).done().out.contains("already so"));
    Machine::new(2).boots(&server).install(&server);
}

#[test]
fn a_hundred_machines_at_once_are_not_installed_again_beyond_the_limit() {
    let config = |limit: u32| format!("[limits]\nnew_hosts_per_minute = 0\nreinstalls_per_hour = {limit}\n");
    let mut server = Site::new().config(&config(7)).kiwi("image1").serve();
    let count = 100;
    for number in 1..=count {
        Machine::new(number).boot(&server);
    }
    let all = format!("1-{count}");
    server.cli(&["host", "finish", &all, "--yes"]).done();
    server.cli(&["deploy", "image1", &all, "--yes", "--reinstall"]).done();
    let ask = |server: &Server| -> BTreeSet<u32> {
        let asking = |number: u32| (number, Machine::new(number).boot(server));
        std::thread::scope(|scope| {
            let asked: Vec<_> = (1..=count).map(|number| scope.spawn(move || asking(number))).collect();
            let answers = asked.into_iter().map(|asked| asked.join().unwrap());
            answers.filter(|(_, boot)| boot.outcome == "boot").map(|(number, _)| number).collect()
        })
    };
    // A machine that is told to wait, as the server is busy, asks again: so do these.
    let boots = |server: &Server, limit: usize| -> BTreeSet<u32> {
        let rounds: Vec<BTreeSet<u32>> = (0..3).map(|_| ask(server)).collect();
        let all: BTreeSet<u32> = rounds.into_iter().flatten().collect();
        assert_eq!(all.len(), limit, "{all:?}");
        all
    };
    let first = boots(&server, 7);
    let waiting = (1..=count).find(|number| !first.contains(number)).unwrap();
    let held = Machine::new(waiting).holds(&server, "limits.reinstalls_per_hour is 7");
    assert!(held.script.contains("the next may be at 20"), "{}", held.script);
    // Another attempt is of the same order, also after a crash.
    server.crash_and_restart();
    assert_eq!(boots(&server, 7), first);
    // Machines that were never installed do not count.
    Machine::new(count + 1).boot(&server);
    server.deploy("image1", u64::from(count) + 1);
    Machine::new(count + 1).boots(&server);

    let path = server.site.path("kiwispray.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("hour = 7", "hour = 9")).unwrap();
    let changed = server.json(&["config", "reload"]);
    assert_eq!(changed["settings"][0]["key"], json!("limits.reinstalls_per_hour"));
    assert!(boots(&server, 9).is_superset(&first));
    server.cli(&["fsck"]).done();
}
