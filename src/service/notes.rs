//! What was noted of late, so that a machine that asks every few seconds does not fill a timeline.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::domain::HostId;

/// The same is noted again after this long.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// What was noted, by host and text.
#[derive(Debug, Default)]
pub(super) struct Notes {
    noted: Mutex<HashMap<(HostId, String), Timestamp>>,
}

impl Notes {
    /// Beyond it, what is old is forgotten, and then everything.
    const MOST: usize = 10_000;

    /// Whether this has not been noted for a while. It counts as noted from now on.
    pub(super) fn is_first(&self, host: HostId, what: &str, now: Timestamp) -> bool {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |then: &Timestamp| now.duration_since(*then).abs() < AGAIN_AFTER;
        if noted.len() >= Self::MOST {
            noted.retain(|_, then| is_recent(then));
        }
        if noted.len() >= Self::MOST {
            noted.clear();
        }
        noted.insert((host, what.to_owned()), now).is_none_or(|then| !is_recent(&then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan;

    #[test]
    fn the_same_is_noted_once_an_hour() {
        let notes = Notes::default();
        let (host, start) = (HostId::new(1), Timestamp::UNIX_EPOCH);
        assert!(notes.is_first(host, "a", start));
        assert!(!notes.is_first(host, "a", start + 1.minute()));
        assert!(notes.is_first(host, "b", start + 1.minute()));
        assert!(notes.is_first(HostId::new(2), "a", start + 1.minute()));
        assert!(notes.is_first(host, "a", start + 3.hours()));
    }
}
