//! What keeps disks alive on the second day: locks, the freeze, the limit of reinstalls, and what is left of hosts that were
//! forgotten.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Boot, Machine, Server, Site};

/// A server with image1, `live`, which writes nothing, and this many new hosts.
fn hosts(count: u32) -> Server {
    let server = Site::new().kiwi("image1").linux("live", "writes = \"nothing\"\n").serve();
    for number in 1..=count {
        assert_eq!(Machine::new(number).boot(&server).host, Some(u64::from(number)));
    }
    server
}

/// A machine that asks until it is told to wait for this reason: on a busy server plugins may be too slow at first.
fn waits(machine: &Machine, server: &Server, reason: &str) -> Boot {
    for _ in 0..20 {
        let boot = machine.boot(server);
        assert_eq!(boot.outcome, "hold", "{}", boot.script);
        if boot.script.contains(reason) {
            return boot;
        }
    }
    machine.holds(server, reason)
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
        server.cli(command).refused(4, "evidence - it takes no orders until `kiwispray host unlock");
    }
    done.boots_its_disk(&server);
    waits(&ordered, &server, "kiwispray host unlock 2");
    waits(&ordered, &server, ": evidence");
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
        waits(&Machine::new(2), server, "kiwispray thaw");
        waits(&Machine::new(2), server, ": hall 2 moves");
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
    let held = waits(&Machine::new(waiting), &server, "limits.reinstalls_per_hour is 7");
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

#[test]
fn a_forgotten_machine_that_was_installed_boots_its_disk_and_is_reported() {
    let mut server = hosts(2);
    let (machine, never) = (Machine::new(1), Machine::new(2));
    machine.installed(&server, "image1");
    server.cli(&["host", "set", "1", "-n", "node1"]).done();
    let told = server.cli(&["host", "forget", "1-2", "--yes"]).done();
    assert!(told.out.contains("--state finished (it gets a new number)"), "{}", told.out);
    let left = server.json(&["host", "list", "--forgotten"]);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["id"], &left[0]["serial"]), (1, &json!(1), &json!("SN00001")));
    server.cli(&["fsck"]).done();
    server.crash_and_restart();

    let back = machine.boots_its_disk(&server);
    let id = back.host.unwrap();
    assert_eq!((id, server.states(id).as_str()), (3, "finished"));
    assert_eq!(server.events(id), ["registered", "returned"]);
    assert_eq!(event(&server, id, "returned")["data"]["was"], json!([1]));
    assert!(event(&server, id, "returned")["text"].as_str().unwrap().contains("host 1 (node1)"));
    assert_eq!(machine.boots_its_disk(&server).host, Some(id));
    assert_eq!(server.json(&["host", "list", "--forgotten"]), json!([]), "it is a host again");
    server.cli(&["deploy", "image1", "3", "--yes"]).refused(4, "--reinstall");
    server.cli(&["deploy", "image1", "3", "--yes", "--reinstall"]).done();
    machine.boots(&server).install(&server);

    assert_eq!(never.boot(&server).host, Some(4));
    assert_eq!(server.states(4), "new", "nothing was ever installed on it");
    server.cli(&["fsck"]).done();
}

#[test]
fn a_doubt_between_a_host_and_a_forgotten_one_installs_nothing() {
    let server = hosts(2);
    Machine::new(1).installed(&server, "image1");
    server.cli(&["host", "forget", "1", "--yes"]).done();
    // Host 2 got the card of the machine that was forgotten.
    let card = "52:54:00:00:00:01";
    let mixed = Machine::new(2).but("net1", card);
    server.deploy("image1", 2);
    waits(&mixed, &server, "host forget --for-good 1");
    server.cli(&["host", "finish", "2", "--yes"]).done();
    mixed.boots_its_disk(&server);
    server.cli(&["deploy", "image1", "2", "--yes", "--reinstall"]).done();
    waits(&mixed, &server, "host forget --for-good 1");
    server.cli(&["host", "forget", "--for-good", "1"]).refused(2, "say --yes");
    server.cli(&["host", "forget", "--for-good", "1", "--yes"]).done();
    mixed.boots(&server);
    server.cli(&["host", "forget", "--for-good", "1", "--yes"]).refused(3, "there is no host 1");
    server.cli(&["fsck"]).done();
}

#[test]
fn a_machine_that_shares_something_with_a_forgotten_one_is_no_new_machine() {
    let server = hosts(1);
    Machine::new(1).installed(&server, "image1");
    server.cli(&["host", "forget", "1", "--yes"]).done();
    // Its card in another machine; and junk matches nothing.
    let other = Machine::new(7).but("net0", "52:54:00:00:00:01");
    let id = other.boots_its_disk(&server).host.unwrap();
    assert!(event(&server, id, "registered")["text"].as_str().unwrap().contains("may be host 1"));
    assert_eq!(server.json(&["host", "list", "--forgotten"])[0]["id"], 1, "the machine that is meant may still come");
    Machine::new(1).boots_its_disk(&server);
    let junk = |number| Machine::new(number).but("serial", "To be filled by O.E.M.");
    let junk_id = junk(8).installed(&server, "image1");
    server.cli(&["host", "forget", &junk_id.to_string(), "--yes"]).done();
    let junk_id = junk(9).boot(&server).host.unwrap();
    assert_eq!(server.states(junk_id), "new");
}

#[test]
fn a_forgotten_machine_is_added_by_hand_as_finished_only() {
    let server = hosts(1);
    Machine::new(1).installed(&server, "image1");
    server.cli(&["host", "forget", "1", "--yes"]).done();
    let add = ["host", "add", "--serial", "SN00001", "--yes"];
    server.cli(&[&add[..], &["--state", "image1"]].concat()).refused(4, "--reinstall");
    server.cli(&add).done();
    assert_eq!(server.states(2), "finished");
    assert_eq!(Machine::new(1).boots_its_disk(&server).host, Some(2));
    server.cli(&["deploy", "image1", "2", "--yes"]).refused(4, "--reinstall");
    server.cli(&["deploy", "image1", "2", "--yes", "--reinstall"]).done();
    Machine::new(1).boots(&server);
    server.cli(&["fsck"]).done();
}

#[test]
fn what_is_forgotten_for_good_is_new_and_a_backup_remembers_what_is_not() {
    let mut server = hosts(0);
    Machine::new(1).installed(&server, "image1");
    Machine::new(2).installed(&server, "image1");
    server.cli(&["host", "forget", "1", "--yes"]).done();
    server.cli(&["host", "forget", "2", "--for-good", "--yes"]).done();
    server.cli(&["backup", "graves"]).done();
    server.terminate();
    server.cli(&["restore", "graves", "--data-dir", "data", "--replace-store"]).done();
    server.restart();
    server.cli(&["release", "--all", "--yes"]).done();
    let id = Machine::new(1).boots_its_disk(&server).host.unwrap();
    assert_eq!(event(&server, id, "returned")["data"]["was"], json!([1]));
    let id = Machine::new(2).boot(&server).host.unwrap();
    assert_eq!(server.states(id), "new");
    server.cli(&["fsck"]).done();
}

#[test]
fn a_machine_that_comes_back_gets_no_queue_from_whoever_admits_new_ones() {
    let config = "discover = true\n[limits]\nnew_hosts_per_minute = 1\n";
    let server = Site::new().config(config).kiwi("image1").linux("discover", "writes = \"nothing\"\n").serve();
    let id = Machine::new(1).boot(&server).host.unwrap();
    assert_eq!(server.states(id), "discover,new");
    server.cli(&["host", "set", "1", "--state", "finished"]).done();
    server.cli(&["host", "forget", "1", "--yes"]).done();
    // Nor does the limit of new machines keep it from its disk.
    let id = Machine::new(1).boots_its_disk(&server).host.unwrap();
    assert_eq!(server.states(id), "finished");
}
