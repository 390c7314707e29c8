//! `/api/v1/freeze`: whether images that write disks are booted at all.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};

use crate::service::HostsError;
use crate::wire::{FreezeFleet, FreezeView};

use super::error::Refusal;
use super::parse::document;
use super::{Peer, Shared, view};

pub(super) async fn show(State(admin): Shared) -> Result<Json<FreezeView>, Refusal> {
    let frozen = admin.service.frozen().await.map_err(HostsError::from)?;
    Ok(Json(FreezeView { frozen: frozen.as_ref().map(view::safeguard), before: None }))
}

pub(super) async fn freeze(
    State(admin): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<FreezeView>, Refusal> {
    let FreezeFleet { why } = document(&body)?;
    let (frozen, before) = admin.service.freeze(&why, peer.actor()).await.map_err(HostsError::from)?;
    Ok(Json(FreezeView { frozen: Some(view::safeguard(&frozen)), before: before.as_ref().map(view::safeguard) }))
}

pub(super) async fn thaw(
    State(admin): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<FreezeView>, Refusal> {
    let before = admin.service.thaw(&peer.actor()).await.map_err(HostsError::from)?;
    Ok(Json(FreezeView { frozen: None, before: before.as_ref().map(view::safeguard) }))
}
