//! The server as a process of its own, on a port of its own, which may be killed and started again over the same data.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Client, Response, Run, Site};

/// How long a busy machine may take to start a server, or to stop one.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Server {
    pub(crate) site: Site,
    /// Where it was told to listen; 0: anywhere.
    port: u16,
    child: Child,
    /// Whether the process is a keeper, whose death would leave the server alone.
    is_kept: bool,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// A `kiwispray` command in a folder, without anything of the caller's environment that it would listen to.
pub(crate) fn command(site: &Site) -> Command {
    command_of(site, env!("CARGO_BIN_EXE_kiwispray"))
}

fn command_of(site: &Site, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KIWISPRAY_")) {
        command.env_remove(name);
    }
    command.current_dir(site.root()).stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

/// `kiwispray serve` over the folders of a site, on a free port. Only where no store is yet, it may begin one.
pub(crate) fn serve_command(site: &Site) -> Command {
    serve_command_at(site, 0)
}

fn serve_command_at(site: &Site, port: u16) -> Command {
    let mut command = command(site);
    command.args(["serve", "--config", "kiwispray.toml", "--data-dir", "data"]);
    if !site.path("data/store").exists() {
        command.arg("--init");
    }
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    command.args(["--images-dir", "images", "--templates-dir", "templates", "--plugins-dir", "plugins"]);
    command.args(["--ipxe-dir", "ipxe"]);
    command
}

/// The same with a socket as descriptor 3, as `sd_listen_fds(3)` says; only a shell can put it there.
fn serve_command_on(site: &Site, socket: &TcpListener) -> Command {
    let serve = serve_command(site);
    let mut command = command_of(site, "sh");
    command.args(["-c", "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\""]);
    command.arg(serve.get_program()).args(serve.get_args());
    command.stdin(OwnedFd::from(socket.try_clone().unwrap()));
    command
}

fn kept_command(site: &Site, socket: &TcpListener) -> Command {
    let serve = serve_command_on(site, socket);
    let mut command = command_of(site, "sh");
    // The shell and its script, then what it starts.
    command.args(serve.get_args().take(2)).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/dist/systemd/keep"));
    command.args(serve.get_args().skip(2)).stdin(OwnedFd::from(socket.try_clone().unwrap()));
    command
}

impl Server {
    pub(crate) fn start(site: Site) -> Self {
        Self::start_at(site, 0)
    }

    /// On a port that machines were told before.
    pub(crate) fn start_at(site: Site, port: u16) -> Self {
        let log = Arc::new(Mutex::new(String::new()));
        let (child, address) = spawn(serve_command_at(&site, port), &log);
        Self { site, port, child, is_kept: false, address, log }
    }

    /// A client at 127.0.0.1.
    pub(crate) fn http(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.http().get(path)
    }

    /// Runs the command line against this server, without a terminal.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Run {
        let mut command = command(&self.site);
        command.args(["--server", &format!("unix:{}", self.site.path("data/admin.sock").display())]).args(arguments);
        Run::of(command)
    }

    /// The document that a command prints with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let run = self.cli(&[arguments, &["--json"]].concat());
        assert_eq!(run.code, 0, "{arguments:?}: {}", run.err);
        serde_json::from_str(&run.out).unwrap()
    }

    /// Orders an image for a host.
    pub(crate) fn deploy(&self, image: &str, host: u64) {
        self.cli(&["deploy", image, &host.to_string(), "--yes"]).done();
    }

    /// A host as `host show` knows it.
    pub(crate) fn host(&self, id: u64) -> Value {
        self.json(&["host", "show", &id.to_string()])[0].clone()
    }

    /// The queue of a host.
    pub(crate) fn states(&self, id: u64) -> String {
        let host = self.host(id);
        let states: Vec<&str> =
            host["states"].as_array().unwrap().iter().map(|state| state.as_str().unwrap()).collect();
        states.join(",")
    }

    /// The words for what happened to a host, oldest first.
    pub(crate) fn events(&self, id: u64) -> Vec<String> {
        let events = self.json(&["host", "events", &id.to_string()]);
        events.as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// How often something happened to a host.
    pub(crate) fn count(&self, id: u64, kind: &str) -> usize {
        self.events(id).iter().filter(|event| *event == kind).count()
    }

    /// Ends the server as a power cut would, and starts one over the same data.
    pub(crate) fn crash_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Ends the server in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the server in the middle of whatever it does, while others still use this value.
    pub(crate) fn signal_kill(&self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
    }

    /// Asks the server to read its plugins again.
    pub(crate) fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// Asks the server to stop, and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.tell_to_stop();
        self.wait()
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the server does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same, with more arguments.
    pub(crate) fn restart_with(&mut self, arguments: &[&str]) {
        let mut command = serve_command_at(&self.site, self.port);
        command.args(arguments);
        (self.child, self.address) = spawn(command, &self.log);
    }

    /// On a socket that somebody else made, as a service manager does.
    pub(crate) fn start_on(site: Site, socket: &TcpListener) -> Self {
        let log = Arc::new(Mutex::new(String::new()));
        let (child, address) = spawn(serve_command_on(&site, socket), &log);
        Self { site, port: 0, child, is_kept: false, address, log }
    }

    /// Asks the server to stop, and starts the next one over the same data before the old one has ended.
    pub(crate) fn hand_over(&mut self) -> Leaving {
        self.port = self.address.port();
        let command = serve_command_at(&self.site, self.port);
        self.hand_over_to(command)
    }

    /// The same, when both have their socket from somebody else.
    pub(crate) fn hand_over_on(&mut self, socket: &TcpListener) -> Leaving {
        let command = serve_command_on(&self.site, socket);
        self.hand_over_to(command)
    }

    /// Starts it as systemd does: `dist/systemd/keep` is the process that signals reach and whose end is waited for.
    pub(crate) fn start_kept(site: Site, socket: &TcpListener) -> Self {
        let log = Arc::new(Mutex::new(String::new()));
        let (child, address) = spawn(kept_command(&site, socket), &log);
        Self { site, port: 0, child, is_kept: true, address, log }
    }

    /// Restarts it as systemd does: the next one is started when the main process has ended.
    pub(crate) fn restart_kept(&mut self, socket: &TcpListener) -> ExitStatus {
        let status = self.terminate();
        (self.child, self.address) = spawn(kept_command(&self.site, socket), &self.log);
        status
    }

    fn hand_over_to(&mut self, command: Command) -> Leaving {
        self.tell_to_stop();
        let (child, address) = spawn(command, &self.log);
        self.address = address;
        Leaving(std::mem::replace(&mut self.child, child))
    }

    /// Asks the server to stop, and does not wait.
    pub(crate) fn tell_to_stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// What the server wrote so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_kept && self.ended().is_none() {
            self.tell_to_stop();
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server wrote:\n{}", self.log());
        }
    }
}

/// A server that was told to stop, and streams on.
pub(crate) struct Leaving(Child);

impl Leaving {
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let begin = Instant::now();
        while self.is_running() {
            assert!(begin.elapsed() < PATIENCE, "the old server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.wait().unwrap()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(mut command: Command, log: &Arc<Mutex<String>>) -> (Child, SocketAddr) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    collect(child.stderr.take().unwrap(), Arc::clone(log), None);
    collect(child.stdout.take().unwrap(), Arc::clone(log), Some(sender));
    loop {
        let Ok(line) = lines.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the server does not start:\n{}", log.lock().unwrap());
        };
        let address = line.trim().strip_prefix("listens").and_then(|address| address.trim().parse().ok());
        if let Some(address) = address {
            return (child, address);
        }
    }
}

/// Keeps what the server writes, so that it never waits for a reader and a failed test can show it.
fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<String>>, lines: Option<mpsc::Sender<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            log.lock().unwrap().push_str(&format!("{line}\n"));
            if let Some(lines) = &lines {
                let _ = lines.send(line);
            }
        }
    });
}
