//! From a table to a binding, with every problem on the way.
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{DEFAULT_PLUGIN, ORDERS_PER_RUN, PluginBinding, PluginGrant, PluginName};
use crate::config::{Problem, Where};
use crate::hooks::{Grant, Hook, HookSet, OnError, Selector, StatesFilter};

const KEYS: [&str; 11] =
    ["name", "component", "digest", "hooks", "states", "where", "events", "priority", "on_error", "config", "grant"];
const GRANT_KEYS: [&str; 6] = ["hosts", "max_orders_per_run", "kv", "catalog", "http", "signing"];
/// All that may be said of the default plugin.
const DEFAULT_KEYS: [&str; 2] = ["name", "config"];
/// How alike a known word must be to be suggested, from 0 to 1.
const SUGGESTION_LIKENESS: f64 = 0.6;
/// Hooks, as they are written.
const HOOKS: [&str; 6] = ["boot", "discovery", "render", "transition", "events", "schedule"];
/// Grants about hosts, as they are written.
const HOST_GRANTS: [&str; 6] = ["read", "metadata", "hostname", "states", "reinstall", "hold-finished"];

/// The bindings of one file.
pub(in crate::config) fn bindings(file: &Path, table: &Table, problems: &mut Vec<Problem>) -> Vec<PluginBinding> {
    let written = table.get("plugin").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut bindings = Vec::new();
    for (index, table) in written.iter().enumerate() {
        let Value::Table(table) = table else { continue };
        let name = table.get("name").and_then(Value::as_str);
        let at = name.map_or_else(|| format!("plugin[{}]", index + 1), |name| format!("plugin.{name}"));
        let mut reader = Reader { file, at, problems };
        bindings.extend(reader.binding(table));
    }
    bindings
}

/// Names that are given twice.
pub(in crate::config) fn duplicates(bindings: &[PluginBinding], problems: &mut Vec<Problem>) {
    for (index, binding) in bindings.iter().enumerate() {
        if let Some(first) = bindings.iter().take(index).find(|first| first.name == binding.name) {
            let what = format!("the plugin {} is already bound in {}", binding.name, first.file.display());
            let at = Where::File { file: binding.file.clone(), key: format!("plugin.{}.name", binding.name) };
            problems.push(Problem { at, what });
        }
    }
}

struct Reader<'a> {
    file: &'a Path,
    /// `plugin.netbox`
    at: String,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn binding(&mut self, table: &Table) -> Option<PluginBinding> {
        let before = self.problems.len();
        let name = self.name(table);
        self.no_other_keys("", table, &KEYS);
        if name.as_ref().is_some_and(PluginName::is_default) {
            for key in table.keys().filter(|key| KEYS.contains(&key.as_str()) && !DEFAULT_KEYS.contains(&key.as_str()))
            {
                let what = format!("the default plugin takes a config and nothing else; `{DEFAULT_PLUGIN}` names it");
                self.problem(key, what);
            }
        }
        let component = self.text(table, "component");
        let digest = self.text(table, "digest").and_then(|text| self.parsed("digest", text.parse()));
        let hooks = table.get("hooks").map(|value| self.words::<Hook>("hooks", "hook", value, &HOOKS));
        let states = match table.get("states") {
            Some(value) => StatesFilter::from(self.texts("states", value)),
            None => StatesFilter::unfinished(),
        };
        let selector_text = self.selector(table);
        let selector = self.parsed("where", Selector::new(selector_text.iter().cloned())).unwrap_or_default();
        let events = table.get("events").map(|value| self.texts("events", value));
        let priority = match table.get("priority") {
            None => 0,
            Some(value) => {
                let priority = value.as_integer().and_then(|number| i32::try_from(number).ok());
                priority
                    .unwrap_or_else(|| self.default_for("priority", "a number is expected, low ones are asked first"))
            }
        };
        let on_error = match table.get("on_error") {
            None => OnError::default(),
            Some(Value::String(text)) if text == "hold" => OnError::Hold,
            Some(Value::String(text)) if text == "skip" => OnError::Skip,
            Some(_) => {
                self.default_for("on_error", "`hold` (the host waits) or `skip` (the next plugin is asked) is expected")
            }
        };
        let config = self.config(table);
        let grant = match table.get("grant") {
            None => PluginGrant { max_orders_per_run: ORDERS_PER_RUN, ..PluginGrant::default() },
            Some(Value::Table(table)) => self.grant(table),
            Some(_) => self.default_for("grant", "a table is expected"),
        };
        let name = name.filter(|_| self.problems.len() == before)?;
        let folder = self.file.parent().unwrap_or(Path::new("."));
        Some(PluginBinding {
            name,
            file: self.file.to_owned(),
            component: component.map(|path| folder.join(path)),
            digest,
            hooks: hooks.map(HookSet::from_iter),
            states,
            selector,
            selector_text,
            events,
            priority,
            on_error,
            config,
            grant,
        })
    }

    fn name(&mut self, table: &Table) -> Option<PluginName> {
        match table.get("name") {
            Some(Value::String(text)) => self.parsed("name", text.parse()),
            Some(_) => self.default_for("name", "a text is expected"),
            None => self.default_for("name", "a plugin needs a name"),
        }
    }

    fn grant(&mut self, table: &Table) -> PluginGrant {
        self.no_other_keys("grant.", table, &GRANT_KEYS);
        let hosts: BTreeSet<Grant> = match table.get("hosts") {
            Some(value) => self.words("grant.hosts", "grant", value, &HOST_GRANTS).into_iter().collect(),
            None => BTreeSet::new(),
        };
        let max_orders_per_run = match table.get("max_orders_per_run") {
            None => ORDERS_PER_RUN,
            Some(value) => {
                let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
                number.unwrap_or_else(|| self.default_for("grant.max_orders_per_run", "a number from 0 on is expected"))
            }
        };
        if hosts.contains(&Grant::Reinstall) && !hosts.contains(&Grant::States) {
            self.problem("grant.hosts", "`reinstall` means nothing without `states`".to_owned());
        }
        let mut flag = |key: &str| match table.get(key) {
            None => false,
            Some(Value::Boolean(flag)) => *flag,
            Some(_) => self.default_for(&format!("grant.{key}"), "true or false is expected"),
        };
        let (kv, catalog) = (flag("kv"), flag("catalog"));
        let http = match table.get("http") {
            None => Vec::new(),
            Some(Value::Array(rules)) if rules.iter().all(Value::is_table) => {
                rules.iter().filter_map(Value::as_table).cloned().collect()
            }
            Some(_) => self.default_for("grant.http", "tables [[plugin.grant.http]] are expected"),
        };
        let signing = match table.get("signing") {
            None => Table::new(),
            Some(Value::Table(table)) => table.clone(),
            Some(_) => self.default_for("grant.signing", "a table of names and secrets is expected"),
        };
        PluginGrant { hosts, max_orders_per_run, kv, catalog, http, signing }
    }

    fn selector(&mut self, table: &Table) -> Vec<(String, serde_json::Value)> {
        match table.get("where") {
            None => Vec::new(),
            Some(Value::Table(fields)) => fields
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), serde_json::to_value(value).ok()?)))
                .collect(),
            Some(_) => self.default_for("where", "a table such as { \"metadata.site\" = \"fra1\" } is expected"),
        }
    }

    /// TOML's dates become texts.
    fn config(&mut self, table: &Table) -> serde_json::Value {
        let object = || serde_json::Value::Object(serde_json::Map::new());
        match table.get("config") {
            None => object(),
            Some(value @ Value::Table(_)) => serde_json::to_value(value).unwrap_or_else(|_| object()),
            Some(_) => {
                self.problem("config", "a table is expected".to_owned());
                object()
            }
        }
    }

    fn no_other_keys(&mut self, prefix: &str, table: &Table, known: &[&'static str]) {
        for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
            let what = match alike(key, known) {
                Some(known) => format!("there is no such key; is {known} meant?"),
                None => format!("there is no such key: {} are", known.join(", ")),
            };
            self.problem(&format!("{prefix}{key}"), what);
        }
    }

    fn text(&mut self, table: &Table, key: &str) -> Option<String> {
        let text = table.get(key)?.as_str().map(str::to_owned);
        text.or_else(|| self.default_for(key, "a text is expected"))
    }

    fn texts(&mut self, key: &str, value: &Value) -> Vec<String> {
        let texts = value.as_array().map(|all| all.iter().map(|text| text.as_str().map(str::to_owned)).collect());
        match texts {
            Some(Some(texts)) => texts,
            Some(None) | None => self.default_for(key, "a list of texts is expected"),
        }
    }

    /// A list of words that are all known.
    fn words<T: DeserializeOwned>(&mut self, key: &str, what: &str, value: &Value, known: &[&'static str]) -> Vec<T> {
        let mut words = Vec::new();
        for text in self.texts(key, value) {
            match Value::String(text.clone()).try_into() {
                Ok(word) => words.push(word),
                Err(_) => {
                    let meant = alike(&text, known).map(|known| format!("; is {known} meant?"));
                    let all = || format!(": {} are expected", known.join(", "));
                    self.problem(key, format!("{text:?} is no {what}{}", meant.unwrap_or_else(all)));
                }
            }
        }
        words
    }

    fn parsed<T, E: Display>(&mut self, key: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.problem(key, error.to_string())).ok()
    }

    fn default_for<T: Default>(&mut self, key: &str, what: &str) -> T {
        self.problem(key, what.to_owned());
        T::default()
    }

    fn problem(&mut self, key: &str, what: String) {
        let at = Where::File { file: self.file.to_owned(), key: format!("{}.{key}", self.at) };
        self.problems.push(Problem { at, what });
    }
}

/// The known word that looks most like this one.
fn alike(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let likeness = |known: &&'static str| strsim::normalized_damerau_levenshtein(word, known);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= SUGGESTION_LIKENESS).then_some(*best)
}
