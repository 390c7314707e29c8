//! A real KIWI image, built by Debian's own KIWI and deployed on a blank disk by the real server.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::cache;
use crate::machine::{Firmware, Identity, Machine};
use crate::net::{Bridge, run as run_command};
use crate::server::{Server, program};

const FIRMWARE_TIME: Duration = Duration::from_secs(180);
const NOTICE_TIME: Duration = Duration::from_secs(60);
/// Kernel, installer, 600 MB to the disk and back, kexec, first boot; without KVM.
const INSTALL_TIME: Duration = Duration::from_secs(900);
const DISK_MIB: u64 = 2048;

/// The network archive of the test's image: from the cache if nothing of its description changed, else built.
///
/// # Errors
/// The build needs root; it leaves its log next to the archive.
pub(crate) fn archive() -> Result<PathBuf> {
    let work = tempfile::tempdir()?;
    let description = hooked_description(work.path())?;
    let dir = cache::dir()?.join(format!("kiwi-{}", digest_of(&description)?));
    if !dir.is_dir() {
        ensure!(rustix::process::geteuid().is_root(), "building a KIWI image needs root and loop devices");
        let log_path = dir.with_extension("log");
        println!("building the KIWI image, 3 to 11 minutes; its log is {}", log_path.display());
        let log = fs::File::create(&log_path)?;
        let mut build = Command::new("nice");
        build.arg(description.join("build.sh")).arg(&dir).stdin(Stdio::null());
        let begin = Instant::now();
        let status = build.stdout(log.try_clone()?).stderr(log).status()?;
        ensure!(status.success(), "KIWI failed ({status}), see {}", log_path.display());
        println!("built in {} s", begin.elapsed().as_secs());
    }
    let mut files = fs::read_dir(&dir)?;
    let archive = files.find_map(|entry| entry.ok().map(|entry| entry.path()));
    archive.with_context(|| format!("{} is empty: remove it", dir.display()))
}

/// The description with the unit that `image hook` puts into it, as everyone's would have.
fn hooked_description(work: &Path) -> Result<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/kiwi");
    let copy = work.join("kiwi");
    run_command("cp", &["-r", &kept.to_string_lossy(), &copy.to_string_lossy()])?;
    let hook = Command::new(program()).args(["image", "hook"]).arg(copy.join("description")).output()?;
    ensure!(hook.status.success(), "kiwispray image hook: {}", String::from_utf8_lossy(&hook.stderr));
    let said = String::from_utf8_lossy(&hook.stdout);
    ensure!(!said.contains("left to do"), "the hook is not enough for this description: {said}");
    Ok(copy)
}

/// A short name for the content of a folder: every file's path, mode and bytes.
fn digest_of(dir: &Path) -> Result<String> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut sum = Sha256::new();
    for file in files {
        sum.update(file.strip_prefix(dir)?.to_string_lossy().as_bytes());
        sum.update([0]);
        sum.update(Sha256::digest(fs::read(&file)?));
    }
    Ok(sum.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

pub(crate) fn run(dir: &Path, archive: &Path, watch: bool) -> Result<u32> {
    let bridge = Bridge::new("e2e0", Bridge::ADDRESS)?;
    let requests = Requests::record(&bridge)?;
    let mut server = Server::new(dir, &bridge)?;
    server.start()?;
    let begin = Instant::now();
    server.cli(&["image", "import", "sprayling", &archive.to_string_lossy(), "--device", "/dev/vda"])?;
    println!("ok {:4} s: the image is imported", begin.elapsed().as_secs());

    let identity = Identity::new("kiwi", 3);
    let mut machine = Machine::new(dir, identity, Firmware::BiosRom, DISK_MIB, &bridge, watch)?;
    let walked = walk(&server, &mut machine);
    println!("\nHTTP requests in order:");
    requests.print();
    let passed = walked.with_context(|| server.last_log_lines())?;
    ensure!(requests.count(".xz") == 1, "the image was not fetched exactly once");
    Ok(passed)
}

fn walk(server: &Server, machine: &mut Machine) -> Result<u32> {
    let begin = Instant::now();
    let ok = |claim: &str| println!("ok {:4} s: {claim}", begin.elapsed().as_secs());
    machine.power_on()?;
    machine.console.wait_for("it waits for a state", FIRMWARE_TIME)?;
    let id = server.host_id(&machine.identity.serial)?;
    ok("an unknown machine waits");

    server.cli(&["deploy", "sprayling", &id, "--yes"])?;
    machine.console.wait_for("installs sprayling on /dev/vda", NOTICE_TIME)?;
    ok("it starts KIWI's installer");

    let deadline = Instant::now() + INSTALL_TIME;
    let mut shown = String::new();
    while server.states(&id)? != "finished" {
        ensure!(Instant::now() < deadline, "not finished after {} s", INSTALL_TIME.as_secs());
        let progress = progress(&server.host(&id)?);
        if progress != shown {
            println!("   {:4} s: {progress}", begin.elapsed().as_secs());
            shown = progress;
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    ok("the installed system has reported");

    machine.console.wait_for("boots its local disk", FIRMWARE_TIME)?;
    machine.console.wait_for("sprayling login:", FIRMWARE_TIME)?;
    ok("it boots from its disk");
    ensure!(server.states(&id)? == "finished", "the machine is not finished any more");
    Ok(4)
}

/// What an installation has come to, in steps of a tenth.
fn progress(host: &Value) -> String {
    let field = |name: &str| host.pointer(&format!("/progress/{name}"));
    let file = field("file").and_then(Value::as_str).unwrap_or("nothing yet");
    let percent = field("percent").and_then(Value::as_u64).unwrap_or(0);
    format!("{} % of {file}", percent / 10 * 10)
}

/// The HTTP requests on the switch, as the network saw them.
struct Requests {
    tcpdump: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Requests {
    fn record(bridge: &Bridge) -> Result<Self> {
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
    fn count(&self, ending: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|request| request.ends_with(ending)).count()
    }

    /// Prints them, repeated ones once, without the secrets and the rest of their parameters.
    fn print(&self) {
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
