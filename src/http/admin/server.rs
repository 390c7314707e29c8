//! Serves the admin plane until it is told to end.

use std::io;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::service::{Roster, Service};

use super::{About, Peer, router};

/// Serves the admin plane on a socket until `shutdown` is cancelled; then requests under way go on to their end, and
/// event streams end.
pub async fn serve(
    listener: UnixListener,
    service: Arc<Service>,
    roster: Arc<dyn Roster>,
    about: About,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = router(service, roster, about, shutdown.clone()).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}
