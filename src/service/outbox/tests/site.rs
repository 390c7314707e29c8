//! A server with a plugin that keeps what it is told.
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::domain::{self, Actor, Event, EventKind, Hardware, Host, Identity, Ignore, Metadata, Registration, States};
use crate::hooks::native::NativeDefault;
use crate::hooks::{self, About, Binding, Call, HookError, HookSet, Hooks, Plugin, PluginStatus, Reply};
use crate::images::{Catalogue, LocalBoot};
use crate::render::Renderer;
use crate::service::fixtures::until;
use crate::service::{Settings, Shelf, SystemClock};
use crate::store::{Store, StoreOptions};

use super::super::*;

/// What it answers to a call.
type Answer = dyn Fn(&Call, &[hooks::Event]) -> Result<u32, HookError> + Send + Sync;

/// Keeps what it is told and says is done.
pub(super) struct Listener {
    name: String,
    kinds: Vec<String>,
    ready: bool,
    answer: Box<Answer>,
    /// While it is held, calls do not return.
    pub(super) gate: tokio::sync::RwLock<()>,
    told: Mutex<Vec<hooks::Event>>,
    calls: Mutex<Vec<(Call, Vec<hooks::Event>)>>,
}

impl Listener {
    pub(super) fn new(
        answer: impl Fn(&Call, &[hooks::Event]) -> Result<u32, HookError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: "webhook".into(),
            kinds: vec!["*".into()],
            ready: true,
            answer: Box::new(answer),
            gate: tokio::sync::RwLock::default(),
            told: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    /// Takes everything.
    pub(super) fn willing() -> Arc<Self> {
        Arc::new(Self::new(|_, events| Ok(count(events))))
    }

    pub(super) fn wanting(kinds: &[&str]) -> Arc<Self> {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        Arc::new(Self { kinds, ..Self::new(|_, events| Ok(count(events))) })
    }

    pub(super) fn broken() -> Arc<Self> {
        Arc::new(Self { ready: false, kinds: Vec::new(), ..Self::new(|_, events| Ok(count(events))) })
    }

    /// Host and number of everything that it took, in order.
    pub(super) fn told(&self) -> Vec<(u64, u64)> {
        self.told.lock().unwrap().iter().map(|event| (host(event), event.host_seq)).collect()
    }

    pub(super) fn told_of(&self, id: u64) -> Vec<u64> {
        self.told().into_iter().filter(|(host, _)| *host == id).map(|(_, seq)| seq).collect()
    }

    pub(super) fn events(&self) -> Vec<hooks::Event> {
        self.told.lock().unwrap().clone()
    }

    pub(super) fn calls(&self) -> Vec<(Call, Vec<hooks::Event>)> {
        self.calls.lock().unwrap().clone()
    }
}

pub(super) fn count(events: &[hooks::Event]) -> u32 {
    u32::try_from(events.len()).unwrap()
}

pub(super) fn host(event: &hooks::Event) -> u64 {
    event.detail["host_id"].as_u64().unwrap()
}

impl Plugin for Listener {
    fn name(&self) -> &str {
        &self.name
    }
    fn hooks(&self) -> HookSet {
        HookSet::from([Hook::Events])
    }
    fn status(&self) -> PluginStatus {
        let origin = "test".to_owned();
        match self.ready {
            true => PluginStatus::Ready { version: "1".into(), origin, digest: String::new() },
            false => PluginStatus::Unavailable { why: "it does not load".into(), origin },
        }
    }
    fn about(&self) -> About {
        About { events: self.kinds.clone(), ..About::default() }
    }
    fn handle<'a>(&'a self, call: &'a Call, events: &'a [hooks::Event]) -> BoxFuture<'a, Reply<u32>> {
        async {
            self.calls.lock().unwrap().push((call.clone(), events.to_vec()));
            let _open = self.gate.read().await;
            let result = (self.answer)(call, events);
            if let Ok(done) = result {
                self.told.lock().unwrap().extend(events.iter().take(done as usize).cloned());
            }
            Reply::from(result)
        }
        .boxed()
    }
}

pub(super) const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 8 << 20, min_free_bytes: 0 };

pub(super) const QUICK: Pace = Pace {
    first_pause: Duration::from_millis(10),
    longest_pause: Duration::from_millis(50),
    most_faults: 4,
    cursor_every: Duration::from_millis(10),
    most_parked: 1_000,
    most_letters: 10_000,
    trim_every: Duration::from_millis(50),
};

pub(super) struct Site {
    pub(super) service: Arc<Service>,
    stop: CancellationToken,
    plugins: Option<JoinHandle<()>>,
    machines: AtomicU64,
    _images: tempfile::TempDir,
}

impl Site {
    /// With plugins that are told of events; nothing runs yet.
    pub(super) fn new(store: Store, bindings: Vec<Binding>) -> Self {
        Self::with(store, bindings, QUICK)
    }

    pub(super) fn with(store: Store, bindings: Vec<Binding>, pace: Pace) -> Self {
        let images = tempfile::tempdir().unwrap();
        let catalogue = Arc::new(Catalogue::new(images.path()));
        let renderer = Arc::new(Renderer::new(None));
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
        let hooks = hooks(bindings);
        let mut service = Service::new(store, hooks, catalogue, renderer, Arc::new(SystemClock), settings);
        service.outbox.pace = pace;
        let (service, stop) = (Arc::new(service), CancellationToken::new());
        Self { service, stop, plugins: None, machines: AtomicU64::new(0), _images: images }
    }

    pub(super) fn bound(store: Store, plugin: &Arc<Listener>) -> Self {
        Self::new(store, vec![Binding::new(plugin.clone())])
    }

    pub(super) async fn start(&mut self) {
        self.plugins = Some(tokio::spawn(Arc::clone(&self.service).run_plugins(self.stop.clone())));
        for plugin in self.plugins() {
            until("its dispatcher has begun", || *lock(&self.service.outbox.desk(&plugin).mode) != Mode::Stopped).await;
        }
    }

    /// Stops as a server does.
    pub(super) async fn stop(mut self) -> Arc<Service> {
        self.stop.cancel();
        self.plugins.take().unwrap().await.unwrap();
        self.service
    }

    fn plugins(&self) -> Vec<String> {
        self.service.hooks().asked(Hook::Events).map(|binding| binding.plugin.name().to_owned()).collect()
    }

    /// A new host; its first event is 1.
    pub(super) async fn host(&self) -> Host {
        let number = self.machines.fetch_add(1, Ordering::Relaxed) + 1;
        let identity = Identity { serial: format!("SN{number:05}").parse().ok(), ..Identity::default() };
        let found = self.service.store.candidates(&identity).await.unwrap();
        let registration = Registration {
            identity,
            hardware: Hardware::default(),
            hostname: None,
            states: States::new_host(),
            metadata: Metadata::parse(&format!(r#"{{"site":"fra{number}"}}"#)).unwrap(),
            why: "a test".into(),
        };
        let now = self.service.now();
        let build = |id| domain::register(id, registration, Actor::Machine, now);
        self.service.store.register(&found, build).await.unwrap()
    }

    pub(super) async fn note(&self, host: &Host) -> Host {
        self.note_by(host, Actor::Machine).await
    }

    pub(super) async fn note_by(&self, host: &Host, actor: Actor) -> Host {
        let kind = EventKind::ForeignBoot { from: [10, 0, 0, 9].into() };
        let change = domain::note(host, kind, actor, self.service.now());
        self.service.store.commit(host, change).await.unwrap()
    }

    pub(super) async fn notes(&self, mut host: Host, count: u64) -> Host {
        for _ in 0..count {
            host = self.note(&host).await;
        }
        host
    }

    pub(super) async fn forget(&self, host: &Host) {
        let change = domain::forget(host, Actor::Server, self.service.now());
        self.service.store.forget(host, change).await.unwrap();
    }

    pub(super) async fn state(&self) -> OutboxState {
        self.service.outbox_state().await.unwrap().remove(0)
    }

    /// Waits until everything that happened is told, parked or a dead letter, and written down.
    pub(super) async fn quiet(&self) {
        for _ in 0..1_000 {
            let state = self.state().await;
            if state.behind == Some(0) && state.mode == Mode::Following && state.parked.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not quiet: {:?}", self.state().await);
    }

    pub(super) async fn timeline(&self, host: &Host) -> Vec<Event> {
        self.service.store.events(host.id, 0, 1_000).await.unwrap()
    }
}

pub(super) fn hooks(bindings: Vec<Binding>) -> Hooks {
    let catalogue = Arc::new(Catalogue::new(Path::new("/nonexistent")));
    let shelf = Arc::new(Shelf::new(catalogue, Arc::new(Renderer::new(None))));
    Hooks::new(bindings, Arc::new(NativeDefault::new(shelf, false)))
}
