//! Hosts by the dozen.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Erasure, is_false};

/// A list of hosts: each is made known, or changed to what its line says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostRows {
    /// The lines, no number twice.
    pub hosts: Vec<HostRow>,
    /// Go on with the other lines when some are wrong; else nothing is done then.
    #[serde(skip_serializing_if = "is_false")]
    pub leave_out: bool,
    /// Say what would change, and change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// What a line says of a host. What is absent stays as it is. At least one of serial, UUID and MAC is needed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostRow {
    /// Where it stands in its file, by which answers name it.
    pub line: u64,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// DMI serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// DMI UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Network cards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// Its queue, which only a host gets that waits as new or was never offered a boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<String>>,
    /// To be merged into the metadata: `null` removes a key.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// One document of the answer, which has one a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowAnswer {
    /// What became of a line; they come in order.
    Line(RowDone),
    /// That was all. Without it, the import broke off.
    End,
}

/// What became of a line, or would.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowDone {
    /// The line.
    pub line: u64,
    /// `created`, `changed`, `same` or `refused`.
    pub outcome: String,
    /// The host's number, if it is known by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What changes, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// What the line says and the host does not become, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<RowProblem>,
    /// Disks that lose their contents when the machine works through its queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub erases: Vec<Erasure>,
}

/// Why a line was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowProblem {
    /// Which part of it: a field of the line; absent for the line as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// One sentence.
    pub why: String,
}
