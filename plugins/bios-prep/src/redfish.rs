//! A BMC, as far as a profile needs it.
//!
//! The invariant: addresses are followed from `/redfish/v1`, never built, and never lead to another server; and a system is
//! this host only if it says so by its UUID or serial number. A BMC whose address was mistyped resets nobody else's machine.
use std::time::Duration;

use kiwispray_sdk::ask::http::{self, HttpError, Request, Response};
use serde_json::{Map, Value, json};

use crate::profile::PutBack;

/// The one address that the standard fixes.
const ROOT: &str = "/redfish/v1/";
const TIMEOUT_MS: u32 = 10_000;
/// Systems behind one BMC that are looked at to find this host.
const SYSTEMS_MOST: usize = 32;
const WORDS_MOST: usize = 300;

/// Why a step did not succeed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trouble {
    /// A sentence for the operator.
    pub(crate) why: String,
    /// When the BMC wants to be asked again, if it says so.
    pub(crate) after: Option<Duration>,
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, after: None }
    }
}

/// One BMC.
#[derive(Clone, Debug)]
pub(crate) struct Bmc {
    /// Scheme, host and port.
    origin: String,
    /// The path of the service root.
    root: String,
}

/// A host's system, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct System {
    bmc: Bmc,
    link: String,
    document: Value,
}

/// The BIOS of a system, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Bios {
    link: String,
    document: Value,
}

impl Bmc {
    /// # Errors
    /// The text is no address of a BMC.
    pub(crate) fn at(url: &str) -> Result<Self, Trouble> {
        let wrong = |why: &str| Trouble::from(format!("{url:?} is no address of a BMC: {why}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("write https://10.0.0.7"))?;
        if scheme != "https" && scheme != "http" {
            return Err(wrong("it begins with https://"));
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.is_empty() || authority.contains(['@', '?', '#', '\\']) || url.contains(char::is_whitespace) {
            return Err(wrong("it is scheme, host and port; the password stands in the grant"));
        }
        let root = if path.trim_matches('/').is_empty() { ROOT } else { path };
        Ok(Self { origin: format!("{scheme}://{authority}"), root: root.to_owned() })
    }

    /// The system that is this host.
    ///
    /// # Errors
    /// There is none that proves it, or the BMC does not answer.
    pub(crate) fn system(&self, uuid: &str, serial: &str) -> Result<System, Trouble> {
        let root = self.get(&self.root)?;
        let systems = self.get(link(at(&root, "/Systems"))?)?;
        let mut seen = Vec::new();
        for member in at(&systems, "/Members").as_array().into_iter().flatten().take(SYSTEMS_MOST) {
            let link = link(member)?;
            let document = self.get(link)?;
            if is_same(&document, uuid, serial) {
                return Ok(System { bmc: self.clone(), link: link.to_owned(), document });
            }
            let named = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or("none").to_owned();
            seen.push(format!("UUID {}, serial {}", named("UUID"), named("SerialNumber")));
        }
        let seen = if seen.is_empty() { "no system".to_owned() } else { seen.join("; ") };
        Err(words(&format!("this BMC is not the host's: it has {seen}, the host UUID {uuid}, serial {serial}")).into())
    }

    fn get(&self, link: &str) -> Result<Value, Trouble> {
        let response = self.send("GET", link, None, None)?;
        response.json().map_err(|_| Trouble::from(format!("GET {link}: the BMC's answer is no JSON")))
    }

    fn send(&self, method: &str, link: &str, body: Option<&Value>, etag: Option<&str>) -> Result<Response, Trouble> {
        let url = self.url(link)?;
        let mut request: Request =
            http::request(method, url).header("accept", "application/json").timeout_ms(TIMEOUT_MS);
        if let Some(etag) = etag {
            request = request.header("if-match", etag);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        match request.send() {
            Ok(response) if response.is_success() => Ok(response),
            Ok(response) => Err(Trouble {
                why: format!("{method} {link}: {}", refusal(&response)),
                after: response.header("retry-after").and_then(|s| s.trim().parse().ok()).map(Duration::from_secs),
            }),
            Err(error) => Err(format!("{method} {link}: {}", undelivered(error)).into()),
        }
    }

    fn url(&self, link: &str) -> Result<String, Trouble> {
        let path = link.strip_prefix(&self.origin).unwrap_or(link);
        if !path.starts_with('/') || path.starts_with("//") {
            return Err(words(&format!("the BMC links to another server: {link}")).into());
        }
        Ok(format!("{}{path}", self.origin))
    }
}

impl System {
    /// # Errors
    /// The system has no BIOS, or the BMC does not answer.
    pub(crate) fn bios(&self) -> Result<Bios, Trouble> {
        let link = link(at(&self.document, "/Bios")).map_err(|_| "this system offers no BIOS settings".to_owned())?;
        Ok(Bios { link: link.to_owned(), document: self.bmc.get(link)? })
    }

    /// Has the BIOS take these settings at the next start.
    ///
    /// # Errors
    /// The BMC refuses, or does not answer.
    pub(crate) fn set(&self, bios: &Bios, attributes: &Map<String, Value>) -> Result<(), Trouble> {
        let settings = at(&bios.document, "/@Redfish.Settings");
        let target = at(settings, "/SettingsObject/@odata.id").as_str().unwrap_or(&bios.link);
        let supported = at(settings, "/SupportedApplyTimes").as_array();
        let on_reset = json!({"@odata.type": "#Settings.v1_1_0.PreferredApplyTime", "ApplyTime": "OnReset"});
        let body = if supported.is_some_and(|times| times.iter().any(|time| time == "OnReset")) {
            json!({"Attributes": attributes, "@Redfish.SettingsApplyTime": on_reset})
        } else {
            json!({ "Attributes": attributes })
        };
        let etag = self.etag(target)?;
        self.bmc.send("PATCH", target, Some(&body), etag.as_deref()).map(|_| ())
    }

    /// Boots from the network at the next start.
    ///
    /// # Errors
    /// As for [`System::set`].
    pub(crate) fn boot_network_once(&self) -> Result<(), Trouble> {
        self.boot_override("Pxe", "Once")
    }

    /// Boots as before from now on.
    ///
    /// # Errors
    /// As for [`System::set`].
    pub(crate) fn put_back(&self, to: PutBack) -> Result<(), Trouble> {
        match to {
            PutBack::Disk => self.boot_override("Hdd", "Once"),
            PutBack::None => self.boot_override("None", "Disabled"),
        }
    }

    fn boot_override(&self, target: &str, enabled: &str) -> Result<(), Trouble> {
        let allowed = at(&self.document, "/Boot/BootSourceOverrideTarget@Redfish.AllowableValues").as_array();
        if target != "None" && allowed.is_some_and(|allowed| !allowed.iter().any(|value| value == target)) {
            return Err(format!("this system cannot be told to boot from {target}").into());
        }
        let body = json!({"Boot": {"BootSourceOverrideTarget": target, "BootSourceOverrideEnabled": enabled}});
        let etag = self.etag(&self.link)?;
        self.bmc.send("PATCH", &self.link, Some(&body), etag.as_deref()).map(|_| ())
    }

    /// Whether the machine is switched off.
    pub(crate) fn is_off(&self) -> bool {
        is_off(&self.document)
    }

    /// Starts the machine, or starts it again.
    ///
    /// # Errors
    /// As for [`System::set`].
    pub(crate) fn reset(&self) -> Result<(), Trouble> {
        let target = at(&self.document, "/Actions/#ComputerSystem.Reset/target").as_str();
        let target = target.ok_or_else(|| "this system cannot be reset".to_owned())?;
        let kind = reset_type(&self.document)?;
        self.bmc.send("POST", target, Some(&json!({"ResetType": kind})), None).map(|_| ())
    }

    /// What a change must be made for, where the BMC wants that.
    fn etag(&self, link: &str) -> Result<Option<String>, Trouble> {
        let response = self.bmc.send("GET", link, None, None)?;
        let written = || Some(at(&response.json().ok()?, "/@odata.etag").as_str()?.to_owned());
        Ok(response.header("etag").map(str::to_owned).or_else(written))
    }
}

impl Bios {
    /// The attributes that are not as they are wanted.
    ///
    /// # Errors
    /// An attribute that this BIOS does not have.
    pub(crate) fn differing(&self, wanted: &Map<String, Value>) -> Result<Map<String, Value>, Trouble> {
        let now = at(&self.document, "/Attributes");
        let missing: Vec<&str> = wanted.keys().filter(|name| now.get(name).is_none()).map(String::as_str).collect();
        if !missing.is_empty() {
            return Err(words(&format!("this BIOS has no attribute {}", missing.join(", "))).into());
        }
        let differs = |(name, value): &(&String, &Value)| now.get(name).is_none_or(|now| !is_alike(now, value));
        Ok(wanted.iter().filter(differs).map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// What the BIOS said about settings that it was given, if that was not good.
    pub(crate) fn complaint(&self) -> Option<String> {
        let messages = at(&self.document, "/@Redfish.Settings/Messages").as_array()?;
        let bad = messages
            .iter()
            .filter(|message| at(message, "/Severity") != "OK" && at(message, "/MessageSeverity") != "OK");
        let said: Vec<&str> = bad.filter_map(|message| at(message, "/Message").as_str()).collect();
        (!said.is_empty()).then(|| words(&said.join("; ")))
    }
}

/// BMCs write numbers and switches as texts at times.
fn is_alike(now: &Value, wanted: &Value) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    now == wanted || text(now) == text(wanted)
}

/// What stands at a path; `null` if nothing does.
fn at<'a>(document: &'a Value, pointer: &str) -> &'a Value {
    document.pointer(pointer).unwrap_or(&Value::Null)
}

fn link(of: &Value) -> Result<&str, Trouble> {
    at(of, "/@odata.id").as_str().ok_or_else(|| "the BMC does not say where its systems are".to_owned().into())
}

/// Whether a system proves to be the host. Twins in one case share a serial number, so a UUID that differs counts more.
fn is_same(document: &Value, uuid: &str, serial: &str) -> bool {
    let theirs = |key: &str| document.get(key).and_then(Value::as_str).map(str::trim).unwrap_or_default();
    match (uuid_bytes(theirs("UUID")), uuid_bytes(uuid)) {
        (Some(theirs), Some(ours)) => theirs == ours || swapped(theirs) == ours,
        (_, _) => !serial.trim().is_empty() && theirs("SerialNumber").eq_ignore_ascii_case(serial.trim()),
    }
}

fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut bytes = [0; 16];
    if hex.len() != 32 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (bytes != [0; 16] && bytes != [255; 16]).then_some(bytes)
}

/// The other byte order: firmware and BMC disagree about the first three fields at times.
fn swapped(mut bytes: [u8; 16]) -> [u8; 16] {
    for field in [0..4, 4..6, 6..8] {
        if let Some(field) = bytes.get_mut(field) {
            field.reverse();
        }
    }
    bytes
}

fn is_off(system: &Value) -> bool {
    at(system, "/PowerState") == "Off"
}

fn reset_type(system: &Value) -> Result<&'static str, Trouble> {
    // The machine waits in its boot script: there is nothing to shut down gracefully.
    let wanted: &[&'static str] =
        if is_off(system) { &["On", "ForceOn"] } else { &["ForceRestart", "PowerCycle", "GracefulRestart"] };
    let allowed = at(system, "/Actions/#ComputerSystem.Reset/ResetType@Redfish.AllowableValues").as_array();
    let is_allowed = |kind: &&'static str| allowed.is_none_or(|allowed| allowed.iter().any(|value| value == *kind));
    let kind = wanted.iter().copied().find(is_allowed);
    kind.ok_or_else(|| "this system cannot be started again over Redfish".to_owned().into())
}

/// What a BMC says about a refusal, in its own words.
fn refusal(response: &Response) -> String {
    let body: Value = response.json().unwrap_or_default();
    let error = at(&body, "/error");
    let infos = at(error, "/@Message.ExtendedInfo").as_array().map(Vec::as_slice).unwrap_or_default();
    let all = |key: &str| infos.iter().filter_map(|info| at(info, key).as_str()).collect::<Vec<_>>().join("; ");
    let general = at(error, "/message").as_str().unwrap_or_default().to_owned();
    // Some give their messages' names only; then the general sentence says more.
    let said =
        [all("/Message"), general, all("/MessageId")].into_iter().find(|said| !said.is_empty()).unwrap_or_default();
    let access = if matches!(response.status, 401 | 403) { " (user and password stand in the grant)" } else { "" };
    words(&format!("the BMC answers {}{access} {said}", response.status))
}

fn undelivered(error: HttpError) -> String {
    match error {
        HttpError::Denied(why) => words(&format!("not granted: {why}")),
        HttpError::Invalid(why) => words(&format!("cannot be asked: {why}")),
        HttpError::NotSent(why) => words(&format!("the BMC cannot be reached: {why}")),
        HttpError::Unknown(why) => words(&format!("the BMC gave no answer: {why}")),
        HttpError::TooLarge => "the BMC's answer is too large".to_owned(),
    }
}

/// One line of bounded length: it goes onto consoles and into metadata.
fn words(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MOST).collect()
}

#[cfg(test)]
#[path = "redfish_tests.rs"]
mod tests;
