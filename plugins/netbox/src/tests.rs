//! The whole plugin, from events and jobs to what is sent and applied.

use kiwispray_sdk::ask::http::{HttpError, Response};
use kiwispray_sdk::testing::{Core, event, host, response};
use kiwispray_sdk::{Error, Event, KnownHost, NextRun, Plugin};
use serde_json::{Value, json};

use crate::Sync;
use crate::double::Fake;

fn machine(id: u64, serial: &str, state: &str) -> KnownHost {
    KnownHost { id, serial: serial.into(), macs: vec![format!("52:54:00:00:00:{id:02x}")], ..host(state) }
}

fn run(core: &Core, job: &str) -> Result<NextRun, Error> {
    core.run(|| Sync::run(job))
}

fn happened(number: u64, kind: &str, host: KnownHost, detail: &Value) -> Event {
    Event {
        id: format!("{}-{number}", host.id),
        host_seq: number,
        detail: detail.to_string(),
        ..event(kind, Some(host))
    }
}

fn deliver(core: &Core, events: Vec<Event>) -> Result<u32, Error> {
    core.run(|| Sync::events(events))
}

fn states(core: &Core, id: u64) -> Vec<String> {
    core.host_now(id).unwrap().states
}

fn name(core: &Core, id: u64) -> Option<String> {
    core.host_now(id).unwrap().hostname
}

fn writes(core: &Core) -> usize {
    core.requests().iter().filter(|request| request.method != "GET").count()
}

#[test]
fn a_machine_gets_its_name_and_metadata_when_it_is_registered() {
    let core = Fake::default().device(1, "sn-1").core().host(machine(7, "SN-1", "new"));
    assert_eq!(deliver(&core, vec![happened(1, "registered", machine(7, "SN-1", "new"), &json!({}))]), Ok(1));
    assert_eq!(name(&core, 7).as_deref(), Some("node-1"));
    assert_eq!(core.host_now(7).unwrap().metadata().unwrap()["netbox"]["site"], "fra1");
    assert_eq!(writes(&core), 0);
}

#[test]
fn a_full_read_visits_every_host_and_a_second_one_changes_nothing() {
    let mut core = Fake::default().device(1, "A-1").device(2, "B-2").device(3, "C-3").core();
    for (id, serial) in [(7, "A-1"), (8, "B-2"), (9, "C-3"), (10, "nowhere-1"), (11, "")] {
        core = core.host(machine(id, serial, "new"));
    }
    assert_eq!(run(&core, "full"), Ok(NextRun::AtPeriod));
    let names: Vec<Option<String>> = (7..=11).map(|id| name(&core, id)).collect();
    assert_eq!(names, [Some("node-1".into()), Some("node-2".into()), Some("node-3".into()), None, None]);
    let applied = core.applied().len();
    assert_eq!(run(&core, "full"), Ok(NextRun::AtPeriod));
    assert_eq!((core.applied().len(), writes(&core)), (applied, 0));
}

#[test]
fn a_request_is_ordered_once_and_cleared() {
    let fake = Fake::default().device(1, "SN-1");
    fake.ask_for(1, "wipe,web");
    let core = fake.core().host(machine(7, "SN-1", "new"));
    run(&core, "full").unwrap();
    assert_eq!(states(&core, 7), ["wipe", "web"]);
    assert_eq!(fake.request_of(1), Value::Null);
    let core = core.host(machine(7, "SN-1", "finished"));
    run(&core, "full").unwrap();
    assert_eq!(states(&core, 7), ["finished"]);
    // The same words again are another wish.
    fake.ask_for(1, "wipe,web");
    run(&core, "full").unwrap();
    assert_eq!(states(&core, 7), ["wipe", "web"]);
}

#[test]
fn a_request_that_cannot_be_cleared_installs_once_whatever_happens_to_the_device() {
    let fake = Fake::default().device(1, "SN-1");
    fake.ask_for(1, "web");
    fake.0.borrow_mut().read_only = true;
    let core = fake.core().host(machine(7, "SN-1", "new"));
    run(&core, "full").unwrap();
    assert_eq!(states(&core, 7), ["web"]);
    assert!(
        core.notes().iter().any(|note| note.contains("cannot be cleared") && note.contains("change on dcim.device"))
    );
    let core = core.host(machine(7, "SN-1", "finished"));
    for _ in 0..3 {
        fake.edit(1, |device| device["name"] = json!("renamed"));
        run(&core, "full").unwrap();
        assert_eq!(states(&core, 7), ["finished"]);
    }
    fake.0.borrow_mut().read_only = false;
    run(&core, "full").unwrap();
    assert_eq!((fake.request_of(1), states(&core, 7)), (Value::Null, vec!["finished".to_owned()]));
}

#[test]
fn a_server_that_was_lost_after_ordering_does_not_order_again() {
    let fake = Fake::default().device(1, "SN-1");
    fake.ask_for(1, "web");
    let core = fake.core().host(machine(7, "SN-1", "new"));
    // All that was written before the order is there, and the order was given.
    let order = format!("netbox:1:{}", fake.see(1, |device| device["last_updated"].as_str().unwrap().to_owned()));
    let ledger = json!({"seen": 0, "acted": {"device": 1, "text": "web", "order": order, "done": false}});
    let core = core.entry("host/00000000000000000007", ledger.to_string());
    let given = kiwispray_sdk::Patch::default().states(["web"]).order(&order);
    core.run(|| kiwispray_sdk::ask::hosts::apply(&machine(7, "SN-1", "new"), given)).unwrap();
    let core = core.host(machine(7, "SN-1", "finished"));
    fake.edit(1, |device| device["name"] = json!("renamed"));
    run(&core, "full").unwrap();
    assert_eq!((states(&core, 7), fake.request_of(1)), (vec!["finished".to_owned()], Value::Null));
}

#[test]
fn a_request_is_known_by_its_name_when_nothing_is_remembered() {
    let fake = Fake::default().device(1, "SN-1");
    fake.ask_for(1, "web");
    let core = fake.core().host(machine(7, "SN-1", "new"));
    let order = format!("netbox:1:{}", fake.see(1, |device| device["last_updated"].as_str().unwrap().to_owned()));
    let given = kiwispray_sdk::Patch::default().states(["web"]).order(&order);
    core.run(|| kiwispray_sdk::ask::hosts::apply(&machine(7, "SN-1", "new"), given)).unwrap();
    let core = core.host(machine(7, "SN-1", "finished"));
    run(&core, "full").unwrap();
    assert_eq!((states(&core, 7), fake.request_of(1)), (vec!["finished".to_owned()], Value::Null));
}

#[test]
fn a_finish_writes_status_and_journal_once_and_echoes_nothing() {
    let fake = Fake::default().device(1, "SN-1");
    let core = fake.core().host(machine(7, "SN-1", "finished"));
    let finish = happened(4, "finished", machine(7, "SN-1", "finished"), &json!({"from": "web", "to": "finished"}));
    deliver(&core, vec![finish.clone()]).unwrap();
    assert_eq!(fake.status_of(1), "active");
    assert_eq!(fake.0.borrow().journal, ["kiwispray host 7 installed: `web` (event `7-4`)"]);
    let changed = fake.see(1, |device| device["last_updated"].clone());
    deliver(&core, vec![finish]).unwrap();
    run(&core, "full").unwrap();
    run(&core, "incremental").unwrap();
    run(&core, "incremental").unwrap();
    assert_eq!(fake.0.borrow().journal.len(), 1);
    assert_eq!(fake.see(1, |device| device["last_updated"].clone()), changed);
    assert!(core.entries().keys().all(|key| !key.starts_with("todo/")));
}

#[test]
fn what_happened_during_an_outage_is_told_after_it() {
    let fake = Fake::default().device(1, "SN-1");
    let core = fake.core().host(machine(7, "SN-1", "finished"));
    let began = happened(3, "attempt_started", machine(7, "SN-1", "web"), &json!({}));
    let finish = happened(4, "finished", machine(7, "SN-1", "finished"), &json!({"from": "web", "to": "finished"}));
    fake.next(Err(HttpError::NotSent("connection refused".into())));
    assert_eq!(deliver(&core, vec![began, finish]), Ok(2));
    assert_eq!((fake.status_of(1).as_str(), fake.0.borrow().journal.len()), ("planned", 0));
    let mut away = response(503, &json!({}));
    away.headers.push(("retry-after".into(), "7".into()));
    fake.next(Ok(away));
    assert!(matches!(run(&core, "full"), Err(Error::Retry(later)) if later.after_ms == 7_000));
    run(&core, "full").unwrap();
    assert_eq!((fake.status_of(1).as_str(), fake.0.borrow().journal.len()), ("active", 1));
}

#[test]
fn an_entry_whose_answer_was_lost_is_not_written_twice() {
    let fake = Fake::default().device(1, "SN-1");
    fake.0.borrow_mut().loses_answers = true;
    let core = fake.core().host(machine(7, "SN-1", "web"));
    let failed = happened(4, "failed", machine(7, "SN-1", "web"), &json!({"reason": "no disk"}));
    assert_eq!(deliver(&core, vec![failed]), Ok(1));
    run(&core, "full").unwrap();
    assert_eq!((fake.0.borrow().journal.len(), fake.status_of(1).as_str()), (1, "failed"));
    assert!(fake.0.borrow().journal[0].contains("`no disk`"));
}

#[test]
fn a_token_that_may_not_write_is_named_and_nothing_is_forgotten() {
    let fake = Fake::default().device(1, "SN-1").device(2, "SN-2");
    fake.0.borrow_mut().read_only = true;
    let core = fake.core().host(machine(7, "SN-1", "finished")).host(machine(8, "SN-2", "new"));
    let finish = happened(4, "finished", machine(7, "SN-1", "finished"), &json!({"from": "web", "to": "finished"}));
    assert_eq!(deliver(&core, vec![finish]), Ok(1));
    assert!(core.notes().iter().any(|note| note.contains("permission") && note.contains("allowed to write")));
    // It keeps nobody else from being read.
    run(&core, "full").unwrap();
    assert_eq!(name(&core, 8).as_deref(), Some("node-2"));
    fake.0.borrow_mut().read_only = false;
    run(&core, "full").unwrap();
    assert_eq!((fake.status_of(1).as_str(), fake.0.borrow().journal.len()), ("active", 1));
}

#[test]
fn an_outage_in_the_middle_of_a_full_read_keeps_the_place() {
    let mut fake = Fake::default();
    for id in 1..=5 {
        fake = fake.device(id, &format!("SN-{id}"));
    }
    let mut core = fake.core().budget_ms(5_000);
    for id in 1..=5 {
        core = core.host(machine(id, &format!("SN-{id}"), "new"));
    }
    assert!(matches!(run(&core, "full"), Ok(NextRun::AfterMs(_))));
    fake.next(Ok(response(429, &json!({"detail": "Request was throttled."}))));
    assert!(matches!(run(&core, "full"), Err(Error::Retry(_))));
    let before = core.requests().len();
    assert!(matches!(run(&core, "full"), Ok(NextRun::AfterMs(_))));
    assert_eq!(run(&core, "full"), Ok(NextRun::AtPeriod));
    assert_eq!(core.requests().len() - before, 2, "two pages were left");
    assert!((1..=5).all(|id| name(&core, id).is_some()));
}

#[test]
fn an_incremental_read_visits_only_what_has_changed() {
    let fake = Fake::default().device(1, "SN-1").device(2, "SN-2").device(3, "foreign");
    let core = fake.core().host(machine(7, "SN-1", "new")).host(machine(8, "SN-2", "new"));
    assert_eq!(run(&core, "incremental"), Ok(NextRun::AtPeriod));
    assert_eq!(name(&core, 8).as_deref(), Some("node-2"), "the first round is a full one");
    for round in 0..4 {
        fake.edit(1, |device| device["name"] = json!(format!("renamed-{round}")));
        fake.ask_for(2, &format!("image-{round}"));
        assert_eq!(run(&core, "incremental"), Ok(NextRun::AtPeriod));
        assert_eq!(name(&core, 7), Some(format!("renamed-{round}")));
        assert_eq!(states(&core, 8), [format!("image-{round}")]);
    }
    run(&core, "incremental").unwrap();
    run(&core, "incremental").unwrap();
    let before = core.requests().len();
    run(&core, "incremental").unwrap();
    assert!(core.requests().len() - before <= 3, "an idle round is cheap");
}

#[test]
fn a_host_without_a_serial_number_is_found_by_its_mac() {
    let fake =
        Fake::default().device(1, "").device(2, "OTHER-2").card("52:54:00:00:00:07", 1).card("52:54:00:00:00:08", 2);
    let core = fake.core().host(machine(7, "Default string", "new")).host(machine(8, "MINE-8", "new"));
    run(&core, "full").unwrap();
    assert_eq!((name(&core, 7).as_deref(), name(&core, 8)), (Some("node-1"), None));
    assert!(core.notes().iter().any(|note| note.starts_with("host 8:") && note.contains("OTHER-2")));
    // It is known again when only the device is seen.
    run(&core, "incremental").unwrap();
    fake.edit(1, |device| device["name"] = json!("renamed"));
    run(&core, "incremental").unwrap();
    assert_eq!(name(&core, 7).as_deref(), Some("renamed"));
}

#[test]
fn twins_are_left_alone_on_either_side() {
    let fake = Fake::default().device(1, "TWIN-1").device(2, "twin-1").device(3, "SN-3");
    let core =
        fake.core().host(machine(7, "TWIN-1", "new")).host(machine(8, "SN-3", "new")).host(machine(9, "sn-3", "new"));
    run(&core, "full").unwrap();
    assert!((7..=9).all(|id| name(&core, id).is_none()));
    assert!(core.notes().iter().any(|note| note.contains("several devices")));
    assert!(core.notes().iter().any(|note| note.contains("several hosts")));
}

#[test]
fn a_device_is_not_given_by_its_mac_to_one_host_and_by_its_serial_number_to_another() {
    let fake = Fake::default().device(1, "SN-1").card("52:54:00:00:00:07", 1);
    let core = fake.core().host(machine(7, "", "new")).host(machine(8, "", "new")).host(machine(9, "SN-1", "new"));
    run(&core, "full").unwrap();
    assert_eq!((name(&core, 7), name(&core, 9).as_deref()), (None, Some("node-1")));
    assert!(core.notes().iter().any(|note| note.contains("host 9")));
}

#[test]
fn a_serial_number_that_is_there_a_thousand_times_hides_no_other() {
    let mut fake = Fake::default();
    for id in 1..=100 {
        fake = fake.device(id, "GENERIC-1");
    }
    let core = fake.device(101, "SN-1").core().host(machine(7, "GENERIC-1", "new")).host(machine(8, "SN-1", "new"));
    run(&core, "full").unwrap();
    assert_eq!((name(&core, 7), name(&core, 8).as_deref()), (None, Some("node-101")));
}

#[test]
fn hostile_answers_change_nothing() {
    let page = |text: &str| Response { status: 200, headers: vec![], body: text.as_bytes().to_vec() };
    for answer in [
        page("<html>Sign in</html>"),
        page("[]"),
        page("null"),
        page(r#"{"count": 1, "results": {"id": 1}}"#),
        page(r#"{"count": 1, "results": [{"id": "1", "serial": "SN-1"}]}"#),
        page(r#"{"count": 1, "results": [{"id": 9, "serial": "SN-10", "name": "wrong"}]}"#),
        page(r#"{"count": 2, "results": [{"id": 1, "serial": "SN-1"}, {"id": 2, "serial": "SN-1"}]}"#),
        page(r#"{"results": [null, 3, {"id": null}]}"#),
        response(404, &json!({"detail": "Not found."})),
        response(301, &json!({})),
    ] {
        let fake = Fake::default();
        fake.next(Ok(answer));
        let core = fake.core().host(machine(7, "SN-1", "new"));
        let _ = run(&core, "full");
        assert!(core.applied().is_empty() && writes(&core) == 0, "{:?}", core.requests());
    }
}

#[test]
fn a_dry_run_and_the_diff_change_nothing_and_say_everything() {
    let fake = Fake::default().device(1, "SN-1").device(2, "SN-2");
    fake.ask_for(1, "web");
    let hosts = |core: Core| core.host(machine(7, "SN-1", "new")).host(machine(8, "XX-1", "new"));
    let core = hosts(fake.core().dry_run());
    run(&core, "full").unwrap();
    assert!(core.notes().contains(&"host 7: hostname: nothing -> node-1".to_owned()), "{:?}", core.notes());
    assert!(core.notes().contains(&"host 7: would order web".to_owned()));
    assert!(core.applied().is_empty() && core.entries().is_empty() && writes(&core) == 0);

    let core = hosts(fake.core());
    assert_eq!(run(&core, "diff"), Ok(NextRun::AtPeriod));
    assert!(core.applied().is_empty() && writes(&core) == 0);
    let diff: Value = serde_json::from_slice(&core.entry_now("diff").unwrap()).unwrap();
    assert_eq!((&diff["complete"], &diff["unknown"]), (&json!(true), &json!([8])));
    let visit = &diff["differ"][0];
    assert_eq!((&visit["host"], &visit["device"], &visit["order"]), (&json!(7), &json!(1), &json!("web")));
    assert_eq!(visit["differences"][0], json!({"what": "hostname", "from": "", "to": "node-1"}));
    run(&core, "full").unwrap();
    run(&core, "diff").unwrap();
    let diff: Value = serde_json::from_slice(&core.entry_now("diff").unwrap()).unwrap();
    assert_eq!((&diff["same"], &diff["differ"]), (&json!(1), &json!([])));
}

#[test]
fn a_diff_that_is_too_long_counts_what_it_leaves_out() {
    let mut fake = Fake::default();
    for id in 1..=100 {
        fake = fake.device(id, &format!("SN-{id}"));
        fake.edit(id, |device| device["config_context"] = json!({"text": "x".repeat(400)}));
        fake.edit(id, |device| device["custom_fields"]["notes"] = json!("y".repeat(400)));
    }
    let core = (1..=100).fold(fake.core(), |core, id| core.host(machine(id, &format!("SN-{id}"), "new")));
    assert_eq!(run(&core, "diff"), Ok(NextRun::AtPeriod));
    let text = core.entry_now("diff").unwrap();
    let diff: Value = serde_json::from_slice(&text).unwrap();
    let shown = diff["differ"].as_array().unwrap().len() as u64;
    assert!(text.len() < 64 << 10 && shown > 20 && shown < 100, "{} bytes, {shown}", text.len());
    assert_eq!(diff["left_out"], json!(100 - shown));
}

#[test]
fn a_bad_request_is_told_and_left_to_the_one_who_wrote_it() {
    let fake = Fake::default().device(1, "SN-1");
    fake.ask_for(1, "rm -rf /");
    let core = fake.core().host(machine(7, "SN-1", "new"));
    run(&core, "full").unwrap();
    assert_eq!((states(&core, 7), fake.request_of(1)), (vec!["new".to_owned()], json!("rm -rf /")));
    assert!(core.notes().iter().any(|note| note.contains("no list of states")));
    assert_eq!(name(&core, 7).as_deref(), Some("node-1"));
}

#[test]
fn a_job_that_is_none_and_an_event_that_means_nothing_do_no_harm() {
    let core = Fake::default().core().host(machine(7, "SN-1", "new"));
    assert!(matches!(run(&core, "fulll"), Err(Error::Invalid(_))));
    assert_eq!(deliver(&core, vec![happened(1, "held", machine(7, "SN-1", "new"), &json!({}))]), Ok(1));
    assert!(core.requests().is_empty());
    let about = Sync::describe();
    assert_eq!(about.jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["full", "incremental", "diff"]);
}
