//! Whatever a site wants to remember of a host.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A JSON object of bounded size and depth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Metadata(Map<String, Value>);

/// Why a document cannot be metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Not JSON.
    #[error("the metadata is no JSON: {0}")]
    NotJson(String),
    /// JSON, but no object.
    #[error("the metadata must be a JSON object such as {{\"site\": \"fra1\"}}")]
    NotAnObject,
    /// More than [`Metadata::MOST_BYTES`] as compact JSON.
    #[error("the metadata would have {0} bytes: {most} at most", most = Metadata::MOST_BYTES)]
    TooLarge(usize),
    /// Nested deeper than [`Metadata::DEEPEST`].
    #[error("the metadata is nested too deeply: {} levels at most", Metadata::DEEPEST)]
    TooDeep,
}

impl Metadata {
    /// Size limit of the compact JSON text.
    pub const MOST_BYTES: usize = 64 * 1024;
    /// Levels of nesting.
    pub const DEEPEST: usize = 16;

    /// The metadata in this text.
    pub fn parse(text: &str) -> Result<Self, MetadataError> {
        if text.len() > 4 * Self::MOST_BYTES {
            return Err(MetadataError::TooLarge(text.len()));
        }
        match serde_json::from_str(text).map_err(|error| MetadataError::NotJson(error.to_string()))? {
            Value::Object(map) => Self::try_from(map),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(MetadataError::NotAnObject)
            }
        }
    }

    /// Puts `other` over this: objects merge, `null` removes, everything else replaces (as RFC 7396 does).
    pub fn merged(&self, other: &Self) -> Result<Self, MetadataError> {
        let mut map = self.0.clone();
        merge(&mut map, &other.0);
        Self::try_from(map)
    }

    /// The value at a dotted path (`network.vlan`); a dot inside a key is written `\.`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut keys = split_path(path).into_iter();
        let mut value = self.0.get(&keys.next()?)?;
        for key in keys {
            value = value.as_object()?.get(&key)?;
        }
        Some(value)
    }

    /// The object itself.
    pub const fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Map<String, Value>> for Metadata {
    type Error = MetadataError;

    fn try_from(map: Map<String, Value>) -> Result<Self, MetadataError> {
        if !map.values().all(|value| is_shallower_than(value, Self::DEEPEST)) {
            return Err(MetadataError::TooDeep);
        }
        let bytes = serde_json::to_vec(&map).map_err(|error| MetadataError::NotJson(error.to_string()))?.len();
        if bytes > Self::MOST_BYTES {
            return Err(MetadataError::TooLarge(bytes));
        }
        Ok(Self(map))
    }
}

impl From<Metadata> for Map<String, Value> {
    fn from(metadata: Metadata) -> Self {
        metadata.0
    }
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (_, Value::Null) => {
                into.remove(key);
            }
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, Value::Object(new)) => {
                // What is removed of nothing is not there, on any level.
                let mut fresh = Map::new();
                merge(&mut fresh, new);
                into.insert(key.clone(), Value::Object(fresh));
            }
            (_, value) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
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

fn is_shallower_than(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_shallower_than(item, below)),
        Value::Object(map) => map.values().all(|item| is_shallower_than(item, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_was_not_named_and_null_removes() {
        let old = Metadata::parse(r#"{"site":"fra1","net":{"vlan":7,"gw":"x"},"gone":1}"#).unwrap();
        let new = old.merged(&Metadata::parse(r#"{"net":{"vlan":8},"gone":null}"#).unwrap()).unwrap();
        assert_eq!(new, Metadata::parse(r#"{"site":"fra1","net":{"vlan":8,"gw":"x"}}"#).unwrap());
    }

    #[test]
    fn dotted_paths_reach_values_and_escaped_dots_stay_in_keys() {
        let metadata = Metadata::parse(r#"{"a":{"b.c":5}}"#).unwrap();
        assert_eq!(metadata.get(r"a.b\.c"), Some(&Value::from(5)));
        assert_eq!(metadata.get("a.b.c"), None);
    }

    #[test]
    fn what_is_no_object_too_large_or_too_deep_is_refused() {
        assert_eq!(Metadata::parse("[1]"), Err(MetadataError::NotAnObject));
        assert!(matches!(Metadata::parse("{"), Err(MetadataError::NotJson(_))));
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(Metadata::MOST_BYTES));
        assert!(matches!(Metadata::parse(&large), Err(MetadataError::TooLarge(_))));
        let deep = format!("{}1{}", r#"{"a":"#.repeat(20), "}".repeat(20));
        assert_eq!(Metadata::parse(&deep), Err(MetadataError::TooDeep));
    }
}
