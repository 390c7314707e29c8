//! One chain being asked: its clock, its trace, and what earlier plugins changed for later ones.
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Hooks;
use crate::hooks::trace::{NOTES_MAX, short};
use crate::hooks::{Admission, Binding, Call, GivenPatch, Hook, HookError, Reply, Trace, TraceResult, TraceStep};

/// A plugin gets this much longer than its budget before its future is dropped: its own host stops it with a better word.
const GRACE: Duration = Duration::from_millis(30);

/// One chain being asked, with the request as the next plugin sees it.
pub(in crate::hooks) struct Asking<'a, R> {
    hooks: &'a Hooks,
    id: String,
    call: Call,
    pub(in crate::hooks) request: R,
    ends: Instant,
    asked_at: Instant,
    /// Of the call that is being made, until it was judged.
    admission: Option<Admission>,
    pub(in crate::hooks) patches: Vec<GivenPatch>,
    pub(in crate::hooks) trace: Trace,
}

impl<'a, R> Asking<'a, R> {
    pub(in crate::hooks) fn new(hooks: &'a Hooks, call: Call, request: R, chain: Duration) -> Self {
        let now = Instant::now();
        Self {
            hooks,
            id: call.id.clone(),
            call,
            request,
            ends: now + chain,
            asked_at: now,
            admission: None,
            patches: Vec::new(),
            trace: Trace::default(),
        }
    }

    /// What the next call may take: all but the default plugin leave it its share.
    fn budget(&self, hook: Hook, binding: &Binding) -> Duration {
        let left = self.ends.saturating_duration_since(Instant::now());
        let default = &self.hooks.default;
        let comes_last = Arc::ptr_eq(&binding.plugin, &default.plugin);
        let aside = if comes_last || !default.has(hook) { Duration::ZERO } else { self.hooks.budgets.call };
        let most = if hook == Hook::Transition { self.hooks.budgets.transition_chain } else { self.hooks.budgets.call };
        left.saturating_sub(aside + GRACE).min(most)
    }

    /// Asks one plugin, if its breaker lets it. Whoever asks tells [`Asking::judge`] what became of the answer.
    pub(in crate::hooks) async fn ask<'b, T, F>(
        &'b mut self,
        hook: Hook,
        binding: &'b Binding,
        plugin: impl FnOnce(&'b Call, &'b R) -> F,
    ) -> Reply<T>
    where
        F: Future<Output = Reply<T>>,
    {
        self.asked_at = Instant::now();
        let budget = self.budget(hook, binding);
        if budget.is_zero() {
            let over = "was not asked: the plugins before it used up the time".to_owned();
            return Reply::from(Err(HookError::Unavailable(over)));
        }
        match binding.breakers.admit(hook, self.asked_at) {
            Ok(admission) => self.admission = Some(admission),
            Err(open) => return Reply::from(Err(open)),
        }
        // An id of its own for every plugin: what two of them send to the same service are two things.
        self.call = Call { id: format!("{}-{}", self.id, binding.plugin.name()), budget, ..self.call.clone() };
        let this = &*self;
        timeout(budget + GRACE, plugin(&this.call, &this.request))
            .await
            .unwrap_or_else(|_| Reply::from(Err(HookError::Timeout { budget })))
    }

    /// Tells the plugin's breaker how its call ended, the check of its answer included.
    pub(in crate::hooks) fn judge(&mut self, hook: Hook, binding: &Binding, error: Option<&HookError>) {
        // None for a call that was not made: that tells nothing.
        if let Some(admission) = self.admission.take() {
            binding.breakers.record(hook, admission, error, Instant::now());
        }
    }

    pub(in crate::hooks) fn record(
        &mut self,
        binding: &Binding,
        hook: Hook,
        (result, reason): (TraceResult, &str),
        patched: bool,
        notes: Vec<String>,
    ) {
        let took_us = u64::try_from(self.asked_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.trace.steps.push(TraceStep {
            plugin: binding.plugin.name().to_owned(),
            hook,
            result,
            reason: short(reason),
            patched,
            notes: notes.iter().take(NOTES_MAX).map(|note| short(note)).collect(),
            took_us,
        });
    }
}
