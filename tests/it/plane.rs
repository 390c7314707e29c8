//! The boot plane, row by row of its table.

use crate::support::site::payload;
use crate::support::{Boot, Machine, Server, Site};

const DISCOVER: &str = "writes = \"nothing\"";
const WRONG: &str = "1-00000000000000000000000000000000";

/// A server with host 1 in this state, booted.
fn booted(site: Site, state: &str) -> (Server, Boot) {
    let server = site.serve();
    let machine = Machine::new(1);
    assert_eq!(machine.boot(&server).host, Some(1));
    server.deploy(state, 1);
    let boot = machine.boots(&server);
    (server, boot)
}

#[test]
fn the_first_script_asks_at_the_address_it_came_from_and_leaves_last() {
    let server = Site::new().serve();
    let script = server.get("/bootstrap.ipxe").expect(200);
    assert_eq!(script.header("cache-control"), Some("no-store"));
    assert!(script.text().starts_with("#!ipxe\n") && script.text().ends_with("\nexit 1\n"));
    assert!(script.text().contains(&format!("http://{}/bootstrap?", server.address)));
    assert_eq!(server.get("/boot.ipxe").expect(200).text(), script.text());
    assert_eq!(server.http().head("/bootstrap.ipxe").expect(200).body, b"");
}

#[test]
fn scripts_name_the_public_url_where_one_is_configured() {
    let site = Site::new().config("public_url = \"http://deploy.example:5000\"").kiwi("image1");
    let (server, boot) = booted(site, "image1");
    assert!(server.get("/bootstrap.ipxe").text().contains("http://deploy.example:5000/bootstrap?"));
    assert!(boot.argument("razorurl").starts_with("http://deploy.example:5000/post-install?"));
}

#[test]
fn bootstrap_answers_head_and_macs_in_any_spelling() {
    let server = Site::new().serve();
    let by_dash = Machine::with(&[("net0", "52-54-00-AB-CD-EF"), ("net1", "")]).boot(&server);
    let by_colon = Machine::with(&[("dhcp_mac", "52:54:00:ab:cd:ef")]);
    assert_eq!(by_colon.boot(&server).host, by_dash.host);
    let head = server.http().head(&by_colon.request()).expect(200);
    assert_eq!((head.header("x-kiwispray-outcome"), head.header("x-kiwispray-host")), (Some("hold"), Some("1")));
    assert_eq!(head.body, b"");
}

#[test]
fn post_install_is_the_images_own_script_or_the_default() {
    let own = "#!/bin/sh\necho {{host.hostname}} {{host.metadata.site}}\ncurl {{calls.finish}}\n";
    let site = Site::new().kiwi("image1").kiwi("image2").with_file("image2", "post_install.sh.hbs", own);
    let (server, boot) = booted(site, "image1");
    let script = server.get(boot.post_install()).expect(200);
    assert_eq!(script.header("cache-control"), Some("no-store"));
    assert_eq!(script.header("content-type"), Some("text/x-shellscript; charset=utf-8"));
    let base = format!("http://{}", server.address);
    assert!(script.text().contains(&format!("finish_url='{base}{}'", boot.call("finish"))), "{}", script.text());

    server.cli(&["host", "set", "1", "-s", "image2", "-n", "node1", "-m", r#"{"site":"fra1"}"#, "--yes"]).done();
    let boot = Machine::new(1).boots(&server);
    let script = server.get(boot.post_install()).expect(200);
    assert_eq!(script.text(), format!("#!/bin/sh\necho 'node1' 'fra1'\ncurl '{base}{}'\n", boot.call("finish")));
}

#[test]
fn post_install_refuses_strangers() {
    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    server.get("/post-install").expect(404);
    server.get("/post-install?id=&bootid=").expect(404);
    server.get("/post-install?id=seven&bootid=x").expect(404);
    server.get(&format!("/post-install?id=2&bootid={}", boot.bootid())).expect(404);
    server.get("/post-install?id=1").expect(401);
    server.get(&format!("/post-install?id=1&bootid={WRONG}")).expect(401);
    server.get(boot.post_install()).expect(200);
}

#[test]
fn a_broken_post_install_template_means_try_again() {
    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    server.site.file("image1", "post_install.sh.hbs", "echo {{host.nosuch}}\n");
    let refusal = server.get(boot.post_install()).expect(503);
    assert!(refusal.header("retry-after").is_some());
    assert!(!refusal.text().contains("nosuch"), "no internals: {}", refusal.text());
    server.site.file("image1", "post_install.sh.hbs", "echo {{host.id}}\n");
    assert_eq!(server.get(boot.post_install()).expect(200).text(), "echo '1'\n");
}

#[test]
fn finish_and_fail_refuse_strangers_and_take_get_and_post() {
    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    for call in ["finish", "fail"] {
        for path in [
            format!("/{call}"),
            format!("/{call}?id=1"),
            format!("/{call}?id=1&bootid={WRONG}"),
            format!("/{call}?id=1&bootid=rubbish"),
            format!("/{call}?id=2&bootid={}", boot.bootid()),
            format!("/{call}?id=99999999999999999999&bootid={}", boot.bootid()),
        ] {
            server.get(&path).expect(401);
            assert_eq!(server.http().post(&path, "").expect(401).header("cache-control"), Some("no-store"));
        }
    }
    assert_eq!(server.states(1), "image1");
    server.http().post(&boot.call("finish"), "").expect(200);
    server.get(&boot.call("finish")).expect(200);
    server.http().post(&boot.call("finish"), "").expect(200);
    server.get(&boot.call("fail")).expect(409);
    assert_eq!((server.states(1).as_str(), server.count(1, "finished")), ("finished", 1));
}

#[test]
fn state_needs_the_bootid_of_the_current_or_just_finished_boot() {
    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    server.get("/state").expect(404);
    server.get("/state?id=9").expect(404);
    server.get("/state?id=1").expect(401);
    server.get(&format!("/state?id=1&bootid={WRONG}")).expect(401);
    let state = server.get(&boot.call("state")).expect(200);
    assert_eq!((state.text(), state.header("cache-control")), ("image1\n", Some("no-store")));
    server.get(&boot.call("finish")).expect(200);
    assert_eq!(server.get(&boot.call("state")).expect(200).text(), "finished\n");
}

#[test]
fn state_and_hosts_are_open_only_where_the_configuration_opens_them() {
    let server = Site::new().serve();
    assert!(server.get("/hosts").expect(403).text().contains("boot.open_hosts"));

    let server = Site::new().config("[boot]\nopen_state = true\nopen_hosts = true\n").serve();
    assert_eq!(server.get("/hosts").expect(200).text(), "#Id Hostname State Serial#\n");
    Machine::new(1).boot(&server);
    Machine::new(2).boot(&server);
    server.cli(&["host", "set", "2", "-n", "node2"]).done();
    assert_eq!(server.get("/state?id=1").expect(200).text(), "new\n");
    server.get("/state?id=3").expect(404);
    let table = server.get("/hosts").expect(200);
    assert_eq!(table.header("cache-control"), Some("no-store"));
    assert_eq!(table.text(), "#Id Hostname State Serial#\n1 - new SN00001\n2 node2 new SN00002\n");
}

#[test]
fn an_inventory_is_taken_while_the_state_asks_for_one() {
    let (server, boot) = booted(Site::new().linux("discover", DISCOVER), "discover");
    let update = boot.call("update");
    let form =
        "mac=52-54-00-00-01-01&mac=52:54:00:00:01:02&metadata=%7B%22a%22:1%7D&metadata=%7B%22b%22:%7B%22c%22:2%7D%7D";
    server.http().post(&update, form).expect(200);
    server.http().post(&update, form).expect(200);
    let host = server.host(1);
    assert_eq!(host["metadata"], serde_json::json!({"a": 1, "b": {"c": 2}}));
    assert_eq!(host["macs"].as_array().unwrap().len(), 3);
    assert_eq!(server.count(1, "metadata_set"), 1);
    assert_eq!(Machine::with(&[("net0", "52:54:00:00:01:01"), ("serial", "SN00001")]).boot(&server).host, Some(1));
}

#[test]
fn a_wrong_inventory_changes_nothing() {
    let (server, boot) = booted(Site::new().linux("discover", DISCOVER), "discover");
    let update = boot.call("update");
    let before = server.host(1);
    let large = format!("metadata=%7B%22a%22:%22{}%22%7D", "x".repeat(70_000));
    for (form, status) in [
        ("mac=52-54-00-00-01-01&colour=red", 400),
        ("mac=52-54-00-00-01-01&metadata=%7B", 400),
        ("metadata=%5B1%5D", 400),
        ("metadata=%7B%22a%22:1%7D&mac=rubbish", 400),
        ("metadata=%ff", 400),
        (&*format!("metadata={}1{}", "%7B%22a%22:".repeat(30), "%7D".repeat(30)), 400),
        (&*large, 413),
        (&*"mac=52-54-00-00-01-01&".repeat(60_000), 413),
    ] {
        server.http().post(&update, form).expect(status);
    }
    let good = "metadata=%7B%22a%22:1%7D";
    server.http().post("/update", good).expect(401);
    server.http().post(&format!("/update?id=1&bootid={WRONG}"), good).expect(401);
    server.http().post(&format!("/update?id=7&bootid={}", boot.bootid()), good).expect(401);
    let json = server.http().request("POST", &update, &[("Content-Type", "application/json")], b"{\"a\":1}");
    json.expect(400);
    assert_eq!(server.host(1)["metadata"], before["metadata"]);
    assert_eq!(server.host(1)["macs"], before["macs"]);
}

#[test]
fn an_inventory_is_refused_by_states_that_take_none() {
    let site = Site::new().kiwi("image1").linux("census", &format!("{DISCOVER}\ninventory = true"));
    let (server, boot) = booted(site, "image1");
    server.http().post(&boot.call("update"), "metadata=%7B%22a%22:1%7D").expect(401);
    server.cli(&["host", "set", "1", "--state", "census"]).done();
    let boot = Machine::new(1).boots(&server);
    server.http().post(&boot.call("update"), "metadata=%7B%22a%22:1%7D").expect(200);
    server.get(&boot.call("finish")).expect(200);
    server.http().post(&boot.call("update"), "metadata=%7B%22a%22:2%7D").expect(401);
    assert_eq!(server.host(1)["metadata"]["a"], 1);
}

#[test]
fn a_card_of_another_host_is_noted_and_not_taken() {
    let (server, boot) = booted(Site::new().linux("discover", DISCOVER), "discover");
    assert_eq!(Machine::new(2).boot(&server).host, Some(2));
    server.http().post(&boot.call("update"), "mac=52-54-00-00-00-02").expect(200);
    assert_eq!(server.count(1, "mac_taken"), 1);
    assert_eq!(server.host(1)["macs"].as_array().unwrap().len(), 1);
    assert_eq!(Machine::new(2).boot(&server).host, Some(2));
}

#[test]
fn image_files_are_served_with_lengths_ranges_and_validators() {
    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    let whole = payload("image1");
    for path in ["/images/image1/image1.xz", boot.payload()] {
        let got = server.get(path).expect(200);
        assert_eq!(got.body, whole);
        assert_eq!(got.header("content-length"), Some("300000"));
        assert_eq!(got.header("content-type"), Some("application/x-xz"));
        assert_eq!(got.header("accept-ranges"), Some("bytes"));
        assert!(got.header("content-encoding").is_none());
        let modified = got.header("last-modified").unwrap();
        let etag = got.header("etag").unwrap();

        let head = server.http().head(path).expect(200);
        assert_eq!((head.header("content-length"), head.header("etag")), (Some("300000"), Some(etag)));
        assert_eq!(head.body, b"");

        let http = server.http();
        let part = http.get_with(path, &[("Range", "bytes=10-19")]).expect(206);
        assert_eq!((part.body.as_slice(), part.header("content-range")), (&whole[10..20], Some("bytes 10-19/300000")));
        assert_eq!(http.get_with(path, &[("Range", "bytes=-5")]).expect(206).body, &whole[299_995..]);
        assert_eq!(http.get_with(path, &[("Range", "bytes=299990-")]).expect(206).body, &whole[299_990..]);
        let beyond = http.get_with(path, &[("Range", "bytes=300000-")]).expect(416);
        assert_eq!(beyond.header("content-range"), Some("bytes */300000"));
        for strange in ["bytes=5-3", "lines=1-2", "bytes=a-b", "bytes=0-1,5-6", ""] {
            assert_eq!(http.get_with(path, &[("Range", strange)]).expect(200).body.len(), whole.len(), "{strange}");
        }
        http.get_with(path, &[("If-None-Match", etag)]).expect(304);
        http.get_with(path, &[("If-Modified-Since", modified)]).expect(304);
        http.get_with(path, &[("Range", "bytes=0-1"), ("If-Range", etag)]).expect(206);
        http.get_with(path, &[("Range", "bytes=0-1"), ("If-Range", "\"other\"")]).expect(200);
    }
    assert_eq!(server.get(boot.payload()).header("cache-control"), Some("no-store"));
}

#[test]
fn manifests_templates_and_hidden_files_are_never_served() {
    let site = Site::new()
        .kiwi("image1")
        .with_file("image1", ".secret", "s")
        .with_file("image1", "user-data.hbs", "a: {{host.id}}\n")
        .with_file("image1", "host.ipxe.hbs", "#!ipxe\nkernel {{url boot.files}}{{boot.kernel}} {{cmdline}}\ninitrd --name initrd {{url boot.files}}{{boot.initrd}}\nboot\n");
    let (server, boot) = booted(site, "image1");
    for name in ["image.toml", ".secret", "user-data.hbs", "host.ipxe.hbs", "host.ipxe", "nosuch", ""] {
        server.get(&format!("/images/image1/{name}")).expect(404);
        server.get(&boot.file(name)).expect(404);
    }
    for path in ["/images/", "/images/image1", "/images/nosuch/kernel", "/images/new/x", "/b/", "/b/x", "/b//x"] {
        server.get(path).expect(404);
    }
    server.get("/images/image1/user-data").expect(404);
    assert_eq!(server.get(&boot.file("user-data")).expect(200).text(), "a: \"1\"\n");
}

#[test]
fn documents_of_an_image_are_rendered_for_each_boot() {
    let site = Site::new()
        .kiwi("image1")
        .with_file(
            "image1",
            "config.bootoptions.hbs",
            "root=UUID=1 host={{host.serial}} site={{#if host.metadata.site}}{{host.metadata.site}}{{/if}}\n",
        )
        .with_file("image1", "user-data.hbs", "#cloud-config\nhostname: {{host.hostname}}\n")
        .with_file("image1", "notes.txt.hbs", "{{image}} for {{host.id}}: {{host.macs.[0]}}\n");
    let (server, boot) = booted(site, "image1");
    server.cli(&["host", "set", "1", "-n", "node1", "-m", r#"{"site":"fra1"}"#]).done();
    let by_full_name = server.get(&boot.file("image1.config.bootoptions")).expect(200);
    let options = server.get(&boot.file("config.bootoptions")).expect(200);
    assert_eq!(by_full_name.text(), options.text(), "KIWI asks under the image's full name");
    assert_eq!(options.text(), "root=UUID=1 host=SN00001 site=fra1\n");
    assert_eq!(options.header("cache-control"), Some("no-store"));
    let data = server.get(&boot.file("user-data")).expect(200);
    assert_eq!(data.text(), "#cloud-config\nhostname: \"node1\"\n");
    assert_eq!(data.header("content-type"), Some("application/yaml"));
    assert_eq!(server.get(&boot.file("notes.txt")).expect(200).text(), "image1 for 1: 52:54:00:00:00:01\n");
    assert_eq!(server.http().head(&boot.file("user-data")).expect(200).body, b"");
    server.site.file("image1", "user-data.hbs", "a: {{host.nosuch}}\n");
    let broken = server.get(&boot.file("user-data")).expect(500);
    assert_eq!(broken.text(), "the document cannot be rendered\n");
}

#[test]
fn the_files_of_a_boot_end_with_its_step() {
    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    boot.install(&server);
    for path in [boot.kernel(), boot.payload(), &boot.file("nosuch")] {
        let refusal = server.get(path).expect(404);
        assert_eq!(refusal.header("cache-control"), Some("no-store"));
    }
    server.get(&format!("/b/{WRONG}/image1.xz")).expect(404);
    server.get(&format!("/b/{}/image1.xz", boot.bootid().replacen('1', "2", 1))).expect(404);
}

#[test]
fn firmware_gets_ipxe_over_http() {
    let site = Site::new();
    std::fs::write(site.path("ipxe/snponly.efi"), "MZ").unwrap();
    let server = site.serve();
    let file = server.get("/ipxe/snponly.efi").expect(200);
    assert_eq!((file.text(), file.header("content-type")), ("MZ", Some("application/efi")));
    assert_eq!(server.http().head("/ipxe/snponly.efi").expect(200).header("content-length"), Some("2"));
    for path in ["/ipxe/", "/ipxe/nosuch.efi", "/ipxe/../kiwispray.toml", "/ipxe/..%2fkiwispray.toml"] {
        server.get(path).expect(404);
    }
}

#[test]
fn other_methods_are_not_allowed_and_other_paths_are_not_there() {
    let (server, boot) = booted(Site::new().kiwi("image1"), "image1");
    let (finish, post_install) = (boot.call("finish"), boot.post_install());
    for path in ["/bootstrap", "/bootstrap.ipxe", "/boot.ipxe", post_install, "/state?id=1", "/hosts"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            server.http().request(method, path, &[], b"").expect(405);
        }
    }
    for path in ["/images/image1/image1.xz", boot.payload(), "/ipxe/x"] {
        for method in ["POST", "PUT", "DELETE"] {
            server.http().request(method, path, &[], b"").expect(405);
        }
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        server.http().request(method, &finish, &[], b"").expect(405);
        server.http().request(method, &boot.call("fail"), &[], b"").expect(405);
    }
    let head = server.http().request("HEAD", &finish, &[], b"").expect(405);
    assert_eq!(head.header("allow"), Some("GET, POST"));
    server.get(&boot.call("update")).expect(405);
    for path in ["/", "/known_hosts.json", "/data/store/db", "/api/v1/hosts", "/healthz", "/bootstrap/", "/b"] {
        server.get(path).expect(404);
    }
    assert_eq!((server.states(1).as_str(), server.count(1, "finished")), ("image1", 0));
}
