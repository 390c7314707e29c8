//! Plugins in JavaScript and Python, from `kiwispray plugin new` to a decision of the real server. Needs Node.js, Python and,
//! at the first run, the network for the tools; so it is run by `cargo xtask test --long`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and clippy takes only test functions themselves for tests"
)]

#[allow(dead_code, unused_imports, reason = "shared with the integration tests, which use all of it")]
#[path = "../support/mod.rs"]
mod support;

mod cases;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cases::{Words, cases};
use kiwispray::workbench::inspect;
use support::{Machine, Run, Site};
use tempfile::TempDir;

struct Language {
    name: &'static str,
    /// The plugin's file.
    file: &'static str,
    probe: &'static str,
    native_tests: &'static [&'static str],
    words: Words,
}

const JS: Language = Language {
    name: "js",
    file: "plugin.js",
    probe: include_str!("probe.js"),
    native_tests: &["node", "--test"],
    words: Words {
        thrown_at: "(plugin.js:17:14 in boot)",
        wanted: "the hook `boot` answered \"web\"; it wants image(…)",
        drawn: "random 0.48350949773042584 0.6450280601583591",
    },
};

const PYTHON: Language = Language {
    name: "python",
    file: "plugin.py",
    probe: include_str!("probe.py"),
    native_tests: &["python3", "-m", "unittest"],
    words: Words {
        thrown_at: "(plugin.py:24 in boot)",
        wanted: "the hook `boot` answered 'web'; it wants image(...)",
        drawn: "random 0.5306331453859605 0.24059263966885147",
    },
};

/// A new plugin in an empty folder.
struct Project {
    home: TempDir,
}

impl Project {
    fn new(language: &Language) -> Self {
        let project = Self { home: TempDir::new().unwrap() };
        let mut new = Command::new(env!("CARGO_BIN_EXE_kiwispray"));
        new.args(["plugin", "new", "probe", "--lang", language.name]).current_dir(project.home.path());
        Run::of(new).done();
        project
    }

    fn path(&self, below: &str) -> PathBuf {
        self.home.path().join("probe").join(below)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Run {
        let mut command = Command::new(program);
        Run::of({
            command.args(arguments).current_dir(self.path("")).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        })
    }

    fn plugin(&self, verb: &str) -> Run {
        self.run(env!("CARGO_BIN_EXE_kiwispray"), &["plugin", verb])
    }

    fn write(&self, below: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(below), text).unwrap();
    }

    /// The names of what the component imports beyond what is free, and of what it exports.
    #[track_caller]
    fn imports_and_hooks(&self) -> (Vec<String>, Vec<String>) {
        let component = inspect(&fs::read(self.path("probe.wasm")).unwrap()).unwrap();
        assert_eq!(component.foreign, Vec::<String>::new(), "nothing of WASI");
        (component.imports.into_iter().map(|(name, _)| name).collect(), component.hooks)
    }
}

/// A new plugin is built, taken and tested as it stands, and the server decides by it.
fn a_new_plugin_works_as_it_stands(language: &Language) {
    let project = Project::new(language);
    let (program, arguments) = language.native_tests.split_first().unwrap();
    project.run(program, arguments).done();
    project.plugin("build").done();
    assert_eq!(project.imports_and_hooks(), (vec![], vec!["boot".to_owned()]), "what plugin.toml names");
    let checked = project.plugin("check").done();
    assert!(checked.err.contains("a server would take it"), "{checked:?}");
    let tested = project.plugin("test").done();
    assert!(tested.out.contains("2 passed, 0 failed"), "{tested:?}");
}

/// Every hook, every import and every failure, on the real host.
fn everything_that_a_plugin_can_do(language: &Language) {
    let project = Project::new(language);
    project.write(language.file, language.probe);
    project.write(
        "plugin.toml",
        format!(
            "name = \"probe\"\nlang = \"{}\"\n\
             hooks = [\"boot\", \"discovery\", \"render\", \"transition\", \"events\", \"schedule\"]\n\
             imports = [\"catalog\", \"hosts\", \"kv\", \"http\", \"signing\"]\n\
             [grant]\nhosts = [\"read\", \"metadata\", \"hostname\", \"states\"]\ncatalog = true\nkv = true\n\
             [[grant.http]]\nurl = \"https://cmdb.example.org/api/\"\nmethods = [\"POST\"]\n\
             [grant.signing]\nhook = \"key\"\n[config]\nsite = \"fra1\"\n",
            language.name
        ),
    );
    fs::remove_dir_all(project.path("cases")).unwrap();
    fs::create_dir(project.path("cases")).unwrap();
    let cases = cases(&language.words);
    for (name, case) in &cases {
        project.write(&format!("cases/{}.json", name.replace(' ', "-")), case.to_string());
    }
    project.plugin("build").done();
    let (imports, hooks) = project.imports_and_hooks();
    assert_eq!(imports, ["catalog", "hosts", "http", "kv", "signing"]);
    assert_eq!(hooks, ["boot", "discovery", "events", "render", "schedule", "transition"]);
    let tested = project.plugin("test").done();
    assert!(tested.out.contains(&format!("{} passed, 0 failed", cases.len())), "{tested:?}");
}

/// The real server asks it, holds a host as it says, and has its lines in the log.
fn the_server_decides_by_it(language: &Language) {
    let project = Project::new(language);
    project.write(language.file, language.probe);
    // Two hooks and one import: what the probe could use besides was not named, so it is not there.
    project.write(
        "plugin.toml",
        format!("name = \"probe\"\nlang = \"{}\"\nhooks = [\"boot\"]\nimports = [\"catalog\"]\n", language.name),
    );
    project.plugin("build").done();
    assert_eq!(project.imports_and_hooks(), (vec!["catalog".to_owned()], vec!["boot".to_owned()]), "no http");

    let site = Site::new().linux("web", "writes = \"nothing\"");
    fs::copy(project.path("probe.wasm"), site.path("plugins/default.wasm")).unwrap();
    let server = site.serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    server.cli(&["host", "set", &id.to_string(), "--state", "web", "--meta", r#"{"do": "plain"}"#]).done();
    let boot = machine.boots(&server);
    assert!(boot.script.contains("quiet"), "{}", boot.script);
    assert!(server.log().contains("asked about"), "{}", server.log());

    server.cli(&["host", "set", &id.to_string(), "--meta", r#"{"do": "throw"}"#]).done();
    let held = machine.boot(&server);
    assert_eq!(held.outcome, "hold", "{}", held.script);
    let told = server.cli(&["host", "explain", &id.to_string()]).done().out;
    assert!(told.contains(language.words.thrown_at), "{told}");
}

/// What a plugin's author gets wrong is told in the author's words.
fn mistakes_are_told_when_it_is_built(language: &Language, broken: &str, sentence: &str) {
    let project = Project::new(language);
    let toml = fs::read_to_string(project.path("plugin.toml")).unwrap();
    project.write("plugin.toml", toml.replace("hooks = [\"boot\"]", "hooks = [\"boot\", \"events\"]"));
    project.plugin("build").refused(1, "plugin.toml names the hook `events`, but plugin.");
    project.write("plugin.toml", toml);
    project.write(language.file, broken);
    project.plugin("build").refused(1, sentence);
    assert!(!Path::new(&project.path("probe.wasm")).exists());
}

#[test]
fn a_new_javascript_plugin_works_as_it_stands() {
    a_new_plugin_works_as_it_stands(&JS);
}

#[test]
fn a_new_python_plugin_works_as_it_stands() {
    a_new_plugin_works_as_it_stands(&PYTHON);
}

#[test]
fn javascript_can_do_everything_that_the_contract_has() {
    everything_that_a_plugin_can_do(&JS);
}

#[test]
fn python_can_do_everything_that_the_contract_has() {
    everything_that_a_plugin_can_do(&PYTHON);
}

#[test]
fn the_server_decides_by_a_javascript_plugin() {
    the_server_decides_by_it(&JS);
}

#[test]
fn the_server_decides_by_a_python_plugin() {
    the_server_decides_by_it(&PYTHON);
}

#[test]
fn mistakes_in_javascript_are_told_when_it_is_built() {
    mistakes_are_told_when_it_is_built(&JS, "export const about = {};\nnothing.here;\n", "(/plugin.js:2:1)");
}

#[test]
fn mistakes_in_python_are_told_when_it_is_built() {
    mistakes_are_told_when_it_is_built(&PYTHON, "about = None\nnothing.here\n", "File \"plugin.py\", line 2");
}

/// The SDKs' own tests, natively.
#[test]
fn the_sdks_pass_their_own_tests() {
    let node = ["node", "--test", "test/sdk.test.js"];
    for (folder, command) in [("sdk/js", node), ("sdk/python", ["python3", "-m", "unittest"])] {
        let (program, arguments) = command.split_first().unwrap();
        let mut tests = Command::new(program);
        tests.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
        Run::of({
            tests.env("PYTHONDONTWRITEBYTECODE", "1");
            tests
        })
        .done();
    }
}
