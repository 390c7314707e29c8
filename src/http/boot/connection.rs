//! The accept loop of the boot plane. Firmware is slow, installers are busy for minutes, and some peers never say a word:
//! each connection has a time for its headers and a time in which some byte must move, and their number is bounded.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::idle::IdleStream;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The machine.
    pub remote: SocketAddr,
    /// This server, as the machine reached it.
    pub local: SocketAddr,
}

/// Bounds of the boot plane.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for the headers of a request, also for the next one on a connection that is kept open.
    pub header_timeout: Duration,
    /// Time in which a byte must move, in either direction.
    pub idle_timeout: Duration,
    /// Connections at a time; further ones wait in the kernel's queue.
    pub most_connections: usize,
}

/// Serves connections until `shutdown` is cancelled; then lets running requests end for a while.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.most_connections));
    let connections = TaskTracker::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a peer that left while it was queued: neither ends the server.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = connection(stream, remote, router.clone(), limits, shutdown.clone());
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("some transfers were still running at shutdown");
    }
}

/// How long running transfers may go on after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(5);

fn connection(
    stream: TcpStream,
    remote: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> {
    // Small answers go out at once: firmware waits for each of them.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr();
    async move {
        let Ok(local) = local else { return };
        let stream = IdleStream::new(stream, limits.idle_timeout);
        let peer = Peer { remote, local };
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let router = router.clone();
            async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%remote, %error, "a connection ended early");
        }
    }
}
