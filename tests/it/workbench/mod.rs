//! The author's workbench on a plugin that uses everything there is: hosts, kv, other servers, secrets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::Run;

/// The plugin's folder, new at every start; what was compiled for it is kept.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("workbench");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn kiwispray(folder: &Path, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiwispray"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1");
    // Cargo runs this test with variables that are about the server.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if (name.starts_with("CARGO_") && name != "CARGO_HOME") || name.starts_with("KIWISPRAY_") {
            command.env_remove(name);
        }
    }
    command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("workbench-target"));
    Run::of(command)
}

/// One wish of the CMDB, for a host in these states, and what the CMDB says to the report.
fn case(states: &str, status: u16) -> Value {
    json!({
        "hook": "schedule",
        "request": {"job": "sync"},
        "core": {
            "hosts": [{"id": 7, "serial": "S7", "states": [states]}],
            "kv": {"runs": 2},
            "secrets": {"cmdb": "Jefe"},
            "http": [
                {
                    "method": "GET", "url": "https://cmdb.example.org/api/wishes",
                    "response": {"json": [{"serial": "s7", "state": "wipe,web", "change": "CHG-1", "rack": "r7"}]}
                },
                {"method": "POST", "url": "https://cmdb.example.org/api/runs", "response": {"status": status}}
            ]
        },
        "expect": {}
    })
}

fn with(mut case: Value, part: &str, key: &str, value: Value) -> Value {
    case[part][key] = value;
    case
}

fn write_cases(folder: &Path, cases: &[(&str, Value)]) {
    let _ = fs::remove_dir_all(folder.join("cases"));
    fs::create_dir(folder.join("cases")).unwrap();
    for (name, case) in cases {
        fs::write(folder.join("cases").join(format!("{name}.json")), case.to_string()).unwrap();
    }
}

#[test]
fn written_cases_hold_a_plugin_that_uses_everything() {
    let home = folder();
    kiwispray(&home, &["plugin", "new", "sync"]).done();
    let folder = home.join("sync");
    fs::write(folder.join("src/lib.rs"), include_str!("sync.rs")).unwrap();
    fs::write(folder.join("plugin.toml"), include_str!("sync.toml")).unwrap();
    let built = kiwispray(&folder, &["plugin", "build", "--json"]).done();
    let built: Value = serde_json::from_str(&built.out).unwrap();
    assert_eq!(built["imports"], json!(["hosts", "http", "kv", "signing"]));
    let component = fs::read(folder.join("sync.wasm")).unwrap();
    let own_path = home.to_str().unwrap().as_bytes();
    assert!(!component.windows(own_path.len()).any(|window| window == own_path), "a path of this machine is inside");
    kiwispray(&folder, &["plugin", "check"]).done();

    let carried_out = with(case("new", 201), "expect", "next", json!("at-period"));
    let carried_out = with(carried_out, "expect", "kv", json!({"runs": 3}));
    let carried_out = with(carried_out, "expect", "notes", json!(["host 7 is at revision 2"]));
    let hosts = json!({"7": {"states": ["wipe", "web"], "metadata": {"rack": "r7"}, "revision": 2}});
    let carried_out = with(carried_out, "expect", "hosts", hosts);
    // HMAC-SHA-256 of `done` by `Jefe`.
    let told = json!({"run": 3, "signature": hmac_of_done()});
    let carried_out = with(carried_out, "expect", "http", json!([{"method": "GET"}, {"method": "POST", "json": told}]));
    let dry = with(with(case("new", 201), "core", "dry_run", json!(true)), "expect", "kv", json!({"runs": 2}));
    let dry = with(dry, "expect", "error", json!({"class": "failed", "text": "dry run"}));
    let dry = with(dry, "expect", "hosts", json!({"7": {"states": ["new"], "revision": 1}}));
    let finished = with(case("finished", 201), "expect", "error", json!({"class": "failed", "text": "reinstall"}));
    let down = with(case("new", 503), "expect", "error", json!({"class": "failed", "text": "answers 503"}));
    write_cases(&folder, &[("carried-out", carried_out.clone()), ("dry", dry), ("finished", finished), ("down", down)]);
    let run = kiwispray(&folder, &["plugin", "test"]).done();
    assert!(run.out.contains("4 passed, 0 failed"), "{}", run.out);

    let wrong = with(carried_out, "expect", "kv", json!({"runs": 4}));
    let unexpected = with(with(case("new", 201), "core", "http", json!([])), "expect", "next", json!("at-period"));
    write_cases(&folder, &[("wrong", wrong), ("unexpected", unexpected)]);
    let run = kiwispray(&folder, &["plugin", "test"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.out.contains("kv.runs: expected 4, got 3"), "{}", run.out);
    assert!(run.out.contains("the case has no answer to GET https://cmdb.example.org/api/wishes"), "{}", run.out);
}

fn hmac_of_done() -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mac = Hmac::<sha2::Sha256>::new_from_slice(b"Jefe").unwrap().chain_update(b"done");
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
