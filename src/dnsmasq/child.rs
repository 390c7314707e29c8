//! A dnsmasq that runs as long as the server does.
//!
//! It is restarted with growing pauses when it ends, its lines go into the server's own log, and it is ended by its
//! process id. A server that was killed leaves its dnsmasq behind: the kernel's parent-death signal would not help, as
//! it is lost when dnsmasq changes to its own account. The next server finds the old one by the pid file and the
//! configuration on its command line, and ends it first.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::config::{Config, ConfigError};

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A run of this length counts as healthy: the next pause is the shortest again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long dnsmasq may take to end when asked to, before it is killed.
const END_TIME: Duration = Duration::from_secs(2);
/// dnsmasq is in a directory that accounts other than root often do not search.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// A supervised dnsmasq. Dropping it kills the process; [`Child::stop`] ends it in order.
#[derive(Debug)]
pub struct Child {
    supervisor: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

/// Why dnsmasq could not be started at all.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// No configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no dnsmasq.
    #[error("cannot run dnsmasq (package dnsmasq-base on Debian, dnsmasq elsewhere)")]
    Run(#[source] io::Error),
    /// dnsmasq does not like what was generated; an old version, probably.
    #[error("dnsmasq refuses {}: {said}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it said.
        said: String,
    },
}

impl Child {
    /// Writes the configuration into the data directory, has dnsmasq check it, and runs it from then on.
    ///
    /// What goes wrong after the check (a port in use, an interface that disappears) is logged and tried again.
    ///
    /// # Errors
    /// The configuration is impossible, cannot be written, or dnsmasq is missing or refuses it.
    pub async fn start(config: &Config) -> Result<Self, ChildError> {
        let path = std::path::absolute(config.path()).unwrap_or_else(|_| config.path());
        let text = config.text()?;
        let written = tokio::fs::write(&path, text).await;
        written.map_err(|source| ChildError::Write { path: path.clone(), source })?;
        check(&path).await?;
        end_leftover(&config.pid_file(), &path).await;

        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(supervise(path, stopped));
        Ok(Child { supervisor, stop: Some(stop) })
    }

    /// Ends dnsmasq and waits until it is gone.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        // An error means that the supervisor panicked, and then kill_on_drop has ended the process.
        let _ = (&mut self.supervisor).await;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Drops the process, which has kill_on_drop.
        self.supervisor.abort();
    }
}

fn command(path: &Path) -> Command {
    let mut command = Command::new("dnsmasq");
    command.env("PATH", SEARCH_PATH).arg(conf_file_argument(path)).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn conf_file_argument(path: &Path) -> String {
    format!("--conf-file={}", path.display())
}

async fn check(path: &Path) -> Result<(), ChildError> {
    let verdict = command(path).arg("--test").output().await.map_err(ChildError::Run)?;
    if verdict.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&verdict.stderr).trim().to_owned();
    Err(ChildError::Refused { path: path.to_owned(), said })
}

/// Runs dnsmasq again and again until `stopped` says (or is dropped, which says the same).
async fn supervise(path: PathBuf, mut stopped: oneshot::Receiver<()>) {
    let mut pause = PAUSE_MIN;
    loop {
        let begin = Instant::now();
        match run(&path, &mut stopped).await {
            Ok(Ended::Asked) => return,
            Ok(Ended::Itself { status, last_line }) => {
                if begin.elapsed() >= HEALTHY_AFTER {
                    pause = PAUSE_MIN;
                }
                warn!(%status, last_line, again_after_ms = pause.as_millis(), "dnsmasq ended");
            }
            Err(error) => {
                warn!(%error, again_after_ms = pause.as_millis(), "dnsmasq could not be started")
            }
        }
        tokio::select! {
            _ = &mut stopped => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

enum Ended {
    Asked,
    Itself { status: ExitStatus, last_line: String },
}

/// One run of dnsmasq.
async fn run(path: &Path, stopped: &mut oneshot::Receiver<()>) -> io::Result<Ended> {
    let mut child = command(path).args(["--keep-in-foreground", "--log-facility=-"]).spawn()?;
    info!(pid = child.id(), config = %path.display(), "dnsmasq started");
    let stderr = child.stderr.take().ok_or_else(|| io::Error::other("dnsmasq has no standard error"))?;
    let mut lines = BufReader::new(stderr).lines();
    let mut last_line = String::new();
    loop {
        tokio::select! {
            _ = &mut *stopped => {
                end(&mut child).await?;
                info!("dnsmasq stopped");
                return Ok(Ended::Asked);
            }
            line = lines.next_line() => match line {
                Ok(Some(line)) => {
                    log(&line);
                    last_line = line;
                }
                // The pipe closes when the process ends; a line that is not UTF-8 is skipped.
                Ok(None) => break,
                Err(error) => debug!(%error, "dnsmasq wrote a line that cannot be read"),
            },
        }
    }
    Ok(Ended::Itself { status: child.wait().await?, last_line })
}

async fn end(child: &mut tokio::process::Child) -> io::Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::TERM)?;
    }
    match tokio::time::timeout(END_TIME, child.wait()).await {
        Ok(status) => status.map(drop),
        Err(_) => child.kill().await,
    }
}

/// Puts a line of dnsmasq into the server's log. Every DHCP message is a line, so these are for debugging only.
fn log(line: &str) {
    const TROUBLE: [&str; 6] = ["failed", "error", "cannot", "not found", "no address", "in use"];
    let (source, message) = line.split_once(": ").unwrap_or(("dnsmasq", line));
    // `dnsmasq-dhcp[123]`: the process id is known.
    let source = source.split('[').next().unwrap_or(source);
    // UEFI firmware asks for a file's size first, and calls that off as if it were an error.
    let aborted = message.contains("User aborted the transfer");
    if !aborted && TROUBLE.iter().any(|word| message.contains(word)) {
        warn!(source, message, "dnsmasq reports trouble");
    } else if source == "dnsmasq" {
        info!(message, "dnsmasq");
    } else {
        debug!(source, message, "dnsmasq");
    }
}

/// Ends the dnsmasq that a killed server left behind. A process that merely has its number is left alone.
async fn end_leftover(pid_file: &Path, config: &Path) {
    let Ok(text) = tokio::fs::read_to_string(pid_file).await else {
        return;
    };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
        return;
    };
    let argument = conf_file_argument(config);
    let is_ours = || async {
        let command_line = tokio::fs::read(format!("/proc/{pid}/cmdline")).await.unwrap_or_default();
        command_line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    };
    let begin = Instant::now();
    let mut signal = Signal::TERM;
    while is_ours().await {
        if begin.elapsed() > END_TIME {
            signal = Signal::KILL;
        }
        if begin.elapsed() > 2 * END_TIME {
            return warn!(%pid, "a dnsmasq of an earlier server does not end");
        }
        if let Err(error) = kill_process(pid, signal) {
            return warn!(%pid, %error, "a dnsmasq of an earlier server cannot be ended");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
