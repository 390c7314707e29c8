//! How long `host import` and `host list` of a whole fleet take: the real command line against the real server, over its socket.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// `host list` of the default number of hosts takes less than this.
const TARGET: Duration = Duration::from_secs(1);

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
    // Beside the program, which is on a disk; the folder for temporary files often is not.
    let folder = program.with_file_name("bench-list-data");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join("images")).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(folder.join("hosts.csv"), list(arguments.hosts)?)?;
    let log = File::create(folder.join("server.log"))?;
    let mut server = Command::new(program)
        .current_dir(&folder)
        .args(["serve", "--data-dir", "data", "--init", "--listen", "127.0.0.1:0", "--images-dir", "images"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the server")?;
    let measured = measure(program, &folder, arguments);
    server.kill()?;
    server.wait()?;
    let median = measured?;
    let is_judged = arguments.hosts == 100_000;
    ensure!(!is_judged || median < TARGET, "host list took {median:.2?}, and {TARGET:?} is the target");
    Ok(())
}

/// Measures, and returns the median of `host list`.
fn measure(program: &Path, folder: &Path, arguments: &Arguments) -> Result<Duration> {
    let socket = folder.join("data/admin.sock");
    let started = Instant::now();
    while !socket.exists() {
        ensure!(
            started.elapsed() < Duration::from_secs(60),
            "the server did not start: see its log in {}",
            folder.display()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let timed = |words: &[&str]| -> Result<Duration> {
        let begun = Instant::now();
        let mut command = Command::new(program);
        command.current_dir(folder).args(["--server", "unix:data/admin.sock"]).args(words);
        let status = command.stdout(File::create(folder.join("out"))?).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "kiwispray {} failed", words.join(" "));
        Ok(begun.elapsed())
    };
    println!("{} hosts", arguments.hosts);
    println!("  host import          {:>8.2?}", timed(&["host", "import", "hosts.csv", "--yes"])?);
    println!("  the same again       {:>8.2?}", timed(&["host", "import", "hosts.csv", "--yes"])?);
    let mut medians = Vec::new();
    for words in [&["host", "list"][..], &["host", "list", "--json"], &["host", "export"]] {
        let mut times = (0..arguments.rounds.max(1)).map(|_| timed(words)).collect::<Result<Vec<_>>>()?;
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        println!("  {:<20} {median:>8.2?}", words.join(" "));
        medians.push(median);
    }
    medians.first().copied().context("nothing was measured")
}

/// A list of that many hosts, with what hosts usually have.
fn list(hosts: u32) -> Result<String> {
    let mut text = "hostname,serial,uuid,macs,metadata.site,metadata.rack\n".to_owned();
    for n in 1..=hosts {
        let [a, b, c, d] = n.to_be_bytes();
        writeln!(
            text,
            "node{n},SN{n:06},{n:08x}-1234-4abc-8def-00163e{:06x},52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x},fra{},{}",
            n & 0xff_ffff,
            n % 7,
            n % 40
        )?;
    }
    Ok(text)
}
