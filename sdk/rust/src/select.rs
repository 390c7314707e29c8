//! Conditions on hosts, as configurations write them: `{"product": "PowerEdge R6*", "metadata.site": ["fra1", "fra2"]}`.
//!
//! The invariant: a condition that was parsed means something for every key in it, and what a host does not have never
//! matches. So a mistyped key or an empty DMI string cannot widen a rule.
//!
//! ```
//! use kiwispray_sdk::select::{Condition, Subject};
//! use kiwispray_sdk::testing::{host, request};
//!
//! let condition: Condition = serde_json::from_str(r#"{"product": "PowerEdge R6*", "mac": "52-54-00"}"#).unwrap();
//! let mut boot = request(host("new"));
//! boot.facts.push(("product".into(), "PowerEdge R650".into()));
//! assert!(condition.matches(&Subject::booting(&boot).unwrap()));
//! ```
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{BootRequest, Error, KnownHost};

/// What the firmware tells of a machine, and the keys of conditions on it; `mac` and `metadata.…` are the others.
const FACTS: [&str; 8] = ["manufacturer", "product", "asset", "serial", "uuid", "platform", "buildarch", "hostname"];
const METADATA: &str = "metadata.";

/// Everything that a host must be. At least one key; all of them must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Condition(Vec<(Key, Vec<Pattern>)>, Map<String, Value>);

#[derive(Clone, Debug, PartialEq)]
enum Key {
    Fact(String),
    Mac,
    Metadata(Vec<String>),
}

/// One of the values that match.
#[derive(Clone, Debug, PartialEq)]
enum Pattern {
    /// Text without regard to case, in which `*` stands for any characters and `?` for one.
    Text(Vec<char>),
    /// How a MAC begins, in lower case with colons.
    MacPrefix(String),
    /// A number, `true` or `false`, in metadata.
    Value(Value),
}

impl Condition {
    /// Whether the host is all of this.
    #[must_use]
    pub fn matches(&self, subject: &Subject) -> bool {
        self.0.iter().all(|(key, patterns)| patterns.iter().any(|pattern| subject.is(key, pattern)))
    }
}

impl TryFrom<Map<String, Value>> for Condition {
    type Error = String;

    fn try_from(map: Map<String, Value>) -> Result<Self, String> {
        if map.is_empty() {
            return Err(
                "a condition without keys would take every host; write {\"mac\": \"*\"} if that is meant".into()
            );
        }
        let parsed = map.iter().map(|(key, value)| {
            let key = Key::parse(key)?;
            Ok((key.clone(), patterns(&key, value)?))
        });
        Ok(Self(parsed.collect::<Result<_, String>>()?, map))
    }
}

impl From<Condition> for Map<String, Value> {
    fn from(condition: Condition) -> Self {
        condition.1
    }
}

impl Key {
    fn parse(key: &str) -> Result<Self, String> {
        if let Some(path) = key.strip_prefix(METADATA) {
            let path = split_path(path);
            if path.iter().any(String::is_empty) {
                return Err(format!("`{key}` names no metadata: write metadata.site, or metadata.network.vlan"));
            }
            return Ok(Self::Metadata(path));
        }
        match key {
            "mac" => Ok(Self::Mac),
            fact if FACTS.contains(&fact) => Ok(Self::Fact(fact.to_owned())),
            _ => Err(format!("there is no key `{key}`: use {}, mac or metadata.<path>", FACTS.join(", "))),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Fact(name) => name.clone(),
            Self::Mac => "mac".to_owned(),
            Self::Metadata(path) => format!("{METADATA}{}", path.join(".")),
        }
    }
}

fn patterns(key: &Key, value: &Value) -> Result<Vec<Pattern>, String> {
    let one = |value: &Value| match (key, value) {
        (Key::Mac, Value::String(text)) => mac_prefix(text).map(Pattern::MacPrefix),
        (_, Value::String(text)) if text.trim().is_empty() => {
            Err(format!("`{}` has an empty value, which nothing matches; `*` is anything", key.name()))
        }
        (_, Value::String(text)) => Ok(Pattern::Text(folded(text))),
        (Key::Metadata(_), Value::Number(_) | Value::Bool(_)) => Ok(Pattern::Value(value.clone())),
        (_, Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(format!("`{}` is {value}: write a text such as \"R6*\", or a list of texts", key.name()))
        }
    };
    match value {
        Value::Array(values) if values.is_empty() => {
            Err(format!("`{}` is an empty list, which nothing matches", key.name()))
        }
        Value::Array(values) => values.iter().map(one).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Ok(vec![one(value)?]),
    }
}

fn mac_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim().trim_end_matches('*').trim_end_matches([':', '-']).to_ascii_lowercase().replace('-', ":");
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = prefix.split(':').collect();
    let everything = prefix.is_empty() && text.trim() == "*";
    if everything || (parts.len() <= 6 && parts.iter().all(|part| is_byte(part))) {
        return Ok(prefix);
    }
    Err(format!("`mac` is {text:?}: write how it begins, in whole bytes, such as \"52:54:00\""))
}

/// A host, or a machine that boots, as conditions see it.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    facts: BTreeMap<String, String>,
    macs: Vec<String>,
    metadata: Value,
}

impl Subject {
    /// A known host, with the hardware that it reported when it last booted.
    ///
    /// # Errors
    /// `invalid` when its documents are no JSON, which the core does not send.
    pub fn of(host: &KnownHost) -> Result<Self, Error> {
        let more: Value = serde_json::from_str(&host.more)
            .map_err(|error| Error::Invalid(format!("what the server knows is no JSON: {error}")))?;
        let mut subject = Self { metadata: host.metadata()?, macs: host.macs.clone(), facts: BTreeMap::new() };
        for name in FACTS {
            subject.learn(name, more.pointer(&format!("/hardware/{name}")).and_then(Value::as_str).unwrap_or_default());
        }
        subject.learn("serial", &host.serial);
        subject.learn("uuid", &host.uuid);
        subject.learn("hostname", host.hostname.as_deref().unwrap_or_default());
        Ok(subject)
    }

    /// A machine that boots: what it reports now counts more than what is known of it.
    ///
    /// # Errors
    /// As for [`Subject::of`].
    pub fn booting(request: &BootRequest) -> Result<Self, Error> {
        let mut subject = Self::of(&request.host)?;
        for (name, value) in &request.facts {
            // A name that was given to a host is worth more than the one that DHCP gave.
            if name != "hostname" || !subject.facts.contains_key(name) {
                subject.learn(name, value);
            }
        }
        Ok(subject)
    }

    /// The metadata at a dotted path; a dot inside a key is written `\.`.
    #[must_use]
    pub fn metadata(&self, path: &str) -> Option<&Value> {
        self.metadata_at(&split_path(path))
    }

    fn learn(&mut self, name: &str, value: &str) {
        if !value.trim().is_empty() {
            self.facts.insert(name.to_owned(), value.to_owned());
        }
    }

    fn metadata_at(&self, path: &[String]) -> Option<&Value> {
        path.iter().try_fold(&self.metadata, |value, key| value.as_object()?.get(key))
    }

    fn is(&self, key: &Key, pattern: &Pattern) -> bool {
        match (key, pattern) {
            (Key::Fact(name), _) => self.facts.get(name).is_some_and(|text| is_text(pattern, text)),
            (Key::Mac, Pattern::MacPrefix(prefix)) => self.macs.iter().any(|mac| mac.starts_with(prefix.as_str())),
            (Key::Mac, Pattern::Text(_) | Pattern::Value(_)) => false,
            (Key::Metadata(path), _) => self.metadata_at(path).is_some_and(|value| is_value(pattern, value)),
        }
    }
}

/// A list matches if one of its items does; an object never.
fn is_value(pattern: &Pattern, value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| !item.is_array() && is_value(pattern, item)),
        Value::String(text) => is_text(pattern, text),
        // Whether a rack is 7 or "7" depends on who wrote it down.
        Value::Number(_) | Value::Bool(_) => {
            *pattern == Pattern::Value(value.clone()) || is_text(pattern, &value.to_string())
        }
        Value::Null | Value::Object(_) => false,
    }
}

fn is_text(pattern: &Pattern, text: &str) -> bool {
    match pattern {
        Pattern::Text(pattern) => !text.trim().is_empty() && glob(pattern, &folded(text)),
        Pattern::Value(value) => serde_json::from_str::<Value>(text).is_ok_and(|text| text == *value),
        Pattern::MacPrefix(_) => false,
    }
}

fn folded(text: &str) -> Vec<char> {
    text.trim().chars().flat_map(char::to_lowercase).collect()
}

/// `*` and `?`. Goes back to the last star only, so its time is bounded by the product of both lengths.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while let Some(character) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == character => {
                p += 1;
                t += 1;
            }
            Some(_) | None => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|character| *character == '*')
}

fn split_path(path: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        let next = match character {
            '.' => {
                keys.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(key) = keys.last_mut() {
            key.push(next);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{host, request};

    fn condition(json: &str) -> Condition {
        serde_json::from_str(json).unwrap()
    }

    fn problem(json: &str) -> String {
        serde_json::from_str::<Condition>(json).unwrap_err().to_string()
    }

    fn subject() -> Subject {
        let mut machine = host("new");
        machine.serial = "CZJ1234".into();
        machine.metadata =
            r#"{"site":"fra1","rack":7,"tags":["gpu","x"],"net":{"vlan.id":12},"odd":{"a":1},"no":null,"empty":""}"#
                .into();
        machine.more = r#"{"hardware":{"manufacturer":"Dell Inc.","product":"old"}}"#.into();
        let mut request = request(machine);
        request.facts = vec![("product".into(), "PowerEdge R650".into()), ("asset".into(), String::new())];
        Subject::booting(&request).unwrap()
    }

    #[test]
    fn texts_match_whole_without_regard_to_case_and_stars_stand_for_anything() {
        for yes in ["PowerEdge R650", "poweredge r650", "*R65?", "Power*R*0", "*", " PowerEdge R650 "] {
            assert!(condition(&format!(r#"{{"product": {yes:?}}}"#)).matches(&subject()), "{yes}");
        }
        for no in ["PowerEdge", "R650", "*R65", "?", "PowerEdge R650?", "old"] {
            assert!(!condition(&format!(r#"{{"product": {no:?}}}"#)).matches(&subject()), "{no}");
        }
    }

    #[test]
    fn every_key_must_match_and_one_of_a_list_is_enough() {
        assert!(condition(r#"{"manufacturer":["HP*","Dell*"],"serial":"CZJ*"}"#).matches(&subject()));
        assert!(!condition(r#"{"manufacturer":["HP*","Dell*"],"serial":"ABC*"}"#).matches(&subject()));
    }

    #[test]
    fn macs_match_by_their_beginning_in_any_notation() {
        for yes in ["52:54:00", "52-54-00-*", "52:54:00:00:00:07", "*"] {
            assert!(condition(&format!(r#"{{"mac": {yes:?}}}"#)).matches(&subject()), "{yes}");
        }
        assert!(!condition(r#"{"mac": "52:54:01"}"#).matches(&subject()));
        for wrong in ["", "5", "52:5", "dell", "52:54:00:00:00:07:08", "**"] {
            assert!(problem(&format!(r#"{{"mac": {wrong:?}}}"#)).contains("`mac`"), "{wrong}");
        }
    }

    #[test]
    fn metadata_matches_texts_numbers_and_items_of_lists() {
        for yes in [
            r#"{"metadata.site":"fra?"}"#,
            r#"{"metadata.rack":7}"#,
            r#"{"metadata.rack":"7"}"#,
            r#"{"metadata.tags":"gpu"}"#,
            r#"{"metadata.net.vlan\\.id":[11,12]}"#,
        ] {
            assert!(condition(yes).matches(&subject()), "{yes}");
        }
        for no in [
            r#"{"metadata.site.deeper":"*"}"#,
            r#"{"metadata.odd":"*"}"#,
            r#"{"metadata.no":"*"}"#,
            r#"{"metadata.empty":"*"}"#,
            r#"{"metadata.gone":"*"}"#,
            r#"{"metadata.rack":8}"#,
            r#"{"metadata.rack":true}"#,
        ] {
            assert!(!condition(no).matches(&subject()), "{no}");
        }
    }

    #[test]
    fn what_a_host_does_not_have_never_matches() {
        assert!(!condition(r#"{"asset":"*"}"#).matches(&subject()));
        assert!(!condition(r#"{"platform":"*"}"#).matches(&subject()));
    }

    #[test]
    fn a_condition_that_means_nothing_is_refused_with_its_key() {
        assert!(problem("{}").contains("every host"));
        assert!(problem(r#"{"prodcut":"R650"}"#).contains("prodcut"));
        assert!(problem(r#"{"product":""}"#).contains("`product`"));
        assert!(problem(r#"{"product":[]}"#).contains("`product`"));
        assert!(problem(r#"{"product":7}"#).contains("`product`"));
        assert!(problem(r#"{"product":{"a":1}}"#).contains("`product`"));
        assert!(problem(r#"{"metadata.":"x"}"#).contains("`metadata.`"));
        assert!(problem(r#"{"metadata.a..b":"x"}"#).contains("`metadata.a..b`"));
        assert!(problem(r#"{"metadata.a":[[1]]}"#).contains("`metadata.a`"));
    }

    #[test]
    fn hostile_patterns_and_values_take_no_time() {
        let pattern = format!("{}b", "*a".repeat(200));
        let condition = condition(&format!(r#"{{"product":{pattern:?}}}"#));
        let mut boot = request(host("new"));
        boot.facts.push(("product".into(), "a".repeat(5_000)));
        assert!(!condition.matches(&Subject::booting(&boot).unwrap()));
        boot.host.metadata = format!(r#"{{"tags":{:?}}}"#, vec!["x"; 10_000]);
        assert!(!super::tests::condition(r#"{"metadata.tags":"y*"}"#).matches(&Subject::booting(&boot).unwrap()));
    }

    #[test]
    fn a_condition_is_written_as_it_was_read() {
        let json = r#"{"mac":"52-54","metadata.rack":[7,"8"]}"#;
        assert_eq!(serde_json::to_string(&condition(json)).unwrap(), json);
    }
}
