//! What keeps a plugin that breaks from being asked for nothing: per plugin and hook, three faults in a row open it.
//!
//! Invariant: an open breaker lets one call through when its pause is over, and no second one before that call has ended;
//! only that call closes it or makes the next pause longer, whatever calls from before it opened come to. Pauses grow until the
//! plugin has been healthy for a minute. A plugin that says it is out of order is not asked again before its component or
//! configuration changes, which makes new breakers.
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Hook, HookError};

/// Faults in a row that open it.
const FAULTS_MAX: u32 = 3;
/// The first pause; every further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After so long without a fault all is forgotten.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// A call that has not ended by then was dropped: the longest budget, and more.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(90);

/// One plugin's breakers, one for each hook.
#[derive(Debug, Default)]
pub struct Breakers {
    by_hook: Mutex<BTreeMap<Hook, Breaker>>,
}

impl Breakers {
    /// Whether the plugin may be asked now.
    ///
    /// # Errors
    /// [`HookError::Unavailable`], saying since when and until when.
    pub fn admit(&self, hook: Hook, now: Instant) -> Result<Admission, HookError> {
        self.with(hook, |breaker| breaker.admit(now))
    }

    /// Takes note of how a call that was admitted ended.
    pub fn record(&self, hook: Hook, admission: Admission, error: Option<&HookError>, now: Instant) {
        self.with(hook, |breaker| breaker.record(admission, error, now));
    }

    /// Every hook whose breaker is not closed.
    pub fn states(&self, now: Instant) -> Vec<(Hook, BreakerState)> {
        let by_hook = self.by_hook.lock().unwrap_or_else(PoisonError::into_inner);
        by_hook
            .iter()
            .map(|(hook, breaker)| (*hook, breaker.state(now)))
            .filter(|(_, state)| !state.is_closed())
            .collect()
    }

    fn with<T>(&self, hook: Hook, act: impl FnOnce(&mut Breaker) -> T) -> T {
        act(self.by_hook.lock().unwrap_or_else(PoisonError::into_inner).entry(hook).or_default())
    }
}

/// As what a call was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the breaker waits to be told how the call ended"]
pub struct Admission {
    /// How often the breaker had opened by then.
    opening: u64,
    /// Whether it is the one call that tries whether the plugin works again.
    is_trial: bool,
}

/// One breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    faults_in_a_row: u32,
    /// How often it has opened.
    openings: u64,
    last_fault: Option<(Instant, String)>,
    open: Option<Open>,
    /// What the next opening pauses for; kept while the plugin has not been healthy for long enough.
    next_pause: Option<Duration>,
}

#[derive(Debug)]
struct Open {
    /// None: for good.
    until: Option<Instant>,
    /// When the one call that may try began.
    probing_since: Option<Instant>,
}

/// What an operator is shown of a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "breaker")]
pub enum BreakerState {
    /// The plugin is asked.
    Closed,
    /// It is not asked for a while.
    Open {
        /// Seconds until it is tried again.
        for_s: u64,
        /// Its last fault.
        why: String,
    },
    /// One call tries whether it works again.
    HalfOpen {
        /// Its last fault.
        why: String,
    },
    /// It said that it is out of order: it is not asked until its component or configuration changes.
    OutOfOrder {
        /// Its words.
        why: String,
    },
}

impl BreakerState {
    /// Whether the plugin is asked as usual.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl Breaker {
    fn admit(&mut self, now: Instant) -> Result<Admission, HookError> {
        let why = self.why();
        let opening = self.openings;
        let Some(open) = &mut self.open else { return Ok(Admission { opening, is_trial: false }) };
        let Some(until) = open.until else {
            return Err(HookError::Unavailable(format!("is out of order until it is changed: {why}")));
        };
        let is_probing = open.probing_since.is_some_and(|since| now.duration_since(since) < PROBE_LOST_AFTER);
        if now < until || is_probing {
            let left_s = until.saturating_duration_since(now).as_secs() + 1;
            return Err(HookError::Unavailable(format!(
                "is not asked for {left_s} s, as it failed again and again: {why}"
            )));
        }
        open.probing_since = Some(now);
        Ok(Admission { opening, is_trial: true })
    }

    fn record(&mut self, admission: Admission, error: Option<&HookError>, now: Instant) {
        if let Some(HookError::Fatal(_)) = error {
            self.note(error, now);
            self.openings += 1;
            self.open = Some(Open { until: None, probing_since: None });
            return;
        }
        // Calls from before it opened tell nothing about now.
        let is_late = admission.opening != self.openings || (self.open.is_some() && !admission.is_trial);
        if is_late {
            return;
        }
        match error {
            // Of these the core is the cause, or another plugin: they say nothing of this one.
            Some(HookError::Unavailable(_)) => {
                if let Some(open) = &mut self.open {
                    open.probing_since = None;
                }
            }
            Some(fault) if fault.is_fault() => {
                self.note(error, now);
                self.faults_in_a_row = self.faults_in_a_row.saturating_add(1);
                if self.open.is_some() || self.faults_in_a_row >= FAULTS_MAX {
                    let pause = self.next_pause.unwrap_or(FIRST_PAUSE);
                    self.next_pause = Some((pause * 2).min(LONGEST_PAUSE));
                    self.openings += 1;
                    self.open = Some(Open { until: Some(now + pause), probing_since: None });
                }
            }
            Some(_) | None => {
                self.open = None;
                self.faults_in_a_row = 0;
                let healthy = |(at, _): &(Instant, String)| now.duration_since(*at) >= HEALTHY_AFTER;
                if self.last_fault.as_ref().is_some_and(healthy) {
                    *self = Self { openings: self.openings, ..Self::default() };
                }
            }
        }
    }

    fn note(&mut self, error: Option<&HookError>, now: Instant) {
        self.last_fault = error.map(|error| (now, super::trace::short(&error.to_string())));
    }

    fn why(&self) -> String {
        self.last_fault.as_ref().map(|(_, why)| why.clone()).unwrap_or_default()
    }

    /// For the operator's eyes.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        let why = self.why();
        match &self.open {
            None => BreakerState::Closed,
            Some(Open { until: None, .. }) => BreakerState::OutOfOrder { why },
            Some(Open { until: Some(until), probing_since: None }) if now < *until => {
                BreakerState::Open { for_s: until.duration_since(now).as_secs() + 1, why }
            }
            Some(Open { .. }) => BreakerState::HalfOpen { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trap() -> HookError {
        HookError::Trap("unreachable".to_owned())
    }

    fn faults(breaker: &mut Breaker, count: u32, now: Instant) {
        for _ in 0..count {
            end(breaker, Some(&trap()), now);
        }
    }

    /// A call that is let through, or is the trial that was let through before.
    fn end(breaker: &mut Breaker, error: Option<&HookError>, now: Instant) {
        let is_trial = breaker.open.as_ref().is_some_and(|open| open.probing_since.is_some());
        breaker.record(Admission { opening: breaker.openings, is_trial }, error, now);
    }

    #[test]
    fn three_faults_in_a_row_open_it_and_answers_in_between_do_not() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        faults(&mut breaker, 2, now);
        end(&mut breaker, Some(&HookError::Invalid("no".into())), now);
        faults(&mut breaker, 2, now);
        assert!(breaker.admit(now).is_ok());
        faults(&mut breaker, 1, now);
        assert!(matches!(breaker.admit(now), Err(HookError::Unavailable(why)) if why.contains("unreachable")));
    }

    #[test]
    fn after_the_pause_one_call_tries_and_a_success_closes_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        faults(&mut breaker, 3, now);
        let later = now + FIRST_PAUSE;
        assert!(breaker.admit(later).is_ok());
        assert!(breaker.admit(later).is_err(), "a second call went through while the first was trying");
        end(&mut breaker, None, later);
        assert!(breaker.admit(later).is_ok() && breaker.admit(later).is_ok());
    }

    #[test]
    fn pauses_grow_until_a_healthy_minute_has_passed() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        faults(&mut breaker, 3, now);
        for pause_s in [1, 2, 4, 8] {
            assert!(breaker.admit(now + Duration::from_millis(pause_s * 1_000 - 1)).is_err(), "{pause_s}");
            now += Duration::from_secs(pause_s);
            assert!(breaker.admit(now).is_ok(), "{pause_s}");
            faults(&mut breaker, 1, now);
        }
        now += Duration::from_secs(16);
        assert!(breaker.admit(now).is_ok());
        end(&mut breaker, None, now);
        now += HEALTHY_AFTER;
        end(&mut breaker, None, now);
        faults(&mut breaker, 3, now);
        assert!(breaker.admit(now + FIRST_PAUSE).is_ok());
    }

    #[test]
    fn a_plugin_that_says_it_is_out_of_order_is_not_asked_again() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        end(&mut breaker, Some(&HookError::Fatal("no configuration".into())), now);
        assert!(breaker.admit(now + Duration::from_secs(86_400)).is_err());
        assert!(matches!(breaker.state(now), BreakerState::OutOfOrder { why } if why.contains("no configuration")));
    }

    #[test]
    fn a_crowded_server_is_no_fault_of_the_plugin() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            end(&mut breaker, Some(&HookError::Unavailable("too many plugin calls at once".into())), now);
        }
        assert!(breaker.admit(now).is_ok());
    }

    #[test]
    fn calls_from_before_it_opened_neither_lengthen_the_pause_nor_close_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let crowd: Vec<Admission> = (0..12).map(|_| breaker.admit(now).unwrap()).collect();
        for admission in &crowd[..11] {
            breaker.record(*admission, Some(&trap()), now);
        }
        breaker.record(crowd[11], None, now);
        assert!(breaker.admit(now).is_err(), "a late success closed it");
        let trial = breaker.admit(now + FIRST_PAUSE).expect("the pause is the first one, not one for each late fault");
        assert!(breaker.admit(now + FIRST_PAUSE).is_err(), "a second call went through while the first was trying");
        breaker.record(trial, None, now + FIRST_PAUSE);
        assert!(breaker.admit(now + FIRST_PAUSE).is_ok());
    }

    #[test]
    fn a_late_success_does_not_bring_back_a_plugin_that_is_out_of_order() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let (first, second) = (breaker.admit(now).unwrap(), breaker.admit(now).unwrap());
        breaker.record(first, Some(&HookError::Fatal("no configuration".into())), now);
        breaker.record(second, None, now);
        assert!(breaker.admit(now).is_err());
    }

    #[test]
    fn a_trial_that_was_dropped_does_not_keep_it_open_for_ever() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        faults(&mut breaker, 3, now);
        assert!(breaker.admit(now + FIRST_PAUSE).is_ok());
        assert!(breaker.admit(now + FIRST_PAUSE + PROBE_LOST_AFTER).is_ok());
    }
}
