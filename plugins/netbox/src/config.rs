//! What a binding can set, and what is wrong with it, said before it is ever used.

use std::collections::BTreeMap;

use kiwispray_sdk::{ConfigProblem, ask};
use serde::Deserialize;
use serde_json::Value;

use crate::request;

/// JSON Schema of [`Config`].
pub(crate) const SCHEMA: &str = include_str!("config.schema.json");

/// Most devices or hosts of one page: larger answers only take longer and do not fit into a call's memory.
const PAGE_MAX: u32 = 100;

/// What a binding can set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where NetBox is, without `/api/`.
    pub(crate) url: String,
    /// What a device and a host must have in common; the first that finds one device decides.
    #[serde(rename = "match", default = "serial_then_mac")]
    pub(crate) match_by: Vec<Key>,
    /// The custom field in which people ask for states. None: NetBox orders nothing.
    #[serde(default)]
    pub(crate) request_field: Option<String>,
    /// What the request field holds when nothing is asked for, beside being empty.
    #[serde(default)]
    pub(crate) request_none: Option<String>,
    /// Paths into what stands under `netbox`; the first that has a value becomes the hostname.
    #[serde(default = "the_name")]
    pub(crate) hostname: Vec<String>,
    /// Metadata paths, and the paths into what stands under `netbox` that they are filled from.
    #[serde(default)]
    pub(crate) map: BTreeMap<String, String>,
    /// Which status a device is given when.
    #[serde(default)]
    pub(crate) status: Status,
    /// Whether finishes and failures are written into the device's journal.
    #[serde(default = "yes")]
    pub(crate) journal: bool,
    /// Whether the rendered config context becomes metadata.
    #[serde(default = "yes")]
    pub(crate) config_context: bool,
    /// Slugs of the sites to look in; none: all.
    #[serde(default)]
    pub(crate) sites: Vec<String>,
    /// Slugs of tags that a device must have, all of them.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Hosts or devices of one page.
    #[serde(default = "fifty")]
    pub(crate) page_size: u32,
}

/// What a device and a host have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Key {
    Serial,
    Mac,
}

/// The values of NetBox's status that stand for what became of an installation; none, or an empty one, leaves it alone.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Status {
    pub(crate) installing: Option<String>,
    pub(crate) finished: Option<String>,
    pub(crate) failed: Option<String>,
}

impl Default for Status {
    fn default() -> Self {
        let set = |status: &str| Some(status.to_owned());
        Self { installing: set("staged"), finished: set("active"), failed: set("failed") }
    }
}

fn serial_then_mac() -> Vec<Key> {
    vec![Key::Serial, Key::Mac]
}

fn the_name() -> Vec<String> {
    vec!["name".to_owned()]
}

fn yes() -> bool {
    true
}

fn fifty() -> u32 {
    50
}

/// Everything wrong with a configuration.
pub(crate) fn check(text: &str) -> Vec<ConfigProblem> {
    let config: Config = match ask::parse_config(text) {
        Ok(config) => config,
        Err(error) => return vec![problem("", error.to_string())],
    };
    let mut problems = Vec::new();
    let mut wrong = |at: &str, message: String| problems.push(problem(at, message));
    if let Some(why) = url_problem(&config.url) {
        wrong("/url", format!("`url` {why}: write it as https://netbox.example.org"));
    }
    if config.match_by.is_empty() {
        wrong("/match", "`match` is empty: name `serial`, `mac` or both, or no host is ever found".into());
    }
    if !(1..=PAGE_MAX).contains(&config.page_size) {
        wrong("/page_size", format!("`page_size` is {}: 1 to {PAGE_MAX} are possible", config.page_size));
    }
    if config.request_field.as_deref().is_some_and(|name| !is_field_name(name)) {
        wrong("/request_field", "`request_field` is the name of a custom field: letters, digits and `_`".into());
    }
    if config.request_field.is_none() && config.request_none.is_some() {
        wrong("/request_none", "`request_none` without `request_field` means nothing".into());
    }
    // NetBox ignores a filter without a value and would answer every device.
    for (at, values) in [("/sites", &config.sites), ("/tags", &config.tags)] {
        if values.iter().any(|slug| slug.trim().is_empty()) {
            wrong(at, format!("`{}` has an empty entry: give slugs, as `fra1`", &at[1..]));
        }
    }
    for (to, from) in &config.map {
        if !is_path(to) || to == "netbox" || to.starts_with("netbox.") {
            let rule = "is no place to fill: give a metadata path outside of `netbox`, as `site`";
            wrong("/map", format!("`{}` {rule}", to.escape_default()));
        }
        if !is_path(from) {
            wrong("/map", format!("`{}` is no path: write it as `custom_fields.rack_unit`", from.escape_default()));
        }
    }
    if let Some(path) = config.hostname.iter().find(|path| !is_path(path)) {
        wrong("/hostname", format!("`{}` is no path: write it as `name`", path.escape_default()));
    }
    problems
}

fn problem(at: &str, message: String) -> ConfigProblem {
    ConfigProblem { at: at.to_owned(), message }
}

fn url_problem(url: &str) -> Option<&'static str> {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return Some("has no scheme");
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        return Some("has no host");
    }
    if host.contains('@') {
        return Some("has a user in it, but secrets belong into the grant");
    }
    if url.contains(['?', '#', ' ']) {
        return Some("has a query, a fragment or a space");
    }
    if url.trim_end_matches('/').ends_with("/api") {
        return Some("has `/api` at its end, which is added by the plugin");
    }
    None
}

fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('.').all(|key| !key.is_empty()) && !path.contains('\\')
}

impl Config {
    /// Where the API begins, with a slash at its end.
    pub(crate) fn api(&self) -> String {
        format!("{}/api/", self.url.trim_end_matches('/'))
    }

    /// Whether a value of the request field asks for nothing.
    pub(crate) fn is_no_request(&self, value: &Value) -> bool {
        request::text(value).is_none_or(|text| text.is_empty() || Some(text.as_str()) == self.request_none.as_deref())
    }
}

#[cfg(test)]
pub(crate) fn sample() -> Config {
    ask::parse_config(r#"{"url": "https://netbox.example.org/", "request_field": "kiwispray_request"}"#).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> String {
        check(text).into_iter().map(|problem| format!("{}: {}\n", problem.at, problem.message)).collect()
    }

    #[test]
    fn a_url_is_enough_and_the_rest_has_defaults() {
        assert_eq!(complaints(r#"{"url": "https://netbox.example.org"}"#), "");
        let config = sample();
        assert_eq!(config.api(), "https://netbox.example.org/api/");
        assert_eq!(config.match_by, [Key::Serial, Key::Mac]);
        assert_eq!(config.status.finished.as_deref(), Some("active"));
    }

    #[test]
    fn a_status_that_is_set_leaves_the_others_at_their_defaults() {
        let config: Config = ask::parse_config(r#"{"url": "http://n", "status": {"failed": null}}"#).unwrap();
        assert_eq!(config.status, Status { failed: None, ..Status::default() });
    }

    #[test]
    fn what_is_wrong_is_said_at_its_place() {
        for (text, at, word) in [
            (r#"{}"#, "", "url"),
            (r#"{"url": "netbox"}"#, "/url", "scheme"),
            (r#"{"url": "https://a:b@netbox"}"#, "/url", "grant"),
            (r#"{"url": "https://netbox/api/"}"#, "/url", "/api"),
            (r#"{"url": "http://n", "match": []}"#, "/match", "empty"),
            (r#"{"url": "http://n", "match": ["asset_tag"]}"#, "", "asset_tag"),
            (r#"{"url": "http://n", "page_size": 0}"#, "/page_size", "1 to 100"),
            (r#"{"url": "http://n", "sites": [""]}"#, "/sites", "`sites`"),
            (r#"{"url": "http://n", "request_field": "a b"}"#, "/request_field", "custom field"),
            (r#"{"url": "http://n", "map": {"netbox.id": "id"}}"#, "/map", "outside"),
            (r#"{"url": "http://n", "map": {"a": "site..x"}}"#, "/map", "no path"),
            (r#"{"url": "http://n", "tokn": "x"}"#, "", "tokn"),
        ] {
            let said = complaints(text);
            assert!(said.starts_with(&format!("{at}: ")) && said.contains(word), "{text}: {said}");
        }
    }

    #[test]
    fn the_schema_names_every_setting_and_no_other() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let known = complaints(r#"{"url": "http://n", "nonsense": 1}"#);
        for name in schema["properties"].as_object().unwrap().keys() {
            assert!(known.contains(&format!("`{name}`")), "{name} is not known");
        }
        assert_eq!(known.matches('`').count() / 2 - 1, schema["properties"].as_object().unwrap().len());
    }
}
