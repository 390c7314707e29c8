//! What a whole fleet costs: `host import`, `host list`, `/bootstrap` while a backup is taken, and `migrate`. The real command line
//! against the real server, over its socket.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// `host list` of the default number of hosts takes less than this.
const LIST_TARGET: Duration = Duration::from_secs(1);
/// `migrate` of [`MIGRATED`] hosts takes less than this.
const MIGRATE_TARGET: Duration = Duration::from_secs(10);
const MIGRATED: u32 = 10_000;
/// The 99th percentile of `/bootstrap` during a backup, as a multiple of what it is without one, is at most this.
const BACKUP_TARGET: f64 = 3.0;
/// Machines that ask at once.
const CLIENTS: u32 = 4;
/// How long they ask while nothing else happens.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many hosts the server knows.
    #[arg(long, default_value_t = 100_000)]
    hosts: u32,
    /// How often each thing is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

pub(crate) fn run(program: &Path, arguments: &Arguments) -> Result<()> {
    println!("{} hosts", arguments.hosts);
    let fleet = Server::start(program, "bench-fleet-data")?;
    fs::write(fleet.folder.join("hosts.csv"), list(arguments.hosts)?)?;
    let listed = fleet.lists(arguments)?;
    let slowed = fleet.backup(arguments.hosts)?;
    drop(fleet);
    let other = Server::start(program, "bench-migrate-data")?;
    fs::create_dir(other.folder.join("original"))?;
    fs::write(other.folder.join("original/known_hosts.json"), originals()?)?;
    let moved = other.timed(&["migrate", "--from", "original", "--yes"])?;
    println!("  migrate of {MIGRATED:<9} {moved:>8.2?}");
    if arguments.hosts == 100_000 {
        ensure!(listed < LIST_TARGET, "host list took {listed:.2?}, and {LIST_TARGET:?} is the target");
        ensure!(
            slowed <= BACKUP_TARGET,
            "a backup makes p99 {slowed:.2} times as long, and {BACKUP_TARGET} is the target"
        );
    }
    ensure!(moved < MIGRATE_TARGET, "migrate took {moved:.2?}, and {MIGRATE_TARGET:?} is the target");
    Ok(())
}

/// A server with folders of its own, which ends with this.
struct Server {
    program: PathBuf,
    folder: PathBuf,
    process: Child,
}

impl Server {
    fn start(program: &Path, name: &str) -> Result<Self> {
        // Beside the program, which is on a disk; the folder for temporary files often is not.
        let folder = program.with_file_name(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder.join("images")).with_context(|| format!("cannot create {}", folder.display()))?;
        let log = File::create(folder.join("server.log"))?;
        let process = Command::new(program)
            .current_dir(&folder)
            .args(["serve", "--data-dir", "data", "--init", "--listen", "127.0.0.1:0", "--images-dir", "images"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the server")?;
        let server = Self { program: program.to_owned(), folder, process };
        let started = Instant::now();
        while !server.folder.join("data/admin.sock").exists() {
            let log = server.folder.join("server.log");
            ensure!(started.elapsed() < Duration::from_secs(60), "the server did not start: see {}", log.display());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Runs a command to its end.
    fn timed(&self, words: &[&str]) -> Result<Duration> {
        let begun = Instant::now();
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).args(["--server", "unix:data/admin.sock"]).args(words);
        let status = command.stdout(File::create(self.folder.join("out"))?).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "kiwispray {} failed", words.join(" "));
        Ok(begun.elapsed())
    }

    /// Imports and lists, and returns the median of `host list`.
    fn lists(&self, arguments: &Arguments) -> Result<Duration> {
        println!("  host import          {:>8.2?}", self.timed(&["host", "import", "hosts.csv", "--yes"])?);
        println!("  the same again       {:>8.2?}", self.timed(&["host", "import", "hosts.csv", "--yes"])?);
        let mut medians = Vec::new();
        for words in [&["host", "list"][..], &["host", "list", "--json"], &["host", "export"]] {
            let mut times = (0..arguments.rounds.max(1)).map(|_| self.timed(words)).collect::<Result<Vec<_>>>()?;
            times.sort();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            println!("  {:<20} {median:>8.2?}", words.join(" "));
            medians.push(median);
        }
        medians.first().copied().context("nothing was measured")
    }

    /// How many times as long the slowest of a hundred boots takes while a backup is taken.
    fn backup(&self, hosts: u32) -> Result<f64> {
        let log = fs::read_to_string(self.folder.join("server.log"))?;
        let address = log.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address: SocketAddr = address.context("the server did not say where it listens")?.parse()?;
        let (idle, _) = boots(address, hosts, || {
            thread::sleep(IDLE);
            Ok(IDLE)
        })?;
        let (during, took) = boots(address, hosts, || self.timed(&["backup", "fleet.backup", "--replace"]))?;
        println!("  /bootstrap p99       {idle:>8.2?}");
        println!("  during a backup      {during:>8.2?}, which took {took:.2?}");
        Ok(during.as_secs_f64() / idle.as_secs_f64())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The 99th percentile of `/bootstrap` for known hosts that wait, as long as something else is done; and what that returned.
fn boots(
    address: SocketAddr,
    hosts: u32,
    meanwhile: impl FnOnce() -> Result<Duration>,
) -> Result<(Duration, Duration)> {
    let ends = AtomicBool::new(false);
    let (mut times, done) = thread::scope(|scope| -> Result<(Vec<Duration>, Duration)> {
        let ask = |client: u32| {
            let mut times = Vec::new();
            let mut number = client;
            while !ends.load(Ordering::Relaxed) {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                times.push(boot(address, 1 + number % hosts)?);
            }
            Ok::<_, anyhow::Error>(times)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || ask(client))).collect();
        let done = meanwhile();
        ends.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok((times, done?))
    })?;
    times.sort();
    let p99 = times.get(times.len() * 99 / 100).copied().context("no machine asked")?;
    Ok((p99, done))
}

/// One machine asks what to boot.
fn boot(address: SocketAddr, number: u32) -> Result<Duration> {
    let [a, b, c, d] = number.to_be_bytes();
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET /bootstrap?serial=SN{number:06}&uuid={}&net0=52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x} HTTP/1.1\r\nHost: {address}\r\n\
         Connection: close\r\n\r\n",
        uuid(number)
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("#!ipxe"), "no script: {answer}");
    Ok(begun.elapsed())
}

fn uuid(number: u32) -> String {
    format!("{number:08x}-1234-4abc-8def-00163e{:06x}", number & 0xff_ffff)
}

/// What the original KIWIspray would know of so many hosts.
fn originals() -> Result<String> {
    let hosts: Vec<serde_json::Value> = (1..=MIGRATED)
        .map(|n| {
            let [a, b, c, d] = n.to_be_bytes();
            serde_json::json!({
                "id": n, "hostname": format!("node{n}"), "state": "finished", "metadata": {"net.site": "fra1"},
                "bootid": "0123456789abcdef0123456789abcdef", "serial": format!("SN{n:06}"), "uuid": uuid(n),
                "macs": format!("52:54:{a:02X}:{b:02X}:{c:02X}:{d:02X}"),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&hosts)?)
}

/// A list of that many hosts, with what hosts usually have.
fn list(hosts: u32) -> Result<String> {
    let mut text = "hostname,serial,uuid,macs,metadata.site,metadata.rack\n".to_owned();
    for n in 1..=hosts {
        let [a, b, c, d] = n.to_be_bytes();
        writeln!(text, "node{n},SN{n:06},{},52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x},fra{},{}", uuid(n), n % 7, n % 40)?;
    }
    Ok(text)
}
