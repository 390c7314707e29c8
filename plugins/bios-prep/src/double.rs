//! A BMC in memory that keeps what sushy-tools does not: settings wait for a reset, resources stand where nobody would
//! guess, changes need their ETag.
use std::cell::RefCell;
use std::rc::Rc;

use kiwispray_sdk::KnownHost;
use kiwispray_sdk::ask::http::{HttpError, Request, Response};
use kiwispray_sdk::testing::{Core, host, response};
use serde_json::{Map, Value, json};

pub(crate) const UUID: &str = "4c4c4544-0000-1000-8000-000000000007";
pub(crate) const CONFIG: &str = r#"{"profiles": [
    {"name": "kvm", "when": {"product": "KVM"}, "version": 1, "prepare": {"image": "bios-kvm"}},
    {"name": "r750", "when": {"product": "R750"}, "version": 2, "put_back": "disk",
     "prepare": {"redfish": {"url_from": "metadata.bmc.url", "attributes": {"Turbo": "Off", "Cores": 8}}}}]}"#;

#[derive(Debug)]
pub(crate) struct Double {
    pub(crate) uuid: String,
    pub(crate) serial: String,
    pub(crate) power: String,
    pub(crate) attributes: Map<String, Value>,
    pub(crate) pending: Map<String, Value>,
    /// Whether a reset brings the pending settings in force.
    pub(crate) obeys: bool,
    pub(crate) boot: (String, String),
    pub(crate) resets: Vec<String>,
    /// Answers everything but GET, or everything, with this.
    pub(crate) refuses: Option<(u16, Value)>,
    pub(crate) is_down: bool,
    pub(crate) systems: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct Bench(pub(crate) Rc<RefCell<Double>>);

impl Bench {
    pub(crate) fn new() -> Self {
        let attributes = json!({"Turbo": "On", "Cores": "8", "Other": true}).as_object().unwrap().clone();
        Self(Rc::new(RefCell::new(Double {
            uuid: UUID.to_uppercase(),
            serial: "S7".into(),
            power: "Off".into(),
            attributes,
            pending: Map::new(),
            obeys: true,
            boot: ("None".into(), "Disabled".into()),
            resets: Vec::new(),
            refuses: None,
            is_down: false,
            systems: json!([{"@odata.id": "/rf/other"}, {"@odata.id": "/rf/node"}]),
        })))
    }

    /// The host behind this BMC in a server with [`CONFIG`].
    pub(crate) fn core(&self, host: KnownHost) -> Core {
        let double = self.0.clone();
        Core::new()
            .config(CONFIG)
            .image("bios-kvm")
            .budget_ms(60_000)
            .host(host)
            .http(move |request| double.borrow_mut().answer(request))
    }
}

/// A host that is about to be installed.
pub(crate) fn ordered(product: &str, states: &str) -> KnownHost {
    KnownHost {
        states: states.split(',').map(str::to_owned).collect(),
        metadata: r#"{"bmc":{"url":"https://bmc"}}"#.into(),
        more: json!({"hardware": {"product": product}}).to_string(),
        ..host("new")
    }
}

impl Double {
    pub(crate) fn answer(&mut self, request: &Request) -> Result<Response, HttpError> {
        if self.is_down {
            return Err(HttpError::NotSent("connection refused".into()));
        }
        let path = request.url.strip_prefix("https://bmc").expect("it asks nobody else");
        let body = request.body.as_deref().map(|body| serde_json::from_slice(body).unwrap()).unwrap_or(Value::Null);
        if let Some((status, body)) = self.refuses.as_ref().filter(|_| request.method != "GET") {
            return Ok(response(*status, body));
        }
        if request.method == "PATCH" {
            let etag = request.headers.iter().find(|(name, _)| name == "if-match").map(|(_, etag)| etag.as_str());
            assert_eq!(etag, Some("W/\"1\""), "{path} is changed as it was read");
        }
        let tagged = |mut body: Value| {
            body["@odata.etag"] = json!("W/\"1\"");
            Ok(response(200, &body))
        };
        match (request.method.as_str(), path) {
            ("GET", "/redfish/v1/") => Ok(response(200, &json!({"Systems": {"@odata.id": "/rf/all"}}))),
            ("GET", "/rf/all") => Ok(response(200, &json!({"Members": self.systems}))),
            ("GET", "/rf/other") => {
                Ok(response(200, &json!({"UUID": "11111111-0000-1000-8000-000000000007", "SerialNumber": "S7"})))
            }
            ("GET", "/rf/node") => tagged(self.system()),
            ("PATCH", "/rf/node") => {
                let text = |key: &str| body["Boot"][key].as_str().unwrap().to_owned();
                self.boot = (text("BootSourceOverrideTarget"), text("BootSourceOverrideEnabled"));
                Ok(response(200, &json!({})))
            }
            ("GET", "/rf/firmware") => Ok(response(200, &self.bios())),
            ("GET", "/rf/firmware/next") => tagged(json!({"Attributes": self.pending})),
            ("PATCH", "/rf/firmware/next") => {
                assert_eq!(body["@Redfish.SettingsApplyTime"]["ApplyTime"], "OnReset");
                self.pending = body["Attributes"].as_object().unwrap().clone();
                Ok(response(202, &json!({})))
            }
            ("POST", "/rf/start-again") => {
                self.resets.push(body["ResetType"].as_str().unwrap().to_owned());
                self.power = "On".into();
                if self.obeys {
                    self.attributes.append(&mut self.pending);
                }
                Ok(response(204, &Value::Null))
            }
            (method, path) => panic!("{method} {path} was built, not followed"),
        }
    }

    fn system(&self) -> Value {
        json!({
            "UUID": self.uuid, "SerialNumber": self.serial, "PowerState": self.power,
            "Bios": {"@odata.id": "/rf/firmware"},
            "Boot": {"BootSourceOverrideTarget@Redfish.AllowableValues": ["Pxe", "Hdd"]},
            "Actions": {"#ComputerSystem.Reset": {
                "target": "/rf/start-again",
                "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "PowerCycle"],
            }},
        })
    }

    fn bios(&self) -> Value {
        let messages = if self.pending.is_empty() {
            json!([])
        } else {
            json!([{"Severity": "Critical", "Message": "a jumper is set"}])
        };
        json!({
            "Attributes": self.attributes,
            "@Redfish.Settings": {
                "SettingsObject": {"@odata.id": "/rf/firmware/next"},
                "SupportedApplyTimes": ["OnReset"],
                "Messages": messages,
            },
        })
    }
}
