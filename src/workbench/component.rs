//! Looks into a component without running it: what it imports is what it can do, what it exports is when it is asked.
use sha2::{Digest as _, Sha256};
use wit_component::DecodedWasm;
use wit_parser::{WorldItem, WorldKey};

/// The package and version of the contract.
const PACKAGE: &str = "kiwispray:plugin/";
const VERSION: &str = "@0.1.0";
/// Interfaces that need no grant.
const FREE: [&str; 3] = ["types", "call", "log"];

/// What a core module begins with; a component's version is another.
const MODULE_HEADER: &[u8] = b"\0asm\x01\0\0\0";

/// What a component is, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its size.
    pub bytes: usize,
    /// `sha256:<hex>`.
    pub digest: String,
    /// Interfaces of the contract that need a grant, in order, each with the functions that are imported.
    pub imports: Vec<(String, Vec<String>)>,
    /// Imports that are not the contract's.
    pub foreign: Vec<String>,
    /// The hooks it exports, in order; `about` is none.
    pub hooks: Vec<String>,
}

/// The bytes are no component.
#[derive(Debug, thiserror::Error)]
#[error("it is not a WebAssembly component: {0}")]
pub struct NotAComponent(String);

/// Looks into a component.
///
/// # Errors
/// It is none.
pub fn inspect(bytes: &[u8]) -> Result<Inspected, NotAComponent> {
    if bytes.starts_with(MODULE_HEADER) {
        return Err(NotAComponent(
            "it is a core module, which `kiwispray plugin build` makes a component of".to_owned(),
        ));
    }
    let decoded = wit_component::decode(bytes).map_err(|error| NotAComponent(format!("{error:#}")))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err(NotAComponent("it describes interfaces and has no code".to_owned()));
    };
    let Some(world) = resolve.worlds.get(world) else {
        return Err(NotAComponent("it has no world".to_owned()));
    };
    let short = |key: &WorldKey| {
        let full = resolve.name_world_key(key);
        let own = full.strip_prefix(PACKAGE).and_then(|name| name.strip_suffix(VERSION)).map(str::to_owned);
        own.ok_or(full)
    };
    let mut inspected = Inspected {
        bytes: bytes.len(),
        digest: sha256(bytes),
        imports: Vec::new(),
        foreign: Vec::new(),
        hooks: Vec::new(),
    };
    for (key, item) in &world.imports {
        match (short(key), item) {
            (Ok(name), _) if FREE.contains(&name.as_str()) => {}
            (Ok(name), WorldItem::Interface { id, .. }) => {
                let interface = resolve.interfaces.get(*id);
                let functions = interface.map(|interface| interface.functions.keys().cloned().collect());
                inspected.imports.push((name, functions.unwrap_or_default()));
            }
            (Ok(name) | Err(name), _) => inspected.foreign.push(name),
        }
    }
    let hooks = world.exports.keys().filter_map(|key| short(key).ok());
    inspected.hooks = hooks.filter(|name| name != "about" && !FREE.contains(&name.as_str())).collect();
    inspected.imports.sort();
    inspected.hooks.sort();
    Ok(inspected)
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plugin_asks_the_catalogue_and_answers_two_hooks() {
        let bytes = include_bytes!("../../plugins/default/default.wasm");
        let inspected = inspect(bytes).unwrap();
        assert_eq!(inspected.hooks, ["boot", "discovery"]);
        let [(name, functions)] = inspected.imports.as_slice() else { panic!("{:?}", inspected.imports) };
        assert_eq!(
            (name.as_str(), functions.as_slice()),
            ("catalog", &["has-image".into(), "has-template".into()][..])
        );
        assert_eq!((inspected.foreign, inspected.bytes), (Vec::<String>::new(), bytes.len()));
    }

    #[test]
    fn what_is_no_component_is_said_to_be_none() {
        assert!(inspect(b"\0asm\x01\0\0\0").is_err());
        assert!(inspect(b"#!/bin/sh").is_err());
    }
}
