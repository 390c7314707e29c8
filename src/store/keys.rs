//! Where everything lies. Numbers in keys are 8 bytes, big-endian, so that they sort as numbers.
//!
//! | key | value |
//! | --- | --- |
//! | `h/<id>` | what rarely changes of a host: identity, hardware, name, metadata |
//! | `s/<id>` | what every boot changes: queue, step, attempts, bootids; exists exactly for the hosts that exist |
//! | `x/mac/…`, `x/serial/…`, `x/uuid/…` | the ids of the hosts that have this value |
//! | `e/<id><seq>` | the events of a host, also after it is forgotten |
//! | `m/schema`, `m/hostid`, `m/generation` | version of this layout, highest number of a forgotten host, random name of this store |
//!
//! Kept free for later: `o/` (cursors of plugins), `p/` (what plugins store), `t/` (tokens).
use crate::{
    domain::{HostId, Identity},
    store::kv::{Invalid, Key},
};

pub(super) const COLD: &str = "h/";
pub(super) const HOT: &str = "s/";
pub(super) const EVENTS: &str = "e/";

pub(super) const SCHEMA: Key = Key::from_static(b"m/schema");
pub(super) const LAST_FORGOTTEN: Key = Key::from_static(b"m/hostid");
pub(super) const GENERATION: Key = Key::from_static(b"m/generation");

pub(super) fn cold(id: HostId) -> Key {
    Key::numbered(COLD, &[id.get()])
}

pub(super) fn hot(id: HostId) -> Key {
    Key::numbered(HOT, &[id.get()])
}

pub(super) fn event(id: HostId, seq: u64) -> Key {
    Key::numbered(EVENTS, &[id.get(), seq])
}

/// All events of one host.
pub(super) fn events_of(id: HostId) -> Key {
    Key::numbered(EVENTS, &[id.get()])
}

/// The host of a `h/` or `s/` key; `None` for a key of another kind.
pub(super) fn host_id(key: &Key) -> Option<HostId> {
    let (_, number) = key.as_bytes().split_at_checked(2)?;
    Some(HostId::new(u64::from_be_bytes(number.try_into().ok()?)))
}

/// Host and number of an `e/` key.
pub(super) fn event_place(key: &Key) -> Option<(HostId, u64)> {
    let numbers = key.as_bytes().strip_prefix(EVENTS.as_bytes())?;
    let (id, seq) = numbers.split_first_chunk::<8>()?;
    Some((HostId::new(u64::from_be_bytes(*id)), u64::from_be_bytes(seq.try_into().ok()?)))
}

/// The index keys of an identity, in order and each once.
pub(super) fn index(identity: &Identity) -> Result<Vec<Key>, Invalid> {
    let mut keys = Vec::with_capacity(2 + identity.macs.len());
    for mac in &identity.macs {
        keys.push(Key::new(format!("x/mac/{mac}"))?);
    }
    if let Some(serial) = &identity.serial {
        keys.push(Key::new(format!("x/serial/{}", serial.key()))?);
    }
    if let Some(uuid) = identity.uuid {
        keys.push(Key::new(format!("x/uuid/{:032x}", u128::from_be_bytes(uuid.key())))?);
    }
    Ok(keys)
}
