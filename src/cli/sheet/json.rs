//! Hosts as an array of objects.

use std::io::{self, Write};

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{Complaint, MOST_HOSTS, Sheet};
use crate::cli::words::split_queue;
use crate::wire::{HostRow, HostView};

/// A host in such a file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<String>,
    macs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    states: Option<Queue>,
    #[serde(skip_serializing_if = "Map::is_empty", deserialize_with = "object")]
    metadata: Map<String, Value>,
}

/// A queue as an array, or as people write it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Queue {
    Names(Vec<String>),
    Text(String),
}

/// A value in which every key stands once: of two, nobody could say which one is meant.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands here twice")));
            }
            let Unambiguous(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    match Unambiguous::deserialize(deserializer)?.0 {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(D::Error::custom("a JSON object such as {\"site\": \"fra1\"} is expected"))
        }
    }
}

/// Reads an array of hosts.
pub(super) fn read(text: &str) -> Result<Sheet, String> {
    if !text.trim_start().starts_with('[') {
        return Err("an array of hosts is expected: [{\"serial\": …}, …]".to_owned());
    }
    let pieces = match pieces(text) {
        Ok(pieces) => pieces,
        Err((at, why)) => {
            let (line, column) = place(text, at);
            let complaints = vec![Complaint { line: number(line), column: Some(number(column + 1)), why }];
            return Ok(Sheet { complaints, ..Sheet::default() });
        }
    };
    if pieces.len() > MOST_HOSTS {
        return Err(format!("it names more than {MOST_HOSTS} hosts: split it"));
    }
    let mut sheet = Sheet::default();
    let (mut line, mut counted) = (1, 0);
    for (start, piece) in pieces {
        line += super::lines_in(text.as_bytes().get(counted..start).unwrap_or_default());
        counted = start;
        match serde_json::from_str::<Entry>(piece) {
            Ok(entry) => sheet.rows.push(row(entry, number(line))),
            Err(error) => {
                let within = if error.line() > 1 { 0 } else { place(text, start).1 };
                sheet.complaints.push(Complaint {
                    line: number(line + error.line().saturating_sub(1)),
                    column: Some(number(within + error.column())),
                    why: said(&error),
                });
            }
        }
    }
    Ok(sheet)
}

/// The elements of an array with their places in the text, so that each can be read, and blamed, by itself; or where the text is
/// none, and why.
fn pieces(text: &str) -> Result<Vec<(usize, &str)>, (usize, String)> {
    let blank = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        at + (rest.len() - rest.trim_start().len())
    };
    let mut pieces = Vec::new();
    // Behind the bracket.
    let mut at = blank(blank(0) + 1);
    if text.get(at..).is_some_and(|rest| rest.starts_with(']')) {
        return Ok(pieces);
    }
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let mut reader = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match reader.next() {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err((at + reader.byte_offset(), said(&error))),
            None => return Err((at, "it ends in the middle".to_owned())),
        }
        let end = at + reader.byte_offset();
        pieces.push((at, text.get(at..end).unwrap_or_default()));
        let next = blank(end);
        match text.as_bytes().get(next) {
            Some(b',') => at = blank(next + 1),
            Some(b']') if blank(next + 1) == text.len() => return Ok(pieces),
            Some(b']') => return Err((blank(next + 1), "there is more behind the end of the array".to_owned())),
            Some(_) => return Err((next, "a comma is missing".to_owned())),
            None => return Err((next, "it ends in the middle".to_owned())),
        }
    }
}

/// Line, from 1, and column, from 0, of a place.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    (super::lines_in(before.as_bytes()) + 1, before.len() - before.rfind('\n').map_or(0, |end| end + 1))
}

/// An array of hosts, one a line, so that versions of it can be compared.
pub(crate) fn write(hosts: &[HostView], mut out: impl Write) -> io::Result<()> {
    out.write_all(b"[")?;
    for (number, host) in hosts.iter().enumerate() {
        out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
        let entry = Entry {
            hostname: host.hostname.clone(),
            serial: host.serial.clone(),
            uuid: host.uuid.clone(),
            macs: host.macs.clone(),
            states: Some(Queue::Names(host.states.clone())),
            metadata: host.metadata.clone(),
        };
        serde_json::to_writer(&mut out, &entry)?;
    }
    out.write_all(b"\n]\n")?;
    out.flush()
}

fn row(entry: Entry, line: u64) -> HostRow {
    let Entry { hostname, serial, uuid, macs, states, metadata } = entry;
    let states = states.map(|states| match states {
        Queue::Names(names) => names,
        Queue::Text(text) => split_queue(&text),
    });
    HostRow { line, hostname, serial, uuid, macs, states, metadata }
}

/// What a reader says, without the place, which is said elsewhere.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(said, _)| said.to_owned())
}

fn number(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
