//! Where everything lies. Numbers in keys are 8 bytes, big-endian, so that they sort as numbers.
//!
//! | key | value |
//! | --- | --- |
//! | `h/<id>` | what rarely changes of a host: identity, hardware, name, metadata |
//! | `s/<id>` | what every boot changes: queue, step, attempts, bootids; exists exactly for the hosts that exist |
//! | `x/mac/…`, `x/serial/…`, `x/uuid/…` | the ids of the hosts that have this value |
//! | `i/<id>` | what is left of a forgotten host that may be installed; stays until it comes back or is forgotten for good |
//! | `y/mac/…`, `y/serial/…`, `y/uuid/…` | the ids of the forgotten hosts that had this value |
//! | `e/<id><seq>` | the events of a host, also after it is forgotten |
//! | `g/<id>` | a forgotten host as it was at last |
//! | `o/cursor/<plugin>` | up to where a plugin was told of events |
//! | `o/parked/<plugin>/<id>` | a host whose events this plugin must be told again |
//! | `o/job/<plugin>/<job>` | the newest run of a job |
//! | `o/lease/<plugin>` | which server runs this plugin's jobs |
//! | `d/<plugin>/<id><seq>` | an event that a plugin could not be told of |
//! | `m/schema`, `m/hostid`, `m/generation` | version of this layout, highest number of a forgotten host, random name of this store |
//! | `m/restored` | from which backup the store was restored, until its quarantine is lifted |
//! | `m/unapproved` | from which backup the store was restored: a plugin orders only once somebody approved it since. Never removed |
//! | `m/frozen` | that nothing that writes a disk is booted: who wanted it, when and why |
//! | `m/reinstalls` | when, within the last hour, boots were handed out that install again |
//! | `r/<id><name>` | that an order of this name was carried out for the host; the name as the first 16 bytes of its SHA-256. Never removed |
//! | `p/<plugin>/<key>` | what plugins store; a plugin's name holds no `/`, so no key reaches into another's |
//! | `a/<plugin>` | that a plugin may order no more, or more than usual |
//!
//! Kept free for later: `t/` (tokens).
use sha2::{Digest, Sha256};

use crate::{
    domain::{HostId, Identity, OrderName, PluginName},
    store::kv::{Invalid, Key},
};

pub(super) const COLD: &str = "h/";
pub(super) const HOT: &str = "s/";
pub(super) const EVENTS: &str = "e/";
pub(super) const INDEX: &str = "x/";
pub(super) const ORDERS: &str = "r/";
pub(super) const FORGOTTEN: &str = "g/";
pub(super) const TOMBSTONES: &str = "i/";
pub(super) const TOMBSTONE_INDEX: &str = "y/";
pub(super) const PLUGIN_VALUES: &str = "p/";
pub(super) const APPROVALS: &str = "a/";
pub(super) const CURSORS: &str = "o/cursor/";
pub(super) const PARKED: &str = "o/parked/";
pub(super) const LEASES: &str = "o/lease/";
pub(super) const JOBS: &str = "o/job/";
pub(super) const DEAD_LETTERS: &str = "d/";

pub(super) const SCHEMA: Key = Key::from_static(b"m/schema");
pub(super) const LAST_FORGOTTEN: Key = Key::from_static(b"m/hostid");
pub(super) const GENERATION: Key = Key::from_static(b"m/generation");
pub(super) const RESTORED: Key = Key::from_static(b"m/restored");
pub(super) const UNAPPROVED: Key = Key::from_static(b"m/unapproved");
pub(super) const FROZEN: Key = Key::from_static(b"m/frozen");
pub(super) const REINSTALLS: Key = Key::from_static(b"m/reinstalls");

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

/// A host that was forgotten.
pub(super) fn forgotten(id: HostId) -> Key {
    Key::numbered(FORGOTTEN, &[id.get()])
}

/// What is left of a host that was forgotten and may be installed.
pub(super) fn tombstone(id: HostId) -> Key {
    Key::numbered(TOMBSTONES, &[id.get()])
}

/// How far a plugin was told.
pub(super) fn cursor(plugin: &str) -> Result<Key, Invalid> {
    of_plugin(CURSORS, plugin, &[])
}

/// All parked hosts of a plugin.
pub(super) fn parked_of(plugin: &str) -> Result<Key, Invalid> {
    of_plugin(PARKED, plugin, b"/")
}

/// One parked host.
pub(super) fn parked(plugin: &str, id: HostId) -> Result<Key, Invalid> {
    of_plugin(PARKED, plugin, &[b"/".as_slice(), &id.get().to_be_bytes()].concat())
}

/// All dead letters of a plugin.
pub(super) fn dead_letters_of(plugin: &str) -> Result<Key, Invalid> {
    of_plugin(DEAD_LETTERS, plugin, b"/")
}

/// All dead letters of a plugin about one host.
pub(super) fn dead_letters_about(plugin: &str, id: HostId) -> Result<Key, Invalid> {
    of_plugin(DEAD_LETTERS, plugin, &[b"/".as_slice(), &id.get().to_be_bytes()].concat())
}

/// One dead letter.
pub(super) fn dead_letter(plugin: &str, id: HostId, seq: u64) -> Result<Key, Invalid> {
    of_plugin(DEAD_LETTERS, plugin, &[b"/".as_slice(), &id.get().to_be_bytes(), &seq.to_be_bytes()].concat())
}

/// The newest run of a job.
pub(super) fn job(plugin: &str, job: &str) -> Result<Key, Invalid> {
    of_plugin(JOBS, plugin, format!("/{job}").as_bytes())
}

/// All jobs of a plugin.
pub(super) fn jobs_of(plugin: &str) -> Result<Key, Invalid> {
    of_plugin(JOBS, plugin, b"/")
}

/// Who runs a plugin's jobs.
pub(super) fn lease(plugin: &str) -> Result<Key, Invalid> {
    of_plugin(LEASES, plugin, &[])
}

/// A slash in a plugin's name is written so that no plugin's keys lie among another's.
fn of_plugin(prefix: &str, plugin: &str, rest: &[u8]) -> Result<Key, Invalid> {
    let name = plugin.replace('%', "%25").replace('/', "%2F");
    Key::new([prefix.as_bytes(), name.as_bytes(), rest].concat())
}

/// The plugin of an `o/cursor/` key.
pub(super) fn cursor_plugin(key: &Key) -> Option<String> {
    plugin_name(key.as_bytes().strip_prefix(CURSORS.as_bytes())?)
}

/// Plugin and host of an `o/parked/` key.
pub(super) fn parked_place(key: &Key) -> Option<(String, HostId)> {
    let (rest, number) = key.as_bytes().strip_prefix(PARKED.as_bytes())?.split_last_chunk::<8>()?;
    Some((plugin_name(rest.strip_suffix(b"/")?)?, HostId::new(u64::from_be_bytes(*number))))
}

fn plugin_name(bytes: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(bytes).ok()?.replace("%2F", "/").replace("%25", "%"))
}

/// Host and number at the end of a `d/` key.
pub(super) fn dead_letter_place(key: &Key) -> Option<(HostId, u64)> {
    let (rest, seq) = key.as_bytes().split_last_chunk::<8>()?;
    let (_, id) = rest.split_last_chunk::<8>()?;
    Some((HostId::new(u64::from_be_bytes(*id)), u64::from_be_bytes(*seq)))
}

/// The host of a `h/`, `s/`, `g/` or `i/` key; `None` for a key of another kind.
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
    values(INDEX, identity)
}

/// The same in the index of forgotten hosts.
pub(super) fn tombstone_index(identity: &Identity) -> Result<Vec<Key>, Invalid> {
    values(TOMBSTONE_INDEX, identity)
}

fn values(index: &str, identity: &Identity) -> Result<Vec<Key>, Invalid> {
    let mut keys = Vec::with_capacity(2 + identity.macs.len());
    for mac in &identity.macs {
        keys.push(Key::new(format!("{index}mac/{mac}"))?);
    }
    if let Some(serial) = &identity.serial {
        keys.push(Key::new(format!("{index}serial/{}", serial.key()))?);
    }
    if let Some(uuid) = identity.uuid {
        keys.push(Key::new(format!("{index}uuid/{:032x}", u128::from_be_bytes(uuid.key())))?);
    }
    Ok(keys)
}
