//! `/api/v1/forgotten`: what is left of forgotten hosts that may be installed.

use axum::Json;
use axum::extract::{ConnectInfo, Path, RawQuery, State};

use crate::domain::{HostId, Tombstone};
use crate::wire::{ForgottenView, Page};

use super::error::Refusal;
use super::parse::{bad, list_query};
use super::{Peer, Shared};

/// Those on a page, unless less is asked for.
const PAGE: u16 = 500;

pub(super) async fn list(
    State(admin): Shared,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<ForgottenView>>, Refusal> {
    let query = list_query(query.as_deref())?;
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let tombstones = admin.service.tombstones(query.cursor.map(HostId::new), limit.into()).await?;
    let is_full = tombstones.len() >= usize::from(limit);
    let next = tombstones.last().filter(|_| is_full).map(|last| last.id.to_string());
    Ok(Json(Page { items: tombstones.iter().map(view).collect(), next }))
}

pub(super) async fn forget(
    State(admin): Shared,
    Path(id): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<ForgottenView>, Refusal> {
    let id: HostId = id.parse().map_err(|_| bad("a forgotten host is named by its number"))?;
    Ok(Json(view(&admin.service.forget_tombstone(id, &peer.actor()).await?)))
}

fn view(tombstone: &Tombstone) -> ForgottenView {
    let identity = &tombstone.identity;
    ForgottenView {
        id: tombstone.id.get(),
        hostname: tombstone.hostname.as_ref().map(ToString::to_string),
        serial: identity.serial.as_ref().map(ToString::to_string),
        uuid: identity.uuid.map(|uuid| uuid.to_string()),
        macs: identity.macs.iter().map(ToString::to_string).collect(),
        forgotten_at: tombstone.forgotten_at,
    }
}
