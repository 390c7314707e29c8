//! What a plugin wants changed, turned into a change of a host.
//!
//! Invariant: [`Service::change_by_plugin`] is the only way from a patch to a change, whether the patch came by the import
//! `hosts` or with an answer, and therefore the only way in which a plugin changes a queue.

use std::sync::Arc;

use crate::domain::{
    Actor, Change, Edit as HostEdit, EditRefused, EventKind, Host, HostId, HostnameError, Metadata, MetadataEdit,
    MetadataError, Order, OrderName, OrderNameError, OrderRefused, PluginName, PluginNameError, States, StatesError,
    edit, note, order, spend,
};
use crate::hooks::{Allowance, Denied, Edit, Grant, HookError, HostsError, KnownHost, Patch, Run};
use crate::service::hosts::check_states;
use crate::service::plan::known_host;
use crate::service::transition::{MayBecome, TransitionRefused, is_order};
use crate::service::{CONFLICT_RETRIES, Service};
use crate::store::StoreError;

use super::orders::CountRefused;

/// On whose behalf a host is changed.
#[derive(Clone, Copy)]
pub(in crate::service) enum By<'a> {
    /// A plugin that called `hosts.apply`.
    Call(&'a Allowance),
    /// The same, tried anew as the host changed meanwhile: its order has counted.
    Retry(&'a Allowance),
    /// A plugin's answer to a hook, which was checked when it was accepted. It orders nothing.
    Answer,
}

/// Why a patch changes nothing.
#[derive(Debug, thiserror::Error)]
pub(in crate::service) enum PatchRefused {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Plugin(#[from] PluginNameError),
    #[error("{0}")]
    Path(String),
    #[error(transparent)]
    Hostname(#[from] HostnameError),
    #[error(transparent)]
    States(#[from] StatesError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Edit(#[from] EditRefused),
    #[error(transparent)]
    OrderName(#[from] OrderNameError),
    #[error("an order's name without states names nothing")]
    OrderOfNothing,
    #[error(transparent)]
    Order(#[from] OrderRefused),
    #[error("{host} was ordered by the name {name} before: a wish is carried out once")]
    Spent { host: String, name: OrderName },
    /// What is refused to operators too.
    #[error(transparent)]
    Act(#[from] crate::service::HostsError),
    /// Another plugin keeps the queue as it is.
    #[error(transparent)]
    Transition(#[from] TransitionRefused),
    #[error("{0}")]
    Interrupted(tokio::task::JoinError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A patch that was understood.
struct Wanted {
    edit: HostEdit,
    states: Option<States>,
    order: Option<OrderName>,
}

impl Service {
    /// `hosts.apply`: changes a host at the revision that the plugin saw.
    pub(super) async fn apply(
        self: Arc<Self>,
        plugin: &PluginName,
        by: &Allowance,
        id: HostId,
        revision: u64,
        patch: &Patch,
    ) -> Result<KnownHost, HostsError> {
        let mut caller = By::Call(by);
        for _ in 0..CONFLICT_RETRIES {
            let host = self.store.host(id).await.map_err(PatchRefused::from)?.ok_or(HostsError::NotFound)?;
            // First of all: whoever may not do it learns nothing by trying.
            by.may_apply(patch, host.may_be_installed())?;
            // Somebody who takes a grant away does not wait for the end of a call that began before.
            if let Some(bound) = self.hooks().binding(plugin.as_str()) {
                by.may_still_apply(&bound.grants, patch, host.may_be_installed())?;
            }
            if host.revision != revision {
                return Err(HostsError::Conflict(host.revision));
            }
            let change = match self.change_by_plugin(&host, patch, plugin, caller).await {
                Ok(Some(change)) => change,
                Ok(None) => return Ok(known_host(&host)),
                Err(refused) => {
                    self.note_refusal(&host, patch, plugin, &refused, by.run).await;
                    return Err(refused.into());
                }
            };
            if by.run == Run::Dry {
                return Ok(known_host(&change.host));
            }
            match Arc::clone(&self).commit_by_plugin(host, change).await {
                Ok(host) => return Ok(known_host(&host)),
                Err(PatchRefused::Store(StoreError::Conflict)) => caller = By::Retry(by),
                Err(refused) => return Err(refused.into()),
            }
        }
        Err(HostsError::Unavailable("others change this host all the time".to_owned()))
    }

    /// What people should see: that a plugin wants to order for a locked host, as one of them did not tell the other, and that
    /// it was stopped for wanting too many orders.
    async fn note_refusal(&self, host: &Host, patch: &Patch, plugin: &PluginName, refused: &PatchRefused, run: Run) {
        let why = if let PatchRefused::Order(OrderRefused::Locked(locked)) = refused {
            locked.to_string()
        } else if let PatchRefused::Denied(stopped @ Denied::TooManyOrders { .. }) = refused {
            stopped.to_string()
        } else {
            return;
        };
        if run == Run::Dry {
            return;
        }
        let wanted = understood(host, patch).ok().and_then(|wanted| wanted.states);
        let now = self.clock.now();
        let is_first = |states: &States| self.notes.is_first(host.id, &format!("{plugin} {states} {why}"), now);
        if let Some(states) = wanted.filter(is_first) {
            let kind = EventKind::OrderRefused { states, why };
            if let Err(error) = self.commit(host, note(host, kind, Actor::Plugin(plugin.to_string()), now)).await {
                tracing::warn!(host = %host.id, %error, "could not note that a plugin's order was refused");
            }
        }
    }

    /// What a patch makes of a host; none when nothing. Every change of a queue by a plugin is decided here, so here the
    /// others are asked whether it may change.
    pub(in crate::service) async fn change_by_plugin(
        &self,
        host: &Host,
        patch: &Patch,
        plugin: &PluginName,
        by: By<'_>,
    ) -> Result<Option<Change>, PatchRefused> {
        let wanted = understood(host, patch)?;
        if let Some(Some(name)) = wanted.edit.hostname.as_ref().filter(|name| **name != host.hostname) {
            self.check_name(Some(host.id), name).await?;
        }
        if let Some(name) = &wanted.order
            && self.store.is_order_spent(host.id, name).await?
        {
            return Err(PatchRefused::Spent { host: host.label(), name: name.clone() });
        }
        let now = self.clock.now();
        let edited = edit(host, &wanted.edit, Actor::Plugin(plugin.to_string()), now)?;
        let Some(states) = wanted.states else { return Ok(edited) };
        let (by, counts) = match by {
            By::Call(by) => (by, true),
            By::Retry(by) => (by, false),
            By::Answer => return Err(Denied::BootOrder.into()),
        };
        let unordered = edited.clone();
        let (after, mut events) = edited.map_or_else(|| (host.clone(), Vec::new()), |edit| (edit.host, edit.events));
        let reinstall = by.grants.hosts.contains(&Grant::Reinstall);
        let ordered = |to: States| {
            let wanted = Order { to, name: wanted.order.clone(), reinstall };
            order(&after, &wanted, plugin, now).map_err(PatchRefused::from)
        };
        let mut change = ordered(states.clone())?;
        let mut is_order = false;
        if change.is_some() {
            is_order = self.is_order(host, &states).await?;
            // Asked last of all that can refuse without a trace, and before it counts.
            let actor = Actor::Plugin(plugin.to_string());
            if let MayBecome::Other { to, by } = self.may_become(host, &states, "plugin", &actor, by.run).await? {
                change = ordered(to)?;
                if change.is_none() && wanted.order.is_none() {
                    let why = format!("keeps the states at {}", after.states);
                    return Err(TransitionRefused { plugin: by, why }.into());
                }
            }
        }
        // The queue that it has already fulfils the wish, also if another plugin made it of what was wanted: its name is kept
        // for ever, so it counts as what it names.
        let change = match (change, &wanted.order) {
            (Some(change), _) => change,
            (None, Some(name)) => spend(&after, name, plugin, now),
            (None, None) => return Ok(unordered),
        };
        if (is_order || wanted.order.is_some()) && counts {
            self.count_order(plugin, by, host.id).await?;
        }
        events.extend(change.events);
        Ok(Some(Change { events, ..change }))
    }

    /// Whether a queue installs again or writes a disk. Refuses states that nothing can boot.
    async fn is_order(&self, before: &Host, to: &States) -> Result<bool, PatchRefused> {
        let (catalogue, renderer) = (Arc::clone(&self.catalogue), Arc::clone(&self.renderer));
        let (again, to) = (before.may_be_installed() && !to.is_finished(), to.clone());
        // On a thread of its own: images and templates may be on a disk that hangs.
        let looking = tokio::task::spawn_blocking(move || {
            check_states(&catalogue, &renderer, &to)?;
            Ok(again || to.iter().any(|state| is_order(&catalogue, &renderer, state)))
        });
        looking.await.map_err(PatchRefused::Interrupted)?
    }

    async fn commit_by_plugin(self: Arc<Self>, before: Host, change: Change) -> Result<Host, PatchRefused> {
        let name = change.order.clone();
        let label = before.label();
        // On its own: a plugin whose time is over does not stop half-way what was begun.
        let committing = tokio::spawn(async move {
            let after = self.commit(&before, change).await?;
            if let Some(boot) = before.boot.as_ref().filter(|_| after.step != before.step) {
                self.progress.forget(&boot.bootid);
            }
            Ok(after)
        });
        match (committing.await.map_err(PatchRefused::Interrupted)?, name) {
            (Err(StoreError::OrderSpent), Some(name)) => Err(PatchRefused::Spent { host: label, name }),
            (committed, _) => Ok(committed?),
        }
    }
}

fn understood(host: &Host, patch: &Patch) -> Result<Wanted, PatchRefused> {
    let mut known = known_host(host);
    patch.apply_to(&mut known).map_err(|error| {
        let HookError::BadAnswer(why) = error else { return PatchRefused::Path(error.to_string()) };
        PatchRefused::Path(why)
    })?;
    let hostname = match &patch.hostname {
        Edit::Keep => None,
        Edit::Clear => Some(None),
        Edit::Set(name) => Some(Some(name.parse()?)),
    };
    let states = match &patch.states {
        None => None,
        Some(names) => Some(States::from_names(names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?)?),
    };
    let order = patch.order.as_ref().map(|name| name.parse()).transpose()?;
    if order.is_some() && states.is_none() {
        return Err(PatchRefused::OrderOfNothing);
    }
    let metadata = MetadataEdit::Replace(Metadata::try_from(known.metadata)?);
    Ok(Wanted { edit: HostEdit { hostname, metadata, ..HostEdit::default() }, states, order })
}

impl From<CountRefused> for PatchRefused {
    fn from(refused: CountRefused) -> Self {
        match refused {
            CountRefused::Denied(denied) => Self::Denied(denied),
            CountRefused::Store(error) => Self::Store(error),
        }
    }
}

impl From<PatchRefused> for HostsError {
    fn from(refused: PatchRefused) -> Self {
        let text = refused.to_string();
        match refused {
            PatchRefused::Denied(_) | PatchRefused::Plugin(_) | PatchRefused::Order(_) | PatchRefused::Spent { .. } => {
                Self::Denied(text)
            }
            PatchRefused::Store(_)
            | PatchRefused::Transition(_)
            | PatchRefused::Interrupted(_)
            | PatchRefused::Act(crate::service::HostsError::Store(_)) => Self::Unavailable(text),
            PatchRefused::Path(_)
            | PatchRefused::Hostname(_)
            | PatchRefused::States(_)
            | PatchRefused::Metadata(_)
            | PatchRefused::Edit(_)
            | PatchRefused::OrderName(_)
            | PatchRefused::OrderOfNothing
            | PatchRefused::Act(_) => Self::Invalid(text),
        }
    }
}
