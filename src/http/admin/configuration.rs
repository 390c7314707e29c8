//! `/api/v1/config/reload`

use axum::Json;
use axum::extract::State;

use crate::service::{Reread, SettingChange};
use crate::wire::{RereadView, SettingView};

use super::Shared;
use super::error::Refusal;
use super::plugins::reloaded;

/// Reads the configuration again.
pub(super) async fn reload(State(admin): Shared) -> Result<Json<RereadView>, Refusal> {
    let Reread { settings, plugins } = admin.reloader.reload().await?;
    Ok(Json(RereadView {
        settings: settings.into_iter().map(setting).collect(),
        plugins: plugins.iter().map(reloaded).collect(),
    }))
}

fn setting(SettingChange { key, from, to, holds }: SettingChange) -> SettingView {
    SettingView { key: key.to_owned(), from, to, needs_restart: !holds }
}
