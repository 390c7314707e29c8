//! What is remembered of a host: events that are still to be told to NetBox, and the request that was acted on.
//!
//! An event is written down before anything is tried, so neither an outage nor a crash loses it, and one that is delivered
//! again is known by its number. Two calls that work on one host at once see each other by the entry's version.

use kiwispray_sdk::Error;
use kiwispray_sdk::ask::kv::{self, Expect, KvError};
use serde::{Deserialize, Serialize};

use crate::request::Acted;
use crate::writeback::Task;

/// Keys of entries, before the host's id.
const HOSTS: &str = "host/";
/// Keys that stand while there is something to do for a host; their entries are empty.
const TODO: &str = "todo/";
/// Keys of devices that were found by MAC, before the device's id; their entries are the hosts' ids.
const DEVICES: &str = "device/";
/// Tasks that are kept for one host; beyond, the oldest that need no journal entry go first.
const TASKS_MOST: usize = 50;
/// How often a change is tried when others change the same entry.
const TRIES: u32 = 5;

/// What is remembered of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Number of the newest event that was taken in.
    #[serde(default)]
    pub(crate) seen: u64,
    /// What is still to be done, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tasks: Vec<Task>,
    /// The request that was acted on, until its field is empty again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) acted: Option<Acted>,
}

/// What is remembered of a host; nothing, if nothing was written down.
pub(crate) fn load(host: u64) -> Result<Ledger, Error> {
    Ok(kv::get_json(&key(HOSTS, host))?.unwrap_or_default())
}

/// Changes what is remembered of a host, whoever else does so at the same time. Returns it as it is then.
pub(crate) fn change(host: u64, edit: impl Fn(&mut Ledger)) -> Result<Ledger, Error> {
    let key = key(HOSTS, host);
    let mut tries = 0;
    loop {
        let entry = kv::get(&key)?;
        let (mut ledger, expect) = match &entry {
            Some(entry) => (parse(&entry.value, &key)?, Expect::Version(entry.version)),
            None => (Ledger::default(), Expect::Absent),
        };
        let before = ledger.clone();
        edit(&mut ledger);
        if ledger == before {
            return Ok(ledger);
        }
        let text = serde_json::to_vec(&ledger).map_err(|error| Error::Failed(format!("kv entry {key}: {error}")))?;
        match kv::put(&key, &text, expect) {
            Ok(_) => return Ok(ledger),
            Err(KvError::Conflict(_)) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes a task down, unless the event was taken in before.
pub(crate) fn take_in(host: u64, number: u64, task: &Task) -> Result<(), Error> {
    // Before the entry: a marker without tasks costs a look, tasks without a marker would be forgotten.
    kv::put(&key(TODO, host), b"", Expect::Whatever)?;
    change(host, |ledger| {
        if number > ledger.seen {
            ledger.seen = number;
            ledger.tasks.push(task.clone());
            while ledger.tasks.len() > TASKS_MOST {
                let least = ledger.tasks.iter().position(|task| !task.what.is_an_outcome()).unwrap_or(0);
                ledger.tasks.remove(least);
            }
        }
    })?;
    Ok(())
}

/// Remembers the request that was acted on, or that there is none any more.
pub(crate) fn act(host: u64, acted: Option<&Acted>) -> Result<(), Error> {
    if acted.is_some() {
        kv::put(&key(TODO, host), b"", Expect::Whatever)?;
    }
    change(host, |ledger| ledger.acted = acted.cloned()).map(|_| ())
}

/// Remembers whose device it is, where the serial number does not tell.
pub(crate) fn bind(device: u64, host: u64) -> Result<(), Error> {
    if host_of(device)? != Some(host) {
        kv::put_json(&key(DEVICES, device), &host)?;
    }
    Ok(())
}

/// Whose device it was when it was last seen, where the serial number does not tell.
pub(crate) fn host_of(device: u64) -> Result<Option<u64>, Error> {
    kv::get_json(&key(DEVICES, device))
}

/// Changes a task, if it is still to be done.
pub(crate) fn edit_task(host: u64, task: &Task, edit: impl Fn(&mut Task)) -> Result<(), Error> {
    let edit = |ledger: &mut Ledger| {
        ledger.tasks.iter_mut().filter(|known| known.event == task.event).for_each(&edit);
    };
    change(host, edit).map(|_| ())
}

/// Forgets a task that is done, or cannot be.
pub(crate) fn done(host: u64, task: &Task) -> Result<(), Error> {
    change(host, |ledger| ledger.tasks.retain(|other| other.event != task.event)).map(|_| ())
}

/// Hosts for which something is to be done, at most `limit`, from after a host on.
pub(crate) fn waiting(after: Option<u64>, limit: u32) -> Result<Vec<u64>, Error> {
    let after = after.map(|host| key(TODO, host));
    let keys = kv::list(TODO, after.as_deref(), limit)?;
    Ok(keys.iter().filter_map(|key| key.strip_prefix(TODO)?.parse().ok()).collect())
}

/// Takes a host off the list of those for which something is to be done, if nothing is. `gone`: nothing can be done about its
/// request either.
pub(crate) fn rest(host: u64, gone: bool) -> Result<(), Error> {
    let key = key(TODO, host);
    let Some(marker) = kv::get(&key)? else { return Ok(()) };
    let ledger = load(host)?;
    if ledger.tasks.is_empty() && (gone || ledger.acted.is_none()) {
        // A task that came in meanwhile has renewed the marker, which then stays.
        match kv::delete(&key, Expect::Version(marker.version)) {
            Ok(()) | Err(KvError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn parse(value: &[u8], key: &str) -> Result<Ledger, Error> {
    serde_json::from_slice(value).map_err(|error| Error::Failed(format!("the kv entry {key} does not fit: {error}")))
}

fn key(prefix: &str, host: u64) -> String {
    // Keys are listed in the order of their text.
    format!("{prefix}{host:020}")
}

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::Core;

    use super::*;
    use crate::writeback::What;

    fn task(number: u64, what: What) -> Task {
        Task { event: format!("7-{number}"), what, sent_ms: None, journaled: false }
    }

    #[test]
    fn an_event_that_comes_again_is_taken_in_once_even_after_it_was_done() {
        Core::new().run(|| {
            take_in(7, 4, &task(4, What::Installing)).unwrap();
            take_in(7, 4, &task(4, What::Installing)).unwrap();
            assert_eq!(load(7).unwrap().tasks.len(), 1);
            done(7, &task(4, What::Installing)).unwrap();
            take_in(7, 4, &task(4, What::Installing)).unwrap();
            assert!(load(7).unwrap().tasks.is_empty());
        });
    }

    #[test]
    fn hosts_wait_in_order_until_nothing_is_left_to_do() {
        Core::new().run(|| {
            for host in [10, 9, 100] {
                take_in(host, 1, &task(1, What::Seen)).unwrap();
            }
            assert_eq!(waiting(None, 9).unwrap(), [9, 10, 100]);
            assert_eq!(waiting(Some(9), 1).unwrap(), [10]);
            rest(9, false).unwrap();
            assert_eq!(waiting(None, 1).unwrap(), [9], "it still has something to do");
            done(9, &task(1, What::Seen)).unwrap();
            rest(9, false).unwrap();
            assert_eq!(waiting(None, 1).unwrap(), [10]);
        });
    }

    #[test]
    fn too_many_tasks_push_out_what_needs_no_journal_entry_first() {
        Core::new().run(|| {
            take_in(7, 1, &task(1, What::Finished { states: "web".into() })).unwrap();
            for number in 2..=TASKS_MOST as u64 + 10 {
                take_in(7, number, &task(number, What::Installing)).unwrap();
            }
            let tasks = load(7).unwrap().tasks;
            assert_eq!((tasks.len(), tasks[0].event.as_str()), (TASKS_MOST, "7-1"));
        });
    }
}
