//! The whole plugin against a NetBox of the test's own, which keeps devices as the real one does: a change moves
//! `last_updated`, unknown filters are ignored, and everything wrong with a token is 403.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kiwispray_sdk::ask::http::{HttpError, Request, Response};
use kiwispray_sdk::testing::{Core, event, host, response};
use kiwispray_sdk::{Error, Event, KnownHost, NextRun, Plugin};
use serde_json::{Value, json};

use crate::Sync;

const CONFIG: &str = r#"{"url": "https://netbox.example.org", "request_field": "kiwispray_request", "page_size": 2}"#;

/// What the requests of one test meet.
#[derive(Clone, Default)]
struct Fake(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    devices: BTreeMap<u64, Value>,
    /// MAC and device.
    cards: Vec<(String, u64)>,
    journal: Vec<String>,
    clock: u32,
    /// Answered instead, from the first to the last.
    instead: Vec<Result<Response, HttpError>>,
    /// Methods that are refused as by a token that may not write.
    read_only: bool,
    /// The journal entry arrives, its answer does not.
    loses_answers: bool,
}

impl Fake {
    fn device(self, id: u64, serial: &str) -> Self {
        let device = json!({"id": id, "name": format!("node-{id}"), "serial": serial, "tags": [],
            "status": {"value": "planned", "label": "Planned"}, "site": {"slug": "fra1"},
            "custom_fields": {"kiwispray_request": null}});
        self.0.borrow_mut().devices.insert(id, device);
        self.edit(id, |_| {});
        self
    }

    fn card(self, mac: &str, device: u64) -> Self {
        self.0.borrow_mut().cards.push((mac.to_owned(), device));
        self
    }

    /// Somebody changes a device.
    fn edit(&self, id: u64, edit: impl FnOnce(&mut Value)) {
        let state = &mut *self.0.borrow_mut();
        state.clock += 1;
        let device = state.devices.get_mut(&id).unwrap();
        edit(device);
        device["last_updated"] = json!(format!("2026-11-22T00:00:00.{:06}Z", state.clock));
    }

    fn ask_for(&self, id: u64, states: &str) {
        self.edit(id, |device| device["custom_fields"]["kiwispray_request"] = json!(states));
    }

    fn see<T>(&self, id: u64, look: impl FnOnce(&Value) -> T) -> T {
        look(&self.0.borrow().devices[&id])
    }

    fn request_of(&self, id: u64) -> Value {
        self.see(id, |device| device["custom_fields"]["kiwispray_request"].clone())
    }

    fn status_of(&self, id: u64) -> String {
        self.see(id, |device| device["status"]["value"].as_str().unwrap().to_owned())
    }

    fn next(&self, answer: Result<Response, HttpError>) {
        self.0.borrow_mut().instead.push(answer);
    }

    fn core(&self) -> Core {
        let fake = self.clone();
        Core::new().config(CONFIG).now_ms(1_000_000).budget_ms(60_000).http(move |request| fake.answer(request))
    }

    fn answer(&self, request: &Request) -> Result<Response, HttpError> {
        if !self.0.borrow().instead.is_empty() {
            return self.0.borrow_mut().instead.remove(0);
        }
        let rest = request.url.strip_prefix("https://netbox.example.org/api/").expect("below the API");
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        let body: Value = request.body.as_deref().map(|b| serde_json::from_slice(b).unwrap()).unwrap_or_default();
        assert!(path.ends_with('/') && query.iter().all(|(_, value)| !value.is_empty()), "{}", request.url);
        assert!(request.url.len() < 4000 && request.headers.iter().all(|(name, _)| name != "authorization"));
        if self.0.borrow().read_only && request.method != "GET" {
            return Ok(response(403, &json!({"detail": "You do not have permission to perform this action."})));
        }
        Ok(match (request.method.as_str(), path) {
            ("GET", "dcim/devices/") => self.devices(&query),
            ("GET", "dcim/interfaces/") => self.interfaces(&query),
            ("GET", "extras/journal-entries/") => {
                let entries: Vec<Value> =
                    self.0.borrow().journal.iter().map(|text| json!({"comments": text})).collect();
                response(200, &json!({"count": entries.len(), "results": entries}))
            }
            ("POST", "extras/journal-entries/") => {
                self.0.borrow_mut().journal.push(body["comments"].as_str().unwrap().to_owned());
                if std::mem::take(&mut self.0.borrow_mut().loses_answers) {
                    return Err(HttpError::Unknown("time ran out".into()));
                }
                response(201, &json!({"id": 1}))
            }
            (method, path) => {
                let id: u64 = path.strip_prefix("dcim/devices/").unwrap().trim_end_matches('/').parse().unwrap();
                self.one(method, id, &body, request)
            }
        })
    }

    fn one(&self, method: &str, id: u64, body: &Value, request: &Request) -> Response {
        if method == "PATCH" {
            let etag = self.see(id, |device| device["last_updated"].clone());
            if let Some((_, wanted)) = request.headers.iter().find(|(name, _)| name == "if-match") {
                assert_eq!(*wanted, etag, "the device was read before it was changed");
            }
            self.edit(id, |device| {
                if let Some(status) = body.get("status") {
                    device["status"] = json!({"value": status, "label": "x"});
                }
                for (name, value) in body["custom_fields"].as_object().into_iter().flatten() {
                    device["custom_fields"][name] = value.clone();
                }
            });
        }
        let device = self.see(id, Value::clone);
        let mut answer = response(200, &device);
        answer.headers.push(("ETag".into(), device["last_updated"].as_str().unwrap().to_owned()));
        answer
    }

    fn devices(&self, query: &[(String, String)]) -> Response {
        let values = |name: &str| -> Vec<String> {
            query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.to_lowercase()).collect()
        };
        let (serials, ids) = (values("serial"), values("id"));
        let since = query.iter().find(|(key, _)| key == "last_updated__gte").map_or("", |(_, since)| since);
        let from: u64 = values("id__gte").first().map_or(0, |id| id.parse().unwrap());
        let mut found: Vec<Value> = self.0.borrow().devices.values().cloned().collect();
        found.retain(|device| {
            let serial = device["serial"].as_str().unwrap().to_lowercase();
            let id = device["id"].as_u64().unwrap();
            (serials.is_empty() || serials.contains(&serial))
                && (ids.is_empty() || ids.contains(&id.to_string()))
                && device["last_updated"].as_str().unwrap() >= since
                && id >= from
        });
        if values("ordering") == ["-last_updated"] {
            found.sort_by_key(|device| std::cmp::Reverse(device["last_updated"].as_str().unwrap().to_owned()));
        }
        let count = found.len();
        found.truncate(values("limit")[0].parse().unwrap());
        response(200, &json!({"count": count, "next": "http://elsewhere/", "results": found}))
    }

    fn interfaces(&self, query: &[(String, String)]) -> Response {
        let asked: Vec<String> =
            query.iter().filter(|(key, _)| key == "mac_address").map(|(_, mac)| mac.replace('-', ":")).collect();
        let state = self.0.borrow();
        let found = state.cards.iter().filter(|(mac, _)| asked.contains(&mac.to_lowercase()));
        let found: Vec<Value> = found
            .map(|(mac, id)| json!({"id": 1, "device": {"id": id}, "mac_address": mac, "mac_addresses": null}))
            .collect();
        response(200, &json!({"count": found.len(), "results": found}))
    }
}

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
    assert_eq!(about.jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["incremental", "full", "diff"]);
}
