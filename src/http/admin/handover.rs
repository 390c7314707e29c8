//! What a server that ends tells the one that has its store now, over the admin socket: both ends of it.
//!
//! Invariant: only a process of the same account is listened to, as what it says is believed: the group of the admin
//! socket may order machines to be installed, but not say that they are.

use std::io;
use std::ops::Range;
use std::path::Path;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::domain::BootIdError;
use crate::service::{Carried, HostsError};

use super::error::Refusal;
use super::{Peer, Shared};

/// Below `/api/v1`. Private: the two ends are of one program, though maybe of different versions.
pub(super) const STREAMING: &str = "/handover/streaming";
pub(super) const DELIVERED: &str = "/handover/delivered";

/// A file of a boot and how far it came.
#[derive(Serialize, Deserialize)]
pub(super) struct Transfer {
    bootid: String,
    file: String,
    size_bytes: u64,
    pieces: Vec<Range<u64>>,
}

impl Transfer {
    fn of(carried: Carried) -> Self {
        let Carried { bootid, file, size_bytes, pieces } = carried;
        Self { bootid: bootid.expose(), file, size_bytes, pieces }
    }

    fn carried(self) -> Result<Carried, Refusal> {
        let Self { bootid, file, size_bytes, pieces } = self;
        let bootid = bootid.parse().map_err(|error: BootIdError| Refusal::BadRequest(error.to_string()))?;
        Ok(Carried { bootid, file, size_bytes, pieces })
    }
}

/// Files that the server before streams on.
pub(super) async fn streaming(
    State(admin): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(transfers): Json<Vec<Transfer>>,
) -> Result<StatusCode, Refusal> {
    believed(&peer)?;
    for transfer in transfers {
        admin.service.carry(&transfer.carried()?).await.map_err(HostsError::from)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A payload is about to be delivered whole by the server before; it is durable when this is answered.
pub(super) async fn delivered(
    State(admin): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(transfer): Json<Transfer>,
) -> Result<StatusCode, Refusal> {
    believed(&peer)?;
    let carried = transfer.carried()?;
    admin.service.carry(&carried).await.map_err(HostsError::from)?;
    admin.service.delivered(carried.bootid, &carried.file).await.map_err(Refusal::Delivery)?;
    Ok(StatusCode::NO_CONTENT)
}

fn believed(peer: &Peer) -> Result<(), Refusal> {
    if peer.is_this_account() { Ok(()) } else { Err(Refusal::NotTheServer) }
}

/// Tells the server behind a socket which files this process streams on.
pub async fn tell_streaming(socket: &Path, streaming: Vec<Carried>) -> io::Result<()> {
    let transfers: Vec<Transfer> = streaming.into_iter().map(Transfer::of).collect();
    for transfers in transfers.chunks(MOST_TRANSFERS) {
        tell(socket, STREAMING, &transfers).await?;
    }
    Ok(())
}

/// Tells the server behind a socket that a payload is about to be delivered whole; returns when that server has noted it
/// durably.
pub async fn tell_delivered(socket: &Path, carried: Carried) -> io::Result<()> {
    tell(socket, DELIVERED, &Transfer::of(carried)).await
}

/// Transfers in one request.
const MOST_TRANSFERS: usize = 200;

/// One request on a connection of its own.
async fn tell(socket: &Path, path: &str, what: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(what)?;
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::post(format!("/api/v1{path}"))
        .header(header::HOST, "kiwispray")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    // Both on this task, so that giving up closes the socket.
    let mut connection = std::pin::pin!(connection);
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(io::Error::other)?,
        ended = connection.as_mut() => {
            ended.map_err(io::Error::other)?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    match answer.status() {
        StatusCode::NO_CONTENT => Ok(()),
        status => Err(io::Error::other(format!("the other server answers {status}"))),
    }
}
