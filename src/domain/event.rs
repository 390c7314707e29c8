//! What happened to a host: committed together with the change it explains, numbered per host without gaps.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{HostId, Hostname, MacAddr, OrderName, StateName, States, Writes};

/// A committed fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The host it happened to.
    pub host: HostId,
    /// Its place on the host's timeline, from 1 on without gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Who caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// The machine itself, by one of its calls.
    Machine,
    /// A person or program on the admin plane: the name that its connection proved.
    Operator(String),
    /// A plugin, by its instance name.
    Plugin(String),
    /// The server, on its own account.
    Server,
}

/// What happened. The names are part of the interface: plugins and scripts select by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The host became known.
    Registered {
        /// Its first queue.
        states: States,
        /// Why it is nobody else.
        why: String,
    },
    /// A recognised machine showed more of itself.
    IdentityLearned {
        /// Cards that were unknown.
        macs: Vec<MacAddr>,
        /// Whether serial or UUID were filled in.
        dmi: bool,
        /// Whether the firmware's description changed.
        hardware: bool,
    },
    /// A boot script was handed out.
    BootOffered {
        /// What it boots.
        state: StateName,
        /// What the image does to disks.
        writes: Writes,
        /// Where the machine asked from.
        from: IpAddr,
    },
    /// The first file of a boot was fetched.
    AttemptStarted {
        /// Which attempt at this step it is.
        number: u32,
        /// The file.
        file: String,
    },
    /// The payload was served whole; from now on the disk may be written.
    PayloadDelivered {
        /// The file.
        file: String,
    },
    /// A step is done.
    Finished {
        /// The queue before.
        from: States,
        /// The queue after.
        to: States,
    },
    /// Something that a plugin had booted in between reported that it is done: the step is as it was.
    DetourEnded {
        /// What was booted.
        image: String,
        /// The state that the host still has.
        state: StateName,
    },
    /// The machine reported that its step is done, but the queue may not move on yet.
    StepDone {
        /// The step's state.
        state: StateName,
        /// What keeps the queue from moving on.
        why: String,
    },
    /// The machine reported that the attempt failed.
    Failed {
        /// Its words, bounded.
        reason: String,
    },
    /// A boot was answered by hold, and will be until someone acts.
    Held {
        /// Why, with the remedy.
        why: String,
    },
    /// A call of a boot that is over was refused.
    CallRefused {
        /// Which call.
        call: String,
        /// Why.
        why: String,
    },
    /// The queue was changed.
    StatesSet {
        /// Before.
        from: States,
        /// After.
        to: States,
        /// Whether a finished host was ordered anew.
        reinstall: bool,
        /// Whether a running attempt was given up.
        abort: bool,
        /// What a plugin called the wish behind it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        order: Option<OrderName>,
    },
    /// A plugin ordered the queue that the host has already: nothing was done, and the order will not be carried out later.
    OrderMet {
        /// The queue.
        states: States,
        /// The order's name.
        order: OrderName,
    },
    /// The same step was ordered anew.
    Retried {
        /// The step's state.
        state: StateName,
    },
    /// The name was changed.
    HostnameSet {
        /// Before.
        from: Option<Hostname>,
        /// After.
        to: Option<Hostname>,
    },
    /// The metadata was changed.
    MetadataSet {
        /// Top-level keys whose values changed.
        keys: Vec<String>,
    },
    /// The identity was changed by hand.
    IdentitySet {
        /// What was changed, in words.
        change: String,
    },
    /// A machine reported a card that belongs to another host.
    MacTaken {
        /// The card.
        mac: MacAddr,
        /// Its host.
        owner: HostId,
    },
    /// A machine asked that could not be told from this host, or from several.
    Doubted {
        /// The explanation.
        why: String,
        /// Where it asked from.
        from: IpAddr,
    },
    /// `/bootstrap` came from elsewhere while a boot of this host was running.
    ForeignBoot {
        /// Where it asked from.
        from: IpAddr,
    },
    /// A backup was restored: nothing but its own disk is booted until somebody releases it.
    Quarantined {
        /// Which backup, in words.
        why: String,
    },
    /// Somebody said that its queue is right: it boots again.
    Released {},
    /// Somebody locked it: it takes no orders, and boots nothing that writes.
    Locked {
        /// In their words; empty if they gave none.
        why: String,
    },
    /// The lock is off.
    Unlocked {},
    /// A plugin's order was refused.
    OrderRefused {
        /// What it wanted.
        states: States,
        /// Why it was refused.
        why: String,
    },
    /// A machine came back whose host was forgotten after it was installed, or may have been that.
    Returned {
        /// The numbers of the forgotten hosts that it may be.
        was: Vec<HostId>,
        /// What tells so.
        why: String,
    },
    /// The host is no longer known.
    Forgotten {
        /// Whether its machine is known to be installed if it comes back.
        #[serde(default)]
        tombstone: bool,
    },
}

impl EventKind {
    /// The name by which the interface knows this kind.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Registered { .. } => "registered",
            Self::IdentityLearned { .. } => "identity_learned",
            Self::BootOffered { .. } => "boot_offered",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::PayloadDelivered { .. } => "payload_delivered",
            Self::Finished { .. } => "finished",
            Self::DetourEnded { .. } => "detour_ended",
            Self::StepDone { .. } => "step_done",
            Self::Failed { .. } => "failed",
            Self::Held { .. } => "held",
            Self::CallRefused { .. } => "call_refused",
            Self::StatesSet { .. } => "states_set",
            Self::OrderMet { .. } => "order_met",
            Self::Retried { .. } => "retried",
            Self::HostnameSet { .. } => "hostname_set",
            Self::MetadataSet { .. } => "metadata_set",
            Self::IdentitySet { .. } => "identity_set",
            Self::MacTaken { .. } => "mac_taken",
            Self::Doubted { .. } => "doubted",
            Self::ForeignBoot { .. } => "foreign_boot",
            Self::Quarantined { .. } => "quarantined",
            Self::Released {} => "released",
            Self::Locked { .. } => "locked",
            Self::Unlocked {} => "unlocked",
            Self::OrderRefused { .. } => "order_refused",
            Self::Returned { .. } => "returned",
            Self::Forgotten { .. } => "forgotten",
        }
    }
}
