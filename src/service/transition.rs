//! Plugins are asked before a queue changes.
//!
//! Invariant: a plugin can keep a queue as it is, leave steps out and put in steps that write no disk; it cannot order, nor have
//! orders carried out in another order. What a machine has finished is committed as done whatever plugins say.

use std::sync::Arc;

use crate::domain::{
    Actor, BootId, Change, FinishRefused, Host, Stage, StateName, States, advance, finish, finish_held, set_states,
};
use crate::hooks::{Call, Run, TransitionAnswer, TransitionRequest};
use crate::images::Catalogue;
use crate::render::Renderer;

use super::Service;
use super::hosts::{Act, HostsError, Terms};
use super::plan::known_host;

/// A plugin keeps a queue from changing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plugin {plugin} {why}")]
pub struct TransitionRefused {
    /// Who.
    pub plugin: String,
    /// Its words, or how it broke.
    pub why: String,
}

/// What a queue may become.
#[derive(Debug)]
pub(super) enum MayBecome {
    /// What was asked about.
    Asked,
    /// What plugins made of it.
    Other {
        /// The queue.
        to: States,
        /// The last plugin that changed it.
        by: String,
    },
}

impl Service {
    /// Asks whether the queue of a host may become `to`, and why that is wanted: `finish`, `operator`, `plugin`, `retry`.
    pub(super) async fn may_become(
        &self,
        host: &Host,
        to: &States,
        cause: &str,
        actor: &Actor,
        run: Run,
    ) -> Result<MayBecome, TransitionRefused> {
        let hooks = self.hooks();
        if !hooks.has_transitions() {
            return Ok(MayBecome::Asked);
        }
        let now_ms = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        // The same until the host has changed, so also when it is asked again; but not for another question, and of a restored
        // store, which counts the same events anew, for none of before.
        let (generation, id, count) = (self.store.generation(), host.id, host.event_count);
        let call = Call::new(format!("transition-{generation}-{id}-{count}-{cause}-{to}"), now_ms, run);
        let request = TransitionRequest {
            host: known_host(host),
            to: to.iter().map(ToString::to_string).collect(),
            cause: cause.to_owned(),
            actor: match actor {
                Actor::Machine => String::new(),
                Actor::Operator(name) | Actor::Plugin(name) => name.clone(),
                Actor::Server => "server".to_owned(),
            },
        };
        match hooks.transition(call, request).await.answer {
            TransitionAnswer::Go { redirected_by: None, .. } => Ok(MayBecome::Asked),
            TransitionAnswer::Go { to: wanted, redirected_by: Some(plugin) } => {
                match self.check_redirect(to, &wanted).await {
                    Ok(None) => Ok(MayBecome::Asked),
                    Ok(Some(to)) => Ok(MayBecome::Other { to, by: plugin }),
                    Err(why) => Err(TransitionRefused { plugin, why }),
                }
            }
            TransitionAnswer::Refused { plugin, why } => Err(TransitionRefused { plugin, why }),
        }
    }

    /// The finish of a machine, as far as plugins let it have an effect. None when it had said so before.
    pub(super) async fn finish_as_allowed(
        &self,
        host: &Host,
        bootid: &BootId,
    ) -> Result<Option<Change>, FinishRefused> {
        let now = self.clock.now();
        let Some(change) = finish(host, bootid, now)? else { return Ok(None) };
        if change.host.step == host.step {
            return Ok(Some(change));
        }
        match self.may_become(host, &change.host.states, "finish", &Actor::Machine, Run::Real).await {
            Ok(MayBecome::Asked) => Ok(Some(change)),
            Ok(MayBecome::Other { to, .. }) => Ok(Some(advance(host, Some(to), Actor::Machine, now))),
            Err(refused) => finish_held(host, bootid, &refused.to_string(), now),
        }
    }

    /// An operator's act, as plugins let it have an effect.
    pub(super) async fn act_as_allowed(
        &self,
        host: &Host,
        act: &Act,
        change: Change,
        terms: &Terms,
    ) -> Result<Change, HostsError> {
        if change.host.step == host.step {
            return Ok(change);
        }
        let cause = match act {
            Act::Set { .. } => "operator",
            // The remedy that a host on its done step shows: whoever says so has seen what keeps it.
            Act::Finish { .. } if host.current_boot().is_some_and(|boot| matches!(boot.stage, Stage::Done { .. })) => {
                return Ok(change);
            }
            Act::Finish { .. } => "finish",
            Act::Retry { .. } => "retry",
            Act::Release | Act::Lock { .. } | Act::Unlock | Act::Forget { .. } => return Ok(change),
        };
        let (to, by) = match self.may_become(host, &change.host.states, cause, &terms.actor, terms.run).await? {
            MayBecome::Asked => return Ok(change),
            MayBecome::Other { to, by } => (to, by),
        };
        let (now, actor) = (self.clock.now(), terms.actor.clone());
        match act {
            Act::Set { edit, reinstall, abort, .. } => {
                let act = Act::Set { edit: edit.clone(), states: Some(to), reinstall: *reinstall, abort: *abort };
                // The queue that it has already: then nothing is left of the order.
                let unchanged =
                    || TransitionRefused { plugin: by, why: format!("keeps the states at {}", host.states) };
                Ok(super::hosts::change(host, &act, &actor, now)?.ok_or_else(unchanged)?)
            }
            Act::Retry { abort } => Ok(set_states(host, to, false, *abort, actor, now)?),
            Act::Finish { .. } | Act::Release | Act::Lock { .. } | Act::Unlock | Act::Forget { .. } => {
                Ok(advance(host, Some(to), actor, now))
            }
        }
    }

    /// A queue that plugins made of `asked`, which can be parsed and orders nothing beyond; none: it is the same.
    async fn check_redirect(&self, asked: &States, wanted: &[String]) -> Result<Option<States>, String> {
        let wanted: States = if wanted.is_empty() {
            States::finished()
        } else {
            wanted.join(",").parse().map_err(|error| format!("redirects to a queue that is none: {error}"))?
        };
        if wanted == *asked {
            return Ok(None);
        }
        if wanted.iter().any(StateName::is_new) && !asked.iter().any(StateName::is_new) {
            return Err("wants to make it a new host, which it is not".to_owned());
        }
        let (catalogue, renderer) = (Arc::clone(&self.catalogue), Arc::clone(&self.renderer));
        let (before, after) = (asked.clone(), wanted.clone());
        // On a thread of its own: the folders may be on a disk that hangs.
        let ordering = tokio::task::spawn_blocking(move || {
            let mut left = before.iter();
            // In the order that was asked for: what is wiped after it was installed was installed for nothing.
            let orders = |state: &&StateName| is_order(&catalogue, &renderer, state);
            after.iter().filter(orders).find(|state| !left.any(|asked| asked == *state)).cloned()
        });
        match ordering.await {
            Ok(None) => Ok(Some(wanted)),
            Ok(Some(state)) => Err(format!(
                "wants {state}, which writes a disk or is no image, where nobody ordered it: it cannot order"
            )),
            Err(error) => Err(format!("redirects, which could not be checked: {error}")),
        }
    }
}

/// Whether booting a state is an order. One that nothing is known of may be.
pub(super) fn is_order(catalogue: &Catalogue, renderer: &Renderer, state: &StateName) -> bool {
    if state.is_built_in() {
        return false;
    }
    match catalogue.image(state) {
        Ok(image) => image.manifest.writes.is_order(),
        Err(_) if catalogue.has_folder(state) => true,
        Err(_) => !renderer.says_it_writes_nothing(&format!("{state}.ipxe")),
    }
}

#[cfg(test)]
mod tests;
