//! The way of one machine, and P1: one order, one installation.

use std::io::Read;
use std::net::Ipv4Addr;

use crate::support::site::payload;
use crate::support::{Boot, Machine, Server, Site};

#[test]
fn a_machine_goes_from_unknown_to_its_installed_disk() {
    let server = Site::new().kiwi("image1").serve();
    let machine = Machine::new(1);
    let first = machine.boot(&server);
    let id = first.host.unwrap();
    assert_eq!(first.outcome, "hold");
    assert!(first.script.contains(&format!("This machine is host {id}")), "{}", first.script);
    assert_eq!(machine.boot(&server).host, Some(id));
    assert_eq!(server.states(id), "new");

    server.deploy("image1", id);
    let boot = machine.boots(&server);
    assert_eq!(boot.argument("rd.kiwi.oem.installdevice"), "/dev/sda");
    assert!(boot.payload().ends_with("/image1.xz"));
    boot.load(&server);
    assert_eq!(server.get(boot.payload()).expect(200).body, payload("image1"));
    let script = server.get(boot.post_install()).expect(200);
    assert!(script.text().starts_with("#!/bin/sh\n"));
    assert_eq!(server.get(&boot.call("finish")).expect(200).text(), "finished\n");

    assert_eq!(server.states(id), "finished");
    machine.boots_its_disk(&server);
    machine.boots_its_disk(&server);
    let events = server.events(id);
    let expected = ["registered", "states_set", "boot_offered", "attempt_started", "payload_delivered", "finished"];
    assert_eq!(events, expected);
}

#[test]
fn a_queue_is_worked_through_in_order_and_no_step_is_skipped_or_repeated() {
    let server = Site::new().linux("wipe", WIPES).kiwi("image1").serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    server.deploy("wipe,image1", id);
    let wiping = machine.boots(&server);
    assert_eq!(wiping.argument("kiwispray.device"), "/dev/sda");
    wiping.fetch_all(&server);
    // Ten reports at once are one report.
    let finish = wiping.call("finish");
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| server.get(&finish).expect(200));
        }
    });
    assert_eq!(server.states(id), "image1");
    machine.boots(&server).install(&server);
    assert_eq!(server.states(id), "finished");
    server.get(&finish).expect(200);
    assert_eq!(server.count(id, "finished"), 2);
    machine.boots_its_disk(&server);
}

const WIPES: &str = "writes = \"wipe\"\ndevice = \"/dev/sda\"";

/// A server with a machine that was told to install image1.
pub(super) fn ordered() -> (Server, Machine, Boot) {
    let server = Site::new().kiwi("image1").serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    assert_eq!(id, ID);
    server.deploy("image1", id);
    let boot = machine.boots(&server);
    (server, machine, boot)
}

pub(super) const ID: u64 = 1;
pub(super) const UNREPORTED: &str = "installed but never reported: kiwispray host finish 1 or kiwispray host retry 1";

#[test]
fn a_payload_that_was_served_whole_is_never_served_again_by_itself() {
    let (server, machine, boot) = ordered();
    boot.fetch_all(&server);
    for _ in 0..3 {
        machine.holds(&server, UNREPORTED);
    }
    assert_eq!(server.count(ID, "held"), 1, "machines ask every few seconds");
    assert_eq!(server.host(ID)["hold"], UNREPORTED);
    // The report may only be late.
    server.get(&boot.call("finish")).expect(200);
    machine.boots_its_disk(&server);
}

#[test]
fn an_operator_ends_a_hold_by_retry_or_by_finish() {
    let (server, machine, boot) = ordered();
    boot.fetch_all(&server);
    machine.holds(&server, UNREPORTED);
    server.cli(&["host", "retry", "1", "--yes"]).done();
    server.get(&boot.call("finish")).expect(409);
    let second = machine.boots(&server);
    second.fetch_all(&server);
    machine.holds(&server, UNREPORTED);
    server.cli(&["host", "finish", "1", "--yes"]).done();
    machine.boots_its_disk(&server);
    server.get(&second.call("finish")).expect(200);
    assert_eq!(server.count(ID, "finished"), 1);
}

#[test]
fn incomplete_attempts_are_retried_to_the_limit() {
    let (server, machine, _) = ordered();
    for attempt in 1..=3 {
        let boot = machine.boots(&server);
        assert!(boot.script.contains(&format!("attempt {attempt} of 3")), "{}", boot.script);
        boot.load(&server);
        boot.fetch_range(&server, boot.payload(), "0-999");
        assert_eq!(server.host(ID)["attempts"], attempt);
    }
    machine.holds(&server, "3 attempts did not complete: kiwispray host retry 1");
    server.cli(&["host", "retry", "1", "--yes"]).done();
    machine.boots(&server).install(&server);
    machine.boots_its_disk(&server);
}

#[test]
fn a_boot_that_fetches_nothing_is_no_attempt() {
    let (server, machine, _) = ordered();
    for _ in 0..6 {
        let boot = machine.boots(&server);
        server.http().head(boot.kernel()).expect(200);
    }
    assert_eq!(server.host(ID)["attempts"], 0);
}

#[test]
fn a_payload_fetched_in_pieces_is_served_whole_all_the_same() {
    let (server, machine, boot) = ordered();
    boot.load(&server);
    boot.fetch_range(&server, boot.payload(), "100000-");
    boot.fetch_range(&server, boot.payload(), "0-50000");
    let boot = machine.boots(&server);
    boot.load(&server);
    boot.fetch_range(&server, boot.payload(), "100000-");
    boot.fetch_range(&server, boot.payload(), "0-99999");
    machine.holds(&server, UNREPORTED);
}

#[test]
fn a_boot_image_that_writes_nothing_repeats_for_ever() {
    let server = Site::new().linux("live", "writes = \"nothing\"").serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    server.cli(&["host", "set", "1", "--state", "live"]).done();
    for _ in 0..6 {
        machine.boots(&server).fetch_all(&server);
    }
    assert_eq!(server.host(id)["attempts"], 6);
}

#[test]
fn a_reported_failure_holds_with_its_reason_everywhere() {
    let (server, machine, boot) = ordered();
    boot.load(&server);
    server.http().post(&format!("{}&reason=disk%20sda%20is%20broken", boot.call("fail")), "").expect(200);
    server.get(&format!("{}&reason=again", boot.call("fail"))).expect(200);
    machine.holds(&server, "the machine reported a failure (disk sda is broken)".replace(['(', ')'], "?").as_str());
    assert!(server.cli(&["host", "list"]).done().out.contains("disk sda is broken"));
    assert!(server.cli(&["host", "events", "1"]).done().out.contains("disk sda is broken"));
    assert_eq!(server.count(ID, "failed"), 1);
    server.cli(&["host", "retry", "1", "--yes"]).done();
    machine.boots(&server);
}

#[test]
fn a_new_order_supersedes_the_boot_that_runs() {
    let (server, machine, boot) = ordered();
    boot.load(&server);
    server.site.add_kiwi("image2");
    server.cli(&["deploy", "image2", "1", "--yes"]).refused(4, "--abort");
    server.cli(&["deploy", "image2", "1", "--yes", "--abort"]).done();
    for call in ["finish", "fail"] {
        let refusal = server.get(&boot.call(call)).expect(409);
        assert_eq!(refusal.text(), "this boot was superseded; nothing was changed\n");
    }
    server.get(boot.payload()).expect(404);
    server.get(boot.post_install()).expect(401);
    assert_eq!((server.states(ID).as_str(), server.count(ID, "call_refused")), ("image2", 2));
    machine.boots(&server).install(&server);
}

#[test]
fn a_later_boot_of_the_same_step_supersedes_the_one_before() {
    let (server, machine, boot) = ordered();
    let later = machine.boots(&server);
    assert_ne!(boot.bootid(), later.bootid());
    server.get(boot.kernel()).expect(404);
    server.get(&boot.call("finish")).expect(409);
    later.install(&server);
    assert_eq!(server.states(ID), "finished");
}

#[test]
fn a_running_transfer_goes_on_to_its_end_when_it_is_superseded() {
    let (server, machine, boot) = ordered();
    grow_payload(&server);
    boot.load(&server);
    let mut stream = server.http().begin(boot.payload(), 1 << 20);
    let later = machine.boots(&server);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() as u64 > LARGE_BYTES - (16 << 20));
    // What it delivered counts for nobody.
    later.load(&server);
    machine.boots(&server);
}

/// More than fits into the buffers of a connection.
const LARGE_BYTES: u64 = 48 << 20;

pub(super) fn grow_payload(server: &Server) {
    let payload = std::fs::File::create(server.site.path("images/image1/image1.xz")).unwrap();
    payload.set_len(LARGE_BYTES).unwrap();
}

#[test]
fn a_transfer_that_breaks_off_is_tried_again() {
    let (server, machine, boot) = ordered();
    grow_payload(&server);
    boot.load(&server);
    drop(server.http().begin(boot.payload(), 1 << 20));
    let second = machine.boots(&server);
    second.load(&server);
    assert_eq!(server.host(ID)["attempts"], 2);
    assert_eq!(server.count(ID, "payload_delivered"), 0);
}

#[test]
fn a_request_from_elsewhere_does_not_disturb_a_boot_whose_files_are_fetched() {
    let (server, machine, boot) = ordered();
    boot.load(&server);
    let elsewhere = machine.clone().at(Ipv4Addr::new(127, 0, 0, 2));
    for _ in 0..3 {
        elsewhere.holds(&server, "this host is being installed from 127.0.0.1");
    }
    assert_eq!(server.count(ID, "foreign_boot"), 1);
    server.get(boot.payload()).expect(200);
    server.get(&boot.call("finish")).expect(200);
    elsewhere.boots_its_disk(&server);
}

#[test]
fn a_machine_with_a_new_address_boots_when_nothing_is_fetched() {
    let (server, machine, boot) = ordered();
    machine.at(Ipv4Addr::new(127, 0, 0, 2)).boots(&server);
    server.get(boot.kernel()).expect(404);
}

#[test]
fn of_many_boots_asked_for_at_once_one_is_left_and_it_installs_once() {
    let (server, machine, _) = ordered();
    let boots: Vec<Boot> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..6).map(|_| scope.spawn(|| machine.boot(&server))).collect();
        asking.into_iter().map(|boot| boot.join().unwrap()).filter(|boot| boot.outcome == "boot").collect()
    });
    let (live, dead): (Vec<_>, Vec<_>) = boots.iter().partition(|boot| server.http().head(boot.kernel()).status == 200);
    assert_eq!(live.len(), 1, "of {}", boots.len());
    for boot in dead {
        server.get(&boot.call("finish")).expect(409);
    }
    live[0].install(&server);
    assert_eq!((server.states(ID).as_str(), server.count(ID, "finished")), ("finished", 1));
}

#[test]
fn a_late_report_of_the_step_before_does_not_hide_what_this_step_delivers() {
    let server = Site::new().linux("wipe", WIPES).kiwi("image1").serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    server.deploy("wipe,image1", id);
    let wiping = machine.boots(&server);
    wiping.install(&server);
    let installing = machine.boots(&server);
    installing.load(&server);
    server.get(&wiping.call("finish")).expect(200);
    server.get(installing.payload()).expect(200);
    assert_eq!(server.count(id, "payload_delivered"), 2);
    machine.holds(&server, "installed but never reported");
}

#[test]
fn a_script_that_fetches_its_payload_uncounted_is_not_handed_out() {
    let script = "#!ipxe\nkernel {{url boot.files}}{{boot.kernel}} root=/images/image1/image1.xz\nboot\n";
    let server = Site::new().kiwi("image1").with_file("image1", "host.ipxe.hbs", script).serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    server.deploy("image1", id);
    machine.holds(&server, "does not fetch its payload below boot.files");
}

#[test]
fn looking_with_head_changes_nothing() {
    let (server, machine, boot) = ordered();
    let looked = server.http().head(&machine.request()).expect(200);
    assert_eq!(looked.header("x-kiwispray-outcome"), Some("boot"));
    server.http().head(&boot.call("finish")).expect(405);
    server.http().head(&boot.call("fail")).expect(405);
    assert_eq!(server.http().head(&Machine::new(99).request()).expect(200).header("x-kiwispray-host"), None);
    boot.install(&server);
    assert_eq!(server.states(ID), "finished");
}

#[test]
fn strangers_fill_no_timeline() {
    let (server, _, boot) = ordered();
    boot.load(&server);
    for stranger in 2..6 {
        let stranger = Machine::new(1).but("serial", &format!("OTHER{stranger}")).but("uuid", "");
        for _ in 0..5 {
            stranger.holds(&server, "cannot be told from others");
        }
    }
    assert_eq!(server.count(ID, "doubted"), 1);
}
