//! What the store writes for the outbox and for scheduled jobs.
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{RecordError, decode_host, encode_cold, encode_hot, field, from_json, json, version_1};
use crate::{
    domain::{Actor, Event, EventKind, Host, HostId},
    store::{
        codec::{Reader, Writer},
        events::Generation,
        kv::Revision,
    },
};

/// How far a plugin was told of what happens: every event of a commit up to `revision` was told, or its host is parked,
/// or it is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxCursor {
    /// The store that numbered the commits.
    pub generation: Generation,
    /// The newest commit that is done with.
    pub revision: Revision,
    /// What is being read again from the store, if live events were missed.
    pub catch_up: Option<CatchUp>,
}

/// A pass over all hosts, for their events after the cursor's revision and up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// The newest commit that the pass covers; the cursor moves there at its end.
    pub until: Revision,
    /// Which hosts it is at.
    pub stage: Stage,
    /// The last one that is done with.
    pub after: Option<HostId>,
}

/// Known hosts come first, then those that were forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The hosts that exist.
    Known,
    /// Those that do not any more.
    Forgotten,
}

/// A host whose events a plugin could not be told: they wait in the timeline, and are told in order, while those of
/// other hosts go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The first event that is not done.
    pub from_seq: u64,
    /// How often the plugin was told of it.
    pub attempts: u32,
    /// How many of these attempts count: a plugin that asks for time may be asked again as often as it likes.
    pub faults: u32,
    /// When the next attempt is due.
    pub next_at: Timestamp,
    /// Since when the host is parked.
    pub since: Timestamp,
    /// Why, in the words of the newest attempt.
    pub error: String,
}

/// An event that a plugin could not be told of, with a copy, as the timeline forgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub event: Event,
    /// Why it is here, in the words of the newest attempt.
    pub error: String,
    /// When it came here, or was last replayed in vain.
    pub at: Timestamp,
    /// How often the plugin was told of it.
    pub attempts: u32,
}

/// The newest run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took; none while it runs, and if the server ended meanwhile.
    pub took_ms: Option<u64>,
    /// What became of it.
    pub outcome: JobOutcome,
    /// When the job runs next.
    pub next_at: Timestamp,
    /// Runs in a row that failed, or asked for time.
    pub failures: u32,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum JobOutcome {
    /// Nothing yet; or the server ended while it ran.
    Running,
    /// It is done for this time.
    Done,
    /// It went well, and there is more to do than fits into one run.
    More,
    /// The plugin asks for time.
    Later {
        /// Its words.
        why: String,
    },
    /// It did not go well.
    Failed {
        /// Why.
        why: String,
    },
}

/// The right to run a plugin's jobs, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Lease {
    /// The process that has it: random, drawn at its start.
    pub(in crate::store) holder: u64,
    /// Until when.
    pub(in crate::store) until: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct DeadLetterRecordV1 {
    error: String,
    at: Timestamp,
    attempts: u32,
    event: DeadEventV1,
}

#[derive(Serialize, Deserialize)]
struct DeadEventV1 {
    at: Timestamp,
    actor: Actor,
    #[serde(flatten)]
    kind: EventKind,
}

pub(in crate::store) fn encode_cursor(cursor: &OutboxCursor) -> Bytes {
    let mut to = Writer::new(super::VERSION_1);
    to.number(cursor.generation.get());
    to.number(cursor.revision.get());
    to.flag(cursor.catch_up.is_some());
    if let Some(CatchUp { until, stage, after }) = cursor.catch_up {
        to.number(until.get());
        to.byte(match stage {
            Stage::Known => 0,
            Stage::Forgotten => 1,
        });
        // Hosts are numbered from 1.
        to.number(after.map_or(0, HostId::get));
    }
    to.done()
}

pub(in crate::store) fn decode_cursor(bytes: &[u8]) -> Result<OutboxCursor, RecordError> {
    let mut from = Reader::new(version_1(bytes)?);
    let cursor = OutboxCursor {
        generation: Generation::new(from.number()?),
        revision: Revision::new(from.number()?),
        catch_up: if from.flag()? { Some(decode_catch_up(&mut from)?) } else { None },
    };
    from.end()?;
    Ok(cursor)
}

fn decode_catch_up(from: &mut Reader<'_>) -> Result<CatchUp, RecordError> {
    Ok(CatchUp {
        until: Revision::new(from.number()?),
        stage: match from.byte()? {
            0 => Stage::Known,
            1 => Stage::Forgotten,
            _ => return Err(field("stage")),
        },
        after: Some(from.number()?).filter(|number| *number > 0).map(HostId::new),
    })
}

pub(in crate::store) fn encode_parked(parked: &Parked) -> Result<Bytes, RecordError> {
    json(parked)
}

pub(in crate::store) fn decode_parked(bytes: &[u8]) -> Result<Parked, RecordError> {
    from_json(bytes)
}

pub(in crate::store) fn encode_dead_letter(letter: &DeadLetter) -> Result<Bytes, RecordError> {
    let DeadLetter { event: Event { at: happened_at, actor, kind, .. }, error, at, attempts } = letter.clone();
    json(&DeadLetterRecordV1 { error, at, attempts, event: DeadEventV1 { at: happened_at, actor, kind } })
}

pub(in crate::store) fn decode_dead_letter(host: HostId, seq: u64, bytes: &[u8]) -> Result<DeadLetter, RecordError> {
    let DeadLetterRecordV1 { error, at, attempts, event: DeadEventV1 { at: happened_at, actor, kind } } =
        from_json(bytes)?;
    Ok(DeadLetter { event: Event { host, seq, at: happened_at, actor, kind }, error, at, attempts })
}

pub(in crate::store) fn encode_job(run: &JobRun) -> Result<Bytes, RecordError> {
    json(run)
}

pub(in crate::store) fn decode_job(bytes: &[u8]) -> Result<JobRun, RecordError> {
    from_json(bytes)
}

pub(in crate::store) fn encode_lease(lease: &Lease) -> Result<Bytes, RecordError> {
    json(lease)
}

pub(in crate::store) fn decode_lease(bytes: &[u8]) -> Result<Lease, RecordError> {
    from_json(bytes)
}

/// A host as it was when it was forgotten: both of its records, the shorter one behind its length.
pub(in crate::store) fn encode_forgotten(host: &Host) -> Result<Bytes, RecordError> {
    let (cold, hot) = (encode_cold(host)?, encode_hot(host));
    let mut to = Writer::new(super::VERSION_1);
    to.number(hot.len() as u64);
    to.bytes(&hot);
    to.bytes(&cold);
    Ok(to.done())
}

pub(in crate::store) fn decode_forgotten(id: HostId, bytes: &[u8]) -> Result<Host, RecordError> {
    let mut from = Reader::new(version_1(bytes)?);
    let length = usize::try_from(from.number()?).map_err(|_| RecordError::Short)?;
    let (hot, cold) = from.rest().split_at_checked(length).ok_or(RecordError::Short)?;
    decode_host(id, cold, hot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::{at, busy_host, event};

    fn cursor(catch_up: Option<CatchUp>) -> OutboxCursor {
        OutboxCursor { generation: Generation::new(0xabc), revision: Revision::new(300), catch_up }
    }

    fn letter() -> DeadLetter {
        DeadLetter { event: event(HostId::new(7), 3, at(50)), error: "trapped".to_owned(), at: at(60), attempts: 10 }
    }

    #[test]
    fn what_was_written_is_read() {
        let pass = CatchUp { until: Revision::new(900), stage: Stage::Forgotten, after: Some(HostId::new(7)) };
        for cursor in [cursor(None), cursor(Some(pass)), cursor(Some(CatchUp { after: None, ..pass }))] {
            assert_eq!(decode_cursor(&encode_cursor(&cursor)), Ok(cursor));
        }
        let encoded = encode_dead_letter(&letter()).unwrap();
        assert_eq!(decode_dead_letter(HostId::new(7), 3, &encoded), Ok(letter()));
        let host = busy_host(7);
        assert_eq!(decode_forgotten(host.id, &encode_forgotten(&host).unwrap()), Ok(host));
    }

    #[test]
    fn records_of_version_1_stay_as_they_are() {
        // These bytes lie on disks out there: a change here needs a new version and a reader for the old one.
        let text = |bytes: Bytes| String::from_utf8(bytes[1..].to_vec()).unwrap();
        let hex = |bytes: Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let pass = CatchUp { until: Revision::new(900), stage: Stage::Known, after: Some(HostId::new(7)) };
        let parked = Parked {
            from_seq: 3,
            attempts: 4,
            faults: 2,
            next_at: at(90),
            since: at(60),
            error: "gave no answer".to_owned(),
        };
        let run = JobRun {
            started_at: at(0),
            took_ms: Some(250),
            outcome: JobOutcome::Later { why: "NetBox is down".to_owned() },
            next_at: at(300),
            failures: 1,
        };
        let lines = [
            hex(encode_cursor(&cursor(None))),
            hex(encode_cursor(&cursor(Some(pass)))),
            text(encode_parked(&parked).unwrap()),
            text(encode_dead_letter(&letter()).unwrap()),
            text(encode_job(&run).unwrap()),
            text(encode_lease(&Lease { holder: 7, until: at(60) }).unwrap()),
            hex(encode_forgotten(&busy_host(7)).unwrap()),
        ];
        insta::assert_snapshot!("outbox_records_v1", lines.join("\n"));
    }

    #[test]
    fn a_damaged_record_is_an_error_and_no_panic() {
        let pass = CatchUp { until: Revision::new(900), stage: Stage::Known, after: None };
        let encoded = encode_cursor(&cursor(Some(pass)));
        let forgotten = encode_forgotten(&busy_host(7)).unwrap();
        for length in 0..encoded.len() {
            assert!(decode_cursor(&encoded[..length]).is_err(), "cut to {length}");
        }
        for length in 0..forgotten.len() {
            assert!(decode_forgotten(HostId::new(7), &forgotten[..length]).is_err(), "cut to {length}");
        }
    }
}
