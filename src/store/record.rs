//! What the store writes for a host and an event, and how it reads it again.
//!
//! Invariant: a record that was ever written stays readable. Every record begins with a version byte; a changed layout
//! gets a new version and a reader for the old one. These types are separate from the domain's, so that a rule can
//! change without the disk changing. The hot record is rewritten at every boot and therefore small and binary (about 60
//! bytes and 20 per remembered boot); the others are JSON.
mod outbox;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::codec::{Reader, Writer};
use super::plugins::Orders;
use crate::domain::{
    Actor, Boot, BootId, Event, EventKind, Hardware, Host, HostId, Identity, Metadata, OrderName, PastBoot,
    PastOutcome, Safeguard, Stage, Step, Tombstone, Writes,
};

pub use outbox::{CatchUp, DeadLetter, JobOutcome, JobRun, OutboxCursor, Parked, Stage as CatchUpStage};
pub(super) use outbox::{
    Lease, decode_cursor, decode_dead_letter, decode_forgotten, decode_job, decode_lease, decode_parked, encode_cursor,
    encode_dead_letter, encode_forgotten, encode_job, encode_lease, encode_parked,
};

const VERSION_1: u8 = 1;
/// Of the hot record alone: flags follow at its end.
const VERSION_2: u8 = 2;

/// The host is quarantined. A flag that is not known here makes the record unreadable: it may forbid something.
const QUARANTINED: u64 = 1;
/// The host is locked; who locked it, when and why follows the flags.
const LOCKED: u64 = 2;
/// The next boot that writes counts as a reinstall.
const REINSTALLS: u64 = 4;

/// A stored record that this program cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer program.
    #[error("it has version {0}, which this program does not know")]
    Version(u8),
    /// Shorter than what it announces.
    #[error("it ends early")]
    Short,
    /// Longer than what it announces.
    #[error("something follows its end")]
    Long,
    /// A value outside its range.
    #[error("its {field} cannot be read")]
    Field {
        /// Which one.
        field: &'static str,
    },
    /// No JSON, or not of the right form.
    #[error("its JSON cannot be read: {0}")]
    Json(String),
}

fn field(field: &'static str) -> RecordError {
    RecordError::Field { field }
}

fn json<T: Serialize>(record: &T) -> Result<Bytes, RecordError> {
    let mut bytes = vec![VERSION_1];
    serde_json::to_writer(&mut bytes, record).map_err(|error| RecordError::Json(error.to_string()))?;
    Ok(bytes.into())
}

/// What follows the version byte of a record of version 1.
fn version_1(bytes: &[u8]) -> Result<&[u8], RecordError> {
    match bytes.split_first() {
        Some((&VERSION_1, rest)) => Ok(rest),
        Some((&version, _)) => Err(RecordError::Version(version)),
        None => Err(RecordError::Short),
    }
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    serde_json::from_slice(version_1(bytes)?).map_err(|error| RecordError::Json(error.to_string()))
}

// ---- Hosts ----

/// What rarely changes of a host.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ColdRecordV1 {
    serial: Option<String>,
    uuid: Option<String>,
    macs: Vec<String>,
    hardware: HardwareV1,
    hostname: Option<String>,
    metadata: Map<String, Value>,
    created_at: Timestamp,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct HardwareV1 {
    manufacturer: Option<String>,
    product: Option<String>,
    asset: Option<String>,
    buildarch: Option<String>,
    platform: Option<String>,
    hostname: Option<String>,
}

/// What every boot changes, read back.
struct HotRecord {
    event_count: u64,
    revision: u64,
    step: Step,
    attempts: u32,
    marks: u8,
    changed_at: Timestamp,
    states: String,
    boot: Option<Boot>,
    past: Vec<PastBoot>,
    flags: u64,
    lock: Option<Safeguard>,
}

pub(super) fn encode_cold(host: &Host) -> Result<Bytes, RecordError> {
    let Host { identity, hardware, hostname, metadata, created_at, .. } = host;
    let Hardware { manufacturer, product, asset, buildarch, platform, hostname: told } = hardware.clone();
    json(&ColdRecordV1 {
        serial: identity.serial.as_ref().map(ToString::to_string),
        uuid: identity.uuid.map(|uuid| uuid.to_string()),
        macs: identity.macs.iter().map(ToString::to_string).collect(),
        hardware: HardwareV1 { manufacturer, product, asset, buildarch, platform, hostname: told },
        hostname: hostname.as_ref().map(ToString::to_string),
        metadata: metadata.as_map().clone(),
        created_at: *created_at,
    })
}

/// Whether [`encode_cold`] gives the same for both, without encoding. Serials that differ only in case are one
/// machine's but not one text.
pub(super) fn cold_is_same(one: &Host, other: &Host) -> bool {
    let serial = |host: &Host| host.identity.serial.as_ref().map(|serial| serial.as_str().to_owned());
    one.identity == other.identity
        && serial(one) == serial(other)
        && one.hardware == other.hardware
        && one.hostname == other.hostname
        && one.metadata == other.metadata
        && one.created_at == other.created_at
}

pub(super) fn encode_hot(host: &Host) -> Bytes {
    let mut to = Writer::new(VERSION_2);
    // First, as it is read alone.
    to.number(host.event_count);
    to.number(host.revision);
    to.number(host.step.get());
    to.number(u64::from(host.attempts));
    // Older programs wrote the first bit only.
    to.byte(u8::from(host.seen) | (u8::from(host.installed) << 1));
    to.time(host.changed_at);
    to.text(&host.states.to_string());
    to.flag(host.boot.is_some());
    if let Some(boot) = &host.boot {
        encode_boot(&mut to, boot);
    }
    to.number(host.past.len() as u64);
    for PastBoot { bootid, outcome } in &host.past {
        encode_bootid(&mut to, *bootid);
        to.byte(match outcome {
            PastOutcome::Superseded => 0,
            PastOutcome::Finished => 1,
        });
    }
    let flag = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
    to.number(
        flag(host.quarantined, QUARANTINED) | flag(host.lock.is_some(), LOCKED) | flag(host.reinstalls, REINSTALLS),
    );
    if let Some(lock) = &host.lock {
        encode_lock(&mut to, lock);
    }
    to.done()
}

fn encode_lock(to: &mut Writer, lock: &Safeguard) {
    let (kind, name) = match &lock.by {
        Actor::Machine => (0, ""),
        Actor::Operator(name) => (1, name.as_str()),
        Actor::Plugin(name) => (2, name.as_str()),
        Actor::Server => (3, ""),
    };
    to.byte(kind);
    to.text(name);
    to.time(lock.at);
    to.text(&lock.why);
}

fn decode_lock(from: &mut Reader<'_>) -> Result<Safeguard, RecordError> {
    let (kind, name) = (from.byte()?, from.text()?);
    let by = match kind {
        0 => Actor::Machine,
        1 => Actor::Operator(name),
        2 => Actor::Plugin(name),
        3 => Actor::Server,
        _ => return Err(field("lock")),
    };
    Ok(Safeguard { by, at: from.time()?, why: from.text()? })
}

fn encode_boot(to: &mut Writer, boot: &Boot) {
    encode_bootid(to, boot.bootid);
    to.number(boot.step.get());
    to.address(boot.from);
    to.time(boot.at);
    to.flag(boot.image.is_some());
    if let Some(image) = &boot.image {
        to.text(image.as_str());
    }
    let writes = match boot.writes {
        Writes::Nothing => 0,
        Writes::Disk => 1,
        Writes::Wipe => 2,
    };
    to.byte(writes | if boot.detour { DETOUR } else { 0 });
    match &boot.stage {
        Stage::Offered => to.byte(0),
        Stage::Started => to.byte(1),
        Stage::Delivered => to.byte(2),
        Stage::Failed { reason } => {
            to.byte(3);
            to.text(reason);
        }
        Stage::Done { why } => {
            to.byte(4);
            to.text(why);
        }
    }
    to.flag(boot.held);
}

/// Beside what a boot writes.
const DETOUR: u8 = 0x10;

fn encode_bootid(to: &mut Writer, bootid: BootId) {
    to.number(bootid.host().get());
    to.bytes(&bootid.secret());
}

/// A host from its two records.
pub(super) fn decode_host(id: HostId, cold: &[u8], hot: &[u8]) -> Result<Host, RecordError> {
    let cold: ColdRecordV1 = from_json(cold)?;
    let hot = decode_hot(hot)?;
    let HardwareV1 { manufacturer, product, asset, buildarch, platform, hostname: told } = cold.hardware;
    // What has become junk by a newer rule since it was stored is evidence no more; that is no damage.
    let identity = Identity {
        serial: cold.serial.and_then(|serial| serial.parse().ok()),
        uuid: cold.uuid.and_then(|uuid| uuid.parse().ok()),
        macs: cold.macs.iter().filter_map(|mac| mac.parse().ok()).collect(),
    };
    Ok(Host {
        id,
        revision: hot.revision,
        event_count: hot.event_count,
        identity,
        hardware: Hardware { manufacturer, product, asset, buildarch, platform, hostname: told },
        hostname: cold.hostname.map(|name| name.parse().map_err(|_| field("hostname"))).transpose()?,
        states: hot.states.parse().map_err(|_| field("states"))?,
        step: hot.step,
        attempts: hot.attempts,
        boot: hot.boot,
        past: hot.past,
        metadata: Metadata::try_from(cold.metadata).map_err(|_| field("metadata"))?,
        seen: hot.marks & 1 != 0,
        installed: hot.marks & 2 != 0,
        quarantined: hot.flags & QUARANTINED != 0,
        lock: hot.lock,
        reinstalls: hot.flags & REINSTALLS != 0,
        created_at: cold.created_at,
        changed_at: hot.changed_at,
    })
}

/// The number of events alone: it tells the versions of a host apart.
pub(super) fn decode_event_count(hot: &[u8]) -> Result<u64, RecordError> {
    Reader::new(hot_version(hot)?.1).number()
}

/// The version of a hot record and what follows it.
fn hot_version(hot: &[u8]) -> Result<(u8, &[u8]), RecordError> {
    match hot.split_first() {
        Some((&version @ (VERSION_1 | VERSION_2), rest)) => Ok((version, rest)),
        Some((&version, _)) => Err(RecordError::Version(version)),
        None => Err(RecordError::Short),
    }
}

fn decode_hot(hot: &[u8]) -> Result<HotRecord, RecordError> {
    let (version, rest) = hot_version(hot)?;
    let mut from = Reader::new(rest);
    let mut record = HotRecord {
        event_count: from.number()?,
        revision: from.number()?,
        step: Step::new(from.number()?),
        attempts: u32::try_from(from.number()?).map_err(|_| field("attempts"))?,
        marks: match from.byte()? {
            marks @ 0..=3 => marks,
            _ => return Err(field("marks")),
        },
        changed_at: from.time()?,
        states: from.text()?,
        boot: if from.flag()? { Some(decode_boot(&mut from)?) } else { None },
        past: decode_past(&mut from)?,
        flags: if version == VERSION_1 { 0 } else { from.number()? },
        lock: None,
    };
    if record.flags & !(QUARANTINED | LOCKED | REINSTALLS) != 0 {
        return Err(field("flags"));
    }
    if record.flags & LOCKED != 0 {
        record.lock = Some(decode_lock(&mut from)?);
    }
    from.end()?;
    Ok(record)
}

fn decode_boot(from: &mut Reader<'_>) -> Result<Boot, RecordError> {
    let bootid = decode_bootid(from)?;
    let step = Step::new(from.number()?);
    let (address, at) = (from.address()?, from.time()?);
    let image = if from.flag()? { Some(from.text()?.parse().map_err(|_| field("image"))?) } else { None };
    let writes = from.byte()?;
    Ok(Boot {
        bootid,
        step,
        from: address,
        at,
        image,
        detour: writes & DETOUR != 0,
        writes: match writes & !DETOUR {
            0 => Writes::Nothing,
            1 => Writes::Disk,
            2 => Writes::Wipe,
            _ => return Err(field("writes")),
        },
        stage: match from.byte()? {
            0 => Stage::Offered,
            1 => Stage::Started,
            2 => Stage::Delivered,
            3 => Stage::Failed { reason: from.text()? },
            4 => Stage::Done { why: from.text()? },
            _ => return Err(field("stage")),
        },
        held: from.flag()?,
    })
}

fn decode_past(from: &mut Reader<'_>) -> Result<Vec<PastBoot>, RecordError> {
    let count = from.number()?;
    let mut past = Vec::new();
    for _ in 0..count {
        let bootid = decode_bootid(from)?;
        let outcome = match from.byte()? {
            0 => PastOutcome::Superseded,
            1 => PastOutcome::Finished,
            _ => return Err(field("past boots")),
        };
        past.push(PastBoot { bootid, outcome });
    }
    Ok(past)
}

fn decode_bootid(from: &mut Reader<'_>) -> Result<BootId, RecordError> {
    Ok(BootId::new(HostId::new(from.number()?), from.bytes()?))
}

// ---- Events ----

/// An event without what its key says. The names within `kind` and `actor` are the domain's own: they are part of the
/// interface and as stable as a record must be.
#[derive(Serialize, Deserialize)]
struct EventRecordV1 {
    /// The commit that wrote it: who does not know whether a commit happened looks here.
    op: String,
    at: Timestamp,
    actor: Actor,
    #[serde(flatten)]
    kind: EventKind,
}

pub(super) fn encode_event(event: &Event, operation: u64) -> Result<Bytes, RecordError> {
    let Event { at, actor, kind, .. } = event.clone();
    json(&EventRecordV1 { op: format!("{operation:016x}"), at, actor, kind })
}

pub(super) fn decode_event(host: HostId, seq: u64, bytes: &[u8]) -> Result<Event, RecordError> {
    let EventRecordV1 { op: _, at, actor, kind } = from_json(bytes)?;
    Ok(Event { host, seq, at, actor, kind })
}

// ---- Small ones ----

/// The hosts that share an identity value.
pub(super) fn encode_ids(ids: &[HostId]) -> Bytes {
    let mut to = Writer::new(VERSION_1);
    for id in ids {
        to.number(id.get());
    }
    to.done()
}

pub(super) fn decode_ids(bytes: &[u8]) -> Result<Vec<HostId>, RecordError> {
    let mut from = Reader::new(version_1(bytes)?);
    let mut ids = Vec::new();
    while !from.is_empty() {
        ids.push(HostId::new(from.number()?));
    }
    Ok(ids)
}

/// That an order was carried out: the number of the event that tells of it, and its name, for whoever looks by hand.
pub(super) fn encode_spent_order(name: &OrderName, event_seq: u64) -> Bytes {
    let mut to = Writer::new(VERSION_1);
    to.number(event_seq);
    to.text(name.as_str());
    to.done()
}

pub(super) fn encode_orders(orders: &Orders) -> Result<Bytes, RecordError> {
    json(orders)
}

pub(super) fn decode_orders(bytes: &[u8]) -> Result<Orders, RecordError> {
    from_json(bytes)
}

/// That a store was restored, and not yet vouched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RestoredRecord {
    /// When the backup was taken.
    pub(super) taken_at: Timestamp,
    /// When it was restored.
    pub(super) restored_at: Timestamp,
}

pub(super) fn encode_restored(restored: &RestoredRecord) -> Result<Bytes, RecordError> {
    json(restored)
}

pub(super) fn decode_restored(bytes: &[u8]) -> Result<RestoredRecord, RecordError> {
    from_json(bytes)
}

/// What is left of a forgotten host.
#[derive(Serialize, Deserialize)]
struct TombstoneRecordV1 {
    serial: Option<String>,
    uuid: Option<String>,
    macs: Vec<String>,
    hostname: Option<String>,
    forgotten_at: Timestamp,
}

pub(super) fn encode_tombstone(tombstone: &Tombstone) -> Result<Bytes, RecordError> {
    let Tombstone { id: _, identity, hostname, forgotten_at } = tombstone;
    json(&TombstoneRecordV1 {
        serial: identity.serial.as_ref().map(ToString::to_string),
        uuid: identity.uuid.map(|uuid| uuid.to_string()),
        macs: identity.macs.iter().map(ToString::to_string).collect(),
        hostname: hostname.as_ref().map(ToString::to_string),
        forgotten_at: *forgotten_at,
    })
}

pub(super) fn decode_tombstone(id: HostId, bytes: &[u8]) -> Result<Tombstone, RecordError> {
    let record: TombstoneRecordV1 = from_json(bytes)?;
    // As for hosts: what has become junk by a newer rule is evidence no more.
    let identity = Identity {
        serial: record.serial.and_then(|serial| serial.parse().ok()),
        uuid: record.uuid.and_then(|uuid| uuid.parse().ok()),
        macs: record.macs.iter().filter_map(|mac| mac.parse().ok()).collect(),
    };
    let hostname = record.hostname.map(|name| name.parse().map_err(|_| field("hostname"))).transpose()?;
    Ok(Tombstone { id, identity, hostname, forgotten_at: record.forgotten_at })
}

/// A freeze.
pub(super) fn encode_safeguard(safeguard: &Safeguard) -> Result<Bytes, RecordError> {
    json(safeguard)
}

pub(super) fn decode_safeguard(bytes: &[u8]) -> Result<Safeguard, RecordError> {
    from_json(bytes)
}

/// Moments, in any order.
pub(super) fn encode_moments(moments: &[Timestamp]) -> Bytes {
    let mut to = Writer::new(VERSION_1);
    for moment in moments {
        to.time(*moment);
    }
    to.done()
}

pub(super) fn decode_moments(bytes: &[u8]) -> Result<Vec<Timestamp>, RecordError> {
    let mut from = Reader::new(version_1(bytes)?);
    let mut moments = Vec::new();
    while !from.is_empty() {
        moments.push(from.time()?);
    }
    Ok(moments)
}

/// Checks a record of an order that was carried out.
pub(super) fn check_spent_order(bytes: &[u8]) -> Result<(), RecordError> {
    let mut from = Reader::new(version_1(bytes)?);
    drop((from.number()?, from.text()?));
    from.end()
}

pub(super) fn encode_number(number: u64) -> Bytes {
    let mut to = Writer::new(VERSION_1);
    to.number(number);
    to.done()
}

pub(super) fn decode_number(bytes: &[u8]) -> Result<u64, RecordError> {
    let mut from = Reader::new(version_1(bytes)?);
    let number = from.number()?;
    from.end()?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::{at, busy_host, event};

    #[test]
    fn a_host_survives_its_records() {
        for stage in [
            Stage::Offered,
            Stage::Started,
            Stage::Delivered,
            Stage::Failed { reason: "dd: no space \"left\"".to_owned() },
            Stage::Done { why: "the plugin netbox refuses: frozen".to_owned() },
        ] {
            let mut host = busy_host(7);
            host.boot.as_mut().unwrap().stage = stage;
            let decoded = decode_host(host.id, &encode_cold(&host).unwrap(), &encode_hot(&host)).unwrap();
            assert_eq!(decoded, host);
            assert_eq!(decode_event_count(&encode_hot(&host)), Ok(host.event_count));
        }
    }

    #[test]
    fn the_hot_record_is_small() {
        let host = busy_host(70_000);
        assert!(encode_hot(&host).len() <= 200, "{} bytes", encode_hot(&host).len());
    }

    #[test]
    fn a_hot_record_of_version_1_is_read_as_a_host_that_is_not_quarantined() {
        let host = busy_host(7);
        let quarantined = Host { quarantined: true, ..host.clone() };
        let cold = encode_cold(&host).unwrap();
        assert_eq!(decode_host(host.id, &cold, &encode_hot(&quarantined)).unwrap(), quarantined);
        // As the first release wrote it.
        let written = include_str!("record/snapshots/hot_record_v1.hex").trim();
        let old: Vec<u8> =
            (0..written.len()).step_by(2).map(|at| u8::from_str_radix(&written[at..at + 2], 16).unwrap()).collect();
        assert_eq!(decode_event_count(&old), Ok(host.event_count));
        assert_eq!(decode_host(host.id, &cold, &old).unwrap(), host);
        let mut unknown = encode_hot(&host).to_vec();
        *unknown.last_mut().unwrap() = 8;
        assert_eq!(decode_host(host.id, &cold, &unknown), Err(field("flags")));
    }

    #[test]
    fn a_lock_survives_its_record() {
        for by in [Actor::Machine, Actor::Operator("ada".into()), Actor::Plugin("cmdb".into()), Actor::Server] {
            let lock = Safeguard::new(by, "its disk is evidence", at(9));
            let host = Host { lock: Some(lock), quarantined: true, reinstalls: true, ..busy_host(7) };
            let (cold, hot) = (encode_cold(&host).unwrap(), encode_hot(&host));
            assert_eq!(decode_host(host.id, &cold, &hot).unwrap(), host);
            for length in 0..hot.len() {
                assert!(decode_host(host.id, &cold, &hot[..length]).is_err(), "cut to {length}");
            }
        }
        let moments = [at(3), at(1)];
        assert_eq!(decode_moments(&encode_moments(&moments)).unwrap(), moments);
    }

    #[test]
    fn records_on_disks_stay_as_they_are() {
        // These bytes lie on disks out there: a change here needs a new version and a reader for the old one.
        let host = busy_host(7);
        let hot = encode_hot(&host).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        insta::assert_snapshot!("hot_record_v2", hot);
        let cold = String::from_utf8(encode_cold(&host).unwrap()[1..].to_vec()).unwrap();
        insta::assert_snapshot!("cold_record_v1", cold);
        let event = encode_event(&event(HostId::new(7), 3, at(50)), 0xabc).unwrap();
        insta::assert_snapshot!("event_record_v1", String::from_utf8(event[1..].to_vec()).unwrap());
    }

    #[test]
    fn a_damaged_or_newer_record_is_an_error_and_no_panic() {
        let host = busy_host(7);
        let (cold, hot) = (encode_cold(&host).unwrap(), encode_hot(&host));
        for length in 0..hot.len() {
            assert!(decode_host(host.id, &cold, &hot[..length]).is_err(), "cut to {length}");
        }
        for index in 0..hot.len() {
            let mut flipped = hot.to_vec();
            flipped[index] ^= 0xff;
            drop(decode_host(host.id, &cold, &flipped));
        }
        assert_eq!(decode_host(host.id, &cold, &[3, 0]).unwrap_err(), RecordError::Version(3));
        assert_eq!(decode_ids(&[]), Err(RecordError::Short));
    }
}
