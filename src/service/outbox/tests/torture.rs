//! kill -9 between commit and delivery, again and again. The process that suffers is this test binary, started with
//! [`CHILD`] only: it tells its parent what was acknowledged and what its plugin was told.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::site::{Listener, OPTIONS, QUICK, Site, count, host};
use super::{Binding, HookError, Pace};
use crate::domain::HostId;
use crate::store::Store;

const CHILD: &str = "service::outbox::tests::torture::child_that_is_killed";
const DIR_VARIABLE: &str = "KIWISPRAY_OUTBOX_TORTURE_DIR";
/// Set in the last round: nothing new happens, and what is left is told.
const DRAINS_VARIABLE: &str = "KIWISPRAY_OUTBOX_TORTURE_DRAINS";
const MACHINES: u64 = 5;

#[test]
#[ignore = "the process that the other test starts and kills"]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var(DIR_VARIABLE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(live(dir.as_ref(), std::env::var(DRAINS_VARIABLE).is_ok()));
}

/// Commits events for ever, while a plugin is told of them that has trouble with some.
async fn live(dir: &Path, drains: bool) {
    let plugin = Listener::new(|call, events| {
        if events.iter().any(|event| host(event) == 1 && event.host_seq % 20 == 0) && call.attempt < 3 {
            return Err(HookError::Retry { after_ms: 100, reason: "not yet".into() });
        }
        for event in events {
            say(&format!("told {} {}", host(event), event.host_seq));
        }
        Ok(count(events))
    });
    let store = Store::open(dir, &OPTIONS).await.unwrap();
    let pace = Pace { most_faults: u32::MAX, ..QUICK };
    let mut site = Site::with(store, vec![Binding::new(std::sync::Arc::new(plugin))], pace);
    site.start().await;
    if drains {
        site.quiet().await;
        say("quiet");
        return;
    }
    let mut machines = Vec::new();
    for id in 1..=MACHINES {
        machines.push(match site.service.store.host(HostId::new(id)).await.unwrap() {
            Some(machine) => machine,
            None => site.host().await,
        });
    }
    let works = machines.into_iter().map(|mut machine| {
        let site = &site;
        async move {
            loop {
                machine = site.note(&machine).await;
                say(&format!("ack {} {}", machine.id, machine.event_count));
            }
        }
    });
    futures_util::future::join_all(works).await;
}

/// One write per line, past the test harness, which would hold it back. Ends the process once nobody listens.
fn say(line: &str) {
    if std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).is_err() {
        std::process::exit(0);
    }
}

/// What the parent knows of all rounds.
#[derive(Default)]
struct Known {
    acknowledged: BTreeMap<u64, u64>,
    told: BTreeMap<u64, u64>,
    quiet: bool,
}

impl Known {
    fn hear(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["ack", host, seq] => drop(self.acknowledged.insert(host.parse().unwrap(), seq.parse().unwrap())),
            ["told", host, seq] => {
                let told = self.told.entry(host.parse().unwrap()).or_default();
                let seq: u64 = seq.parse().unwrap();
                // Again is allowed; over one that was never told is not.
                assert!(seq <= *told + 1, "host {host} was told of {seq} right after {told}");
                *told = seq.max(*told);
            }
            ["quiet"] => self.quiet = true,
            _ => {}
        }
    }

    /// Lets a process live until it has acknowledged so many events, and kills it.
    fn round(&mut self, dir: &Path, acks: Option<usize>) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", CHILD, "--ignored", "--nocapture"]).env(DIR_VARIABLE, dir);
        if acks.is_none() {
            command.env(DRAINS_VARIABLE, "1");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (mut heard, mut killed) = (0, false);
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            self.hear(&line);
            heard += usize::from(line.starts_with("ack"));
            if !killed && acks.is_some_and(|acks| heard >= acks) {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert_eq!(killed, acks.is_some(), "the child ended by itself after {heard} acknowledgements");
    }
}

#[test]
fn whatever_was_acknowledged_is_told_in_order_however_often_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = Known::default();
    for acks in [1, 40, 250, 7, 400] {
        known.round(dir.path(), Some(acks));
    }
    known.round(dir.path(), None);
    assert!(known.quiet);
    assert_eq!(known.acknowledged.len() as u64, MACHINES);
    for (host, acknowledged) in &known.acknowledged {
        let told = known.told.get(host).copied().unwrap_or_default();
        assert!(told >= *acknowledged, "host {host}: {acknowledged} were acknowledged and {told} told");
    }
}
