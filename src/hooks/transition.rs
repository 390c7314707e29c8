//! The hook `transition`: plugins are asked before a queue changes.
//!
//! Invariant: it fails closed. Whoever breaks, or answers what it may not, keeps the queue as it is; what that means for a
//! machine that has finished is the service's to say. What a plugin causes is not asked of that plugin.
use super::ask::Asking;
use super::trace::short;
use super::{Call, Hook, Hooks, Trace, TraceResult, TransitionRequest, TransitionVerdict, check_transition};

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
            let decision = reply.result.and_then(|decision| {
                check_transition(&decision, &binding.grants)?;
                Ok(decision)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::super::native::NativeDefault;
    use super::super::native::tests::{FixedCatalog, call, host};
    use super::super::{Binding, Grant, HookError, HookSet, Plugin, PluginStatus, Reply, TransitionDecision};
    use super::*;

    /// Says what it makes of the queue it is asked about.
    struct Says(&'static str, fn(&[String]) -> Result<TransitionVerdict, HookError>);

    impl Plugin for Says {
        fn name(&self) -> &str {
            self.0
        }

        fn hooks(&self) -> HookSet {
            HookSet::from([Hook::Transition])
        }

        fn status(&self) -> PluginStatus {
            PluginStatus::Ready { version: "1".into(), origin: "native".into(), digest: String::new() }
        }

        fn before<'a>(
            &'a self,
            _call: &'a Call,
            request: &'a TransitionRequest,
        ) -> BoxFuture<'a, Reply<TransitionDecision>> {
            let decide = |verdict| TransitionDecision { verdict, reason: String::new() };
            std::future::ready(Reply::from((self.1)(&request.to).map(decide))).boxed()
        }
    }

    fn hooks(plugins: Vec<Says>) -> Hooks {
        let bound = |plugin| Binding { grants: [Grant::States].into(), ..Binding::new(Arc::new(plugin)) };
        let default = Arc::new(NativeDefault::new(FixedCatalog::with(&[], &[]), false));
        Hooks::new(plugins.into_iter().map(bound).collect(), default)
    }

    async fn ask(hooks: &Hooks) -> TransitionAnswer {
        let request = TransitionRequest {
            host: host("new"),
            to: vec!["web".into()],
            cause: "operator".into(),
            actor: "ada".into(),
        };
        hooks.transition(call(), request).await.answer
    }

    fn prepended(to: &[String]) -> Result<TransitionVerdict, HookError> {
        Ok(TransitionVerdict::Redirect([&["prep".to_owned()], to].concat()))
    }

    #[tokio::test]
    async fn redirects_build_on_each_other_and_a_denial_ends_it() {
        let to = vec!["prep".to_owned(), "prep".to_owned(), "web".to_owned()];
        let both = hooks(vec![Says("a", prepended), Says("b", prepended)]);
        assert_eq!(ask(&both).await, TransitionAnswer::Go { to, redirected_by: Some("b".into()) });
        let denied = hooks(vec![Says("a", prepended), Says("b", |_| Ok(TransitionVerdict::Deny("no".into())))]);
        let refused = TransitionAnswer::Refused { plugin: "b".into(), why: "refuses: no".into() };
        assert_eq!(ask(&denied).await, refused);
    }

    #[tokio::test]
    async fn a_plugin_that_breaks_again_and_again_still_keeps_the_queue_as_it_is() {
        let broken = hooks(vec![Says("a", |_| Err(HookError::Trap("unreachable".into())))]);
        for _ in 0..5 {
            assert!(matches!(ask(&broken).await, TransitionAnswer::Refused { .. }));
        }
        let state = &broken.bindings().next().unwrap().breakers.states(std::time::Instant::now());
        assert_eq!(state.len(), 1, "the breaker is open, and shown");
    }
}
