//! The composition root: builds the world from a configuration, runs it until shutdown, takes it down in order.
//!
//! Invariant: nothing touches the disk before the address is bound, no machine is answered before the store is open, and
//! whatever else is missing or broken (plugins, templates, images, dnsmasq) only degrades what depends on it.

pub mod inherited;
mod leave;
mod ready;
mod reload;
mod takeover;

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DnsmasqConfig, STORE_FOLDER, Source};
use crate::dnsmasq::{self, IpxeFiles};
use crate::domain::Ignore;
use crate::hooks::{Absent, Capabilities, Hooks, PluginStatus};
use crate::http::{admin, boot};
use crate::images::{self, Catalogue};
use crate::plugin_host::PluginHost;
use crate::render::{BaseUrl, Renderer};
use crate::roster::LiveRoster;
use crate::service::{Clock as _, Member, PluginCore, Roster, Service, Settings, Shelf, SystemClock};
use crate::store::{Store, StoreOptions};

use leave::{Signals, Stop, Successor};
use reload::LiveConfig;

/// Connections of machines at a time. A rack's worth of installers opens a few hundred.
const MOST_CONNECTIONS: usize = 8_192;

/// File descriptors that are kept for everything but machines: store, admin plane, imports.
const OTHER_DESCRIPTORS: u64 = 200;

/// How long the folder of images may take to be looked at before the start goes on without it.
const IMAGES_WITHIN: Duration = Duration::from_secs(2);

/// How long people's requests and plugins may take for their ends.
const PLANES_WITHIN: Duration = Duration::from_secs(5);

/// Runs a server until it is told to stop, or its store fails. Transfers stream on for a while when address and store
/// are already the next server's. `inherited` is the socket that a service manager handed over.
///
/// # Errors
/// What kept it from starting or made it stop, with the remedy where there is one.
pub async fn serve(config: Config, source: Source, inherited: Option<std::net::TcpListener>) -> anyhow::Result<()> {
    // Before anything that takes time: unheard, a hangup would end the server in the middle of its start.
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    config.check_data_dir()?;
    let listener = takeover::listen(config.listen, inherited).await?;
    let address = listener.local_addr().context("cannot tell the address listened on")?;
    make_folder(&config.data_dir, 0o750)?;
    let (folder, options) = (config.data_dir.join(STORE_FOLDER), store_options(&config));
    let store = takeover::open_store(&folder, &options).await?;
    prepare_images(&config.images_dir).await;
    if store.is_quarantined() {
        tracing::warn!("a backup was restored: nothing writes a disk until it is released, see `kiwispray release`");
    }
    if let Some(freeze) = store.frozen().await.context("cannot tell whether the store is frozen")? {
        tracing::warn!("frozen {freeze} - no image that writes a disk is booted until `kiwispray thaw`");
    }
    let ipxe = IpxeFiles::find(config.ipxe_dir.as_deref());
    let (service, host) = build(&config, store);
    let again = source.clone();
    let roster = LiveRoster::new(source, &config, host, Arc::clone(&service));
    roster.start(&config).await;
    let stop = CancellationToken::new();
    let (admin_listener, admin_socket) = admin::bind(&config.data_dir, config.admin_group.as_deref())?;
    // Before there is a child that would be left alone, and before anybody is answered: unheard, a signal would end the
    // server like a kill.
    let mut signals = Signals::listen()?;
    let mut dnsmasq = match &config.dnsmasq {
        Some(wanted) => Some(start_dnsmasq(wanted, &config, address.port(), ipxe.clone()).await?),
        None => None,
    };

    let plane =
        boot::BootPlane { service: Arc::clone(&service), ipxe_dir: ipxe.directory.as_deref().map(Arc::<Path>::from) };
    let limits = boot::Limits {
        header_timeout: config.boot.header_timeout,
        idle_timeout: config.boot.idle_timeout,
        most_connections: most_connections(),
    };
    let machines = tokio::spawn(boot::serve(listener, boot::router(plane), limits, stop.clone()));
    let mut planes = JoinSet::new();
    let about = admin::About {
        listen: vec![address.to_string()],
        data_dir: config.data_dir.clone(),
        templates_dir: config.templates_dir.clone(),
        config_dir: config.config_dir.clone(),
        started_at: service.now(),
        base: base_url(&config, address),
    };
    planes.spawn(Arc::clone(&service).run_plugins(stop.clone()));
    let plugins: Arc<dyn Roster> = Arc::new(roster);
    let live = Arc::new(LiveConfig::new(again, config.clone(), Arc::clone(&service), Arc::clone(&plugins)));
    let people = admin::People { service: Arc::clone(&service), roster: Arc::clone(&plugins), reloader: live.clone() };
    planes.spawn(admin_plane(admin_listener, people, about, stop.clone()));
    planes.spawn(live.listen(hangups, stop.clone()));
    greet(&config, address, &ipxe, &plugins.members());
    ready::tell();

    let why = signals.stop(&service).await;
    tracing::info!(%why, "stopping");
    stop.cancel();
    let ending = async {
        let planes = timeout(PLANES_WITHIN, async { while planes.join_next().await.is_some() {} });
        let (transfers, _) = tokio::join!(machines, planes);
        if let Some(child) = dnsmasq.take() {
            child.stop().await;
        }
        transfers
    };
    let transfers = tokio::select! {
        transfers = ending => transfers.ok(),
        () = signals.next() => None,
    };
    // While the store is still this server's: so it cannot be the next one's socket.
    let _ = std::fs::remove_file(&admin_socket);
    service.release(Arc::new(Successor::new(admin_socket.clone(), folder, options))).await;
    match (why, transfers) {
        (Stop::StoreFailed(reason), _) => anyhow::bail!("the store stopped: {reason}"),
        (Stop::Asked, Some(transfers)) => {
            tokio::select! {
                () = leave::stream_on(&service, &transfers, admin_socket, config.boot.drain) => {}
                () = signals.next() => tracing::warn!(connections = transfers.count(), "told twice: transfers are cut"),
            }
        }
        (Stop::Asked, None) => tracing::warn!("told twice: ending at once"),
    }
    Ok(())
}

async fn admin_plane(listener: UnixListener, people: admin::People, about: admin::About, stop: CancellationToken) {
    if let Err(error) = admin::serve(listener, people, about, stop).await {
        tracing::error!(%error, "the admin plane ended; machines are still answered");
    }
}

/// As many connections as there are descriptors for: each may have a file open. The soft limit, which is meant for
/// programs that use `select`, is raised first.
fn most_connections() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, ..limits };
    let descriptors = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        Err(_) => limits.current,
    };
    let room = descriptors.map_or(u64::MAX, |most| most.saturating_sub(OTHER_DESCRIPTORS) / 2);
    usize::try_from(room).unwrap_or(MOST_CONNECTIONS).clamp(16, MOST_CONNECTIONS)
}

fn make_folder(folder: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .with_context(|| format!("cannot create {}: run as a user who may, or name another folder", folder.display()))
}

/// Makes the folder of images if there is none, and removes what interrupted imports left. It may be on a disk that is away,
/// hangs or is read-only: who needs an image from there waits, and finished machines boot all the same.
async fn prepare_images(folder: &Path) {
    let images = folder.to_owned();
    let prepared = tokio::task::spawn_blocking(move || {
        make_folder(&images, 0o755)?;
        images::clean(&images).context("cannot remove what interrupted imports left")
    });
    let why = match timeout(IMAGES_WITHIN, prepared).await {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(error))) => format!("{error:#}"),
        Ok(Err(_)) | Err(_) => "its disk does not answer".to_owned(),
    };
    tracing::error!(folder = %folder.display(), why, "there is something wrong with the folder of images");
}

fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        cache_bytes: u64::from(config.store.cache_mb) << 20,
        min_free_bytes: u64::from(config.store.free_space_floor_mb) << 20,
    }
}

/// Puts the use cases over their parts.
fn build(config: &Config, store: Store) -> (Arc<Service>, Result<PluginHost, String>) {
    let floor_bytes = store_options(config).min_free_bytes;
    let catalogue = Arc::new(Catalogue::new(&config.images_dir).keeping_free(floor_bytes));
    let renderer = Arc::new(Renderer::new(Some(config.templates_dir.clone())));
    for problem in renderer.check_all() {
        tracing::warn!(template = problem.template, error = %problem.error, "a template cannot be used");
    }
    let shelf = Shelf::new(Arc::clone(&catalogue), Arc::clone(&renderer));
    if config.discover && !shelf.has_image("discover") {
        tracing::warn!("--discover is set, but there is no image discover: unknown machines will hold");
    }
    let core = Arc::new(PluginCore::new(shelf));
    let host = PluginHost::new(Arc::clone(&core) as Arc<dyn Capabilities>);
    let code = config.data_dir.join("plugin-code");
    let host = host.map(|host| host.with_cache(&code).with_clock(now_ms)).map_err(|error| error.to_string());
    if let Err(why) = &host {
        tracing::error!(why, "plugins cannot run: machines that wait will hold");
    }
    // Nobody asks before the roster has bound what there is.
    let hooks = Hooks::new(Vec::new(), Arc::new(Absent));
    let service = Arc::new(Service::new(store, hooks, catalogue, renderer, Arc::new(SystemClock), settings(config)));
    core.attach(&service);
    (service, host)
}

/// What the use cases are told by a configuration.
fn settings(config: &Config) -> Settings {
    Settings {
        public_url: config.public_url.clone(),
        most_attempts: config.boot.attempts,
        again_s: (config.boot.again_s_min, config.boot.again_s_max),
        new_hosts_per_minute: config.limits.new_hosts_per_minute,
        reinstalls_per_hour: config.limits.reinstalls_per_hour,
        open_state: config.boot.open_state,
        open_hosts: config.boot.open_hosts,
        local: config.boot.local,
        ignore: Ignore::new(config.identity_ignore.iter().map(String::as_str)),
    }
}

fn now_ms() -> u64 {
    u64::try_from(SystemClock.now().as_millisecond()).unwrap_or_default()
}

/// Looks for other DHCP servers, decides, and starts dnsmasq as a child that is restarted when it dies.
async fn start_dnsmasq(
    wanted: &DnsmasqConfig,
    config: &Config,
    port: u16,
    ipxe: IpxeFiles,
) -> anyhow::Result<dnsmasq::Child> {
    let interface = dnsmasq::Interface::find(&wanted.interface)?;
    let mut transaction = [0; 4];
    getrandom::fill(&mut transaction).context("no randomness for a DHCP request")?;
    let transaction = u32::from_le_bytes(transaction);
    let probed = interface.clone();
    tracing::info!(interface = interface.name(), "looking for other DHCP servers");
    let seen = tokio::task::spawn_blocking(move || dnsmasq::probe(&probed, transaction)).await??;
    let decision = dnsmasq::decide(wanted.wish.clone(), &interface, &seen)?;
    if let Some(warning) = &decision.warning {
        tracing::warn!("{warning}");
    }
    let public_url =
        config.public_url.clone().unwrap_or_else(|| BaseUrl::of_address((interface.address(), port).into()));
    let child_config = dnsmasq::Config {
        interface,
        mode: decision.mode,
        public_url: public_url.to_string(),
        ipxe,
        data_dir: config.data_dir.clone(),
        account: dnsmasq::Account::of_this_process(),
    };
    Ok(dnsmasq::Child::start(&child_config).await?)
}

/// The URL of this server as far as it is known without a request.
fn base_url(config: &Config, address: SocketAddr) -> BaseUrl {
    config.public_url.clone().unwrap_or_else(|| BaseUrl::of_address(address))
}

/// Says where everything is, and what to do next.
fn greet(config: &Config, address: SocketAddr, ipxe: &IpxeFiles, plugins: &[Member]) {
    let base = base_url(config, address);
    anstream::println!("kiwispray {} answers machines at {base}/bootstrap.ipxe", env!("CARGO_PKG_VERSION"));
    anstream::println!("  listens    {address}");
    anstream::println!("  data       {}", config.data_dir.display());
    anstream::println!("  images     {}", config.images_dir.display());
    for Member { name, status, .. } in plugins {
        match status {
            PluginStatus::Ready { version, .. } => anstream::println!("  plugin     {name} {version}"),
            PluginStatus::Degraded { version, why, .. } => {
                anstream::println!("  plugin     {name} {version}, an earlier one, as the present one {why}");
            }
            PluginStatus::Disabled => anstream::println!("  plugin     {name} is switched off"),
            PluginStatus::Unavailable { why, .. } => anstream::println!("  plugin     {name} is broken: {why}"),
        }
    }
    match (&config.dnsmasq, &ipxe.directory) {
        (Some(wanted), _) => anstream::println!("  dnsmasq    on {}", wanted.interface),
        (None, Some(_)) => {
            anstream::println!("  dnsmasq    not run by this server: kiwispray dnsmasq config --interface IF")
        }
        (None, None) => anstream::println!(
            "  dnsmasq    not run by this server, and no iPXE found: install ipxe or name --ipxe-dir"
        ),
    }
    anstream::println!(
        "Next: boot a machine and watch it with `kiwispray host watch`, or `kiwispray image import NAME FILE --device …`"
    );
}
