//! How many orders a plugin may give in one run, and what happens when it wants more.
//!
//! Invariant: who once wanted more orders in a run than it may gives none at all, not even after a restart, until somebody
//! approves; nor does any plugin after a backup was restored, as the names of orders that were carried out since are not in
//! it. A run is a call with all its retries, and of a job also all that it does within its period without being done.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::domain::{HostId, PluginName};
use crate::hooks::{Allowance, Denied, Hook, Run};
use crate::service::{CONFLICT_RETRIES, Service};
use crate::store::{Orders, StoreError, Written};

/// Why nothing was approved.
#[derive(Debug, thiserror::Error)]
pub enum ApproveRefused {
    /// Nothing stopped the plugin, so it is not known how many orders are meant.
    #[error("{0} was not stopped: say how many orders it may give in its next run")]
    NotStopped(PluginName),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an order does not count.
#[derive(Debug, thiserror::Error)]
pub(super) enum CountRefused {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Orders by plugin and call, so that a retry does not begin anew, whatever ran in between. Only as long as the process: the
/// mark of a plugin that was stopped is durable.
#[derive(Debug, Default)]
pub(in crate::service) struct Runs(Mutex<HashMap<PluginName, VecDeque<(String, u32)>>>);

/// Calls of a plugin that are remembered: more than it can have under way and waiting to be tried again.
const MOST_CALLS: usize = 1_024;

impl Runs {
    fn count(&self, plugin: &PluginName, call: &str) -> u32 {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = runs.entry(plugin.clone()).or_default();
        if let Some((_, orders)) = calls.iter_mut().rev().find(|(known, _)| known == call) {
            *orders = orders.saturating_add(1);
            return *orders;
        }
        if calls.len() >= MOST_CALLS {
            calls.pop_front();
        }
        calls.push_back((call.to_owned(), 1));
        1
    }

    fn forget(&self, plugin: &PluginName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(plugin);
    }
}

impl Service {
    /// What a plugin may order now, beside its grant.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn orders_state(&self, plugin: &PluginName) -> Result<Orders, StoreError> {
        Ok(self.store.orders_of(plugin).await?.0)
    }

    /// Lets a plugin that was stopped order again. The next run that needs more orders than its grant allows may give `most`;
    /// none: as many as it could give in the run in which it was stopped, or what its grant allows (0) after a restore. A plugin that was not stopped can be approved
    /// beforehand. Returns how many that are.
    ///
    /// # Errors
    /// The plugin was not stopped and no number was given, or the store did not do it.
    pub async fn approve_orders(
        &self,
        plugin: &PluginName,
        most: Option<u32>,
        by: &str,
    ) -> Result<u32, ApproveRefused> {
        for _ in 0..CONFLICT_RETRIES {
            let (orders, version) = self.store.orders_of(plugin).await?;
            let most = match (most, orders) {
                (Some(most), _) | (None, Orders::Stopped { most, .. }) => most,
                (None, Orders::Restored { .. }) => 0,
                (None, Orders::AsGranted | Orders::Approved { .. }) => {
                    return Err(ApproveRefused::NotStopped(plugin.clone()));
                }
            };
            let approved = Orders::Approved { most, by: by.to_owned(), call: None };
            if let Written::Done(_) = self.store.put_orders_of(plugin, &approved, version).await? {
                // A retry of the run that was stopped is a run of its own now.
                self.runs.forget(plugin);
                tracing::info!(%plugin, most, by, "a plugin may order again");
                return Ok(most);
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// A plugin that is asked about new machines and may not order: whatever queue a new machine is given then is doubtful.
    pub(in crate::service) async fn stopped_greeter(&self) -> Result<Option<PluginName>, StoreError> {
        let hooks = self.hooks();
        for binding in hooks.asked(Hook::Discovery) {
            let Ok(plugin) = binding.plugin.name().parse::<PluginName>() else { continue };
            match self.orders_state(&plugin).await? {
                Orders::Stopped { .. } | Orders::Restored { .. } => return Ok(Some(plugin)),
                Orders::AsGranted | Orders::Approved { .. } => {}
            }
        }
        Ok(None)
    }

    /// Counts one order of a plugin for a host, before it is carried out. One too many stops the plugin, for good.
    pub(super) async fn count_order(
        &self,
        plugin: &PluginName,
        by: &Allowance,
        host: HostId,
    ) -> Result<(), CountRefused> {
        let granted = by.grants.max_orders_per_run;
        let count = match by.run {
            Run::Real => by.count_order().max(self.runs.count(plugin, &by.call)),
            Run::Dry => by.count_order(),
        };
        for _ in 0..CONFLICT_RETRIES {
            let (orders, version) = self.store.orders_of(plugin).await?;
            let (most, approval) = match orders {
                Orders::Stopped { .. } => return Err(Denied::Stopped { plugin: by.plugin.clone() }.into()),
                Orders::Restored { .. } => return Err(Denied::Restored { plugin: by.plugin.clone() }.into()),
                Orders::Approved { most, by: who, call } if call.as_ref().is_none_or(|call| *call == by.call) => {
                    let take = call.is_none() && count > granted;
                    let taken = Orders::Approved { most, by: who, call: Some(by.call.clone()) };
                    (most.max(granted), take.then_some(taken))
                }
                Orders::AsGranted | Orders::Approved { .. } => (granted, None),
            };
            let (next, answer) = if count > most {
                let stopped = Orders::Stopped { at: self.clock.now(), most, host };
                (Some(stopped), Err(Denied::TooManyOrders { plugin: by.plugin.clone(), most }.into()))
            } else {
                (approval, Ok(()))
            };
            let (Some(next), Run::Real) = (next, by.run) else { return answer };
            if let Written::Done(_) = self.store.put_orders_of(plugin, &next, version).await? {
                if answer.is_err() {
                    tracing::warn!(%plugin, most, %host, "a plugin wanted more orders in one run than it may: it orders no more until `kiwispray plugin approve`");
                }
                return answer;
            }
        }
        Err(StoreError::Conflict.into())
    }
}
