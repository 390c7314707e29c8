//! The profiles: what a configuration says, which profile a host has to have, and whether it has it.
//!
//! The invariant: whether a host still has to be prepared is read from the host alone (its states, its metadata `bios`, its
//! attempts), so that every hook comes to the same answer without asking another.
use std::collections::BTreeSet;

use kiwispray_sdk::select::{Condition, Subject};
use kiwispray_sdk::{ConfigProblem, Error, KnownHost, ask};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const NEW: &str = "new";
const FINISHED: &str = "finished";
const METADATA: &str = "metadata.";

/// What a binding can set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    profiles: Vec<Profile>,
    /// States that install nothing and are entered without preparation.
    #[serde(default = "discover")]
    unprepared: BTreeSet<String>,
}

fn discover() -> BTreeSet<String> {
    BTreeSet::from(["discover".to_owned()])
}

/// Firmware settings of a kind of machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) name: String,
    /// Which machines it is for; the first profile that fits counts.
    when: Condition,
    /// Another version is another profile: hosts are prepared again at their next order.
    pub(crate) version: Version,
    pub(crate) prepare: Prepare,
    /// What the machine boots from once it is installed.
    #[serde(default)]
    pub(crate) put_back: Option<PutBack>,
}

/// How a profile comes onto a machine.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Prepare {
    /// An image that sets it up and writes no disk.
    Image(String),
    /// The machine's BMC.
    Redfish(Redfish),
}

/// Settings that a BMC makes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redfish {
    /// Where in the host's data the address of its BMC stands: `metadata.bmc.url`.
    url_from: String,
    /// BIOS attributes and their values.
    pub(crate) attributes: Map<String, Value>,
}

/// What the boot override becomes after the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PutBack {
    /// The disk, once.
    Disk,
    /// No override: the firmware's own order.
    None,
}

/// A number or a text; `3` and `"3"` are the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Version(pub(crate) String);

impl TryFrom<Value> for Version {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match text(&value) {
            Some(version) if !version.trim().is_empty() => Ok(Self(version)),
            Some(_) | None => Err(format!("version is {value}: write a number or a text")),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Config {
    /// The profile that a host has to have, as far as anything says so.
    pub(crate) fn profile(&self, subject: &Subject) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.when.matches(subject))
    }

    /// The profile by its name and version: none if the configuration has changed since.
    pub(crate) fn named(&self, name: &str, version: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name && profile.version.0 == version)
    }

    /// The profile and settings that a host is to get over Redfish before the installer may boot. None for a host that has
    /// them, that installs nothing, or that has begun: it must not be disturbed any more.
    ///
    /// # Errors
    /// `invalid` when its documents are no JSON, which the core does not send.
    pub(crate) fn owes(&self, host: &KnownHost, subject: &Subject) -> Result<Option<(&Profile, &Redfish)>, Error> {
        if !self.installs(host.state()) || has_begun(host)? {
            return Ok(None);
        }
        Ok(match self.profile(subject) {
            Some(profile @ Profile { prepare: Prepare::Redfish(redfish), .. }) if !profile.is_applied(subject) => {
                Some((profile, redfish))
            }
            Some(_) | None => None,
        })
    }

    /// The queue with the preparation image put before what it prepares; none if there is nothing to put.
    pub(crate) fn prepared(&self, queue: &[String], subject: &Subject) -> Option<(&Profile, &str, Vec<String>)> {
        let profile = self.profile(subject)?;
        let Prepare::Image(image) = &profile.prepare else { return None };
        let first = queue.iter().position(|state| self.installs(state))?;
        if profile.is_applied(subject) || queue.contains(image) {
            return None;
        }
        let mut queue = queue.to_vec();
        queue.insert(first, image.clone());
        Some((profile, image, queue))
    }

    /// Whether a state is one that hosts are prepared for.
    fn installs(&self, state: &str) -> bool {
        let prepares = |profile: &Profile| matches!(&profile.prepare, Prepare::Image(image) if image == state);
        state != NEW && state != FINISHED && !self.unprepared.contains(state) && !self.profiles.iter().any(prepares)
    }
}

impl Profile {
    /// Whether the host's metadata says that it has this profile in this version.
    pub(crate) fn is_applied(&self, subject: &Subject) -> bool {
        let noted = |key: &str| subject.metadata(&format!("bios.{key}")).and_then(text);
        noted("profile").is_some_and(|name| name == self.name)
            && noted("version").is_some_and(|version| version == self.version.0)
    }
}

impl Redfish {
    /// The address of a host's BMC.
    ///
    /// # Errors
    /// A sentence for the operator: there is none.
    pub(crate) fn url<'a>(&self, subject: &'a Subject) -> Result<&'a str, String> {
        let path = self.url_from.strip_prefix(METADATA).unwrap_or_default();
        let url = subject.metadata(path).and_then(Value::as_str).map(str::trim).filter(|url| !url.is_empty());
        url.ok_or_else(|| format!("{} names no BMC: set it to an address such as https://10.0.0.7", self.url_from))
    }
}

/// Whether the current step was offered to the machine. What it does then must not be cut off.
fn has_begun(host: &KnownHost) -> Result<bool, Error> {
    Ok(host.attempts > 0 || host.more()?.get("boot").is_some_and(|boot| !boot.is_null()))
}

/// Everything wrong with a configuration.
pub(crate) fn problems(config: &str) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    let mut problem = |at: String, message: String| problems.push(ConfigProblem { at, message });
    let config = match ask::parse_config::<Value>(config) {
        Ok(config) => config,
        Err(error) => {
            problem(String::new(), error.to_string());
            return problems;
        }
    };
    let mut names = BTreeSet::new();
    for (index, value) in config.get("profiles").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let at = format!("/profiles/{index}");
        let name = value
            .get("name")
            .and_then(Value::as_str)
            .map_or_else(|| (index + 1).to_string(), |name| format!("`{name}`"));
        // Conditions first, as they say which of their keys is wrong.
        if let Err(error) = Condition::deserialize(value.get("when").unwrap_or(&Value::Null)) {
            problem(format!("{at}/when"), format!("profile {name}: when: {error}"));
            continue;
        }
        match Profile::deserialize(value) {
            Err(error) => problem(at, format!("profile {name}: {error}")),
            Ok(profile) => {
                for (key, message) in profile.problems() {
                    problem(format!("{at}/{key}"), format!("profile {name}: {message}"));
                }
                if profile.name.trim().is_empty() || !names.insert(profile.name) {
                    problem(format!("{at}/name"), format!("profile {name}: every profile needs a name of its own"));
                }
            }
        }
    }
    if problems.is_empty()
        && let Err(error) = Config::deserialize(&config)
    {
        problems.push(ConfigProblem { at: String::new(), message: error.to_string() });
    }
    problems
}

impl Profile {
    fn problems(&self) -> Vec<(&'static str, String)> {
        match &self.prepare {
            Prepare::Image(image) if image.is_empty() || image == NEW || image == FINISHED => {
                vec![("prepare/image", format!("{image:?} is no image"))]
            }
            Prepare::Image(_) if self.put_back.is_some() => {
                vec![("put_back", "put_back is for redfish: an image changes no boot order".to_owned())]
            }
            Prepare::Image(_) => Vec::new(),
            Prepare::Redfish(redfish) => redfish.problems(),
        }
    }
}

impl Redfish {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let path = self.url_from.strip_prefix(METADATA);
        if path.is_none_or(|path| path.split('.').any(str::is_empty)) {
            let message = format!("url_from is {:?}: it names metadata, such as metadata.bmc.url", self.url_from);
            problems.push(("prepare/redfish/url_from", message));
        }
        if self.attributes.is_empty() {
            problems.push(("prepare/redfish/attributes", "attributes is empty: nothing would be set".to_owned()));
        }
        for (name, value) in &self.attributes {
            if value.is_null() || value.is_array() || value.is_object() {
                let message = format!("attribute {name}: {value} is no text, number, true or false");
                problems.push(("prepare/redfish/attributes", message));
            }
        }
        problems
    }
}

/// JSON Schema of the configuration.
pub(crate) fn schema() -> Value {
    let image = json!({
        "type": "object", "additionalProperties": false, "required": ["image"],
        "properties": {"image": {"type": "string", "description": "an image that writes no disk"}},
    });
    let redfish = json!({
        "type": "object", "additionalProperties": false, "required": ["redfish"],
        "properties": {"redfish": {
            "type": "object", "additionalProperties": false, "required": ["url_from", "attributes"],
            "properties": {
                "url_from": {"type": "string", "pattern": "^metadata\\.", "description": "where the BMC's address stands"},
                "attributes": {
                    "type": "object", "minProperties": 1,
                    "additionalProperties": {"type": ["string", "number", "boolean"]},
                },
            },
        }},
    });
    let profile = json!({
        "type": "object", "additionalProperties": false, "required": ["name", "when", "version", "prepare"],
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "when": {
                "type": "object", "minProperties": 1,
                "description": "product, manufacturer, …, mac or metadata.<path>; all must match, * and ? stand for any characters",
            },
            "version": {"type": ["string", "number"]},
            "prepare": {"oneOf": [image, redfish]},
            "put_back": {"enum": ["disk", "none"], "description": "the boot override after the installation"},
        },
    });
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "profiles": {"type": "array", "items": profile, "description": "the first that a machine fits counts"},
            "unprepared": {
                "type": "array", "items": {"type": "string"}, "default": ["discover"],
                "description": "states that install nothing",
            },
        },
    })
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
