//! The HTTP requests of machines, read off the switch: what the server says of itself is not asked.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::net::Bridge;

/// The HTTP requests on the switch, as the network saw them.
pub(crate) struct Requests {
    tcpdump: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Requests {
    pub(crate) fn record(bridge: &Bridge) -> Result<Self> {
        // The first bytes of a request, looked for where TCP's header ends: "GET ", "HEAD", "POST".
        let payload = "tcp[((tcp[12:1] & 0xf0) >> 2):4]";
        let filter = format!(
            "tcp dst port 5000 and ({payload} = 0x47455420 or {payload} = 0x48454144 or {payload} = 0x504f5354)"
        );
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-i", bridge.name(), "-Z", "root", "-n", "-l", "-A", "-s", "400", &filter]);
        let tcpdump = tcpdump.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn();
        let mut tcpdump = tcpdump.context("cannot run tcpdump")?;
        let output = tcpdump.stdout.take().context("tcpdump has no output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let begins = ["GET /", "HEAD /", "POST /"].iter().find_map(|method| line.find(method));
                if let (Some(begin), Some(end)) = (begins, line.rfind(" HTTP/1"))
                    && let Some(request) = line.get(begin..end)
                {
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push(request.to_owned());
                }
            }
        });
        Ok(Requests { tcpdump, lines })
    }

    /// How many were for files with this ending.
    pub(crate) fn count(&self, ending: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|request| request.ends_with(ending)).count()
    }

    /// Waits for the first for a file with this ending.
    pub(crate) fn wait_for(&self, ending: &str, timeout: Duration) -> Result<()> {
        let begin = Instant::now();
        while self.count(ending) == 0 {
            ensure!(begin.elapsed() < timeout, "nobody asked for …{ending} in {} s", timeout.as_secs());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Prints them, repeated ones once, without the secrets and the rest of their parameters.
    pub(crate) fn print(&self) {
        let mut last = (String::new(), 0_u32);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for request in lines.iter().map(|request| plain(request)).chain([String::new()]) {
            if request == last.0 {
                last.1 += 1;
                continue;
            }
            match last.1 {
                0 => {}
                1 => println!("  {}", last.0),
                times => println!("  {}  ({times} times)", last.0),
            }
            last = (request, 1);
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// `GET /b/<bootid>/N.xz` for what has a secret in its path, `GET /finish?…` for what has it in its parameters.
fn plain(request: &str) -> String {
    let (path, parameters) = request.split_once('?').map_or((request, false), |(path, _)| (path, true));
    let mut parts: Vec<&str> = path.split('/').collect();
    if let [_, "b", secret, ..] = parts.as_mut_slice() {
        *secret = "<bootid>";
    }
    format!("{}{}", parts.join("/"), if parameters { "?…" } else { "" })
}
