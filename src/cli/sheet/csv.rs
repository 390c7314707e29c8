//! Hosts as a table: the first line names the columns.

use std::collections::BTreeMap;
use std::io::{self, Write};

use csv::{ReaderBuilder, StringRecord, WriterBuilder};
use serde_json::{Map, Value};

use super::{Complaint, MOST_HOSTS, Sheet, cell};
use crate::cli::words::split_queue;
use crate::wire::{HostRow, HostView};

const COLUMNS: &str = "hostname, serial, uuid, macs, states, metadata.KEY";

/// What a column is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Hostname,
    Serial,
    Uuid,
    Macs,
    States,
    Metadata,
    /// One value of the metadata, by its path.
    At(Vec<String>),
}

impl Column {
    fn parse(name: &str) -> Result<Self, String> {
        match name.to_ascii_lowercase().as_str() {
            "hostname" | "name" => Ok(Self::Hostname),
            "serial" => Ok(Self::Serial),
            "uuid" => Ok(Self::Uuid),
            "mac" | "macs" => Ok(Self::Macs),
            "state" | "states" => Ok(Self::States),
            "metadata" => Ok(Self::Metadata),
            "id" => {
                Err("hosts are not told by their number here: leave out this column, serial, uuid or macs tell them"
                    .to_owned())
            }
            "" => Err(format!("this column has no name: there are {COLUMNS}")),
            _ => match name.split_once('.') {
                Some((word, path)) if word.eq_ignore_ascii_case("metadata") => {
                    let path = split_path(path);
                    if path.iter().any(String::is_empty) {
                        return Err(format!("{name:?} has a part without a name: metadata.KEY is expected"));
                    }
                    Ok(Self::At(path))
                }
                Some(_) | None => Err(format!("there is no column {name:?}: the first line names them, of {COLUMNS}")),
            },
        }
    }

    /// The part of a host, as the server names it.
    const fn field(&self) -> &'static str {
        match self {
            Self::Hostname => "hostname",
            Self::Serial => "serial",
            Self::Uuid => "uuid",
            Self::Macs => "macs",
            Self::States => "states",
            Self::Metadata | Self::At(_) => "metadata",
        }
    }
}

/// Reads a table.
pub(super) fn read(text: &str) -> Result<Sheet, String> {
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter(text)).from_reader(text.as_bytes());
    let mut records = reader.records();
    let header = match records.next() {
        Some(record) => record.map_err(|error| error.to_string())?,
        None => return Err(format!("it is empty: the first line names the columns, of {COLUMNS}")),
    };
    let mut sheet = Sheet::default();
    let columns = columns(&header, &mut sheet);
    if !sheet.complaints.is_empty() {
        return Ok(sheet);
    }
    let (mut line, mut counted) = (1, 0);
    for record in records {
        let record = record.map_err(|error| error.to_string())?;
        // The reader counts lines that end in CR LF one late, so this counts by itself.
        let begin = record.position().map_or(0, |position| usize::try_from(position.byte()).unwrap_or(usize::MAX));
        let rest = text.get(begin..).unwrap_or_default();
        let begin = begin + (rest.len() - rest.trim_start_matches(['\r', '\n']).len());
        line += super::lines_in(text.as_bytes().get(counted..begin).unwrap_or_default());
        counted = begin;
        // Spreadsheets keep the commas of lines that were cleared.
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if sheet.rows.len() >= MOST_HOSTS {
            return Err(format!("it names more than {MOST_HOSTS} hosts: split it"));
        }
        read_record(u64::try_from(line).unwrap_or(u64::MAX), &record, &columns, &mut sheet);
    }
    Ok(sheet)
}

/// A table of hosts, with the columns that they need.
pub(crate) fn write(hosts: &[HostView], out: impl Write) -> io::Result<()> {
    let lines: Vec<BTreeMap<Column, String>> = hosts.iter().map(cells).collect();
    let mut columns: Vec<Column> = vec![Column::Hostname, Column::Serial, Column::Uuid, Column::Macs, Column::States];
    let metadata: std::collections::BTreeSet<&Column> =
        lines.iter().flat_map(BTreeMap::keys).filter(|column| !columns.contains(column)).collect();
    let metadata: Vec<Column> = metadata.into_iter().cloned().collect();
    columns.extend(metadata);
    let mut writer = WriterBuilder::new().from_writer(out);
    let name = |column: &Column| match column {
        Column::At(path) => format!("metadata.{}", path.join(".")),
        Column::Hostname | Column::Serial | Column::Uuid | Column::Macs | Column::States | Column::Metadata => {
            column.field().to_owned()
        }
    };
    writer.write_record(columns.iter().map(name))?;
    for line in &lines {
        writer.write_record(columns.iter().map(|column| line.get(column).map_or("", String::as_str)))?;
    }
    writer.flush()
}

/// What stands between cells: people in half of Europe have semicolons there.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().next().unwrap_or_default();
    match (header.contains(','), header.contains(';'), header.contains('\t')) {
        (false, true, _) => b';',
        (false, false, true) => b'\t',
        (_, _, _) => b',',
    }
}

fn columns(header: &StringRecord, sheet: &mut Sheet) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for (number, name) in (1..).zip(header) {
        let mut complain = |why| sheet.complaints.push(Complaint { line: 1, column: Some(number), why });
        match Column::parse(name.trim()) {
            Ok(column) => {
                if columns.contains(&column) {
                    complain(format!("the column {} stands here twice", name.trim()));
                }
                if sheet.column(column.field()).is_none() {
                    sheet.columns.push((column.field(), number));
                }
                columns.push(column);
            }
            Err(why) => complain(why),
        }
    }
    columns
}

fn read_record(line: u64, record: &StringRecord, columns: &[Column], sheet: &mut Sheet) {
    let before = sheet.complaints.len();
    if record.len() != columns.len() {
        let (found, wanted) = (record.len(), columns.len());
        let why = format!("this has {found} cells, and the first line names {wanted} columns");
        sheet.complaints.push(Complaint { line, column: None, why });
        return;
    }
    let mut row = HostRow { line, ..HostRow::default() };
    for ((number, column), cell) in (1..).zip(columns).zip(record) {
        let cell = cell.trim();
        if cell.is_empty() {
            continue;
        }
        let taken = match cell.contains('\n') {
            true => Err("this cell goes on in the next line: a quotation mark is missing".to_owned()),
            false => take(&mut row, column, cell),
        };
        if let Err(why) = taken {
            sheet.complaints.push(Complaint { line, column: Some(number), why });
        }
    }
    if sheet.complaints.len() == before {
        sheet.rows.push(row);
    }
}

fn take(row: &mut HostRow, column: &Column, cell: &str) -> Result<(), String> {
    match column {
        Column::Hostname => row.hostname = Some(cell::text(cell)?),
        Column::Serial => row.serial = Some(cell::text(cell)?),
        Column::Uuid => row.uuid = Some(cell::text(cell)?),
        Column::Macs => {
            let words = cell.split([' ', ',', ';']).filter(|word| !word.is_empty());
            row.macs = words.map(str::to_owned).collect();
        }
        Column::States => row.states = Some(split_queue(cell)),
        Column::Metadata => match cell::value(cell)? {
            Value::Object(map) => {
                for (key, value) in map {
                    put(&mut row.metadata, &[key], value)?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err("a JSON object such as {\"site\": \"fra1\"} is expected".to_owned());
            }
        },
        Column::At(path) => put(&mut row.metadata, path, cell::value(cell)?)?,
    }
    Ok(())
}

/// Puts a value where a path leads, and makes the objects on the way.
fn put(map: &mut Map<String, Value>, path: &[String], value: Value) -> Result<(), String> {
    let (key, rest) = match path {
        [] => return Ok(()),
        [key, rest @ ..] => (key, rest),
    };
    if rest.is_empty() {
        return match map.insert(key.clone(), value) {
            None => Ok(()),
            Some(_) => Err(format!("another column says something of {key}, too")),
        };
    }
    match map.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(inner) => put(inner, rest, value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(format!("another column says that {key} is a value, and here it has parts"))
        }
    }
}

/// The keys of a path; a dot inside a key is written `\.`.
fn split_path(path: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        let next = match character {
            '.' => {
                keys.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(key) = keys.last_mut() {
            key.push(next);
        }
    }
    keys
}

fn cells(host: &HostView) -> BTreeMap<Column, String> {
    let mut cells = BTreeMap::new();
    let texts = [(Column::Hostname, &host.hostname), (Column::Serial, &host.serial), (Column::Uuid, &host.uuid)];
    for (column, text) in texts {
        cells.extend(text.as_ref().map(|text| (column, cell::of_text(text))));
    }
    cells.insert(Column::Macs, host.macs.join(" "));
    cells.insert(Column::States, host.states.join(","));
    let mut rest = Map::new();
    for (key, value) in &host.metadata {
        if is_plain(key) {
            flatten(vec![key.clone()], value, &mut cells);
        } else {
            rest.insert(key.clone(), value.clone());
        }
    }
    if !rest.is_empty() {
        cells.insert(Column::Metadata, Value::Object(rest).to_string());
    }
    cells
}

/// One cell for a value; objects become one for each of their parts, if these have names for columns.
fn flatten(path: Vec<String>, value: &Value, cells: &mut BTreeMap<Column, String>) {
    match value {
        Value::Object(map) if !map.is_empty() && map.keys().all(|key| is_plain(key)) => {
            for (key, value) in map {
                flatten([path.clone(), vec![key.clone()]].concat(), value, cells);
            }
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            cells.insert(Column::At(path), cell::of_value(value));
        }
    }
}

/// Whether a key can stand in the name of a column.
fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}
