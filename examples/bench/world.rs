//! A server that knows a number of hosts, and beside it a store that knows the same ones.
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::BoxFuture;
use kiwispray::domain::Ignore;
use kiwispray::hooks::native::NativeDefault;
use kiwispray::hooks::{
    BootDecision, BootRequest, Call, DiscoveryDecision, HookSet, Hooks, Plugin, PluginStatus, Reply,
};
use kiwispray::http::boot;
use kiwispray::images::{Catalogue, LocalBoot};
use kiwispray::plugin_host::PluginHost;
use kiwispray::render::Renderer;
use kiwispray::service::{Service, Settings, Shelf, SystemClock};
use kiwispray::store::{Store, StoreOptions};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::machines::{self, IMAGE};

/// Everything that is measured at one number of hosts.
pub(crate) struct World {
    pub(crate) hosts: u64,
    /// Where the boot plane listens.
    pub(crate) address: SocketAddr,
    /// A store with the same hosts as the server's.
    pub(crate) bare_store: Arc<Store>,
    service: Arc<Service>,
    plugins: Arc<TwoPlugins>,
    stop: CancellationToken,
    serving: JoinHandle<boot::Transfers>,
}

/// Which form of the default plugin decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decider {
    /// The component, as shipped.
    Wasm,
    /// Its native double.
    Native,
}

impl World {
    /// Fills a store in `folder`, which is emptied first, and starts a server over it.
    pub(crate) async fn build(folder: &Path, hosts: u64) -> Result<Self> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        make_image(&folder.join("images").join(IMAGE))?;
        let (served, bare) = (folder.join("store"), folder.join("bare-store"));
        let store = Store::open(&served, &StoreOptions::default()).await?;
        machines::register_all(&store, hosts).await?;
        store.close().await;
        drop(store);
        copy_folder(&served, &bare)?;

        let catalogue = Arc::new(Catalogue::new(folder.join("images")));
        let renderer = Arc::new(Renderer::new(Some(folder.join("templates"))));
        let plugins =
            Arc::new(TwoPlugins::load(Shelf::new(Arc::clone(&catalogue), Arc::clone(&renderer)), folder).await?);
        let store = Store::open(&served, &StoreOptions::default()).await?;
        let hooks = Hooks::new(Vec::new(), Arc::clone(&plugins) as Arc<dyn Plugin>);
        let service = Arc::new(Service::new(store, hooks, catalogue, renderer, Arc::new(SystemClock), settings()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let limits = boot::Limits {
            header_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            most_connections: 1_024,
        };
        let plane = boot::BootPlane { service: Arc::clone(&service), ipxe_dir: None };
        let serving = tokio::spawn(boot::serve(listener, boot::router(plane), limits, stop.clone()));
        let bare_store = Arc::new(Store::open(&bare, &StoreOptions::default()).await?);
        Ok(Self { hosts, address, bare_store, service, plugins, stop, serving })
    }

    /// Lets this form of the plugin decide from now on.
    pub(crate) fn decide_by(&self, decider: Decider) {
        self.plugins.native_decides.store(decider == Decider::Native, Ordering::Relaxed);
    }

    /// Stops the server and closes the stores.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        // It ends by itself; a panic of it has been seen by the clients.
        let _ = self.serving.await;
        self.service.close().await;
        self.bare_store.close().await;
    }
}

fn settings() -> Settings {
    Settings {
        public_url: None,
        most_attempts: 3,
        again_s: (3, 30),
        new_hosts_per_minute: None,
        reinstalls_per_hour: 10,
        open_state: false,
        open_hosts: false,
        local: LocalBoot::Exit,
        ignore: Ignore::new([]),
    }
}

/// An image that writes a disk: booting it is an order and needs the whole of the promises.
fn make_image(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let manifest = "kind = \"linux\"\nkernel = \"vmlinuz\"\ninitrd = \"initrd\"\nappend = \"quiet\"\n\
                    writes = \"disk\"\ndevice = \"first\"\n";
    std::fs::write(folder.join("image.toml"), manifest)?;
    std::fs::write(folder.join("vmlinuz"), "kernel")?;
    std::fs::write(folder.join("initrd"), "initrd")?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).with_context(|| format!("cannot copy to {}", target.display()))?;
        }
    }
    Ok(())
}

/// The default plugin twice, of which one decides.
struct TwoPlugins {
    wasm: Arc<dyn Plugin>,
    native: NativeDefault,
    native_decides: AtomicBool,
}

impl TwoPlugins {
    async fn load(shelf: Shelf, folder: &Path) -> Result<Self> {
        let shelf = Arc::new(shelf);
        let host = PluginHost::new(shelf.clone())?;
        let config = serde_json::json!({ "discover": false });
        let wasm = host.load_default(Some(&folder.join("plugins")), config).await;
        if let PluginStatus::Unavailable { why, .. } = wasm.status() {
            bail!("the default plugin does not work: {why}");
        }
        Ok(Self { wasm, native: NativeDefault::new(shelf, false), native_decides: AtomicBool::new(false) })
    }

    fn decider(&self) -> &dyn Plugin {
        if self.native_decides.load(Ordering::Relaxed) { &self.native } else { &*self.wasm }
    }
}

impl Plugin for TwoPlugins {
    fn name(&self) -> &str {
        self.decider().name()
    }

    fn hooks(&self) -> HookSet {
        self.decider().hooks()
    }

    fn status(&self) -> PluginStatus {
        self.decider().status()
    }

    fn decide<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        self.decider().decide(call, request)
    }

    fn discovered<'a>(&'a self, call: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        self.decider().discovered(call, request)
    }
}
