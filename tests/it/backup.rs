//! A store is saved while it serves, restored, looked at and released; and what is wrong with a backup harms nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::support::server::{command, serve_command};
use super::support::{Machine, Run, Site};

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
    server.terminate();

    server.cli(&["restore", "kiwi.backup", "--data-dir", "data"]).refused(1, "add --replace-store");
    let restored = server.cli(&["restore", "kiwi.backup", "--data-dir", "data", "--replace-store"]).done();
    assert!(restored.out.contains("1 hosts hold"), "{}", restored.out);
    server.cli(&["fsck", "--data-dir", "data"]).done();
    server.restart();

    done.boots_its_disk(&server);
    ordered.holds(&server, &format!("kiwispray release {id}"));
    server.http().get(&old.call("finish")).expect(409);
    assert_eq!(server.states(id), "image1", "a call of the boot before the backup does nothing");
    server.cli(&["deploy", "image1", "1", "--reinstall", "--yes"]).refused(4, "kiwispray release 1");
    // Nobody knows the machine that came after the backup; it is not installed by a fresh order either.
    let late_id = late.boot(&server).host.unwrap();
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
    for pause_ms in [0, 20, 40, 80, 120, 200, 400] {
        let mut restoring = command(site);
        restoring.args(["restore", "many", "--data-dir", "data", "--replace-store", "--quiet"]);
        let mut restoring = restoring.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause_ms));
        let _ = restoring.kill();
        restoring.wait().unwrap();
        let check = kiwispray(site, &["fsck", "--data-dir", "data", "--json"]).done();
        let check: serde_json::Value = serde_json::from_str(&check.out).unwrap();
        assert_eq!(check["hosts"], 40, "killed after {pause_ms} ms");
    }
    kiwispray(site, &["restore", "many", "--data-dir", "data", "--replace-store"]).done();
    let left = fs::read_dir(site.path("data")).unwrap().map(|entry| entry.unwrap().path());
    let unfinished = left.filter(|path| path.join("unfinished-restore").exists()).count();
    assert_eq!(unfinished, 0, "what was left is cleaned up by the next");
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
    let mut serve = serve_command(&site);
    let arguments: Vec<_> = serve.get_args().filter(|argument| *argument != "--init").map(ToOwned::to_owned).collect();
    serve = command(&site);
    serve.args(arguments);
    let refused = Run::of(serve);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("is its disk mounted?") && refused.err.contains("--init"), "{}", refused.err);
    assert!(!site.path("data").exists());
}
