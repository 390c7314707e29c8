//! The real kiwispray, run inside the namespace, and its command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::net::Bridge;

const START_TIME: Duration = Duration::from_secs(30);

/// What is tested. Another build, such as a release, can be named.
pub(crate) fn program() -> PathBuf {
    let named = std::env::var_os("KIWISPRAY_E2E_BINARY");
    named.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_kiwispray")), PathBuf::from)
}

/// One server with its own directories, which outlive its process.
pub(crate) struct Server {
    program: PathBuf,
    dir: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
    /// One that was told to end, and streams on.
    leaving: Option<Child>,
}

impl Server {
    /// A server that serves addresses on the switch by its own dnsmasq. It does not run yet.
    pub(crate) fn new(dir: &Path, bridge: &Bridge) -> Result<Self> {
        let dir = dir.join("server");
        for name in ["data", "images"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let mut arguments = vec!["serve".to_owned(), "--listen".to_owned(), "0.0.0.0:5000".to_owned()];
        for name in ["data", "images"] {
            arguments.extend([format!("--{name}-dir"), dir.join(name).display().to_string()]);
        }
        arguments.extend(["--dnsmasq".to_owned(), bridge.name().to_owned()]);
        arguments.extend(["--dhcp-range".to_owned(), "192.168.42.100,192.168.42.199".to_owned()]);
        Ok(Server { program: program(), dir, arguments, process: None, leaving: None })
    }

    /// The same server, with more arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// The folder of an image.
    pub(crate) fn image_dir(&self, name: &str) -> PathBuf {
        self.dir.join("images").join(name)
    }

    /// What the server printed, over all its runs.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Starts the server, and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the server runs already");
        let log = fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.dir).stdin(Stdio::null());
        if !self.dir.join("data/store").exists() {
            command.arg("--init");
        }
        let process = command.stdout(log.try_clone()?).stderr(log).spawn();
        self.process = Some(process.with_context(|| format!("cannot run {}", self.program.display()))?);
        let begin = Instant::now();
        while let Err(error) = self.cli(&["host", "list", "--json"]) {
            let ended = self.process.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begin.elapsed() > START_TIME {
                bail!("the server does not answer: {error:#}\n{}", self.last_log_lines());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Restarts it in order: it is told to end, and the next one starts at once.
    pub(crate) fn hand_over(&mut self) -> Result<()> {
        let old = self.process.take().context("the server does not run")?;
        kill_process(Pid::from_child(&old), Signal::TERM)?;
        self.leaving = Some(old);
        self.start()
    }

    /// Whether a server that was told to end is still there, for a transfer that runs.
    pub(crate) fn streams_on(&mut self) -> Result<bool> {
        Ok(matches!(self.leaving.as_mut().map(Child::try_wait).transpose()?, Some(None)))
    }

    /// `kill -9`: no goodbye, nothing flushed.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the server does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Runs a command of the command line, and returns what it printed.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String> {
        let socket = format!("unix:{}", self.dir.join("data/admin.sock").display());
        let mut command = Command::new(&self.program);
        let output = command.args(["--server", &socket]).args(arguments).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kiwispray {} failed: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What the server knows of a host, named by number or serial.
    pub(crate) fn host(&self, host: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&self.cli(&["host", "show", host, "--json"])?)?;
        answer.get(0).cloned().with_context(|| format!("`host show {host} --json` shows nothing"))
    }

    /// The words for what happened to a host, oldest first.
    pub(crate) fn events(&self, id: &str) -> Result<Vec<String>> {
        let answer: Value = serde_json::from_str(&self.cli(&["host", "events", id, "--json"])?)?;
        let events = answer.as_array().context("the events are no list")?;
        Ok(events.iter().filter_map(|event| event.get("kind")?.as_str().map(str::to_owned)).collect())
    }

    /// The number of the host with a serial.
    pub(crate) fn host_id(&self, serial: &str) -> Result<String> {
        let host = self.host(serial)?;
        Ok(host.get("id").context("a host has no number")?.to_string())
    }

    /// The queue of a host, as in `wipe,image1`.
    pub(crate) fn states(&self, id: &str) -> Result<String> {
        let host = self.host(id)?;
        let states = host.get("states").and_then(Value::as_array).context("a host has no states")?;
        Ok(states.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
    }

    /// Waits until a host's queue is as expected.
    pub(crate) fn wait_for_states(&self, id: &str, expected: &str, timeout: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let states = self.states(id)?;
            if states == expected {
                return Ok(());
            }
            ensure!(begin.elapsed() < timeout, "host {id} has the states {states}, not {expected}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    pub(crate) fn last_log_lines(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
        format!("The server's last lines:\n{}", last.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The namespace ends what is left.
        let _ = self.kill();
        if let Some(old) = &mut self.leaving {
            let _ = old.kill();
            let _ = old.wait();
        }
    }
}
