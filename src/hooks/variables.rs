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
