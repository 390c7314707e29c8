//! Operating plugins: whatever is bound, missing, broken, replaced or switched off, machines are answered, and people told.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::server::serve_command;
use crate::support::{Machine, Run, Server, Site, guest};

/// A plugin that has no opinion. Those of other numbers have other digests.
fn passing(number: u32) -> Vec<u8> {
    guest::deciding_by(&format!("(drop (i32.const {number}))"))
}

/// A plugin that lets every machine wait, and says `hostile`.
fn holding(number: u32) -> Vec<u8> {
    guest::deciding_by(&format!(
        "(drop (i32.const {number})) (i32.store8 (i32.const 4100) (i32.const 2))
         (i32.store (i32.const 4104) (i32.const 16)) (i32.store (i32.const 4108) (i32.const 7))"
    ))
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A site whose configuration binds `plugins/racks.wasm`.
fn bound(component: &[u8], more: &str) -> Site {
    let site = Site::new().kiwi("image1").config(&format!(
        "[limits]\nnew_hosts_per_minute = 0\n[[plugin]]\nname = \"racks\"\ncomponent = \"plugins/racks.wasm\"\n{more}"
    ));
    write(&site, component);
    site
}

fn write(site: &Site, component: &[u8]) {
    std::fs::write(site.path("plugins/racks.wasm"), component).unwrap();
}

fn plugin(server: &Server, name: &str) -> Value {
    server.json(&["plugin", "show", name])
}

/// The folder of a plugin that can be installed.
fn folder(site: &Site, component: &[u8], grant: &str) -> PathBuf {
    let folder = site.path("racks");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("racks.wasm"), component).unwrap();
    let manifest = format!("name = \"racks\"\nhooks = [\"boot\"]\n[grant]\n{grant}\n");
    std::fs::write(folder.join("plugin.toml"), manifest).unwrap();
    folder
}

#[test]
fn a_wrong_binding_keeps_the_server_from_starting_with_file_and_key() {
    for (toml, sentence) in [
        ("name = \"Racks\"", "plugin.Racks.name: \"Racks\" is no name of a plugin"),
        ("name = \"racks\"\nhooks = [\"bot\"]", "plugin.racks.hooks: \"bot\" is no hook; is boot meant?"),
        ("name = \"racks\"\nprio = 1", "plugin.racks.prio: there is no such key"),
        ("name = \"default\"\npriority = 1", "plugin.default.priority: the default plugin takes a config"),
    ] {
        let run = Run::of(serve_command(&Site::new().config(&format!("[[plugin]]\n{toml}\n"))));
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.err.contains("kiwispray.toml: ") && run.err.contains(sentence), "{run:?}");
    }
}

#[test]
fn a_missing_plugin_holds_and_is_told_everywhere_and_the_server_runs() {
    let site = bound(b"", "");
    std::fs::remove_file(site.path("plugins/racks.wasm")).unwrap();
    let server = site.serve();
    Machine::new(1).holds(&server, "racks");
    let told = "has no component: there is no";
    let shown = plugin(&server, "racks");
    assert_eq!(shown["status"], "broken");
    assert!(shown["problem"].as_str().unwrap().contains(told), "{shown}");
    assert!(server.cli(&["plugin", "list"]).done().out.contains(told));
    server.cli(&["plugin", "show", "rakcs"]).refused(3, "there is no plugin rakcs; is racks meant?");
    // It is found as soon as it is there.
    write(&server.site, &passing(1));
    let told = server.cli(&["plugin", "reload"]).done();
    assert_eq!(told.out, "racks: changed\ndefault: unchanged\n");
    assert_eq!(Machine::new(1).boot(&server).outcome, "hold");
    assert!(!Machine::new(1).boot(&server).script.contains("racks"));
}

#[test]
fn a_pinned_digest_is_the_only_one_that_runs() {
    let (right, wrong) = (holding(1), holding(2));
    let mut server = bound(&right, &format!("digest = \"{}\"\n", digest(&right))).serve();
    Machine::new(1).holds(&server, "hostile");
    write(&server.site, &wrong);
    let refused = server.cli(&["plugin", "reload", "racks"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for part in [digest(&wrong), digest(&right), "kiwispray.toml".to_owned()] {
        assert!(refused.err.contains(&part), "{part} is not in {refused:?}");
    }
    // The one that was pinned is kept, and goes on, after a restart too.
    assert_eq!(
        (plugin(&server, "racks")["status"].clone(), plugin(&server, "racks")["digest"].clone()),
        ("degraded".into(), digest(&right).into())
    );
    assert_eq!(server.terminate().code(), Some(0));
    server.restart();
    assert_eq!(plugin(&server, "racks")["digest"], digest(&right));
    Machine::new(1).holds(&server, "hostile");
    server.cli(&["plugin", "rollback", "racks"]).refused(4, "change it there");
}

#[test]
fn a_broken_replacement_leaves_the_old_one_running() {
    let mut server = bound(&holding(1), "").serve();
    Machine::new(1).holds(&server, "hostile");
    for broken in [&b"\0asm garbage"[..], &guest::deciding_by("(loop $again (br $again))")[..200]] {
        write(&server.site, broken);
        let reload = server.cli(&["plugin", "reload"]);
        assert_eq!(reload.code, 1, "{reload:?}");
        assert!(reload.err.contains("is not a WebAssembly component"), "{reload:?}");
        Machine::new(1).holds(&server, "hostile");
    }
    let check = |server: &Server| {
        let shown = plugin(server, "racks");
        assert_eq!((&shown["status"], &shown["digest"]), (&"degraded".into(), &digest(&holding(1)).into()));
        Machine::new(1).holds(server, "hostile");
    };
    check(&server);
    server.crash_and_restart();
    check(&server);
    assert!(server.log().contains("plugin     racks 1, an earlier one"), "{}", server.log());
    write(&server.site, &holding(2));
    server.cli(&["plugin", "reload", "racks"]).done();
    assert_eq!(
        (plugin(&server, "racks")["status"].clone(), plugin(&server, "racks")["digest"].clone()),
        ("ok".into(), digest(&holding(2)).into())
    );
    // A configuration that cannot be read changes nothing either.
    let config = std::fs::read_to_string(server.site.path("kiwispray.toml")).unwrap();
    std::fs::write(server.site.path("kiwispray.toml"), config.replace("component", "componet")).unwrap();
    server.cli(&["plugin", "reload"]).refused(4, "plugin.racks.componet: there is no such key; is component meant?");
    Machine::new(1).holds(&server, "hostile");
}

#[test]
fn a_rollback_goes_to_the_component_before_and_lasts_until_a_reload_by_name() {
    let (first, second) = (holding(1), passing(2));
    let mut server = bound(&first, "").serve();
    server.cli(&["plugin", "rollback", "racks"]).refused(4, "no earlier component");
    write(&server.site, &second);
    server.cli(&["plugin", "reload"]).done();
    assert!(!Machine::new(1).boot(&server).script.contains("hostile"));
    let told = server.cli(&["plugin", "rollback", "racks"]).done();
    assert!(told.out.contains("undo: kiwispray plugin reload racks"), "{told:?}");
    Machine::new(1).holds(&server, "hostile");
    server.crash_and_restart();
    server.cli(&["plugin", "reload"]).done();
    Machine::new(1).holds(&server, "hostile");
    assert_eq!(plugin(&server, "racks")["rolled_back"], true);
    server.cli(&["plugin", "reload", "racks"]).done();
    assert_eq!(
        (plugin(&server, "racks")["rolled_back"].clone(), plugin(&server, "racks")["digest"].clone()),
        (false.into(), digest(&second).into())
    );
}

#[test]
fn a_plugin_that_is_switched_off_is_not_asked_until_it_is_switched_on() {
    let mut server = bound(&holding(1), "").serve();
    Machine::new(1).holds(&server, "hostile");
    let told = server.cli(&["plugin", "disable", "racks"]).done();
    assert!(told.out.contains("switched off") && told.out.contains("undo: kiwispray plugin enable racks"), "{told:?}");
    assert!(!Machine::new(1).boot(&server).script.contains("hostile"));
    server.crash_and_restart();
    server.cli(&["plugin", "reload", "racks"]).done();
    assert!(!Machine::new(1).boot(&server).script.contains("hostile"));
    assert_eq!(plugin(&server, "racks")["status"], "disabled");
    server.cli(&["plugin", "enable", "racks"]).done();
    Machine::new(1).holds(&server, "hostile");
    server.cli(&["plugin", "disable", "default"]).refused(4, "the default plugin cannot be switched off");
}

#[test]
fn a_hangup_during_the_start_ends_nothing() {
    let site = bound(&holding(1), "");
    let mut child = serve_command(&site).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listens = std::thread::spawn(move || lines.any(|line| line.is_ok_and(|line| line.contains("listens"))));
    let begin = Instant::now();
    // From when it has begun its work until it says that it is done.
    while !site.path("data").exists() && begin.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    while !listens.is_finished() {
        kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(listens.join().unwrap(), "the server ended with {:?}", child.wait());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_plugin_whose_record_is_unreadable_is_not_switched_on_by_that() {
    let mut server = bound(&holding(1), "").serve();
    write(&server.site, &holding(2));
    server.cli(&["plugin", "reload"]).done();
    server.cli(&["plugin", "disable", "racks"]).done();
    let record = server.site.path("data/plugins/racks.json");
    let good = std::fs::read(&record).unwrap();
    std::fs::write(&record, "{").unwrap();
    server.cli(&["plugin", "reload"]).done();
    assert_eq!(plugin(&server, "racks")["status"], "disabled");
    for command in ["enable", "rollback", "reload"] {
        assert_eq!(server.cli(&["plugin", command, "racks"]).code, 1, "{command}");
    }
    server.crash_and_restart();
    let shown = plugin(&server, "racks");
    assert_eq!(shown["status"], "broken");
    assert!(shown["problem"].as_str().unwrap().contains("racks.json"), "{shown}");
    Machine::new(1).holds(&server, "racks");
    assert_eq!(std::fs::read_to_string(&record).unwrap(), "{");
    // Nothing was lost: repaired, it is off as before, and there is a way back.
    std::fs::write(&record, good).unwrap();
    server.cli(&["plugin", "reload", "racks"]).done();
    assert_eq!(plugin(&server, "racks")["status"], "disabled");
    server.cli(&["plugin", "enable", "racks"]).done();
    server.cli(&["plugin", "rollback", "racks"]).done();
    assert_eq!(plugin(&server, "racks")["digest"], digest(&holding(1)));
}

/// What is kept of a component.
fn lose(site: &Site, component: &[u8]) {
    let digest = digest(component);
    let kept = site.path("data/plugins").join(digest.replace("sha256:", "")).with_extension("wasm");
    std::fs::remove_file(kept).unwrap();
}

#[test]
fn a_component_without_a_hook_that_its_binding_names_does_not_run() {
    let server = bound(&passing(1), "hooks = [\"boot\", \"transition\"]\n").serve();
    let shown = plugin(&server, "racks");
    assert_eq!(shown["status"], "broken");
    assert!(shown["problem"].as_str().unwrap().contains("is bound to transition"), "{shown}");
    assert_eq!(shown["hooks"], json!(["boot", "transition"]));
    // Nor when the binding of one that runs is changed.
    let config = std::fs::read_to_string(server.site.path("kiwispray.toml")).unwrap();
    let write = |text: String| std::fs::write(server.site.path("kiwispray.toml"), text).unwrap();
    write(config.replace(", \"transition\"", ""));
    server.cli(&["plugin", "reload"]).done();
    assert_eq!(plugin(&server, "racks")["status"], "ok");
    write(config);
    assert_eq!(server.cli(&["plugin", "reload"]).code, 1);
    assert_eq!(plugin(&server, "racks")["status"], "broken");
}

#[test]
fn nothing_takes_the_place_of_a_guard_that_guards_less() {
    let mut server = bound(&passing(1), "").serve();
    let guard = guest::asked_in(&["boot", "transition"], "");
    write(&server.site, &guard);
    server.cli(&["plugin", "reload"]).done();
    assert_eq!(plugin(&server, "racks")["hooks"], json!(["boot", "transition"]));
    server.kill();
    write(&server.site, b"garbage");
    lose(&server.site, &guard);
    server.restart();
    let shown = plugin(&server, "racks");
    assert_eq!((&shown["status"], &shown["hooks"]), (&"broken".into(), &json!(["boot", "transition"])));
    Machine::new(1).holds(&server, "racks");
}

#[test]
fn a_broken_plugin_holds_only_what_it_was_asked_about() {
    let guard = guest::asked_in(&["transition"], "");
    let mut server = bound(&guard, "").serve();
    server.kill();
    write(&server.site, b"garbage");
    lose(&server.site, &guard);
    server.restart();
    let shown = plugin(&server, "racks");
    assert_eq!((&shown["status"], &shown["hooks"]), (&"broken".into(), &json!(["transition"])));
    assert!(!Machine::new(1).boot(&server).script.contains("racks"));
}

#[test]
fn a_digest_that_is_pinned_after_a_rollback_is_the_one_that_runs() {
    let (first, second) = (holding(1), passing(2));
    let mut server = bound(&first, "").serve();
    write(&server.site, &second);
    server.cli(&["plugin", "reload"]).done();
    server.cli(&["plugin", "rollback", "racks"]).done();
    let config = std::fs::read_to_string(server.site.path("kiwispray.toml")).unwrap();
    let named = "component = \"plugins/racks.wasm\"";
    let pinned = config.replace(named, &format!("{named}\ndigest = \"{}\"", digest(&second)));
    std::fs::write(server.site.path("kiwispray.toml"), pinned).unwrap();
    let check = |server: &Server| {
        let shown = plugin(server, "racks");
        assert_eq!((&shown["digest"], &shown["rolled_back"]), (&digest(&second).into(), &false.into()));
        assert_eq!(shown["status"], "ok");
    };
    server.cli(&["plugin", "reload"]).done();
    check(&server);
    server.crash_and_restart();
    check(&server);
}

#[test]
fn a_reload_by_name_closes_breakers() {
    let server = bound(&guest::deciding_by("unreachable"), "").serve();
    for machine in 1..=4 {
        Machine::new(machine).boot(&server);
    }
    let breakers = |server: &Server| plugin(server, "racks")["breakers"].as_array().unwrap().len();
    server.cli(&["plugin", "reload"]).done();
    assert_eq!(breakers(&server), 1);
    assert_eq!(server.cli(&["plugin", "reload", "racks"]).done().out, "racks: changed\n");
    assert_eq!(breakers(&server), 0);
}

#[test]
fn a_rotated_secret_is_a_change() {
    let site = Site::new();
    let token = site.path("token");
    std::fs::write(&token, "one").unwrap();
    let header = format!("Bearer ${{file:{}}}", token.display());
    let site = site.config(&format!(
        "[[plugin]]\nname = \"racks\"\ncomponent = \"plugins/racks.wasm\"\n[[plugin.grant.http]]\n\
         url = \"https://racks.example.org/\"\nmethods = [\"GET\"]\nheaders = {{ Authorization = \"{header}\" }}\n"
    ));
    write(&site, &passing(1));
    let server = site.serve();
    assert_eq!(server.cli(&["plugin", "reload"]).done().out, "racks: unchanged\ndefault: unchanged\n");
    std::fs::write(&token, "two").unwrap();
    assert_eq!(server.cli(&["plugin", "reload"]).done().out, "racks: changed\ndefault: unchanged\n");
}

#[test]
fn what_a_removed_plugin_left_behind_can_be_purged_later() {
    let server = Site::new().serve();
    let path = folder(&server.site, &guest::asked_in(&["events"], "(i32.store (i32.const 4100) (local.get 1))"), "");
    let manifest = path.join("plugin.toml");
    std::fs::write(&manifest, "name = \"racks\"\nhooks = [\"events\"]\n").unwrap();
    server.cli(&["plugin", "install", path.to_str().unwrap(), "--yes"]).done();
    Machine::new(1).boot(&server);
    let begin = Instant::now();
    while plugin(&server, "racks")["outbox"]["behind"] != 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", plugin(&server, "racks"));
        std::thread::sleep(Duration::from_millis(20));
    }
    server.cli(&["plugin", "remove", "racks", "--yes"]).done();
    server.cli(&["plugin", "remove", "racks", "--yes"]).refused(3, "there is no plugin racks");
    server.cli(&["plugin", "remove", "racks", "--yes", "--purge"]).done();
    server.cli(&["plugin", "remove", "racks", "--yes", "--purge"]).refused(3, "there is no plugin racks");
}

#[test]
fn what_an_operator_wrote_stays_over_an_update_and_comes_back_with_a_rollback() {
    let mut server = Site::new().serve();
    let path = folder(&server.site, &holding(1), "kv = true\nhosts = [\"read\", \"states\"]");
    let (path, bare) = (path.to_str().unwrap().to_owned(), path.join("racks.wasm"));
    server.cli(&["plugin", "install", &path, "--yes"]).done();
    // The operator takes something away, and leaves a note.
    let file = server.site.path("plugins.d/racks.toml");
    let text = |server: &Server| std::fs::read_to_string(server.site.path("plugins.d/racks.toml")).unwrap();
    let mine = format!("# mine\n{}", text(&server).replace("kv = true", "kv = false"));
    std::fs::write(&file, &mine).unwrap();
    server.cli(&["plugin", "reload", "racks"]).done();
    let kv =
        |server: &Server| plugin(server, "racks")["reach"].as_array().unwrap().iter().any(|line| line["what"] == "kv");
    for (number, what) in [(2, path.as_str()), (3, bare.to_str().unwrap())] {
        folder(&server.site, &passing(number), "kv = true\nhosts = [\"read\", \"states\"]");
        server.cli(&["plugin", "install", what, "--yes"]).done();
        assert!(!kv(&server) && text(&server).contains("states"), "{}", text(&server));
    }
    let newest = text(&server);
    server.cli(&["plugin", "rollback", "racks"]).done();
    server.cli(&["plugin", "rollback", "racks"]).done();
    assert_eq!(text(&server), mine);
    let check = |server: &Server| {
        let shown = plugin(server, "racks");
        assert_eq!((&shown["digest"], &shown["rolled_back"]), (&digest(&holding(1)).into(), &true.into()));
        assert!(!kv(server));
    };
    check(&server);
    server.crash_and_restart();
    server.cli(&["plugin", "reload"]).done();
    check(&server);
    server.cli(&["plugin", "reload", "racks"]).done();
    assert_eq!((text(&server), &plugin(&server, "racks")["digest"]), (newest, &digest(&passing(3)).into()));
    server.cli(&["plugin", "install", &path, "--yes", "--grants-from-plugin", "--widen"]).done();
    assert!(kv(&server));
}

#[test]
fn a_hangup_binds_what_is_configured_now() {
    let server = Site::new().serve();
    assert!(!Machine::new(1).boot(&server).script.contains("hostile"));
    std::fs::create_dir(server.site.path("conf.d")).unwrap();
    std::fs::write(server.site.path("plugins/racks.wasm"), holding(1)).unwrap();
    std::fs::write(server.site.path("conf.d/racks.toml"), "[[plugin]]\nname = \"racks\"\n").unwrap();
    server.hang_up();
    let begin = Instant::now();
    while !Machine::new(1).boot(&server).script.contains("hostile") {
        assert!(begin.elapsed() < Duration::from_secs(20), "the hangup was not heard:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn components_are_replaced_under_load_without_an_error_or_a_gap() {
    const MACHINES: u32 = 200;
    let server = bound(&holding(0), "").serve();
    for machine in 0..MACHINES {
        Machine::new(machine).boot(&server);
    }
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let loops: Vec<_> = (0..MACHINES)
            .map(|machine| {
                let (server, stop, answers) = (&server, &stop, &answers);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let boot = Machine::new(machine).boot(server);
                        if boot.outcome != "hold" || !boot.script.contains("hostile") {
                            return Some(boot.script);
                        }
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    None
                })
            })
            .collect();
        let mut seen = Vec::new();
        for number in 1..=20 {
            write(&server.site, &holding(number % 4));
            let reload = server.cli(&["plugin", "reload", "--json"]);
            seen.push((reload, number));
        }
        stop.store(true, Ordering::Relaxed);
        for machine in loops {
            assert_eq!(machine.join().unwrap(), None, "an answer that the plugin did not give");
        }
        for (reload, number) in seen {
            assert!(reload.code == 0 && reload.out.contains("changed"), "reload {number}: {reload:?}");
        }
    });
    assert_eq!(plugin(&server, "racks")["digest"], digest(&holding(0)));
    assert!(answers.load(Ordering::Relaxed) > MACHINES as usize, "{answers:?}");
}

#[test]
fn a_plugin_is_installed_updated_and_removed_on_the_running_server() {
    let mut server = Site::new().kiwi("image1").serve();
    let path = folder(&server.site, &holding(1), "");
    let path = path.to_str().unwrap();
    let asked = server.cli(&["plugin", "install", path]).refused(2, "say --yes");
    for part in ["It may do this and nothing else", "hook: boot", "decides what hosts boot", &digest(&holding(1))] {
        assert!(asked.err.contains(part), "{part} is not in {}", asked.err);
    }
    assert!(!Machine::new(1).boot(&server).script.contains("hostile"), "only asked");
    let told = server.cli(&["plugin", "install", path, "--yes", "--priority", "7"]).done();
    assert!(told.out.contains("undo: kiwispray plugin remove racks"), "{told:?}");
    Machine::new(1).holds(&server, "hostile");
    let file = server.site.path("plugins.d/racks.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640);
    server.crash_and_restart();
    Machine::new(1).holds(&server, "hostile");

    // Another component keeps what was bound, and may not do more without being told so.
    folder(&server.site, &passing(2), "kv = true\nhosts = [\"read\"]");
    let fresh = "--grants-from-plugin";
    let refused = server.cli(&["plugin", "install", path, "--yes", fresh]).refused(4, "--widen");
    assert!(refused.err.contains("kv") && refused.err.contains("hosts: read"), "{refused:?}");
    Machine::new(1).holds(&server, "hostile");
    server.cli(&["plugin", "install", path, "--yes", "--widen", fresh]).done();
    assert!(!Machine::new(1).boot(&server).script.contains("hostile"));
    assert_eq!(plugin(&server, "racks")["priority"], 7);
    server.cli(&["plugin", "rollback", "racks"]).done();
    Machine::new(1).holds(&server, "hostile");

    // What does not work is not installed.
    folder(&server.site, b"\0asm garbage", "");
    server.cli(&["plugin", "install", path, "--yes"]).refused(2, "is not a WebAssembly component");
    folder(&server.site, &passing(3), "kvv = true");
    assert_eq!(server.cli(&["plugin", "install", path, "--yes", fresh]).code, 2);
    Machine::new(1).holds(&server, "hostile");

    server.cli(&["plugin", "remove", "racks", "--yes"]).done();
    assert!(!file.exists() && !Machine::new(1).boot(&server).script.contains("hostile"));
    server.cli(&["plugin", "remove", "racks", "--yes"]).refused(3, "there is no plugin racks");
    server.cli(&["plugin", "remove", "racks", "--yes", "--purge"]).refused(3, "there is no plugin racks");
    server.cli(&["plugin", "remove", "default", "--yes"]).refused(4, "the default plugin cannot be removed");
}

#[test]
fn what_a_person_bound_is_not_the_installers_to_change() {
    let server = bound(&holding(1), "").serve();
    let path = folder(&server.site, &passing(2), "");
    let path = path.to_str().unwrap();
    server.cli(&["plugin", "install", path, "--yes"]).refused(4, "kiwispray.toml: change it there");
    server.cli(&["plugin", "remove", "racks", "--yes"]).refused(4, "kiwispray.toml: change it there");
    Machine::new(1).holds(&server, "hostile");
    server.cli(&["plugin", "install", path, "--yes", "--name", "other"]).done();
    assert_eq!(server.json(&["plugin", "list"]).as_array().unwrap().len(), 3);
}

#[test]
fn a_plugin_is_rehearsed_over_all_hosts_before_it_is_bound() {
    let server = Site::new().kiwi("image1").serve();
    Machine::new(1).installed(&server, "image1");
    for machine in 2..=30 {
        Machine::new(machine).boot(&server);
    }
    server.deploy("image1", 2);
    let component = server.site.path("racks.wasm");
    std::fs::write(&component, holding(1)).unwrap();
    let component = component.to_str().unwrap();
    let now = server.cli(&["host", "plan", "--all"]).done();
    assert!(now.out.contains("28 hosts (3, 4, 5") && now.out.contains("1 host (2): boot image image1"), "{now:?}");
    let told = server.cli(&["host", "plan", "--all", "--with", component]).done();
    assert!(told.out.starts_with("1 of 30 hosts boot as before\n"), "{told:?}");
    assert!(told.out.contains("then  hold: hostile"), "{told:?}");
    let summary = server.json(&["host", "plan", "--all", "--with", component]);
    assert_eq!((&summary["hosts"], &summary["unchanged"]), (&30.into(), &1.into()));
    // A plugin that breaks is told of for every host, and none of it is held against anybody.
    std::fs::write(component, guest::deciding_by("unreachable")).unwrap();
    let broken = server.json(&["host", "plan", "--all", "--with", component]);
    assert_eq!(broken["errors"][0]["hosts"].as_array().unwrap().len(), 29, "{broken}");
    assert!(plugin(&server, "default")["breakers"].as_array().unwrap().is_empty());
    // Nothing came of any of it.
    assert_eq!((server.count(2, "boot_offered"), server.states(2).as_str()), (0, "image1"));
    assert_eq!(server.json(&["plugin", "list"]).as_array().unwrap().len(), 1);
    server.cli(&["host", "plan", "--all", "--with", "nosuch.wasm"]).refused(3, "there is no component nosuch.wasm");
}
