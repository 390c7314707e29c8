//! The store as a whole.

use serde::{Deserialize, Serialize};

/// What was found in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// Hosts.
    pub hosts: u64,
    /// Hosts that were forgotten.
    pub forgotten: u64,
    /// Tombstones of those that may be installed.
    #[serde(default)]
    pub tombstones: u64,
    /// Events.
    pub events: u64,
    /// Values by which hosts are found.
    pub indexed: u64,
    /// Values that plugins stored.
    pub plugin_values: u64,
    /// All keys.
    pub entries: u64,
    /// Keys and values together, in bytes.
    pub bytes: u64,
    /// The first problems, one sentence each.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: u64,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupView {
    /// When it was begun.
    pub taken_at: jiff::Timestamp,
    /// The version of the program that took it.
    pub program: String,
    /// Records in it.
    pub records: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a restore made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredView {
    /// When the backup was taken.
    pub taken_at: jiff::Timestamp,
    /// Hosts in it.
    pub hosts: u64,
    /// Those that hold until they are released; the others boot their own disk, or wait for a state.
    pub holding: u64,
    /// Where the store is that was there before, if any.
    pub kept: Option<String>,
}
