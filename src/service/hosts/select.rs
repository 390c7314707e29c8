//! Which hosts people mean.
//!
//! Invariant: what names one host never silently names another: a text that fits several is refused with all of them,
//! and a text that fits none is an error, not an empty answer.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::domain::{DmiUuid, Host, HostId, Hostname, Identity, MacAddr, Serial};
use crate::store::StoreError;

use super::super::Service;
use super::error::{HostsError, nearest};

/// Hosts per read.
const SCAN: u32 = 500;

/// Hosts that are meant: those that the selectors name, or all if there is none, of which every condition is true.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names of hosts.
    pub selectors: Vec<Selector>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// One way to name hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// From a number to another, both included.
    Range(HostId, HostId),
    /// A number, a name, a serial number, a UUID or a MAC.
    One(String),
}

/// Something that is true of a host or not, written `field=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    field: Field,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Id,
    Hostname,
    Serial,
    Uuid,
    Mac,
    State,
    Hold,
    Running,
    Quarantined,
    Locked,
    Metadata(String),
}

/// The text names no hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Nothing at all.
    #[error("a host is named by its number, name, serial number, MAC or UUID, or several by a range such as 1-20")]
    Empty,
    /// A range that ends before it begins.
    #[error("the range {0} ends before it begins")]
    Backwards(String),
}

/// The text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// No `=`.
    #[error("{0:?} is no condition: write field=value, such as state=new or metadata.site=fra1")]
    Shape(String),
    /// No such field.
    #[error(
        "hosts have no field {0:?}: there are id, hostname, serial, uuid, mac, state, hold, running, quarantined, locked, metadata.KEY"
    )]
    Field(String),
    /// Neither yes nor no.
    #[error("{0} is yes or no")]
    YesOrNo(&'static str),
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SelectorError::Empty);
        }
        if let Some((first, last)) = text.split_once('-')
            && let (Ok(first), Ok(last)) = (first.parse::<HostId>(), last.parse::<HostId>())
        {
            return if last < first {
                Err(SelectorError::Backwards(text.to_owned()))
            } else {
                Ok(Self::Range(first, last))
            };
        }
        Ok(Self::One(text.to_owned()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::One(text) => f.write_str(text),
        }
    }
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let (name, value) = text.split_once('=').ok_or_else(|| ConditionError::Shape(text.to_owned()))?;
        let yes_or_no = |field, name| match value {
            "yes" | "no" => Ok(field),
            _ => Err(ConditionError::YesOrNo(name)),
        };
        let field = match name.trim() {
            "id" => Field::Id,
            "hostname" | "name" => Field::Hostname,
            "serial" => Field::Serial,
            "uuid" => Field::Uuid,
            "mac" => Field::Mac,
            "state" => Field::State,
            "hold" => yes_or_no(Field::Hold, "hold")?,
            "running" => yes_or_no(Field::Running, "running")?,
            "quarantined" => yes_or_no(Field::Quarantined, "quarantined")?,
            "locked" => yes_or_no(Field::Locked, "locked")?,
            other => match other.strip_prefix("metadata.").filter(|path| !path.is_empty()) {
                Some(path) => Field::Metadata(path.to_owned()),
                None => return Err(ConditionError::Field(other.to_owned())),
            },
        };
        Ok(Self { field, value: value.to_owned() })
    }
}

impl Service {
    /// Hosts of a selection in the order of their numbers, after `after`, at most `limit`; and after which number to go
    /// on, if there may be more.
    pub async fn find(
        &self,
        selection: &Selection,
        after: Option<HostId>,
        limit: usize,
    ) -> Result<(Vec<Host>, Option<HostId>), HostsError> {
        if selection.selectors.is_empty() {
            return self.scan(after, limit, |host| self.agrees(host, &selection.conditions)).await;
        }
        let mut named = BTreeMap::new();
        for selector in &selection.selectors {
            for host in self.named(selector, after, limit).await? {
                named.insert(host.id, host);
            }
        }
        let mut hosts: Vec<Host> =
            named.into_values().filter(|host| after.is_none_or(|after| host.id > after)).collect();
        let next = hosts.get(limit.saturating_sub(1)).filter(|_| hosts.len() > limit).map(|host| host.id);
        hosts.truncate(limit);
        hosts.retain(|host| self.agrees(host, &selection.conditions));
        Ok((hosts, next))
    }

    /// The one host that a text names.
    pub async fn find_one(&self, text: &str) -> Result<Host, HostsError> {
        match text.parse() {
            Ok(Selector::One(text)) => self.one(&text).await,
            Ok(Selector::Range(..)) => Err(HostsError::NotOne(text.to_owned())),
            Err(_) => Err(HostsError::NotFound { selector: text.to_owned(), suggestion: None }),
        }
    }

    /// Whether every condition is true of a host.
    pub fn agrees(&self, host: &Host, conditions: &[Condition]) -> bool {
        conditions.iter().all(|condition| self.is_true(condition, host))
    }

    /// Refuses a name that another host has.
    pub(in crate::service) async fn check_name(&self, of: Option<HostId>, name: &Hostname) -> Result<(), HostsError> {
        let has_it = |host: &Host| Some(host.id) != of && host.hostname.as_ref() == Some(name);
        match self.scan(None, 1, has_it).await?.0.first() {
            Some(host) => Err(HostsError::NameTaken { name: name.clone(), owner: host.id }),
            None => Ok(()),
        }
    }

    /// Hosts that wait in, or for, a state; the first few.
    pub(in crate::service) async fn hosts_with_state(
        &self,
        state: &str,
        limit: usize,
    ) -> Result<Vec<Host>, HostsError> {
        Ok(self.scan(None, limit, |host| host.states.iter().any(|name| name.as_str() == state)).await?.0)
    }

    async fn named(&self, selector: &Selector, after: Option<HostId>, limit: usize) -> Result<Vec<Host>, HostsError> {
        let (first, last) = match selector {
            Selector::One(text) => return Ok(vec![self.one(text).await?]),
            Selector::Range(first, last) => (first.get(), *last),
        };
        let before_first = first.checked_sub(1).map(HostId::new);
        let hosts = self.range(before_first.max(after), last, limit.saturating_add(1)).await?;
        // Later pages of a range may well be empty; the whole range may not.
        if hosts.is_empty() && after <= before_first {
            return Err(HostsError::NotFound { selector: selector.to_string(), suggestion: None });
        }
        Ok(hosts)
    }

    async fn range(&self, mut after: Option<HostId>, last: HostId, limit: usize) -> Result<Vec<Host>, StoreError> {
        let mut found = Vec::new();
        loop {
            let page = self.store.hosts(after, SCAN).await?;
            let Some(end) = page.last().map(|host| host.id) else { return Ok(found) };
            found.extend(page.into_iter().filter(|host| host.id <= last));
            found.truncate(limit);
            if end >= last || found.len() == limit {
                return Ok(found);
            }
            after = Some(end);
        }
    }

    async fn one(&self, text: &str) -> Result<Host, HostsError> {
        let mut found: BTreeMap<HostId, (&str, Host)> = BTreeMap::new();
        if let Ok(id) = text.parse::<HostId>()
            && let Some(host) = self.store.host(id).await?
        {
            found.insert(host.id, ("number", host));
        }
        let identity = Identity {
            serial: text.parse::<Serial>().ok(),
            uuid: text.parse::<DmiUuid>().ok(),
            macs: text.parse::<MacAddr>().into_iter().collect(),
        };
        if !identity.is_empty() {
            for host in self.store.candidates(&identity).await?.hosts {
                let how = if !host.identity.macs.is_disjoint(&identity.macs) {
                    "MAC"
                } else if identity.serial.is_some() && host.identity.serial == identity.serial {
                    "serial number"
                } else {
                    "UUID"
                };
                found.entry(host.id).or_insert((how, host));
            }
        }
        let mut suggestion = None;
        if let Ok(name) = text.parse::<Hostname>() {
            let is_called_so = |host: &Host| host.hostname.as_ref() == Some(&name);
            for host in self.scan(None, 2, is_called_so).await?.0 {
                found.entry(host.id).or_insert(("name", host));
            }
            if found.is_empty() {
                suggestion = self.similar_name(text).await?;
            }
        }
        let mut hosts = found.into_values();
        match (hosts.next(), hosts.next()) {
            (Some((_, only)), None) => Ok(only),
            (None, _) => Err(HostsError::NotFound { selector: text.to_owned(), suggestion }),
            (Some(first), Some(second)) => {
                let all = [first, second].into_iter().chain(hosts);
                let candidates = all.map(|(how, host)| format!("host {} by its {how}", host.id)).collect();
                Err(HostsError::Ambiguous { selector: text.to_owned(), candidates })
            }
        }
    }

    async fn similar_name(&self, text: &str) -> Result<Option<String>, HostsError> {
        let mut names = Vec::new();
        let collect = |host: &Host| {
            // Only what resembles it is kept, so that a large fleet costs time but no memory.
            names.extend(host.hostname.iter().filter_map(|name| nearest(text, [name.to_string()])));
            false
        };
        self.scan(None, 1, collect).await?;
        Ok(nearest(text, names))
    }

    /// Hosts that are wanted, in order.
    async fn scan(
        &self,
        mut after: Option<HostId>,
        limit: usize,
        mut is_wanted: impl FnMut(&Host) -> bool,
    ) -> Result<(Vec<Host>, Option<HostId>), HostsError> {
        let mut found = Vec::new();
        loop {
            let page = self.store.hosts(after, SCAN).await?;
            if page.is_empty() {
                return Ok((found, None));
            }
            for host in page {
                after = Some(host.id);
                if is_wanted(&host) {
                    found.push(host);
                }
                if found.len() >= limit {
                    return Ok((found, after));
                }
            }
        }
    }

    fn is_true(&self, condition: &Condition, host: &Host) -> bool {
        let value = condition.value.as_str();
        let is = |answer: bool| answer == (value == "yes");
        match &condition.field {
            Field::Id => host.id.to_string() == value,
            Field::Hostname => host.hostname.as_ref().is_some_and(|name| name.as_str().eq_ignore_ascii_case(value)),
            Field::Serial => host.identity.serial.is_some() && host.identity.serial == value.parse().ok(),
            Field::Uuid => host.identity.uuid.is_some() && host.identity.uuid == value.parse().ok(),
            Field::Mac => value.parse().is_ok_and(|mac: MacAddr| host.identity.macs.contains(&mac)),
            Field::State => host.states.current().as_str() == value || host.states.to_string() == value,
            Field::Hold => is(self.held_for(host).is_some()),
            Field::Running => is(host.is_attempt_open()),
            Field::Quarantined => is(host.quarantined),
            Field::Locked => is(host.lock.is_some()),
            Field::Metadata(path) => host.metadata.get(path).is_some_and(|found| is_written(found, value)),
        }
    }
}

fn is_written(found: &Value, value: &str) -> bool {
    let text = match found {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => found.to_string(),
    };
    text == value
}
