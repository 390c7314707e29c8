//! Orders by people and plugins: the queue is replaced, or its current step is ordered anew.

use jiff::Timestamp;

use super::{Change, Draft, check_unlocked};
use crate::domain::{
    Actor, EventKind, Host, HostId, LockedHost, OrderName, PastOutcome, PluginName, StateName, States,
};

/// Why the queue was not changed. The text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetRefused {
    /// The host is finished and the wish to install it again was not spoken.
    #[error("{0} is finished: this would install it again; say so with --reinstall")]
    Finished(String),
    /// An attempt is running and the wish to give it up was not spoken.
    #[error("{0} is being installed right now; give that up with --abort")]
    AttemptRunning(String),
    /// The host came from a backup, and nobody looked at it since.
    #[error("{0} is quarantined, as a backup was restored: look at what is on its disk, then `kiwispray release {1}`")]
    Quarantined(String, HostId),
    /// Somebody locked it.
    #[error(transparent)]
    Locked(#[from] LockedHost),
}

/// Replaces the queue: the order by which machines get installed.
pub fn set_states(
    host: &Host,
    to: States,
    reinstall: bool,
    abort: bool,
    actor: Actor,
    now: Timestamp,
) -> Result<Change, SetRefused> {
    // To take an order back does no harm to a disk.
    if !to.is_finished() {
        check_unlocked(host)?;
    }
    if host.quarantined && !to.is_finished() {
        return Err(SetRefused::Quarantined(host.label(), host.id));
    }
    let leaves_finished = host.states.is_finished() && !to.is_finished();
    if leaves_finished && !reinstall {
        return Err(SetRefused::Finished(host.label()));
    }
    let aborts = host.is_attempt_open();
    if aborts && !abort {
        return Err(SetRefused::AttemptRunning(host.label()));
    }
    let mut draft = Draft::of(host, actor, now);
    draft.queue(to.clone(), PastOutcome::Superseded);
    draft.host.reinstalls |= host.may_be_installed();
    let from = host.states.clone();
    draft.event(EventKind::StatesSet { from, to, reinstall: leaves_finished, abort: aborts, order: None });
    Ok(draft.done())
}

/// Why a plugin's order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// The host is finished, or may be, and the plugin may not order for such hosts.
    #[error("{0} is or may be installed already: ordering for it needs the grant `reinstall`")]
    Finished(String),
    /// The host is finished, or may be, and the order has no name by which a repetition could be told.
    #[error("{0} is or may be installed already: an order for it needs a name that was never used for it")]
    Nameless(String),
    /// An attempt is running.
    #[error("{0} is being installed right now, and a plugin cannot give that up")]
    AttemptRunning(String),
    /// The host came from a backup: the order may have been carried out after that, and be forgotten.
    #[error("{0} is quarantined, as a backup was restored: it takes no orders until `kiwispray release {1}`")]
    Quarantined(String, HostId),
    /// Somebody locked it.
    #[error(transparent)]
    Locked(#[from] LockedHost),
}

/// What a plugin orders.
#[derive(Debug, Clone)]
pub struct Order {
    /// The new queue.
    pub to: States,
    /// The wish behind it. Whoever commits the change sees to it that it was never carried out for this host.
    pub name: Option<OrderName>,
    /// Whether the plugin may order for hosts that are, or may be, installed.
    pub reinstall: bool,
}

/// Replaces the queue on behalf of a plugin. None when the host has this queue already, which is no order.
pub fn order(host: &Host, order: &Order, plugin: &PluginName, now: Timestamp) -> Result<Option<Change>, OrderRefused> {
    let Order { to, name, reinstall } = order;
    if *to == host.states {
        return Ok(None);
    }
    if !to.is_finished() {
        check_unlocked(host)?;
    }
    if host.quarantined && !to.is_finished() {
        return Err(OrderRefused::Quarantined(host.label(), host.id));
    }
    let again = host.may_be_installed() && !to.is_finished();
    if again && !reinstall {
        return Err(OrderRefused::Finished(host.label()));
    }
    if again && name.is_none() {
        return Err(OrderRefused::Nameless(host.label()));
    }
    if host.is_attempt_open() {
        return Err(OrderRefused::AttemptRunning(host.label()));
    }
    let mut draft = Draft::of(host, Actor::Plugin(plugin.to_string()), now);
    draft.queue(to.clone(), PastOutcome::Superseded);
    draft.host.reinstalls |= host.may_be_installed();
    draft.order = name.clone();
    draft.event(EventKind::StatesSet {
        from: host.states.clone(),
        to: to.clone(),
        reinstall: again,
        abort: false,
        order: name.clone(),
    });
    Ok(Some(draft.done()))
}

/// A plugin's order for a queue that the host has already: nothing is done, and its name is used up, as the wish behind it may
/// still be there when the host has finished.
pub fn spend(host: &Host, name: &OrderName, plugin: &PluginName, now: Timestamp) -> Change {
    let mut draft = Draft::of(host, Actor::Plugin(plugin.to_string()), now);
    draft.order = Some(name.clone());
    draft.event(EventKind::OrderMet { states: host.states.clone(), order: name.clone() });
    draft.done()
}

/// Why a step was not ordered anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryRefused {
    /// `new` and `finished` boot nothing.
    #[error("{0} is {1}: there is nothing to try again; give it a state with `kiwispray deploy`")]
    NothingToRetry(String, StateName),
    /// An attempt is running.
    #[error("{0} is being installed right now; give that up with --abort")]
    AttemptRunning(String),
    /// The host came from a backup, and nobody looked at it since.
    #[error("{0} is quarantined, as a backup was restored: look at what is on its disk, then `kiwispray release {1}`")]
    Quarantined(String, HostId),
    /// Somebody locked it.
    #[error(transparent)]
    Locked(#[from] LockedHost),
}

/// Orders the current step anew: its attempts count from zero, and late calls of its boots are superseded.
pub fn retry(host: &Host, abort: bool, actor: Actor, now: Timestamp) -> Result<Change, RetryRefused> {
    let state = host.states.current().clone();
    if state.is_built_in() {
        return Err(RetryRefused::NothingToRetry(host.label(), state));
    }
    check_unlocked(host)?;
    if host.quarantined {
        return Err(RetryRefused::Quarantined(host.label(), host.id));
    }
    // A delivered payload waits for a report that may never come: trying again is the way out, not an accident.
    if host.is_transferring() && !abort {
        return Err(RetryRefused::AttemptRunning(host.label()));
    }
    let mut draft = Draft::of(host, actor, now);
    draft.queue(host.states.clone(), PastOutcome::Superseded);
    draft.host.reinstalls |= host.may_be_installed();
    draft.event(EventKind::Retried { state });
    Ok(draft.done())
}
