//! The world of a plugin whose language imports everything that its world names, used or not: so the world holds exactly what
//! plugin.toml names.
use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::hooks::Hook;
use crate::plugin_host::Interface;

/// The world's name.
pub(super) const WORLD: &str = "guest";

/// The text of the package that holds the world, to stand beside the contract.
pub(super) fn world(hooks: &BTreeSet<Hook>, imports: &BTreeSet<Interface>) -> String {
    let uses = imports.iter().map(|import| format!("uses-{import}"));
    let hooks = hooks.iter().map(|hook| format!("hook-{hook}"));
    let free = ["uses-log", "hook-about"].map(str::to_owned);
    let mut text = format!("package kiwispray:{WORLD};\n\nworld {WORLD} {{\n");
    for name in free.into_iter().chain(uses).chain(hooks) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    include kiwispray:plugin/{name}@0.1.0;");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a component of the world would import and export.
    fn resolved(hooks: &[Hook], imports: &[Interface]) -> (Vec<String>, Vec<String>) {
        let mut contract = wit_parser::Resolve::default();
        contract.push_str("plugin.wit", super::super::CONTRACT).unwrap();
        let text = world(&hooks.iter().copied().collect(), &imports.iter().copied().collect());
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
        let (imports, exports) = resolved(&[Hook::Boot], &[Interface::Kv]);
        assert_eq!(imports, ["call", "kv", "log", "types"]);
        assert_eq!(exports, ["about", "boot"]);
    }

    #[test]
    fn every_hook_and_every_import_of_the_contract_can_be_named() {
        use Interface::{Catalog, Hosts, Http, Kv, Signing};
        let (imports, exports) = resolved(&Hook::ALL, &[Catalog, Hosts, Http, Kv, Signing]);
        assert_eq!(imports, ["call", "catalog", "hosts", "http", "kv", "log", "signing", "types"]);
        assert_eq!(exports, ["about", "boot", "discovery", "events", "render", "schedule", "transition"]);
    }
}
