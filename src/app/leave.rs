//! The end of a server: what it lets go of at once, and the transfers that it streams on.
//!
//! Invariant: what the next server needs (address, admin socket, store) is free within seconds, whatever machines do; and
//! no payload becomes whole on a machine unless that is durable in the store, whoever has it by then.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::domain::{FetchRefused, deliver};
use crate::http::admin;
use crate::http::boot::Transfers;
use crate::service::{Carried, Clock as _, Heir, Service, SystemClock};
use crate::store::{Store, StoreOptions, restore};

/// How long the next server may take to note that a payload was delivered, before its transfer is cut. Less than the
/// time in which a byte must move.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(45);
/// How long the next server may take for one answer.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// How long the store is left to the next server before this one looks whether nobody wants it.
const OTHERS_FIRST: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(250);
/// How often the next server hears what is streamed.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How often the log does.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// Answers on their way out are no transfers to speak of.
const LAST_BYTES: Duration = Duration::from_millis(300);

/// Why the server stops.
pub(super) enum Stop {
    Asked,
    StoreFailed(String),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => f.write_str("asked to"),
            Self::StoreFailed(_) => f.write_str("the store failed"),
        }
    }
}

/// The signals that end a server: the first gently, the second at once.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    pub(super) async fn stop(&mut self, service: &Service) -> Stop {
        tokio::select! {
            () = self.next() => Stop::Asked,
            reason = service.store_stopped() => Stop::StoreFailed(reason.to_string()),
        }
    }
}

/// Streams on until the last transfer has ended, for at most this long.
pub(super) async fn stream_on(service: &Service, transfers: &Transfers, socket: PathBuf, at_most: Duration) {
    if timeout(LAST_BYTES, transfers.ended()).await.is_ok() {
        return;
    }
    let told = tell_on(service, socket);
    let reported = report_on(service, transfers, at_most);
    let ended = async { timeout(at_most, transfers.ended()).await.is_ok() };
    let all = tokio::select! {
        all = ended => all,
        () = told => return,
        () = reported => return,
    };
    if all {
        tracing::info!("the last transfer has ended");
    } else {
        tracing::warn!(connections = transfers.count(), "some transfers took too long and are cut: boot.drain_s");
    }
}

/// Tells the next server what is streamed, so that it knows these hosts for busy.
async fn tell_on(service: &Service, socket: PathBuf) {
    loop {
        let streaming = service.streaming();
        let told = timeout(TOLD_WITHIN, admin::tell_streaming(&socket, streaming)).await;
        sleep(if matches!(told, Ok(Ok(()))) { TELL_EVERY } else { PAUSE }).await;
    }
}

async fn report_on(service: &Service, transfers: &Transfers, at_most: Duration) {
    loop {
        let files: Vec<String> = service
            .streaming()
            .iter()
            .map(|Carried { bootid, file, size_bytes, pieces }| {
                let delivered: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
                format!("{file} for host {}, {} %", bootid.host(), delivered.saturating_mul(100) / (*size_bytes).max(1))
            })
            .collect();
        let (connections, files) = (transfers.count(), files.join("; "));
        let at_most_s = at_most.as_secs();
        tracing::info!(connections, files, at_most_s, "let go of address and store; transfers stream on");
        sleep(REPORT_EVERY).await;
    }
}

/// Whoever has the store next: another server, or nobody.
pub(super) struct Successor {
    socket: PathBuf,
    folder: PathBuf,
    options: StoreOptions,
    since: Instant,
    /// One at a time opens the store that nobody wants.
    own: Mutex<()>,
}

impl Successor {
    /// Of a server that lets go of its store now.
    pub(super) fn new(socket: PathBuf, folder: PathBuf, options: StoreOptions) -> Self {
        Self { socket, folder, options, since: Instant::now(), own: Mutex::new(()) }
    }

    async fn hand_over(&self, carried: Carried) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            let told = timeout(TOLD_WITHIN, admin::tell_delivered(&self.socket, carried.clone())).await;
            let mut why = match told {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => anyhow::Error::from(error),
                Err(_) => anyhow::anyhow!("the next server does not answer"),
            };
            if self.since.elapsed() > OTHERS_FIRST {
                match self.write_down(&carried).await {
                    Ok(()) => return Ok(()),
                    Err(error) => why = error,
                }
            }
            if begin.elapsed() > HAND_OVER_WITHIN {
                let host = carried.bootid.host();
                tracing::error!(%host, why = format!("{why:#}"), "a transfer is cut before its end, as nobody can note it");
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Opens the store for a moment, if no other process has it.
    async fn write_down(&self, carried: &Carried) -> anyhow::Result<()> {
        let _own = self.own.lock().await;
        anyhow::ensure!(restore::is_used(&self.folder)?, "the store is gone");
        let store = Store::open(&self.folder, &self.options).await?;
        let written = note_delivered(&store, carried).await;
        store.release().await;
        written
    }
}

/// As `Service::delivered`, of a store that nobody else writes.
async fn note_delivered(store: &Store, Carried { bootid, file, .. }: &Carried) -> anyhow::Result<()> {
    let Some(host) = store.host(bootid.host()).await? else { return Ok(()) };
    match deliver(&host, bootid, file, SystemClock.now()) {
        Ok(Some(change)) => store.commit(&host, change).await.map(drop).map_err(Into::into),
        Ok(None) | Err(FetchRefused::Over) => Ok(()),
    }
}

impl Heir for Successor {
    fn delivered(&self, carried: Carried) -> BoxFuture<'_, io::Result<()>> {
        self.hand_over(carried).boxed()
    }
}
