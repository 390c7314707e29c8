//! What an installed system is configured with at its first boot: every document is served, read by the programs that real
//! systems read it with, and says what people wrote, whatever that is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Boot, Machine, Server, Site};

/// A program of a Debian package that `cargo xtask packages` unpacked.
fn tool(below: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let path = cache.join("kiwispray/tools").join(below);
    assert!(path.exists(), "{} is missing: cargo xtask packages test", path.display());
    path
}

fn python(arguments: &[&str], path: Option<&Path>) -> Output {
    let mut python = Command::new("/usr/bin/python3");
    python.args(arguments);
    if let Some(path) = path {
        python.env("PYTHONPATH", path);
    }
    python.output().unwrap()
}

/// What cloud-init says about a configuration.
fn cloud_init_schema(text: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let modules = tool("cloud-init/usr/lib/python3/dist-packages");
    let file = file.path().display().to_string();
    python(&["-m", "cloudinit.cmd.main", "schema", "--config-file", &file], Some(&modules))
}

fn ignition_validate(text: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    Command::new(tool("ignition/usr/bin/ignition-validate")).arg(file.path()).output().unwrap()
}

/// A document as YAML's most used reader, which cloud-init and salt have, reads it.
fn yaml(text: &str) -> Value {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("document");
    fs::write(&file, text).unwrap();
    let program = "import sys, json, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))";
    let read = python(&["-c", program, &file.display().to_string()], None);
    assert!(read.status.success(), "{text}\n{}", String::from_utf8_lossy(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}

/// A host with this metadata in the middle of an installation.
fn installing(server: &Server, number: u32, hostname: &str, metadata: &Value) -> Boot {
    let machine = Machine::new(number);
    let id = machine.boot(server).host.unwrap().to_string();
    server.cli(&["host", "set", &id, "-n", hostname, "-m", &metadata.to_string(), "--yes"]).done();
    server.deploy("leap", id.parse().unwrap());
    machine.boots(server)
}

fn document(server: &Server, boot: &Boot, name: &str) -> String {
    server.get(&boot.file(name)).expect(200).text().to_owned()
}

/// Texts that would be something else if they were not escaped.
fn nasty() -> Vec<String> {
    let quoted =
        "a \"b\" 'c' \\ \\n `id` $(id) ${X} #cloud-config\n- x: y\n---\n{{host.id}} {% x %} &a *a !!python/object";
    let mut all: Vec<String> =
        ["yes", "null", "1e3", "0x10", "1:30", "2026-11-23", "~", "", "- a", "a: b", "@a", "%a", "|", ">"]
            .map(str::to_owned)
            .into();
    all.push(quoted.to_owned());
    all.push("\u{85}\u{2028}\u{feff}\u{7f}ü漢😀\t".to_owned());
    all
}

#[test]
fn cloud_init_and_ignition_take_every_document_whatever_metadata_hold() {
    let server = Site::new().kiwi("leap").serve();
    let plain = json!({
        "ssh_authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDGO admin@site"], "packages": ["vim", "tmux"],
        "timezone": "Europe/Berlin", "motd": "Be kind.", "salt_master": "salt.example.org",
    });
    let mut sets = vec![json!({}), plain];
    for text in nasty().into_iter().filter(|text| !text.is_empty()) {
        sets.push(json!({ "motd": text, "timezone": text, "salt_master": text, "ssh_authorized_keys": [text], "packages": [text] }));
    }
    for (metadata, number) in sets.iter().zip(1..) {
        let name = if number == 3 { "yes".to_owned() } else { format!("node{number}.example.org") };
        let name = name.as_str();
        let boot = installing(&server, number, name, metadata);
        for name in ["user-data", "vendor-data"] {
            let text = document(&server, &boot, name);
            assert!(text.starts_with("#cloud-config\n"), "{text}");
            let said = cloud_init_schema(&text);
            assert!(said.status.success(), "{text}\n{said:?}");
        }
        let config = document(&server, &boot, "config.ign");
        let said = ignition_validate(&config);
        assert!(said.status.success(), "{config}\n{said:?}");

        let user = yaml(&document(&server, &boot, "user-data"));
        assert_eq!(user["hostname"], json!(name));
        for key in ["timezone", "ssh_authorized_keys", "packages"] {
            assert_eq!(user[key], metadata[key], "{key}");
        }
        let vendor = yaml(&document(&server, &boot, "vendor-data"));
        assert_eq!(vendor["write_files"][1]["content"], metadata["motd"]);
        assert_eq!(user["salt_minion"]["conf"]["master"], metadata["salt_master"]);
        let minion = yaml(&document(&server, &boot, "minion.conf"));
        assert_eq!((&minion["id"], &minion["grains"]["kiwispray"]), (&json!(name), metadata));
        let meta = yaml(&document(&server, &boot, "meta-data"));
        assert_eq!((&meta["local-hostname"], meta["instance-id"].is_string()), (&json!(name), true));
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["passwd"]["users"][0]["sshAuthorizedKeys"], metadata["ssh_authorized_keys"]);
        assert_eq!(document(&server, &boot, "hostname"), format!("{name}\n"));
        assert!(
            document(&server, &boot, "motd").starts_with(&format!("{name}: host {number}, installed by kiwispray"))
        );
    }
    // The tools can refuse.
    assert!(!cloud_init_schema("#cloud-config\nruncmd: 5\n").status.success());
    assert!(!ignition_validate("{\"ignition\": {\"version\": \"9\"}}").status.success());
}

#[test]
fn a_host_without_a_name_or_metadata_gets_user_data_that_cloud_init_takes() {
    let server = Site::new().kiwi("leap").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("leap", 1);
    let text = document(&server, &machine.boots(&server), "user-data");
    let said = cloud_init_schema(&text);
    assert!(said.status.success(), "{text}\n{said:?}");
    assert_eq!(yaml(&text), json!({"preserve_hostname": true}));
}

#[test]
fn user_data_never_replaces_what_vendor_data_writes() {
    let server = Site::new().kiwi("leap").serve();
    let boot = installing(&server, 1, "node1", &json!({"motd": "Be kind.", "salt_master": ["salt1", "salt2"]}));
    let folder = TempDir::new().unwrap();
    let files = ["user-data", "vendor-data"].map(|name| {
        let file = folder.path().join(name);
        fs::write(&file, document(&server, &boot, name)).unwrap();
        file.display().to_string()
    });
    // The very code by which cloud-init merges them: the first that has a key wins, lists as a whole.
    let program = "import sys, json, yaml\nfrom cloudinit.util import mergemanydict\n\
                   print(json.dumps(mergemanydict([yaml.safe_load(open(file)) for file in sys.argv[1:]])))";
    let modules = tool("cloud-init/usr/lib/python3/dist-packages");
    let merged = python(&["-c", program, &files[0], &files[1]], Some(&modules));
    assert!(merged.status.success(), "{merged:?}");
    let merged: Value = serde_json::from_slice(&merged.stdout).unwrap();
    let written: Vec<&Value> = merged["write_files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(written, ["/etc/cloud/cloud.cfg.d/90-kiwispray.cfg", "/etc/motd"]);
    assert!(merged["phone_home"]["url"].is_string());
    assert_eq!(merged["salt_minion"]["conf"]["master"], json!(["salt1", "salt2"]));
}

#[test]
fn the_first_boot_is_told_where_its_documents_are_and_cloud_init_reports_the_finish() {
    let site = Site::new().kiwi("leap");
    let manifest = fs::read_to_string(site.path("images/leap/image.toml")).unwrap();
    site.file("leap", "image.toml", format!("{manifest}first_boot = \"nocloud\"\n"));
    let server = site.serve();
    let boot = installing(&server, 1, "node1", &json!({}));
    let line = boot.cmdline().join(" ");
    let seed = format!("ds=nocloud-net;s=http://{}/b/{}/", server.address, boot.bootid());
    assert_eq!(boot.cmdline().last(), Some(&seed.as_str()), "{line}");

    // cloud-init finds it by the very code that it runs.
    let program = "import sys\nfrom cloudinit.sources.DataSourceNoCloud import load_cmdline_data\nfill = {}\n\
                   assert load_cmdline_data(fill, sys.argv[1])\nprint(fill['seedfrom'])";
    let found = python(&["-c", program, &line], Some(&tool("cloud-init/usr/lib/python3/dist-packages")));
    assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), &seed["ds=nocloud-net;s=".len()..], "{found:?}");

    // The instance is the order: the same for another attempt, another for another order.
    let instance = |boot: &Boot| yaml(&document(&server, boot, "meta-data"))["instance-id"].clone();
    let first = instance(&boot);
    boot.load(&server);
    let again = Machine::new(1).boots(&server);
    assert_ne!(again.bootid(), boot.bootid());
    assert_eq!(instance(&again), first);
    again.fetch_all(&server);
    let vendor = yaml(&document(&server, &again, "vendor-data"));
    let url = vendor["phone_home"]["url"].as_str().unwrap();
    let path = url.strip_prefix(&format!("http://{}", server.address)).unwrap();
    server.http().post(path, "instance_id=kiwispray-1-1").expect(200);
    assert_eq!(server.states(1), "finished");
    // What asks again gets an answer at once, and cloud-init no longer asks.
    server.get(&again.file("user-data")).expect(404);
    let kept = vendor["write_files"][0]["content"].as_str().unwrap();
    assert_eq!(yaml(kept), json!({"manual_cache_clean": true}));
    server.cli(&["deploy", "leap", "1", "--reinstall", "--yes"]).done();
    assert_ne!(instance(&Machine::new(1).boots(&server)), first);
}

#[test]
fn an_images_own_document_goes_before_the_built_in_one_with_or_without_a_template() {
    let server = Site::new()
        .kiwi("leap")
        .with_file("leap", "user-data", "#cloud-config\nplain: true\n")
        .with_file("leap", "motd.hbs", "Rack {{host.metadata.rack}}\n")
        .template("hostname.hbs", "{{host.serial}}\n")
        .serve();
    let boot = installing(&server, 1, "node1", &json!({"rack": "r7"}));
    assert_eq!(document(&server, &boot, "user-data"), "#cloud-config\nplain: true\n");
    assert_eq!(document(&server, &boot, "motd"), "Rack r7\n");
    assert_eq!(document(&server, &boot, "hostname"), "SN00001\n");
}

#[test]
fn a_value_that_is_missing_is_an_error_with_template_line_and_name() {
    // A document for whoever asks; nobody said that this image's system will.
    let server = Site::new().kiwi("leap").template("motd.hbs", "Hello\nRack {{host.metadata.rack}}\n").serve();
    let boot = installing(&server, 1, "node1", &json!({}));
    let refused = server.get(&boot.file("motd"));
    assert!(refused.status >= 500 && !refused.text().contains("images/"), "{refused:?}");
    let told = |log: &str| log.contains("motd.hbs line 2") && log.contains("host.metadata.rack");
    let begun = Instant::now();
    while !told(&server.log()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A site with an image whose system is configured by this program.
fn first_boot(program: &str) -> Site {
    let site = Site::new().kiwi("leap");
    let manifest = fs::read_to_string(site.path("images/leap/image.toml")).unwrap();
    site.file("leap", "image.toml", format!("{manifest}first_boot = \"{program}\"\n"));
    site
}

#[test]
fn a_host_whose_documents_cannot_be_made_holds_before_its_disk_is_written() {
    let rack = "#cloud-config\nfqdn: {{host.hostname}}\nbootcmd: [echo, {{host.metadata.rack}}]\n";
    let cases = [
        ("nocloud", "user-data.hbs", rack, "user-data.hbs line 3: there is no variable host.metadata.rack"),
        ("nocloud", "network-config.hbs", "version: {{json host.metadata.net}}\n", "host.metadata.net"),
        ("nocloud", "vendor-data.hbs", "a: {{#if", "vendor-data.hbs line 1"),
        ("ignition", "config.ign.hbs", "{\"a\": [{{json host.macs}},]}", "is no JSON"),
        ("ignition", "post_install.sh.hbs", "#!/bin/sh\nx={{host.metadata.x}}\n", "post_install.sh.hbs line 2"),
        ("nocloud", "config.bootoptions.hbs", "rack={{host.metadata.rack}}\n", "config.bootoptions.hbs line 1"),
    ];
    for (program, name, text, reason) in cases {
        // Wherever it lies.
        for site in [first_boot(program).template(name, text), first_boot(program).with_file("leap", name, text)] {
            let server = site.serve();
            let machine = Machine::new(1);
            machine.boot(&server);
            server.deploy("leap", 1);
            machine.holds(&server, reason);
            let plan = server.cli(&["host", "plan", "1"]);
            let plan = format!("{}{}", plan.out, plan.err);
            assert!(plan.replace("\n", " ").contains(reason.split(' ').next().unwrap()), "{name}: {plan}");
            assert_eq!(server.count(1, "boot_offered"), 0, "{name}");
        }
    }
    // Where its metadata has what is missing, it goes on by itself.
    let server = first_boot("nocloud").with_file("leap", "user-data.hbs", rack).serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("leap", 1);
    machine.holds(&server, "rack");
    server.cli(&["host", "set", "1", "-m", r#"{"rack":["r1"]}"#, "--yes"]).done();
    machine.holds(&server, "is a list");
    server.cli(&["host", "set", "1", "-m", r#"{"rack":"r1"}"#, "--yes"]).done();
    assert_eq!(yaml(&document(&server, &machine.boots(&server), "user-data"))["bootcmd"], json!(["echo", "r1"]));
}

#[test]
fn what_nobody_asks_for_keeps_no_machine_from_its_order() {
    // cloud-init fetches no post-install script, and an image's own file goes before the built-in template.
    let site = first_boot("nocloud").template("post_install.sh.hbs", "#!/bin/sh\nx={{host.metadata.x}}\n");
    let server = site.with_file("leap", "vendor-data", "#cloud-config\n{}\n").serve();
    let boot = installing(&server, 1, "node1", &json!({"motd": ["not", "one"]}));
    assert_eq!(document(&server, &boot, "vendor-data"), "#cloud-config\n{}\n");
    // Nothing is left by a wipe that would run one.
    let server = Site::new()
        .linux("wipe", "writes = \"wipe\"\ndevice = \"all\"")
        .template("post_install.sh.hbs", "#!/bin/sh\nx={{host.metadata.x}}\n")
        .serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("wipe", 1);
    machine.boots(&server);
    // What writes nothing can say by itself that it failed, and may try again.
    let server = Site::new()
        .linux("live", "writes = \"nothing\"")
        .with_file("live", "post_install.sh.hbs", "#!/bin/sh\nx={{host.metadata.x}}\n")
        .serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("live", 1);
    machine.boots(&server);
}

#[test]
fn cloud_init_gets_a_network_configuration_only_where_somebody_wrote_one() {
    let server = first_boot("nocloud").serve();
    let boot = installing(&server, 1, "node1", &json!({}));
    server.get(&boot.file("network-config")).expect(404);
    let text = "version: 2\nethernets:\n  first:\n    match: {macaddress: {{host.metadata.mac}}}\n    dhcp4: true\n";
    let own = "version: 1\n";
    for (site, expected) in [
        (first_boot("nocloud").template("network-config.hbs", text), json!("a: \"b")),
        (first_boot("nocloud").with_file("leap", "network-config.hbs", text), json!("a: \"b")),
        (first_boot("nocloud").with_file("leap", "network-config", own), Value::Null),
    ] {
        let server = site.serve();
        let boot = installing(&server, 1, "node1", &json!({"mac": "a: \"b"}));
        let read = yaml(&document(&server, &boot, "network-config"));
        assert_eq!(read["ethernets"]["first"]["match"]["macaddress"], expected);
    }
}

#[test]
fn documents_know_what_the_firmware_said_of_the_machine() {
    let text = "{{host.manufacturer}} {{host.product}}\n";
    let server = Site::new().kiwi("leap").with_file("leap", "motd.hbs", text).serve();
    let machine = Machine::new(1).but("manufacturer", "Dell Inc.");
    machine.boot(&server);
    server.deploy("leap", 1);
    let boot = machine.boots(&server);
    assert_eq!(document(&server, &boot, "motd"), "Dell Inc. R640\n");
    assert!(server.get(&boot.file("config.ign")).expect(200).text().contains("\"ignition\""));
}

#[test]
fn the_manuals_way_to_report_a_setup_that_failed_holds_the_machine() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/first-boot.md");
    let manual = fs::read_to_string(manual).unwrap();
    let block = manual.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0;
    let site = first_boot("nocloud").with_file("leap", "user-data.hbs", format!("#cloud-config\n{block}"));
    let server = site.with_file("leap", "vendor-data.hbs", "#cloud-config\n{}\n").serve();
    let first = installing(&server, 1, "node1", &json!({}));
    for (setup, call) in [("false", "/fail"), ("true", "/finish")] {
        let boot = if call == "/fail" { first.clone() } else { Machine::new(1).boots(&server) };
        let text = document(&server, &boot, "user-data");
        let said = cloud_init_schema(&text);
        assert!(said.status.success(), "{text}\n{said:?}");
        let words: Vec<String> = serde_json::from_value(yaml(&text)["runcmd"][0].clone()).unwrap();
        let folder = TempDir::new().unwrap();
        let curl = "curl() { for word; do :; done; echo \"$word\"; }\n";
        fs::write(folder.path().join("script"), words[2].replace("/opt/setup", setup)).unwrap();
        let script = format!("{curl}. {}/script", folder.path().display());
        let ran = Command::new(&words[0]).arg("-c").arg(script).args(&words[3..]).output().unwrap();
        let url = String::from_utf8(ran.stdout).unwrap();
        let path = url.trim().strip_prefix(&format!("http://{}", server.address)).unwrap();
        assert!(path.starts_with(call), "{path}");
        server.get(path).expect(200);
        if call == "/fail" {
            Machine::new(1).holds(&server, "reported a failure ?setup?");
            server.cli(&["host", "retry", "1", "--yes"]).done();
        }
    }
    assert_eq!(server.states(1), "finished");
}
