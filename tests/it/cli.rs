//! The command line against a running server: the real binary at both ends of a real socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A server of its own, in a folder of its own; killed when it goes out of scope.
struct Server {
    folder: tempfile::TempDir,
    process: Child,
    address: SocketAddr,
}

/// What a command left behind.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = kiwispray(folder.path())
            .args(["serve", "--data-dir", "data", "--init", "--images-dir", "images", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It greets when both planes listen.
        let mut greeting = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        let address = greeting.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        let address = address.parse().unwrap();
        let server = Self { folder, process, address };
        server.image("web", "disk\"\ndevice = \"first");
        server.image("live", "nothing");
        server
    }

    fn image(&self, name: &str, writes: &str) {
        let folder = self.folder.path().join("images").join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("vmlinuz"), "kernel").unwrap();
        let manifest = format!("kind = \"linux\"\nkernel = \"vmlinuz\"\nwrites = \"{writes}\"\n");
        std::fs::write(folder.join("image.toml"), manifest).unwrap();
    }

    fn run(&self, args: &[&str]) -> Ran {
        let output = kiwispray(self.folder.path()).args(args).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        ran.out
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], args].concat())).unwrap()
    }

    fn add(&self, name: &str, number: u8) {
        let (serial, mac) = (format!("SN-{number}"), format!("52:54:00:00:00:{number:02x}"));
        self.ok(&["host", "add", "--serial", &serial, "--mac", &mac, "-n", name]);
    }

    /// What a machine gets.
    fn get(&self, path: &str) -> String {
        String::from_utf8(self.get_bytes(path)).unwrap()
    }

    fn get_bytes(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kiwispray(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiwispray"));
    command.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

#[test]
fn without_a_server_everything_that_was_tried_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = kiwispray(folder.path()).args(["--server", "unix:none.sock", "host", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8(output.stderr).unwrap().contains("none.sock: there is no such socket"));
}

#[test]
fn an_order_is_confirmed_told_and_taken_back_by_its_own_words() {
    let server = Server::start();
    server.add("node1", 1);
    let unconfirmed = server.run(&["deploy", "web", "node1"]);
    assert_eq!(unconfirmed.code, 2);
    let asked = "node1 (host 1), serial SN-1, last seen never, now new\n    erases its first disk (by web)";
    assert!(unconfirmed.err.contains(asked), "{}", unconfirmed.err);
    assert!(unconfirmed.err.contains("say --yes"), "{}", unconfirmed.err);
    assert_eq!(server.json(&["host", "show", "1"])[0]["state"], "new");

    let told = server.ok(&["deploy", "web", "node1", "--yes", "--expect-serial", "sn-1"]);
    assert!(told.contains("states: new -> web (waits)"), "{told}");
    let undo = told.split("undo: kiwispray ").nth(1).unwrap().trim();
    server.ok(&undo.split(' ').collect::<Vec<_>>());
    assert_eq!(server.json(&["host", "show", "1"])[0]["state"], "new");
    // Nothing dies by this one, so nobody is asked.
    server.ok(&["deploy", "live", "SN-1"]);
}

#[test]
fn exit_codes_tell_what_kind_of_no_it_was() {
    let server = Server::start();
    server.add("node1", 1);
    server.add("node2", 2);
    server.ok(&["host", "finish", "1"]);
    let refused = |args: &[&str], code: i32, sentence: &str| {
        let ran = server.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(sentence), "{args:?}: {}", ran.err);
    };
    refused(&["host", "show", "nodde1"], 3, "is node1 meant?");
    refused(&["host", "show", "--where", "state=live"], 3, "no host has state=live");
    refused(&["deploy", "wbe", "2", "-y"], 3, "is web meant?");
    refused(&["deploy", "web", "1", "-y"], 4, "say so with --reinstall");
    refused(&["deploy", "web", "2", "-y", "--expect-serial", "SN-1"], 4, "not serial number SN-1");
    refused(&["host", "retry", "2"], 4, "nothing to try again");
    refused(&["host", "set", "2", "-n", "node1"], 4, "host 1 is called node1 already");
    refused(&["host", "list", "--where", "colour=red"], 2, "no field \"colour\"");
    refused(&["host", "set", "2", "-s", "live,new,live"], 2, "only at the end");
    refused(&["host", "forget", "1-2"], 2, "say --yes");
    // One of them cannot, so none of them does.
    refused(&["deploy", "web", "1-2", "-y"], 4, "--reinstall");
    assert_eq!(server.json(&["host", "show", "2"])[0]["state"], "new");
}

#[test]
fn what_a_machine_does_is_seen_and_explained() {
    let server = Server::start();
    let answer = server.get("/bootstrap?net0=52:54:00:00:00:07&serial=Default%20string&product=R640");
    assert!(answer.contains("#!ipxe"), "{answer}");
    let table = server.ok(&["host", "list"]);
    assert!(table.lines().nth(1).unwrap().contains("52:54:00:00:00:07"), "{table}");
    let explained = server.ok(&["host", "explain", "52-54-00-00-00-07"]);
    assert!(explained.contains("ignored    serial: a filler"), "{explained}");
    server.ok(&["deploy", "web", "1", "-y"]);
    assert_eq!(server.ok(&["host", "plan", "1"]), "host 1: boot image web\n");
    let script = server.ok(&["host", "plan", "1", "--script"]);
    assert!(script.starts_with("#!ipxe\n"), "{script}");
    let kinds: Vec<Value> = server.json(&["host", "events", "1"]).as_array().unwrap().clone();
    assert_eq!(kinds.iter().map(|event| &event["kind"]).collect::<Vec<_>>(), ["registered", "states_set"]);
    assert!(kinds[1]["actor"].as_str().unwrap().starts_with("operator "));
}

#[test]
fn events_are_followed_as_they_happen() {
    let server = Server::start();
    server.add("node1", 1);
    server.add("node2", 2);
    let mut follower = kiwispray(server.folder.path())
        .args(["--json", "host", "events", "-f", "node2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["kind"], "registered");
    server.ok(&["host", "set", "1-2", "-m", "{\"rack\":7}"]);
    let event = next();
    assert_eq!((&event["host"], &event["kind"]), (&Value::from(2), &Value::from("metadata_set")));
    server.ok(&["host", "forget", "2", "-y"]);
    assert_eq!(next()["kind"], "forgotten");
    follower.kill().unwrap();
    follower.wait().unwrap();
    let kinds = server.json(&["host", "events", "2"]);
    assert_eq!(kinds.as_array().unwrap().len(), 3);
}

#[test]
fn an_image_is_imported_deployed_and_removed() {
    let server = Server::start();
    server.add("node1", 1);
    let archive = server.folder.path().join("B.install.tar");
    std::fs::write(&archive, kiwi_archive()).unwrap();
    let archive = archive.to_str().unwrap();
    assert_eq!(server.run(&["image", "import", "suse", archive]).code, 2);
    let told = server.ok(&["image", "import", "suse", archive, "--device", "/dev/vda", "--append", "quiet"]);
    assert!(told.contains("loses what is on /dev/vda"), "{told}");
    let again = server.run(&["image", "import", "suse", archive, "--device", "first"]);
    assert_eq!((again.code, again.err.contains("suse already")), (4, true), "{}", again.err);
    assert!(server.ok(&["image", "import", "suse", archive, "--device", "first", "--replace"]).contains("replaced"));
    assert_eq!(server.json(&["image", "show", "suse"])["device"], "first");
    assert!(server.ok(&["image", "list"]).contains("suse"));
    server.ok(&["deploy", "suse", "node1", "-y"]);
    let used = server.run(&["image", "remove", "suse", "-y"]);
    assert_eq!((used.code, used.err.contains("host 1 has suse in the queue")), (4, true), "{}", used.err);
    server.ok(&["host", "set", "1", "-s", "new"]);
    server.ok(&["image", "remove", "suse", "-y"]);
    assert_eq!(server.run(&["image", "show", "suse"]).code, 3);
}

#[test]
fn a_refused_archive_is_answered_however_large_it_is() {
    let server = Server::start();
    let archive = server.folder.path().join("rubbish.tar");
    std::fs::write(&archive, vec![0x55; 32 << 20]).unwrap();
    let archive = archive.to_str().unwrap();
    let refused = server.run(&["image", "import", "suse", archive, "--device", "first"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    let refused = server.run(&["image", "import", "suse", archive, "--device", "sda"]);
    assert!(refused.err.contains("names no disk"), "{}", refused.err);
    assert_eq!(server.run(&["image", "import", "suse", "none.tar", "--device", "first"]).code, 1);
}

#[test]
fn programs_are_answered_by_problems_with_stable_codes() {
    let server = Server::start();
    server.add("node1", 1);
    let code = |request: &str, headers: &str, body: &str| {
        let mut stream = UnixStream::connect(server.folder.path().join("data/admin.sock")).unwrap();
        let length = body.len();
        write!(stream, "{request} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("application/problem+json"), "{head}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"].to_string(), head.split(' ').nth(1).unwrap());
        problem["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code("GET /api/v1/nope", "", ""), "no_route");
    assert_eq!(code("POST /api/v1/status", "", ""), "no_method");
    assert_eq!(code("GET /api/v1/hosts/9", "", ""), "host_not_found");
    assert_eq!(code("GET /api/v1/hosts?hsot=1", "", ""), "bad_request");
    assert_eq!(code("GET /api/v1/hosts/1/explain", "", ""), "not_seen");
    assert_eq!(code("PATCH /api/v1/hosts/1", "If-Match: \"7\"\r\n", "{}"), "host_changed");
    assert_eq!(code("PATCH /api/v1/hosts/1", "", "{\"state\":\"web\"}"), "bad_request");
    assert_eq!(code("PATCH /api/v1/hosts/1", "", "{\"states\":[\"$(reboot)\"]}"), "bad_request");
    assert_eq!(code("POST /api/v1/hosts", "", "{\"serial\":\"Default string\"}"), "bad_request");
    assert_eq!(code("POST /api/v1/hosts", "", "{\"serial\":\"sn-1\"}"), "host_known");
    assert_eq!(code("POST /api/v1/hosts", "", "{}"), "no_identity");
    assert_eq!(code("GET /api/v1/hosts/%ff", "", ""), "bad_request");
    assert_eq!(code("POST /api/v1/hosts", "", &" ".repeat((1 << 20) + 1)), "too_large");
    assert_eq!(code("PUT /api/v1/images/x", "", &format!("{}ustar", "\0".repeat(257))), "device_needed");
    assert_eq!(code("PUT /api/v1/images/x?kernel=k&kernel_bytes=1&writes=wipe", "", "k"), "device_needed");
    assert_eq!(code("PUT /api/v1/images/x?kernel=k&kernel_bytes=1", "", "k"), "bad_request");
    assert_eq!(code("PUT /api/v1/images/x?device=first", "", "no archive"), "bad_archive");
    assert_eq!(code("DELETE /api/v1/images/x", "", ""), "image_not_found");
}

/// A small install archive of the shape that KIWI gives it.
fn kiwi_archive() -> Vec<u8> {
    let raw = vec![7; 4096];
    let mut payload = Vec::new();
    liblzma::bufread::XzEncoder::new(raw.as_slice(), 1).read_to_end(&mut payload).unwrap();
    let sum: String = Sha256::digest(&raw).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut archive = tar::Builder::new(Vec::new());
    let mut member = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    member("pxeboot.B.kernel", b"installer kernel");
    member("pxeboot.B.initrd", b"installer initrd");
    member("B.xz", &payload);
    member("B.sha256", format!("{sum} {} 1\n", raw.len()).as_bytes());
    member("B.append", b"rd.kiwi.install.pxe console=ttyS0\n");
    archive.into_inner().unwrap()
}

/// A live ISO as KIWI builds it, but small.
fn live_iso(folder: &Path) -> String {
    let (tree, iso) = (folder.join("tree"), folder.join("rescue-1.0.0.iso"));
    for (path, bytes) in [
        ("LiveOS/squashfs.img", "system"),
        ("boot/x86_64/loader/linux", "kernel of the ISO"),
        ("boot/x86_64/loader/initrd", "initrd of the ISO"),
    ] {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-volid", "CDROM", "-joliet", "on", "-outdev"]).arg(&iso).arg("-map").arg(&tree).arg("/");
    let status = xorriso.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("cargo xtask packages installs xorriso").success());
    iso.to_str().unwrap().to_owned()
}

#[test]
fn a_live_iso_is_imported_and_booted_from_its_own_boots_files() {
    let server = Server::start();
    server.add("node1", 1);
    let iso = live_iso(server.folder.path());
    let refused = server.run(&["image", "import", "rescue", &iso, "--device", "first"]);
    assert_eq!((refused.code, refused.err.contains("leave --device out")), (2, true), "{}", refused.err);
    let told = server.ok(&["image", "import", "rescue", &iso, "--takes-inventory"]);
    assert!(told.contains("any number of times, and keeps its disks"), "{told}");
    server.ok(&["host", "set", "node1", "-s", "rescue"]);
    let script = server.get("/bootstrap?serial=SN-1&net0=52:54:00:00:00:01");
    let files = script.split("root=live:").nth(1).and_then(|rest| rest.split("rescue-1.0.0.iso").next());
    let files = files.unwrap_or_else(|| panic!("{script}"));
    let path = files.strip_prefix(&format!("http://{}", server.address)).unwrap();
    assert!(script.contains(" ip=dhcp ramdisk_size=") && path.starts_with("/b/1-"), "{script}");
    assert!(server.get(&format!("{path}linux")).ends_with("\r\n\r\nkernel of the ISO"));
    assert!(server.get(&format!("{path}initrd")).ends_with("\r\n\r\ninitrd of the ISO"));
    let whole = std::fs::read(&iso).unwrap();
    let served = server.get_bytes(&format!("{path}rescue-1.0.0.iso"));
    assert!(served.ends_with(&whole) && served.starts_with(b"HTTP/1.1 200") | served.starts_with(b"HTTP/1.0 200"));
    // It may boot again, though all of it was delivered.
    assert!(server.get("/bootstrap?serial=SN-1&net0=52:54:00:00:00:01").contains("root=live:"));
}

#[test]
fn a_kernel_and_initrd_are_imported_with_what_they_write() {
    let server = Server::start();
    server.add("node1", 1);
    for (name, bytes) in [("vmlinuz", "kernel"), ("a.img", "one"), ("b.img", "two")] {
        std::fs::write(server.folder.path().join(name), bytes).unwrap();
    }
    let parts = ["image", "import", "tool", "--kernel", "vmlinuz", "--initrd", "a.img", "--initrd", "b.img"];
    let refused = server.run(&parts);
    assert_eq!((refused.code, refused.err.contains("--writes wipe")), (2, true), "{}", refused.err);
    server.ok(&[&parts[..], &["--writes", "wipe", "--device", "/dev/vda", "--append", "quiet"]].concat());
    let image = server.json(&["image", "show", "tool"]);
    assert_eq!(
        (&image["writes"], &image["payload"], &image["device"]),
        (&"wipe".into(), &"a.img".into(), &"/dev/vda".into())
    );
    server.ok(&["deploy", "tool", "node1", "-y"]);
    let script = server.get("/bootstrap?serial=SN-1&net0=52:54:00:00:00:01");
    assert!(script.contains("kiwispray.device=/dev/vda") && script.contains(" quiet"), "{script}");
    let initrd = script.split("initrd --name initrd ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let path = initrd.strip_prefix(&format!("http://{}", server.address)).unwrap();
    assert!(server.get(path).ends_with("\r\n\r\none\0two"));
}

#[test]
fn stored_images_are_verified_until_a_byte_of_one_changes() {
    let server = Server::start();
    let archive = server.folder.path().join("B.install.tar");
    std::fs::write(&archive, kiwi_archive()).unwrap();
    server.ok(&["image", "import", "suse", archive.to_str().unwrap(), "--device", "first"]);
    let told = server.ok(&["image", "verify"]);
    assert!(told.contains("suse: whole (") && told.contains("no sum was recorded of vmlinuz"), "{told}");
    let payload = server.folder.path().join("images/suse/B.xz");
    let mut bytes = std::fs::read(&payload).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&payload, bytes).unwrap();
    let ran = server.run(&["image", "verify"]);
    assert_eq!((ran.code, ran.err.contains("1 of 3 images are not whole")), (1, true), "{}", ran.err);
    assert!(ran.out.contains("suse: not whole: B.xz is not as it was imported"), "{}", ran.out);
    assert_eq!(server.run(&["image", "verify", "live", "web"]).code, 0);
    assert_eq!(server.run(&["image", "verify", "none"]).code, 3);
}
