//! What people put between orders and disks: the lock of one host, the freeze of all, and the limit of reinstalls.
//!
//! These are facts; what follows from them is decided in `transition::clear` alone.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Actor, HostId};

/// A lock or a freeze: who wanted it, when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Safeguard {
    /// Who.
    pub by: Actor,
    /// Since when.
    pub at: Timestamp,
    /// In their words, bounded and without control characters; empty if they gave none.
    pub why: String,
}

/// A host is locked, so nothing is ordered for it and it is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is locked {lock} - it takes no orders until `kiwispray host unlock {id}`")]
pub struct LockedHost {
    /// Its name.
    pub host: String,
    /// Its number.
    pub id: HostId,
    /// The lock.
    pub lock: Box<Safeguard>,
}

/// What holds for all hosts at a moment, as far as writing disks goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The freeze, if there is one.
    pub frozen: Option<Safeguard>,
    /// What was installed again of late.
    pub reinstalls: Reinstalls,
    /// How often within an hour that may happen.
    pub most_reinstalls: u32,
}

/// The moments at which boots were handed out that install again what may have been installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reinstalls {
    /// Oldest first.
    moments: Vec<Timestamp>,
    /// The store's version of this list; whoever commits another one compares it.
    version: u64,
}

impl Safeguard {
    /// Characters of somebody's words that are kept.
    const LONGEST_WHY: usize = 300;

    /// Made by somebody now.
    pub fn new(by: Actor, why: &str, at: Timestamp) -> Self {
        let why: String = why.trim().chars().filter(|c| !c.is_control()).take(Self::LONGEST_WHY).collect();
        Self { by, at, why }
    }
}

impl Reinstalls {
    /// The span over which they are counted: it slides.
    pub const WITHIN: SignedDuration = SignedDuration::from_hours(1);

    /// As the store had them at this version.
    pub fn new(mut moments: Vec<Timestamp>, version: u64) -> Self {
        moments.sort_unstable();
        Self { moments, version }
    }

    /// The moments, oldest first.
    pub fn moments(&self) -> &[Timestamp] {
        &self.moments
    }

    /// The store's version.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The list with one more; or, if there are `most` already, when the next may be: never if that is none at all.
    ///
    /// Moments that lie ahead, as a clock was set back since, count like those of now.
    pub(super) fn with_one_more(&self, now: Timestamp, most: u32) -> Result<Self, Option<Timestamp>> {
        let counts = |moment: &&Timestamp| now.duration_since(**moment) < Self::WITHIN;
        let mut moments: Vec<Timestamp> = self.moments.iter().filter(counts).copied().collect();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if moments.len() >= most {
            // Room is made once all but so many are too old.
            let leaving = moments.len().saturating_sub(most);
            let first_room = moments.get(leaving).filter(|_| most > 0);
            return Err(first_room.and_then(|moment| moment.checked_add(Self::WITHIN).ok()));
        }
        moments.push(now);
        Ok(Self::new(moments, self.version))
    }
}

impl fmt::Display for Safeguard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match &self.by {
            Actor::Machine => "the machine".to_owned(),
            Actor::Operator(name) => name.clone(),
            Actor::Plugin(name) => format!("the plugin {name}"),
            Actor::Server => "the server".to_owned(),
        };
        write!(f, "by {by} since {}", moment(self.at))?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}

/// A moment as people read it on consoles of machines: to the second, in UTC.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%F %T UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::new(1_790_000_000 + minutes * 60, 0).unwrap()
    }

    #[test]
    fn a_safeguard_tells_who_when_and_why_in_one_line() {
        let guard = |why: &str| Safeguard::new(Actor::Operator("ada".to_owned()), why, at(0)).to_string();
        assert_eq!(guard(""), "by ada since 2026-09-21 14:13:20 UTC");
        assert_eq!(guard(" fire\ndrill "), "by ada since 2026-09-21 14:13:20 UTC: firedrill");
        assert_eq!(Safeguard::new(Actor::Server, &"x".repeat(999), at(0)).why.len(), 300);
    }

    #[test]
    fn the_hour_slides() {
        let mut list = Reinstalls::default();
        for minute in [0, 10, 20] {
            list = list.with_one_more(at(minute), 3).unwrap();
        }
        assert_eq!(list.with_one_more(at(30), 3), Err(Some(at(60))));
        assert_eq!(list.with_one_more(at(59), 3), Err(Some(at(60))));
        let later = list.with_one_more(at(60), 3).unwrap();
        assert_eq!(later.moments(), [at(10), at(20), at(60)]);
        assert_eq!(later.with_one_more(at(61), 3), Err(Some(at(70))));
        // A lower limit: room is there when all but one of them have left.
        assert_eq!(later.with_one_more(at(61), 2), Err(Some(at(80))));
        assert!(later.with_one_more(at(61), 4).is_ok());
        assert_eq!(Reinstalls::default().with_one_more(at(0), 0), Err(None));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_room() {
        let list = Reinstalls::new(vec![at(500)], 1);
        assert_eq!(list.with_one_more(at(0), 1), Err(Some(at(560))));
    }
}
