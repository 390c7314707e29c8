//! Requests that nobody should send: one clear refusal each, and everybody else is served.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use crate::support::site::payload;
use crate::support::{Machine, Server, Site};

fn list(server: &Server) -> usize {
    server.json(&["host", "list"]).as_array().unwrap().len()
}

#[test]
fn parameters_that_make_no_sense_are_ignored_and_named() {
    let server = Site::new().serve();
    let long = "x".repeat(5_000);
    let good = "net0=52-54-00-00-00-01";
    for more in [
        "serial=".to_owned(),
        format!("serial={long}"),
        format!("product={long}"),
        "serial=%ff%fe".to_owned(),
        "serial=A%0aB&product=a%00b".to_owned(),
        "%ff=1&=&&&=x&serial".to_owned(),
        "net1=52-54-00-00-00&net2=zz&dhcp_mac=%00".to_owned(),
        "x=1&".repeat(2_000),
        "serial=%2".to_owned(),
        "hostname=%24%7bx%7d&waited=99999999999999999999&waited=-1".to_owned(),
    ] {
        let response = server.get(&format!("/bootstrap?{good}&{more}")).expect(200);
        assert_eq!(response.header("x-kiwispray-outcome"), Some("hold"), "{more}");
    }
    assert_eq!(list(&server), 1);
}

#[test]
fn of_repeated_parameters_the_first_counts() {
    let server = Site::new().serve();
    let path = "/bootstrap?net0=52-54-00-00-00-01&serial=FIRST&serial=SECOND&net0=52-54-00-00-00-02";
    server.get(path).expect(200);
    let host = server.host(1);
    assert_eq!((&host["serial"], &host["macs"]), (&"FIRST".into(), &serde_json::json!(["52:54:00:00:00:01"])));
    let ignored = server.json(&["host", "explain", "1"])["ignored"].clone();
    assert_eq!(ignored.as_array().unwrap().len(), 2, "{ignored}");
}

#[test]
fn what_is_no_http_is_answered_by_a_refusal_or_not_at_all() {
    let server = Site::new().serve();
    let long = format!("GET /bootstrap?x={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    let headers = format!("GET /hosts HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1_000_000));
    let many = format!("GET /hosts HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    for bytes in [
        &b"\r\n\r\n\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G\0T / HTTP/1.1\r\n\r\n",
        b"GET /bootstrap HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /finish HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /update HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET \xff\xfe HTTP/1.1\r\n\r\n",
        long.as_bytes(),
        headers.as_bytes(),
        many.as_bytes(),
    ] {
        let begin = Instant::now();
        let mut stream = server.http().connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{:?}",
            String::from_utf8_lossy(&bytes[..20.min(bytes.len())])
        );
    }
    server.get("/bootstrap.ipxe").expect(200);
}

#[test]
fn http_1_0_is_spoken() {
    let server = Site::new().serve();
    let response = server.http().send(b"GET /bootstrap?net0=52-54-00-00-00-01 HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((response.status, response.header("x-kiwispray-outcome")), (200, Some("hold")));
}

#[test]
fn a_body_of_ten_megabytes_changes_no_answer_but_that_of_update() {
    let server = Site::new().linux("discover", "writes = \"nothing\"").serve();
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("discover", 1);
    let boot = machine.boots(&server);
    let body = vec![b'x'; 10 << 20];
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let update = server.http().request("POST", &boot.call("update"), &form, &body).expect(413);
    assert_eq!(update.text(), "the inventory is too large\n");
    assert_eq!(
        server.http().request("GET", &machine.request(), &[], &body).expect(200).header("x-kiwispray-host"),
        Some("1")
    );
    server.http().request("POST", "/bootstrap", &[], &body).expect(405);
    server.http().request("POST", "/finish?id=1&bootid=x", &[], &body).expect(401);
    let boot = machine.boots(&server);
    server.http().request("POST", &boot.call("finish"), &[], &body).expect(200);
    assert_eq!(server.states(1), "finished");
}

#[test]
fn slow_clients_are_cut_off_and_hold_up_nobody() {
    let server = Site::new().config("[boot]\nheader_timeout_s = 1\nidle_timeout_s = 2\n").kiwi("image1").serve();
    let silent: Vec<_> = (0..100).map(|_| server.http().connect()).collect();
    let mut trickle = server.http().connect();
    let begin = Instant::now();
    trickle.write_all(b"GET /bootstrap HTTP/1.1\r\nX: ").unwrap();
    let mut sent = 0;
    while begin.elapsed() < Duration::from_secs(20) && trickle.write_all(b"y").is_ok() {
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
        let asked = Instant::now();
        Machine::new(1).boot(&server);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    assert!(sent > 3 && begin.elapsed() < Duration::from_secs(8), "{sent} bytes in {:?}", begin.elapsed());
    for mut stream in silent {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let server = Site::new().config("[boot]\nidle_timeout_s = 1\n").kiwi("image1").serve();
    std::fs::File::create(server.site.path("images/image1/image1.xz")).unwrap().set_len(64 << 20).unwrap();
    let mut stream = server.http().begin("/images/image1/image1.xz", 1);
    std::thread::sleep(Duration::from_secs(3));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20, "{}", rest.len());
}

#[test]
fn a_machine_that_reads_slowly_gets_the_whole_file() {
    const FILE_BYTES: usize = 32 << 20;
    let server = Site::new().config("[boot]\nidle_timeout_s = 1\n").kiwi("image1").serve();
    let file = std::fs::File::create(server.site.path("images/image1/image1.xz")).unwrap();
    file.set_len(FILE_BYTES as u64).unwrap();
    let mut stream = server.http().begin("/images/image1/image1.xz", 1);
    let begin = Instant::now();
    let (mut got, mut chunk) = (0, vec![0; 1 << 20]);
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        got += length;
        // It takes four times as long as a connection may be silent, and it never sends a byte.
        if begin.elapsed() < Duration::from_secs(4) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    // What came with the headers was read by `begin`.
    assert!(got + 64 * 1024 >= FILE_BYTES, "{got} bytes after {:?}", begin.elapsed());
    assert!(begin.elapsed() > Duration::from_secs(2), "the client was not slow: {:?}", begin.elapsed());
}

#[test]
fn a_flood_of_unknown_machines_is_held_and_known_ones_are_not() {
    let server = Site::new().config("[limits]\nnew_hosts_per_minute = 20\n").kiwi("image1").serve();
    let known = Machine::new(1);
    known.boot(&server);
    server.deploy("image1", 1);
    let mut held = 0;
    for number in 2..=300 {
        let boot = Machine::new(number).boot(&server);
        if boot.host.is_none() {
            assert!(boot.script.contains("limits.new_hosts_per_minute"), "{}", boot.script);
            held += 1;
        }
    }
    assert!(held > 200, "{held}");
    assert!(list(&server) < 100);
    known.boots(&server).install(&server);
    known.boots_its_disk(&server);
}

#[test]
fn ten_thousand_unknown_machines_in_a_moment_fill_nothing() {
    const CONNECTIONS: u32 = 8;
    let server = Site::new().config("").kiwi("image1").serve();
    Machine::new(1).installed(&server, "image1");
    let begin = Instant::now();
    let held: usize = std::thread::scope(|scope| {
        let flood = |first: u32| {
            let mut stream = server.http().connect();
            let mut writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                let last = first + 10_000 / CONNECTIONS;
                for number in first..last {
                    let close = if number + 1 == last { "Connection: close\r\n" } else { "" };
                    let path = Machine::new(number).request();
                    writer.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n").as_bytes()).unwrap();
                }
            });
            let mut answers = String::new();
            stream.read_to_string(&mut answers).unwrap();
            writing.join().unwrap();
            answers.matches("x-kiwispray-outcome: hold").count()
        };
        let floods: Vec<_> = (0..CONNECTIONS).map(|n| scope.spawn(move || flood(1_000 + n * 5_000))).collect();
        Machine::new(1).boots_its_disk(&server);
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    });
    assert_eq!(held, 10_000);
    let minutes = 1 + usize::try_from(begin.elapsed().as_secs() / 60).unwrap();
    assert!(list(&server) <= 62 + 60 * minutes, "{}", list(&server));
    Machine::new(1).boots_its_disk(&server);
}

#[test]
fn nothing_outside_the_images_is_served() {
    let server = Site::new().kiwi("image1").serve();
    std::fs::create_dir(server.site.path("images/image1/sub")).unwrap();
    server.site.file("image1/sub", "x", "");
    let machine = Machine::new(1);
    machine.boot(&server);
    server.deploy("image1", 1);
    let boot = machine.boots(&server);
    let image = server.site.path("images/image1");
    std::fs::write(server.site.path("secret"), "SECRET").unwrap();
    symlink(server.site.path("secret"), image.join("link")).unwrap();
    symlink("../../secret", image.join("relative")).unwrap();
    symlink(server.site.root(), image.join("folder")).unwrap();
    symlink(&image, server.site.path("images/alias")).unwrap();
    let secret = server.site.path("secret").display().to_string();
    let bootid = boot.bootid();
    for prefix in ["/images/image1/", &format!("/b/{bootid}/")] {
        for file in [
            "../../secret",
            "%2e%2e/%2e%2e/secret",
            "%2e%2e%2f%2e%2e%2fsecret",
            "..%5c..%5csecret",
            "..%252f..%252fsecret",
            "....//....//secret",
            "..;/secret",
            "%c0%ae%c0%ae/secret",
            "link",
            "relative",
            "folder",
            "folder/secret",
            "sub",
            "sub/x",
            ".",
            "..",
            "%00",
            "image1.xz%00.txt",
            "./image1.xz",
            "/image1.xz",
            "image1.xz/",
            &secret,
            &secret.replace('/', "%2f"),
        ] {
            let path = format!("{prefix}{file}");
            let response = server.get(&path).expect(404);
            assert!(!response.text().contains("SECRET"), "{path}");
            server.http().head(&path).expect(404);
        }
    }
    for path in [
        "/images/../secret",
        "/images/%2e%2e/secret",
        "/images/..%5csecret",
        "/images//etc/passwd",
        "/images/%2fetc/passwd",
        "/images/alias/image1.xz",
        "/images/image1/../../data/store/db",
        "/../secret",
        "/b/../secret",
        "/b/%2e%2e/secret",
    ] {
        server.get(path).expect(404);
    }
    assert_eq!(server.get(boot.payload()).expect(200).body, payload("image1"));
}
