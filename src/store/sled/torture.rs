//! kill -9 while acknowledging and while opening, and what the kernel saw before each acknowledgement. The process that
//! suffers is this test binary, started again with [`CHILD`] only.
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::{SledKv, SledOptions};
use crate::store::kv::{Commit, Key, Kv, Outcome, Revision};

const CHILD: &str = "store::sled::torture::child_that_is_killed";
const DIR_VARIABLE: &str = "KIWISPRAY_TORTURE_DIR";
const CLIENTS_VARIABLE: &str = "KIWISPRAY_TORTURE_CLIENTS";
const OPTIONS: SledOptions = SledOptions { cache_bytes: 8 << 20, min_free_bytes: 0 };

fn counter(client: u64) -> Key {
    Key::new(format!("counter/{client:03}")).unwrap()
}

fn event(client: u64, number: u64) -> Key {
    Key::new(format!("event/{client:03}/{number:08}")).unwrap()
}

#[test]
#[ignore = "the process that the other tests start and kill"]
fn child_that_is_killed() {
    let (Ok(dir), Ok(clients)) = (std::env::var(DIR_VARIABLE), std::env::var(CLIENTS_VARIABLE)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let kv = Arc::new(SledKv::open(dir.as_ref(), &OPTIONS).unwrap());
    say("open");
    runtime.block_on(async {
        let clients = (0..clients.parse().unwrap()).map(|client| tokio::spawn(count(Arc::clone(&kv), client)));
        futures_util::future::join_all(clients).await;
    });
}

/// Counts for ever: each number is a counter and an event in one commit, and is said only after it is acknowledged.
async fn count(kv: Arc<SledKv>, client: u64) {
    let mut entry = kv.get(&[counter(client)]).await.unwrap().1.remove(0);
    loop {
        let (revision, number) = entry.as_ref().map_or((Revision::ZERO, 0), |entry: &crate::store::kv::Entry| {
            (entry.revision, str::from_utf8(&entry.value).unwrap().parse().unwrap())
        });
        let number: u64 = number + 1;
        let mut commit = Commit::default();
        commit.guard(counter(client), revision);
        commit.put(counter(client), number.to_string());
        commit.put(event(client, number), vec![number as u8; 150]);
        assert!(matches!(kv.commit(commit).await.unwrap(), Outcome::Committed(_)));
        say(&format!("ack {client} {number}"));
        entry = kv.get(&[counter(client)]).await.unwrap().1.remove(0);
    }
}

/// One write per line, past the test harness, which would hold it back. Ends the process once nobody listens.
fn say(line: &str) {
    if std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).is_err() {
        std::process::exit(0);
    }
}

fn child(command: &mut Command, dir: &Path, clients: u64) -> Child {
    command
        .env(DIR_VARIABLE, dir)
        .env(CLIENTS_VARIABLE, clients.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn this_binary() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--ignored", "--nocapture"]);
    command
}

fn this_binary_under(strace: &mut Command) -> &mut Command {
    strace.arg(std::env::current_exe().unwrap()).args(["--exact", CHILD, "--ignored", "--nocapture"])
}

fn strace_works() -> bool {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    probe.is_ok_and(|status| status.success())
}

/// Reads what the child says until it has acknowledged `acks` commits, kills it, and reads the rest.
fn kill_after(mut child: Child, acks: usize, acknowledged: &mut BTreeMap<u64, u64>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heard = 0;
    let mut killed = false;
    while let Some(Ok(line)) = lines.next() {
        // The harness's own words stand on the first line of its output.
        let words: Vec<_> = line.split(' ').collect();
        if let ["ack", client, number] = words[..] {
            // A torn last line has lost digits: smaller numbers prove nothing and harm nothing.
            let number = number.parse().unwrap_or(0);
            let known = acknowledged.entry(client.parse().unwrap()).or_default();
            *known = number.max(*known);
            heard += 1;
        }
        if heard >= acks && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed, "the child ended by itself after {heard} acknowledgements");
    child.wait().unwrap();
}

/// Everything acknowledged is there, and every counter has exactly its events.
async fn verify(dir: &Path, acknowledged: &BTreeMap<u64, u64>) {
    let kv = SledKv::open(dir, &OPTIONS).unwrap();
    for (client, least) in acknowledged {
        let (_, found) = kv.get(&[counter(*client)]).await.unwrap();
        let number: u64 = str::from_utf8(&found[0].as_ref().unwrap().value).unwrap().parse().unwrap();
        assert!(number >= *least, "client {client} had {least} acknowledged, and {number} are there");
        let wanted: Vec<_> = (1..=number + 1).map(|number| event(*client, number)).collect();
        for (chunk, keys) in wanted.chunks(200).enumerate() {
            for (index, entry) in kv.get(keys).await.unwrap().1.into_iter().enumerate() {
                let exists = chunk * 200 + index < number as usize;
                assert_eq!(entry.is_some(), exists, "event {} of client {client}", chunk * 200 + index + 1);
            }
        }
    }
    kv.close().await;
}

#[tokio::test]
async fn kill_while_acknowledging_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for acks in [1, 300, 1_000, 77] {
        kill_after(child(&mut this_binary(), dir.path(), 32), acks, &mut acknowledged);
        verify(dir.path(), &acknowledged).await;
    }
    assert_eq!(acknowledged.len(), 32);
}

#[tokio::test]
async fn kill_while_opening_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The first rounds hit a folder in which there is no store yet.
    for delay_ms in [2, 3, 4, 5, 6, 8, 10] {
        kill_in(child(&mut this_binary(), dir.path(), 1), delay_ms);
    }
    let mut acknowledged = BTreeMap::new();
    kill_after(child(&mut this_binary(), dir.path(), 32), 2_000, &mut acknowledged);
    for delay_ms in (3..60).step_by(3) {
        kill_in(child(&mut this_binary(), dir.path(), 1), delay_ms);
    }
    verify(dir.path(), &acknowledged).await;
}

/// The kill that sled by itself does not survive: between writing its snapshot and giving it its name.
#[tokio::test]
async fn kill_at_each_step_of_the_snapshot_loses_nothing() {
    if !strace_works() {
        eprintln!("not tested: strace cannot be used here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    kill_after(child(&mut this_binary(), dir.path(), 8), 200, &mut acknowledged);
    let mut unfinished = 0;
    for (call, when) in [("fsync", 1), ("fsync", 2), ("fsync", 3), ("/^rename", 1), ("/^unlink", 1), ("fdatasync", 1)] {
        let mut strace = Command::new("strace");
        let inject = format!("inject={call}:signal=KILL:when={when}");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
        let mut killed = child(this_binary_under(&mut strace), dir.path(), 1);
        let lines = BufReader::new(killed.stdout.take().unwrap()).lines();
        // Where the call does not occur while opening, the child soon talks to nobody and ends.
        drop(lines.map_while(Result::ok).find(|line| line.starts_with("ack 0")));
        killed.wait().unwrap();
        let names = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
        unfinished += names.filter(|name| name.to_string_lossy().ends_with(".generating")).count();
        acknowledged.remove(&0);
        verify(dir.path(), &acknowledged).await;
        kill_after(child(&mut this_binary(), dir.path(), 8), 50, &mut acknowledged);
    }
    assert!(unfinished > 0, "no kill hit the snapshot: the test tests nothing any more");
}

fn kill_in(mut child: Child, delay_ms: u64) {
    std::thread::sleep(Duration::from_millis(delay_ms));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn every_acknowledgement_follows_an_fdatasync_of_the_log() {
    const ACKS: usize = 20;
    if !strace_works() {
        eprintln!("not tested: strace cannot be used here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let store = dir.path().join("store");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=fdatasync,write", "-o"]).arg(&trace);
    let mut traced = child(this_binary_under(&mut strace), &store, 1);
    let lines = BufReader::new(traced.stdout.take().unwrap()).lines();
    let acks = lines.map_while(Result::ok).filter(|line| line.starts_with("ack ")).take(ACKS).count();
    // strace passes the end on: the pipe is closed now, and the child's next write fails.
    traced.wait().unwrap();
    assert_eq!(acks, ACKS);
    let audited = audit(&std::fs::read_to_string(&trace).unwrap(), &store.join(super::open::LOG_FILE));
    assert!(audited >= ACKS, "only {audited} acknowledgements in the trace");
}

/// Returns the number of acknowledgements, each of which came after a completed fdatasync of its own.
fn audit(trace: &str, log: &Path) -> usize {
    let call = format!("<{}>", log.display());
    let (mut synced, mut audited) = (false, 0);
    let mut unfinished = BTreeMap::new();
    for line in trace.lines() {
        let (thread, what) = line.split_once(char::is_whitespace).unwrap();
        let what = what.trim_start();
        if what.starts_with("fdatasync(") && what.contains(&call) {
            unfinished.insert(thread, what.contains("<unfinished"));
            synced |= what.ends_with("= 0");
        } else if what.starts_with("fdatasync(") {
            unfinished.remove(thread);
        } else if what.starts_with("<... fdatasync resumed>") {
            synced |= unfinished.remove(thread) == Some(true) && what.ends_with("= 0");
        } else if what.starts_with("write(1<") && what.contains("\"ack ") {
            assert!(synced, "acknowledged without an fdatasync since the one before: {line}");
            synced = false;
            audited += 1;
        }
    }
    audited
}
