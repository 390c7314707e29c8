//! The way of one machine, and P1: one order, one installation.

use std::io::Read;
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::site::{PAYLOAD_BYTES, payload};
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
fn ordered() -> (Server, Machine, Boot) {
    let server = Site::new().kiwi("image1").serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    assert_eq!(id, ID);
    server.deploy("image1", id);
    let boot = machine.boots(&server);
    (server, machine, boot)
}

const ID: u64 = 1;
const UNREPORTED: &str = "installed but never reported: kiwispray host finish 1 or kiwispray host retry 1";

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

fn grow_payload(server: &Server) {
    let payload = std::fs::File::create(server.site.path("images/image1/image1.xz")).unwrap();
    payload.set_len(LARGE_BYTES).unwrap();
}

#[test]
fn killed_after_a_bootid_was_answered_the_server_still_knows_it() {
    let (mut server, machine, boot) = ordered();
    server.crash_and_restart();
    boot.install(&server);
    machine.boots_its_disk(&server);

    let (mut server, machine, _) = ordered();
    server.crash_and_restart();
    machine.boots(&server);
    assert_eq!(server.host(ID)["attempts"], 0);
}

#[test]
fn killed_in_the_middle_of_the_payload_the_step_is_tried_again() {
    let (mut server, machine, boot) = ordered();
    grow_payload(&server);
    boot.load(&server);
    let _transfer = server.http().begin(boot.payload(), 1 << 20);
    server.crash_and_restart();
    let second = machine.boots(&server);
    second.load(&server);
    assert_eq!(server.host(ID)["attempts"], 2);
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
fn killed_when_the_payload_was_just_delivered_the_machine_holds() {
    let (mut server, machine, boot) = ordered();
    boot.load(&server);
    server.get(boot.payload()).expect(200);
    server.crash_and_restart();
    machine.holds(&server, UNREPORTED);
    server.get(&boot.call("finish")).expect(200);
    machine.boots_its_disk(&server);
}

#[test]
fn killed_after_the_finish_the_machine_stays_finished() {
    let (mut server, machine, boot) = ordered();
    boot.install(&server);
    server.crash_and_restart();
    machine.boots_its_disk(&server);
    server.get(&boot.call("finish")).expect(200);
    assert_eq!((server.states(ID).as_str(), server.count(ID, "finished")), ("finished", 1));
}

#[test]
fn a_transfer_resumed_after_a_restart_counts_as_the_rest_of_the_whole() {
    let (mut server, machine, boot) = ordered();
    boot.load(&server);
    boot.fetch_range(&server, boot.payload(), "0-999");
    server.crash_and_restart();
    boot.fetch_range(&server, boot.payload(), "1000-1999");
    let second = machine.boots(&server);
    second.load(&server);
    second.fetch_range(&server, second.payload(), "0-999");
    server.crash_and_restart();
    second.fetch_range(&server, second.payload(), "1000-");
    machine.holds(&server, UNREPORTED);
}

#[test]
fn a_server_that_is_asked_to_stop_stops_well_and_forgets_nothing() {
    let (mut server, machine, boot) = ordered();
    boot.load(&server);
    let before = server.host(ID);
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(!server.site.path("data/admin.sock").exists());
    server.restart();
    for field in ["states", "attempts", "macs", "serial", "revision", "running"] {
        assert_eq!(server.host(ID)[field], before[field], "{field}");
    }
    machine.boots(&server);
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

/// What a crowd of machines knows for certain when the server dies under it.
#[derive(Default)]
struct Known {
    /// Whose finish was acknowledged.
    finished: Vec<u32>,
    /// Whose payload arrived whole, and whose finish was not acknowledged.
    delivered: Vec<u32>,
}

#[test]
fn whatever_was_acknowledged_survives_a_server_that_is_killed_under_load() {
    let mut server = Site::new().kiwi("image1").serve();
    let machines: Vec<u32> = (1..=24).collect();
    for machine in &machines {
        Machine::new(*machine).boot(&server);
    }
    server.cli(&["deploy", "image1", "1-24", "--yes"]).done();
    let known = Mutex::new(Known::default());
    std::thread::scope(|scope| {
        for machines in machines.chunks(4) {
            let (server, known) = (&server, &known);
            scope.spawn(move || {
                // The first request without an answer ends the work of this thread.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    for machine in machines {
                        let boot = Machine::new(*machine).boots(server);
                        boot.load(server);
                        let payload = server.get(boot.payload()).expect(200);
                        if payload.body.len() == PAYLOAD_BYTES {
                            known.lock().unwrap().delivered.push(*machine);
                        }
                        server.get(&boot.call("finish")).expect(200);
                        let mut known = known.lock().unwrap();
                        known.delivered.retain(|delivered| delivered != machine);
                        known.finished.push(*machine);
                    }
                }));
            });
        }
        let (begin, enough) = (Instant::now(), || known.lock().unwrap().finished.len() >= 6);
        while !enough() && begin.elapsed().as_secs() < 20 {
            std::thread::sleep(Duration::from_millis(2));
        }
        server.signal_kill();
    });
    server.crash_and_restart();
    let known = known.into_inner().unwrap();
    assert!(known.finished.len() >= 6, "{:?}", known.finished);
    for machine in machines {
        let boot = Machine::new(machine).boot(&server);
        let id = boot.host.unwrap();
        if known.finished.contains(&machine) {
            assert_eq!(boot.outcome, "local", "host {id} was finished");
        } else if known.delivered.contains(&machine) {
            // The finish may have been committed and its answer lost.
            assert_ne!(boot.outcome, "boot", "host {id} has its payload");
        }
        assert!(server.count(id, "finished") <= 1);
    }
}
