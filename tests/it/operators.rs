//! Looking after plugins that ship, by the command line: orders that wait for a person, jobs by hand, what plugins wrote,
//! events that nobody took, what plugins store.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::server::command;
use crate::support::{Machine, Server, Site};

/// How long a busy machine may take for what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
#[track_caller]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The built component of a plugin that ships, as a file of the site.
fn ship(site: &Site, plugin: &str, to: &str) {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("plugins/{plugin}/{plugin}.wasm"));
    let to = site.path(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(&built, to).unwrap();
}

/// A command that follows what a plugin writes; it ends with the test.
struct Follower {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Follower {
    fn start(server: &Server, plugin: &str) -> Self {
        let mut command = command(&server.site);
        command.args(["--server", &format!("unix:{}", server.site.path("data/admin.sock").display())]);
        let mut child = command
            .args(["plugin", "logs", plugin, "-f", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    #[track_caller]
    fn next(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).expect("a line that the plugin wrote")).unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with `image-select`, which looks at hosts by its job alone, and has looked for the first time.
fn sorting() -> Server {
    let site = Site::new().kiwi("image1");
    ship(&site, "image-select", "plugins/image-select/image-select.wasm");
    let server = site
        .config(
            r#"
            [limits]
            new_hosts_per_minute = 0
            [[plugin]]
            name = "image-select"
            hooks = ["schedule"]
            [plugin.config]
            rules = [{ name = "all", when = { product = "R640" }, give = ["image1"] }]
            [plugin.grant]
            hosts = ["read", "states"]
            max_orders_per_run = 1
            "#,
        )
        .serve();
    // Its next look is five minutes away.
    wait_for("the first look", || {
        let plugin = server.json(&["plugin", "show", "image-select"]);
        plugin["jobs"][0]["next_at"].is_string().then_some(())
    });
    server
}

#[test]
fn too_many_orders_wait_for_a_person_and_all_that_was_said_is_kept() {
    let mut server = sorting();
    assert!(!server.log().contains("ERROR") && !server.log().contains("WARN"), "a start that went well is quiet");
    let silent = server.cli(&["plugin", "logs", "image-select"]).done();
    assert_eq!(silent.out, "");
    assert_eq!(silent.err, "The plugin image-select has written nothing since the server started.\n");
    assert_eq!(server.json(&["plugin", "logs", "image-select"]), json!([]));
    server.cli(&["plugin", "logs", "image-selct"]).refused(3, "there is no plugin image-selct; is image-select meant?");
    let follower = Follower::start(&server, "image-select");

    for machine in 1..=3 {
        Machine::new(machine).boot(&server);
    }
    let states = |server: &Server| [1, 2, 3].map(|id| server.states(id));
    assert_eq!(states(&server), ["new", "new", "new"]);
    let run = ["plugin", "run", "image-select", "look"];
    let dry = server.cli(&[&run[..], &["--dry-run"]].concat()).done();
    assert_eq!(dry.out, "host 1: rule `all` gives image1\n");
    assert_eq!(states(&server), ["new", "new", "new"]);
    let shown = server.json(&["plugin", "show", "image-select"]);
    assert_eq!(shown["stopped"], Value::Null, "a dry run stops nobody");
    server.cli(&["plugin", "approve", "image-select", "--yes"]).refused(4, "say how many orders it may give");
    server.cli(&["plugin", "run", "image-select", "lok"]).refused(3, "it has look");

    server.cli(&run).done();
    assert_eq!(states(&server), ["image1", "new", "new"]);
    let told = server.cli(&["plugin", "list"]).done();
    assert!(
        told.out.contains("wanted more than 1 orders in one run: kiwispray plugin approve image-select"),
        "{told:?}"
    );
    server.cli(&run).done();
    assert_eq!(states(&server), ["image1", "new", "new"], "stopped until somebody says so");

    // The dry run, the one that went too far, the one that was stopped.
    let said = |lines: usize| -> Vec<(String, String)> {
        let of = |line: Value| {
            assert_eq!((&line["hook"], line["at"].is_string()), (&json!("schedule"), true), "{line}");
            (line["level"].as_str().unwrap().to_owned(), line["fields"][0][1].as_str().unwrap().to_owned())
        };
        (0..lines).map(|_| of(follower.next())).collect()
    };
    let expected = [("info", "1"), ("warn", "2"), ("warn", "3")];
    let expected = [&expected[..], &expected, &expected[1..]].concat();
    let followed = said(8);
    assert_eq!(followed.iter().map(|(level, host)| (level.as_str(), host.as_str())).collect::<Vec<_>>(), expected);

    let approve = ["plugin", "approve", "image-select"];
    server.cli(&approve).refused(2, "disks may be erased");
    let approved = server.cli(&[&approve[..], &["--orders", "2", "--yes"]].concat()).done();
    assert_eq!(approved.out, "image-select: its next run may give 2 orders\n");
    server.crash_and_restart();
    server.cli(&run).done();
    assert_eq!(states(&server), ["image1", "image1", "image1"]);
    assert_eq!(server.json(&["plugin", "show", "image-select"])["stopped"], Value::Null);

    assert_eq!(said(2), [("info".into(), "2".into()), ("info".into(), "3".into())], "followed through the crash");
    let listed = server.cli(&["plugin", "logs", "image-select"]).done().out;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(lines[0].contains("  info   schedule    a rule gave a host its states  host=2  rule=all"), "{listed}");
}

#[test]
fn what_a_receiver_refused_is_listed_told_again_or_dropped() {
    let receiver = Receiver::start();
    let server = receiver.server();
    for machine in 1..=3 {
        Machine::new(machine).boot(&server);
    }
    let letters = |more: &[&str]| server.json(&[&["plugin", "dead-letters", "list", "webhook"], more].concat());
    let all = wait_for("three dead letters", || {
        Some(letters(&[])).filter(|all| all.as_array().is_some_and(|all| all.len() == 3))
    });
    assert!(all[0]["error"].as_str().unwrap().contains("the receiver answers 410"), "{all}");
    let listed = server.cli(&["plugin", "dead-letters", "list", "webhook"]).done();
    assert!(listed.out.contains("host 1") && listed.out.contains("the receiver answers 410"), "{listed:?}");
    let trouble = server.cli(&["plugin", "list"]).done();
    assert!(trouble.out.contains("could not be told of 3 events: kiwispray plugin dead-letters list webhook"));
    assert_eq!(letters(&["--host", "2"]).as_array().unwrap().len(), 1);

    let replay = ["plugin", "dead-letters", "replay", "webhook"];
    let refused = server.cli(&replay);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("the receiver answers 410"), "{refused:?}");
    assert_eq!(letters(&[]).as_array().unwrap().len(), 3);

    receiver.answer(200);
    let one = server.cli(&[&replay[..], &["--host", "1"]].concat()).done();
    assert_eq!(one.out, "1 told, 0 failed again\n");
    let drop = ["plugin", "dead-letters", "drop", "webhook", "--host", "2"];
    server.cli(&drop).refused(2, "will never be told");
    assert_eq!(server.cli(&[&drop[..], &["--yes"]].concat()).done().out, "1 dropped\n");
    assert_eq!(server.cli(&replay).done().out, "1 told, 0 failed again\n");
    let none = server.cli(&["plugin", "dead-letters", "list", "webhook"]).done();
    assert_eq!((none.out.as_str(), none.err.as_str()), ("", "There are no dead letters.\n"));
    server.cli(&[&replay[..], &["--host", "2", "--event", "1"]].concat()).refused(3, "no dead letter about event 1");

    // A retry has the id of the first try, so the receiver knows what it has seen.
    let delivered = receiver.delivered();
    let of = |host: u64| delivered.iter().filter(move |delivery| delivery.host == host);
    let taken = |host: u64| of(host).filter(|delivery| delivery.answer == 200).count();
    assert_eq!([1, 2, 3].map(taken), [1, 0, 1]);
    for host in [1, 3] {
        let first = of(host).next().unwrap();
        assert!(of(host).all(|delivery| delivery.id == first.id), "{delivered:#?}");
    }
}

#[test]
fn a_plugin_that_is_switched_off_is_told_nothing_until_it_is_switched_on() {
    let receiver = Receiver::start();
    receiver.answer(200);
    let server = receiver.server();
    Machine::new(1).boot(&server);
    wait_for("the first event", || (receiver.delivered().len() == 1).then_some(()));
    let told = server.cli(&["plugin", "disable", "webhook"]).done();
    assert!(told.out.contains("it is told nothing, and its jobs do not run"), "{told:?}");
    Machine::new(2).boot(&server);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(receiver.delivered().len(), 1);
    server.cli(&["plugin", "enable", "webhook"]).done();
    wait_for("the event of meanwhile", || (receiver.delivered().len() == 2).then_some(()));
    assert_eq!(receiver.delivered()[1].host, 2);
}

#[test]
fn what_a_plugin_stores_is_shown_and_outlives_its_removal_unless_purged() {
    let server = Site::new().kiwi("image1").serve();
    let folder = server.site.path("bios-prep");
    ship(&server.site, "bios-prep", "bios-prep/bios-prep.wasm");
    // It notes what a machine owes; without its jobs nothing becomes of that.
    let manifest = r#"
        name = "bios-prep"
        hooks = ["events"]
        [grant]
        hosts = ["read", "metadata", "states"]
        kv = true
        catalog = true
        http = [{ url = "http://127.0.0.1:9/redfish/", methods = ["GET", "PATCH", "POST"] }]
        [[config.profiles]]
        name = "quiet"
        version = 1
        when = { product = "R640" }
        put_back = "disk"
        prepare = { redfish = { url_from = "metadata.bmc", attributes = { QuietBoot = "true" } } }
    "#;
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
    let install = ["plugin", "install", folder.to_str().unwrap(), "--yes"];
    server.cli(&install).done();
    assert_eq!(server.cli(&["plugin", "kv", "bios-prep"]).done().err, "It stores nothing.\n");
    Machine::new(1).boot(&server);
    server.cli(&["host", "set", "1", "-m", r#"{"bmc": "http://127.0.0.1:9/redfish/v1/Systems/1"}"#]).done();
    server.deploy("image1", 1);

    let keys = || server.json(&["plugin", "kv", "bios-prep"]);
    let stored = wait_for("what it stores", || Some(keys()).filter(|keys| keys[0]["key"].is_string()));
    let key = stored[0]["key"].as_str().unwrap();
    let shown = server.cli(&["plugin", "kv", "bios-prep", key]).done();
    assert!(serde_json::from_str::<Value>(&shown.out).unwrap().is_object(), "{shown:?}");
    assert!(server.cli(&["plugin", "kv", "bios-prep"]).done().out.starts_with(&format!("{key}  ")));
    assert_eq!(server.json(&["plugin", "kv", "bios-prep", "--prefix", "zzz"]), json!([]));
    server.cli(&["plugin", "kv", "bios-prep", "zzz"]).refused(3, "stores nothing under \"zzz\"");

    let remove = ["plugin", "remove", "bios-prep"];
    server.cli(&remove).refused(2, "What it stored stays");
    server.cli(&[&remove[..], &["--yes"]].concat()).done();
    server.cli(&["plugin", "kv", "bios-prep"]).refused(3, "there is no plugin bios-prep");
    server.cli(&install).done();
    assert_eq!(keys()[0]["key"], key);
    server.cli(&[&remove[..], &["--yes", "--purge"]].concat()).done();
    server.cli(&install).done();
    assert_eq!(keys(), json!([]));
}

/// What a receiver of webhooks was sent.
#[derive(Clone, Debug)]
struct Delivery {
    id: String,
    host: u64,
    answer: u16,
}

/// A receiver of webhooks that answers as it is told, at first 410.
struct Receiver {
    port: u16,
    answer: Arc<AtomicU16>,
    delivered: Arc<Mutex<Vec<Delivery>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, delivered) = (Arc::new(AtomicU16::new(410)), Arc::new(Mutex::new(Vec::new())));
        let (answers, deliveries) = (Arc::clone(&answer), Arc::clone(&delivered));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let delivery = receive(stream, answers.load(Ordering::SeqCst));
                deliveries.lock().unwrap().extend(delivery);
            }
        });
        Self { port, answer, delivered }
    }

    fn answer(&self, status: u16) {
        self.answer.store(status, Ordering::SeqCst);
    }

    fn delivered(&self) -> Vec<Delivery> {
        self.delivered.lock().unwrap().clone()
    }

    /// A server that tells it of every machine that becomes known.
    fn server(&self) -> Server {
        let site = Site::new();
        ship(&site, "webhook", "plugins/webhook.wasm");
        fs::write(site.path("webhook.secret"), "a secret of some length").unwrap();
        fs::set_permissions(site.path("webhook.secret"), PermissionsExt::from_mode(0o600)).unwrap();
        let (port, secret) = (self.port, site.path("webhook.secret").display().to_string());
        site.config(&format!(
            r#"
            [limits]
            new_hosts_per_minute = 0
            [[plugin]]
            name = "webhook"
            config = {{ url = "http://127.0.0.1:{port}/hook", secret = "hook", kinds = ["registered"] }}
            [plugin.grant.signing]
            hook = "${{file:{secret}}}"
            [[plugin.grant.http]]
            url = "http://127.0.0.1:{port}/"
            methods = ["POST"]
            "#
        ))
        .serve()
    }
}

/// Reads one delivery and answers it.
fn receive(mut stream: TcpStream, answer: u16) -> Option<Delivery> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() { break } else { continue }
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "x-kiwispray-delivery" => value.clone_into(&mut id),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let document: Value = serde_json::from_slice(&body).ok()?;
    let delivery = Delivery { id, host: document["host"]["id"].as_u64()?, answer };
    write!(stream, "HTTP/1.1 {answer} Answer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    Some(delivery)
}
