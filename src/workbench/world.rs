//! The core, as a case describes it: answers what a plugin asks, and keeps what it changes.
//!
//! Invariant: it grants nothing that the server would refuse. Grants, hooks that decide, dry runs, revisions, names of orders
//! and versions in kv are as in the server; what a case does not describe is not there.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::case::{self, Core, Exchange, ExchangeAnswer};
use crate::hooks::{
    Allowance, Capabilities, CapabilityError, Denied, Expect, HostPage, HostsError, KnownHost, KvEntry, KvError,
    KvUsed, Page, Patch, Run, check_kv_key, check_kv_list, check_kv_value, parse_path, searched_path,
};
use crate::plugin_host::egress::{Script, ScriptedFailure, ScriptedRequest, ScriptedResponse};

/// Hosts of a page at most.
const PAGE_MAX: u32 = 100;

/// The core of one case at a time.
#[derive(Default)]
pub(super) struct World {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    images: BTreeSet<String>,
    templates: BTreeSet<String>,
    hosts: BTreeMap<u64, KnownHost>,
    orders: BTreeSet<(u64, String)>,
    kv: BTreeMap<String, KvEntry>,
    version: u64,
    /// What other servers still have to answer.
    http: Vec<Exchange>,
    sent: Vec<ScriptedRequest>,
    unanswered: Vec<String>,
}

impl World {
    /// Becomes what a case describes, with the hosts that its request is about. What was before is gone.
    pub(super) fn become_that_of(&self, core: &Core, asked: Vec<KnownHost>) {
        let mut kept = Kept {
            images: core.images.iter().cloned().collect(),
            templates: core.templates.iter().cloned().collect(),
            http: core.http.clone(),
            ..Kept::default()
        };
        for host in core.hosts.iter().cloned().chain(asked) {
            kept.hosts.insert(host.id, host);
        }
        for (key, value) in &core.kv {
            kept.put(key, value.to_string().into_bytes());
        }
        for (key, value) in &core.kv_text {
            kept.put(key, value.clone().into_bytes());
        }
        *self.kept() = kept;
    }

    /// What stands in kv by now, as JSON if it is, else as text; `null` if nothing does.
    pub(super) fn kv_now(&self, key: &str) -> Value {
        let kept = self.kept();
        let Some(entry) = kept.kv.get(key) else { return Value::Null };
        serde_json::from_slice(&entry.value).unwrap_or_else(|_| String::from_utf8_lossy(&entry.value).into())
    }

    /// A host by now; `null` if there is none.
    pub(super) fn host_now(&self, id: u64) -> Value {
        self.kept().hosts.get(&id).and_then(|host| serde_json::to_value(host).ok()).unwrap_or_default()
    }

    /// What was sent, in order.
    pub(super) fn sent(&self) -> Vec<ScriptedRequest> {
        self.kept().sent.clone()
    }

    /// What was sent and the case has no answer for.
    pub(super) fn unanswered(&self) -> Vec<String> {
        self.kept().unanswered.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that holds it can panic half way.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, by: &Allowance, page: Page, wanted: impl Fn(&KnownHost) -> bool) -> Result<HostPage, HostsError> {
        by.may_read()?;
        let limit = page.limit.clamp(1, PAGE_MAX) as usize;
        let kept = self.kept();
        let later = kept.hosts.values().filter(|host| page.after.is_none_or(|after| host.id > after) && wanted(host));
        let mut hosts: Vec<_> = later.take(limit + 1).cloned().collect();
        let goes_on = hosts.len() > limit;
        hosts.truncate(limit);
        Ok(HostPage { next: hosts.last().filter(|_| goes_on).map(|host| host.id), hosts })
    }

    fn change(&self, by: &Allowance, id: u64, revision: u64, patch: &Patch) -> Result<KnownHost, HostsError> {
        let mut kept = self.kept();
        let known = kept.hosts.get(&id);
        by.may_apply(patch, known.is_some_and(KnownHost::is_finished))?;
        let host = known.ok_or(HostsError::NotFound)?;
        if host.revision != revision {
            return Err(HostsError::Conflict(host.revision));
        }
        if patch.order.is_some() && patch.states.is_none() {
            return Err(HostsError::Invalid("an order's name without states names nothing".to_owned()));
        }
        let mut changed = host.clone();
        patch.apply_to(&mut changed).map_err(|error| HostsError::Invalid(error.to_string()))?;
        let is_order = changed.states != host.states;
        if is_order {
            may_order(by, id, patch, &kept.orders)?;
            changed.attempts = 0;
        }
        if changed != *host {
            changed.revision += 1;
        }
        if by.run == Run::Real {
            if is_order {
                kept.orders.extend(patch.order.iter().map(|order| (id, order.clone())));
            }
            kept.hosts.insert(id, changed.clone());
        }
        Ok(changed)
    }

    fn kv<T>(
        &self,
        by: &Allowance,
        is_write: bool,
        answer: impl FnOnce(&mut Kept) -> Result<T, KvError>,
    ) -> Result<T, KvError> {
        if is_write {
            by.may_write_kv()?;
        } else {
            by.may_read_kv()?;
        }
        answer(&mut self.kept())
    }
}

impl Kept {
    fn put(&mut self, key: &str, value: Vec<u8>) -> u64 {
        self.version += 1;
        self.kv.insert(key.to_owned(), KvEntry { value, version: self.version });
        self.version
    }

    fn has_room(&self, key: &str, value_bytes: usize) -> Result<(), KvError> {
        let used = self.kv.iter().map(|(key, entry)| KvUsed::of(key, entry.value.len()));
        let old = self.kv.get(key).map_or_else(KvUsed::default, |entry| KvUsed::of(key, entry.value.len()));
        let all = used.fold(KvUsed::default(), KvUsed::and);
        all.replaced(old, KvUsed::of(key, value_bytes)).map(drop)
    }

    fn check(&self, key: &str, expect: Expect) -> Result<(), KvError> {
        let now = self.kv.get(key).map_or(0, |entry| entry.version);
        let fits = match expect {
            Expect::Whatever => true,
            Expect::Absent => now == 0,
            Expect::Version(version) => now == version,
        };
        if fits { Ok(()) } else { Err(KvError::Conflict(now)) }
    }
}

/// What is not a question of grants: whether the order was carried out before, and how many there were.
fn may_order(by: &Allowance, id: u64, patch: &Patch, carried_out: &BTreeSet<(u64, String)>) -> Result<(), HostsError> {
    if let Some(order) = patch.order.as_ref().filter(|order| carried_out.contains(&(id, (*order).clone()))) {
        return Err(HostsError::Denied(format!("the order {order:?} was carried out before")));
    }
    let most = by.grants.max_orders_per_run;
    if by.count_order() > most {
        return Err(Denied::TooManyOrders { plugin: by.plugin.clone(), most }.into());
    }
    Ok(())
}

impl Script for World {
    fn answer(&self, request: ScriptedRequest) -> Result<ScriptedResponse, ScriptedFailure> {
        let mut kept = self.kept();
        kept.sent.push(request.clone());
        let is_it = |exchange: &Exchange| exchange.method == request.method && exchange.url == request.url;
        let Some(index) = kept.http.iter().position(is_it) else {
            let what = format!("{} {}", request.method, request.url);
            kept.unanswered.push(what.clone());
            return Err(ScriptedFailure::NotSent(format!("the case has no answer to {what}")));
        };
        match kept.http.remove(index).answer {
            ExchangeAnswer::Response(response) => Ok(scripted(response)),
            ExchangeAnswer::NotSent(why) => Err(ScriptedFailure::NotSent(why)),
            ExchangeAnswer::Unknown(why) => Err(ScriptedFailure::Unknown(why)),
        }
    }
}

fn scripted(response: case::ScriptedResponse) -> ScriptedResponse {
    let mut headers: Vec<_> = response.headers.into_iter().collect();
    let body = match (response.json, response.text) {
        (Some(json), _) => {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
            json.to_string()
        }
        (None, text) => text.unwrap_or_default(),
    };
    ScriptedResponse { status: response.status, headers, body: body.into_bytes() }
}

/// By what hosts are found.
enum Key {
    Serial,
    Uuid,
    Mac,
    Hostname,
    Metadata(Vec<String>),
}

impl Key {
    fn parse(key: &str) -> Result<Self, HostsError> {
        Ok(match key {
            "serial" => Self::Serial,
            "uuid" => Self::Uuid,
            "mac" => Self::Mac,
            "hostname" => Self::Hostname,
            path => Self::Metadata(
                searched_path(path)
                    .and_then(parse_path)
                    .ok_or_else(|| HostsError::Invalid(format!("{path:?} is nothing to find hosts by")))?,
            ),
        })
    }

    fn finds(&self, host: &KnownHost, value: &str) -> bool {
        match self {
            Self::Serial => host.serial.eq_ignore_ascii_case(value),
            Self::Uuid => host.uuid.eq_ignore_ascii_case(value),
            Self::Mac => host.macs.iter().any(|mac| mac.eq_ignore_ascii_case(&value.replace('-', ":"))),
            Self::Hostname => host.hostname.as_deref() == Some(value),
            Self::Metadata(path) => match at(&host.metadata, path) {
                Some(Value::String(text)) => text == value,
                Some(other) => serde_json::from_str(value).is_ok_and(|value: Value| value == *other),
                None => false,
            },
        }
    }
}

fn at<'a>(metadata: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(metadata.get(first)?, |inner, key| inner.get(key))
}

/// Everything here answers at once.
fn ready<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    std::future::ready(answer).boxed()
}

impl Capabilities for World {
    fn has_image<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        ready(Ok(self.kept().images.contains(name)))
    }

    fn has_template<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        ready(Ok(self.kept().templates.contains(name)))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>> {
        ready(Ok(self.kept().images.iter().cloned().collect()))
    }

    fn host<'a>(&'a self, by: &'a Allowance, id: u64) -> BoxFuture<'a, Result<KnownHost, HostsError>> {
        ready(
            by.may_read()
                .map_err(HostsError::from)
                .and_then(|()| self.kept().hosts.get(&id).cloned().ok_or(HostsError::NotFound)),
        )
    }

    fn find_hosts<'a>(
        &'a self,
        by: &'a Allowance,
        key: &'a str,
        value: &'a str,
        page: Page,
    ) -> BoxFuture<'a, Result<HostPage, HostsError>> {
        let is_nothing = value.is_empty().then(|| HostsError::Invalid("hosts cannot be found by nothing".to_owned()));
        let key = is_nothing.map_or_else(|| Key::parse(key), Err);
        ready(key.and_then(|key| self.page(by, page, |host| key.finds(host, value))))
    }

    fn hosts<'a>(&'a self, by: &'a Allowance, page: Page) -> BoxFuture<'a, Result<HostPage, HostsError>> {
        ready(self.page(by, page, |_| true))
    }

    fn apply<'a>(
        &'a self,
        by: &'a Allowance,
        id: u64,
        revision: u64,
        patch: Patch,
    ) -> BoxFuture<'a, Result<KnownHost, HostsError>> {
        ready(self.change(by, id, revision, &patch))
    }

    fn kv_get<'a>(&'a self, by: &'a Allowance, key: &'a str) -> BoxFuture<'a, Result<Option<KvEntry>, KvError>> {
        ready(self.kv(by, false, |kept| {
            check_kv_key(key)?;
            Ok(kept.kv.get(key).cloned())
        }))
    }

    fn kv_put<'a>(
        &'a self,
        by: &'a Allowance,
        key: &'a str,
        value: Vec<u8>,
        expect: Expect,
    ) -> BoxFuture<'a, Result<u64, KvError>> {
        ready(self.kv(by, true, |kept| {
            check_kv_key(key)?;
            check_kv_value(&value)?;
            kept.check(key, expect)?;
            kept.has_room(key, value.len())?;
            Ok(if by.run == Run::Dry { kept.version + 1 } else { kept.put(key, value) })
        }))
    }

    fn kv_delete<'a>(&'a self, by: &'a Allowance, key: &'a str, expect: Expect) -> BoxFuture<'a, Result<(), KvError>> {
        ready(self.kv(by, true, |kept| {
            check_kv_key(key)?;
            kept.check(key, expect)?;
            if by.run == Run::Real {
                kept.kv.remove(key);
            }
            Ok(())
        }))
    }

    fn kv_list<'a>(
        &'a self,
        by: &'a Allowance,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<String>, KvError>> {
        ready(self.kv(by, false, |kept| {
            let limit = check_kv_list(prefix, after, limit)?;
            let keys = kept.kv.keys().filter(|key| key.starts_with(prefix));
            let later = keys.filter(|key| after.is_none_or(|after| key.as_str() > after));
            Ok(later.take(limit as usize).cloned().collect())
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::hooks::{Edit, Grant, Grants, Hook};

    fn world(core: &str) -> World {
        let world = World::default();
        world.become_that_of(&serde_json::from_str(core).unwrap(), Vec::new());
        world
    }

    fn allowed(hook: Hook, run: Run, grants: &[Grant]) -> Allowance {
        let grants = Grants { hosts: grants.iter().copied().collect(), kv: true, max_orders_per_run: 1 };
        Allowance::new("racks".into(), Arc::new(grants), hook, run, "c".into())
    }

    fn states(states: &str, order: Option<&str>) -> Patch {
        let states = Some(states.split(',').map(str::to_owned).collect());
        Patch { states, order: order.map(str::to_owned), ..Patch::default() }
    }

    const HOSTS: &str =
        r#"{"hosts": [{"states": ["new"]}, {"states": ["finished"], "metadata": {"site": {"rack": 7}}}]}"#;

    #[tokio::test]
    async fn nothing_is_changed_without_its_grant_in_a_decision_or_at_another_revision() {
        let world = world(HOSTS);
        let named = Patch { hostname: Edit::Set("n1".into()), ..Patch::default() };
        for (hook, grants, revision, wanted) in [
            (Hook::Events, &[Grant::Hostname][..], 1, "`read`"),
            (Hook::Events, &[Grant::Read], 1, "`hostname`"),
            (Hook::Boot, &[Grant::Read, Grant::Hostname], 1, "in the answer"),
            (Hook::Events, &[Grant::Read, Grant::Hostname], 4, "revision 1"),
        ] {
            let refused = world.apply(&allowed(hook, Run::Real, grants), 1, revision, named.clone()).await.unwrap_err();
            assert!(refused.to_string().contains(wanted), "{refused}");
        }
        let by = allowed(Hook::Events, Run::Real, &[Grant::Read, Grant::Hostname]);
        assert_eq!(world.apply(&by, 1, 1, named).await.unwrap().revision, 2);
        assert_eq!(world.host_now(1)["hostname"], "n1");
    }

    #[tokio::test]
    async fn an_order_for_a_finished_host_needs_two_grants_and_a_name_and_counts() {
        let world = world(HOSTS);
        let all = [Grant::Read, Grant::States, Grant::Reinstall];
        let weak = allowed(Hook::Schedule, Run::Real, &[Grant::Read, Grant::States]);
        assert!(
            world.apply(&weak, 2, 1, states("web", Some("A"))).await.unwrap_err().to_string().contains("`reinstall`")
        );
        let by = allowed(Hook::Schedule, Run::Real, &all);
        assert!(world.apply(&by, 2, 1, states("web", None)).await.unwrap_err().to_string().contains("name"));
        assert_eq!(world.apply(&by, 2, 1, states("web", Some("A"))).await.unwrap().state(), "web");
        assert!(world.apply(&by, 1, 1, states("web", None)).await.unwrap_err().to_string().contains("plugin approve"));
        let of_nothing = Patch { order: Some("B".into()), ..Patch::default() };
        assert!(matches!(world.apply(&by, 1, 1, of_nothing).await, Err(HostsError::Invalid(_))));
        let later = allowed(Hook::Schedule, Run::Real, &all);
        assert!(world.apply(&later, 2, 2, states("db", Some("A"))).await.unwrap_err().to_string().contains("before"));
    }

    #[tokio::test]
    async fn a_dry_run_answers_as_if_and_changes_nothing() {
        let world = world(r#"{"hosts": [{}], "kv": {"a": 1}, "kv_text": {"b": "text"}}"#);
        let dry = allowed(Hook::Schedule, Run::Dry, &[Grant::Read, Grant::States]);
        assert_eq!(world.apply(&dry, 1, 1, states("web", None)).await.unwrap().state(), "web");
        assert_eq!(world.host_now(1)["states"], json!(["new"]));
        assert_eq!(world.kv_put(&dry, "a", b"2".to_vec(), Expect::Whatever).await, Ok(3));
        world.kv_delete(&dry, "b", Expect::Whatever).await.unwrap();
        assert_eq!((world.kv_now("a"), world.kv_now("b"), world.kv_now("c")), (json!(1), json!("text"), Value::Null));
    }

    #[tokio::test]
    async fn hosts_are_found_by_metadata_and_what_is_no_key_is_invalid() {
        let world = world(HOSTS);
        let by = allowed(Hook::Boot, Run::Real, &[Grant::Read]);
        let all = Page { after: None, limit: 50 };
        let found = world.find_hosts(&by, "site.rack", "7", all).await.unwrap();
        assert_eq!(found.hosts.iter().map(|host| host.id).collect::<Vec<_>>(), [2]);
        let same = world.find_hosts(&by, "metadata.site.rack", "7", all).await.unwrap();
        assert_eq!(same.hosts.len(), 1, "as the server reads it");
        for (key, value) in [("a..b", "7"), ("site", "7"), ("serial", "")] {
            let found = world.find_hosts(&by, key, value, all).await;
            assert!(matches!(found, Err(HostsError::Invalid(_))), "{key}={value}: {found:?}");
        }
        let first = world.hosts(&by, Page { after: None, limit: 1 }).await.unwrap();
        assert_eq!((first.hosts.len(), first.next), (1, Some(1)));
    }
}
