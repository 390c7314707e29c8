//! The chains: who is asked in which order, with how much time, and what the core gets out of it.
//!
//! The time of a chain is bounded as a whole, and the default plugin, which comes last, has its share put aside: plugins that
//! hang and are skipped cannot starve the standard deploy.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::check::check_verdict;
use super::trace::{NOTES_MAX, short};
use super::{
    Binding, BootAnswer, BootDecision, BootOutcome, BootPlan, BootRequest, BootVerdict, Call, DecidedBy,
    DiscoveryAnswer, DiscoveryDecision, DiscoveryOutcome, DiscoveryVerdict, Edited, GivenPatch, Grant, Hold, Hook,
    HookError, OnError, Patch, Plugin, PluginStatus, Reply, Trace, TraceResult, TraceStep,
};

/// A plugin gets this much longer than its budget before its future is dropped: its own host stops it with a better word.
const GRACE: Duration = Duration::from_millis(30);
/// The text on a console, in characters.
const CONSOLE_TEXT_MAX_CHARS: usize = 1_000;
/// A plugin cannot make a machine wait longer than this between two questions.
const AGAIN_AFTER_MAX_MS: u32 = 5 * 60 * 1_000;

/// How long hooks may take. `/bootstrap` of an unknown machine asks both chains, and is answered within 2 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// One call.
    pub call: Duration,
    /// `boot.decide` of all plugins together.
    pub boot_chain: Duration,
    /// `discovery.discovered` of all plugins together.
    pub discovery_chain: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            call: Duration::from_millis(200),
            boot_chain: Duration::from_millis(1_000),
            discovery_chain: Duration::from_millis(500),
        }
    }
}

/// All bound plugins, in order; the default plugin last.
#[derive(Clone, Debug)]
pub struct Hooks {
    chain: Vec<Binding>,
    default: Binding,
    budgets: Budgets,
}

impl Hooks {
    /// Chains plugins. Failure of the default plugin always holds, and it may change nothing.
    #[must_use]
    pub fn new(mut bindings: Vec<Binding>, default: Arc<dyn Plugin>) -> Self {
        bindings.sort_by(|a, b| (a.priority, a.plugin.name()).cmp(&(b.priority, b.plugin.name())));
        Self { chain: bindings, default: Binding::new(default), budgets: Budgets::default() }
    }

    /// With other budgets.
    #[must_use]
    pub fn with_budgets(mut self, budgets: Budgets) -> Self {
        self.budgets = budgets;
        self
    }

    /// Every plugin and whether it works, in order.
    #[must_use]
    pub fn status(&self) -> Vec<(String, PluginStatus)> {
        let all = self.chain.iter().chain([&self.default]);
        all.map(|binding| (binding.plugin.name().to_owned(), binding.plugin.status())).collect()
    }

    /// What a host boots now. Answers within the boot chain's budget.
    pub async fn decide_boot(&self, call: Call, request: BootRequest) -> BootOutcome {
        let mut asking = Asking::new(self, call, request, self.budgets.boot_chain);
        let finished = asking.request.host.is_finished();
        for binding in self.asked(Hook::Boot, Some(asking.request.host.state().to_owned())) {
            let reply = asking.ask(binding, |call, request| binding.plugin.decide(call, request)).await;
            let plugin = binding.plugin.name();
            let decision = reply.result.and_then(|decision| asking.accept_boot(binding, decision, finished));
            let step = match &decision {
                Ok((decision, _)) => (TraceResult::from(&decision.verdict), decision.reason.as_str()),
                Err(error) => (TraceResult::from(error), ""),
            };
            let patched = matches!(decision, Ok((_, Edited::Changed)));
            asking.record(binding, Hook::Boot, step, patched, reply.notes);
            match decision {
                Ok((BootDecision { verdict: BootVerdict::Pass, .. }, _)) => {}
                Ok((BootDecision { verdict: BootVerdict::Boot(plan), reason, .. }, _)) => {
                    return asking.end(BootAnswer::Boot(plan), DecidedBy::Plugin(plugin.to_owned()), reason);
                }
                Ok((BootDecision { verdict: BootVerdict::Hold(hold), reason, .. }, _)) => {
                    let answer = BootAnswer::Hold(bounded(hold));
                    return asking.end(answer, DecidedBy::Plugin(plugin.to_owned()), reason);
                }
                Err(error) => match (finished, binding.on_error) {
                    (true, _) => return asking.end_failed(BootAnswer::Boot(BootPlan::LocalDisk), plugin, &error),
                    (false, OnError::Hold) => return asking.end_failed(hold_for(plugin, &error), plugin, &error),
                    (false, OnError::Skip) => {}
                },
            }
        }
        if finished {
            let reason = "it is finished".to_owned();
            return asking.end(BootAnswer::Boot(BootPlan::LocalDisk), DecidedBy::Nobody, reason);
        }
        let text = "No plugin decided what to boot.".to_owned();
        asking.end(BootAnswer::Hold(Hold { text, again_after_ms: None }), DecidedBy::Nobody, String::new())
    }

    /// What becomes of a machine that nobody knew. A plugin that fails is passed over: the machine is then stored with the
    /// states that the request has. Answers within the discovery chain's budget.
    pub async fn discovered(&self, call: Call, request: BootRequest) -> DiscoveryOutcome {
        let mut asking = Asking::new(self, call, request, self.budgets.discovery_chain);
        for binding in self.asked(Hook::Discovery, None) {
            let reply = asking.ask(binding, |call, request| binding.plugin.discovered(call, request)).await;
            let decision = reply.result.and_then(|decision| asking.accept_discovery(binding, decision));
            let step = match &decision {
                Ok((decision, _)) => (TraceResult::from(&decision.verdict), decision.reason.as_str()),
                Err(error) => (TraceResult::from(error), ""),
            };
            let patched = matches!(decision, Ok((_, Edited::Changed)));
            asking.record(binding, Hook::Discovery, step, patched, reply.notes);
            if let Ok((DiscoveryDecision { verdict: DiscoveryVerdict::Refuse(text), .. }, _)) = decision {
                let plugin = binding.plugin.name().to_owned();
                let answer =
                    DiscoveryAnswer::Refuse { plugin, text: text.chars().take(CONSOLE_TEXT_MAX_CHARS).collect() };
                return DiscoveryOutcome { answer, trace: asking.trace };
            }
        }
        DiscoveryOutcome { answer: DiscoveryAnswer::Admit(Box::new(asking.request.host)), trace: asking.trace }
    }

    /// Whom to ask: everyone with the hook whose filter takes the state, the default plugin last.
    fn asked(&self, hook: Hook, state: Option<String>) -> impl Iterator<Item = &Binding> {
        self.chain.iter().chain([&self.default]).filter(move |binding| {
            binding.plugin.hooks().contains(&hook) && state.as_ref().is_none_or(|state| binding.states.takes(state))
        })
    }
}

/// One chain being asked.
struct Asking<'a> {
    hooks: &'a Hooks,
    id: String,
    call: Call,
    /// As the next plugin sees it: with the patches so far.
    request: BootRequest,
    ends: Instant,
    asked_at: Instant,
    patches: Vec<GivenPatch>,
    trace: Trace,
}

impl<'a> Asking<'a> {
    fn new(hooks: &'a Hooks, call: Call, request: BootRequest, chain: Duration) -> Self {
        let now = Instant::now();
        Self {
            hooks,
            id: call.id.clone(),
            call,
            request,
            ends: now + chain,
            asked_at: now,
            patches: Vec::new(),
            trace: Trace::default(),
        }
    }

    /// What the next call may take: all but the default plugin leave it its share.
    fn budget(&self, binding: &Binding) -> Duration {
        let left = self.ends.saturating_duration_since(Instant::now());
        let is_default = Arc::ptr_eq(&binding.plugin, &self.hooks.default.plugin);
        let aside = if is_default { Duration::ZERO } else { self.hooks.budgets.call };
        left.saturating_sub(aside + GRACE).min(self.hooks.budgets.call)
    }

    async fn ask<'b, T, F>(
        &'b mut self,
        binding: &'b Binding,
        plugin: impl FnOnce(&'b Call, &'b BootRequest) -> F,
    ) -> Reply<T>
    where
        F: Future<Output = Reply<T>>,
    {
        self.asked_at = Instant::now();
        let budget = self.budget(binding);
        if budget.is_zero() {
            let over = "the plugins before it used up the time".to_owned();
            return Reply::from(Err(HookError::Unavailable(over)));
        }
        // An id of its own for every plugin: what two of them send to the same service are two things.
        self.call = Call { id: format!("{}-{}", self.id, binding.plugin.name()), budget, ..self.call.clone() };
        let this = &*self;
        timeout(budget + GRACE, plugin(&this.call, &this.request))
            .await
            .unwrap_or_else(|_| Reply::from(Err(HookError::Timeout { budget })))
    }

    /// Checks a decision and applies its patch.
    fn accept_boot(
        &mut self,
        binding: &Binding,
        decision: BootDecision,
        finished: bool,
    ) -> Result<(BootDecision, Edited), HookError> {
        check_verdict(&decision.verdict).map_err(|bad| HookError::BadAnswer(bad.to_string()))?;
        if finished
            && matches!(decision.verdict, BootVerdict::Hold(_))
            && !binding.grants.contains(&Grant::HoldFinished)
        {
            return Err(HookError::Denied("letting a finished host wait needs the grant `hold-finished`".to_owned()));
        }
        let edited = match &decision.patch {
            Some(patch) => self.accept_patch(binding, Hook::Boot, patch, &binding.grants)?,
            None => Edited::Unchanged,
        };
        Ok((decision, edited))
    }

    fn accept_discovery(
        &mut self,
        binding: &Binding,
        decision: DiscoveryDecision,
    ) -> Result<(DiscoveryDecision, Edited), HookError> {
        let edited = match &decision.verdict {
            DiscoveryVerdict::Admit(patch) => self.accept_patch(binding, Hook::Discovery, patch, &binding.grants)?,
            DiscoveryVerdict::Refuse(_) => Edited::Unchanged,
        };
        Ok((decision, edited))
    }

    fn accept_patch(
        &mut self,
        binding: &Binding,
        hook: Hook,
        patch: &Patch,
        grants: &BTreeSet<Grant>,
    ) -> Result<Edited, HookError> {
        patch.check_grants(hook, grants)?;
        let edited = patch.apply_to(&mut self.request.host)?;
        if edited == Edited::Changed {
            self.patches.push(GivenPatch { plugin: binding.plugin.name().to_owned(), patch: patch.clone() });
        }
        Ok(edited)
    }

    fn record(
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

    fn end(self, answer: BootAnswer, decided_by: DecidedBy, reason: String) -> BootOutcome {
        BootOutcome { answer, decided_by, reason: short(&reason), patches: self.patches, trace: self.trace }
    }

    /// A failure decided: nothing that earlier plugins wanted is committed with it.
    fn end_failed(mut self, answer: BootAnswer, plugin: &str, error: &HookError) -> BootOutcome {
        self.patches.clear();
        let reason = format!("the plugin {plugin} {error}");
        self.end(answer, DecidedBy::FailureOf(plugin.to_owned()), reason)
    }
}

/// What a host is shown that waits for a plugin to work.
fn hold_for(plugin: &str, error: &HookError) -> BootAnswer {
    let again_after_ms = match error {
        HookError::Retry { after_ms, .. } => Some(*after_ms),
        HookError::Invalid(_)
        | HookError::Failed(_)
        | HookError::Fatal(_)
        | HookError::Trap(_)
        | HookError::Timeout { .. }
        | HookError::Memory { .. }
        | HookError::Flood(_)
        | HookError::BadAnswer(_)
        | HookError::Denied(_)
        | HookError::Unavailable(_) => None,
    };
    let text = short(&format!("The plugin {plugin} {error}."));
    BootAnswer::Hold(bounded(Hold { text, again_after_ms }))
}

fn bounded(hold: Hold) -> Hold {
    Hold {
        text: hold.text.chars().take(CONSOLE_TEXT_MAX_CHARS).collect(),
        again_after_ms: hold.again_after_ms.map(|ms| ms.min(AGAIN_AFTER_MAX_MS)),
    }
}

#[cfg(test)]
mod tests;
