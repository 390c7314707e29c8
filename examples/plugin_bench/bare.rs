//! The same component on bare wasmtime: a fresh store and instance for every call, on the engine and pool of the server, and
//! nothing of what the server adds: no bounds, no translation, no chain, no trace.
use anyhow::{Result, anyhow};
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Store};

mod contract {
    #![allow(clippy::all, clippy::allow_attributes_without_reason, missing_docs, unreachable_pub, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "sdk/wit/0.1.0",
        world: "plugin",
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

use contract::exports::kiwispray::plugin::boot;
use contract::kiwispray::plugin::{call, catalog, log, types};

/// A component, and what it is asked.
pub(crate) struct Bare {
    engine: Engine,
    pre: InstancePre<Core>,
    boot: boot::GuestIndices,
    request: types::BootRequest,
}

impl Bare {
    /// Compiles a component that imports `catalog` at most.
    pub(crate) fn new(engine: &Engine, component: &[u8], request: types::BootRequest) -> Result<Self> {
        type Own = HasSelf<Core>;
        let error = |error: wasmtime::Error| anyhow!("{error:#}");
        let mut linker = Linker::new(engine);
        types::add_to_linker::<_, Own>(&mut linker, |core| core).map_err(error)?;
        call::add_to_linker::<_, Own>(&mut linker, |core| core).map_err(error)?;
        log::add_to_linker::<_, Own>(&mut linker, |core| core).map_err(error)?;
        catalog::add_to_linker::<_, Own>(&mut linker, |core| core).map_err(error)?;
        let component = Component::from_binary(engine, component).map_err(error)?;
        let pre = linker.instantiate_pre(&component).map_err(error)?;
        let boot = boot::GuestIndices::new(&pre).map_err(error)?;
        Ok(Self { engine: engine.clone(), pre, boot, request })
    }

    /// Calls `boot.decide` once.
    pub(crate) async fn decide(&self) -> Result<()> {
        let mut store = Store::new(&self.engine, Core);
        store.set_epoch_deadline(u64::MAX / 2);
        let run = async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            self.boot.load(&mut store, &instance)?.call_decide(&mut store, &self.request).await
        };
        let answer = run.await.map_err(|error| anyhow!("{error:#}"))?;
        answer.map(drop).map_err(|error| anyhow!("{error:?}"))
    }
}

/// What the server was given as a host, as the contract writes it.
pub(crate) fn request(id: u64, state: &str, metadata: &str, facts: &[(String, String)]) -> types::BootRequest {
    let host = types::KnownHost {
        id,
        revision: 3,
        hostname: Some("node7".to_owned()),
        serial: "S7".to_owned(),
        uuid: "4c4c4544-0000-1000-8000-000000000007".to_owned(),
        macs: vec!["52:54:00:00:00:07".to_owned()],
        states: vec![state.to_owned()],
        attempts: 1,
        metadata: metadata.to_owned(),
        more: "{}".to_owned(),
    };
    types::BootRequest { host, facts: facts.to_vec() }
}

/// Answers at once.
struct Core;

impl types::Host for Core {}

impl call::Host for Core {
    async fn id(&mut self) -> wasmtime::Result<String> {
        Ok("bench".to_owned())
    }
    async fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(1)
    }
    async fn now_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(1_700_000_000_000)
    }
    async fn budget_ms(&mut self) -> wasmtime::Result<u32> {
        Ok(200)
    }
    async fn dry_run(&mut self) -> wasmtime::Result<bool> {
        Ok(false)
    }
    async fn config(&mut self) -> wasmtime::Result<String> {
        Ok("{}".to_owned())
    }
    async fn note(&mut self, _text: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl log::Host for Core {
    async fn write(
        &mut self,
        _level: log::Level,
        _message: String,
        _fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl catalog::Host for Core {
    async fn has_image(&mut self, _name: String) -> wasmtime::Result<Result<bool, catalog::CatalogError>> {
        Ok(Ok(true))
    }
    async fn has_template(&mut self, _name: String) -> wasmtime::Result<Result<bool, catalog::CatalogError>> {
        Ok(Ok(false))
    }
    async fn images(&mut self) -> wasmtime::Result<Result<Vec<String>, catalog::CatalogError>> {
        Ok(Ok(vec!["web".to_owned()]))
    }
}
