//! `/api/v1/backup`, `/api/v1/check`, `/api/v1/quarantine`: the store as a whole.

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;

use crate::service::HostsError;
use crate::wire::CheckView;

use super::error::Refusal;
use super::{Peer, Shared};

/// The stream ends early if anything goes wrong; whoever reads it knows by the checksum at its end.
pub(super) async fn download(State(admin): Shared, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    tracing::info!(by = ?peer.actor(), "a backup is being taken");
    let pieces = admin.service.backup().inspect_err(|error| tracing::error!(%error, "a backup broke off"));
    ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces)).into_response()
}

pub(super) async fn check(State(admin): Shared) -> Result<Json<CheckView>, Refusal> {
    let check = admin.service.check_store().await.map_err(HostsError::from)?;
    Ok(Json(CheckView {
        hosts: check.hosts,
        forgotten: check.forgotten,
        tombstones: check.tombstones,
        events: check.events,
        indexed: check.indexed,
        plugin_values: check.plugin_values,
        entries: check.entries,
        bytes: check.bytes,
        problems: check.problems.iter().map(ToString::to_string).collect(),
        problem_count: check.problem_count,
    }))
}

pub(super) async fn lift(State(admin): Shared, ConnectInfo(peer): ConnectInfo<Peer>) -> Result<StatusCode, Refusal> {
    admin.service.lift_quarantine().await.map_err(HostsError::from)?;
    tracing::info!(by = ?peer.actor(), "the quarantine of the restored store was lifted");
    Ok(StatusCode::NO_CONTENT)
}
