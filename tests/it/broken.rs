//! What is broken degrades only what depends on it (P2, P3): plugins, templates, images.

use std::time::{Duration, Instant};

use crate::support::{Machine, Server, Site, guest};

/// A server whose first host is finished, whose second waits and whose third has an order; then its default plugin is
/// replaced and it starts anew.
fn with_default_plugin(bytes: &[u8]) -> Server {
    let mut server = Site::new().kiwi("image1").serve();
    Machine::new(1).installed(&server, "image1");
    Machine::new(2).boot(&server);
    Machine::new(3).boot(&server);
    server.deploy("image1", 3);
    assert_eq!(server.terminate().code(), Some(0));
    std::fs::write(server.site.path("plugins/default.wasm"), bytes).unwrap();
    server.restart();
    server
}

fn waiting_hosts_hold_and_finished_ones_boot(server: &Server) {
    let in_time = |begin: Instant| assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    for _ in 0..2 {
        let begin = Instant::now();
        Machine::new(1).boots_its_disk(server);
        in_time(begin);
        for waiting in [2, 3, 4] {
            let begin = Instant::now();
            Machine::new(waiting).holds(server, "plugin");
            in_time(begin);
        }
    }
    assert_eq!((server.states(1).as_str(), server.states(3).as_str()), ("finished", "image1"));
    assert_eq!(server.count(3, "boot_offered"), 0);
}

#[test]
fn a_default_plugin_that_is_garbage_holds_who_waits_and_boots_who_is_finished() {
    let server = with_default_plugin(b"\0asm garbage");
    waiting_hosts_hold_and_finished_ones_boot(&server);
    assert!(server.log().contains("default"), "{}", server.log());
}

#[test]
fn a_default_plugin_that_traps_holds_who_waits_and_boots_who_is_finished() {
    waiting_hosts_hold_and_finished_ones_boot(&with_default_plugin(&guest::deciding_by("unreachable")));
}

#[test]
fn a_default_plugin_that_loops_holds_who_waits_and_boots_who_is_finished() {
    waiting_hosts_hold_and_finished_ones_boot(&with_default_plugin(&guest::deciding_by("(loop $again (br $again))")));
}

#[test]
fn many_machines_are_answered_in_time_by_a_plugin_that_loops() {
    let server = with_default_plugin(&guest::deciding_by("(loop $again (br $again))"));
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for machine in [1, 2, 3] {
                    let begin = Instant::now();
                    Machine::new(machine).boot(&server);
                    // On a busy machine the answer may be on its way a while.
                    assert!(begin.elapsed() < Duration::from_secs(3), "{machine}: {:?}", begin.elapsed());
                }
            });
        }
    });
    Machine::new(1).boots_its_disk(&server);
}

#[test]
fn a_broken_hold_template_still_leaves_a_hold_script() {
    for broken in ["{{#if", "{{nosuch}}", "#!ipxe\n{{{reason}}}\n", "\u{0}", ""] {
        let server = Site::new().kiwi("image1").template("hold.ipxe.hbs", broken).serve();
        Machine::with(&[]).holds(&server, "no usable serial number");
        let machine = Machine::new(1);
        machine.boot(&server);
        server.deploy("image1", 1);
        machine.boots(&server).fetch_all(&server);
        machine.holds(&server, "installed but never reported");
    }
}

#[test]
fn broken_templates_of_every_answer_leave_machines_a_script() {
    let broken = "{{#if}";
    let site = ["bootstrap", "new", "local", "hold", "_wait", "_failed"]
        .iter()
        .fold(Site::new().kiwi("image1"), |site, name| site.template(&format!("{name}.ipxe.hbs"), broken));
    let server = site.serve();
    let first = server.get("/bootstrap.ipxe").expect(200);
    assert!(first.text().contains("/bootstrap?") && first.text().starts_with("#!ipxe\n"), "{}", first.text());
    let machine = Machine::new(1);
    assert_eq!(machine.boot(&server).outcome, "hold");
    server.cli(&["host", "set", "1", "--state", "finished"]).done();
    machine.boots_its_disk(&server);
}

#[test]
fn a_broken_boot_template_holds_and_costs_no_attempt() {
    let server = Site::new()
        .linux("wipe", "writes = \"wipe\"\ndevice = \"first\"")
        .kiwi("image1")
        .template("boot_linux.ipxe.hbs", "#!ipxe\n{{#if boot.kernel}}\n")
        .serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("wipe", 1);
    machine.holds(&server, "boot_linux");
    assert_eq!((server.host(1)["attempts"].clone(), server.count(1, "boot_offered")), (0.into(), 0));
    // Another image's template is not broken, and this one can be mended while the server runs.
    server.deploy("image1", 1);
    machine.boots(&server);
    std::fs::remove_file(server.site.path("templates/boot_linux.ipxe.hbs")).unwrap();
    server.deploy("wipe", 1);
    machine.boots(&server);
}

#[test]
fn an_installer_script_that_could_not_be_followed_is_not_handed_out() {
    let elsewhere = "#!ipxe\nkernel http://example.com/kernel {{cmdline}}\nboot\n";
    let server = Site::new().linux("wipe", "writes = \"disk\"\ndevice = \"first\"").serve();
    server.site.file("wipe", "host.ipxe.hbs", elsewhere);
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("wipe", 1);
    machine.holds(&server, "boot.files");
    assert_eq!(server.count(1, "boot_offered"), 0);
}

#[test]
fn a_state_without_an_image_is_refused_when_set_and_held_when_booted() {
    let server = Site::new().kiwi("image1").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    for state in ["nosuch", "image1,nosuch"] {
        server
            .cli(&["host", "set", "1", "--state", state, "--yes"])
            .refused(3, "there is no image and no template nosuch");
    }
    server.cli(&["deploy", "imag1", "1", "--yes"]).refused(3, "is image1 meant?");
    assert_eq!(server.states(1), "new");

    server.deploy("image1", 1);
    let away = server.site.path("away");
    std::fs::rename(server.site.path("images/image1"), &away).unwrap();
    machine.holds(&server, "image1");
    assert!(server.cli(&["host", "plan", "1"]).done().out.contains("image1"));
    std::fs::rename(&away, server.site.path("images/image1")).unwrap();
    machine.boots(&server).install(&server);
}

#[test]
fn an_image_that_vanishes_during_its_boot_ends_the_transfer_and_nothing_else() {
    let server = Site::new().kiwi("image1").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("image1", 1);
    let boot = machine.boots(&server);
    boot.load(&server);
    std::fs::remove_file(server.site.path("images/image1/image1.xz")).unwrap();
    server.get(boot.payload()).expect(404);
    machine.holds(&server, "the image image1 is not whole: image1.xz is missing");
    assert_eq!(server.states(1), "image1");
}

#[test]
fn a_folder_that_is_no_image_is_named_with_its_fault_and_hides_no_other() {
    let site = Site::new().kiwi("image1").with_file("bare", "vmlinuz", "kernel");
    let typo = "kind = \"linux\"\nkernel = \"vmlinuz\"\nwrits = \"disk\"\n";
    let server = site.linux("anydisk", "writes = \"disk\"").with_file("typo", "image.toml", typo).serve();
    Machine::new(1).boot(&server);
    for (image, fault) in [
        ("bare", "the image bare has no image.toml"),
        ("anydisk", "writes a disk and does not say which"),
        ("typo", "unknown key `writs`: is `writes` meant?"),
    ] {
        server.cli(&["deploy", image, "1", "--yes"]).refused(4, fault);
        assert!(server.cli(&["image", "list"]).done().out.contains(fault));
    }
    server.deploy("image1", 1);
}

#[test]
fn discovery_without_its_image_warns_at_start_and_holds_with_that_reason() {
    let server = Site::new().config("discover = true").serve();
    assert!(server.log().contains("no image discover"), "{}", server.log());
    Machine::new(1).holds(&server, "discover");
}

#[test]
fn a_store_that_refuses_writes_keeps_finished_hosts_booting_and_installs_nothing() {
    let mut server = Site::new().kiwi("image1").serve();
    Machine::new(1).installed(&server, "image1");
    let machine = Machine::new(2);
    machine.boot(&server);
    server.deploy("image1", 2);
    let boot = machine.boots(&server);
    boot.fetch_all(&server);
    Machine::new(3).boot(&server);
    server.deploy("image1", 3);
    assert_eq!(server.terminate().code(), Some(0));
    // No disk has that much to spare.
    let configuration = server.site.path("kiwispray.toml");
    let text = std::fs::read_to_string(&configuration).unwrap();
    let full = text.replace("free_space_floor_mb = 0", "free_space_floor_mb = 1048576");
    std::fs::write(&configuration, full).unwrap();
    server.restart();
    Machine::new(1).boots_its_disk(&server);
    // What a finished host newly reports is not learned, and does not keep it from its disk.
    Machine::new(1).but("net1", "52:54:00:77:77:77").boots_its_disk(&server);
    Machine::new(3).holds(&server, "the server cannot reach its store");
    Machine::new(4).holds(&server, "the server cannot reach its store");
    server.get(&boot.call("finish")).expect(503);
    assert_eq!(server.cli(&["host", "set", "3", "-n", "x"]).code, 1);

    std::fs::write(&configuration, text).unwrap();
    server.terminate();
    server.restart();
    server.get(&boot.call("finish")).expect(200);
    machine.boots_its_disk(&server);
    Machine::new(3).boots(&server);
}

#[test]
fn a_folder_of_images_that_is_away_keeps_no_finished_host_from_its_disk() {
    let mut server = Site::new().kiwi("image1").serve();
    Machine::new(1).installed(&server, "image1");
    let machine = Machine::new(2);
    machine.boot(&server);
    server.deploy("image1", 2);
    server.terminate();
    let images = server.site.path("images");
    let away = server.site.path("away");
    std::fs::rename(&images, &away).unwrap();
    // Neither there nor to be made: what it leads to is not mounted.
    std::os::unix::fs::symlink(server.site.path("disk/images"), &images).unwrap();
    server.restart();
    Machine::new(1).boots_its_disk(&server);
    assert_eq!(machine.boot(&server).outcome, "hold");
    assert!(server.log().contains("something wrong with the folder of images"), "{}", server.log());
    std::fs::remove_file(&images).unwrap();
    std::fs::rename(&away, &images).unwrap();
    machine.boots(&server).install(&server);
}

#[test]
fn discovery_comes_before_waiting_when_it_is_wanted() {
    let server = Site::new().config("discover = true").linux("discover", "writes = \"nothing\"").serve();
    let machine = Machine::new(1);
    let boot = machine.boots(&server);
    assert_eq!(server.states(1), "discover,new");
    boot.load(&server);
    server.http().post(&boot.call("update"), "metadata=%7B%22cores%22:8%7D").expect(200);
    server.get(&boot.call("finish")).expect(200);
    assert_eq!((server.states(1).as_str(), machine.boot(&server).outcome.as_str()), ("new", "hold"));
}

#[test]
fn a_template_may_be_booted_as_a_state_and_is_an_order_unless_it_says_otherwise() {
    let script = "#!ipxe\nchain http://example.com/menu ||\nexit 1\n";
    let server = Site::new().template("menu.ipxe.hbs", script).serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.cli(&["deploy", "menu", "1"]).refused(2, "say --yes");
    server.deploy("menu", 1);
    assert_eq!(machine.boots(&server).script, script);
    machine.holds(&server, "installed but never reported");

    let harmless = format!("{{{{!--\nA menu.\nWrites: nothing\n--}}}}\n{script}");
    std::fs::write(server.site.path("templates/menu2.ipxe.hbs"), harmless).unwrap();
    server.cli(&["deploy", "menu2", "1", "--abort"]).done();
    for _ in 0..5 {
        machine.boots(&server);
    }
}

#[test]
fn machines_leave_for_their_disk_as_the_site_or_the_host_wants() {
    let server = Site::new().config("[boot]\nlocal = \"sanboot\"\n").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.cli(&["host", "set", "1", "--state", "finished"]).done();
    assert!(machine.boots_its_disk(&server).script.contains("\nsanboot "));
    server.cli(&["host", "set", "1", "-m", r#"{"local":"exit"}"#]).done();
    assert!(!machine.boots_its_disk(&server).script.contains("sanboot"));
}
