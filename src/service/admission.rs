//! How many unknown machines may become known in a minute: a broken switch or a colleague's loop must not fill the store.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// A bucket of registrations that refills evenly.
#[derive(Debug)]
pub(super) struct Admission {
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// None: as many as come.
    per_minute: Option<u32>,
    /// Thousandths of a registration.
    level: i64,
    filled_at: Option<Timestamp>,
}

impl Admission {
    /// Without a number, as many as come.
    pub(super) fn new(per_minute: Option<u32>) -> Self {
        let level = i64::from(per_minute.unwrap_or(0)) * 1_000;
        Self { bucket: Mutex::new(Bucket { per_minute, level, filled_at: None }) }
    }

    /// Sets another limit. What was admitted counts on, so that nobody gets a second minute by reloading.
    pub(super) fn set_limit(&self, per_minute: Option<u32>) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if bucket.per_minute == per_minute {
            return;
        }
        let full = |limit: Option<u32>| i64::from(limit.unwrap_or(0)) * 1_000;
        // Without a limit nothing was counted.
        let used = bucket.per_minute.map_or(0, |_| full(bucket.per_minute).saturating_sub(bucket.level));
        bucket.level = full(per_minute).saturating_sub(used).max(0);
        bucket.per_minute = per_minute;
    }

    /// Whether one more machine may be registered now.
    pub(super) fn admit(&self, now: Timestamp) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(per_minute) = bucket.per_minute.map(i64::from) else { return true };
        let full = per_minute * 1_000;
        let passed_ms = bucket.filled_at.map_or(0, |then| now.duration_since(then).as_millis().clamp(0, 60_000));
        let refill = i64::try_from(passed_ms).unwrap_or(0).saturating_mul(per_minute) / 60;
        // Fractions below a thousandth must not be lost to frequent requests: wait until there is something to add.
        if refill > 0 || bucket.filled_at.is_none() || bucket.filled_at > Some(now) {
            bucket.filled_at = Some(now);
            bucket.level = bucket.level.saturating_add(refill).min(full);
        }
        let admitted = bucket.level >= 1_000;
        if admitted {
            bucket.level -= 1_000;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan;

    #[test]
    fn a_minute_admits_as_many_as_configured() {
        let admission = Admission::new(Some(60));
        let start = Timestamp::UNIX_EPOCH;
        assert_eq!((0..10_000).filter(|_| admission.admit(start)).count(), 60);
        let later = start + 10.seconds();
        assert_eq!((0..10_000).filter(|_| admission.admit(later)).count(), 10);
    }

    #[test]
    fn another_limit_counts_from_what_was_admitted() {
        let admission = Admission::new(Some(10));
        let start = Timestamp::UNIX_EPOCH;
        assert_eq!((0..6).filter(|_| admission.admit(start)).count(), 6);
        admission.set_limit(Some(8));
        assert_eq!((0..100).filter(|_| admission.admit(start)).count(), 2);
        admission.set_limit(Some(1));
        assert!(!admission.admit(start));
        admission.set_limit(None);
        assert_eq!((0..100).filter(|_| admission.admit(start)).count(), 100);
        admission.set_limit(Some(3));
        assert_eq!((0..100).filter(|_| admission.admit(start)).count(), 3);
    }

    #[test]
    fn no_number_means_no_limit_and_a_clock_set_back_does_not_block() {
        assert!(Admission::new(None).admit(Timestamp::UNIX_EPOCH));
        let admission = Admission::new(Some(1));
        assert!(admission.admit(Timestamp::UNIX_EPOCH + 5.hours()));
        assert!(!admission.admit(Timestamp::UNIX_EPOCH));
        assert!(admission.admit(Timestamp::UNIX_EPOCH + 1.minute()));
    }
}
