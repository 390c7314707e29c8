//! What plugins cost, as ratios within one run. Run it by `cargo xtask bench plugins`.
//!
//! Everything takes turns, round after round, so that whatever else the machine does befalls all of it alike; a figure is the
//! median over rounds of a round's mean.
mod bare;
#[path = "../../tests/support/guest.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it belongs to the tests, and of its guests one is measured")]
mod guest;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use kiwispray::hooks::native::NativeDefault;
use kiwispray::hooks::{
    Binding, BootAnswer, BootRequest, Call, Capabilities, CapabilityError, Grants, Hooks, KnownHost, Plugin, Run,
};
use kiwispray::plugin_host::{Component, Interface, PluginHost};
use serde_json::{Map, json};

use bare::Bare;

/// The server's own, see `src/main.rs`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEFAULT: &[u8] = include_bytes!("../../plugins/default/default.wasm");
/// Plugins that are loaded from the cache at once.
const MANY: usize = 50;

/// Measure what plugins cost.
#[derive(Parser)]
struct Arguments {
    /// Folder for compiled code, emptied first.
    folder: PathBuf,
    /// How often each thing is measured.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// How many calls each time.
    #[arg(long, default_value_t = 2_000)]
    calls: u32,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    tokio::runtime::Runtime::new()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let _ = fs::remove_dir_all(&arguments.folder);
    fs::create_dir_all(&arguments.folder)?;
    let host = host(arguments)?;
    let request = request();
    let metadata = serde_json::to_string(&request.host.metadata)?;
    let bare = Bare::new(host.engine(), DEFAULT, bare::request(7, "web", &metadata, &request.facts))?;
    let whole = Hooks::new(Vec::new(), load(&host, "default", DEFAULT).await?);
    let passing = guest::deciding_by("");
    let (one, five) = (chain(&host, &passing, 1).await?, chain(&host, &passing, 5).await?);

    let mut rounds: [Vec<Duration>; 4] = Default::default();
    for round in 0..=arguments.rounds {
        let took = [
            timed(arguments.calls, || bare.decide()).await?,
            timed(arguments.calls, || decide(&whole, &request)).await?,
            timed(arguments.calls, || decide(&one, &request)).await?,
            timed(arguments.calls, || decide(&five, &request)).await?,
        ];
        // The first round warms up and is not counted.
        if round > 0 {
            rounds.iter_mut().zip(took).for_each(|(all, one)| all.push(one));
        }
    }
    let [bare, whole, one, five] = rounds.map(median);
    println!("boot.decide, microseconds a call (median of {} rounds of {}):", arguments.rounds, arguments.calls);
    for (what, took) in [
        ("the default plugin on bare wasmtime, fresh instance", bare),
        ("the default plugin through the whole chain", whole),
        ("a chain of one plugin that passes, and a native default", one),
        ("a chain of five plugins that pass, and a native default", five),
    ] {
        println!("  {:>7.1}  {what}", took.as_secs_f64() * 1e6);
    }
    let loaded = load_many(arguments, &passing).await?;
    println!("\nratios and bounds:");
    let good = [
        bound("whole chain / bare wasmtime", whole.as_secs_f64() / bare.as_secs_f64(), 1.3, ""),
        bound("five plugins / one", five.as_secs_f64() / one.as_secs_f64(), 5.5, ""),
        bound(&format!("{MANY} plugins loaded from the cache"), loaded.as_secs_f64(), 0.5, " s"),
    ];
    fs::remove_dir_all(&arguments.folder)?;
    Ok(if good.iter().all(|good| *good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn host(arguments: &Arguments) -> Result<PluginHost> {
    Ok(PluginHost::new(Arc::new(Catalog))?.with_cache(&arguments.folder.join("cache")))
}

fn bound(what: &str, found: f64, most: f64, unit: &str) -> bool {
    let verdict = if found <= most { "reached" } else { "MISSED" };
    println!("  {found:>7.2}{unit:<2}  at most {most}{unit:<2}  {verdict:<7}  {what}");
    found <= most
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

async fn timed<F: Future<Output = Result<()>>>(calls: u32, mut call: impl FnMut() -> F) -> Result<Duration> {
    let begun = Instant::now();
    for _ in 0..calls {
        call().await?;
    }
    Ok(begun.elapsed() / calls)
}

async fn decide(hooks: &Hooks, request: &BootRequest) -> Result<()> {
    let call = Call::new("bench", 1_700_000_000_000, Run::Real);
    let outcome = hooks.decide_boot(call, request.clone()).await;
    ensure!(matches!(outcome.answer, BootAnswer::Boot(_)), "the plugin did not boot: {}", outcome.trace);
    Ok(())
}

async fn load(host: &PluginHost, name: &str, bytes: &[u8]) -> Result<Arc<dyn Plugin>> {
    let component = Component {
        name: name.to_owned(),
        origin: "bench".to_owned(),
        bytes: bytes.to_vec(),
        imports: Interface::ALL.into_iter().collect(),
        grants: Grants::default(),
        config: json!({}),
        ..Component::default()
    };
    host.load(component).await.with_context(|| name.to_owned())
}

async fn chain(host: &PluginHost, component: &[u8], plugins: usize) -> Result<Hooks> {
    let mut bindings = Vec::new();
    for number in 0..plugins {
        bindings.push(Binding::new(load(host, &format!("passes-{number}"), component).await?));
    }
    Ok(Hooks::new(bindings, Arc::new(NativeDefault::new(Arc::new(Catalog), false))))
}

/// How long a server that starts takes to load many different plugins that it has compiled before.
async fn load_many(arguments: &Arguments, component: &[u8]) -> Result<Duration> {
    // A custom section more makes another digest.
    let different = |number: usize| [component, &[0, 2, 1, u8::try_from(number).unwrap_or(u8::MAX)]].concat();
    let components: Vec<Vec<u8>> = (0..MANY).map(different).collect();
    let mut took = Vec::new();
    for round in 0..6 {
        let host = host(arguments)?;
        let begun = Instant::now();
        for (number, component) in components.iter().enumerate() {
            load(&host, &format!("plugin-{number}"), component).await?;
        }
        // The first round compiles.
        if round > 0 {
            took.push(begun.elapsed());
        } else {
            println!("\n{MANY} plugins compiled and loaded in {:.2?}, from the cache in …", begun.elapsed());
        }
    }
    Ok(median(took))
}

/// A host with some metadata, as the server describes it.
fn request() -> BootRequest {
    let metadata =
        json!({ "site": "fra1", "rack": 7, "role": "web", "owner": { "team": "platform", "mail": "a@example.org" } });
    let metadata = metadata.as_object().cloned().unwrap_or_default();
    let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    BootRequest {
        host: KnownHost {
            id: 7,
            revision: 3,
            hostname: Some("node7".to_owned()),
            serial: "S7".to_owned(),
            uuid: "4c4c4544-0000-1000-8000-000000000007".to_owned(),
            macs: vec!["52:54:00:00:00:07".to_owned()],
            states: vec!["web".to_owned()],
            attempts: 1,
            metadata,
            more: Map::new(),
        },
        facts: vec![fact("platform", "efi"), fact("manufacturer", "Example"), fact("product", "Server 1")],
    }
}

/// Answers at once.
struct Catalog;

impl Capabilities for Catalog {
    fn has_image<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        std::future::ready(Ok(true)).boxed()
    }
    fn has_template<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        std::future::ready(Ok(false)).boxed()
    }
    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>> {
        std::future::ready(Ok(vec!["web".to_owned()])).boxed()
    }
}
