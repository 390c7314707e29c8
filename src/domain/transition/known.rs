//! Becoming known: a machine's first entry, and what it shows of itself later.

use jiff::Timestamp;

use super::{Change, Draft};
use crate::domain::{
    Actor, EventKind, Facts, Hardware, Host, HostId, Hostname, Identity, MacAddr, Metadata, States, Step, Tombstone,
};

/// A machine about to become known.
#[derive(Debug, Clone)]
pub struct Registration {
    /// What recognises it.
    pub identity: Identity,
    /// What its firmware told of it.
    pub hardware: Hardware,
    /// Its name.
    pub hostname: Option<Hostname>,
    /// Its first queue.
    pub states: States,
    /// What the site wants to remember of it.
    pub metadata: Metadata,
    /// Why it is nobody else.
    pub why: String,
}

/// A new host with this number.
pub fn register(id: HostId, registration: Registration, actor: Actor, now: Timestamp) -> Change {
    let Registration { identity, hardware, hostname, states, metadata, why } = registration;
    let host = Host {
        id,
        revision: 1,
        event_count: 0,
        identity,
        hardware,
        hostname,
        states: states.clone(),
        step: Step::FIRST,
        attempts: 0,
        boot: None,
        past: Vec::new(),
        metadata,
        installed: false,
        seen: actor == Actor::Machine,
        quarantined: false,
        lock: None,
        reinstalls: false,
        created_at: now,
        changed_at: now,
    };
    let mut draft = Draft::of(&host, actor, now);
    draft.event(EventKind::Registered { states, why });
    draft.done()
}

/// A host that another server knew, under the number that it had there. `seen` says whether a machine ever booted as it.
pub fn take_over(id: HostId, registration: Registration, seen: bool, actor: Actor, now: Timestamp) -> Change {
    let mut change = register(id, registration, actor, now);
    change.host.seen = seen;
    change
}

/// A machine whose host was forgotten, or may be one of these, becomes known again: as finished, whatever it was registered
/// with, and as one that may be installed.
pub fn take_back(
    id: HostId,
    registration: Registration,
    was: &[&Tombstone],
    seen: bool,
    actor: Actor,
    now: Timestamp,
) -> Change {
    let registration = Registration { states: States::finished(), ..registration };
    let registered = take_over(id, registration, seen, actor.clone(), now);
    let mut draft = Draft::of(&registered.host, actor, now);
    draft.host.installed = true;
    let why = was.iter().map(|tombstone| tombstone.described()).collect::<Vec<_>>().join("; ");
    draft.event(EventKind::Returned { was: was.iter().map(|tombstone| tombstone.id).collect(), why });
    let back = draft.done();
    Change { events: [registered.events, back.events].concat(), ..back }
}

/// What a strongly recognised machine showed that was unknown or has changed; none when that is nothing.
pub fn learn(host: &Host, facts: &Facts, now: Timestamp) -> Option<Change> {
    let known = &host.identity;
    let room = Identity::MOST_MACS.saturating_sub(known.macs.len());
    let macs: Vec<MacAddr> = facts.identity.macs.difference(&known.macs).copied().take(room).collect();
    let serial = known.serial.is_none().then(|| facts.identity.serial.clone()).flatten();
    let uuid = known.uuid.is_none().then_some(facts.identity.uuid).flatten();
    let dmi = serial.is_some() || uuid.is_some();
    let identity_grows = dmi || !macs.is_empty();
    let hardware = facts.hardware != host.hardware;
    if !identity_grows && !hardware && host.seen {
        return None;
    }
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.host.seen = true;
    draft.host.hardware = facts.hardware.clone();
    if identity_grows {
        draft.host.identity.macs.extend(&macs);
        draft.host.identity.serial = known.serial.clone().or(serial);
        draft.host.identity.uuid = known.uuid.or(uuid);
        draft.revise();
    }
    draft.event(EventKind::IdentityLearned { macs, dmi, hardware });
    Some(draft.done())
}
