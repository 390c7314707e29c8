//! Hosts that are kept, as the core keeps them: a change counts for the revision it was made for, leaving `finished` needs
//! an order, and an order is carried out once.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Core, OUTSIDE, with};
use crate::bindings::hosts::{HostPage, HostsError};
use crate::{Edit, KnownHost, Patch};

/// Hosts of one page, however many were asked for: a plugin has to follow `next`.
const PAGE_MAX: u32 = 100;

/// What [`Core`] knows of hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    known: BTreeMap<u64, KnownHost>,
    orders: BTreeSet<(u64, String)>,
    applied: Vec<(u64, Patch)>,
}

impl Core {
    /// Knows a host. One with the same id is replaced.
    #[must_use]
    pub fn host(self, host: KnownHost) -> Self {
        self.written.borrow_mut().hosts.known.insert(host.id, host);
        self
    }

    /// A host as it is by now.
    #[must_use]
    pub fn host_now(&self, id: u64) -> Option<KnownHost> {
        self.written.borrow().hosts.known.get(&id).cloned()
    }

    /// The changes that were applied so far, each with the host's id; those of a dry run are not among them.
    #[must_use]
    pub fn applied(&self) -> Vec<(u64, Patch)> {
        self.written.borrow().hosts.applied.clone()
    }
}

fn hosts<T>(answer: impl FnOnce(&mut Hosts) -> Result<T, HostsError>) -> Result<T, HostsError> {
    with(|core| answer(&mut core.written.borrow_mut().hosts)).unwrap_or_else(|| Err(HostsError::Denied(OUTSIDE.into())))
}

pub(crate) fn get(id: u64) -> Result<KnownHost, HostsError> {
    hosts(|hosts| hosts.known.get(&id).cloned().ok_or(HostsError::NotFound))
}

pub(crate) fn page(after: Option<u64>, limit: u32) -> Result<HostPage, HostsError> {
    hosts(|hosts| Ok(hosts.page(after, limit, |_| true)))
}

pub(crate) fn find(key: &str, value: &str, after: Option<u64>, limit: u32) -> Result<HostPage, HostsError> {
    let is_key = matches!(key, "serial" | "uuid" | "mac" | "hostname") || searched_keys(key).is_some();
    if !is_key || value.is_empty() {
        return Err(HostsError::Invalid(format!("{key:?} is nothing to find hosts by, or {value:?} nothing to find")));
    }
    hosts(|hosts| Ok(hosts.page(after, limit, |host| has(host, key, value))))
}

pub(crate) fn apply(id: u64, revision: u64, patch: &Patch) -> Result<KnownHost, HostsError> {
    let (dry_run, deciding) = with(|core| (core.dry_run, core.deciding)).unwrap_or_default();
    if deciding {
        return Err(HostsError::Denied(super::DECIDING.into()));
    }
    hosts(|hosts| hosts.apply(id, revision, patch, dry_run))
}

impl Hosts {
    fn page(&self, after: Option<u64>, limit: u32, wanted: impl Fn(&KnownHost) -> bool) -> HostPage {
        let limit = limit.clamp(1, PAGE_MAX) as usize;
        let later = self.known.values().filter(|host| after.is_none_or(|after| host.id > after) && wanted(host));
        let mut hosts: Vec<KnownHost> = later.take(limit + 1).cloned().collect();
        let more = hosts.len() > limit;
        hosts.truncate(limit);
        HostPage { next: hosts.last().filter(|_| more).map(|host| host.id), hosts }
    }

    fn apply(&mut self, id: u64, revision: u64, patch: &Patch, dry_run: bool) -> Result<KnownHost, HostsError> {
        let host = self.known.get(&id).ok_or(HostsError::NotFound)?;
        if host.revision != revision {
            return Err(HostsError::Conflict(host.revision));
        }
        let mut changed = patched(host, patch)?;
        if changed.states != host.states {
            match &patch.order {
                Some(order) if self.orders.contains(&(id, order.clone())) => {
                    return Err(HostsError::Denied(format!("the order {order:?} was carried out before")));
                }
                None if host.is_finished() => {
                    return Err(HostsError::Denied("a finished host installs again only by an order".into()));
                }
                Some(_) | None => {}
            }
            changed.attempts = 0;
        }
        if changed != *host {
            changed.revision += 1;
        }
        if !dry_run {
            let orders = patch.order.iter().filter(|_| changed.states != host.states);
            self.orders.extend(orders.map(|order| (id, order.clone())));
            self.applied.push((id, patch.clone()));
            self.known.insert(id, changed.clone());
        }
        Ok(changed)
    }
}

/// The host as it would be, at its old revision.
fn patched(host: &KnownHost, patch: &Patch) -> Result<KnownHost, HostsError> {
    let mut host = host.clone();
    match &patch.hostname {
        Edit::Keep => {}
        Edit::Clear => host.hostname = None,
        Edit::Set(name) => host.hostname = Some(name.clone()),
    }
    if let Some(states) = &patch.states {
        host.states = if states.is_empty() { vec!["finished".into()] } else { states.clone() };
    }
    let invalid = |what: String| HostsError::Invalid(what);
    let mut metadata: Map<String, Value> =
        serde_json::from_str(&host.metadata).map_err(|error| invalid(format!("the test's metadata: {error}")))?;
    for (path, value) in &patch.set {
        let value = serde_json::from_str(value).map_err(|error| invalid(format!("the value of {path:?}: {error}")))?;
        set(&mut metadata, &keys(path)?, value);
    }
    for path in &patch.unset {
        unset(&mut metadata, &keys(path)?);
    }
    host.metadata = Value::Object(metadata).to_string();
    Ok(host)
}

/// The keys of a dotted path; `\.` is a dot inside a key.
fn keys(path: &str) -> Result<Vec<String>, HostsError> {
    let invalid = || HostsError::Invalid(format!("{path:?} is no metadata path"));
    let mut keys = vec![String::new()];
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '.' => {
                keys.push(String::new());
                continue;
            }
            '\\' => chars.next().ok_or_else(invalid)?,
            c => c,
        };
        if let Some(key) = keys.last_mut() {
            key.push(c);
        }
    }
    if keys.iter().any(String::is_empty) { Err(invalid()) } else { Ok(keys) }
}

/// The keys of a metadata path that hosts are found by: below `metadata.`, or several.
fn searched_keys(key: &str) -> Option<Vec<String>> {
    match key.strip_prefix("metadata.") {
        Some(path) => keys(path).ok(),
        None => keys(key).ok().filter(|keys| keys.len() > 1),
    }
}

fn set(metadata: &mut Map<String, Value>, keys: &[String], value: Value) {
    let Some((key, rest)) = keys.split_first() else { return };
    if rest.is_empty() {
        metadata.insert(key.clone(), value);
        return;
    }
    let inner = metadata.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    if let Value::Object(inner) = inner {
        set(inner, rest, value);
    }
}

fn unset(metadata: &mut Map<String, Value>, keys: &[String]) {
    let Some((key, rest)) = keys.split_first() else { return };
    if rest.is_empty() {
        metadata.remove(key);
    } else if let Some(Value::Object(inner)) = metadata.get_mut(key) {
        unset(inner, rest);
    }
}

/// Whether a host is found by a key and a value.
fn has(host: &KnownHost, key: &str, value: &str) -> bool {
    match key {
        "serial" => host.serial.eq_ignore_ascii_case(value),
        "uuid" => host.uuid.eq_ignore_ascii_case(value),
        "mac" => host.macs.iter().any(|mac| mac.eq_ignore_ascii_case(&value.replace('-', ":"))),
        "hostname" => host.hostname.as_deref() == Some(value),
        path => {
            let Some(keys) = searched_keys(path) else { return false };
            let metadata: Value = serde_json::from_str(&host.metadata).unwrap_or_default();
            match keys.iter().try_fold(&metadata, |inner, key| inner.get(key)) {
                Some(Value::String(text)) => text == value,
                Some(other) => serde_json::from_str(value).is_ok_and(|value: Value| value == *other),
                None => false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host;
    use crate::{Error, ask, assign};

    fn named(id: u64, state: &str) -> KnownHost {
        KnownHost { id, metadata: format!(r#"{{"site":{{"rack":"r{id}"}}}}"#), ..host(state) }
    }

    #[test]
    fn a_change_counts_only_for_the_revision_it_was_made_for() {
        let core = Core::new().host(named(7, "new"));
        core.run(|| {
            let read = ask::hosts::get(7).unwrap();
            let changed = ask::hosts::apply(&read, Patch::default().set("site.row", 4).unset("site.rack")).unwrap();
            assert_eq!((changed.revision, changed.metadata.as_str()), (4, r#"{"site":{"row":4}}"#));
            let late = ask::hosts::apply(&read, Patch::default().hostname("n7"));
            assert_eq!(late, Err(HostsError::Conflict(4)));
            assert!(matches!(late.map_err(Error::from), Err(Error::Retry(_))));
            assert_eq!(ask::hosts::apply(&changed, Patch::default()).unwrap().revision, 4);
        });
    }

    #[test]
    fn a_finished_host_needs_an_order_and_carries_it_out_once() {
        let core = Core::new().host(named(7, "finished"));
        core.run(|| {
            let host = ask::hosts::get(7).unwrap();
            let unnamed = ask::hosts::apply(&host, Patch::default().states(["web"]));
            assert!(matches!(unnamed, Err(HostsError::Denied(_))));
            let ordered = ask::hosts::apply(&host, assign("web", "CHG-1")).unwrap();
            let finished = ask::hosts::apply(&ordered, Patch::default().states(Vec::<String>::new())).unwrap();
            assert!(finished.is_finished());
            assert!(matches!(ask::hosts::apply(&finished, assign("web", "CHG-1")), Err(HostsError::Denied(_))));
            assert_eq!(ask::hosts::apply(&finished, assign("web", "CHG-2")).unwrap().state(), "web");
        });
        assert_eq!(core.applied().len(), 3);
    }

    #[test]
    fn a_dry_run_answers_as_if_and_changes_nothing() {
        let core = Core::new().host(named(7, "new")).dry_run();
        let read = core.run(|| ask::hosts::get(7)).unwrap();
        assert_eq!(core.run(|| ask::hosts::apply(&read, assign("web", "CHG-1"))).unwrap().state(), "web");
        assert_eq!((core.host_now(7), core.applied()), (Some(read), Vec::new()));
    }

    #[test]
    fn hosts_are_found_on_every_page_by_identity_and_metadata() {
        let core = (1..=250).fold(Core::new(), |core, id| core.host(named(id, "new")));
        core.run(|| {
            assert_eq!(ask::hosts::find("serial", "s7").unwrap().len(), 250);
            assert_eq!(ask::hosts::find("site.rack", "r42").unwrap()[0].id, 42);
            assert_eq!(ask::hosts::find("mac", "52-54-00-00-00-07").unwrap().len(), 250);
            assert_eq!(ask::hosts::find("metadata.site.rack", "r42").unwrap()[0].id, 42);
            for (key, value) in [("", "x"), ("site", "x"), ("a..b", "x"), ("serial", "")] {
                assert!(matches!(ask::hosts::find(key, value), Err(HostsError::Invalid(_))), "{key}={value}");
            }
            let page = ask::hosts::page(Some(248), 1000).unwrap();
            assert_eq!((page.hosts.len(), page.next), (2, None));
        });
    }

    #[test]
    fn nothing_is_applied_inside_a_decision() {
        let core = Core::new().host(named(7, "new")).deciding();
        let read = core.run(|| ask::hosts::get(7)).unwrap();
        assert!(matches!(core.run(|| ask::hosts::apply(&read, Patch::default())), Err(HostsError::Denied(_))));
    }
}
