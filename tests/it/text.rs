//! Text from outside never becomes code (P6): not in boot scripts, not in shell, YAML, JSON or command lines, not on a
//! terminal.

use std::process::Command;

use crate::support::{Machine, Site};

/// Text that would like to be code, in one language or another.
const HOSTILE: [&str; 12] = [
    "two\nlines\nreboot",
    "quote'and\"quote",
    "'; touch pwned; '",
    "${net0/mac} ${uuid}",
    "#!ipxe\nshell",
    "a; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a && touch pwned || exit",
    "x\r\nX-Injected: 1\r\n\r\n#!ipxe",
    "--kill -x {{host.id}} {{{reason}}}",
    "Größe \u{2028}\u{202e} \u{1b}[2J",
];

/// A script without what its `echo`s say.
fn skeleton(script: &str) -> Vec<&str> {
    script.lines().map(|line| if line.starts_with("echo ") { "echo" } else { line }).collect()
}

#[test]
fn what_firmware_reports_never_becomes_script() {
    let server = Site::new()
        .config("[limits]\nnew_hosts_per_minute = 0\n[boot]\nagain_s_min = 3\nagain_s_max = 3\n")
        .kiwi("image1")
        .serve();
    let plain = Machine::new(999).but("hostname", "x").but("asset", "x").boot(&server);
    for (number, text) in (1..).zip(HOSTILE) {
        let machine = ["serial", "manufacturer", "product", "asset", "hostname", "platform", "buildarch"]
            .iter()
            .fold(Machine::new(number), |machine, name| machine.but(name, text));
        let boot = machine.boot(&server);
        assert_eq!(skeleton(&boot.script), skeleton(&plain.script), "{text:?}");
        for line in boot.script.lines().filter(|line| line.starts_with("echo ")) {
            assert!(!line.contains(['$', '{', ';', '`', '|', '&', '\u{1b}', '"', '\'']), "{line:?}");
        }
        let listed = server.cli(&["host", "list", &boot.host.unwrap().to_string()]).done().out;
        assert!(!listed.contains('\u{1b}') && !listed.contains('\u{202e}'), "{listed:?}");
    }
    let log = server.log();
    assert!(!log.contains('\u{1b}') && log.lines().all(|line| !line.starts_with("reboot")), "{log}");
}

#[test]
fn what_a_machine_complains_of_never_becomes_script() {
    let server = Site::new().kiwi("image1").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("image1", 1);
    for text in HOSTILE {
        let boot = machine.boots(&server);
        let reason = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        server.get(&format!("{}&reason={reason}", boot.call("fail"))).expect(200);
        let held = machine.holds(&server, "reported a failure");
        let echoes = held.script.lines().filter(|line| line.starts_with("echo Why: "));
        assert_eq!(echoes.inspect(|line| assert!(!line.contains(['$', ';', '`', '|']), "{line}")).count(), 1);
        assert!(
            !held.script.contains("pwned;") && !held.script.lines().any(|line| line == "reboot" || line == "shell")
        );
        let shown = server.cli(&["host", "show", "1"]).done().out;
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown:?}");
        server.cli(&["host", "retry", "1", "--yes"]).done();
    }
}

#[test]
fn metadata_stays_a_value_in_every_document() {
    let shell = "#!/bin/sh\nset -eu\nprintf '%s' {{host.metadata.note}} > note\nprintf '%s' \"x\"{{host.hostname}} > name\n\
                 list=$(printf '%s' {{host.metadata.note}}; echo .)\nprintf '%s' \"${list%?}\" > list\n";
    let server = Site::new()
        .kiwi("image1")
        .with_file("image1", "post_install.sh.hbs", shell)
        .with_file("image1", "user-data.hbs", "note: {{host.metadata.note}}\n")
        .with_file("image1", "note.json.hbs", "{\"note\": {{host.metadata.note}}}\n")
        .with_file("image1", "config.bootoptions.hbs", "a=b note={{host.metadata.note}} c=d\n")
        .serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.cli(&["host", "set", "1", "-m", r#"{"note":""}"#]).done();
    server.deploy("image1", 1);
    let boot = machine.boots(&server);
    for text in HOSTILE {
        let metadata = serde_json::json!({"note": text}).to_string();
        server.cli(&["host", "set", "1", "-m", &metadata]).done();
        let (sandbox, script) = run_in_sandbox(server.get(boot.post_install()).expect(200).text());
        let read = |name: &str| std::fs::read_to_string(sandbox.path().join(name)).unwrap();
        assert_eq!((read("note").as_str(), read("name").as_str()), (text, "x"), "{script}");
        let mut made: Vec<_> =
            std::fs::read_dir(sandbox.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        made.sort();
        assert_eq!(made, ["list", "name", "note", "script"], "{text:?}");
        // What is no shell is one value, too: JSON's strings are YAML's.
        let data = server.get(&boot.file("user-data")).expect(200);
        assert_eq!(serde_json::from_str::<String>(data.text().strip_prefix("note: ").unwrap()).unwrap(), text);
        let json: serde_json::Value =
            serde_json::from_str(server.get(&boot.file("note.json")).expect(200).text()).unwrap();
        assert_eq!(json["note"], text);
        let options = server.get(&boot.file("config.bootoptions")).expect(200);
        let words: Vec<&str> = options.text().split_whitespace().collect();
        assert_eq!((words.len(), words[0], words[2]), (3, "a=b", "c=d"), "{}", options.text());
    }
}

/// Runs a script in an empty folder of its own.
fn run_in_sandbox(script: &str) -> (tempfile::TempDir, String) {
    let sandbox = tempfile::TempDir::new().unwrap();
    std::fs::write(sandbox.path().join("script"), script).unwrap();
    let run =
        |arguments: &[&str]| Command::new("/bin/sh").args(arguments).current_dir(sandbox.path()).output().unwrap();
    assert!(run(&["-n", "script"]).status.success(), "{script}");
    let output = run(&["script"]);
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    (sandbox, script.to_owned())
}

#[test]
fn hostile_names_are_refused_and_the_default_script_is_sound_shell() {
    let server = Site::new().kiwi("image1").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    for text in HOSTILE {
        assert_eq!(server.cli(&["host", "set", "1", "-n", text]).code, 2, "{text:?}");
        assert_eq!(server.cli(&["host", "set", "1", "--state", text, "--yes"]).code, 2, "{text:?}");
        assert_eq!(server.cli(&["host", "set", "1", "-m", text]).code, 2, "{text:?}");
    }
    server.deploy("image1", 1);
    let boot = machine.boots(&server);
    let script = server.get(boot.post_install()).expect(200);
    let sandbox = tempfile::TempDir::new().unwrap();
    std::fs::write(sandbox.path().join("script"), script.text()).unwrap();
    let check = Command::new("/bin/sh").args(["-n", "script"]).current_dir(sandbox.path()).status().unwrap();
    assert!(check.success(), "{}", script.text());
    assert_eq!(server.host(1)["hostname"], serde_json::Value::Null);
}

#[test]
fn what_people_read_on_a_terminal_does_not_steer_it() {
    let server = Site::new().serve();
    Machine::new(1).boot(&server);
    let metadata = serde_json::json!({"note": "a\u{1b}[2J\u{9b}2J\u{202e}b", "k\u{9b}\u{1b}": 1}).to_string();
    let told = server.cli(&["host", "set", "1", "-m", &metadata]).done().out;
    let shown = server.cli(&["host", "show", "1"]).done().out;
    let events = server.cli(&["host", "events", "1"]).done().out;
    let asked = server.cli(&["host", "set", "1", "-s", "a\u{9b}2J"]).err;
    for text in [told, shown, events, asked] {
        assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{text:?}");
    }
}
