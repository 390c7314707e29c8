//! Hosts by the dozen: lists in and out, identities, mainboards that were swapped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::support::{Machine, Run, Server, Site};

const LIST: &str = "hostname,serial,macs,states,metadata.site,metadata.rack\n\
                    node1,SN00001,52:54:00:00:00:01,image1,fra1,7\n\
                    node2,SN00002,52-54-00-00-00-02 52:54:00:00:01:02,,fra1,\"\"\"7\"\"\"\n";

impl Server {
    fn import(&self, list: &str, more: &[&str]) -> Run {
        fs::write(self.site.path("hosts.csv"), list).unwrap();
        self.cli(&[&["host", "import", "hosts.csv"], more].concat())
    }
}

fn server() -> Server {
    Site::new().kiwi("image1").kiwi("image2").serve()
}

#[test]
fn a_list_makes_hosts_known_once_and_says_before_what_it_would_do() {
    let server = server();
    let tried = server.import(LIST, &["--dry-run"]).done();
    assert_eq!(tried.out, "line 2, node1: would be made known\nline 3, node2: would be made known\n");
    assert!(server.json(&["host", "list"]).as_array().unwrap().is_empty());

    // A disk dies at the next boot, so somebody has to agree.
    let refused = server.import(LIST, &[]).refused(2, "say --yes");
    assert!(refused.err.contains("line 2, node1: /dev/sda (by image1)"), "{}", refused.err);
    let done = server.import(LIST, &["--yes"]).done();
    assert!(done.err.contains("2 hosts made known, 0 hosts changed"), "{}", done.err);
    assert_eq!(server.host(1)["metadata"], serde_json::json!({"site": "fra1", "rack": 7}));
    assert_eq!(server.host(2)["metadata"], serde_json::json!({"site": "fra1", "rack": "7"}));
    assert!(server.cli(&["host", "events", "1"]).done().out.contains("imported by"));

    let again = server.import(LIST, &[]).done();
    assert!(again.err.contains("2 hosts so already") && again.out.is_empty(), "{again:?}");
    assert_eq!([1, 2].map(|id| server.host(id)["revision"].clone()), [1, 1]);
}

#[test]
fn a_list_changes_hosts_but_repeats_no_order_and_never_leads_out_of_finished() {
    let server = server();
    server.import(LIST, &["--yes"]).done();
    Machine::new(1).boots(&server).install(&server);
    assert_eq!(server.states(1), "finished");
    let list = LIST.replace("fra1", "ams1").replace("image1", "image2");
    let done = server.import(&list, &["--yes"]).done();
    assert!(done.out.contains("line 2, node1 (host 1): changed: metadata changed: site"), "{}", done.out);
    assert!(done.out.contains("its states stay finished, as it was booted"), "{}", done.out);
    assert_eq!(server.states(1), "finished");
    assert_eq!(server.host(1)["metadata"]["site"], "ams1");
    Machine::new(1).boots_its_disk(&server);

    // A host that waits gets its order, and what it still lacks.
    Machine::new(3).boot(&server);
    let done = server
        .import("serial,hostname,macs,states\nsn00003,node3,52:54:00:00:00:03 52:54:00:00:0f:03,image1\n", &["--yes"]);
    assert!(done.done().out.contains("states: new -> image1"));
    assert_eq!(server.host(3)["macs"].as_array().unwrap().len(), 2);
    Machine::new(3).boots(&server);
}

#[test]
fn one_wrong_line_keeps_all_from_being_done_and_every_problem_is_listed() {
    let server = server();
    for number in 1..=4 {
        Machine::new(number).boot(&server);
    }
    let list = "hostname,serial,uuid,macs,states\n\
                good,SN00009,,,\n\
                a,SN00001,,52:54:00:00:00:02,\n\
                b,SN00003,99999999-1234-4abc-8def-00163e000001,52:54:00:00:00:03,\n\
                c,Default string,,52:54:00:zz:00:05,imaeg1\n\
                good,SN00010,,,image7\n\
                e,,,,\n\
                f,sn00009,,,\n\
                g,SN00004,,52:54:00:00:0e:01,\n";
    let refused = server.import(list, &["--yes"]).refused(2, "nothing was changed, as lines are wrong");
    for part in [
        "line 3: this means host 1 and host 2",
        "line 4, column 3: host 3 shares the rest, but has uuid",
        "line 5, column 2: \"Default string\" identifies no machine",
        "line 5, column 4: \"52:54:00:zz:00:05\" identifies no machine",
        "line 6, column 1: line 2 gives the name good, too",
        "line 6, column 5: there is no image and no template image7",
        "line 7: a serial number, a UUID or a MAC is needed",
        "line 8: this is, or may be, the same machine as line 2",
        "line 9, column 4: host 4 has none of these cards",
    ] {
        assert!(refused.err.contains(part), "{part:?} is not in\n{}", refused.err);
    }
    assert_eq!(server.json(&["host", "list"]).as_array().unwrap().len(), 4);

    let some = server.import(list, &["--yes", "--leave-out"]);
    assert_eq!(some.code, 1, "{some:?}");
    assert!(some.out.contains("line 2, good (host 5): made known"), "{some:?}");
    assert_eq!(server.json(&["host", "list"]).as_array().unwrap().len(), 5);
}

#[test]
fn what_was_exported_is_the_same_on_an_empty_server() {
    let server = server();
    server.import(LIST, &["--yes"]).done();
    Machine::new(1).boots(&server).install(&server);
    Machine::new(7).boot(&server);
    server.cli(&["host", "set", "3", "-m", r#"{"a":{"b c":[1,null],"d":1.5},"note":"=1+1"}"#]).done();
    for format in ["csv", "json"] {
        let written = server.cli(&["host", "export", "--format", format]).done().out;
        let other = Site::new().kiwi("image1").kiwi("image2").serve();
        let name = format!("hosts.{format}");
        fs::write(other.site.path(&name), &written).unwrap();
        other.cli(&["host", "import", &name, "--yes"]).done();
        assert_eq!(other.cli(&["host", "export", "--format", format]).done().out, written);
        other.cli(&["host", "import", &name]).done();
        let said = |server: &Server, field: &str| -> Vec<serde_json::Value> {
            [1, 2, 3].map(|id| server.host(id)[field].clone()).to_vec()
        };
        for field in ["hostname", "serial", "uuid", "macs", "states", "metadata"] {
            assert_eq!(said(&other, field), said(&server, field), "{field}");
        }
        Machine::new(1).boots_its_disk(&other);
    }
    let some = server.cli(&["host", "export", "--where", "metadata.site=fra1"]).done().out;
    assert_eq!(some.lines().count(), 3);
}

#[test]
fn hostile_files_are_refused_in_one_sentence() {
    let server = server();
    let refused = |bytes: &[u8], sentence: &str| {
        fs::write(server.site.path("hosts.csv"), bytes).unwrap();
        server.cli(&["host", "import", "hosts.csv", "--yes"]).refused(2, sentence)
    };
    refused(b"", "it is empty");
    refused(b"hostname\n", "it names no host");
    refused(b"serial\nS1\xff\n", "line 2 is no UTF-8");
    refused("serial\n".repeat(1_000_000).as_bytes(), "more than 100000 hosts: split it");
    refused(&vec![b'x'; 65 << 20], "more than 64 MiB: split it");
    refused(b"nothing,of,this\n1,2,3\n", "there is no column \"nothing\"");
    server.cli(&["host", "import", "absent.csv"]).refused(2, "absent.csv: it cannot be opened");
    fs::write(server.site.path("hosts.json"), "[{\"serial\": \"S1\"}, {\"serial\": ]").unwrap();
    server.cli(&["host", "import", "hosts.json"]).refused(2, "line 1, column ");
    assert!(server.json(&["host", "list"]).as_array().unwrap().is_empty());
}

#[test]
fn an_identity_is_corrected_by_hand_and_never_taken_from_another_host() {
    let server = server();
    for number in 1..=2 {
        Machine::new(number).boot(&server);
    }
    let refused = server.cli(&["host", "identity", "1", "--add-mac", "52:54:00:00:00:02"]).refused(4, "host 2");
    assert!(refused.err.contains("host 1 cannot have this identity"), "{}", refused.err);
    server.cli(&["host", "identity", "1", "--add-mac", "52:54:00:zz"]).refused(2, "identifies no machine");
    server.cli(&["host", "identity", "1", "--drop-mac", "52:54:00:00:00:09"]).refused(4, "has no card");
    server.cli(&["host", "identity", "1"]).refused(2, "--add-mac");
    let all = ["host", "identity", "1", "--drop-serial", "--drop-uuid", "--drop-mac", "52:54:00:00:00:01"];
    server.cli(&all).refused(2, "nothing would recognise");

    let done = server.cli(&["host", "identity", "1", "--add-mac", "52:54:00:00:0f:01", "--serial", "SN7"]).done();
    assert!(done.out.contains("serial: SN00001 -> SN7"), "{}", done.out);
    let undo = "undo: kiwispray host identity 1 --serial SN00001 --drop-mac 52:54:00:00:0f:01";
    assert!(done.out.contains(undo), "{}", done.out);
    let timeline = server.json(&["host", "events", "1"]);
    let newest = timeline.as_array().unwrap().last().unwrap();
    assert_eq!(newest["kind"], "identity_set");
    assert!(newest["actor"].as_str().unwrap().starts_with("operator "));
    assert_eq!(Machine::new(1).but("serial", "sn7").boot(&server).host, Some(1));
}

#[test]
fn a_machine_with_a_new_mainboard_is_adopted_as_the_host_that_it_was() {
    let server = server();
    let old = Machine::new(1).installed(&server, "image1");
    server.cli(&["host", "set", "1", "-n", "node1", "-m", r#"{"site":"fra1"}"#]).done();
    assert_eq!(Machine::new(2).boot(&server).host, Some(2));
    let tried = server.cli(&["host", "adopt", "2", "--as", "node1", "--dry-run"]).done();
    assert!(tried.out.contains("serial: SN00001 -> SN00002"), "{}", tried.out);
    server.cli(&["host", "adopt", "2", "--as", "node1"]).refused(2, "say --yes");
    let done = server.cli(&["host", "adopt", "2", "--as", "node1", "--yes"]).done();
    assert!(done.out.contains("undo: kiwispray host identity 1 --serial SN00001"), "{}", done.out);

    assert_eq!(Machine::new(2).boots_its_disk(&server).host, Some(old));
    let host = server.host(1);
    assert_eq!((&host["hostname"], &host["metadata"]["site"]), (&"node1".into(), &"fra1".into()));
    server.cli(&["host", "show", "2"]).refused(3, "there is no host 2");
    // The old mainboard is a machine that nobody knows.
    assert_eq!(Machine::new(1).boot(&server).host, Some(3));

    server.cli(&["host", "adopt", "3", "--as", "3", "--yes"]).refused(4, "cannot be adopted as itself");
    server.cli(&["host", "adopt", "1", "--as", "3", "--yes"]).refused(4, "has been installed itself");
    server.deploy("image1", 3);
    Machine::new(1).boots(&server).load(&server);
    Machine::new(4).boot(&server);
    server.cli(&["host", "adopt", "4", "--as", "3", "--yes"]).refused(4, "is being installed right now");
    server.cli(&["host", "adopt", "nothing", "--as", "3", "--yes"]).refused(3, "kiwispray host conflicts");
}

#[test]
fn a_machine_that_is_held_is_listed_with_the_command_that_resolves_it() {
    let server = server();
    Machine::new(1).boot(&server);
    assert!(server.cli(&["host", "conflicts"]).done().err.contains("recognised clearly"));
    // All its cards were changed.
    let machine = Machine::new(1).but("net0", "52-54-00-00-0f-01").but("dhcp_mac", "52-54-00-00-0f-01");
    machine.holds(&server, "kiwispray host conflicts");
    let listed = server.json(&["host", "conflicts"]);
    assert_eq!((&listed[0]["kind"], &listed[0]["hosts"]), (&"weak".into(), &serde_json::json!([1])));
    let command = "kiwispray host adopt 52:54:00:00:0f:01 --as 1";
    let text = server.cli(&["host", "conflicts"]).done().out;
    assert!(text.contains(command) && text.contains("host 1: serial same"), "{text}");

    server.cli(&["host", "adopt", "52:54:00:00:0f:01", "--as", "1", "--yes"]).done();
    assert_eq!(machine.boot(&server).host, Some(1));
    assert_eq!(server.json(&["host", "conflicts"]), serde_json::json!([]));

    // A card that belongs to another host is not moved along.
    Machine::new(2).boot(&server);
    let both = Machine::new(2).but("net1", "52-54-00-00-0f-01");
    both.holds(&server, "cannot be told from others");
    assert_eq!(server.json(&["host", "conflicts"])[0]["kind"], "conflict");
    server.cli(&["host", "adopt", "SN00002", "--as", "2", "--yes"]).refused(4, "that of host 1");
}

#[test]
fn who_changed_a_host_meanwhile_is_named() {
    let server = server();
    Machine::new(1).boot(&server);
    server.cli(&["host", "set", "1", "-n", "node1"]).done();
    let events = server.json(&["host", "events", "1"]);
    let name = events[1]["actor"].as_str().unwrap().trim_start_matches("operator ").to_owned();
    let answer = edit_as_looked_at(&server, 1, r#"{"hostname":"node2"}"#);
    assert!(
        answer.starts_with("HTTP/1.1 412") && answer.contains(&format!("was changed meanwhile by {name}")),
        "{answer}"
    );
}

/// Edits host 1 as somebody does who looked at this revision of it.
fn edit_as_looked_at(server: &Server, revision: u64, body: &str) -> String {
    let mut socket = UnixStream::connect(server.site.path("data/admin.sock")).unwrap();
    let length = body.len();
    write!(
        socket,
        "PATCH /api/v1/hosts/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIf-Match: \"{revision}\"\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn all_hosts_are_meant_only_where_that_is_sane() {
    let server = server();
    for number in 1..=3 {
        Machine::new(number).boot(&server);
    }
    server.cli(&["host", "set", "--all", "-m", r#"{"site":"fra1"}"#]).done();
    assert_eq!(server.json(&["host", "list", "--where", "metadata.site=fra1"]).as_array().unwrap().len(), 3);
    server.cli(&["deploy", "image1", "--all", "--yes"]).refused(2, "--all is not for this");
    server.cli(&["host", "forget", "--all", "--yes"]).refused(2, "--all is not for this");
    server.cli(&["host", "set", "--all", "1", "-n", "x"]).refused(2, "cannot be used with");
}
