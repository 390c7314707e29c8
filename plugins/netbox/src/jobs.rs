//! The jobs. Each does as much as fits into a call and keeps its place, so that an outage, a crash or a large site costs
//! nothing but time.

use std::collections::BTreeMap;

use kiwispray_sdk::ask::hosts::{self, HostsError};
use kiwispray_sdk::ask::{self, Level, kv};
use kiwispray_sdk::{Error, KnownHost, NextRun};
use serde::{Deserialize, Serialize};

use crate::api::NetBox;
use crate::config::{Config, Key};
use crate::ledger;
use crate::lookup;
use crate::matching::{self, Found};
use crate::visit::{self, Visit};

/// Where the full read stands.
const FULL: &str = "full";
/// Where the reading of changes stands.
const CHANGES: &str = "changes";
/// The differences, for operators.
pub(crate) const DIFF: &str = "diff";
/// What a call must have left to begin another page.
const RESERVE_MS: u32 = 20_000;
/// When a job goes on that did not come to its end.
const AGAIN_MS: u32 = 200;
/// Hosts with something to do that are looked at in one call.
const WAITING_MOST: u32 = 500;
/// Bytes of the diff that is kept; more differences are only counted.
const DIFF_BYTES: usize = 48 * 1024;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Full {
    /// The last host that was visited in the round that is going on.
    after: Option<u64>,
    /// When a round was last complete.
    done_ms: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Changes {
    /// The newest change before the last complete round, and before the one before it. Reading from the older one on is the
    /// overlap: a transaction that was committed late is not missed.
    newest: Option<String>,
    older: Option<String>,
    /// The last device that was read in the round that is going on, and the newest change when it began.
    after: u64,
    upcoming: Option<String>,
}

/// What would change, if it was applied now.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Diff {
    at_ms: u64,
    complete: bool,
    /// The last host that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    /// Hosts that are as NetBox says.
    same: u64,
    differ: Vec<Visit>,
    /// Hosts that are not in NetBox.
    unknown: Vec<u64>,
    doubts: Vec<(u64, String)>,
    /// Hosts that did not fit in here.
    left_out: u64,
}

/// Visits every host.
pub(crate) fn full(config: &Config) -> Result<NextRun, Error> {
    tell_waiting(config)?;
    let mut place: Full = kv::get_json(FULL)?.unwrap_or_default();
    if place.after.is_none() {
        begin_changes(config)?;
    }
    loop {
        let page = hosts::page(place.after, config.page_size)?;
        visit_all(config, page.hosts)?;
        place.after = page.next;
        if page.next.is_none() {
            place.done_ms = Some(ask::now_ms());
        }
        kv::put_json(FULL, &place)?;
        if let Some(next) = next_run(page.next.is_none()) {
            return Ok(next);
        }
    }
}

/// Before the first round: what changes during it is then read again.
fn begin_changes(config: &Config) -> Result<(), Error> {
    let mut changes: Changes = kv::get_json(CHANGES)?.unwrap_or_default();
    if changes.newest.is_none() {
        changes.newest = NetBox::new(config).newest_change()?;
        kv::put_json(CHANGES, &changes)?;
    }
    Ok(())
}

/// Visits the hosts whose devices have changed since a full read began.
pub(crate) fn incremental(config: &Config) -> Result<NextRun, Error> {
    let netbox = NetBox::new(config);
    let mut place: Changes = kv::get_json(CHANGES)?.unwrap_or_default();
    if place.newest.is_none() {
        return full(config);
    }
    tell_waiting(config)?;
    loop {
        if place.upcoming.is_none() {
            place.upcoming = netbox.newest_change()?;
        }
        let since = place.older.as_ref().or(place.newest.as_ref()).cloned().unwrap_or_default();
        let page = netbox.devices_since(&since, place.after, config.page_size as usize)?;
        let mut known = BTreeMap::new();
        for device in &page.devices {
            known.extend(hosts_of(config, device.id, &device.serial)?.into_iter().map(|host| (host.id, host)));
        }
        visit_all(config, known.into_values().collect())?;
        match page.next {
            Some(after) => place.after = after,
            None => {
                place.older = place.newest.take();
                place.newest = place.upcoming.take().or_else(|| place.older.clone());
                place.after = 0;
            }
        }
        kv::put_json(CHANGES, &place)?;
        if let Some(next) = next_run(page.next.is_none()) {
            return Ok(next);
        }
    }
}

/// Looks at every host, changes nothing, and leaves what would change at the key [`DIFF`].
pub(crate) fn diff(config: &Config) -> Result<NextRun, Error> {
    let mut document: Diff = kv::get_json(DIFF)?.unwrap_or_default();
    if document.complete {
        document = Diff::default();
    }
    document.at_ms = ask::now_ms();
    loop {
        let page = hosts::page(document.after, config.page_size)?;
        let found = lookup::find(config, &page.hosts)?;
        for (host, found) in page.hosts.into_iter().zip(found) {
            look(config, host, found, &mut document)?;
        }
        document.after = page.next;
        document.complete = page.next.is_none();
        kv::put_json(DIFF, &document)?;
        if document.complete {
            let Diff { same, differ, unknown, doubts, .. } = &document;
            let (differ, unknown, doubts) = (differ.len(), unknown.len(), doubts.len());
            ask::note(&format!("{differ} hosts differ, {same} do not; {unknown} not in NetBox, {doubts} in doubt"));
        }
        if let Some(next) = next_run(document.complete) {
            return Ok(next);
        }
    }
}

/// How a job goes on after a page; none: with the next page. Every call does one page at least.
fn next_run(is_complete: bool) -> Option<NextRun> {
    if is_complete {
        Some(NextRun::AtPeriod)
    } else {
        (ask::budget_ms() < RESERVE_MS).then_some(NextRun::AfterMs(AGAIN_MS))
    }
}

fn look(config: &Config, host: KnownHost, found: Found, document: &mut Diff) -> Result<(), Error> {
    let id = host.id;
    let bytes = |value: &Diff| serde_json::to_vec(value).map_or(usize::MAX, |text| text.len());
    match found {
        Found::One(device) => {
            let visit = visit::visit(config, host, &device, true)?;
            report(&visit, true);
            if visit.differences.is_empty() && visit.order.is_none() && visit.problems.is_empty() {
                document.same += 1;
                return Ok(());
            }
            document.differ.push(visit);
            if bytes(document) > DIFF_BYTES {
                document.differ.pop();
                document.left_out += 1;
            }
        }
        Found::No | Found::Doubt(_) if bytes(document) > DIFF_BYTES => document.left_out += 1,
        Found::No => document.unknown.push(id),
        Found::Doubt(why) => document.doubts.push((id, why)),
    }
    Ok(())
}

/// Tells NetBox what waits to be told, in half of the time at most.
///
/// # Errors
/// NetBox is away. What it refuses for one host keeps no other waiting.
fn tell_waiting(config: &Config) -> Result<(), Error> {
    if ask::dry_run() {
        return Ok(());
    }
    let mut waiting = ledger::waiting(None, WAITING_MOST)?;
    if !waiting.is_empty() {
        // Another one begins each time, so that those that are refused again and again do not use up all the time.
        let turn = usize::try_from(ask::now_ms() / 1_000).unwrap_or_default() % waiting.len();
        waiting.rotate_left(turn);
    }
    let half = ask::budget_ms() / 2;
    for host in waiting {
        match tell(config, host) {
            Ok(()) => {}
            Err(away @ Error::Retry(_)) => return Err(away),
            Err(error @ (Error::Invalid(_) | Error::Failed(_) | Error::Fatal(_))) => told_later(host, &error),
        }
        if ask::budget_ms() < half {
            break;
        }
    }
    Ok(())
}

/// Leaves a word on what NetBox could not be told; it stays written down.
pub(crate) fn told_later(host: u64, error: &Error) {
    let why = match error {
        Error::Invalid(why) | Error::Failed(why) | Error::Fatal(why) => why,
        Error::Retry(later) => &later.reason,
    };
    ask::note(&format!("host {host}: told later: {why}"));
    ask::log(Level::Warn, "NetBox is told later", &[("host", &host.to_string()), ("why", why)]);
}

/// Does what waits to be done for a host.
///
/// # Errors
/// What keeps it from being done; it stays written down.
pub(crate) fn tell(config: &Config, id: u64) -> Result<(), Error> {
    let host = match hosts::get(id) {
        Ok(host) => host,
        Err(HostsError::NotFound) => return forget(id),
        Err(error) => return Err(error.into()),
    };
    let found = lookup::find(config, std::slice::from_ref(&host))?;
    let tasks = ledger::load(id)?.tasks;
    match found.into_iter().next().unwrap_or(Found::No) {
        Found::One(device) => {
            report(&visit::visit(config, host, &device, false)?, false);
            visit::tell(config, id, &device, &tasks)?;
        }
        Found::No => drop_tasks(id, "it is not in NetBox", Level::Info)?,
        Found::Doubt(why) => drop_tasks(id, &why, Level::Warn)?,
    }
    ledger::rest(id, false)
}

/// A host that NetBox does not know needs nothing told; it is looked up again by every full read.
fn drop_tasks(id: u64, why: &str, level: Level) -> Result<(), Error> {
    ask::log(level, "host has no device", &[("host", &id.to_string()), ("why", why)]);
    ask::note(&format!("host {id}: {why}"));
    forget(id)
}

/// What a request came to stays written down: the device may come back with the request still in its field.
fn forget(id: u64) -> Result<(), Error> {
    ledger::change(id, |ledger| ledger.tasks.clear())?;
    ledger::rest(id, true)
}

fn visit_all(config: &Config, machines: Vec<KnownHost>) -> Result<(), Error> {
    let found = lookup::find(config, &machines)?;
    for (host, found) in machines.into_iter().zip(found) {
        match found {
            Found::One(device) => report(&visit::visit(config, host, &device, ask::dry_run())?, ask::dry_run()),
            Found::No => {}
            Found::Doubt(why) => {
                ask::log(Level::Warn, "host is not matched", &[("host", &host.id.to_string()), ("why", &why)]);
                ask::note(&format!("host {}: {why}", host.id));
            }
        }
    }
    Ok(())
}

/// The hosts that a changed device may be; whether one is, is looked up from its side.
fn hosts_of(config: &Config, device: u64, serial: &str) -> Result<Vec<KnownHost>, Error> {
    let mut found = Vec::new();
    if config.match_by.contains(&Key::Serial) && matching::says_something(serial) {
        found = hosts::find("serial", serial)?;
    }
    if let Some(host) = ledger::host_of(device)? {
        match hosts::get(host) {
            Ok(host) => found.push(host),
            Err(HostsError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn report(visit: &Visit, trial: bool) {
    let (host, device) = (visit.host.to_string(), visit.device.to_string());
    let fields = [("host", host.as_str()), ("device", device.as_str())];
    for one in &visit.differences {
        ask::note(&format!("host {host}: {}: {} -> {}", one.what, or_nothing(&one.from), or_nothing(&one.to)));
    }
    if let Some(states) = &visit.order {
        ask::note(&format!("host {host}: {} {states}", if trial { "would order" } else { "orders" }));
    }
    if !trial && !visit.differences.is_empty() {
        ask::log(Level::Info, "host changed as NetBox says", &fields);
    }
    for problem in &visit.problems {
        ask::note(&format!("host {host}: {problem}"));
        ask::log(Level::Warn, "host is not as NetBox says", &[fields.as_slice(), &[("why", problem)]].concat());
    }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}
