//! Hosts that come from another server.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::is_false;

/// Hosts that are taken over together, or none of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TakeHosts {
    /// The hosts, no number twice.
    pub hosts: Vec<TakeHost>,
    /// Say what would become of them, and change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// A host as another server knew it. At least one of serial, UUID and MAC is needed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TakeHost {
    /// The number that it keeps, from 1.
    pub id: u64,
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
    /// Its queue; states that nothing boots yet are taken too.
    pub states: Vec<String>,
    /// What the site wants to remember of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Whether a machine ever booted as this host.
    #[serde(skip_serializing_if = "is_false")]
    pub seen: bool,
}

/// What became of a host, or would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TookHost {
    /// Its number.
    pub id: u64,
    /// `new`; `there`, if it was known already and stays as it is; or `refused`, and then no host was taken.
    pub outcome: String,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
