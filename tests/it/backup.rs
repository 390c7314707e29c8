//! A store is saved while it serves, restored, looked at and released; and what is wrong with a backup harms nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use super::support::server::{command, serve_command};
use super::support::{Machine, Run, Server, Site};

fn kiwispray(site: &Site, arguments: &[&str]) -> Run {
    let mut command = command(site);
    command.args(arguments);
    Run::of(command)
}

/// Every file below a folder, with its bytes.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The names of the events of host 1.
fn event_names(server: &Server) -> BTreeSet<String> {
    let events = server.json(&["host", "events", "1"]);
    events.as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_restored_backup_writes_no_disk_until_it_is_released() {
    let mut server = Site::new().kiwi("image1").serve();
    let (done, ordered, late) = (Machine::new(1), Machine::new(2), Machine::new(3));
    done.installed(&server, "image1");
    let id = ordered.boot(&server).host.unwrap();
    server.deploy("image1", id);
    let old = ordered.boots(&server);
    // Saved in the middle of an installation, while machines ask.
    old.load(&server);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|_| drop(done.boots_its_disk(&server))));
        let saved = server.cli(&["backup", "kiwi.backup"]).done();
        assert!(saved.out.contains("not in it: images"), "{}", saved.out);
    });
    let backup = server.site.path("kiwi.backup");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    server.cli(&["backup", "kiwi.backup"]).refused(2, "--replace");
    assert!(server.cli(&["fsck"]).done().out.contains("everything fits together"));
    // What the backup does not know: this machine is installed, and another one came and was installed, too.
    old.install(&server);
    late.installed(&server, "image1");
    let in_use = server.cli(&["restore", "kiwi.backup", "--data-dir", "data", "--replace-store"]);
    in_use.refused(1, "is in use by process ");
    let names = event_names(&server);
    server.terminate();

    server.cli(&["restore", "kiwi.backup", "--data-dir", "data"]).refused(1, "add --replace-store");
    let restored = server.cli(&["restore", "kiwi.backup", "--data-dir", "data", "--replace-store"]).done();
    assert!(restored.out.contains("1 hosts hold"), "{}", restored.out);
    server.cli(&["fsck", "--data-dir", "data"]).done();
    server.restart();

    done.boots_its_disk(&server);
    let new_names = event_names(&server);
    assert!(new_names.len() > 3 && names.is_disjoint(&new_names), "no event has the name of one before: {names:?}");
    ordered.holds(&server, &format!("kiwispray release {id}"));
    server.http().get(&old.call("finish")).expect(409);
    assert_eq!(server.states(id), "image1", "a call of the boot before the backup does nothing");
    server.cli(&["deploy", "image1", "1", "--reinstall", "--yes"]).refused(4, "kiwispray release 1");
    // Nobody knows the machine that came after the backup; it is not installed by a fresh order either.
    let late_id = late.boot(&server).host.unwrap();
    assert!(late_id > 1_000, "3 was its number, and may be in somebody's list: {late_id}");
    server.cli(&["deploy", "image1", &late_id.to_string(), "--yes"]).refused(4, "quarantined");

    server.cli(&["release", &id.to_string()]).refused(2, "erases /dev/sda");
    let released = server.cli(&["release", &id.to_string(), "--yes"]).done();
    assert!(released.out.contains("quarantine: released"), "{}", released.out);
    ordered.boots(&server).install(&server);
    assert_eq!(server.states(id), "finished");
    server.cli(&["release", "--all", "--yes"]).done();
    Machine::new(4).installed(&server, "image1");
    server.cli(&["fsck"]).done();
}

#[test]
fn a_bad_backup_changes_nothing() {
    let mut server = Site::new().serve();
    Machine::new(1).boot(&server);
    server.cli(&["backup", "good"]).done();
    server.terminate();
    let site = &server.site;
    let good = fs::read(site.path("good")).unwrap();
    fs::write(site.path("cut"), &good[..good.len() / 2]).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    fs::write(site.path("flipped"), flipped).unwrap();
    fs::write(site.path("foreign"), "[]").unwrap();
    let before = files(&site.path("data"));
    for (file, sentence) in
        [("cut", "ends early"), ("flipped", "is damaged near byte"), ("foreign", "no backup"), ("none", "cannot read")]
    {
        kiwispray(site, &["restore", file, "--data-dir", "data", "--replace-store"]).refused(1, sentence);
        kiwispray(site, &["restore", file, "--data-dir", "elsewhere"]).refused(1, sentence);
    }
    assert!(files(&site.path("data")) == before, "not a byte is another");
    assert!(!site.path("elsewhere").exists());
    kiwispray(site, &["fsck", "--data-dir", "elsewhere"]).refused(1, "there is no store in elsewhere");
    kiwispray(site, &["backup", "two", "--data-dir", "elsewhere"]).refused(1, "there is no store in elsewhere");
    assert!(!site.path("two").exists() && !site.path("elsewhere").exists());
    // A new server, on a machine that had none.
    kiwispray(site, &["restore", "good", "--data-dir", "elsewhere"]).done();
    kiwispray(site, &["backup", "two", "--data-dir", "elsewhere"]).done();
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_store_or_the_new_one() {
    let mut server = Site::new().serve();
    for number in 1..=40 {
        Machine::new(number).boot(&server);
    }
    server.cli(&["backup", "many"]).done();
    server.terminate();
    let site = &server.site;
    // A restore takes as long as the machine lets it: measured first, so that kills fall all over it.
    let begun = Instant::now();
    kiwispray(site, &["restore", "many", "--data-dir", "data", "--replace-store"]).done();
    let whole = begun.elapsed();
    let mut killed = 0;
    for round in 0..12 {
        let mut random = [0];
        getrandom::fill(&mut random).unwrap();
        // From the start to a little after the end.
        let pause = whole * u32::from(random[0]) / 232;
        let mut restoring = command(site);
        restoring.args(["restore", "many", "--data-dir", "data", "--replace-store", "--quiet"]);
        let mut restoring = restoring.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(pause);
        let _ = restoring.kill();
        killed += u32::from(!restoring.wait().unwrap().success());
        let check = kiwispray(site, &["fsck", "--data-dir", "data", "--json"]).done();
        let check: serde_json::Value = serde_json::from_str(&check.out).unwrap();
        assert_eq!(check["hosts"], 40, "round {round}, killed after {pause:?} of {whole:?}");
        // The store in place is whole; what is half lies beside it and says so.
        assert!(!site.path("data/store/unfinished-restore").exists());
    }
    assert!(killed > 0, "no kill came in time");
    kiwispray(site, &["restore", "many", "--data-dir", "data", "--replace-store"]).done();
    let left = fs::read_dir(site.path("data")).unwrap().map(|entry| entry.unwrap().path());
    let unfinished = left.filter(|path| path.join("unfinished-restore").exists()).count();
    assert_eq!(unfinished, 0, "what was left is cleaned up by the next");
}

#[test]
fn a_first_restore_that_was_killed_is_no_store_to_a_server_and_is_done_again() {
    let mut server = Site::new().serve();
    Machine::new(1).boot(&server);
    server.cli(&["backup", "kiwi.backup"]).done();
    server.terminate();
    let site = Site::new();
    fs::copy(server.site.path("kiwi.backup"), site.path("kiwi.backup")).unwrap();
    let restore = || {
        let mut restore = command(&site);
        restore.args(["restore", "kiwi.backup", "--data-dir", "data"]).stdout(std::process::Stdio::null());
        restore
    };
    // Killed once there is something, and nothing whole.
    let killed_in_time = (0..20).any(|_| {
        let _ = fs::remove_dir_all(site.path("data"));
        let mut killed = restore().spawn().unwrap();
        let begun = Instant::now();
        while !fs::read_dir(site.path("data")).is_ok_and(|mut files| files.next().is_some()) {
            assert!(begun.elapsed().as_secs() < 60, "it does not begin");
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        !site.path("data/store").exists()
    });
    assert!(killed_in_time);
    let refused = Run::of(serve_command_without_init(&site));
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("the data directory holds no store"), "{}", refused.err);
    Run::of(restore()).done();
    let mut names: Vec<_> = fs::read_dir(site.path("data")).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.retain(|name| name.to_string_lossy().starts_with("store"));
    assert_eq!(names, ["store"], "what was left is cleaned up");
    let server = site.serve();
    assert!(server.host(1)["quarantined"].as_bool().unwrap());
    Machine::new(1).boot(&server);
}

/// On a small file system of its own, which goes with the process.
#[test]
fn a_backup_to_a_full_disk_says_so_and_keeps_the_backup_that_was_there() {
    let server = Site::new().serve();
    for number in 1..=40 {
        Machine::new(number).boot(&server);
    }
    let site = &server.site;
    fs::create_dir(site.path("small")).unwrap();
    let script = "mount -t tmpfs -o size=12k none small && echo before > small/kiwi.backup
        if \"$@\"; then exit 9; fi
        cat small/kiwi.backup; ls -A small; exit 0";
    let mut shell = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        shell.arg("--map-root-user");
    }
    shell.args(["--mount", "--", "sh", "-c", script, "sh"]).current_dir(site.root());
    let mut ours = command(site);
    ours.args(["--server", &format!("unix:{}", site.path("data/admin.sock").display())]);
    ours.args(["backup", "small/kiwi.backup", "--replace"]);
    shell.arg(ours.get_program()).args(ours.get_args());
    shell.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Run::of(shell);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.out, "before\nkiwi.backup\n", "neither changed, nor a half one beside it");
    assert!(run.err.contains("small/kiwi.backup was not written: No space left on device"), "{}", run.err);
}

#[test]
fn the_store_of_the_first_release_is_opened_and_brought_forward() {
    let site = Site::new().kiwi("web");
    let packed = zstd::stream::read::Decoder::new(&include_bytes!("../fixtures/store-schema-1.tar.zst")[..]).unwrap();
    fs::create_dir(site.path("data")).unwrap();
    tar::Archive::new(packed).unpack(site.path("data")).unwrap();
    let mut server = site.serve();
    let hosts = server.json(&["host", "list"]);
    let states: Vec<&str> = hosts.as_array().unwrap().iter().map(|host| host["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["new", "web", "finished"]);
    assert_eq!(hosts[1]["hostname"], "node2");
    assert_eq!(hosts[1]["metadata"]["site"], "fra1");
    assert_eq!(server.count(2, "boot_offered"), 1);
    server.cli(&["fsck"]).done();
    Machine::new(3).boots_its_disk(&server);
    Machine::new(2).boots(&server).install(&server);
    assert_eq!(Machine::new(9).boot(&server).host, Some(5), "4 was forgotten, and its number is not used again");
    server.crash_and_restart();
    assert_eq!(server.states(2), "finished");
}

#[test]
fn a_data_directory_that_vanished_is_not_made_anew() {
    let site = Site::new();
    let refused = Run::of(serve_command_without_init(&site));
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("is its disk mounted?") && refused.err.contains("--init"), "{}", refused.err);
    assert!(!site.path("data").exists());
}

fn serve_command_without_init(site: &Site) -> std::process::Command {
    let with = serve_command(site);
    let mut command = command(site);
    command.args(with.get_args().filter(|argument| *argument != "--init"));
    command
}
