//! The hook `render`: variables that plugins add to a document.
use serde_json::{Map, Value};

use super::ask::Asking;
use super::{Call, Hook, HookError, Hooks, OnError, RenderRequest, Trace, TraceResult};

/// Variables for a document, and how they came about.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderOutcome {
    /// By name; or who broke and must be waited for.
    pub variables: Result<Map<String, Value>, RenderRefused>,
    /// Everything that was said.
    pub trace: Trace,
}

/// A plugin must be waited for before the document can be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plugin {plugin} {error}")]
pub struct RenderRefused {
    /// Who.
    pub plugin: String,
    /// What it said, or how it broke.
    pub error: HookError,
}

impl Hooks {
    /// Variables for a document; of two plugins that name the same one the later wins. Answers within the render chain's
    /// budget.
    pub async fn variables(&self, call: Call, request: RenderRequest) -> RenderOutcome {
        let mut asking = Asking::new(self, call, request, self.budgets.render_chain);
        let mut variables = Map::new();
        for binding in self.asked(Hook::Render) {
            let host = &asking.request.host;
            if !binding.states.takes(host.state()) || !binding.selector.takes(host) {
                continue;
            }
            let ask = asking.ask(Hook::Render, binding, |call, request| binding.plugin.variables(call, request));
            let reply = ask.await;
            asking.judge(Hook::Render, binding, reply.result.as_ref().err());
            let said = match &reply.result {
                Ok(given) => TraceResult::Variables { count: given.len() },
                Err(error) => TraceResult::from(error),
            };
            asking.record(binding, Hook::Render, (said, ""), false, reply.notes);
            match (reply.result, binding.on_error) {
                (Ok(given), _) => {
                    asking.request.vars.extend(given.clone());
                    variables.extend(given);
                }
                (Err(_), OnError::Skip) => {}
                (Err(error), OnError::Hold) => {
                    let refused = RenderRefused { plugin: binding.plugin.name().to_owned(), error };
                    return RenderOutcome { variables: Err(refused), trace: asking.trace };
                }
            }
        }
        RenderOutcome { variables: Ok(variables), trace: asking.trace }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use serde_json::json;

    use super::super::native::NativeDefault;
    use super::super::native::tests::{FixedCatalog, call, host};
    use super::super::{Binding, HookSet, Plugin, PluginStatus, Reply, StatesFilter};
    use super::*;

    /// Counts the variables it sees, and gives one; or fails.
    struct Gives(&'static str, Result<&'static str, HookError>);

    impl Plugin for Gives {
        fn name(&self) -> &str {
            self.0
        }

        fn hooks(&self) -> HookSet {
            HookSet::from([Hook::Render])
        }

        fn status(&self) -> PluginStatus {
            PluginStatus::Ready { version: "1".into(), origin: "native".into(), digest: String::new() }
        }

        fn variables<'a>(
            &'a self,
            _call: &'a Call,
            request: &'a RenderRequest,
        ) -> BoxFuture<'a, Reply<Map<String, Value>>> {
            let seen = request.vars.len();
            let given = self.1.clone().map(|name| {
                [(name.to_owned(), json!(self.0)), (format!("seen by {}", self.0), json!(seen))].into_iter().collect()
            });
            std::future::ready(Reply::from(given)).boxed()
        }
    }

    fn broken(name: &'static str) -> Gives {
        Gives(name, Err(HookError::Trap("unreachable".into())))
    }

    async fn variables(bindings: Vec<Binding>) -> RenderOutcome {
        let hooks = Hooks::new(bindings, Arc::new(NativeDefault::new(FixedCatalog::with(&[], &[]), false)));
        let request = RenderRequest { host: host("web"), document: "user-data".into(), vars: Map::new() };
        hooks.variables(call(), request).await
    }

    fn bound(plugin: Gives) -> Binding {
        Binding::new(Arc::new(plugin))
    }

    #[tokio::test]
    async fn a_later_plugin_sees_what_earlier_ones_gave_and_wins() {
        let outcome = variables(vec![bound(Gives("a", Ok("role"))), bound(Gives("b", Ok("role")))]).await;
        let given = Value::Object(outcome.variables.unwrap());
        assert_eq!(given, json!({ "role": "b", "seen by a": 0, "seen by b": 2 }));
        assert_eq!(outcome.trace.steps.len(), 2);
    }

    #[tokio::test]
    async fn a_plugin_that_breaks_is_waited_for_or_passed_over_as_bound() {
        let outcome = variables(vec![bound(broken("a")), bound(Gives("b", Ok("role")))]).await;
        assert_eq!(outcome.variables.unwrap_err().plugin, "a");
        let skipped = Binding { on_error: OnError::Skip, ..bound(broken("a")) };
        assert_eq!(variables(vec![skipped, bound(Gives("b", Ok("role")))]).await.variables.unwrap()["role"], "b");
    }

    #[tokio::test]
    async fn a_plugin_is_asked_in_the_states_of_its_binding() {
        let other = Binding { states: StatesFilter::from(vec!["db".to_owned()]), ..bound(Gives("a", Ok("role"))) };
        assert!(variables(vec![other]).await.variables.unwrap().is_empty());
    }
}
