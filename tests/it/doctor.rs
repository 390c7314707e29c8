//! What an admin asks before calling for help: `doctor`, `config`, `template`. All but `config reload` without a server.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::server::command;
use crate::support::{Machine, Run, Site};

/// `doctor` over the folders of a site, with its findings.
fn doctor(site: &Site, more: &[&str]) -> (i32, Vec<Value>) {
    let mut command = command(site);
    command.args(["doctor", "--json", "--config", "kiwispray.toml", "--data-dir", "data", "--init"]);
    command.args(["--images-dir", "images", "--templates-dir", "templates", "--plugins-dir", "plugins"]);
    // A port that nobody has, unless a test says otherwise.
    if !more.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:1"]);
    }
    findings(Run::of({
        command.args(["--ipxe-dir", "ipxe"]).args(more);
        command
    }))
}

fn findings(run: Run) -> (i32, Vec<Value>) {
    let document: Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{run:?}"));
    (run.code, document["findings"].as_array().unwrap().clone())
}

/// The first finding of a check that is as bad as this.
#[track_caller]
fn the<'f>(findings: &'f [Value], check: &str, verdict: &str) -> &'f Value {
    let found = findings.iter().find(|finding| finding["check"] == check && finding["verdict"] == verdict);
    found.unwrap_or_else(|| panic!("no {verdict} of {check} in {findings:#?}"))
}

fn sound() -> Site {
    let site = Site::new().kiwi("image1");
    for file in ["undionly.kpxe", "snponly.efi"] {
        fs::write(site.path("ipxe").join(file), "iPXE").unwrap();
    }
    site
}

#[test]
fn a_sound_site_passes_and_every_check_has_spoken() {
    let site = sound();
    fs::create_dir(site.path("data")).unwrap();
    let (code, findings) = doctor(&site, &[]);
    let failed: Vec<&Value> = findings.iter().filter(|finding| finding["verdict"] == "fail").collect();
    assert_eq!((code, failed), (0, vec![]), "{findings:#?}");
    for check in ["config", "ipxe", "ports", "firewall", "data", "disk", "clock", "templates", "images", "plugins"] {
        assert!(findings.iter().any(|finding| finding["check"] == check), "{check}: {findings:#?}");
    }
    assert_eq!(fs::read_dir(site.path("data")).unwrap().count(), 0, "looking leaves nothing behind");
}

#[test]
fn each_thing_that_is_wrong_is_found_with_its_remedy() {
    let site = sound()
        .template("post_install.sh.hbs", "#!/bin/sh\nx={{host.hostnam}}\n")
        .config("[[plugin]]\nname = \"cmdb\"\ncomponent = \"nosuch.wasm\"\n");
    fs::write(site.path("images/image1/image1.xz"), "").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, findings) = doctor(&site, &["--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(code, 1);
    let said = |check| the(&findings, check, "fail")["said"].as_str().unwrap().to_owned();
    assert!(
        said("templates").contains("post_install.sh.hbs line 2: there is no variable host.hostnam"),
        "{findings:#?}"
    );
    assert!(said("images").contains("image1.xz is empty"), "{findings:#?}");
    assert!(said("plugins").contains("nosuch.wasm"), "{findings:#?}");
    assert!(said("ports").contains(&format!("(process {})", std::process::id())), "{findings:#?}");
    for finding in findings.iter().filter(|finding| finding["verdict"] != "ok") {
        assert!(finding["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{finding}");
    }
}

#[test]
fn a_clock_behind_the_data_and_open_data_are_found() {
    let site = sound();
    fs::create_dir(site.path("data")).unwrap();
    let file = fs::File::create(site.path("data/newer")).unwrap();
    let written = file.metadata().unwrap().modified().unwrap();
    file.set_modified(written + Duration::from_secs(3600)).unwrap();
    fs::set_permissions(site.path("data"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, findings) = doctor(&site, &[]);
    assert_eq!(code, 1);
    assert!(the(&findings, "clock", "fail")["said"].as_str().unwrap().contains("data/newer"), "{findings:#?}");
    assert!(the(&findings, "data", "warn")["remedy"].as_str().unwrap().starts_with("chmod o-rwx"), "{findings:#?}");
}

#[test]
fn a_running_server_is_no_problem_for_its_doctor() {
    let server = sound().serve();
    let (code, findings) = doctor(&server.site, &["--listen", &server.address.to_string()]);
    assert_eq!(code, 0, "{findings:#?}");
    let port = format!("TCP {}", server.address.port());
    let finding = findings.iter().find(|finding| finding["subject"] == port.as_str()).unwrap();
    assert!(finding["said"].as_str().unwrap().ends_with("a server runs"), "{finding}");
}

/// In a network of its own, where this test may be root.
#[test]
fn the_boot_network_is_looked_at_in_a_network_of_its_own() {
    let site = sound();
    let mut shell = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        shell.arg("--map-root-user");
    }
    // An interface with a link, and one without.
    let script = "ip link add pair0 type veth peer name pair1 && ip addr add 192.168.42.1/24 dev pair0 && \
        ip link set pair0 up && ip link set pair1 up && \
        ip link add lone0 type veth peer name lone1 && ip addr add 192.168.43.1/24 dev lone0 && \
        \"$1\" doctor --json --config kiwispray.toml --data-dir data --init --ipxe-dir ipxe --images-dir images \
        --templates-dir templates --plugins-dir plugins --dnsmasq \"$2\"";
    shell.args(["--net", "--", "sh", "-ec", script, "sh", env!("CARGO_BIN_EXE_kiwispray")]);
    shell.current_dir(site.root());
    let run = |interface: &str| {
        let mut command = Command::new(shell.get_program());
        command.args(shell.get_args()).arg(interface).current_dir(site.root());
        findings(Run::of(command))
    };
    let (code, found) = run("pair0");
    assert_eq!(code, 1);
    assert_eq!(the(&found, "network", "ok")["said"], "is up, with the address 192.168.42.1");
    let dhcp = the(&found, "dhcp", "fail");
    assert_eq!(dhcp["said"], "no DHCP server answers");
    assert!(dhcp["remedy"].as_str().unwrap().contains("--dhcp-range 192.168.42.100,192.168.42.199"), "{dhcp}");
    let (code, found) = run("lone0");
    assert_eq!((code, &the(&found, "network", "fail")["subject"]), (1, &Value::from("lone0")));
    let (code, found) = run("nosuch0");
    assert_eq!((code, &the(&found, "network", "fail")["subject"]), (1, &Value::from("nosuch0")));
}

#[test]
fn config_check_says_what_the_server_would_say() {
    let check = |site: &Site, more: &[&str]| {
        let mut command = command(site);
        command.args(["config", "check", "kiwispray.toml", "--templates-dir", "templates", "--images-dir", "images"]);
        command.args(more);
        Run::of(command)
    };
    check(&sound(), &[]).done();
    let site = sound().config("[boot]\nattempts = 0\nagain_s_min = 700\n");
    fs::create_dir(site.path("conf.d")).unwrap();
    let run = check(&site, &[]);
    assert_eq!(run.code, 1);
    assert!(run.out.contains("boot.attempts") && run.out.contains("boot.again_s_min"), "all problems: {run:?}");

    let site = sound().config("");
    fs::create_dir(site.path("conf.d")).unwrap();
    fs::write(site.path("conf.d/10-site.toml"), "[boot]\natempts = 5\n").unwrap();
    let run = check(&site, &[]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.out.contains("10-site.toml") && run.out.contains("is boot.attempts meant?"), "{run:?}");

    let site = sound().config("[[plugin]]\nname = \"cmdb\"\nhooks = [\"nosuch\"]\n");
    let (code, found) = findings(check(&site, &["--json"]));
    assert_eq!(code, 1);
    the(&found, "config", "fail");
    let (code, found) = findings(check(&sound(), &["--json", "--data-dir", "nosuch"]));
    assert_eq!(code, 1);
    assert!(the(&found, "config", "fail")["said"].as_str().unwrap().contains("--init"), "{found:?}");
}

#[test]
fn templates_are_listed_shown_explained_and_checked() {
    let site = sound()
        .template("wipe.ipxe.hbs", "{{!--\nWrites: nothing\n--}}\n#!ipxe\nexit 1\n")
        .template("answer.sh.hbs", "#!/bin/sh\nsite={{host.metadata.site}}\n")
        .with_file("image1", "post_install.sh.hbs", "#!/bin/sh\nname=\"{{host.hostname}}\"\n");
    let template = |arguments: &[&str]| {
        let mut command = command(&site);
        command.arg("template").args(arguments);
        if arguments[0] != "vars" {
            command.args(["--config", "kiwispray.toml", "--images-dir", "images", "--templates-dir", "templates"]);
        }
        Run::of(command)
    };
    let rows: Vec<Value> = serde_json::from_str(&template(&["list", "--json"]).done().out).unwrap();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {rows:?}"));
    assert_eq!((&row("wipe.ipxe")["from"], &row("wipe.ipxe")["writes"]), (&"site".into(), &"nothing".into()));
    assert_eq!((&row("new.ipxe")["from"], &row("new.ipxe")["writes"]), (&"built-in".into(), &Value::Null));
    assert_eq!(row("image1/post_install.sh")["from"], "image");
    assert_eq!(row("image1/post_install.sh")["language"], "shell");

    assert!(template(&["show", "hold.ipxe"]).done().out.contains("#!ipxe"));
    assert!(template(&["show", "image1/post_install.sh"]).done().out.contains("{{host.hostname}}"));
    template(&["show", "nosuch.sh"]).refused(3, "there is no template nosuch.sh");
    template(&["show", "../data/x.sh"]).refused(2, "is no name for a template");

    let vars = template(&["vars", "post_install.sh"]).done().out;
    let line = vars.lines().find(|line| line.starts_with("host.hostname ")).unwrap();
    assert!(line.contains("@hostname@") && line.contains("name={{host.hostname}}"), "{line}");
    template(&["vars", "nosuch"]).refused(2, "is no name for a template");

    let run = template(&["check"]);
    assert_eq!(run.code, 1, "{run:?}");
    let line = run.out.lines().find(|line| line.starts_with("fail")).unwrap();
    assert!(line.contains("image1/post_install.sh") && line.contains("line 2"), "{line}");
    assert!(run.out.contains("answer.sh: every host that gets it needs host.metadata.site"), "{run:?}");
    template(&["check", "wipe.ipxe"]).done();
    template(&["check", "answer.sh", "--metadata", "{\"site\":\"fra1\"}"]).done();
    fs::write(site.path("mine.sh.hbs"), "#!/bin/sh\nx={{nosuch}}\n").unwrap();
    let run = template(&["check", "mine.sh.hbs"]);
    assert!(run.code == 1 && run.out.contains("mine.sh.hbs line 2: there is no variable nosuch"), "{run:?}");
}

#[test]
fn settings_change_while_the_server_runs_and_the_rest_waits_for_a_restart() {
    let server = sound().config("[boot]\nopen_hosts = false\n").serve();
    Machine::new(1).boot(&server);
    server.get("/hosts").expect(403);

    let rewrite = |toml: &str| {
        let store = "[store]\ncache_mb = 8\nfree_space_floor_mb = 0\n";
        fs::write(server.site.path("kiwispray.toml"), format!("{toml}\n{store}")).unwrap();
    };
    rewrite("[boot]\nopen_hosts = true\nidle_timeout_s = 33\n");
    let run = server.cli(&["config", "reload"]).done();
    assert!(run.out.contains("boot.open_hosts: false -> true\n"), "{run:?}");
    assert!(run.out.contains("boot.idle_timeout_s: 60 -> 33  (from the next start"), "{run:?}");
    server.get("/hosts").expect(200);
    // What waits is said again, what was taken over is not.
    let again = server.json(&["config", "reload"]);
    let settings = again["settings"].as_array().unwrap();
    assert_eq!((settings.len(), &settings[0]["key"]), (1, &"boot.idle_timeout_s".into()), "{again}");

    rewrite("[boot]\nopen_hosts = nonsense\n");
    let run = server.cli(&["config", "reload"]);
    assert!(run.code != 0 && run.err.contains("nothing was changed"), "{run:?}");
    server.get("/hosts").expect(200);

    rewrite("[boot]\nopen_hosts = false\n");
    server.hang_up();
    let begin = Instant::now();
    while server.get("/hosts").status != 403 {
        assert!(begin.elapsed() < Duration::from_secs(30), "SIGHUP changed nothing:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}
