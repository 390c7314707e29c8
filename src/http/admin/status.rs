//! What the server thinks: of itself, of a host's newest boot, and of its next one.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use crate::hooks::PluginStatus;
use crate::service::{Member, Service};
use crate::wire::{ExplanationView, PlanView, PluginView, StatusView};

use super::error::Refusal;
use super::{Shared, view};

pub(super) async fn status(State(admin): Shared) -> Json<StatusView> {
    let (service, about, members) = (&admin.service, &admin.about, admin.roster.members());
    Json(StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen: about.listen.clone(),
        data_dir: about.data_dir.display().to_string(),
        images_dir: service.catalogue.root().display().to_string(),
        templates_dir: about.templates_dir.display().to_string(),
        config_dir: about.config_dir.display().to_string(),
        started_at: about.started_at,
        // If the store cannot say it, that is among what is not ready.
        frozen: service.frozen().await.ok().flatten().as_ref().map(view::safeguard),
        plugins: plugins(&members),
        not_ready: not_ready(service, &members),
        degraded: degraded(&members),
    })
}

/// Whether the process lives at all.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether the server can do its work; if not, why. What works, but not as it should, is told beside.
pub(super) async fn ready(State(admin): Shared) -> (StatusCode, String) {
    let members = admin.roster.members();
    let faults = not_ready(&admin.service, &members);
    if faults.is_empty() {
        let told: Vec<String> = ["ready".to_owned()].into_iter().chain(degraded(&members)).collect();
        (StatusCode::OK, format!("{}\n", told.join("\n")))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", faults.join("\n")))
    }
}

pub(super) async fn explain(State(admin): Shared, Path(host): Path<String>) -> Result<Json<ExplanationView>, Refusal> {
    let host = admin.service.find_one(&host).await?;
    match admin.service.explain(host.id) {
        Some(explanation) => Ok(Json(view::explanation(&host, &explanation))),
        None => {
            let why = format!("{} has not asked what to boot since the server started", host.label());
            Err(Refusal::Unexplained(why))
        }
    }
}

pub(super) async fn plan(State(admin): Shared, Path(host): Path<String>) -> Result<Json<PlanView>, Refusal> {
    let host = admin.service.find_one(&host).await?;
    let base = admin.service.public_url().unwrap_or_else(|| admin.about.base.clone());
    Ok(Json(view::plan(admin.service.rehearse(host.id, &base).await?)))
}

fn plugins(members: &[Member]) -> Vec<PluginView> {
    members.iter().map(|member| PluginView { name: member.name.clone(), state: condition(&member.status) }).collect()
}

fn condition(status: &PluginStatus) -> String {
    match status {
        PluginStatus::Ready { .. } => "ok".to_owned(),
        PluginStatus::Degraded { version, why, .. } => format!("{version} runs, as the one that should {why}"),
        PluginStatus::Disabled => "disabled".to_owned(),
        PluginStatus::Unavailable { why, .. } => why.clone(),
    }
}

fn not_ready(service: &Service, members: &[Member]) -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(error) = service.store.writable() {
        faults.push(format!("nothing can be written: {error}"));
    }
    for Member { name, status, .. } in members {
        match status {
            PluginStatus::Unavailable { why, .. } => faults.push(format!("the plugin {name} does not work: {why}")),
            PluginStatus::Ready { .. } | PluginStatus::Degraded { .. } | PluginStatus::Disabled => {}
        }
    }
    faults
}

fn degraded(members: &[Member]) -> Vec<String> {
    let told = members.iter().filter_map(|member| match &member.status {
        PluginStatus::Degraded { digest, why, .. } => {
            Some(format!("the plugin {} {why}: {digest}, which worked, runs instead", member.name))
        }
        PluginStatus::Ready { .. } | PluginStatus::Disabled | PluginStatus::Unavailable { .. } => None,
    });
    told.collect()
}
