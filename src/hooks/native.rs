//! A native double of the default plugin, for tests and benchmarks that are about something else. The server itself runs the
//! component in `plugins/default`, and a test of the plugin host holds both to the same answers.
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::types::NEW;
use super::{
    BootDecision, BootPlan, BootRequest, BootVerdict, Call, Capabilities, CapabilityError, DiscoveryDecision,
    DiscoveryVerdict, Hold, Hook, HookError, HookSet, ImageBoot, Patch, Plugin, PluginStatus, Reply, TemplateBoot,
};

/// How long to wait for a catalogue that does not answer.
const CATALOG_RETRY_MS: u32 = 5_000;

/// Answers as the default plugin does, without WebAssembly.
pub struct NativeDefault {
    capabilities: Arc<dyn Capabilities>,
    discover: bool,
}

impl NativeDefault {
    /// With the configuration `{"discover": discover}`.
    #[must_use]
    pub fn new(capabilities: Arc<dyn Capabilities>, discover: bool) -> Self {
        Self { capabilities, discover }
    }

    async fn verdict(&self, state: &str) -> Result<(BootVerdict, &'static str), CapabilityError> {
        let template = || BootPlan::Template(TemplateBoot { template: state.to_owned(), vars: Vec::new() });
        if state == NEW {
            return Ok((BootVerdict::Boot(template()), "nobody has given it a state yet"));
        }
        if self.capabilities.has_image(state).await? {
            let image = ImageBoot { image: state.to_owned(), append: Vec::new(), vars: Vec::new() };
            return Ok((BootVerdict::Boot(BootPlan::Image(image)), "its state names this image"));
        }
        if self.capabilities.has_template(state).await? {
            return Ok((BootVerdict::Boot(template()), "its state names this template"));
        }
        let text = format!("The state {state} names no image and no template of this server.");
        Ok((BootVerdict::Hold(Hold { text, again_after_ms: None }), "nothing of this name"))
    }

    fn first_states(&self, states: &[String]) -> (Option<Vec<String>>, &'static str) {
        if states.iter().any(|state| state != NEW) {
            return (None, "it has states already");
        }
        if self.discover {
            return (Some(vec!["discover".to_owned(), NEW.to_owned()]), "takes inventory first");
        }
        (Some(vec![NEW.to_owned()]), "waits for a state")
    }
}

impl Plugin for NativeDefault {
    fn name(&self) -> &str {
        "default"
    }

    fn hooks(&self) -> HookSet {
        HookSet::from([Hook::Boot, Hook::Discovery])
    }

    fn status(&self) -> PluginStatus {
        PluginStatus::Ready {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            origin: "native".to_owned(),
            digest: String::new(),
        }
    }

    fn decide<'a>(&'a self, _call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        async move {
            let decision = match self.verdict(request.host.state()).await {
                Ok((verdict, reason)) => Ok(BootDecision { verdict, patch: None, reason: reason.to_owned() }),
                Err(CapabilityError::Unavailable(reason)) => {
                    Err(HookError::Retry { after_ms: CATALOG_RETRY_MS, reason })
                }
                Err(CapabilityError::Denied(reason)) => {
                    Err(HookError::Failed(format!("may not ask the catalogue: {reason}")))
                }
            };
            Reply::from(decision)
        }
        .boxed()
    }

    fn discovered<'a>(&'a self, _call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        let (states, reason) = self.first_states(&request.host.states);
        let verdict = DiscoveryVerdict::Admit(Patch { states, ..Patch::default() });
        let decision = DiscoveryDecision { verdict, reason: reason.to_owned() };
        std::future::ready(Reply::from(Ok(decision))).boxed()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use serde_json::Map;

    use super::super::{KnownHost, Run};
    use super::*;

    /// A catalogue of fixed names, or one that is down.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct FixedCatalog {
        pub(crate) images: BTreeSet<String>,
        pub(crate) templates: BTreeSet<String>,
        pub(crate) down: bool,
    }

    impl FixedCatalog {
        pub(crate) fn with(images: &[&str], templates: &[&str]) -> Arc<Self> {
            let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Arc::new(Self { images: set(images), templates: set(templates), down: false })
        }

        fn answer<T: Send + 'static>(&self, answer: T) -> BoxFuture<'static, Result<T, CapabilityError>> {
            let down = CapabilityError::Unavailable("the catalogue is being read".into());
            std::future::ready(if self.down { Err(down) } else { Ok(answer) }).boxed()
        }
    }

    impl Capabilities for FixedCatalog {
        fn has_image<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
            self.answer(self.images.contains(name))
        }
        fn has_template<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
            self.answer(self.templates.contains(name))
        }
        fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>> {
            self.answer(self.images.iter().cloned().collect())
        }
    }

    /// Host 7 in a state.
    pub(crate) fn host(state: &str) -> KnownHost {
        KnownHost {
            id: 7,
            revision: 3,
            hostname: Some("node7".into()),
            serial: "S7".into(),
            uuid: "4c4c4544-0000-1000-8000-000000000007".into(),
            macs: vec!["52:54:00:00:00:07".into()],
            states: vec![state.into()],
            attempts: 1,
            metadata: Map::new(),
            more: Map::new(),
        }
    }

    /// A boot of host 7 in a state.
    pub(crate) fn request(state: &str) -> BootRequest {
        BootRequest { host: host(state), facts: vec![("platform".into(), "efi".into())] }
    }

    /// A real call with the ordinary budget.
    pub(crate) fn call() -> Call {
        Call { budget: std::time::Duration::from_millis(200), ..Call::new("c1", 1_700_000_000_000, Run::Real) }
    }

    #[tokio::test]
    async fn a_state_names_an_image_else_a_template_else_holds() {
        let plugin = NativeDefault::new(FixedCatalog::with(&["web", "both"], &["both", "memtest"]), false);
        let mut said = Vec::new();
        for state in ["new", "web", "both", "memtest", "nothing"] {
            let decision = plugin.decide(&call(), &request(state)).await.result.unwrap();
            said.push(super::super::TraceResult::from(&decision.verdict).to_string());
        }
        assert_eq!(
            said,
            [
                "boot template new",
                "boot image web",
                "boot image both",
                "boot template memtest",
                "hold “The state nothing names no image and no template of this server.”"
            ]
        );
    }
}
