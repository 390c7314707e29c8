//! What plugins may ask of the core, and what keeps them from asking more. The service implements it, `app` injects it into
//! the plugin host.
//!
//! Every question carries the [`Allowance`] of the call it is asked in, so that there is one place where it is checked,
//! whatever version of the contract a plugin speaks.
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Allowance, Denied, KnownHost, Patch};

/// Questions that a plugin with the grant may ask. Every implementation answers in far less than a hook's budget, and
/// checks every parameter: names come from plugins.
pub trait Capabilities: Send + Sync {
    /// Whether the catalogue offers an image of this name.
    fn has_image<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>>;

    /// Whether there is a boot template of this name.
    fn has_template<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>>;

    /// The names of all images that the catalogue offers, in order.
    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>>;

    /// The host with this number. Needs the grant `read`, as all that follows about hosts.
    fn host<'a>(&'a self, by: &'a Allowance, id: u64) -> BoxFuture<'a, Result<KnownHost, HostsError>> {
        let _ = (by, id);
        no_hosts()
    }

    /// Hosts by `serial`, `uuid`, `mac`, `hostname` or a dotted metadata path, in the order of their numbers.
    fn find_hosts<'a>(
        &'a self,
        by: &'a Allowance,
        key: &'a str,
        value: &'a str,
        page: Page,
    ) -> BoxFuture<'a, Result<HostPage, HostsError>> {
        let _ = (by, key, value, page);
        no_hosts()
    }

    /// All hosts, in the order of their numbers.
    fn hosts<'a>(&'a self, by: &'a Allowance, page: Page) -> BoxFuture<'a, Result<HostPage, HostsError>> {
        let _ = (by, page);
        no_hosts()
    }

    /// Changes a host at the revision that the plugin saw. In a dry run it is checked and answered, and not changed.
    fn apply<'a>(
        &'a self,
        by: &'a Allowance,
        id: u64,
        revision: u64,
        patch: Patch,
    ) -> BoxFuture<'a, Result<KnownHost, HostsError>> {
        let _ = (by, id, revision, patch);
        no_hosts()
    }

    /// A value of the plugin's own store. Needs the grant `kv`, as all that follows.
    fn kv_get<'a>(&'a self, by: &'a Allowance, key: &'a str) -> BoxFuture<'a, Result<Option<KvEntry>, KvError>> {
        let _ = (by, key);
        no_kv()
    }

    /// Writes a value; answers its new version.
    fn kv_put<'a>(
        &'a self,
        by: &'a Allowance,
        key: &'a str,
        value: Vec<u8>,
        expect: Expect,
    ) -> BoxFuture<'a, Result<u64, KvError>> {
        let _ = (by, key, value, expect);
        no_kv()
    }

    /// Removes a value.
    fn kv_delete<'a>(&'a self, by: &'a Allowance, key: &'a str, expect: Expect) -> BoxFuture<'a, Result<(), KvError>> {
        let _ = (by, key, expect);
        no_kv()
    }

    /// Keys in order, from after a key on.
    fn kv_list<'a>(
        &'a self,
        by: &'a Allowance,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<String>, KvError>> {
        let _ = (by, prefix, after, limit);
        no_kv()
    }
}

fn no_hosts<T: Send + 'static>() -> BoxFuture<'static, Result<T, HostsError>> {
    std::future::ready(Err(HostsError::Denied("there are no hosts here".to_owned()))).boxed()
}

fn no_kv<T: Send + 'static>() -> BoxFuture<'static, Result<T, KvError>> {
    std::future::ready(Err(KvError::Denied("there is no store here".to_owned()))).boxed()
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From after this host on.
    pub after: Option<u64>,
    /// At most so many; the core may give fewer.
    pub limit: u32,
}

/// A part of a list of hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct HostPage {
    /// In the order of their numbers.
    pub hosts: Vec<KnownHost>,
    /// Where the next part begins; none: that was all.
    pub next: Option<u64>,
}

/// A value of a plugin's own store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEntry {
    /// What was put.
    pub value: Vec<u8>,
    /// Changes with every put.
    pub version: u64,
}

/// What must hold for a value to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Whatever,
    /// There is none.
    Absent,
    /// It has this version.
    Version(u64),
}

/// Why the core did not answer about images and templates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// The plugin may not ask this.
    #[error("{0}")]
    Denied(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}

/// Why the core did not answer about hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// A grant is missing, or the hook allows no changes.
    #[error("{0}")]
    Denied(String),
    /// The question makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such host.
    #[error("there is no such host")]
    NotFound,
    /// The host has this revision by now.
    #[error("the host has revision {0} by now")]
    Conflict(u64),
    /// Not done; safe to try again.
    #[error("{0}")]
    Unavailable(String),
}

/// Why the core did not read or write a plugin's own store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The grant is missing, or the hook allows no changes.
    #[error("{0}")]
    Denied(String),
    /// The value has this version by now; 0: there is none.
    #[error("the value has version {0} by now")]
    Conflict(u64),
    /// Key or value are larger than allowed.
    #[error("the key or value is too large")]
    TooLarge,
    /// The plugin's quota is used up.
    #[error("the plugin's store is full")]
    Full,
    /// Not done; safe to try again.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Denied> for HostsError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied.to_string())
    }
}

impl From<Denied> for KvError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied.to_string())
    }
}
