//! The power-loss table: the server ends at the worst moments, and starts over the same data (P1, P4).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::way::{ID, UNREPORTED, grow_payload, ordered};
use crate::support::site::PAYLOAD_BYTES;
use crate::support::{Machine, Site};

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
