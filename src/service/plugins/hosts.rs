//! Hosts, as plugins read them: in pages that are bounded in hosts, bytes, and hosts that are looked at.

use serde_json::Value;

use crate::domain::{Host, HostId, Hostname, Identity, Metadata};
use crate::hooks::{HostPage, HostsError, KnownHost, Page, searched_path};
use crate::service::Service;
use crate::service::plan::known_host;
use crate::store::StoreError;

/// Hosts of one answer.
const PAGE_MAX: u32 = 100;
/// Metadata of one answer, in bytes, beyond which no further host is added.
const PAGE_MAX_BYTES: usize = 512 << 10;
/// Hosts that one question looks at. Whoever searches goes on with the next page.
const LOOKED_AT_MAX: usize = 2_000;
/// Hosts per read.
const READ: u32 = 200;

/// What hosts are searched for.
enum Wanted {
    Hostname(Hostname),
    Metadata { path: String, value: String },
}

/// A page in the making.
struct Filling {
    hosts: Vec<KnownHost>,
    limit: usize,
    bytes: usize,
    last: Option<u64>,
}

impl Service {
    pub(super) async fn known(&self, id: HostId) -> Result<KnownHost, HostsError> {
        let host = self.store.host(id).await.map_err(unavailable)?;
        host.as_ref().map(known_host).ok_or(HostsError::NotFound)
    }

    pub(super) async fn all_known(&self, page: Page) -> Result<HostPage, HostsError> {
        self.search(page, |_| true).await
    }

    pub(super) async fn known_by(&self, key: &str, value: &str, page: Page) -> Result<HostPage, HostsError> {
        if value.is_empty() {
            return Err(HostsError::Invalid("hosts cannot be found by nothing".to_owned()));
        }
        let invalid = || HostsError::Invalid(format!("{:?} is no {key}", value.chars().take(80).collect::<String>()));
        let mut identity = Identity::default();
        match key {
            "serial" => identity.serial = Some(value.parse().map_err(|_| invalid())?),
            "uuid" => identity.uuid = Some(value.parse().map_err(|_| invalid())?),
            "mac" => drop(identity.macs.insert(value.parse().map_err(|_| invalid())?)),
            _ => {
                let wanted = Wanted::new(key, value)?;
                return self.search(page, |host| wanted.is(host)).await;
            }
        }
        let candidates = self.store.candidates(&identity).await.map_err(unavailable)?;
        let mut filling = Filling::new(page);
        for host in candidates.hosts.iter().filter(|host| page.after.is_none_or(|after| host.id.get() > after)) {
            if filling.is_full() {
                return Ok(filling.continued());
            }
            filling.look(host, true);
        }
        Ok(filling.done())
    }

    async fn search(&self, page: Page, is_wanted: impl Fn(&Host) -> bool) -> Result<HostPage, HostsError> {
        let mut filling = Filling::new(page);
        let mut looked_at = 0;
        loop {
            let read = self.store.hosts(filling.last.map(HostId::new), READ).await.map_err(unavailable)?;
            if read.is_empty() {
                return Ok(filling.done());
            }
            for host in &read {
                if filling.is_full() || looked_at == LOOKED_AT_MAX {
                    return Ok(filling.continued());
                }
                looked_at += 1;
                filling.look(host, is_wanted(host));
            }
        }
    }
}

impl Filling {
    fn new(page: Page) -> Self {
        let limit = page.limit.clamp(1, PAGE_MAX) as usize;
        Self { hosts: Vec::new(), limit, bytes: 0, last: page.after }
    }

    fn is_full(&self) -> bool {
        self.hosts.len() == self.limit || self.bytes > PAGE_MAX_BYTES
    }

    fn look(&mut self, host: &Host, is_wanted: bool) {
        self.last = Some(host.id.get());
        if is_wanted {
            self.bytes += serde_json::to_vec(host.metadata.as_map()).map_or(Metadata::MOST_BYTES, |text| text.len());
            self.hosts.push(known_host(host));
        }
    }

    fn done(self) -> HostPage {
        HostPage { hosts: self.hosts, next: None }
    }

    fn continued(self) -> HostPage {
        HostPage { next: self.last, hosts: self.hosts }
    }
}

impl Wanted {
    fn new(key: &str, value: &str) -> Result<Self, HostsError> {
        if key == "hostname" {
            let name = value.parse().map_err(|error: crate::domain::HostnameError| error.to_string());
            return name.map(Self::Hostname).map_err(HostsError::Invalid);
        }
        match searched_path(key) {
            Some(path) => Ok(Self::Metadata { path: path.to_owned(), value: value.to_owned() }),
            None => Err(HostsError::Invalid(format!(
                "hosts are found by serial, uuid, mac, hostname or metadata.<path>, not by {:?}",
                key.chars().take(80).collect::<String>()
            ))),
        }
    }

    /// Texts are compared as they are, numbers, `true` and `false` as they are written in JSON; nothing else is found.
    fn is(&self, host: &Host) -> bool {
        match self {
            Self::Hostname(name) => host.hostname.as_ref() == Some(name),
            Self::Metadata { path, value } => match host.metadata.get(path) {
                None => false,
                Some(Value::String(text)) => text == value,
                Some(Value::Number(found)) => found.to_string() == *value,
                Some(Value::Bool(found)) => value == if *found { "true" } else { "false" },
                Some(Value::Null | Value::Array(_) | Value::Object(_)) => false,
            },
        }
    }
}

fn unavailable(error: StoreError) -> HostsError {
    HostsError::Unavailable(error.to_string())
}
