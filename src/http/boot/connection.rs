//! The accept loop of the boot plane. Firmware is slow, installers are busy for minutes, and some peers never say a word:
//! each connection has a time for its headers and a time in which some byte must move, and their number is bounded.

use std::convert::Infallible;
use std::future::Future;
use std::io;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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

/// What still streams when a plane has ended: bodies that need nothing but their open files.
#[derive(Debug)]
pub struct Transfers(TaskTracker);

impl Transfers {
    /// How many connections there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Resolves when the last one has ended.
    pub async fn ended(&self) {
        self.0.wait().await;
    }
}

/// How long machines that have just connected may take for their request when the server ends.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// How long requests may take for their answers when the server ends.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Connections that are taken from the kernel's queue at the end, at most.
const LAST_CONNECTIONS: usize = 1_024;

/// Serves connections until `shutdown` is cancelled, then lets go of the address and answers what was asked. Returns when
/// no request waits for its answer any more, while bodies of files stream on.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) -> Transfers {
    let slots = Arc::new(Semaphore::new(limits.most_connections));
    let plane = Connections { router, limits, shutdown, all: TaskTracker::new(), asking: TaskTracker::new() };
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = plane.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, remote, slot)) => plane.serve(stream, remote, Some(slot)),
            Err(error) => {
                // Out of descriptors, or a peer that left while it was queued: neither ends the server.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    plane.accept_the_last(listener);
    plane.all.close();
    plane.asking.close();
    if tokio::time::timeout(LAST_ANSWERS, plane.asking.wait()).await.is_err() {
        tracing::warn!("some requests were not answered before the end");
    }
    Transfers(plane.all)
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    Ok((stream, remote, slot))
}

/// The connections of the plane.
struct Connections {
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    all: TaskTracker,
    /// Who has asked and was not answered, or has not asked yet.
    asking: TaskTracker,
}

impl Connections {
    /// Closing a socket resets whoever is in its queue, and machines have done nothing to deserve that.
    fn accept_the_last(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..LAST_CONNECTIONS {
            let Ok((stream, remote)) = listener.accept() else { return };
            if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                self.serve(stream, remote, None);
            }
        }
    }

    fn serve(&self, stream: TcpStream, remote: SocketAddr, slot: Option<OwnedSemaphorePermit>) {
        let connection = self.connection(stream, remote);
        self.all.spawn(async move {
            connection.await;
            drop(slot);
        });
    }

    fn connection(&self, stream: TcpStream, remote: SocketAddr) -> impl Future<Output = ()> + use<> {
        // Small answers go out at once: firmware waits for each of them.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr();
        let (router, limits, shutdown) = (self.router.clone(), self.limits, self.shutdown.clone());
        let (asking, newcomer) = (self.asking.clone(), self.asking.token());
        async move {
            let Ok(local) = local else { return };
            let stream = IdleStream::new(stream, limits.idle_timeout);
            let peer = Peer { remote, local };
            let has_asked = CancellationToken::new();
            let asked = has_asked.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                let (router, asking) = (router.clone(), asking.token());
                asked.cancel();
                async move {
                    let answer = router.oneshot(request).await.unwrap_or_else(|never| match never {});
                    drop(asking);
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_timeout)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ending = async {
                shutdown.cancelled().await;
                // Told to end before its first request, hyper would hang up on a machine that is about to ask.
                let _ = tokio::time::timeout(FIRST_REQUEST, has_asked.cancelled()).await;
            };
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = ending => {
                    drop(newcomer);
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%remote, %error, "a connection ended early");
            }
        }
    }
}
