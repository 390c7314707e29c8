//! Applying a patch to what later plugins see, and checking that the plugin may give it.
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::allowance::may_answer;
use super::types::FINISHED;
use super::{Edit, Grant, Hook, HookError, KnownHost, Patch};

/// Metadata nests this deep at most; the paths of a patch are bounded with it.
const PATH_MAX_KEYS: usize = 16;
/// Changed paths of one patch.
const PATCH_MAX_PATHS: usize = 256;

/// Whether a patch changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edited {
    /// It did.
    Changed,
    /// The host already was so.
    Unchanged,
}

/// Splits a dotted path into its keys; `\.` is a dot inside a key, `\\` a backslash. `None` if a key is empty, or there are
/// too many.
#[must_use]
pub fn parse_path(path: &str) -> Option<Vec<String>> {
    let mut keys = vec![String::new()];
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '.' => keys.push(String::new()),
            '\\' => keys.last_mut()?.push(chars.next()?),
            c => keys.last_mut()?.push(c),
        }
    }
    (keys.len() <= PATH_MAX_KEYS && keys.iter().all(|key| !key.is_empty())).then_some(keys)
}

/// The metadata path by which hosts are found: `metadata.site`, or a path of several keys. One key alone would make every
/// misspelt word a search that finds nothing.
#[must_use]
pub fn searched_path(key: &str) -> Option<&str> {
    match key.strip_prefix("metadata.") {
        Some(path) => parse_path(path).map(|_| path),
        None => parse_path(key).filter(|keys| keys.len() > 1).map(|_| key),
    }
}

impl Patch {
    /// Whether it asks for no change at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Applies it. Nothing is changed when a path is bad.
    ///
    /// # Errors
    /// [`HookError::BadAnswer`] for a path that is none.
    pub fn apply_to(&self, host: &mut KnownHost) -> Result<Edited, HookError> {
        if self.set.len() + self.unset.len() > PATCH_MAX_PATHS {
            return Err(HookError::BadAnswer(format!("a patch with more than {PATCH_MAX_PATHS} paths")));
        }
        let mut edited = host.clone();
        match &self.hostname {
            Edit::Keep => {}
            Edit::Clear => edited.hostname = None,
            Edit::Set(name) => edited.hostname = Some(name.clone()),
        }
        if let Some(states) = &self.states {
            edited.states = if states.is_empty() { vec![FINISHED.to_owned()] } else { states.clone() };
        }
        for (path, value) in &self.set {
            set(&mut edited.metadata, &keys(path)?, value);
        }
        for path in &self.unset {
            unset(&mut edited.metadata, &keys(path)?);
        }
        if edited == *host {
            return Ok(Edited::Unchanged);
        }
        *host = edited;
        Ok(Edited::Changed)
    }

    /// Checks that a plugin with these grants may give it in this hook.
    ///
    /// # Errors
    /// [`HookError::Denied`], naming the grant.
    pub(super) fn check_grants(&self, hook: Hook, grants: &BTreeSet<Grant>) -> Result<(), HookError> {
        may_answer(self, hook, grants).map_err(|denied| HookError::Denied(denied.to_string()))
    }
}

fn keys(path: &str) -> Result<Vec<String>, HookError> {
    parse_path(path).ok_or_else(|| HookError::BadAnswer(format!("`{}` is no metadata path", path.escape_default())))
}

/// Sets a value, making objects on the way; what stood in the way and is no object is replaced.
fn set(metadata: &mut Map<String, Value>, keys: &[String], value: &Value) {
    let Some((key, rest)) = keys.split_first() else { return };
    if rest.is_empty() {
        metadata.insert(key.clone(), value.clone());
        return;
    }
    let inner = metadata.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    if let Value::Object(inner) = inner {
        set(inner, rest, value);
    }
}

fn unset(metadata: &mut Map<String, Value>, keys: &[String]) {
    match keys {
        [] => {}
        [key] => {
            metadata.remove(key);
        }
        [key, rest @ ..] => {
            if let Some(Value::Object(inner)) = metadata.get_mut(key) {
                unset(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::native::tests::host;
    use super::*;

    #[test]
    fn paths_reach_into_objects_and_dots_can_be_escaped() {
        let mut host = host("web");
        let patch = Patch { set: vec![("a.b".into(), json!(1)), (r"a.c\.d".into(), json!(2))], ..Patch::default() };
        assert_eq!(patch.apply_to(&mut host), Ok(Edited::Changed));
        assert_eq!(Value::Object(host.metadata.clone()), json!({"a": {"b": 1, "c.d": 2}}));
        let patch = Patch { unset: vec!["a.b".into(), "x.y".into()], ..Patch::default() };
        assert_eq!(patch.apply_to(&mut host), Ok(Edited::Changed));
        assert_eq!(Value::Object(host.metadata.clone()), json!({"a": {"c.d": 2}}));
        assert_eq!(patch.apply_to(&mut host), Ok(Edited::Unchanged));
    }

    #[test]
    fn a_bad_path_changes_nothing() {
        let mut host = host("web");
        let before = host.clone();
        let patch =
            Patch { hostname: Edit::Set("n1".into()), set: vec![("a..b".into(), json!(1))], ..Patch::default() };
        assert!(matches!(patch.apply_to(&mut host), Err(HookError::BadAnswer(_))));
        assert_eq!(host, before);
        assert_eq!(parse_path(r"a\"), None);
    }

    #[test]
    fn an_empty_queue_means_finished() {
        let mut host = host("web");
        Patch { states: Some(vec![]), ..Patch::default() }.apply_to(&mut host).unwrap();
        assert!(host.is_finished());
    }

    #[test]
    fn a_boot_decision_cannot_order_whatever_it_was_granted() {
        let all = BTreeSet::from([Grant::Hostname, Grant::Metadata, Grant::States, Grant::HoldFinished]);
        let patch = Patch { states: Some(vec!["web".into()]), ..Patch::default() };
        assert!(matches!(patch.check_grants(Hook::Boot, &all), Err(HookError::Denied(_))));
    }

    #[test]
    fn discovery_gives_installing_states_only_with_the_grant() {
        let patch = |states: &[&str]| Patch {
            states: Some(states.iter().map(|state| (*state).to_owned()).collect()),
            ..Patch::default()
        };
        let none = BTreeSet::new();
        assert_eq!(patch(&["discover", "new"]).check_grants(Hook::Discovery, &none), Ok(()));
        assert!(patch(&["web"]).check_grants(Hook::Discovery, &none).is_err());
        assert!(patch(&[]).check_grants(Hook::Discovery, &none).is_err());
        assert_eq!(patch(&["web"]).check_grants(Hook::Discovery, &BTreeSet::from([Grant::States])), Ok(()));
    }
}
