//! Bindings as they are written in files of their own.
//!
//! Invariant: what an operator wrote by hand is kept over updates, and comes back with the component that it was written for.
use toml::{Table, Value};

use crate::config::{Digest, PluginName};
use crate::service::RosterError;

/// What says what a plugin may do: the operator's part of a binding, not the author's.
const OPERATORS: [&str; 3] = ["grant", "hooks", "events"];

/// A file with this binding in it.
pub(super) fn written(name: &PluginName, binding: &Table) -> Result<String, RosterError> {
    let whole = Table::from_iter([("plugin".to_owned(), Value::Array(vec![binding.clone().into()]))]);
    let text = toml::to_string_pretty(&whole).map_err(|error| RosterError::Binding(error.to_string()))?;
    Ok(format!(
        "# Written by `kiwispray plugin install`. Change it as you like, then `kiwispray plugin reload {name}`.\n{text}"
    ))
}

/// The binding of this name in the text of a file.
pub(super) fn binding_in(text: &str, name: &PluginName) -> Option<Table> {
    let whole: Table = toml::from_str(text).ok()?;
    let bindings = whole.get("plugin")?.as_array()?.iter().filter_map(Value::as_table);
    bindings.into_iter().find(|binding| binding.get("name").and_then(Value::as_str) == Some(name.as_str())).cloned()
}

/// The same file with another component.
pub(super) fn repinned(text: &str, name: &PluginName, digest: &Digest) -> Option<String> {
    let mut binding = binding_in(text, name)?;
    binding.insert("digest".to_owned(), Value::from(digest.to_string()));
    written(name, &binding).ok()
}

/// Keeps what the operator allowed, and where. Whether that is something else than the author's example.
pub(super) fn keep(binding: &mut Table, bound: &Table) -> bool {
    let mut differs = false;
    for key in OPERATORS {
        differs |= binding.get(key) != bound.get(key);
        match bound.get(key) {
            Some(value) => binding.insert(key.to_owned(), value.clone()),
            None => binding.remove(key),
        };
    }
    differs
}
