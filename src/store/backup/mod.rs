//! Backups: everything in a store as one stream of records, taken while the store is in use, over any backend.
//!
//! Invariants: a backup is the store as of one moment, the one at which its last record was written: what is read page by
//! page is followed by every change that was committed meanwhile, in order, so that whoever applies the records one after
//! the other ends with exactly that moment. Every record has a checksum, and the last one has that of the whole, so a file
//! that was cut, changed or made by something else is known before anything of it is used.
//!
//! In it is all that the store holds, secrets of plugins and of running boots included: such a file is for its owner alone.
//! Not in it are images, templates, plugins' components and their bindings, which are files, and the progress of transfers,
//! which is in memory only. Leases and the name of the store are left out on purpose: a restored store is another one.
mod dump;
mod format;
mod load;
#[cfg(test)]
mod tests;

use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::hosts::StoreError;

pub use dump::Dump;
pub use format::{Reader, Record};
pub use load::LoadError;
pub(super) use load::load;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version of the program that took it.
    pub program: String,
    /// The layout of the store.
    pub schema: u64,
    /// The name of the store.
    pub generation: String,
    /// When it was begun.
    pub taken_at: Timestamp,
}

/// What was found in a whole backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What it says of itself.
    pub about: About,
    /// How many records it has.
    pub records: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Why no backup was taken.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The changes that came meanwhile are no longer at hand.
    #[error("more was changed meanwhile than is kept at hand: take the backup again, and read it faster")]
    Overrun,
}

/// Why a file is not read as a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("the backup cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no backup of kiwispray")]
    Foreign,
    /// It ends before its last record.
    #[error("the backup ends early: it is not whole, and nothing of it is used")]
    Truncated,
    /// A record, or the whole, is not what was written.
    #[error("the backup is damaged near byte {at}, and nothing of it is used")]
    Damaged {
        /// Where in the file, in bytes.
        at: u64,
    },
    /// A newer program wrote it.
    #[error("the backup was taken by kiwispray {program} in a newer form: use that, or a newer kiwispray")]
    Newer {
        /// Which program.
        program: String,
    },
}
