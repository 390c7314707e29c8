//! What telling plugins of events and running their jobs have in common: moments, pauses, and words that are kept.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::jitter;
use crate::hooks::HookError;

/// What is kept of an error, in characters.
const WORDS_MAX_CHARS: usize = 500;

/// A moment so much later.
pub(super) fn later(now: Timestamp, pause: Duration) -> Timestamp {
    now.saturating_add(SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

/// Up to so much longer, so that what began together does not go on together for ever.
pub(super) fn with_jitter(pause: Duration, most: Duration) -> Duration {
    let most_ms = u32::try_from(most.as_millis()).unwrap_or(u32::MAX);
    pause + Duration::from_millis(jitter((0, most_ms)).into())
}

/// An error as it is kept.
pub(super) fn words(error: &HookError) -> String {
    error.to_string().chars().take(WORDS_MAX_CHARS).collect()
}
