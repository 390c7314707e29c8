//! A small site for the tests of use cases, with plugins that say what a test wants.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::{Act, Acted, BootstrapRequest, HostsError, Outcome, Service, Settings, Shelf, SystemClock, Terms};
use crate::domain::{Actor, Edit, HostId, Identity, Ignore, Metadata, Parameter, Registration, States};
use crate::hooks::native::NativeDefault;
use crate::hooks::{
    Binding, BootDecision, BootRequest, Call, Hook, HookError, HookSet, Hooks, Plugin, PluginStatus, RenderRequest,
    Reply, Run, TransitionDecision, TransitionRequest, TransitionVerdict,
};
use crate::images::{Catalogue, LocalBoot};
use crate::render::Renderer;
use crate::store::Store;

pub(super) struct Site {
    pub(super) service: Arc<Service>,
    _images: tempfile::TempDir,
}

/// A server with the images `web` (writes the first disk), `live` (writes nothing) and `broken`.
pub(super) fn site() -> Site {
    let images = tempfile::tempdir().unwrap();
    let image = |name: &str, manifest: &str| {
        let folder = images.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("vmlinuz"), "kernel").unwrap();
        fs::write(folder.join("image.toml"), manifest).unwrap();
    };
    image("web", "kind = \"linux\"\nkernel = \"vmlinuz\"\nwrites = \"disk\"\ndevice = \"first\"\n");
    image("live", "kind = \"linux\"\nkernel = \"vmlinuz\"\nwrites = \"nothing\"\n");
    image("broken", "kind = \"linux\"\nkernel = \"missing\"\nwrites = \"nothing\"\n");
    let catalogue = Arc::new(Catalogue::new(images.path()));
    let renderer = Arc::new(Renderer::new(None));
    let shelf = Arc::new(Shelf::new(Arc::clone(&catalogue), Arc::clone(&renderer)));
    let hooks = Hooks::new(Vec::new(), Arc::new(NativeDefault::new(shelf, false)));
    let settings = Settings {
        public_url: None,
        most_attempts: 3,
        again_s: (3, 30),
        new_hosts_per_minute: None,
        reinstalls_per_hour: 10,
        open_state: false,
        open_hosts: false,
        local: LocalBoot::Exit,
        ignore: Ignore::default(),
    };
    let service = Service::new(Store::memory(), hooks, catalogue, renderer, Arc::new(SystemClock), settings);
    Site { service: Arc::new(service), _images: images }
}

pub(super) fn by_ada() -> Terms {
    Terms { actor: ada(), revision: None, serial: None, run: Run::Real }
}

pub(super) fn ada() -> Actor {
    Actor::Operator("ada".to_owned())
}

pub(super) fn registration(serial: &str, mac: &str, name: Option<&str>) -> Registration {
    Registration {
        identity: Identity { serial: serial.parse().ok(), uuid: None, macs: mac.parse().into_iter().collect() },
        hardware: crate::domain::Hardware::default(),
        hostname: name.map(|name| name.parse().unwrap()),
        states: States::new_host(),
        metadata: Metadata::parse(r#"{"site":"fra1","rack":7}"#).unwrap(),
        why: "registered by ada".to_owned(),
    }
}

impl Site {
    /// Hosts 1 to 3, called node1 to node3, with the serial numbers SNA1 to SNA3.
    pub(super) async fn with_three_hosts() -> Self {
        let site = site();
        for n in 1..=3 {
            let wanted = registration(&format!("SNA{n}"), &format!("52:54:00:00:00:0{n}"), Some(&format!("node{n}")));
            site.service.add(wanted, ada(), Run::Real).await.unwrap();
        }
        site
    }

    pub(super) async fn set(&self, id: u64, states: &str, terms: &Terms) -> Result<Acted, HostsError> {
        self.set_with(id, states, false, terms).await
    }

    pub(super) async fn set_with(
        &self,
        id: u64,
        states: &str,
        reinstall: bool,
        terms: &Terms,
    ) -> Result<Acted, HostsError> {
        let states = Some(states.parse().unwrap());
        let act = Act::Set { edit: Edit::default(), states, reinstall, abort: false };
        self.service.act(HostId::new(id), &act, terms).await
    }

    /// Host 1, with this queue, and plugins that are bound to all their hooks.
    pub(super) async fn with_host(states: &str, plugins: Vec<Binding>) -> Self {
        let site = site();
        let wanted = registration("SNA1", "52:54:00:00:00:01", Some("node1"));
        site.service.add(wanted, ada(), Run::Real).await.unwrap();
        if states != "new" {
            site.set(1, states, &by_ada()).await.unwrap();
        }
        site.bind(plugins);
        site
    }

    /// Binds plugins in front of the default plugin.
    pub(super) fn bind(&self, plugins: Vec<Binding>) {
        let shelf = Shelf::new(Arc::clone(&self.service.catalogue), Arc::clone(&self.service.renderer));
        self.service.replace_hooks(Hooks::new(plugins, Arc::new(NativeDefault::new(Arc::new(shelf), false))));
    }

    /// Machine 1 asks what to boot.
    pub(super) async fn boot(&self) -> (Outcome, String) {
        self.boot_of("SNA1", "52:54:00:00:00:01").await
    }

    /// A machine asks what to boot.
    pub(super) async fn boot_of(&self, serial: &str, mac: &str) -> (Outcome, String) {
        let parameter = |name: &str, value: &str| Parameter { name: name.to_owned(), value: Some(value.to_owned()) };
        let request = BootstrapRequest {
            parameters: vec![parameter("serial", serial), parameter("net0", mac)],
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            base: "http://192.0.2.1:5000".parse().unwrap(),
        };
        let answer = self.service.bootstrap(&request).await;
        (answer.outcome, answer.script)
    }

    /// The call of the newest boot of host 1.
    pub(super) async fn call(&self) -> super::Call {
        let host = self.service.find_one("1").await.unwrap();
        super::Call { id: Some("1".to_owned()), bootid: host.boot.map(|boot| boot.bootid.expose()) }
    }

    /// The queue of host 1.
    pub(super) async fn states(&self) -> String {
        self.service.find_one("1").await.unwrap().states.to_string()
    }

    /// What happened to host 1 so far.
    pub(super) async fn kinds(&self) -> Vec<&'static str> {
        let events = self.service.timeline(HostId::new(1), 1, 100).await.unwrap();
        events.iter().map(|event| event.kind.name()).collect()
    }
}

type Answer<Q, A> = Box<dyn Fn(&Q) -> Result<A, HookError> + Send + Sync>;

/// A plugin that says what a test wants.
#[derive(Default)]
pub(super) struct Says {
    pub(super) boot: Option<Answer<BootRequest, BootDecision>>,
    pub(super) transition: Option<Answer<TransitionRequest, TransitionDecision>>,
    pub(super) render: Option<Answer<RenderRequest, Map<String, Value>>>,
}

impl Says {
    /// To every change of a queue.
    pub(super) fn to_transitions(
        verdict: impl Fn(&TransitionRequest) -> Result<TransitionVerdict, HookError> + Send + Sync + 'static,
    ) -> Self {
        let decide = move |request: &TransitionRequest| {
            Ok(TransitionDecision { verdict: verdict(request)?, reason: String::new() })
        };
        Self { transition: Some(Box::new(decide)), ..Self::default() }
    }

    pub(super) fn bound(self) -> Binding {
        Binding::new(Arc::new(self))
    }
}

fn say<Q, A: Send + 'static>(answer: Option<&Answer<Q, A>>, request: &Q) -> BoxFuture<'static, Reply<A>> {
    let answer = answer.map_or(Err(HookError::Unavailable("has no such hook".to_owned())), |answer| answer(request));
    std::future::ready(Reply::from(answer)).boxed()
}

impl Plugin for Says {
    fn name(&self) -> &str {
        "says"
    }

    fn hooks(&self) -> HookSet {
        let hooks = [
            (Hook::Boot, self.boot.is_some()),
            (Hook::Transition, self.transition.is_some()),
            (Hook::Render, self.render.is_some()),
        ];
        hooks.into_iter().filter_map(|(hook, has)| has.then_some(hook)).collect()
    }

    fn status(&self) -> PluginStatus {
        PluginStatus::Ready { version: "1".to_owned(), origin: "native".to_owned(), digest: String::new() }
    }

    fn decide<'a>(&'a self, _call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        say(self.boot.as_ref(), request)
    }

    fn before<'a>(
        &'a self,
        _call: &'a Call,
        request: &'a TransitionRequest,
    ) -> BoxFuture<'a, Reply<TransitionDecision>> {
        say(self.transition.as_ref(), request)
    }

    fn variables<'a>(
        &'a self,
        _call: &'a Call,
        request: &'a RenderRequest,
    ) -> BoxFuture<'a, Reply<Map<String, Value>>> {
        say(self.render.as_ref(), request)
    }
}

/// Waits for something that happens in the background; for long, as machines may be slow.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1_500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}
