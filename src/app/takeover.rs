//! Taking over from the server before this one: its address and its store.
//!
//! Invariant: what another process holds is waited for, not taken, and not for ever: a second server that was started by
//! mistake ends.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::doctor::{PortHolder, port_holder};
use crate::store::{OpenError, Store, StoreOptions, sled};

/// How long the server before may take to let go of its address, and then of its store. It does so within five seconds,
/// even if machines wait for answers.
const PATIENCE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

/// Listens on the socket that was handed over, else on the address.
pub(super) async fn listen(
    address: SocketAddr,
    inherited: Option<std::net::TcpListener>,
) -> anyhow::Result<TcpListener> {
    if let Some(listener) = inherited {
        return TcpListener::from_std(listener).context("cannot use the socket of the service manager");
    }
    let begin = Instant::now();
    let mut waits = false;
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let cannot = || {
            format!("cannot listen on {address}: is another kiwispray running? Choose another address with --listen")
        };
        if error.kind() != io::ErrorKind::AddrInUse || begin.elapsed() > PATIENCE {
            return Err(error).with_context(cannot);
        }
        if !waits {
            let holder = tokio::task::spawn_blocking(move || port_holder(address.port())).await?;
            if let Some(PortHolder { program: Some(program), by }) = &holder
                && program != "kiwispray"
            {
                anyhow::bail!(
                    "cannot listen on {address}, {by}: end that program, or choose another address with --listen"
                );
            }
            let by = holder.map_or_else(|| "nobody any more".to_owned(), |holder| holder.by);
            tracing::warn!(%address, by, "waiting for the server that holds the address");
            waits = true;
        }
        sleep(PAUSE).await;
    }
}

/// Opens the store in a folder.
pub(super) async fn open_store(folder: &Path, options: &StoreOptions) -> anyhow::Result<Store> {
    let begin = Instant::now();
    let mut waits = false;
    loop {
        // Each try waits for a moment itself.
        match Store::open(folder, options).await {
            Err(error @ OpenError::Files(sled::OpenError::InUse { .. })) if begin.elapsed() < PATIENCE => {
                if !waits {
                    tracing::warn!(%error, "waiting for the server that has the store");
                    waits = true;
                }
            }
            opened => return opened.with_context(|| format!("cannot use the store in {}", folder.display())),
        }
    }
}
