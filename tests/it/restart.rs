//! The server is restarted while machines install: transfers stream on, and P1 holds whoever has the store.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixDatagram};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use super::way::{ID, UNREPORTED, grow_payload, ordered};
use crate::support::server::{command as server_command, serve_command};
use crate::support::{Boot, Client, Machine, Run, Server, Site};

/// A file that is fetched as slowly as the test likes.
struct Download {
    stream: TcpStream,
    length: usize,
    body: Vec<u8>,
}

impl Download {
    fn begin(server: &Server, path: &str) -> Self {
        let mut stream = server.http().connect();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: kiwispray\r\n\r\n").as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        Self { stream, length, body: Vec::new() }
    }

    fn read(&mut self, bytes: usize) {
        let begin = self.body.len();
        self.body.resize(begin + bytes, 0);
        self.stream.read_exact(&mut self.body[begin..]).unwrap();
    }

    /// What comes until the server has sent all or hangs up.
    fn rest(mut self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 20];
        while self.body.len() < self.length {
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => self.body.extend_from_slice(&buffer[..read]),
            }
        }
        self.body
    }
}

/// A machine in the middle of its payload, which is larger than what sockets hold.
fn installing(server: &Server, boot: &Boot) -> Download {
    grow_payload(server);
    boot.load(server);
    let mut download = Download::begin(server, boot.payload());
    download.read(1 << 20);
    download
}

fn payload_sum(server: &Server) -> (usize, Vec<u8>) {
    let bytes = fs::read(server.site.path("images/image1/image1.xz")).unwrap();
    (bytes.len(), Sha256::digest(&bytes).to_vec())
}

fn sum(bytes: &[u8]) -> (usize, Vec<u8>) {
    (bytes.len(), Sha256::digest(bytes).to_vec())
}

#[test]
fn a_transfer_streams_on_over_a_restart_and_the_next_server_knows_that_it_was_delivered() {
    let (mut server, machine, boot) = ordered();
    let mut download = installing(&server, &boot);
    let mut old = server.hand_over();
    assert!(old.is_running(), "{}", server.log());

    // The next server answers, and knows that the host is being installed.
    assert_eq!(Machine::new(2).boot(&server).outcome, "hold");
    let colleague = machine.clone().at(Ipv4Addr::new(127, 0, 0, 2));
    let begin = Instant::now();
    while server.host(ID)["progress"].is_null() {
        assert!(begin.elapsed().as_secs() < 30, "the next server does not hear of the transfer:\n{}", server.log());
        sleep(Duration::from_millis(20));
    }
    colleague.holds(&server, "this host is being installed from 127.0.0.1");

    download.read(1 << 20);
    assert_eq!(sum(&download.rest()), payload_sum(&server));
    assert_eq!(old.wait().code(), Some(0), "{}", server.log());
    assert_eq!(server.count(ID, "payload_delivered"), 1);
    machine.holds(&server, UNREPORTED);
    assert_eq!(server.host(ID)["attempts"], 1);
    server.get(&boot.call("finish")).expect(200);
    machine.boots_its_disk(&server);
}

#[test]
fn a_transfer_whose_old_server_is_killed_counts_as_incomplete_and_is_tried_again() {
    let (mut server, machine, boot) = ordered();
    let download = installing(&server, &boot);
    let mut old = server.hand_over();
    assert!(old.is_running(), "{}", server.log());
    old.kill();
    let whole = payload_sum(&server).0;
    assert!(download.rest().len() < whole);
    assert_eq!(server.count(ID, "payload_delivered"), 0);
    machine.boots(&server).load(&server);
    assert_eq!(server.host(ID)["attempts"], 2);
}

#[test]
fn without_a_next_server_a_transfer_is_finished_and_remembered_all_the_same() {
    let (mut server, machine, boot) = ordered();
    let download = installing(&server, &boot);
    server.tell_to_stop();
    assert_eq!(sum(&download.rest()), payload_sum(&server));
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    server.restart();
    machine.holds(&server, UNREPORTED);
}

#[test]
fn what_nobody_can_remember_does_not_become_whole() {
    let (mut server, machine, boot) = ordered_with("[boot]\nidle_timeout_s = 6\n");
    let download = installing(&server, &boot);
    server.tell_to_stop();
    // Something holds the store, and is no server.
    let lock = fs::File::open(server.site.path("data/store/lock")).unwrap();
    lock.lock().unwrap();
    assert!(download.rest().len() < payload_sum(&server).0);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    drop(lock);
    server.restart();
    assert_eq!(server.count(ID, "payload_delivered"), 0);
    machine.boots(&server);
}

#[test]
fn transfers_stream_on_for_a_bounded_time() {
    let (mut server, machine, boot) = ordered_with("[boot]\ndrain_s = 1\n");
    let download = installing(&server, &boot);
    let begin = Instant::now();
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(download.rest().len() < payload_sum(&server).0);
    server.restart();
    machine.boots(&server);
}

#[test]
fn told_twice_a_server_ends_at_once() {
    let (mut server, machine, boot) = ordered();
    let download = installing(&server, &boot);
    server.tell_to_stop();
    let begin = Instant::now();
    while !server.log().contains("transfers stream on") {
        assert!(begin.elapsed().as_secs() < 30, "{}", server.log());
        sleep(Duration::from_millis(10));
    }
    assert!(server.ended().is_none());
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(download.rest().len() < payload_sum(&server).0);
    server.restart();
    machine.boots(&server);
}

/// As systemd does with `Type=notify`, whose socket has a name in no file system, or a path.
#[test]
fn a_service_manager_is_told_when_everybody_is_answered_and_may_stop_the_server_at_once() {
    let site = Site::new();
    let abstract_name = format!("kiwispray-test-{}", std::process::id());
    let abstract_address = UnixSocketAddr::from_abstract_name(&abstract_name).unwrap();
    let path = site.path("notify");
    for (manager, name) in [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{abstract_name}")),
    ] {
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut command = serve_command(&site);
        let mut server =
            command.env("NOTIFY_SOCKET", name).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut told = [0; 64];
        let length = manager.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"READY=1\n");
        let mut list = server_command(&site);
        list.args(["--server", &format!("unix:{}", site.path("data/admin.sock").display()), "host", "list"]);
        let listed = Run::of(list);
        kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
        assert_eq!(server.wait().unwrap().code(), Some(0), "it ended in order");
        listed.done();
    }
}

#[test]
fn a_server_that_is_stopped_while_it_greets_ends_in_order() {
    let mut server = Site::new().serve();
    for _ in 0..5 {
        assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
        server.restart();
    }
}

#[test]
fn a_disk_that_hangs_does_not_keep_a_server_from_ending() {
    let mut server = Site::new().serve();
    let folder = server.site.path("conf.d");
    fs::create_dir_all(&folder).unwrap();
    let pipe = rustix::fs::FileType::Fifo;
    // Whoever opens it waits for ever, as for a file on a server that is gone.
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("hangs.toml"), pipe, 0o644.into(), 0).unwrap();
    server.hang_up();
    sleep(Duration::from_millis(500));
    assert_eq!(Machine::new(1).boot(&server).outcome, "hold");
    let begin = Instant::now();
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(!server.log().contains("reloaded"), "it hung");
}

#[test]
fn a_machine_that_waits_or_says_nothing_does_not_keep_a_server_from_ending() {
    let mut server = Site::new().kiwi("image1").serve();
    let _silent = server.http().connect();
    let mut kept = server.http().connect();
    kept.write_all(b"GET /bootstrap.ipxe HTTP/1.1\r\nHost: kiwispray\r\n\r\n").unwrap();
    kept.read_exact(&mut [0; 100]).unwrap();
    let begin = Instant::now();
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log());
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[test]
fn under_systemd_the_main_process_ends_at_once_and_a_transfer_streams_on() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = Server::start_kept(Site::new().kiwi("image1"), &socket);
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("image1", ID);
    let boot = machine.boots(&server);
    let download = installing(&server, &boot);
    let begin = Instant::now();
    assert_eq!(server.restart_kept(&socket).code(), Some(0), "{}", server.log());
    // Whoever asked meanwhile waited in the socket's queue.
    assert_eq!(Machine::new(2).boot(&server).outcome, "hold");
    println!("restarted in {:?}", begin.elapsed());
    assert_eq!(sum(&download.rest()), payload_sum(&server));
    machine.holds(&server, UNREPORTED);
    server.hang_up();
    let begin = Instant::now();
    while !server.log().contains("configuration and plugins reloaded") {
        assert!(begin.elapsed().as_secs() < 30, "{}", server.log());
        sleep(Duration::from_millis(20));
    }
    assert_eq!(server.terminate().code(), Some(0));
}

fn ordered_with(config: &str) -> (Server, Machine, Boot) {
    let server = Site::new().config(config).kiwi("image1").serve();
    let machine = Machine::new(1);
    let id = machine.boot(&server).host.unwrap();
    server.deploy("image1", id);
    let boot = machine.boots(&server);
    (server, machine, boot)
}

/// Machines that install one after the other, each the whole way.
const MACHINES: u32 = 50;
const RESTARTS: u32 = 20;

#[test]
fn twenty_restarts_under_fifty_machines_lose_nothing_and_refuse_nobody() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = Site::new().config("[limits]\nnew_hosts_per_minute = 0\nreinstalls_per_hour = 10000\n").kiwi("image1");
    let mut server = Server::start_on(site, &socket);
    let machines: Vec<Machine> = (1..=MACHINES).map(Machine::new).collect();
    machines.iter().for_each(|machine| assert_eq!(machine.boot(&server).outcome, "hold"));
    let (http, is_over) = (server.http(), AtomicBool::new(false));
    let mut installs = 0;
    std::thread::scope(|scope| {
        let crowd: Vec<_> = machines
            .iter()
            .map(|machine| {
                let is_over = &is_over;
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        install_when_told(machine, &http);
                        sleep(Duration::from_millis(100));
                    }
                })
            })
            .collect();
        for _ in 0..RESTARTS {
            order_finished_hosts(&server);
            sleep(Duration::from_millis(100));
            let old = server.hand_over_on(&socket);
            assert_eq!(old.wait().code(), Some(0), "{}", server.log());
        }
        sleep(Duration::from_secs(1));
        is_over.store(true, Ordering::Relaxed);
        crowd.into_iter().for_each(|machine| machine.join().unwrap());
        for id in 1..=u64::from(MACHINES) {
            let events = server.events(id);
            let count = |kind: &str| events.iter().filter(|event| *event == kind).count();
            let (delivered, finished) = (count("payload_delivered"), count("finished"));
            assert_eq!(delivered, finished, "host {id}: {events:?}");
            assert_eq!(count("attempt_started"), finished, "host {id}: {events:?}");
            installs += finished;
        }
    });
    println!("{installs} installations over {RESTARTS} restarts, nobody refused");
    // Each restart meets installations under way.
    assert!(installs >= 2 * MACHINES as usize, "{installs}");
}

fn order_finished_hosts(server: &Server) {
    let all = format!("1-{MACHINES}");
    // Those that install at this moment stay as they are.
    let run = server.cli(&["deploy", "image1", &all, "--yes", "--reinstall"]);
    assert!(run.code == 0 || run.code == 4, "{run:?}");
}

/// Asks as a machine does, and installs if told to. Every request is answered, and every body is whole.
fn install_when_told(machine: &Machine, http: &Client) {
    let answer = http.get(&machine.request()).expect(200);
    if answer.header("x-kiwispray-outcome") != Some("boot") {
        return;
    }
    let boot = Boot::of_script(&answer);
    for path in [boot.kernel(), boot.initrd(), boot.payload()] {
        let file = http.get(path).expect(200);
        assert_eq!(file.header("content-length").unwrap(), file.body.len().to_string(), "half a body of {path}");
    }
    http.get(&boot.call("finish")).expect(200);
}

#[test]
fn between_two_servers_an_address_is_refused_for_moments_only() {
    let mut server = Site::new().kiwi("image1").serve();
    let (address, is_over) = (server.address, AtomicBool::new(false));
    let refused = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut counts = (0, 0, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                counts.0 += 1;
                if !asks(address) {
                    counts.1 += 1;
                    counts.2 += begin.elapsed().max(Duration::from_millis(10));
                }
                sleep(Duration::from_millis(10));
            }
            counts
        });
        for _ in 0..5 {
            drop(server.hand_over());
            sleep(Duration::from_millis(300));
        }
        is_over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    let (asked, failed, silent) = refused;
    println!("{failed} of {asked} requests failed over 5 restarts, {silent:?} in all");
    assert!(silent < Duration::from_secs(10), "{failed} of {asked} failed, for {silent:?}");
    assert_eq!(server.get("/bootstrap.ipxe").expect(200).status, 200);
}

fn asks(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(b"GET /bootstrap?serial=S1 HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer.contains("#!ipxe"))
    };
    ask().unwrap_or(false)
}
