//! The rules: what a configuration says, and which rule a machine gets.
//!
//! The invariant: a configuration is taken whole or not at all, so that no rule is silently passed over and a later, wider
//! one taken instead.
use std::collections::BTreeSet;

use kiwispray_sdk::select::{Condition, Subject};
use kiwispray_sdk::{ConfigProblem, Patch, ask};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(crate) const NEW: &str = "new";
const FINISHED: &str = "finished";
/// What the server takes for one queue.
const STATES_MOST: usize = 32;
const STATE_LONGEST: usize = 64;

/// What a binding can set.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct Rules(Vec<Rule>);

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// How the operator calls it; part of the order that it gives.
    pub(crate) name: String,
    /// Which machines it is for.
    when: Condition,
    /// The queue they get.
    pub(crate) give: Vec<String>,
    /// Metadata they get with it, by dotted path.
    #[serde(default)]
    set: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    rules: Vec<Value>,
}

impl TryFrom<Written> for Rules {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let (rules, problems) = read(&written);
        match problems.first() {
            Some(problem) => Err(problem.message.clone()),
            None => Ok(Self(rules)),
        }
    }
}

impl Rules {
    /// The first rule that a machine fits.
    pub(crate) fn first(&self, machine: &Subject) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.when.matches(machine))
    }
}

impl Rule {
    /// Whether it lets machines wait, so that later rules do not take them.
    fn only_waits(&self) -> bool {
        self.give == [NEW]
    }

    /// What it changes: the metadata that is not so already, and the queue unless that is `new`. The queue is an order with
    /// a name, which the server carries out once per host; another queue is another order.
    pub(crate) fn patch(&self, machine: &Subject) -> Patch {
        let new = self.set.iter().filter(|(path, value)| machine.metadata(path) != Some(value));
        let patch = new.fold(Patch::default(), |patch, (path, value)| patch.set(path, value.clone()));
        if self.only_waits() {
            return patch;
        }
        let queue = self.give.join(",");
        patch.states(self.give.iter().cloned()).order(format!("{}: {queue}", self.name))
    }
}

/// Everything wrong with a configuration.
pub(crate) fn problems(config: &str) -> Vec<ConfigProblem> {
    match ask::parse_config::<Written>(config) {
        Ok(written) => read(&written).1,
        Err(error) => vec![ConfigProblem { at: String::new(), message: error.to_string() }],
    }
}

fn read(written: &Written) -> (Vec<Rule>, Vec<ConfigProblem>) {
    let (mut rules, mut problems, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, value) in written.rules.iter().enumerate() {
        let name = value
            .get("name")
            .and_then(Value::as_str)
            .map_or_else(|| format!("{}", index + 1), |name| format!("`{name}`"));
        let mut problem = |key: &str, message: String| {
            let key = if key.is_empty() { String::new() } else { format!("/{key}") };
            problems
                .push(ConfigProblem { at: format!("/rules/{index}{key}"), message: format!("rule {name}: {message}") });
        };
        // Conditions first, as they say which of their keys is wrong.
        if let Err(error) = Condition::deserialize(value.get("when").unwrap_or(&Value::Null)) {
            problem("when", format!("when: {error}"));
            continue;
        }
        match Rule::deserialize(value) {
            Err(error) => problem("", error.to_string()),
            Ok(rule) => {
                if rule.name.trim().is_empty() || !names.insert(rule.name.clone()) {
                    problem("name", "every rule needs a name of its own".to_owned());
                }
                if let Some(message) = wrong_queue(&rule.give) {
                    problem("give", format!("give: {message}"));
                }
                if let Some(path) = rule.set.keys().find(|path| path.split('.').any(str::is_empty)) {
                    problem("set", format!("set: {path:?} names no metadata; write site, or network.vlan"));
                }
                rules.push(rule);
            }
        }
    }
    (rules, problems)
}

fn wrong_queue(states: &[String]) -> Option<String> {
    let is_name = |state: &str| {
        state.len() <= STATE_LONGEST
            && state.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && state.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
    };
    if states.is_empty() || states.len() > STATES_MOST {
        return Some(format!("name 1 to {STATES_MOST} states"));
    }
    if let Some(state) = states.iter().find(|state| !is_name(state)) {
        return Some(format!("{state:?} is no state name"));
    }
    if states.iter().any(|state| state == FINISHED) {
        return Some("`finished` comes by itself after the last state".to_owned());
    }
    let last = states.len() - 1;
    states
        .iter()
        .position(|state| state == NEW)
        .filter(|at| *at != last)
        .map(|_| "`new` can stand only last".to_owned())
}

/// JSON Schema of the configuration.
pub(crate) fn schema() -> Value {
    let one = json!({"type": ["string", "number", "boolean"]});
    let value = json!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]});
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"rules": {
            "type": "array",
            "description": "the first rule that a machine fits counts; a machine that fits none stays new",
            "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["name", "when", "give"],
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "when": {
                        "type": "object",
                        "minProperties": 1,
                        "description": "manufacturer, product, asset, serial, uuid, platform, buildarch, hostname, mac (its beginning) or metadata.<path>; all must match; * and ? stand for any characters",
                        "additionalProperties": value,
                    },
                    "give": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": STATES_MOST},
                    "set": {"type": "object", "description": "metadata to set, by dotted path"},
                },
            },
        }},
    })
}

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::{host, request};

    use super::*;

    fn rules(config: &str) -> Rules {
        ask::parse_config(config).unwrap()
    }

    fn messages(config: &str) -> Vec<(String, String)> {
        problems(config).into_iter().map(|problem| (problem.at, problem.message)).collect()
    }

    fn machine(product: &str, metadata: &str) -> Subject {
        let mut request = request(host(NEW));
        request.host.metadata = metadata.to_owned();
        request.facts.push(("product".into(), product.into()));
        Subject::booting(&request).unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = rules(
            r#"{"rules": [
                {"name": "lab", "when": {"metadata.site": "lab"}, "give": ["new"]},
                {"name": "dell", "when": {"product": "PowerEdge*"}, "give": ["wipe", "web"]},
                {"name": "rest", "when": {"mac": "*"}, "give": ["discover", "new"]}]}"#,
        );
        let name = |machine: &Subject| rules.first(machine).unwrap().name.clone();
        assert_eq!(name(&machine("PowerEdge R650", r#"{"site":"fra1"}"#)), "dell");
        assert_eq!(name(&machine("PowerEdge R650", r#"{"site":"lab"}"#)), "lab");
        assert_eq!(name(&machine("ProLiant", "{}")), "rest");
    }

    #[test]
    fn a_machine_that_fits_none_gets_none() {
        let rules = rules(r#"{"rules": [{"name": "a", "when": {"product": "X"}, "give": ["web"]}]}"#);
        assert!(rules.first(&machine("", "{}")).is_none());
        assert!(Rules::default().first(&machine("X", "{}")).is_none());
    }

    #[test]
    fn a_patch_holds_only_what_is_not_so_already() {
        let rules = rules(
            r#"{"rules": [{"name": "a", "when": {"mac": "*"}, "give": ["web"], "set": {"role": "web", "net.vlan": 7}}]}"#,
        );
        let machine = machine("X", r#"{"role": "web", "net": {"vlan": 8}}"#);
        let patch = rules.first(&machine).unwrap().patch(&machine);
        assert_eq!(patch.set, [("net.vlan".to_owned(), "7".to_owned())]);
        assert_eq!(patch.states, Some(vec!["web".to_owned()]));
        assert_eq!(patch.order.as_deref(), Some("a: web"));
    }

    #[test]
    fn a_problem_names_the_rule_and_its_key() {
        let wrong = r#"{"rules": [
            {"name": "ok", "when": {"mac": "*"}, "give": ["web"]},
            {"name": "typo", "when": {"prodcut": "X"}, "give": ["web"]},
            {"name": "queue", "when": {"mac": "*"}, "give": ["new", "web"]},
            {"name": "done", "when": {"mac": "*"}, "give": ["finished"]},
            {"name": "path", "when": {"mac": "*"}, "give": ["../etc"]},
            {"name": "none", "when": {"mac": "*"}, "give": []},
            {"name": "all", "when": {}, "give": ["web"]},
            {"name": "ok", "when": {"mac": "*"}, "give": ["web"]},
            {"name": "key", "when": {"mac": "*"}, "gives": ["web"]},
            {"name": "set", "when": {"mac": "*"}, "give": ["web"], "set": {"a..b": 1}},
            {"when": {"mac": "*"}, "give": ["web"]},
            7]}"#;
        let found = messages(wrong);
        let expected = [
            ("/rules/1/when", "rule `typo`: when: there is no key `prodcut`"),
            ("/rules/2/give", "rule `queue`: give: `new` can stand only last"),
            ("/rules/3/give", "rule `done`: give: `finished` comes by itself"),
            ("/rules/4/give", "rule `path`: give: \"../etc\" is no state name"),
            ("/rules/5/give", "rule `none`: give: name 1 to 32 states"),
            ("/rules/6/when", "rule `all`: when: a condition without keys would take every host"),
            ("/rules/7/name", "rule `ok`: every rule needs a name of its own"),
            ("/rules/8", "rule `key`: unknown field `gives`"),
            ("/rules/9/set", "rule `set`: set: \"a..b\" names no metadata"),
            ("/rules/10", "rule 11: missing field `name`"),
            ("/rules/11/when", "rule 12: when: invalid type"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for ((at, message), (expected_at, expected_message)) in found.iter().zip(expected) {
            assert_eq!(at, expected_at);
            assert!(message.starts_with(expected_message), "{message}");
        }
        assert!(ask::parse_config::<Rules>(wrong).is_err());
        assert!(messages(r#"{"rule": []}"#)[0].1.contains("rule"));
        assert!(messages("[").len() == 1 && messages("").is_empty() && messages(r#"{"rules": []}"#).is_empty());
    }

    #[test]
    fn thousands_of_rules_are_only_slow_to_write() {
        let rule = |n: u32| json!({"name": format!("r{n}"), "when": {"serial": format!("{}x", "*S".repeat(20))}, "give": ["web"]});
        let config = json!({"rules": (0..5_000).map(rule).collect::<Vec<_>>()}).to_string();
        assert!(rules(&config).first(&machine("X", "{}")).is_none());
    }
}
