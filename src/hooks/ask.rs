//! The chains: who is asked in which order, with how much time, and what the core gets out of it.
//!
//! The time of a chain is bounded as a whole, and the default plugin, which comes last, has its share put aside: plugins that
//! hang and are skipped cannot starve the standard deploy.
use std::sync::Arc;
use std::time::Duration;

use super::trace::short;
use super::{
    Binding, BootAnswer, BootDecision, BootOutcome, BootPlan, BootRequest, BootVerdict, Breakers, Call, DecidedBy,
    DiscoveryAnswer, DiscoveryDecision, DiscoveryOutcome, DiscoveryVerdict, Edited, GivenPatch, Hold, Hook, HookError,
    KnownHost, OnError, Patch, Plugin, PluginStatus, TraceResult, check_boot, check_discovery,
};
pub(super) use asking::Asking;

mod asking;

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
    /// `render.variables` of all plugins together.
    pub render_chain: Duration,
    /// `transition.before` of all plugins together. `/bootstrap` may ask this chain before that of `boot`.
    pub transition_chain: Duration,
    /// A batch of events.
    pub events: Duration,
    /// One run of a job.
    pub schedule: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            call: Duration::from_millis(200),
            boot_chain: Duration::from_millis(1_000),
            discovery_chain: Duration::from_millis(500),
            render_chain: Duration::from_millis(1_000),
            transition_chain: Duration::from_millis(500),
            events: Duration::from_secs(10),
            schedule: Duration::from_secs(60),
        }
    }
}

/// All bound plugins, in order; the default plugin last.
#[derive(Clone, Debug)]
pub struct Hooks {
    chain: Vec<Binding>,
    default: Binding,
    pub(super) budgets: Budgets,
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

    /// With the default plugin's breakers as they were before.
    #[must_use]
    pub fn with_default_breakers(mut self, breakers: Arc<Breakers>) -> Self {
        self.default.breakers = breakers;
        self
    }

    /// The same chain for a rehearsal, whose faults are not held against the plugins.
    #[must_use]
    pub fn rehearsing(&self) -> Self {
        let mut hooks = self.clone();
        for binding in hooks.chain.iter_mut().chain([&mut hooks.default]) {
            binding.breakers = Arc::default();
        }
        hooks
    }

    /// What calls may take.
    #[must_use]
    pub const fn budgets(&self) -> Budgets {
        self.budgets
    }

    /// Every plugin and whether it works, in order.
    #[must_use]
    pub fn status(&self) -> Vec<(String, PluginStatus)> {
        self.bindings().map(|binding| (binding.plugin.name().to_owned(), binding.plugin.status())).collect()
    }

    /// A bound plugin, by its name.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<Arc<dyn Plugin>> {
        self.bindings().find(|binding| binding.plugin.name() == name).map(|binding| Arc::clone(&binding.plugin))
    }

    /// What a host boots now. Answers within the boot chain's budget.
    pub async fn decide_boot(&self, call: Call, request: BootRequest) -> BootOutcome {
        let mut asking = Asking::new(self, call, request, self.budgets.boot_chain);
        let finished = asking.request.host.is_finished();
        let state = asking.request.host.state().to_owned();
        for binding in self.asked(Hook::Boot) {
            if !binding.states.takes(&state) || !binding.selector.takes(&asking.request.host) {
                continue;
            }
            let reply = asking.ask(Hook::Boot, binding, |call, request| binding.plugin.decide(call, request)).await;
            let plugin = binding.plugin.name();
            let decision = reply.result.and_then(|decision| asking.accept_boot(binding, decision));
            asking.judge(Hook::Boot, binding, decision.as_ref().err());
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
        let unknown = request.host.clone();
        let mut order = None;
        let mut asking = Asking::new(self, call, request, self.budgets.discovery_chain);
        for binding in self.asked(Hook::Discovery).filter(|binding| binding.selector.takes(&unknown)) {
            let ask = asking.ask(Hook::Discovery, binding, |call, request| binding.plugin.discovered(call, request));
            let reply = ask.await;
            let decision = reply.result.and_then(|decision| asking.accept_discovery(binding, decision));
            asking.judge(Hook::Discovery, binding, decision.as_ref().err());
            let step = match &decision {
                Ok((decision, _)) => (TraceResult::from(&decision.verdict), decision.reason.as_str()),
                Err(error) => (TraceResult::from(error), ""),
            };
            let patched = matches!(decision, Ok((_, Edited::Changed)));
            asking.record(binding, Hook::Discovery, step, patched, reply.notes);
            match decision.map(|(decision, _)| decision.verdict) {
                Ok(DiscoveryVerdict::Admit(patch)) => order = patch.order.or(order),
                Ok(DiscoveryVerdict::Refuse(text)) => {
                    let plugin = binding.plugin.name().to_owned();
                    let answer =
                        DiscoveryAnswer::Refuse { plugin, text: text.chars().take(CONSOLE_TEXT_MAX_CHARS).collect() };
                    return DiscoveryOutcome { answer, order: None, trace: asking.trace };
                }
                Err(_) => {}
            }
        }
        DiscoveryOutcome { answer: DiscoveryAnswer::Admit(Box::new(asking.request.host)), order, trace: asking.trace }
    }

    /// The binding of this name.
    #[must_use]
    pub fn binding(&self, plugin: &str) -> Option<&Binding> {
        self.bindings().find(|binding| binding.plugin.name() == plugin)
    }

    /// All bindings in order, the default plugin last.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.chain.iter().chain([&self.default])
    }

    /// Whether anyone but the default plugin would be asked what this host boots.
    #[must_use]
    pub fn asks_about(&self, host: &KnownHost) -> bool {
        let takes = |binding: &&Binding| {
            binding.has(Hook::Boot) && binding.states.takes(host.state()) && binding.selector.takes(host)
        };
        self.chain.iter().any(|binding| takes(&binding))
    }

    /// Everyone who is bound to a hook, in order.
    pub fn asked(&self, hook: Hook) -> impl Iterator<Item = &Binding> {
        self.bindings().filter(move |binding| binding.has(hook))
    }
}

impl Asking<'_, BootRequest> {
    /// Checks a decision and applies its patch.
    fn accept_boot(&mut self, binding: &Binding, decision: BootDecision) -> Result<(BootDecision, Edited), HookError> {
        check_boot(&decision, &self.request.host, &binding.grants)?;
        let edited = match &decision.patch {
            Some(patch) => self.apply(binding, patch)?,
            None => Edited::Unchanged,
        };
        Ok((decision, edited))
    }

    fn accept_discovery(
        &mut self,
        binding: &Binding,
        decision: DiscoveryDecision,
    ) -> Result<(DiscoveryDecision, Edited), HookError> {
        check_discovery(&decision, &binding.grants)?;
        let edited = match &decision.verdict {
            DiscoveryVerdict::Admit(patch) => self.apply(binding, patch)?,
            DiscoveryVerdict::Refuse(_) => Edited::Unchanged,
        };
        Ok((decision, edited))
    }

    fn apply(&mut self, binding: &Binding, patch: &Patch) -> Result<Edited, HookError> {
        let edited = patch.apply_to(&mut self.request.host)?;
        if edited == Edited::Changed {
            self.patches.push(GivenPatch { plugin: binding.plugin.name().to_owned(), patch: patch.clone() });
        }
        Ok(edited)
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
