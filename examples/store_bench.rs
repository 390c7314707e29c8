//! How many boots per second the store takes: every one a recognition by index and a durable rotation of the bootid.
//!
//! `cargo run --release --example store_bench -- DIR [HOSTS [SECONDS [CACHE_MIB]]]`; figures of one run compare with
//! each other, not with those of another machine.
use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use kiwispray::{
    domain::{self, Actor, BootId, HostId, Identity, MacAddr, Metadata, Offer, Registration, States, Writes},
    store::{Store, StoreOptions},
};

type Failure = Box<dyn Error + Send + Sync>;

/// What a number of clients achieved.
struct Figures {
    per_second: f64,
    latencies_ms: Vec<f64>,
}

impl Figures {
    fn new(latencies_ms: Vec<f64>, elapsed: Duration) -> Self {
        let mut this = Self { per_second: latencies_ms.len() as f64 / elapsed.as_secs_f64(), latencies_ms };
        this.latencies_ms.sort_by(f64::total_cmp);
        this
    }

    fn at(&self, share: f64) -> f64 {
        let last = self.latencies_ms.len().saturating_sub(1);
        self.latencies_ms.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }

    fn print(&self, what: &str) {
        let Self { per_second, .. } = self;
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| self.at(share));
        println!("{what:<34} {per_second:>8.0}/s   p50 {p50:>7.3} ms   p99 {p99:>7.3} ms   max {most:>7.3} ms");
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map(PathBuf::from).ok_or("usage: store_bench DIR [HOSTS [SECONDS [CACHE_MIB]]]")?;
    let hosts = arguments.next().map_or(Ok(10_000), |hosts| hosts.parse())?;
    let seconds = arguments.next().map_or(Ok(5), |seconds| seconds.parse())?;
    let cache_mib: u64 = arguments.next().map_or(Ok(128), |cache_mib| cache_mib.parse())?;
    let options = StoreOptions { cache_bytes: cache_mib << 20, ..StoreOptions::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(dir, options, hosts, Duration::from_secs(seconds)))
}

async fn measure(dir: PathBuf, options: StoreOptions, hosts: u64, time: Duration) -> Result<(), Failure> {
    let begin = Instant::now();
    let store = Arc::new(Store::open(&dir, &options).await?);
    println!("opened in {:?}", begin.elapsed());
    fill(&store, hosts).await?;
    for clients in [1, 8, 64, 256] {
        rotations(&store, hosts, clients, time).await?.print(&format!("rotations, {clients} clients"));
    }
    for clients in [1, 64] {
        recognitions(&store, hosts, clients, time).await?.print(&format!("recognitions, {clients} clients"));
    }
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { rotations(&store, hosts, 64, time).await }
    });
    recognitions(&store, hosts, 8, time).await?.print("recognitions, 8, beside writers");
    writing.await??.print("rotations, 64, beside readers");
    let begin = Instant::now();
    store.close().await;
    println!("closed in {:?}", begin.elapsed());
    Ok(())
}

/// Registers the hosts that are missing, 256 at a time.
async fn fill(store: &Store, hosts: u64) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut first = 1_u64;
    while let Some(last) = store.hosts(first.checked_sub(1).map(HostId::new), 1_000).await?.last() {
        first = last.id.get() + 1;
    }
    let missing: Vec<u64> = (first..=hosts).collect();
    for numbers in missing.chunks(256) {
        try_join_all(numbers.iter().map(|number| register(store, *number))).await?;
    }
    let per_second = missing.len() as f64 / begin.elapsed().as_secs_f64();
    println!("{:<34} {per_second:>8.0}/s", format!("registrations, 256 clients ({})", missing.len()));
    Ok(())
}

fn identity(number: u64) -> Result<Identity, Failure> {
    let [.., a, b, c, d] = number.to_be_bytes();
    Ok(Identity {
        serial: Some(format!("CZJ{number:07}X").parse()?),
        uuid: Some(format!("4c4c4544-0051-3510-8052-{number:012x}").parse()?),
        macs: [MacAddr::new([0x52, 0x54, a, b, c, d]), MacAddr::new([0x52, 0x55, a, b, c, d])].into(),
    })
}

async fn register(store: &Store, number: u64) -> Result<(), Failure> {
    let registration = Registration {
        identity: identity(number)?,
        hardware: domain::Hardware { product: Some("PowerEdge R640".to_owned()), ..domain::Hardware::default() },
        hostname: None,
        states: "image1".parse::<States>()?,
        // About what a site remembers of a machine.
        metadata: Metadata::parse(&format!("{{\"site\":\"fra1\",\"notes\":\"{}\"}}", "inventory ".repeat(120)))?,
        why: "measured".to_owned(),
    };
    let candidates = store.candidates(&registration.identity).await?;
    let build = |id| domain::register(id, registration, Actor::Server, Timestamp::UNIX_EPOCH);
    store.register(&candidates, build).await?;
    Ok(())
}

/// Each client boots hosts of its own in turn: recognise, rotate, commit.
async fn rotations(store: &Arc<Store>, hosts: u64, clients: u64, time: Duration) -> Result<Figures, Failure> {
    run(store, clients, time, move |store, client, turn| async move {
        let number = 1 + (client + clients * (turn.wrapping_mul(7_919) % (hosts / clients).max(1))) % hosts;
        let found = store.candidates(&identity(number)?).await?;
        let host = found.hosts.first().ok_or("a host is missing")?;
        let bootid = BootId::new(host.id, (u128::from(turn) << 64 | u128::from(number)).to_be_bytes());
        let image = Some(host.states.current().clone());
        let offer = Offer { bootid, from: [10, 0, 0, 1].into(), image, writes: Writes::Disk };
        store.commit(host, domain::offer(host, offer, Timestamp::UNIX_EPOCH)).await?;
        Ok(())
    })
    .await
}

async fn recognitions(store: &Arc<Store>, hosts: u64, clients: u64, time: Duration) -> Result<Figures, Failure> {
    run(store, clients, time, move |store, client, turn| async move {
        let number = 1 + (client + clients * turn.wrapping_mul(7_919)) % hosts;
        let found = store.candidates(&identity(number)?).await?;
        if found.hosts.is_empty() { Err("a host is missing".into()) } else { Ok(()) }
    })
    .await
}

async fn run<F>(
    store: &Arc<Store>,
    clients: u64,
    time: Duration,
    request: impl Fn(Arc<Store>, u64, u64) -> F + Copy + Send + 'static,
) -> Result<Figures, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send,
{
    let begin = Instant::now();
    let tasks = (0..clients).map(|client| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut latencies_ms = Vec::new();
            let mut turn = 0;
            while begin.elapsed() < time {
                let asked = Instant::now();
                request(Arc::clone(&store), client, turn).await?;
                latencies_ms.push(asked.elapsed().as_secs_f64() * 1e3);
                turn += 1;
            }
            Ok::<_, Failure>(latencies_ms)
        })
    });
    let mut latencies_ms = Vec::new();
    for task in join_all(tasks).await {
        latencies_ms.extend(task??);
    }
    Ok(Figures::new(latencies_ms, begin.elapsed()))
}
