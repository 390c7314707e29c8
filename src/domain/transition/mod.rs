//! What each request changes, as pure functions from a host to a changed host and its events, or to a refusal.
//!
//! These functions carry the promise "one order, one installation":
//! - only [`offer`] hands out a boot, and only when [`next_boot`] says so and, if it writes, [`clear`] too;
//! - an order whose payload was delivered whole is never offered again, unless [`retry`] or [`set_states`] orders anew;
//! - only the bootid of the current step finishes it, and only once;
//! - nothing but [`set_states`] with the owner's explicit wish, and [`order`] with the grant for it and a name that was never
//!   used, leads out of `finished`;
//! - a host that came from a backup boots nothing but its own disk and takes no orders, until [`release`];
//! - a host that is locked takes no orders, until [`unlock`];
//! - a machine whose host was forgotten after it was installed comes back as a finished host, by [`take_back`].

mod boot;
mod clearance;
mod edit;
mod identity;
mod known;
mod order;
mod quarantine;
mod report;

use jiff::Timestamp;

use super::{Actor, Event, EventKind, Host, OrderName, PastBoot, PastOutcome, States, Tombstone, Writes};

pub use boot::{
    Activity, Ask, FetchRefused, HoldReason, NextBoot, Offer, deliver, next_boot, note_hold, offer, start_attempt,
};
pub use clearance::{Clearance, check_unlocked, clear, lock, unlock};
pub use edit::{Edit, EditRefused, Inventory, InventoryRefused, MetadataEdit, edit, take_inventory};
pub use identity::{AdoptRefused, IdentityEdit, IdentityRefused, adopt};
pub use known::{Registration, learn, register, take_back, take_over};
pub use order::{Order, OrderRefused, RetryRefused, SetRefused, order, retry, set_states, spend};
pub use quarantine::{quarantine, release};
pub use report::{FailRefused, FinishRefused, advance, fail, finish, finish_by_operator, finish_held};

/// A changed host and the events that explain the change, numbered; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The host afterwards.
    pub host: Host,
    /// What happened.
    pub events: Vec<Event>,
    /// The name of the order that it is. It is committed only if it was never used for this host, and is remembered for ever.
    pub order: Option<OrderName>,
    /// What must be so of all hosts when it is committed.
    pub clearance: Clearance,
    /// What is left of a host that is forgotten by it.
    pub tombstone: Option<Tombstone>,
}

/// A change in the making.
struct Draft {
    host: Host,
    events: Vec<Event>,
    actor: Actor,
    now: Timestamp,
    order: Option<OrderName>,
    clearance: Clearance,
}

impl Draft {
    fn of(host: &Host, actor: Actor, now: Timestamp) -> Self {
        Self { host: host.clone(), events: Vec::new(), actor, now, order: None, clearance: Clearance::NotNeeded }
    }

    fn event(&mut self, kind: EventKind) {
        self.host.event_count = self.host.event_count.saturating_add(1);
        self.events.push(Event {
            host: self.host.id,
            seq: self.host.event_count,
            at: self.now,
            actor: self.actor.clone(),
            kind,
        });
    }

    /// The queue moves, or its current step is ordered anew: boots of the step before are over.
    fn queue(&mut self, states: States, outcome: PastOutcome) {
        // A transfer that is given up goes on to its end, and nobody hears of that.
        self.host.installed |=
            self.host.is_transferring() && self.host.current_boot().is_some_and(|boot| boot.writes == Writes::Disk);
        self.retire_boot(outcome);
        self.host.states = states;
        self.host.step = self.host.step.next();
        self.host.attempts = 0;
        self.revise();
    }

    fn retire_boot(&mut self, outcome: PastOutcome) {
        if let Some(boot) = self.host.boot.take() {
            self.host.past.push(PastBoot { bootid: boot.bootid, outcome });
            if self.host.past.len() > Host::MOST_PAST_BOOTS {
                // A finish is repeated by machines, so it is remembered longer than boots that led nowhere.
                let superseded = self.host.past.iter().position(|past| past.outcome == PastOutcome::Superseded);
                self.host.past.remove(superseded.unwrap_or(0));
            }
        }
    }

    fn revise(&mut self) {
        self.host.revision = self.host.revision.saturating_add(1);
    }

    fn done(mut self) -> Change {
        // A clock that fell back must stay noticeable, whatever machines do meanwhile; a person may vouch for it.
        self.host.changed_at = match self.actor {
            Actor::Operator(_) => self.now,
            Actor::Machine | Actor::Plugin(_) | Actor::Server => self.now.max(self.host.changed_at),
        };
        Change { host: self.host, events: self.events, order: self.order, clearance: self.clearance, tombstone: None }
    }
}

/// The last event of a host that is taken out of the store. If it may be installed, a tombstone is left, which keeps its machine
/// from being taken for one that never was.
pub fn forget(host: &Host, actor: Actor, now: Timestamp) -> Change {
    let tombstone = Tombstone::of(host, now);
    let change = note(host, EventKind::Forgotten { tombstone: tombstone.is_some() }, actor, now);
    Change { tombstone, ..change }
}

/// The same without a tombstone: its machine, or what is left of it, is part of another host, or will be new.
pub fn forget_for_good(host: &Host, actor: Actor, now: Timestamp) -> Change {
    note(host, EventKind::Forgotten { tombstone: false }, actor, now)
}

/// Puts an event on the timeline that changes nothing else.
pub fn note(host: &Host, kind: EventKind, actor: Actor, now: Timestamp) -> Change {
    let mut draft = Draft::of(host, actor, now);
    draft.event(kind);
    draft.done()
}
