//! One call of the hook `events`: what a plugin is shown of an event, and what comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::domain::{Actor, Event, EventKind, Host, HostId};
use crate::hooks::{self, Admission, Binding, Call, Hook, HookError, Hooks, KnownHost, Run};
use crate::service::Service;
use crate::service::plan::known_host;
use crate::store::{Generation, StoreError};

/// A plugin gets this much longer than its budget before its future is dropped: its own host stops it with a better word.
const GRACE: Duration = Duration::from_millis(100);
/// A plugin that answers neither an error nor progress.
pub(super) const TOLD_NONE: &str = "answered that none of the events is done";

/// The hosts of events, as they are now; and as they were at last, if they are forgotten.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    known: BTreeMap<HostId, KnownHost>,
    forgotten: BTreeMap<HostId, KnownHost>,
}

impl Hosts {
    /// Whether a plugin is told of this host. Of one that vanished without a trace, if it is told of all.
    pub(super) fn are_for(&self, binding: &Binding, host: HostId) -> bool {
        let host = self.known.get(&host).or_else(|| self.forgotten.get(&host));
        host.map_or_else(|| binding.selector.takes_all(), |host| binding.selector.takes(host))
    }
}

/// Reads the hosts of events, each once.
pub(super) async fn hosts_of(service: &Service, events: &[&Event]) -> Result<Hosts, StoreError> {
    let mut ids: Vec<HostId> = events.iter().map(|event| event.host).collect();
    ids.sort_unstable();
    ids.dedup();
    let found = service.store.some_hosts(&ids).await?;
    let named = |host: &Host| (host.id, known_host(host));
    let mut hosts = Hosts { known: found.iter().map(named).collect(), forgotten: BTreeMap::new() };
    for id in ids {
        if !hosts.known.contains_key(&id)
            && let Some(host) = service.store.forgotten_host(id).await?
        {
            hosts.forgotten.insert(id, known_host(&host));
        }
    }
    Ok(hosts)
}

/// The name of an event, which no other event ever has: those of a restored store are of another generation.
pub(super) fn event_id(generation: Generation, event: &Event) -> String {
    format!("{generation}-{}-{}", event.host, event.seq)
}

/// An event as plugins are shown it. Its id is the same whenever it is told.
pub(super) fn event(generation: Generation, event: &Event, hosts: &Hosts) -> hooks::Event {
    hooks::Event {
        id: event_id(generation, event),
        host_seq: event.seq,
        at_ms: u64::try_from(event.at.as_millisecond()).unwrap_or_default(),
        kind: event.kind.name().to_owned(),
        host: hosts.known.get(&event.host).cloned(),
        detail: detail(event),
    }
}

/// The host's number, who caused it, and the fields of its kind.
fn detail(event: &Event) -> Map<String, Value> {
    let fields = serde_json::to_value(&event.kind).ok();
    let mut detail = match fields {
        Some(Value::Object(fields)) => fields,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => Map::new(),
    };
    detail.remove("kind");
    let actor = match &event.actor {
        Actor::Machine => "machine".to_owned(),
        Actor::Server => "server".to_owned(),
        Actor::Operator(name) => format!("operator {name}"),
        Actor::Plugin(name) => format!("plugin {name}"),
    };
    detail.insert("actor".to_owned(), actor.into());
    // The number stays when the host is gone.
    detail.insert("host_id".to_owned(), event.host.get().into());
    detail
}

/// Whether a plugin is told of this event at all. What it caused itself it knows.
pub(super) fn is_wanted(binding: &Binding, wanted: &[String], event: &Event) -> bool {
    !matches!(&event.actor, Actor::Plugin(name) if name == binding.plugin.name())
        && binding.wants_event(wanted, EventKind::name(&event.kind))
}

/// About how many bytes an event takes in a call: estimated, as writing it out would cost as much as the call.
pub(super) fn size_bytes(event: &hooks::Event) -> usize {
    let object = |fields: &Map<String, Value>| -> usize {
        fields.iter().map(|(name, value)| FIELD + name.len() + weight(value)).sum()
    };
    let host = event.host.as_ref().map_or(0, |host| {
        object(&host.more) + object(&host.metadata) + FIELD * (host.macs.len() + host.states.len() + FIELD)
    });
    host + object(&event.detail) + FIELD * FIELD
}

/// What a field takes beside its name and value, quotes and the like; and about how many fields there are besides.
const FIELD: usize = 24;

fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => FIELD,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|value| FIELD + weight(value)).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| FIELD + name.len() + weight(value)).sum(),
    }
}

/// Tells a plugin of events, within its budget. Answers how many, from the front, are done. The caller minds the breaker.
pub(super) async fn tell(
    service: &Service,
    hooks: &Hooks,
    binding: &Binding,
    events: &[hooks::Event],
    attempt: u32,
    run: Run,
) -> Result<usize, HookError> {
    let first = events.first().map(|event| event.id.as_str()).unwrap_or_default();
    let now_ms = u64::try_from(service.clock.now().as_millisecond()).unwrap_or_default();
    let budget = hooks.budgets().events;
    // Of the plugin too: what two plugins send to the same service are two things.
    let id = format!("{}-{first}-{}", Hook::Events, binding.plugin.name());
    let call = Call { attempt, budget, ..Call::new(id, now_ms, run) };
    let reply = tokio::time::timeout(budget + GRACE, binding.plugin.handle(&call, events)).await;
    let done = reply.map_err(|_| HookError::Timeout { budget })?.result?;
    match usize::try_from(done) {
        Ok(done) if done <= events.len() => Ok(done),
        Ok(_) | Err(_) => {
            Err(HookError::BadAnswer(format!("it was told of {} events and says that {done} are done", events.len())))
        }
    }
}

/// Tells a breaker how a call ended.
pub(super) fn record(binding: &Binding, admission: Admission, result: Result<&usize, &HookError>) {
    binding.breakers.record(Hook::Events, admission, result.err(), Instant::now());
}
