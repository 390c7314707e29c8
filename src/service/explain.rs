//! Why machines got the answers they got: the newest decision for each host, in memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::{Facts, Finding, HostId};
use crate::hooks::Trace;

/// The newest decision for a host.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// When.
    pub at: Timestamp,
    /// Where the machine asked from.
    pub from: IpAddr,
    /// What it reported.
    pub facts: Facts,
    /// How it was recognised.
    pub findings: Vec<Finding>,
    /// What the plugins said; none when they were not asked.
    pub trace: Option<Trace>,
    /// What it was told.
    pub decision: Decision,
}

/// What a machine was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Decision {
    /// To boot its local disk.
    Local {
        /// Why.
        reason: String,
    },
    /// To wait for a state.
    Wait,
    /// To wait for a person, or until a fault is mended.
    Hold {
        /// Why.
        reason: String,
    },
    /// To boot.
    Boot {
        /// The image or template.
        what: String,
    },
}

#[derive(Debug, Default)]
pub(super) struct Explanations {
    hosts: Mutex<HashMap<HostId, Explanation>>,
}

impl Explanations {
    /// About 2 KB each; beyond it, further hosts have no explanation until the server starts anew.
    const MOST: usize = 100_000;

    pub(super) fn keep(&self, id: HostId, explanation: Explanation) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() < Self::MOST || hosts.contains_key(&id) {
            let older = hosts.insert(id, explanation);
            // Everyone who asks takes this lock; what was known before is freed outside of it.
            drop(hosts);
            drop(older);
        }
    }

    pub(super) fn of(&self, id: HostId) -> Option<Explanation> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(&id).cloned()
    }

    pub(super) fn last_seen(&self, id: HostId) -> Option<Timestamp> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(&id).map(|newest| newest.at)
    }
}
