//! The direction of the code, as ARCHITECTURE.md draws it: who may name whom. Reads the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and the modules of this crate that it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("store", &["domain"]),
    ("render", &["domain"]),
    ("images", &["domain"]),
    ("hooks", &[]),
    ("service", &["domain", "store", "render", "images", "hooks"]),
    ("wire", &[]),
    // The admin plane turns the outcomes of all use cases into JSON, those of hooks and streams too.
    ("http", &["domain", "store", "render", "images", "hooks", "service", "wire"]),
    ("plugin_host", &["hooks"]),
    // Runs plugins for their authors, without a server.
    ("workbench", &["config", "hooks", "plugin_host"]),
    // Reads the original's folders in the words of ours; hosts go to the server as everybody's do.
    ("migrate", &["domain", "images", "render"]),
    ("dnsmasq", &[]),
    // Bindings of plugins are written in the words of the hooks, and what a plugin can be called the domain says.
    ("config", &["dnsmasq", "domain", "hooks", "images", "render"]),
    // Puts configuration and components together into the chain that the service asks.
    ("roster", &["config", "hooks", "plugin_host", "service"]),
    // Looks at what a server would meet, so it asks those whom the server would ask.
    ("doctor", &["config", "dnsmasq", "hooks", "images", "plugin_host", "render", "roster", "service"]),
    ("telemetry", &[]),
    // What the command line does to the store of a server that is stopped.
    ("maintenance", &["store", "wire"]),
    // A client of the admin plane: it knows wire types, never the store. `serve` and what works on folders run in this process, and what
    // is done to a stopped server's store is behind `maintenance`.
    (
        "cli",
        &["app", "config", "dnsmasq", "doctor", "maintenance", "migrate", "render", "telemetry", "wire", "workbench"],
    ),
];

/// Packages that only one module may name, as its narrow place in the program.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("wasmtime", &["plugin_host"]),
    ("jsonschema", &["plugin_host"]),
    ("sled", &["store"]),
    ("handlebars", &["render"]),
    ("axum", &["http"]),
    ("hyper_util", &["http"]),
    ("liblzma", &["images"]),
    ("tar", &["images"]),
    // The plugin host names them in tests only, where guests are encoded.
    ("wit_component", &["plugin_host", "workbench"]),
    ("wit_parser", &["plugin_host", "workbench"]),
    ("clap", &["cli", "config"]),
    ("csv", &["cli"]),
    // The command line talks to the admin plane; plugins reach what they were granted.
    ("reqwest", &["cli", "plugin_host"]),
    ("anyhow", &["app"]),
];

/// What would make the rules depend on anything but their arguments.
const NEVER_IN_DOMAIN: &[&str] = &["tokio", "futures_util", "getrandom", "tracing", "std::fs", "std::time", "std::env"];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Every source file with its module and its text, comments left out.
fn files() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
            let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            (module, path, code)
        })
        .collect()
}

/// The modules of this crate that a text names, in paths and in grouped imports.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            let mut at_start = true;
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => at_start = true,
                    c if depth == 1 && at_start && (c.is_alphanumeric() || c == '_') => word.push(c),
                    c if c.is_whitespace() => continue,
                    _ => at_start = false,
                }
                let goes_on = character.is_alphanumeric() || character == '_';
                if !word.is_empty() && !goes_on {
                    names.insert(std::mem::take(&mut word));
                    at_start = character == ',' && depth == 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[test]
fn no_module_names_one_above_or_beside_it() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    let modules: BTreeSet<String> = files().into_iter().map(|(module, ..)| module).collect();
    let mut wrong = Vec::new();
    for (module, path, code) in files() {
        // The composition root knows everybody.
        if matches!(module.as_str(), "app" | "lib" | "main") {
            continue;
        }
        let may = allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no place in MAY_NAME"));
        for name in named(&code).into_iter().filter(|name| modules.contains(name) && *name != module) {
            if !may.contains(&name.as_str()) {
                wrong.push(format!("{}: {module} names {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_wrapped_stays_wrapped() {
    let mut wrong = Vec::new();
    for (module, path, code) in files() {
        for (package, homes) in ONLY_IN {
            let is_named = code.contains(&format!("use {package}::")) || code.contains(&format!(" {package}::"));
            if is_named && !homes.contains(&module.as_str()) {
                wrong.push(format!("{}: {package} belongs to {homes:?}", path.display()));
            }
        }
        if module == "domain" && !path.ends_with("model_test.rs") {
            let impure = NEVER_IN_DOMAIN.iter().filter(|name| code.contains(&format!("{name}::")));
            wrong.extend(impure.map(|name| format!("{}: the domain is pure, and names {name}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn grouped_imports_are_understood() {
    let code = "use crate::{\n    domain::{Host, HostId},\n    store::kv,\n    app,\n};\nfn f() { crate::hooks::x() }";
    let expected: BTreeSet<String> = ["domain", "store", "app", "hooks"].map(str::to_owned).into();
    assert_eq!(named(code), expected);
}
