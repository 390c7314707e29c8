//! Firmware of every kind, against the dnsmasq configuration that kiwispray generates and a web server of a few lines.
//!
//! This is about DHCP, TFTP and iPXE only: which file is offered, that iPXE is recognised, and that proxy mode works
//! next to another DHCP server. The server itself is the business of the other scenarios.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kiwispray::dnsmasq::{Account, Child, Config, Interface, IpxeFiles, Mode, Wish, decide, probe};

use crate::machine::{Firmware, Identity, Machine};
use crate::net::Bridge;

const PATIENCE: Duration = Duration::from_secs(180);
const SCRIPT: &str = "#!ipxe\necho e2e: script of ${net0/ip} platform ${platform} arch ${buildarch}\nsleep 600\n";

pub(crate) fn run(dir: &Path, watch: bool) -> Result<u32> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;

    // Two switches: on the first dnsmasq serves addresses, on the second it is a proxy beside another dnsmasq.
    let full = Bridge::new("e2e0", Bridge::ADDRESS)?;
    let proxied = Bridge::new("e2e1", Ipv4Addr::new(192, 168, 43, 1))?;
    let full_if = Interface::find(full.name())?;
    let proxied_if = Interface::find(proxied.name())?;

    let seen = probe(&full_if, 0x6b69_7769)?;
    ensure!(seen.is_empty(), "there is a DHCP server on a new network: {seen:?}");
    ensure!(decide(Wish::Unstated, &full_if, &seen).is_err(), "a lonely network was not refused");
    let range = full_if.suggested_range();
    let _full = start(&runtime, dir, &full_if, Mode::Full(range))?;
    serve(full_if.address(), IpxeFiles::find(None))?;

    let _other = other_dhcp_server(&proxied, dir)?;
    let seen = probe(&proxied_if, 0x6b69_7769)?;
    ensure!(seen.len() == 1, "the other DHCP server was not seen: {seen:?}");
    let decision = decide(Wish::Unstated, &proxied_if, &seen)?;
    ensure!(decision.mode == Mode::Proxy, "another server was seen, but the mode is {:?}", decision.mode);
    let _proxy = start(&runtime, dir, &proxied_if, decision.mode)?;
    serve(proxied_if.address(), IpxeFiles::find(None))?;
    println!("ok: the look for other DHCP servers");

    let cases = [
        ("bios", Firmware::Bios, &full, "platform pcbios"),
        ("uefi", Firmware::Uefi, &full, "platform efi"),
        ("http", Firmware::UefiHttp, &full, "platform efi"),
        ("rom", Firmware::BiosRom, &full, "platform pcbios"),
        ("pbios", Firmware::Bios, &proxied, "platform pcbios"),
        ("puefi", Firmware::Uefi, &proxied, "platform efi"),
    ];
    let mut passed = 1;
    for pair in cases.chunks(2) {
        let mut machines = Vec::new();
        for (name, firmware, bridge, expected) in pair {
            let number = u8::try_from(machines.len())? + 1;
            let identity = Identity::new(name, number);
            let mut machine = Machine::new(dir, identity, *firmware, 16, bridge, watch)?;
            machine.power_on()?;
            machines.push((machine, *expected));
        }
        for (machine, expected) in &machines {
            machine.console.wait_for("e2e: script of 192.168.4", PATIENCE)?;
            machine.console.wait_for(expected, Duration::from_secs(5))?;
            println!("ok: {}", machine.identity.name);
            passed += 1;
        }
    }
    Ok(passed)
}

fn start(runtime: &tokio::runtime::Runtime, dir: &Path, interface: &Interface, mode: Mode) -> Result<Child> {
    let data_dir = dir.join(format!("data-{}", interface.name()));
    fs::create_dir(&data_dir)?;
    let config = Config {
        interface: interface.clone(),
        mode,
        public_url: format!("http://{}:5000", interface.address()),
        ipxe: IpxeFiles::find(None),
        data_dir,
        account: Account::of_this_process(),
    };
    Ok(runtime.block_on(Child::start(&config))?)
}

/// The DHCP server of the house, which knows nothing of booting. It has an address of its own on the switch.
fn other_dhcp_server(bridge: &Bridge, dir: &Path) -> Result<Guard> {
    crate::net::run("ip", &["link", "add", "house", "type", "veth", "peer", "name", "house-port"])?;
    crate::net::run("ip", &["link", "set", "house-port", "master", bridge.name(), "up"])?;
    // A network namespace of its own, as two servers on one machine would share the port.
    let mut namespace = std::process::Command::new("unshare");
    namespace.args(["--net", "--", "sh", "-c"]).arg(
        "echo ready; read go
         ip link set lo up; ip address add 192.168.43.2/24 dev house; ip link set house up
         exec /usr/sbin/dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=house --bind-interfaces \
              --user=root --group= --dhcp-range=192.168.43.50,192.168.43.99 --dhcp-leasefile=\"$0\" 2>/dev/null",
    );
    namespace.arg(dir.join("house.leases")).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = namespace.spawn()?;
    let mut ready = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut ready)?;
    crate::net::run("ip", &["link", "set", "house", "netns", &child.id().to_string()])?;
    child.stdin.take().context("no input")?.write_all(b"go\n")?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(Guard(child))
}

struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers with a script, or with an iPXE binary where one is asked for.
fn serve(address: Ipv4Addr, ipxe: IpxeFiles) -> Result<()> {
    let listener = TcpListener::bind((address, 5000))?;
    let dir = ipxe.directory.context("no iPXE (package ipxe)")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let dir = dir.clone();
            std::thread::spawn(move || answer(stream, dir));
        }
    });
    Ok(())
}

fn answer(stream: TcpStream, dir: PathBuf) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("no request")??;
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let body = match path.strip_prefix("/ipxe/") {
        Some(file) => fs::read(dir.join(file))?,
        None => SCRIPT.as_bytes().to_vec(),
    };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    if !request.starts_with("HEAD ") {
        stream.write_all(&body)?;
    }
    Ok(())
}
