//! A written case: what a plugin is asked, what the core would answer it, and what is expected. Every key means something; a
//! mistyped one would be an expectation that silently does not hold.
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Map, Value};

use crate::hooks::{BootRequest, Event, Hook, KnownHost, RenderRequest, TransitionRequest};

/// The folder of a plugin's cases.
const CASES: &str = "cases";

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file's name without `.json`.
    pub name: String,
    /// What the plugin is asked.
    pub asked: Asked,
    /// The configuration; none: the example of `plugin.toml`.
    pub config: Option<Map<String, Value>>,
    /// What the core is like.
    pub core: Core,
    /// What must come of it.
    pub expect: Expect,
}

/// A hook and what it is given.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is the hook of the same name")]
pub enum Asked {
    Boot(BootRequest),
    Discovery(BootRequest),
    Render(RenderRequest),
    Transition(TransitionRequest),
    Events(Vec<Event>),
    Schedule(String),
}

/// What the core is like in a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Core {
    /// The images that it has.
    pub images: Vec<String>,
    /// The boot templates that it has.
    pub templates: Vec<String>,
    /// The hosts that it knows; the one of the request is among them in any case.
    #[serde(deserialize_with = "known_hosts")]
    pub hosts: Vec<KnownHost>,
    /// What stands in the plugin's kv, as JSON documents.
    pub kv: BTreeMap<String, Value>,
    /// What stands in the plugin's kv, as plain text.
    pub kv_text: BTreeMap<String, String>,
    /// What other servers answer, each once, in this order per method and URL.
    pub http: Vec<Exchange>,
    /// The secrets that `signing` can use.
    pub secrets: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Which try of the call it is.
    pub attempt: u32,
    /// The same for every retry.
    pub call_id: String,
    /// Whether nothing is committed.
    pub dry_run: bool,
    /// What the call has; none: as the server gives it.
    pub budget_ms: Option<u32>,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            images: Vec::new(),
            templates: Vec::new(),
            hosts: Vec::new(),
            kv: BTreeMap::new(),
            kv_text: BTreeMap::new(),
            http: Vec::new(),
            secrets: BTreeMap::new(),
            // 2026-01-01: a time that is none would be taken for an absent one.
            now_ms: 1_767_225_600_000,
            attempt: 1,
            call_id: "case".to_owned(),
            dry_run: false,
            budget_ms: None,
        }
    }
}

/// What another server answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ExchangeFile")]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// What comes back.
    pub answer: ExchangeAnswer,
}

/// An answer, or why there is none.
#[derive(Clone, Debug)]
pub enum ExchangeAnswer {
    /// An answer.
    Response(ScriptedResponse),
    /// Nothing reached the server.
    NotSent(String),
    /// The server may have acted on it.
    Unknown(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ExchangeFile {
    method: String,
    url: String,
    response: Option<ScriptedResponse>,
    not_sent: Option<String>,
    unknown: Option<String>,
}

impl TryFrom<ExchangeFile> for Exchange {
    type Error = String;

    fn try_from(file: ExchangeFile) -> Result<Self, String> {
        let ExchangeFile { method, url, response, not_sent, unknown } = file;
        let answer = match (response, not_sent, unknown) {
            (Some(response), None, None) => ExchangeAnswer::Response(response),
            (None, Some(why), None) => ExchangeAnswer::NotSent(why),
            (None, None, Some(why)) => ExchangeAnswer::Unknown(why),
            _ => return Err(format!("{method} {url}: one of `response`, `not-sent`, `unknown` is expected")),
        };
        Ok(Self { method, url, answer })
    }
}

/// An answer with a body of one kind, or none.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScriptedResponse {
    /// The status.
    pub status: u16,
    /// The headers; `content-type` is there for JSON.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON.
    pub json: Option<Value>,
    /// The body as text.
    pub text: Option<String>,
}

impl Default for ScriptedResponse {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), json: None, text: None }
    }
}

/// What must come of a case. What is not named may be anything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// The verdict: `"pass"`, `{"image": …}`, `{"hold": …}`, `"allow"`, …; keys that are not named may be anything.
    pub verdict: Option<Value>,
    /// The whole patch, with the keys that it changes; `null`: none.
    #[serde(deserialize_with = "named")]
    pub patch: Option<Value>,
    /// The reason, in whole.
    pub reason: Option<String>,
    /// Variables that must be there.
    pub variables: Option<Value>,
    /// How many events are done.
    pub done: Option<u32>,
    /// When a job runs again: `"at-period"` or `{"after-ms": …}`.
    pub next: Option<Value>,
    /// How it fails.
    pub error: Option<ExpectedError>,
    /// Texts that the notes contain.
    pub notes: Vec<String>,
    /// What is sent, in order; keys that are not named may be anything.
    pub http: Option<Vec<Value>>,
    /// What stands in kv afterwards, as JSON documents; `null`: nothing.
    pub kv: BTreeMap<String, Value>,
    /// What hosts are like afterwards, by their numbers; keys that are not named may be anything.
    pub hosts: BTreeMap<u64, Value>,
}

impl Expect {
    /// Whether it says anything about an answer.
    pub(super) fn has_answer(&self) -> bool {
        let answers = [&self.verdict, &self.patch, &self.variables, &self.next];
        answers.into_iter().any(Option::is_some) || self.reason.is_some() || self.done.is_some()
    }
}

/// How a call fails.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedError {
    /// `invalid`, `retry`, `failed`, `fatal`, `trap`, `timeout`, `denied`, …
    pub class: String,
    /// What the text contains.
    #[serde(default)]
    pub text: String,
}

/// Why there is no case.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The folder has none.
    #[error("{}: there are no cases (*.json): each is a file with `hook`, `request` and `expect`", .0.display())]
    None(PathBuf),
    /// It cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It says something else.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// With line and column, if they are known.
        problem: String,
    },
}

/// The cases of a plugin's folder, by name.
///
/// # Errors
/// There are none, or one is none.
pub fn cases(folder: &Path) -> Result<Vec<Case>, CaseError> {
    let folder = folder.join(CASES);
    let mut paths = Vec::new();
    match fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(|error| CaseError::Unreadable { path: folder.clone(), error })?.path();
                if path.extension().is_some_and(|extension| extension == "json") {
                    paths.push(path);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(CaseError::Unreadable { path: folder, error }),
    }
    if paths.is_empty() {
        return Err(CaseError::None(folder));
    }
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the file")]
    about: String,
    hook: Hook,
    request: Value,
    config: Option<Map<String, Value>>,
    #[serde(default)]
    core: Core,
    expect: Expect,
}

impl Case {
    fn read(path: &Path) -> Result<Self, CaseError> {
        let text = fs::read_to_string(path).map_err(|error| CaseError::Unreadable { path: path.to_owned(), error })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(name, &text).map_err(|problem| CaseError::Malformed { path: path.to_owned(), problem })
    }

    /// Of a file's text. The error is a sentence.
    pub(super) fn parse(name: String, text: &str) -> Result<Self, String> {
        let file: CaseFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.expect.is_empty() {
            return Err("`expect` expects nothing".to_owned());
        }
        let asked = Asked::parse(file.hook, file.request).map_err(|error| format!("`request`: {error}"))?;
        Ok(Self { name, asked, config: file.config, core: file.core, expect: file.expect })
    }
}

impl Expect {
    fn is_empty(&self) -> bool {
        let answers = [&self.verdict, &self.patch, &self.variables, &self.next];
        answers.iter().all(|answer| answer.is_none())
            && self.reason.is_none()
            && self.done.is_none()
            && self.error.is_none()
            && self.http.is_none()
            && self.notes.is_empty()
            && self.kv.is_empty()
            && self.hosts.is_empty()
    }
}

impl Asked {
    /// The hook.
    #[must_use]
    pub fn hook(&self) -> Hook {
        match self {
            Self::Boot(_) => Hook::Boot,
            Self::Discovery(_) => Hook::Discovery,
            Self::Render(_) => Hook::Render,
            Self::Transition(_) => Hook::Transition,
            Self::Events(_) => Hook::Events,
            Self::Schedule(_) => Hook::Schedule,
        }
    }

    /// The hosts that it is about.
    pub(super) fn hosts(&self) -> Vec<KnownHost> {
        match self {
            Self::Boot(request) => vec![request.host.clone()],
            Self::Render(request) => vec![request.host.clone()],
            Self::Transition(request) => vec![request.host.clone()],
            Self::Events(events) => events.iter().filter_map(|event| event.host.clone()).collect(),
            // A machine that is being discovered is not known yet.
            Self::Discovery(_) | Self::Schedule(_) => Vec::new(),
        }
    }

    fn parse(hook: Hook, request: Value) -> Result<Self, serde_json::Error> {
        let booted = |request: BootFile, id: u64| {
            let host = request.host.known(id);
            BootRequest { host, facts: request.facts.into_iter().collect() }
        };
        Ok(match hook {
            Hook::Boot => Self::Boot(booted(serde_json::from_value(request)?, FIRST_ID)),
            Hook::Discovery => Self::Discovery(booted(serde_json::from_value(request)?, 0)),
            Hook::Render => {
                let RenderFile { host, document, vars } = serde_json::from_value(request)?;
                Self::Render(RenderRequest { host: host.known(FIRST_ID), document, vars })
            }
            Hook::Transition => {
                let TransitionFile { host, to, cause, actor } = serde_json::from_value(request)?;
                Self::Transition(TransitionRequest { host: host.known(FIRST_ID), to, cause, actor })
            }
            Hook::Events => {
                let EventsFile { events } = serde_json::from_value(request)?;
                let numbered = events.into_iter().zip(1..);
                Self::Events(numbered.map(|(event, number)| event.known(number)).collect())
            }
            Hook::Schedule => Self::Schedule(serde_json::from_value::<ScheduleFile>(request)?.job),
        })
    }
}

/// The number of a host that a case does not number.
const FIRST_ID: u64 = 1;

/// A host, of which a case writes what matters to it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HostFile {
    id: Option<u64>,
    revision: Option<u64>,
    hostname: Option<String>,
    serial: String,
    uuid: String,
    macs: Vec<String>,
    states: Vec<String>,
    attempts: u32,
    metadata: Map<String, Value>,
    more: Map<String, Value>,
}

impl HostFile {
    fn known(self, id: u64) -> KnownHost {
        let states = if self.states.is_empty() { vec!["new".to_owned()] } else { self.states };
        KnownHost {
            id: self.id.unwrap_or(id),
            revision: self.revision.unwrap_or(1),
            hostname: self.hostname,
            serial: self.serial,
            uuid: self.uuid,
            macs: self.macs,
            states,
            attempts: self.attempts,
            metadata: self.metadata,
            more: self.more,
        }
    }
}

fn known_hosts<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<KnownHost>, D::Error> {
    let hosts = Vec::<HostFile>::deserialize(from)?;
    let known: Vec<_> = hosts.into_iter().zip(FIRST_ID..).map(|(host, id)| host.known(id)).collect();
    let mut ids: Vec<_> = known.iter().map(|host| host.id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() == known.len() { Ok(known) } else { Err(D::Error::custom("two hosts have the same `id`")) }
}

/// A key whose value may be `null`, told apart from one that is not there.
fn named<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BootFile {
    #[serde(default)]
    host: HostFile,
    #[serde(default)]
    facts: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenderFile {
    #[serde(default)]
    host: HostFile,
    document: String,
    #[serde(default)]
    vars: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransitionFile {
    #[serde(default)]
    host: HostFile,
    to: Vec<String>,
    #[serde(default = "operator")]
    cause: String,
    #[serde(default)]
    actor: String,
}

fn operator() -> String {
    "operator".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsFile {
    events: Vec<EventFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventFile {
    id: Option<String>,
    host_seq: Option<u64>,
    #[serde(default)]
    at_ms: u64,
    kind: String,
    host: Option<HostFile>,
    #[serde(default)]
    detail: Map<String, Value>,
}

impl EventFile {
    fn known(self, number: u64) -> Event {
        Event {
            id: self.id.unwrap_or_else(|| format!("case-{number}")),
            host_seq: self.host_seq.unwrap_or(number),
            at_ms: self.at_ms,
            kind: self.kind,
            host: self.host.map(|host| host.known(FIRST_ID)),
            detail: self.detail,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleFile {
    job: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Case, String> {
        Case::parse("case".into(), text)
    }

    #[test]
    fn a_case_writes_only_what_matters_to_it() {
        let case = parse(
            r#"{"hook": "boot", "request": {"host": {"states": ["web"]}, "facts": {"platform": "efi"}},
                "expect": {"patch": null}}"#,
        )
        .unwrap();
        let Asked::Boot(request) = &case.asked else { panic!("{:?}", case.asked) };
        assert_eq!((request.host.id, request.host.state()), (1, "web"));
        assert_eq!(request.facts, [("platform".to_owned(), "efi".to_owned())]);
        assert_eq!(case.expect.patch, Some(Value::Null));
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_name() {
        for (text, wanted) in [
            (r#"{"hook": "boot", "request": {}, "expect": {"verdcit": "pass"}}"#, "verdcit"),
            (r#"{"hook": "boot", "request": {"hots": {}}, "expect": {"verdict": "pass"}}"#, "hots"),
            (r#"{"hook": "bot", "request": {}, "expect": {"verdict": "pass"}}"#, "bot"),
            (r#"{"hook": "boot", "request": {}, "expect": {}}"#, "expects nothing"),
            (
                r#"{"hook": "schedule", "request": {"job": "sync"}, "core": {"hosts": [{"id": 2}, {}]},
                    "expect": {"next": "at-period"}}"#,
                "the same `id`",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn other_servers_answer_or_do_not() {
        let core: Core = serde_json::from_str(
            r#"{"http": [
                {"method": "GET", "url": "http://a/", "response": {"json": {"id": 1}}},
                {"method": "GET", "url": "http://a/", "not-sent": "refused"}]}"#,
        )
        .unwrap();
        assert!(matches!(&core.http[0].answer, ExchangeAnswer::Response(answer) if answer.status == 200));
        assert!(matches!(&core.http[1].answer, ExchangeAnswer::NotSent(_)));
    }

    #[test]
    fn a_folder_without_cases_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(cases(folder.path()).unwrap_err().to_string().contains("there are no cases"));
    }
}
