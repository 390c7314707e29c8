//! Where everything lies. Numbers in keys are 8 bytes, big-endian, so that they sort as numbers.
//!
//! | key | value |
//! | --- | --- |
//! | `h/<id>` | what rarely changes of a host: identity, hardware, name, metadata |
//! | `s/<id>` | what every boot changes: queue, step, attempts, bootids; exists exactly for the hosts that exist |
//! | `x/mac/…`, `x/serial/…`, `x/uuid/…` | the ids of the hosts that have this value |
//! | `e/<id><seq>` | the events of a host, also after it is forgotten |
//! | `m/schema`, `m/hostid`, `m/generation` | version of this layout, highest number of a forgotten host, random name of this store |
//! | `r/<id><name>` | that an order of this name was carried out for the host; the name as the first 16 bytes of its SHA-256. Never removed |
//! | `p/<plugin>/<key>` | what plugins store; a plugin's name holds no `/`, so no key reaches into another's |
//! | `a/<plugin>` | that a plugin may order no more, or more than usual |
//!
//! Kept free for later: `o/` (cursors of plugins), `t/` (tokens).
use sha2::{Digest, Sha256};

use crate::{
    domain::{HostId, Identity, OrderName, PluginName},
    store::kv::{Invalid, Key},
};

pub(super) const COLD: &str = "h/";
pub(super) const HOT: &str = "s/";
pub(super) const EVENTS: &str = "e/";
const ORDERS: &str = "r/";

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

/// Where it is remembered that an order was carried out for a host. Half a SHA-256 is enough: who finds two names with the
/// same one only loses an order of their own.
pub(super) fn spent_order(id: HostId, name: &OrderName) -> Key {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..]: [u8; 32] = Sha256::digest(name.as_str()).into();
    let [first, second] = [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]].map(u64::from_be_bytes);
    Key::numbered(ORDERS, &[id.get(), first, second])
}

/// Everything that a plugin stores.
pub(super) fn plugin_space(plugin: &PluginName) -> String {
    format!("p/{plugin}/")
}

/// A value of a plugin's own.
pub(super) fn plugin_value(plugin: &PluginName, key: &str) -> Result<Key, Invalid> {
    Key::new(plugin_space(plugin) + key)
}

/// What a plugin may order.
pub(super) fn approval(plugin: &PluginName) -> Result<Key, Invalid> {
    Key::new(format!("a/{plugin}"))
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
