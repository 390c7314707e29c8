//! What keeps a server from starting: one clear sentence, an exit code, and nothing lost.

use std::os::unix::process::CommandExt as _;

use crate::support::server::{command, serve_command};
use crate::support::{Machine, Run, Site};

/// `serve` with these arguments, which must end by itself.
fn serve(site: &Site, arguments: &[&str]) -> Run {
    let mut command = command(site);
    command.arg("serve").args(arguments);
    Run::of(command)
}

/// The sentence that it ended with; there is only one line of it.
#[track_caller]
fn refusal(run: &Run, code: i32) -> &str {
    assert_eq!(run.code, code, "{run:?}");
    let lines: Vec<&str> = run.err.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{run:?}");
    assert!(!run.err.contains("panicked") && !run.out.contains("answers machines"), "{run:?}");
    lines[0]
}

#[test]
fn an_unknown_configuration_key_is_refused_with_a_suggestion() {
    for (toml, suggestion) in [
        ("[boot]\nopen_stat = true\n", "boot.open_stat: there is no such key; is boot.open_state meant?"),
        ("listn = \"127.0.0.1:0\"\n", "listn: there is no such key; is listen meant?"),
        ("zzz = 1\n", "zzz: there is no such key"),
    ] {
        let run = Run::of(serve_command(&Site::new().config(toml)));
        let sentence = refusal(&run, 2);
        assert!(sentence.contains("kiwispray.toml") && sentence.contains(suggestion), "{sentence}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    for (toml, what) in [
        ("listen = \"nonsense\"\n", "kiwispray.toml line 1"),
        ("[boot]\nattempts = 0\n", "boot.attempts: 0 is not between 1 and 100"),
        ("[boot\n", "line 1"),
        ("public_url = \"http://a/b\"\n", "public_url"),
    ] {
        let run = Run::of(serve_command(&Site::new().config(toml)));
        assert!(refusal(&run, 2).contains(what), "{run:?}");
    }
    let run = serve(&Site::new(), &["--config", "nosuch.toml"]);
    assert!(refusal(&run, 2).contains("nosuch.toml"), "{run:?}");
}

#[test]
fn a_port_in_use_is_said_with_the_remedy_and_touches_nothing() {
    let server = Site::new().serve();
    let other = Site::new();
    let address = server.address.to_string();
    let run = serve(&other, &["--data-dir", "data", "--init", "--listen", &address]);
    let sentence = refusal(&run, 1);
    assert!(sentence.contains(&address) && sentence.contains("--listen"), "{sentence}");
    assert!(!other.path("data").exists(), "nothing was made");
    server.get("/bootstrap.ipxe").expect(200);
}

#[test]
fn a_port_that_another_program_holds_is_said_at_once() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (site, address) = (Site::new(), held.local_addr().unwrap().to_string());
    let begin = std::time::Instant::now();
    let run = serve(&site, &["--data-dir", "data", "--init", "--listen", &address]);
    assert!(refusal(&run, 1).contains(&format!("(process {})", std::process::id())), "{run:?}");
    assert!(begin.elapsed().as_secs() < 8, "it waited {:?}", begin.elapsed());
}

#[test]
fn what_a_service_manager_hands_over_is_one_socket_that_listens() {
    let site = Site::new();
    let run = |descriptors: &str, count: &str| {
        let serve = serve_command(&site);
        let mut command = std::process::Command::new("sh");
        let script = format!("exec {descriptors}; LISTEN_FDS={count} LISTEN_PID=$$ exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(serve.get_program()).args(serve.get_args()).current_dir(site.root());
        Run::of(command)
    };
    assert!(refusal(&run("3</dev/null", "2"), 1).contains("hands over 2 sockets"));
    for descriptors in ["3</dev/null", "3<&-"] {
        assert!(refusal(&run(descriptors, "1"), 1).contains("something else than a TCP socket"));
    }
    assert!(!site.path("data").exists(), "nothing was made");
}

#[test]
fn a_data_directory_in_use_is_said_and_its_server_goes_on() {
    let server = Site::new().serve();
    Machine::new(1).boot(&server);
    let run = Run::of(serve_command(&server.site));
    assert!(refusal(&run, 1).contains("is in use by process "), "{run:?}");
    assert_eq!(Machine::new(1).boot(&server).host, Some(1));
    server.cli(&["host", "show", "1"]).done();
}

#[test]
fn a_named_data_directory_that_is_missing_is_refused_without_init() {
    let site = Site::new();
    let run = serve(&site, &["--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let sentence = refusal(&run, 1);
    assert!(sentence.contains("the data directory is missing") && sentence.contains("--init"), "{sentence}");
    let site = site.config("data_dir = \"elsewhere\"");
    let run = serve(&site, &["--listen", "127.0.0.1:0"]);
    assert!(refusal(&run, 1).contains("elsewhere"), "{run:?}");
    assert!(!site.path("data").exists() && !site.path("elsewhere").exists());
}

#[test]
fn an_empty_data_directory_that_somebody_made_is_a_first_start() {
    let mut server = Site::new().serve();
    server.terminate();
    let data = server.site.path("data");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    // Without `--init`.
    server.restart();
    assert_eq!(Machine::new(1).boot(&server).host, Some(1));
}

#[test]
fn a_store_that_vanished_is_not_made_anew_and_init_harms_none() {
    let mut server = Site::new().serve();
    Machine::new(1).boot(&server);
    server.terminate();
    let site = &server.site;
    std::fs::rename(site.path("data"), site.path("disk")).unwrap();
    let without_init = ["--config", "kiwispray.toml", "--data-dir", "data", "--listen", "127.0.0.1:0"];
    let run = serve(site, &without_init);
    let sentence = refusal(&run, 1);
    assert!(sentence.contains("the data directory is missing") && sentence.contains("mounted?"), "{sentence}");
    assert!(!site.path("data").exists(), "nothing was made");
    // Somebody took the files out of the store.
    std::fs::create_dir_all(site.path("data/store")).unwrap();
    std::fs::copy(site.path("disk/store/lock"), site.path("data/store/lock")).unwrap();
    assert!(refusal(&serve(site, &without_init), 1).contains("holds no store"));
    std::fs::remove_dir_all(site.path("data")).unwrap();
    std::fs::rename(site.path("disk"), site.path("data")).unwrap();
    server.restart();
    assert_eq!(Machine::new(1).boot(&server).host, Some(1));
    server.terminate();
    server.restart_with(&["--init"]);
    assert_eq!(Machine::new(1).boot(&server).host, Some(1));
}

#[test]
fn a_data_directory_that_cannot_be_used_is_said() {
    let site = Site::new();
    std::fs::write(site.path("data"), "a file").unwrap();
    let run = serve(&site, &["--data-dir", "data", "--init", "--listen", "127.0.0.1:0"]);
    assert!(refusal(&run, 1).contains("data"), "{run:?}");
    assert_eq!(std::fs::read_to_string(site.path("data")).unwrap(), "a file");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let site = Site::new();
    for arguments in [&["--lisen", "x"][..], &["--listen", "nonsense"], &["--public-url", "ftp://x"], &["surplus"]] {
        assert_eq!(serve(&site, arguments).code, 2, "{arguments:?}");
    }
    assert_eq!(serve(&site, &["--data-dir", "data", "--init", "--dhcp-range", "10.0.0.1,10.0.0.9"]).code, 2);
}

#[test]
fn the_greeting_names_addresses_folders_and_the_next_command() {
    let server = Site::new().serve();
    // The last line may still be on its way.
    let begin = std::time::Instant::now();
    while !server.log().contains("\nNext: ") && begin.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let log = server.log();
    let data = server.site.path("data").display().to_string();
    for part in [&server.address.to_string(), &*data, "plugin     default", "Next: ", "kiwispray host watch"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}

#[test]
fn environment_variables_are_flags_and_flags_win() {
    let site = Site::new();
    let mut command = command(&site);
    command.env("KIWISPRAY_DATA_DIR", "nosuch").env("KIWISPRAY_LISTEN", "127.0.0.1:0").arg("serve").arg0("kiwispray");
    assert!(refusal(&Run::of(command), 1).contains("nosuch"));
    let mut command = command_with_nonsense(&site);
    command.args(["--listen", "127.0.0.1:0", "--data-dir", "nosuch"]);
    assert!(refusal(&Run::of(command), 1).contains("nosuch"));
    assert_eq!(Run::of(command_with_nonsense(&site)).code, 2);
    assert!(refusal(&Run::of(command_with_proxy(&site)), 2).contains("--proxy-dhcp: this needs an interface"));
}

fn command_with_proxy(site: &Site) -> std::process::Command {
    let mut command = command(site);
    command.env("KIWISPRAY_PROXY_DHCP", "true").args(["serve", "--listen", "127.0.0.1:0"]);
    command
}

fn command_with_nonsense(site: &Site) -> std::process::Command {
    let mut command = command(site);
    command.env("KIWISPRAY_LISTEN", "nonsense").arg("serve");
    command
}
