//! What plugins may ask and do: hosts, orders, and a store of their own.
//!
//! Invariant: every question passes the checks of its [`Allowance`] first, and nothing that a plugin wants changes a host
//! but by [`Service::change_by_plugin`]. A change that was begun is carried out even if the plugin's time is over meanwhile.

mod data;
mod hosts;
mod orders;
mod patch;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, Weak};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::domain::{HostId, PluginName};
use crate::hooks::{
    Allowance, Capabilities, CapabilityError, Expect, HostPage, HostsError, KnownHost, KvEntry, KvError, Page, Patch,
};

use super::{Service, Shelf};

pub(in crate::service) use data::Spaces;
pub use data::{PluginKey, PluginValue};
pub use orders::ApproveRefused;
pub(in crate::service) use orders::Runs;
pub(in crate::service) use patch::{By, PatchRefused};

/// All that plugins may ask, as the plugin host is given it. It is there before the use cases, as they need the plugins:
/// until [`PluginCore::attach`] it answers about images and templates alone.
#[derive(Debug)]
pub struct PluginCore {
    shelf: Shelf,
    // Weak: the use cases own the plugins, which own this.
    service: OnceLock<Weak<Service>>,
}

impl PluginCore {
    /// Over images and templates.
    pub const fn new(shelf: Shelf) -> Self {
        Self { shelf, service: OnceLock::new() }
    }

    /// From now on it answers about hosts too, and stores what plugins want to keep. A second time changes nothing.
    pub fn attach(&self, service: &Arc<Service>) {
        let _ = self.service.set(Arc::downgrade(service));
    }

    fn service(&self) -> Result<Arc<Service>, NotServing> {
        self.service.get().and_then(Weak::upgrade).ok_or(NotServing)
    }
}

/// There are no use cases yet, or no more.
struct NotServing;

impl NotServing {
    const SENTENCE: &str = "the server is just starting or stopping";
}

impl From<NotServing> for HostsError {
    fn from(_: NotServing) -> Self {
        Self::Unavailable(NotServing::SENTENCE.to_owned())
    }
}

impl From<NotServing> for KvError {
    fn from(_: NotServing) -> Self {
        Self::Unavailable(NotServing::SENTENCE.to_owned())
    }
}

/// The name under which a plugin acts and stores. The configuration admits no other; it is checked all the same, as it
/// becomes part of keys.
fn name_of(by: &Allowance) -> Result<PluginName, String> {
    by.plugin.parse().map_err(|error: crate::domain::PluginNameError| error.to_string())
}

impl Capabilities for PluginCore {
    fn has_image<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        Capabilities::has_image(&self.shelf, name)
    }

    fn has_template<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        Capabilities::has_template(&self.shelf, name)
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>> {
        Capabilities::images(&self.shelf)
    }

    fn host<'a>(&'a self, by: &'a Allowance, id: u64) -> BoxFuture<'a, Result<KnownHost, HostsError>> {
        async move {
            by.may_read()?;
            self.service()?.known(HostId::new(id)).await
        }
        .boxed()
    }

    fn find_hosts<'a>(
        &'a self,
        by: &'a Allowance,
        key: &'a str,
        value: &'a str,
        page: Page,
    ) -> BoxFuture<'a, Result<HostPage, HostsError>> {
        async move {
            by.may_read()?;
            self.service()?.known_by(key, value, page).await
        }
        .boxed()
    }

    fn hosts<'a>(&'a self, by: &'a Allowance, page: Page) -> BoxFuture<'a, Result<HostPage, HostsError>> {
        async move {
            by.may_read()?;
            self.service()?.all_known(page).await
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        by: &'a Allowance,
        id: u64,
        revision: u64,
        patch: Patch,
    ) -> BoxFuture<'a, Result<KnownHost, HostsError>> {
        async move {
            by.may_read()?;
            let plugin = name_of(by).map_err(HostsError::Denied)?;
            self.service()?.apply(&plugin, by, HostId::new(id), revision, &patch).await
        }
        .boxed()
    }

    fn kv_get<'a>(&'a self, by: &'a Allowance, key: &'a str) -> BoxFuture<'a, Result<Option<KvEntry>, KvError>> {
        async move {
            by.may_read_kv()?;
            let plugin = name_of(by).map_err(KvError::Denied)?;
            self.service()?.stored(&plugin, key).await
        }
        .boxed()
    }

    fn kv_put<'a>(
        &'a self,
        by: &'a Allowance,
        key: &'a str,
        value: Vec<u8>,
        expect: Expect,
    ) -> BoxFuture<'a, Result<u64, KvError>> {
        async move {
            by.may_write_kv()?;
            let plugin = name_of(by).map_err(KvError::Denied)?;
            self.service()?.keep(plugin, key.to_owned(), Some(value), expect, by.run).await
        }
        .boxed()
    }

    fn kv_delete<'a>(&'a self, by: &'a Allowance, key: &'a str, expect: Expect) -> BoxFuture<'a, Result<(), KvError>> {
        async move {
            by.may_write_kv()?;
            let plugin = name_of(by).map_err(KvError::Denied)?;
            self.service()?.keep(plugin, key.to_owned(), None, expect, by.run).await.map(drop)
        }
        .boxed()
    }

    fn kv_list<'a>(
        &'a self,
        by: &'a Allowance,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<String>, KvError>> {
        async move {
            by.may_read_kv()?;
            let plugin = name_of(by).map_err(KvError::Denied)?;
            self.service()?.listed(&plugin, prefix, after, limit).await
        }
        .boxed()
    }
}
