//! Whether a boot may write a disk now: the one place where locks, the freeze and the limit of reinstalls count.
//!
//! Invariant: a boot that writes nothing needs no clearance; one that writes gets it from [`clear`] only, and the commit that
//! hands it out is made only if what [`clear`] saw of the fleet is so still ([`Clearance`] says what that is).

use jiff::Timestamp;

use super::{Change, Draft, HoldReason};
use crate::domain::{Actor, EventKind, Fleet, Host, LockedHost, Reinstalls, Safeguard, Writes};

/// On what condition about all hosts a change may be committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Clearance {
    /// On none: it hands out nothing that writes.
    #[default]
    NotNeeded,
    /// There is no freeze.
    Writing,
    /// There is no freeze, and nobody else was counted meanwhile; these are counted from then on.
    Reinstalling(Reinstalls),
}

/// Whether a host may be handed a boot that does this to its disk now; or why it holds.
pub fn clear(host: &Host, writes: Writes, fleet: &Fleet, now: Timestamp) -> Result<Clearance, HoldReason> {
    if !writes.is_order() {
        return Ok(Clearance::NotNeeded);
    }
    if let Some(lock) = &host.lock {
        return Err(HoldReason::Locked(host.id, lock.clone()));
    }
    if let Some(freeze) = &fleet.frozen {
        return Err(HoldReason::Frozen(freeze.clone()));
    }
    if !host.reinstalls {
        return Ok(Clearance::Writing);
    }
    let counted = fleet.reinstalls.with_one_more(now, fleet.most_reinstalls);
    counted.map(Clearance::Reinstalling).map_err(|next| HoldReason::TooManyReinstalls(fleet.most_reinstalls, next))
}

/// Refuses what may not be done to a locked host.
pub fn check_unlocked(host: &Host) -> Result<(), LockedHost> {
    match &host.lock {
        Some(lock) => Err(LockedHost { host: host.label(), id: host.id, lock: Box::new(lock.clone()) }),
        None => Ok(()),
    }
}

/// Locks a host: it takes no orders and boots nothing that writes, until [`unlock`]. What was handed out before goes on. None
/// when it is locked already, unless for a reason that was not given yet.
pub fn lock(host: &Host, why: &str, actor: Actor, now: Timestamp) -> Option<Change> {
    let lock = Safeguard::new(actor.clone(), why, now);
    if host.lock.as_ref().is_some_and(|present| lock.why.is_empty() || present.why == lock.why) {
        return None;
    }
    let mut draft = Draft::of(host, actor, now);
    draft.event(EventKind::Locked { why: lock.why.clone() });
    draft.host.lock = Some(lock);
    draft.revise();
    Some(draft.done())
}

/// Takes the lock off a host. None for one that is not locked.
pub fn unlock(host: &Host, actor: Actor, now: Timestamp) -> Option<Change> {
    host.lock.as_ref()?;
    let mut draft = Draft::of(host, actor, now);
    draft.host.lock = None;
    draft.revise();
    draft.event(EventKind::Unlocked {});
    Some(draft.done())
}
