//! A real server over a folder of its own for a benchmark, the real command line against it, and invented hosts.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The image that hosts install.
pub(crate) const IMAGE: &str = "image1";
/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(crate) struct Server {
    program: PathBuf,
    /// Its working directory, emptied first.
    pub(crate) folder: PathBuf,
    /// Where machines ask, as `127.0.0.1:5000`.
    pub(crate) address: String,
    child: Child,
}

impl Server {
    /// Starts a server that knows no host, and an image that writes a disk.
    pub(crate) fn start(program: &Path, name: &str) -> Result<Self> {
        // Beside the program, which is on a disk; the folder for temporary files often is not.
        let folder = program.with_file_name(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        make_image(&folder.join("images").join(IMAGE))
            .with_context(|| format!("cannot make an image in {}", folder.display()))?;
        let log = File::create(folder.join("server.log"))?;
        let child = Command::new(program)
            .current_dir(&folder)
            .args(["serve", "--data-dir", "data", "--init", "--listen", "127.0.0.1:0", "--images-dir", "images"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the server")?;
        let mut server = Self { program: program.to_owned(), folder, address: String::new(), child };
        server.address = server.greeting()?;
        Ok(server)
    }

    /// Waits until it says where it answers.
    fn greeting(&self) -> Result<String> {
        let started = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.join("server.log"))?;
            let said = log.split_once("answers machines at http://").and_then(|(_, rest)| rest.split_once('/'));
            if let Some((address, _)) = said {
                return Ok(address.to_owned());
            }
            let where_to_look = self.folder.display();
            ensure!(started.elapsed() < PATIENCE, "the server did not start: see server.log in {where_to_look}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a command of the command line, and returns how long it took. What it prints is in the file `out`.
    pub(crate) fn timed(&self, words: &[&str]) -> Result<Duration> {
        let begun = Instant::now();
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).args(["--server", "unix:data/admin.sock"]).args(words);
        let (out, err) = (File::create(self.folder.join("out"))?, File::create(self.folder.join("err"))?);
        let status = command.stdin(Stdio::null()).stdout(out).stderr(err).status()?;
        let took = begun.elapsed();
        let said = fs::read_to_string(self.folder.join("err"))?;
        ensure!(status.success(), "kiwispray {} failed: {}", words.join(" "), said.trim());
        Ok(took)
    }

    /// Takes over that many hosts by `kiwispray migrate`, and returns how long it took.
    pub(crate) fn migrate(&self, hosts: u32, state: fn(u32) -> &'static str) -> Result<Duration> {
        let original = self.folder.join("original");
        fs::create_dir_all(&original)?;
        fs::write(original.join("known_hosts.json"), known_hosts(hosts, state)?)?;
        self.timed(&["migrate", "--from", "original", "--yes"])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which its clients tell better.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn make_image(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let manifest =
        "kind = \"linux\"\nkernel = \"vmlinuz\"\ninitrd = \"initrd\"\nwrites = \"disk\"\ndevice = \"first\"\n";
    fs::write(folder.join("image.toml"), manifest)?;
    fs::write(folder.join("vmlinuz"), "kernel")?;
    fs::write(folder.join("initrd"), "initrd")?;
    Ok(())
}

/// The hosts of an original KIWIspray, as it writes them.
fn known_hosts(hosts: u32, state: fn(u32) -> &'static str) -> Result<String> {
    let mut text = String::from("[");
    for n in 1..=hosts {
        let separator = if n == 1 { "" } else { "," };
        write!(
            text,
            "{separator}\n{{\"id\": {n}, \"hostname\": \"node{n}\", \"state\": \"{}\", \"serial\": \"{}\", \"uuid\": \"{}\", \
             \"macs\": \"{}\", \"bootid\": \"\", \"metadata\": {{\"site\": \"fra{}\", \"rack\": \"{}\"}}}}",
            state(n),
            serial(n),
            uuid(n),
            mac(n),
            n % 7,
            n % 40
        )?;
    }
    text.push_str("\n]\n");
    Ok(text)
}

/// The path and query with which iPXE asks on a host.
pub(crate) fn question(n: u32) -> String {
    let (mac, serial, uuid) = (mac(n), serial(n), uuid(n));
    format!(
        "/bootstrap?net0={mac}&dhcp_mac={mac}&serial={serial}&uuid={uuid}&manufacturer=Example&product=R640&platform=efi"
    )
}

fn serial(n: u32) -> String {
    format!("SN{n:06}")
}

pub(crate) fn uuid(n: u32) -> String {
    format!("{n:08x}-1234-4abc-8def-00163e{:06x}", n & 0xff_ffff)
}

pub(crate) fn mac(n: u32) -> String {
    let [a, b, c, d] = n.to_be_bytes();
    format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
