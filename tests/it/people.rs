//! What people do to hosts while machines boot: orders, their refusals, and what becomes of attempts that run.

use serde_json::{Value, json};

use crate::support::{Machine, Server, Site, archive};

/// A server with image1, image2 and this many hosts.
fn hosts(count: u32) -> Server {
    let server = Site::new().kiwi("image1").kiwi("image2").serve();
    for number in 1..=count {
        assert_eq!(Machine::new(number).boot(&server).host, Some(u64::from(number)));
    }
    server
}

fn ids(hosts: &Value) -> Vec<u64> {
    hosts.as_array().unwrap().iter().map(|host| host["id"].as_u64().unwrap()).collect()
}

#[test]
fn hosts_are_chosen_by_number_name_serial_card_range_or_condition() {
    let server = hosts(5);
    server.cli(&["host", "set", "2", "-n", "node2", "-m", r#"{"site":"fra1"}"#]).done();
    server.cli(&["host", "set", "4-5", "-m", r#"{"site":"fra1"}"#]).done();
    let list = |arguments: &[&str]| ids(&server.json(&[&["host", "list"], arguments].concat()));
    assert_eq!(list(&[]), [1, 2, 3, 4, 5]);
    assert_eq!(list(&["2-4"]), [2, 3, 4]);
    assert_eq!(list(&["node2"]), [2]);
    assert_eq!(list(&["sn00003"]), [3]);
    assert_eq!(list(&["52-54-00-00-00-04"]), [4]);
    assert_eq!(list(&["1", "SN00003"]), [1, 3]);
    assert_eq!(list(&["--where", "metadata.site=fra1"]), [2, 4, 5]);
    assert_eq!(list(&["--where", "metadata.site=fra1", "--where", "hostname=node2"]), [2]);
    assert_eq!(list(&["--where", "state=image1"]), [0_u64; 0]);

    server.cli(&["deploy", "image1", "--where", "metadata.site=fra1", "--yes"]).done();
    assert_eq!(list(&["--where", "state=image1"]), [2, 4, 5]);
    server.cli(&["host", "show", "17"]).refused(3, "there is no host 17");
    server.cli(&["host", "show", "nodd2"]).refused(3, "is node2 meant?");
    server.cli(&["host", "retry", "--where", "metadata.site=ber1"]).refused(3, "metadata.site=ber1");
    server.cli(&["host", "list", "--where", "colour=red"]).refused(2, "hosts have no field");
    server.cli(&["host", "list", "5-2"]).refused(2, "ends before it begins");
}

#[test]
fn an_order_for_many_is_given_to_all_or_to_none() {
    let server = hosts(3);
    Machine::new(2).installed(&server, "image1");
    server.cli(&["deploy", "image2", "1-3", "--yes"]).refused(4, "--reinstall");
    assert_eq!([1, 2, 3].map(|id| server.states(id)), ["new", "finished", "new"]);
    server.cli(&["deploy", "image2", "1-3", "--yes", "--reinstall"]).done();
    assert_eq!([1, 2, 3].map(|id| server.states(id)), ["image2"; 3]);
}

#[test]
fn erasing_is_agreed_to_and_told() {
    let server = hosts(1);
    let refused = server.cli(&["deploy", "image1", "1"]).refused(2, "say --yes");
    for part in ["SN00001", "erases /dev/sda (by image1)"] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    assert_eq!(server.states(1), "new");
    server.cli(&["deploy", "image1", "1", "--yes", "--expect-serial", "SN00002"]).refused(4, "SN00001");
    let tried = server.cli(&["deploy", "image1", "1", "--dry-run"]).done();
    assert!(tried.out.contains("new -> image1"), "{}", tried.out);
    assert_eq!(server.states(1), "new");
    let done = server.cli(&["deploy", "image1", "1", "--yes", "--expect-serial", "sn00001"]).done();
    assert!(done.out.contains("new -> image1") && done.out.contains("undo: kiwispray host set 1"), "{}", done.out);
    let changed = server.json(&["deploy", "image2", "1", "--yes"]);
    assert_eq!(changed[0]["erases"], json!([{"state": "image2", "disk": "/dev/sda"}]));
}

#[test]
fn leaving_finished_needs_the_wish_and_a_running_attempt_needs_to_be_given_up() {
    let server = hosts(1);
    let machine = Machine::new(1);
    server.deploy("image1", 1);
    let boot = machine.boots(&server);
    // An offer that nobody took is no attempt.
    server.deploy("image2", 1);
    server.deploy("image1", 1);
    let boot = if server.get(boot.kernel()).status == 404 { machine.boots(&server) } else { boot };
    boot.load(&server);
    for command in [
        &["deploy", "image2", "1", "--yes"][..],
        &["host", "set", "1", "--state", "new", "--yes"],
        &["host", "retry", "1", "--yes"],
        &["host", "finish", "1", "--yes"],
        &["host", "forget", "1", "--yes"],
    ] {
        server.cli(command).refused(4, "is being installed right now; give that up with --abort");
    }
    assert_eq!(server.host(1)["running"], true);
    server.cli(&["host", "retry", "1", "--yes", "--abort"]).done();
    server.get(&boot.call("finish")).expect(409);
    machine.boots(&server).install(&server);

    server.cli(&["deploy", "image1", "1", "--yes"]).refused(4, "say so with --reinstall");
    server.cli(&["host", "set", "1", "--state", "new", "--yes"]).refused(4, "--reinstall");
    server.cli(&["host", "retry", "1", "--yes"]).refused(4, "there is nothing to try again");
    machine.boots_its_disk(&server);
    server.cli(&["deploy", "image1", "1", "--yes", "--reinstall"]).done();
    machine.boots(&server);
}

#[test]
fn progress_is_seen_while_an_installation_runs() {
    let server = hosts(1);
    server.deploy("image1", 1);
    let boot = Machine::new(1).boots(&server);
    boot.load(&server);
    boot.fetch_range(&server, boot.payload(), "0-74999");
    let progress = &server.host(1)["progress"];
    assert_eq!(*progress, json!({"file": "image1.xz", "bytes": 75_000, "total": 300_000, "percent": 25}));
    assert!(server.cli(&["host", "list"]).done().out.contains("25 %"));
    boot.fetch_range(&server, boot.payload(), "0-149999");
    assert_eq!(server.host(1)["progress"]["percent"], 50, "no byte counts twice");
}

#[test]
fn a_forgotten_machine_is_new_and_numbers_are_not_used_again() {
    let server = hosts(2);
    server.cli(&["host", "forget", "2"]).refused(2, "say --yes");
    server.cli(&["host", "forget", "2", "--yes"]).done();
    server.cli(&["host", "show", "2"]).refused(3, "there is no host 2");
    assert_eq!(Machine::new(2).boot(&server).host, Some(3));
}

#[test]
fn a_host_added_by_hand_is_met_at_its_first_boot_and_installs() {
    let server = hosts(0);
    let add = ["host", "add", "--serial", "SN00007", "-n", "node7", "-s", "image1", "-m", r#"{"site":"fra1"}"#];
    server.cli(&add).refused(2, "erases /dev/sda (by image1)");
    server.cli(&[&add[..], &["--yes"]].concat()).done();
    server.cli(&[&add[..], &["--yes"]].concat()).refused(4, "host 1");
    server.cli(&["host", "add", "--mac", "52:54:00:00:00:08", "-n", "node7"]).refused(4, "called node7 already");
    server.cli(&["host", "add", "--serial", "Default string"]).refused(2, "identifies no machine");
    let boot = Machine::new(7).boots(&server);
    assert_eq!(boot.host, Some(1));
    boot.install(&server);
    assert_eq!(server.host(1)["macs"], json!(["52:54:00:00:00:07"]));
}

#[test]
fn a_plan_tells_the_next_answer_and_changes_nothing() {
    let server = hosts(1);
    let plan = || server.json(&["host", "plan", "1"])["outcome"].clone();
    assert_eq!(plan(), "wait");
    server.deploy("image1", 1);
    assert_eq!(plan(), "boot");
    let script = server.cli(&["host", "plan", "1", "--script"]).done().out;
    assert!(script.starts_with("#!ipxe\n") && script.contains("rd.kiwi.oem.installdevice=/dev/sda"), "{script}");
    let kernel = script.split("/b/").nth(1).unwrap().split(' ').next().unwrap();
    server.get(&format!("/b/{kernel}")).expect(404);
    assert_eq!((server.host(1)["attempts"].clone(), server.count(1, "boot_offered")), (json!(0), 0));
    let boot = Machine::new(1).boots(&server);
    boot.fetch_all(&server);
    assert_eq!(plan(), "hold");
    server.get(&boot.call("finish")).expect(200);
    assert_eq!(plan(), "local");
}

#[test]
fn an_explanation_names_what_was_ignored() {
    let server = hosts(1);
    server.cli(&["host", "add", "--serial", "SN00009"]).done();
    server.cli(&["host", "explain", "2"]).refused(3, "has not asked");
    Machine::new(1).but("asset", "Default string").but("net3", "rubbish").but("uuid", "xyz").boot(&server);
    let explanation = server.json(&["host", "explain", "1"]);
    let ignored: Vec<&str> =
        explanation["ignored"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(ignored, ["net3", "uuid"]);
}

#[test]
fn an_archive_is_imported_and_installs_from_its_own_files() {
    let server = hosts(1);
    std::fs::write(server.site.path("test.install.tar"), archive::kiwi(&vec![7; 100_000])).unwrap();
    server.cli(&["image", "import", "test", "test.install.tar"]).refused(2, "--device");
    server.cli(&["image", "import", "test", "test.install.tar", "--device", "/dev/vda"]).done();
    server.cli(&["image", "import", "test", "test.install.tar", "--device", "/dev/vda"]).refused(4, "say --replace");
    server.deploy("test", 1);
    let boot = Machine::new(1).boots(&server);
    assert_eq!(boot.argument("rd.kiwi.oem.installdevice"), "/dev/vda");
    assert_eq!(boot.argument("console"), "ttyS0,115200");
    assert!(boot.payload().ends_with("/test.x86_64-1.0.xz"));
    for name in ["test.x86_64-1.0.sha256", "test.x86_64-1.0.kernel", "test.x86_64-1.0.initrd"] {
        server.get(&boot.file(name)).expect(200);
    }
    boot.install(&server);
    Machine::new(1).boots_its_disk(&server);
    server.cli(&["image", "remove", "test", "--yes"]).done();
    server.cli(&["image", "show", "test"]).refused(3, "there is no image test");
}

#[test]
fn the_disk_named_in_metadata_wins_and_a_wrong_one_holds() {
    let server = hosts(1);
    let machine = Machine::new(1);
    server
        .cli(&["host", "set", "1", "-s", "image1", "-m", r#"{"install_device":"/dev/disk/by-id/x"}"#, "--yes"])
        .done();
    assert_eq!(machine.boots(&server).argument("rd.kiwi.oem.installdevice"), "/dev/disk/by-id/x");
    for wrong in
        [r#"{"install_device":"sda; reboot"}"#, r#"{"install_device":7}"#, r#"{"install_device":"/dev/../x y"}"#]
    {
        server.cli(&["host", "set", "1", "-m", wrong, "--yes"]).done();
        machine.holds(&server, "install_device");
    }
}
