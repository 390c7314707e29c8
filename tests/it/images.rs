//! What people do to images while machines and the store depend on them.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Machine, Server, Site};

/// Imports a kernel as the image `tool`.
fn bring(server: &Server, more: &[&str]) -> crate::support::Run {
    std::fs::write(server.site.path("vmlinuz"), "a new kernel").unwrap();
    server.cli(&[&["image", "import", "tool", "--kernel", "vmlinuz"], more].concat())
}

#[test]
fn replacing_a_harmless_image_orders_nothing_for_hosts_that_were_given_it() {
    let wiping = ["--writes", "wipe", "--device", "all", "--replace"];
    let server = Site::new().linux("tool", "writes = \"nothing\"").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("tool", 1);
    bring(&server, &wiping).refused(4, "host 1 has tool in the queue, and nobody ordered that a disk of it be written");
    assert!(!machine.boots(&server).script.contains("kiwispray.device"));
    // One that writes nothing either may come, and the wiping one when nobody waits for it any more.
    bring(&server, &["--writes", "nothing", "--replace"]).done();
    server.cli(&["host", "set", "1", "--state", "new", "--abort", "--yes"]).done();
    bring(&server, &wiping).done();
    // From now on it is an order, and a better one may take its place.
    server.deploy("tool", 1);
    bring(&server, &wiping).done();
    assert_eq!(machine.boots(&server).argument("kiwispray.device"), "all");
}

/// Begins to replace `tool` by what wipes, and returns when half of it is there.
fn half_an_upload(server: &Server) -> UnixStream {
    let mut upload = UnixStream::connect(server.site.path("data/admin.sock")).unwrap();
    let query = "kernel=vmlinuz&kernel_bytes=6&writes=wipe&device=all&replace=true";
    let headers = "Host: x\r\nConnection: close\r\nContent-Length: 6\r\n\r\nker";
    upload.write_all(format!("PUT /api/v1/images/tool?{query} HTTP/1.1\r\n{headers}").as_bytes()).unwrap();
    while folders(server).len() == 1 {
        sleep(Duration::from_millis(20));
    }
    upload
}

/// What is in the images folder, imports under way among it.
fn folders(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir(server.site.path("images")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_host_that_is_given_a_harmless_image_while_a_wiping_one_is_on_its_way_is_not_wiped() {
    let server = Site::new().linux("tool", "writes = \"nothing\"").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    let mut upload = half_an_upload(&server);
    server.deploy("tool", 1);
    upload.write_all(b"nel").unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("nobody ordered"), "{answer}");
    assert!(!machine.boots(&server).script.contains("kiwispray.device"));
    assert_eq!(folders(&server), ["tool"]);
}

#[test]
fn an_import_that_breaks_off_with_its_client_or_its_server_leaves_the_old_image_and_nothing_else() {
    let mut server = Site::new().linux("tool", "writes = \"nothing\"").serve();
    drop(half_an_upload(&server));
    let begin = Instant::now();
    while folders(&server).len() > 1 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", folders(&server));
        sleep(Duration::from_millis(20));
    }
    let upload = half_an_upload(&server);
    bring(&server, &["--writes", "nothing", "--replace"]).refused(4, "another image is being imported");
    server.crash_and_restart();
    drop(upload);
    assert_eq!(folders(&server), ["tool"]);
    assert_eq!(server.get("/images/tool/vmlinuz").expect(200).text(), "a kernel");
    bring(&server, &["--writes", "nothing", "--replace"]).done();
}

#[test]
fn neither_does_an_image_in_the_place_of_a_harmless_template() {
    let menu = "{{!--\nWrites: nothing\n--}}\n#!ipxe\nchain http://example.com/menu ||\nexit 1\n";
    let server = Site::new().template("tool.ipxe.hbs", menu).serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("tool", 1);
    bring(&server, &["--writes", "disk", "--device", "first"]).refused(4, "host 1 has tool in the queue");
    assert!(machine.boots(&server).script.contains("/menu"));
}

#[test]
fn no_import_takes_the_space_that_the_store_needs() {
    let mut server = Site::new().serve();
    bring(&server, &["--writes", "nothing"]).done();
    // No disk has that much to spare.
    let configuration = server.site.path("kiwispray.toml");
    let text = std::fs::read_to_string(&configuration).unwrap();
    std::fs::write(&configuration, text.replace("floor_mb = 0", "floor_mb = 1048576")).unwrap();
    server.terminate();
    server.restart();
    bring(&server, &["--writes", "nothing", "--replace"])
        .refused(1, "and only 0 can be used on the disk of the images");
    assert_eq!(server.get("/images/tool/vmlinuz").expect(200).text(), "a new kernel");
}
