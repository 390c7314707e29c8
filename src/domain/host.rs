//! A machine known to the server, and the newest of its boots.

use std::fmt;
use std::net::IpAddr;
use std::num::ParseIntError;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BootId, Hardware, Identity, Metadata, Safeguard, StateName, States};

/// The number of a host: small, typed by people, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(u64);

/// One place in the queue of one host. Grows whenever the queue changes, and when a step is ordered anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Step(u64);

/// A host's name: a DNS name of letters, digits, `-` and `.`, at most 253 characters, labels of at most 63.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

/// The text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host name: letters, digits, `-` and `.` are expected, 253 characters at most")]
pub struct HostnameError(String);

/// A machine known to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its number.
    pub id: HostId,
    /// Grows when name, states, metadata or identity change; not with boots.
    pub revision: u64,
    /// How many events it has; every change has at least one, so this also tells versions apart.
    pub event_count: u64,
    /// What recognises it.
    pub identity: Identity,
    /// What its firmware told of it at its newest boot.
    pub hardware: Hardware,
    /// Its name, if anyone gave it one.
    pub hostname: Option<Hostname>,
    /// The queue.
    pub states: States,
    /// The place in the queue.
    pub step: Step,
    /// Attempts at this step: boots of which at least one file was fetched.
    pub attempts: u32,
    /// The newest boot. It may be of an earlier step.
    pub boot: Option<Boot>,
    /// Boots before it whose calls may still arrive; newest last, at most [`Host::MOST_PAST_BOOTS`].
    pub past: Vec<PastBoot>,
    /// What the site wants to remember.
    pub metadata: Metadata,
    /// Whether an image was written to its disk, or may have been. Queues come and go, and a wipe may be of another disk; this stays.
    pub installed: bool,
    /// Whether a machine has ever booted as this host; a registration by hand has not been seen.
    pub seen: bool,
    /// Whether it may be behind what was done since a backup: it boots nothing but its own disk until somebody releases it.
    pub quarantined: bool,
    /// Whether somebody locked it: it takes no orders, and boots nothing that writes.
    pub lock: Option<Safeguard>,
    /// Whether its queue was given to it when it may have been installed, and no boot that writes came of it yet: the first one
    /// counts against the limit of reinstalls.
    pub reinstalls: bool,
    /// When it became known.
    pub created_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
}

/// One boot of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Its secret.
    pub bootid: BootId,
    /// The step that it boots.
    pub step: Step,
    /// Where the machine asked from.
    pub from: IpAddr,
    /// When it was offered.
    pub at: Timestamp,
    /// The image that it boots, usually named as the state; none when it boots a template.
    pub image: Option<StateName>,
    /// What that does to disks.
    pub writes: Writes,
    /// Whether it boots something else than the current state, in between: what it reports does not end the step.
    pub detour: bool,
    /// How far it came.
    pub stage: Stage,
    /// Whether a later `/bootstrap` was answered by hold because of this boot, which ended the attempt.
    pub held: bool,
}

/// How far a boot came. Only what must survive a crash: bytes in flight are counted in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The script was handed out; nothing was fetched.
    Offered,
    /// A file was fetched: an attempt.
    Started,
    /// The payload was served whole: the disk may be written.
    Delivered,
    /// The machine reported `/fail`.
    Failed {
        /// Its words, bounded and without control characters.
        reason: String,
    },
    /// The machine reported that it is done, and the queue may not move on yet. It is never booted again.
    Done {
        /// What keeps the queue from moving on.
        why: String,
    },
}

/// What an image does to the disks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writes {
    /// Nothing: it may boot any number of times.
    Nothing,
    /// It installs: booting it is an order.
    Disk,
    /// It erases: booting it is an order too.
    Wipe,
}

/// A boot that is over, kept to answer late and repeated calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastBoot {
    /// Its secret.
    pub bootid: BootId,
    /// How it ended.
    pub outcome: PastOutcome,
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PastOutcome {
    /// Its step was done: the same finish again changes nothing.
    Finished,
    /// A later boot or another order took its place.
    Superseded,
}

impl HostId {
    /// The host with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Step {
    /// The first place.
    pub const FIRST: Self = Self(1);

    /// The step with this number, as the store kept it.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The place after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Writes {
    /// Whether booting the image is an order.
    pub const fn is_order(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Disk | Self::Wipe => true,
        }
    }
}

impl Host {
    /// Past boots that are remembered.
    pub const MOST_PAST_BOOTS: usize = 6;

    /// The newest boot, if it is of the current step.
    pub fn current_boot(&self) -> Option<&Boot> {
        self.boot.as_ref().filter(|boot| boot.step == self.step)
    }

    /// Whether an attempt at the current step has begun and neither ended nor been held.
    pub fn is_attempt_open(&self) -> bool {
        self.current_boot().is_some_and(|boot| match boot.stage {
            Stage::Started | Stage::Delivered => !boot.held,
            Stage::Offered | Stage::Failed { .. } | Stage::Done { .. } => false,
        })
    }

    /// Whether files of the current step are being fetched, or may be still. What was served whole, or held, is over as far as
    /// anybody can tell.
    pub fn is_transferring(&self) -> bool {
        self.current_boot().is_some_and(|boot| boot.stage == Stage::Started && !boot.held)
    }

    /// Whether the disk may hold what was ordered: the host is finished, or something was installed, or the
    /// order of its current step was served whole or reported as done. Whoever orders for such a host installs it again.
    pub fn may_be_installed(&self) -> bool {
        self.installed
            || self.states.is_finished()
            || self.current_boot().is_some_and(|boot| match boot.stage {
                Stage::Delivered => boot.writes.is_order(),
                Stage::Done { .. } => true,
                Stage::Offered | Stage::Started | Stage::Failed { .. } => false,
            })
    }

    /// The name, or `host 7` where there is none.
    pub fn label(&self) -> String {
        self.hostname.as_ref().map_or_else(|| format!("host {}", self.id), ToString::to_string)
    }
}

impl FromStr for HostId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        // `u64` reads `+7` and `007` too; a bootid must have one spelling.
        let number: u64 = text.parse()?;
        if number.to_string() == text { Ok(Self(number)) } else { "".parse::<u64>().map(Self) }
    }
}

impl FromStr for Hostname {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        let label_is_good = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name of digits alone could not be told from a host's number.
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        if text.len() <= 253 && !is_number && text.split('.').all(label_is_good) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(HostnameError(text.chars().take(80).collect()))
        }
    }
}

impl Hostname {
    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Disk => "disk",
            Self::Wipe => "wipe",
        })
    }
}

impl TryFrom<String> for Hostname {
    type Error = HostnameError;

    fn try_from(text: String) -> Result<Self, HostnameError> {
        text.parse()
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_dns_names_that_are_no_numbers() {
        assert_eq!("Node7.Example.ORG".parse::<Hostname>().unwrap().as_str(), "node7.example.org");
        for text in ["", "7", "a b", "-a", "a-", "a..b", "a;b", "$(x)", "a\n", &"a".repeat(64)] {
            assert!(text.parse::<Hostname>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_host_number_has_one_spelling() {
        assert_eq!("7".parse::<HostId>().unwrap(), HostId::new(7));
        for text in ["", "07", "+7", "-7", "7 ", "seven"] {
            assert!(text.parse::<HostId>().is_err(), "{text:?}");
        }
    }
}
