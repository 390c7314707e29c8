//! What a binding can set.
use std::collections::BTreeSet;

use kiwispray_sdk::select::{Condition, Subject};
use kiwispray_sdk::{ConfigProblem, Error, Event, ask};
use serde::Deserialize;
use serde_json::{Value, json};

const EVERYTHING: &str = "*";
const TIMEOUT_DEFAULT_MS: u32 = 5_000;
/// More than the server gives one call of this hook would never be reached.
const TIMEOUT_MOST_MS: u32 = 9_000;

/// Where to, signed by what, and which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where events are posted to.
    pub(crate) url: String,
    /// The name of the secret that the grant `signing` holds.
    pub(crate) secret: String,
    /// Kinds of events; `*` is all.
    #[serde(default = "everything")]
    kinds: BTreeSet<String>,
    /// Of which hosts. Without it of all, and of hosts that are forgotten.
    #[serde(default)]
    r#where: Option<Condition>,
    /// How long the receiver may take to answer.
    #[serde(default = "timeout_ms")]
    pub(crate) timeout_ms: u32,
}

fn everything() -> BTreeSet<String> {
    BTreeSet::from([EVERYTHING.to_owned()])
}

fn timeout_ms() -> u32 {
    TIMEOUT_DEFAULT_MS
}

impl Config {
    /// Whether an event is to be delivered.
    ///
    /// # Errors
    /// `invalid` when the host's documents are no JSON, which the core does not send.
    pub(crate) fn wants(&self, event: &Event) -> Result<bool, Error> {
        if !self.kinds.contains(EVERYTHING) && !self.kinds.contains(&event.kind) {
            return Ok(false);
        }
        match (&self.r#where, &event.host) {
            (None, _) => Ok(true),
            (Some(_), None) => Ok(false),
            (Some(condition), Some(host)) => Ok(condition.matches(&Subject::of(host)?)),
        }
    }
}

/// Everything wrong with a configuration.
pub(crate) fn problems(config: &str) -> Vec<ConfigProblem> {
    let problem = |at: &str, message: &str| ConfigProblem { at: at.to_owned(), message: message.to_owned() };
    let config = match ask::parse_config::<Config>(config) {
        Ok(config) => config,
        Err(error) => return vec![problem("", &error.to_string())],
    };
    let mut problems = Vec::new();
    if !config.url.starts_with("http://") && !config.url.starts_with("https://") {
        problems.push(problem("/url", "url begins with https:// or http://, and the grant `http` must cover it"));
    }
    if config.secret.trim().is_empty() {
        problems.push(problem("/secret", "secret names a secret of the grant `signing`"));
    }
    if config.kinds.is_empty() {
        problems.push(problem("/kinds", "kinds is empty, so nothing would be delivered; [\"*\"] is everything"));
    }
    if config.timeout_ms == 0 || config.timeout_ms > TIMEOUT_MOST_MS {
        problems.push(problem("/timeout_ms", &format!("timeout_ms is 1 to {TIMEOUT_MOST_MS}")));
    }
    problems
}

/// JSON Schema of the configuration.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["url", "secret"],
        "properties": {
            "url": {"type": "string", "pattern": "^https?://", "description": "where events are posted to"},
            "secret": {"type": "string", "minLength": 1, "description": "the name of the secret in the grant `signing`"},
            "kinds": {"type": "array", "items": {"type": "string"}, "minItems": 1, "default": [EVERYTHING]},
            "where": {
                "type": "object",
                "minProperties": 1,
                "description": "of which hosts: metadata.<path>, product, mac, …; all must match, * and ? stand for any characters",
            },
            "timeout_ms": {"type": "integer", "minimum": 1, "maximum": TIMEOUT_MOST_MS, "default": TIMEOUT_DEFAULT_MS},
        },
    })
}

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::{event, host};

    use super::*;

    fn config(more: &str) -> Config {
        ask::parse_config(&format!(r#"{{"url": "http://r/", "secret": "hook"{more}}}"#)).unwrap()
    }

    #[test]
    fn kinds_and_hosts_select_events() {
        let mut machine = host("web");
        machine.metadata = r#"{"site": "fra1", "tags": ["gpu"]}"#.into();
        let finished = event("finished", Some(machine.clone()));
        let forgotten = event("forgotten", None);
        assert!(config("").wants(&finished).unwrap() && config("").wants(&forgotten).unwrap());
        assert!(config(r#", "kinds": ["failed", "finished"]"#).wants(&finished).unwrap());
        assert!(!config(r#", "kinds": ["failed"]"#).wants(&finished).unwrap());
        let of_site = config(r#", "where": {"metadata.site": "fra*", "metadata.tags": "gpu"}"#);
        assert!(of_site.wants(&finished).unwrap() && !of_site.wants(&forgotten).unwrap());
        machine.metadata = r#"{"site": {"fra1": true}, "tags": "gpu"}"#.into();
        assert!(!of_site.wants(&event("finished", Some(machine))).unwrap());
    }

    #[test]
    fn every_wrong_key_is_named() {
        let at = |json: &str| problems(json).into_iter().map(|problem| problem.at).collect::<Vec<_>>();
        assert!(at(r#"{"url": "https://r/", "secret": "hook"}"#).is_empty());
        let all = r#"{"url": "ftp://r/", "secret": " ", "kinds": [], "timeout_ms": 60000}"#;
        assert_eq!(at(all), ["/url", "/secret", "/kinds", "/timeout_ms"]);
        for (json, word) in [
            ("", "url"),
            (r#"{"url": "http://r/"}"#, "secret"),
            (r#"{"url": "http://r/", "secret": "s", "kind": []}"#, "kind"),
            (r#"{"url": "http://r/", "secret": "s", "where": {}}"#, "every host"),
            (r#"{"url": "http://r/", "secret": "s", "where": {"sites": "x"}}"#, "sites"),
            (r#"{"url": "http://r/", "secret": "s", "timeout_ms": -1}"#, "-1"),
        ] {
            assert!(problems(json)[0].message.contains(word), "{json}");
        }
    }
}
