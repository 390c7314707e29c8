//! `bios-prep` against sushy-tools, the Redfish emulator of OpenStack: its fake driver, which has no BIOS, and its libvirt driver
//! with a virtual machine that really starts, really boots from the network and really asks this server.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peer::{self, Process, checkout, free_port, wait_for};
use crate::support::{Client, Machine, Server, Site};

const UUID: &str = "27946b59-9e44-4fa7-8e91-f3527a1ef0b1";
const MAC: &str = "52:54:00:bb:00:01";

/// How long it may take until Python's packages are there.
const SETUP: Duration = Duration::from_secs(240);

/// A BMC that answers.
struct Bmc {
    _process: Process,
    port: u16,
    _dir: tempfile::TempDir,
    log: std::path::PathBuf,
}

impl Bmc {
    fn start(driver: &str, bootfile: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("kiwispray-bmc").tempdir().unwrap();
        let (port, home) = (free_port(), dir.path().join("peer"));
        let mut command = Command::new(checkout("tests/peers/redfish/start.sh"));
        command.args([driver, &port.to_string()]).arg(&home).arg(bootfile);
        // Another user runs the virtual machine.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let log = dir.path().join("start.log");
        let process = Process::start(&mut command, &log);
        let begin = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.lines().any(|line| line == "ready") {
                return Self { _process: process, port, log: home.join("emulator.log"), _dir: dir };
            }
            assert!(begin.elapsed() < SETUP, "no BMC: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn system(&self) -> String {
        format!("/redfish/v1/Systems/{UUID}")
    }

    fn get(&self, path: &str) -> Value {
        let client = Client::new(([127, 0, 0, 1], self.port).into());
        serde_json::from_slice(&client.get(path).expect(200).body).unwrap()
    }

    /// How often something was asked for, by the emulator's own log.
    fn count(&self, request: &str) -> usize {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().filter(|line| line.contains(request)).count()
    }
}

/// A site with `bios-prep` bound; `prepare` is the rest of its one profile, `headers` what the grant adds.
fn site(when: &str, prepare: &str, port: u16, headers: &str) -> Site {
    let site = Site::new().kiwi("image1");
    peer::install(&site, "bios-prep");
    site.config(&format!(
        r#"
        [limits]
        new_hosts_per_minute = 0
        [[plugin]]
        name = "bios-prep"
        component = "plugins/bios-prep/bios-prep.wasm"
        [[plugin.config.profiles]]
        name = "quiet"
        version = 2
        when = {when}
        {prepare}
        [plugin.grant]
        hosts = ["read", "metadata", "states"]
        kv = true
        catalog = true
        [[plugin.grant.http]]
        url = "http://127.0.0.1:{port}/redfish/"
        methods = ["GET", "PATCH", "POST"]
        {headers}
        "#
    ))
}

const REDFISH: &str = r#"put_back = "disk"
        prepare = { redfish = { url_from = "metadata.bmc.url", attributes = { ProcTurboMode = "Disabled", QuietBoot = "true" } } }"#;

fn set(server: &Server, id: u64, metadata: &Value) {
    server.cli(&["host", "set", &id.to_string(), "-m", &metadata.to_string()]).done();
}

/// `metadata.bios`, once it is as wanted.
#[track_caller]
fn wait_for_bios(server: &Server, id: u64, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || Some(server.host(id)["metadata"]["bios"].clone()).filter(&wanted))
}

#[test]
fn a_machine_gets_its_settings_over_redfish_then_boots_the_network_and_after_the_installation_its_disk() {
    // Port and address of the server are known before the machine that has to find it.
    let http = free_port();
    let bmc = Bmc::start("libvirt", &format!("http://10.0.2.2:{http}/bootstrap.ipxe"));
    let site = site(&format!("{{ mac = \"{MAC}\" }}"), REDFISH, bmc.port, "");
    let server = Server::start_at(site, http);
    server.cli(&["host", "add", "--uuid", UUID, "--mac", MAC, "--yes"]).done();
    let id = server.json(&["host", "list"])[0]["id"].as_u64().unwrap();
    assert_eq!(bmc.get(&bmc.system())["PowerState"], "Off");

    server.deploy("image1", id);
    // It is told where its BMC is only now: the host owes its settings until then.
    let missing = wait_for_bios(&server, id, "the address to be missed", |bios| bios["error"].is_string());
    assert!(missing["error"].as_str().unwrap().contains("metadata.bmc.url"), "{missing}");
    set(&server, id, &json!({"bmc": {"url": format!("http://127.0.0.1:{}", bmc.port)}}));
    let done = wait_for_bios(&server, id, "the settings", |bios| bios["profile"].is_string());
    assert_eq!(done, json!({"profile": "quiet", "version": "2"}));

    let attributes = bmc.get(&format!("{}/BIOS", bmc.system()))["Attributes"].clone();
    assert_eq!((&attributes["ProcTurboMode"], &attributes["QuietBoot"]), (&json!("Disabled"), &json!("true")));
    let system = bmc.get(&bmc.system());
    assert_eq!((&system["PowerState"], &system["Boot"]["BootSourceOverrideTarget"]), (&json!("On"), &json!("Pxe")));
    let resets = bmc.count("Actions/ComputerSystem.Reset");
    assert!(resets >= 1, "it was switched off");
    // The virtual machine itself: its firmware, its iPXE, its request for the installer.
    wait_for("the machine to boot its installer", || (server.count(id, "attempt_started") > 0).then_some(()));
    assert_eq!(server.states(id), "image1");

    server.cli(&["host", "finish", &id.to_string(), "--yes", "--abort"]).done();
    wait_for("the disk to be put back", || {
        (bmc.get(&bmc.system())["Boot"]["BootSourceOverrideTarget"] == "Hdd").then_some(())
    });
    // Settings that are in force, and a host that is finished: nothing more is reset.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(bmc.count("Actions/ComputerSystem.Reset"), resets);
}

#[test]
fn a_bmc_that_cannot_make_the_settings_holds_the_machine_with_its_words() {
    let bmc = Bmc::start("fake", "");
    // admin:kiwispray
    let headers = r#"headers = { Authorization = "Basic YWRtaW46a2l3aXNwcmF5" }"#;
    let server = site("{ product = \"R6*\" }", REDFISH, bmc.port, headers).serve();
    let machine = Machine::new(1).but("uuid", UUID);
    let id = machine.boot(&server).host.unwrap();
    set(&server, id, &json!({"bmc": {"url": format!("http://127.0.0.1:{}/redfish/v1/", bmc.port)}}));
    server.deploy("image1", id);
    peer::holds(&machine, &server, "BIOS settings are being applied");
    let bios = wait_for_bios(&server, id, "the error", |bios| bios["error"].is_string());
    assert!(bios["error"].as_str().unwrap().contains("offers no BIOS settings"), "{bios}");
    peer::holds(&machine, &server, "offers no BIOS settings");
    assert_eq!(bmc.count("Actions/ComputerSystem.Reset"), 0);
    // Somebody made them by hand, and says so.
    set(&server, id, &json!({"bios": {"profile": "quiet", "version": 2}}));
    peer::boots(&machine, &server).install(&server);
    assert_eq!(server.states(id), "finished");
}

#[test]
fn a_bmc_that_wants_a_password_or_is_anothers_changes_nothing_and_says_so() {
    let bmc = Bmc::start("fake", "");
    let url = json!({"bmc": {"url": format!("http://127.0.0.1:{}", bmc.port)}});
    let locked = site("{ product = \"R6*\" }", REDFISH, bmc.port, "").serve();
    let machine = Machine::new(1).but("uuid", UUID);
    let id = machine.boot(&locked).host.unwrap();
    set(&locked, id, &url);
    locked.deploy("image1", id);
    let bios = wait_for_bios(&locked, id, "the refusal", |bios| bios["error"].is_string());
    assert!(bios["error"].as_str().unwrap().contains("401"), "{bios}");
    drop(locked);

    let headers = r#"headers = { Authorization = "Basic YWRtaW46a2l3aXNwcmF5" }"#;
    let server = site("{ product = \"R6*\" }", REDFISH, bmc.port, headers).serve();
    let machine = Machine::new(2);
    let id = machine.boot(&server).host.unwrap();
    set(&server, id, &url);
    server.deploy("image1", id);
    let bios = wait_for_bios(&server, id, "the wrong machine", |bios| bios["error"].is_string());
    assert!(bios["error"].as_str().unwrap().contains("not the host's"), "{bios}");
    assert_eq!(bmc.count("PATCH") + bmc.count("POST"), 0);
    peer::holds(&machine, &server, "not the host");
}

#[test]
fn an_order_goes_through_the_preparation_image_once_per_version() {
    let prepare = r#"prepare = { image = "bios-r640" }"#;
    let site = site("{ product = \"R6*\" }", prepare, 9, "").linux("bios-r640", "writes = \"nothing\"");
    let server = site.serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    server.deploy("image1", id);
    assert_eq!(server.states(id), "bios-r640,image1");
    peer::boots(&machine, &server).install(&server);
    let bios = wait_for_bios(&server, id, "the note", |bios| bios["profile"].is_string());
    assert_eq!(bios, json!({"profile": "quiet", "version": "2"}));
    assert_eq!(server.states(id), "image1");
    peer::boots(&machine, &server).install(&server);
    machine.boots_its_disk(&server);
    server.cli(&["deploy", "image1", &id.to_string(), "--yes", "--reinstall"]);
    assert!(!server.states(id).contains("bios"), "{}", server.states(id));
}
