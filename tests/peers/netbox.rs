//! `netbox` against a real NetBox 4.7, with its PostgreSQL and Redis; see `netbox/README.md`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peer::{Process, checkout, free_port, install};
use crate::support::{Client, Machine, Server, Site};

const PORT: u16 = 58_080;
/// Two periods of the job `incremental`, and some.
const TWO_ROUNDS: Duration = Duration::from_secs(100);
const FIELD: &str = "kiwispray_request";

/// The devices of the seed that the test plays with.
const A1: u64 = 1;
const A2: u64 = 2;
const B1: u64 = 3;

/// One order of events, as one NetBox is all that a machine can bear: each step stands on the one before.
#[test]
#[ignore = "needs NetBox, which takes minutes to install: `cargo xtask test --long`"]
fn hosts_and_netbox_stay_in_step() {
    let netbox = NetBox::start();
    netbox.add_request_field();
    let site = Site::new().kiwi("image1");
    install(&site, "netbox");
    bind(&site, &netbox.url(), "sync", r#""read", "metadata", "hostname", "states""#);
    let mut server = site.serve();

    let (a1, changed) = machines_are_known_by_serial_and_mac(&server, &netbox);
    a_request_is_ordered_once_and_cleared(&server, &netbox, a1);
    a_finish_is_written_back_once(&server, &netbox, a1);
    another_round_writes_nothing(&server, &netbox, &changed);
    a_finished_host_is_not_installed_without_the_grant(&server, &netbox, a1);
    an_outage_loses_nothing(&server, &netbox);
    with_the_grant_the_same_request_installs_once(&mut server, &netbox, a1);
    a_token_that_may_not_write_is_named(&mut server, &netbox, a1);
    a_netbox_that_throttles_is_survived(&mut server);
}

/// Returns the number of the first, and when the second device was last changed.
fn machines_are_known_by_serial_and_mac(server: &Server, netbox: &NetBox) -> (u64, Value) {
    let before = netbox.device(A2)["last_updated"].clone();
    let a1 = machine("sn-a1-0001", 1).boot(server).host.unwrap();
    let junk = machine("Default string", 2).but("net0", "52-54-00-aa-00-20").but("dhcp_mac", "52-54-00-aa-00-20");
    let a2 = junk.boot(server).host.unwrap();
    wait("names from NetBox", || name(server, a1) == "node-a1" && name(server, a2) == "node-a2");
    let metadata = server.host(a1)["metadata"].clone();
    assert_eq!(metadata["site"], "fra1", "the mapping: {metadata}");
    let netbox_says = &metadata["netbox"];
    assert_eq!((&netbox_says["role"], &netbox_says["id"]), (&json!("compute"), &json!(A1)));
    assert_eq!(netbox_says["tags"], json!(["kiwispray", "rack-test"]));
    assert_eq!(netbox_says["config_context"]["kernel_args"], "console=ttyS1,115200 hugepages=64");
    assert_eq!(netbox_says["custom_fields"]["kiwispray_state"], "requested", "a choice by its value");
    assert_eq!(netbox.device(A2)["last_updated"], before, "looking up writes nothing");
    (a1, before)
}

fn a_request_is_ordered_once_and_cleared(server: &Server, netbox: &NetBox, host: u64) {
    netbox.ask_for(A1, "image1");
    wait("the order", || server.states(host) == "image1");
    wait("the request to be cleared", || netbox.request_of(A1).is_null());
    assert_eq!(server.count(host, "states_set"), 1);
}

fn a_finish_is_written_back_once(server: &Server, netbox: &NetBox, host: u64) {
    machine("sn-a1-0001", 1).boots(server).install(server);
    wait("the status", || netbox.status_of(A1) == "active");
    wait("the journal", || netbox.journal(A1).len() == 1);
    let entry = &netbox.journal(A1)[0];
    assert_eq!(entry["kind"]["value"], "success");
    assert!(entry["comments"].as_str().unwrap().contains("installed: `image1`"), "{entry}");
    assert_eq!(server.states(host), "finished");
}

fn another_round_writes_nothing(server: &Server, netbox: &NetBox, before: &Value) {
    let changed = netbox.device(A1)["last_updated"].clone();
    let rounds = netbox.rounds();
    wait("two more rounds", || netbox.rounds() >= rounds + 2);
    assert_eq!(netbox.device(A1)["last_updated"], changed);
    assert_eq!(netbox.device(A2)["last_updated"], *before);
    assert_eq!((netbox.journal(A1).len(), netbox.journal(A2).len()), (1, 0));
    // What NetBox says of its own status reached the host, by a change of the host alone.
    let id = server.host(1)["id"].as_u64().unwrap();
    wait("the status as metadata", || server.host(id)["metadata"]["netbox"]["status"] == "active");
}

fn a_finished_host_is_not_installed_without_the_grant(server: &Server, netbox: &NetBox, host: u64) {
    netbox.ask_for(A1, "image1");
    wait("the refusal", || server.log().contains("was not carried out"));
    let rounds = netbox.rounds();
    wait("another round", || netbox.rounds() > rounds);
    assert_eq!(server.log().matches("was not carried out").count(), 1, "it is told once");
    assert_eq!(server.states(host), "finished");
    assert_eq!(netbox.request_of(A1), "image1", "it stays for the one who wrote it");
    machine("sn-a1-0001", 1).boots_its_disk(server);
}

fn an_outage_loses_nothing(server: &Server, netbox: &NetBox) {
    netbox.stop_web();
    let machine = machine("SN-B1-0003", 3);
    let host = machine.installed(server, "image1");
    wait("the attempt to tell", || server.log().contains("told later"));
    assert_eq!(name(server, host), "");
    netbox.start_web();
    wait("the name", || name(server, host) == "node-b1");
    wait("the journal", || netbox.journal(B1).len() == 1);
    assert_eq!(netbox.status_of(B1), "active");
    assert_eq!(server.states(host), "finished");
}

fn with_the_grant_the_same_request_installs_once(server: &mut Server, netbox: &NetBox, host: u64) {
    let grants = r#""read", "metadata", "hostname", "states", "reinstall""#;
    restart(server, &netbox.url(), "sync", grants);
    wait("the order", || server.states(host) == "image1");
    wait("the request to be cleared", || netbox.request_of(A1).is_null());
    machine("sn-a1-0001", 1).boots(server).install(server);
    wait("the second entry", || netbox.journal(A1).len() == 2);
    let rounds = netbox.rounds();
    wait("two more rounds", || netbox.rounds() >= rounds + 2);
    assert_eq!((server.states(host).as_str(), server.count(host, "states_set")), ("finished", 2));
}

fn a_token_that_may_not_write_is_named(server: &mut Server, netbox: &NetBox, host: u64) {
    restart(server, &netbox.url(), "ro", r#""read", "metadata", "hostname", "states", "reinstall""#);
    server.deploy_again("image1", host);
    machine("sn-a1-0001", 1).boots(server).install(server);
    let sentence = "the token must be allowed to write";
    wait("the sentence", || server.log().contains(sentence));
    assert!(server.log().contains("`add on extras.journalentry`") || server.log().contains("`change on dcim.device`"));
    assert_eq!(netbox.journal(A1).len(), 2);
    // With a better token what waited is told.
    restart(server, &netbox.url(), "sync", r#""read", "metadata", "hostname", "states""#);
    wait("the third entry", || netbox.journal(A1).len() == 3);
}

fn a_netbox_that_throttles_is_survived(server: &mut Server) {
    let proxy = Throttle::start(&server.site);
    restart(server, &proxy.url(), "sync", r#""read", "metadata", "hostname", "states""#);
    let hosts: Vec<u64> = (0..12_u32)
        .map(|number| machine(&format!("SN-BULK-{number:04}"), 100 + number).boot(server).host.unwrap())
        .collect();
    for (number, host) in hosts.iter().enumerate() {
        wait("the name of a throttled host", || name(server, *host) == format!("bulk-{number:03}"));
    }
    assert!(proxy.refusals() > 0, "nothing was throttled");
}

// ---- The two ends ----

/// A machine of the seed, whose cards the seed does not know unless they are named.
fn machine(serial: &str, number: u32) -> Machine {
    Machine::new(9_000 + number).but("serial", serial)
}

fn name(server: &Server, host: u64) -> String {
    server.host(host)["hostname"].as_str().unwrap_or_default().to_owned()
}

/// The plugin as an operator binds it; the token comes from the seed.
fn bind(site: &Site, url: &str, token: &str, hosts: &str) {
    let token = checkout("tests/peers/netbox/seed").join(format!("token.{token}"));
    let text = format!(
        r#"
[limits]
new_hosts_per_minute = 0
[store]
cache_mb = 8
free_space_floor_mb = 0
[[plugin]]
name = "netbox"
component = "plugins/netbox/netbox.wasm"
config = {{ url = "{url}", request_field = "{FIELD}", map = {{ site = "site" }} }}
[plugin.grant]
hosts = [{hosts}]
kv = true
[[plugin.grant.http]]
url = "{url}/api/"
methods = ["GET", "PATCH", "POST"]
headers = {{ Authorization = "Bearer ${{file:{}}}" }}
"#,
        token.display()
    );
    fs::write(site.path("kiwispray.toml"), text).unwrap();
}

fn restart(server: &mut Server, url: &str, token: &str, hosts: &str) {
    server.terminate();
    bind(&server.site, url, token, hosts);
    server.restart();
}

#[track_caller]
fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < TWO_ROUNDS, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

impl Server {
    /// Orders an image for a finished host.
    fn deploy_again(&self, image: &str, host: u64) {
        self.cli(&["deploy", image, &host.to_string(), "--reinstall", "--yes"]).done();
    }
}

/// The real one. It ends with the test.
struct NetBox;

impl NetBox {
    fn start() -> Self {
        script("start.sh", &[]);
        Self
    }

    fn stop_web(&self) {
        script("stop.sh", &["web"]);
    }

    fn start_web(&self) {
        script("start.sh", &["web"]);
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{PORT}")
    }

    /// The first of its kind in the seed is for the tests of others.
    fn add_request_field(&self) {
        let field = json!({"name": FIELD, "type": "text", "object_types": ["dcim.device"]});
        self.send("POST", "extras/custom-fields/", &field, 201);
    }

    fn ask_for(&self, device: u64, states: &str) {
        let wish = json!({"custom_fields": {FIELD: states}});
        self.send("PATCH", &format!("dcim/devices/{device}/"), &wish, 200);
    }

    fn request_of(&self, device: u64) -> Value {
        self.device(device)["custom_fields"][FIELD].clone()
    }

    fn status_of(&self, device: u64) -> String {
        self.device(device)["status"]["value"].as_str().unwrap().to_owned()
    }

    fn device(&self, id: u64) -> Value {
        self.send("GET", &format!("dcim/devices/{id}/"), &Value::Null, 200)
    }

    fn journal(&self, device: u64) -> Vec<Value> {
        let path = format!("extras/journal-entries/?assigned_object_type=dcim.device&assigned_object_id={device}");
        self.send("GET", &path, &Value::Null, 200)["results"].as_array().unwrap().clone()
    }

    /// How often changed devices were asked for.
    fn rounds(&self) -> usize {
        let log = fs::read_to_string(run_folder().join("log/access.log")).unwrap();
        log.lines().filter(|line| line.contains("last_updated__gte")).count()
    }

    /// As somebody who may do everything.
    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let token = fs::read_to_string(checkout("tests/peers/netbox/seed/token.rw")).unwrap();
        let headers = [("Authorization", &*format!("Bearer {token}")), ("Content-Type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let client = Client::new(([127, 0, 0, 1], PORT).into());
        let answer = client.request(method, &format!("/api/{path}"), &headers, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }
}

impl Drop for NetBox {
    fn drop(&mut self) {
        let _ = Command::new(checkout("tests/peers/netbox/stop.sh")).status();
    }
}

#[track_caller]
fn script(name: &str, arguments: &[&str]) {
    let status = Command::new(checkout("tests/peers/netbox").join(name)).args(arguments).status().unwrap();
    assert!(status.success(), "{name} {arguments:?}: {status}");
}

/// As `netbox/env.sh` has it.
fn run_folder() -> PathBuf {
    let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    base.join(format!("kiwispray-netbox-{PORT}"))
}

/// nginx that lets a request through every five seconds: NetBox itself may take three, on a busy machine.
struct Throttle {
    _nginx: Process,
    port: u16,
    folder: PathBuf,
}

impl Throttle {
    fn start(site: &Site) -> Self {
        let (port, folder) = (free_port(), site.path("nginx"));
        fs::create_dir_all(folder.join("tmp")).unwrap();
        let config = fs::read_to_string(checkout("tests/peers/netbox/nginx-429.conf.in")).unwrap();
        let config = config.replace("@LISTEN@", &port.to_string()).replace("@NETBOX@", &PORT.to_string());
        fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "error.log"]);
        let nginx = Process::start(&mut command, &folder.join("log"));
        Self { _nginx: nginx, port, folder }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often it sent 429.
    fn refusals(&self) -> usize {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("\" 429 ")).count()
    }
}
