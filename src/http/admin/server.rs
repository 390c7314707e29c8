//! Serves the admin plane until it is told to end.

use std::io;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{About, Peer, People, router};

/// Serves the admin plane on a socket until `shutdown` is cancelled; then requests under way go on to their end, and
/// event streams end.
pub async fn serve(
    listener: UnixListener,
    people: People,
    about: About,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = router(people, about, shutdown.clone()).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}
