//! A NetBox of the tests' own, which keeps devices as the real one does: a change moves `last_updated`, empty and unknown
//! filters are mistakes of the plugin, and everything wrong with a token is 403.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kiwispray_sdk::ask::http::{HttpError, Request, Response};
use kiwispray_sdk::testing::{Core, response};
use serde_json::{Value, json};

const CONFIG: &str = r#"{"url": "https://netbox.example.org", "request_field": "kiwispray_request", "page_size": 2}"#;

/// What the requests of one test meet.
#[derive(Clone, Default)]
pub(crate) struct Fake(pub(crate) Rc<RefCell<State>>);

#[derive(Default)]
pub(crate) struct State {
    devices: BTreeMap<u64, Value>,
    /// MAC and device.
    cards: Vec<(String, u64)>,
    pub(crate) journal: Vec<String>,
    clock: u32,
    /// Answered instead, from the first to the last.
    instead: Vec<Result<Response, HttpError>>,
    /// Methods that are refused as by a token that may not write.
    pub(crate) read_only: bool,
    /// The journal entry arrives, its answer does not.
    pub(crate) loses_answers: bool,
}

impl Fake {
    pub(crate) fn device(self, id: u64, serial: &str) -> Self {
        let device = json!({"id": id, "name": format!("node-{id}"), "serial": serial, "tags": [],
            "status": {"value": "planned", "label": "Planned"}, "site": {"slug": "fra1"},
            "custom_fields": {"kiwispray_request": null}});
        self.0.borrow_mut().devices.insert(id, device);
        self.edit(id, |_| {});
        self
    }

    pub(crate) fn card(self, mac: &str, device: u64) -> Self {
        self.0.borrow_mut().cards.push((mac.to_owned(), device));
        self
    }

    /// Somebody changes a device.
    pub(crate) fn edit(&self, id: u64, edit: impl FnOnce(&mut Value)) {
        let state = &mut *self.0.borrow_mut();
        state.clock += 1;
        let device = state.devices.get_mut(&id).unwrap();
        edit(device);
        device["last_updated"] = json!(format!("2026-11-22T00:00:00.{:06}Z", state.clock));
    }

    pub(crate) fn ask_for(&self, id: u64, states: &str) {
        self.edit(id, |device| device["custom_fields"]["kiwispray_request"] = json!(states));
    }

    pub(crate) fn see<T>(&self, id: u64, look: impl FnOnce(&Value) -> T) -> T {
        look(&self.0.borrow().devices[&id])
    }

    pub(crate) fn request_of(&self, id: u64) -> Value {
        self.see(id, |device| device["custom_fields"]["kiwispray_request"].clone())
    }

    pub(crate) fn status_of(&self, id: u64) -> String {
        self.see(id, |device| device["status"]["value"].as_str().unwrap().to_owned())
    }

    pub(crate) fn next(&self, answer: Result<Response, HttpError>) {
        self.0.borrow_mut().instead.push(answer);
    }

    pub(crate) fn core(&self) -> Core {
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
