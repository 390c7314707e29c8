//! The hook `transition`: plugins are asked before a queue changes.
//!
//! Invariant: it fails closed. Whoever breaks, or answers what it may not, keeps the queue as it is; what that means for a
//! machine that has finished is the service's to say. What a plugin causes is not asked of that plugin.
use super::ask::Asking;
use super::trace::short;
use super::{Call, Grant, Hook, HookError, Hooks, Trace, TraceResult, TransitionRequest, TransitionVerdict};

/// More states than any queue has.
const STATES_MAX: usize = 32;

/// Whether a queue may change, and how that came about.
#[derive(Clone, Debug, PartialEq)]
pub struct TransitionOutcome {
    /// What to do.
    pub answer: TransitionAnswer,
    /// Everything that was said.
    pub trace: Trace,
}

/// Whether a queue may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransitionAnswer {
    /// It may, to this queue: the one that was asked about, or what plugins made of it. Whoever acts on this checks that
    /// nothing was ordered by it.
    Go {
        /// The queue.
        to: Vec<String>,
        /// The last plugin that changed it.
        redirected_by: Option<String>,
    },
    /// It may not.
    Refused {
        /// Who refused, or broke.
        plugin: String,
        /// One sentence for the operator, without the plugin's name.
        why: String,
    },
}

impl Hooks {
    /// Whether anyone would be asked about changes of queues.
    #[must_use]
    pub fn has_transitions(&self) -> bool {
        self.asked(Hook::Transition).next().is_some()
    }

    /// Whether the queue of a host may change. Answers within the transition chain's budget.
    pub async fn transition(&self, call: Call, request: TransitionRequest) -> TransitionOutcome {
        let mut redirected_by = None;
        let mut asking = Asking::new(self, call, request, self.budgets.transition_chain);
        for binding in self.asked(Hook::Transition) {
            let plugin = binding.plugin.name();
            let is_own = asking.request.cause == "plugin" && asking.request.actor == plugin;
            if is_own || !binding.selector.takes(&asking.request.host) {
                continue;
            }
            let ask = asking.ask(Hook::Transition, binding, |call, request| binding.plugin.before(call, request));
            let reply = ask.await;
            let decision = reply.result.and_then(|decision| match decision.verdict {
                TransitionVerdict::Redirect(_) if !binding.grants.contains(&Grant::States) => {
                    Err(HookError::Denied("redirecting needs the grant `states`".to_owned()))
                }
                TransitionVerdict::Redirect(to) if to.len() > STATES_MAX => {
                    Err(HookError::BadAnswer(format!("redirects to more than {STATES_MAX} states")))
                }
                TransitionVerdict::Allow | TransitionVerdict::Redirect(_) | TransitionVerdict::Deny(_) => Ok(decision),
            });
            asking.judge(Hook::Transition, binding, decision.as_ref().err());
            let step = match &decision {
                Ok(decision) => (TraceResult::from(&decision.verdict), decision.reason.as_str()),
                Err(error) => (TraceResult::from(error), ""),
            };
            asking.record(binding, Hook::Transition, step, false, reply.notes);
            let why = match decision.map(|decision| decision.verdict) {
                Ok(TransitionVerdict::Allow) => continue,
                Ok(TransitionVerdict::Redirect(to)) => {
                    asking.request.to = to;
                    redirected_by = Some(plugin.to_owned());
                    continue;
                }
                Ok(TransitionVerdict::Deny(text)) => format!("refuses: {}", short(&text)),
                Err(error) => short(&error.to_string()),
            };
            let answer = TransitionAnswer::Refused { plugin: plugin.to_owned(), why };
            return TransitionOutcome { answer, trace: asking.trace };
        }
        TransitionOutcome { answer: TransitionAnswer::Go { to: asking.request.to, redirected_by }, trace: asking.trace }
    }
}
