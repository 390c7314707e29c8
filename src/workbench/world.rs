//! The world of a plugin whose language imports everything that its world names, used or not: so the world holds exactly what
//! plugin.toml names.
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Hooks of the contract, besides `about`.
pub(super) const HOOKS: [&str; 6] = ["boot", "discovery", "events", "render", "schedule", "transition"];
/// Interfaces of the contract that need a grant.
pub(super) const IMPORTS: [&str; 5] = ["catalog", "hosts", "http", "kv", "signing"];
/// The world's name.
pub(super) const WORLD: &str = "guest";

/// plugin.toml names what the contract does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// Among the hooks.
    #[error("plugin.toml: there is no hook `{0}`; there are {known}", known = HOOKS.join(", "))]
    Hook(String),
    /// Among the imports.
    #[error("plugin.toml: there is nothing to import called `{0}`; there are {known}", known = IMPORTS.join(", "))]
    Import(String),
}

/// The text of the package that holds the world, to stand beside the contract. What is named twice counts once.
pub(super) fn world(hooks: &[String], imports: &[String]) -> Result<String, WorldError> {
    if let Some(unknown) = hooks.iter().find(|hook| !HOOKS.contains(&hook.as_str())) {
        return Err(WorldError::Hook(unknown.clone()));
    }
    if let Some(unknown) = imports.iter().find(|import| !IMPORTS.contains(&import.as_str())) {
        return Err(WorldError::Import(unknown.clone()));
    }
    let imports: BTreeSet<_> = imports.iter().map(String::as_str).collect();
    let hooks: BTreeSet<_> = hooks.iter().map(String::as_str).collect();
    let mut text = format!("package kiwispray:{WORLD};\n\nworld {WORLD} {{\n");
    for (prefix, names) in
        [("uses", BTreeSet::from(["log"])), ("uses", imports), ("hook", ["about"].into()), ("hook", hooks)]
    {
        for name in names {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    include kiwispray:plugin/{prefix}-{name}@0.1.0;");
        }
    }
    text.push_str("}\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    /// What a component of the world would import and export.
    fn resolved(hooks: &[&str], imports: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut contract = wit_parser::Resolve::default();
        contract.push_str("plugin.wit", include_str!("../../sdk/wit/0.1.0/plugin.wit")).unwrap();
        let text = world(&names(hooks), &names(imports)).unwrap();
        let package = contract.push_str("world.wit", &text).unwrap();
        let id = contract.select_world(&[package], Some(WORLD)).unwrap();
        let short = |key| contract.name_world_key(key).replace("kiwispray:plugin/", "").replace("@0.1.0", "");
        let world = contract.worlds.get(id).unwrap();
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list
        };
        (sorted(world.imports.keys().map(short).collect()), sorted(world.exports.keys().map(short).collect()))
    }

    #[test]
    fn a_world_holds_what_is_named_and_what_is_free() {
        let (imports, exports) = resolved(&["boot"], &["kv"]);
        assert_eq!(imports, ["call", "kv", "log", "types"]);
        assert_eq!(exports, ["about", "boot"]);
    }

    #[test]
    fn every_hook_and_every_import_of_the_contract_can_be_named() {
        let (imports, exports) = resolved(&HOOKS, &IMPORTS);
        assert_eq!(imports, ["call", "catalog", "hosts", "http", "kv", "log", "signing", "types"]);
        assert_eq!(exports, ["about", "boot", "discovery", "events", "render", "schedule", "transition"]);
    }

    #[test]
    fn naming_something_twice_changes_nothing() {
        assert_eq!(world(&names(&["boot", "boot"]), &[]), world(&names(&["boot"]), &[]));
    }

    #[test]
    fn what_the_contract_does_not_have_is_refused_with_what_it_has() {
        let hook = world(&names(&["boots"]), &[]).unwrap_err().to_string();
        assert!(hook.contains("`boots`") && hook.contains("transition"), "{hook}");
        let import = world(&[], &names(&["wasi:cli/stdout"])).unwrap_err().to_string();
        assert!(import.contains("`wasi:cli/stdout`") && import.contains("signing"), "{import}");
    }
}
