//! Lists of hosts as files: CSV for people with spreadsheets, JSON for programs.
//!
//! Invariant: what is written here is read back as the same hosts, whatever firmware and people put into them. A cell is plain text
//! where that is read back as it is and no spreadsheet takes it for a formula; else it is JSON.

mod cell;
mod csv;
mod json;
#[cfg(test)]
mod tests;

use std::io::Read;

use crate::wire::HostRow;

pub(crate) use self::csv::write as write_csv;
pub(crate) use self::json::write as write_json;

/// A file may be so large; a line can then be no larger.
pub(crate) const MOST_BYTES: u64 = 64 << 20;
/// A file may name so many hosts.
pub(crate) const MOST_HOSTS: usize = 100_000;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SheetFormat {
    /// A table, one host a line.
    Csv,
    /// An array of objects, one host a line.
    Json,
}

/// A list that was read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Sheet {
    /// The lines that could be read.
    pub(crate) rows: Vec<HostRow>,
    /// What is wrong with the others.
    pub(crate) complaints: Vec<Complaint>,
    /// The first column of each part of a host, in CSV.
    pub(crate) columns: Vec<(&'static str, u64)>,
}

/// What is wrong, and where; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Complaint {
    pub(crate) line: u64,
    pub(crate) column: Option<u64>,
    pub(crate) why: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.column {
            Some(column) => write!(f, "line {}, column {column}: {}", self.line, self.why),
            None => write!(f, "line {}: {}", self.line, self.why),
        }
    }
}

impl Sheet {
    /// The column in which a part of a host stands.
    pub(crate) fn column(&self, field: &str) -> Option<u64> {
        self.columns.iter().find(|(name, _)| *name == field).map(|(_, column)| *column)
    }
}

/// The text of a file, which is read no further than it may be large.
pub(crate) fn text(file: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| format!("it cannot be read: {error}"))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST_BYTES {
        return Err(format!("it has more than {} MiB: split it", MOST_BYTES >> 20));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16: save it as UTF-8".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        format!("line {} is no UTF-8: save the file as UTF-8", lines_in(before) + 1)
    })?;
    // Spreadsheets mark UTF-8 by a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// Reads a list; `format` is what the file's name says, else its content tells.
pub(crate) fn read(text: &str, format: Option<SheetFormat>) -> Result<Sheet, String> {
    let looks_like_json = text.trim_start().starts_with(['[', '{']);
    match format {
        Some(SheetFormat::Json) => json::read(text),
        Some(SheetFormat::Csv) => csv::read(text),
        None if looks_like_json => json::read(text),
        None => csv::read(text),
    }
}

fn lines_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}
