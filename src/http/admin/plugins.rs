//! `/api/v1/plugins…`

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::StatusCode;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::{Actor, PluginName};
use crate::hooks::{BreakerState, Hook, OnError, PluginStatus};
use crate::service::{
    HostsError, Installation, Installed, JobState, Member, OutboxState, Reach, Reload, Reloaded, RosterError, Service,
};
use crate::store::Orders;
use crate::wire::{
    ApproveOrders, Approved, BreakerView, InstallPlugin, InstalledPlugin, JobView, KeptView, OutboxView, PluginDetail,
    ReachView, RecordCalls, ReloadedView,
};

use super::error::Refusal;
use super::parse::{bad, document, query as query_document};
use super::{Admin, Peer, Shared};

type Answer<T> = Result<T, Refusal>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RemoveQuery {
    purge: bool,
}

pub(super) async fn list(State(admin): Shared) -> Json<Vec<PluginDetail>> {
    let (members, past) = (admin.roster.members(), Past::read(&admin.service).await);
    Json(join_all(members.into_iter().map(|member| past.detail(&admin.service, member))).await)
}

pub(super) async fn show(State(admin): Shared, Path(name): Path<String>) -> Answer<Json<PluginDetail>> {
    Ok(Json(detail(&admin.service, member(&admin, &name)?).await))
}

pub(super) async fn reload_all(State(admin): Shared) -> Answer<Json<Vec<ReloadedView>>> {
    Ok(Json(admin.roster.reload(None).await?.iter().map(reloaded).collect()))
}

pub(super) async fn reload(State(admin): Shared, Path(name): Path<String>) -> Answer<Json<Vec<ReloadedView>>> {
    Ok(Json(admin.roster.reload(Some(name)).await?.iter().map(reloaded).collect()))
}

pub(super) async fn rollback(State(admin): Shared, Path(name): Path<String>) -> Answer<Json<PluginDetail>> {
    let member = admin.roster.rollback(name).await?;
    Ok(Json(detail(&admin.service, member).await))
}

pub(super) async fn disable(State(admin): Shared, Path(name): Path<String>) -> Answer<Json<PluginDetail>> {
    let member = admin.roster.set_enabled(name, false).await?;
    Ok(Json(detail(&admin.service, member).await))
}

pub(super) async fn enable(State(admin): Shared, Path(name): Path<String>) -> Answer<Json<PluginDetail>> {
    let member = admin.roster.set_enabled(name, true).await?;
    Ok(Json(detail(&admin.service, member).await))
}

pub(super) async fn install(
    State(admin): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Json<InstalledPlugin>> {
    let Installed { member, widened, narrowed, replaces } = admin.roster.install(installation(name, &body)?).await?;
    Ok(Json(InstalledPlugin {
        plugin: detail(&admin.service, member).await,
        widened: widened.into_iter().map(reach).collect(),
        narrowed: narrowed.into_iter().map(reach).collect(),
        replaces,
    }))
}

/// With `purge=true` also what it stored, and which events it was told: of one that is not bound any more only that.
pub(super) async fn remove(
    State(admin): Shared,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<StatusCode> {
    let RemoveQuery { purge } = query_document(query.as_deref())?;
    match admin.roster.remove(name.clone()).await {
        Err(refusal @ RosterError::NotFound { .. }) if purge => {
            if !purged(&admin.service, &name).await? {
                return Err(refusal.into());
            }
        }
        Ok(()) if purge => {
            purged(&admin.service, &name).await?;
        }
        done => done?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Removes what a plugin left behind. Whether there was anything.
async fn purged(service: &Service, name: &str) -> Answer<bool> {
    let plugin: PluginName = name.parse().map_err(bad)?;
    let was_told = service.outbox_state().await?.iter().any(|state| state.plugin == name);
    // First, as it waits until nothing of the plugin runs any more.
    service.forget_outbox(name).await?;
    let values = service.clear_plugin(&plugin).await.map_err(HostsError::Store)?;
    Ok(values > 0 || was_told)
}

pub(super) async fn approve(
    State(admin): Shared,
    Path(name): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Answer<Json<Approved>> {
    let ApproveOrders { orders } = document(&body)?;
    let plugin: PluginName = member(&admin, &name)?.name.parse().map_err(bad)?;
    let by = match peer.actor() {
        Actor::Operator(name) => name,
        Actor::Machine | Actor::Server | Actor::Plugin(_) => "unknown".to_owned(),
    };
    Ok(Json(Approved { orders: admin.service.approve_orders(&plugin, orders, &by).await? }))
}

/// What was recorded of a plugin's calls, oldest first.
pub(super) async fn recordings(State(admin): Shared, Path(name): Path<String>) -> Answer<Json<Vec<Value>>> {
    let name = member(&admin, &name)?.name;
    Ok(Json(admin.service.hooks().plugin(&name).map(|plugin| plugin.recorded()).unwrap_or_default()))
}

/// Records a plugin's next calls. What was recorded before is forgotten.
pub(super) async fn record(State(admin): Shared, Path(name): Path<String>, body: Bytes) -> Answer<Json<Vec<Value>>> {
    let RecordCalls { calls } = document(&body)?;
    let name = member(&admin, &name)?.name;
    if let Some(plugin) = admin.service.hooks().plugin(&name) {
        plugin.record(calls);
    }
    Ok(Json(Vec::new()))
}

/// A binding as one line of JSON, then the component; without one, that of the plugin as it is bound.
pub(super) fn installation(name: String, body: &[u8]) -> Answer<Installation> {
    let (line, component) = match body.iter().position(|byte| *byte == b'\n') {
        Some(end) => body.split_at_checked(end).ok_or_else(|| bad("the body is empty"))?,
        None => (body, &[][..]),
    };
    let InstallPlugin { binding, widen, grants_from_plugin, dry_run } = document(line)?;
    let component = component.get(1..).filter(|bytes| !bytes.is_empty()).map(<[u8]>::to_vec);
    Ok(Installation { name, binding, component, widen, grants_from_plugin, dry_run })
}

pub(super) fn member(admin: &Admin, name: &str) -> Answer<Member> {
    let members = admin.roster.members();
    let found = members.iter().find(|member| member.name == name).cloned();
    found.ok_or_else(|| RosterError::not_found(name, members.iter().map(|member| member.name.as_str())).into())
}

/// What the store knows of all plugins, read once for all that are told of.
struct Past {
    outboxes: Vec<OutboxState>,
    jobs: Vec<JobState>,
}

async fn detail(service: &Service, member: Member) -> PluginDetail {
    Past::read(service).await.detail(service, member).await
}

impl Past {
    async fn read(service: &Service) -> Self {
        Self {
            outboxes: service.outbox_state().await.unwrap_or_default(),
            jobs: service.schedule_state().await.unwrap_or_default(),
        }
    }

    async fn detail(&self, service: &Service, member: Member) -> PluginDetail {
        let outbox = self.outbox(&member.name);
        let next_run = |job: &str| {
            let state = self.jobs.iter().find(|state| state.plugin == member.name && state.job == job)?;
            state.last.as_ref().map(|last| last.next_at)
        };
        let jobs = member.about.jobs.iter();
        let jobs =
            jobs.map(|job| JobView { name: job.name.clone(), period_s: job.period_s, next_at: next_run(&job.name) });
        let jobs = jobs.collect();
        let stopped = stopped(service, &member.name).await;
        let (status, problem, version, origin, digest) = match member.status {
            PluginStatus::Ready { version, origin, digest } => ("ok", None, Some(version), Some(origin), Some(digest)),
            PluginStatus::Degraded { version, origin, digest, why } => {
                ("degraded", Some(why), Some(version), Some(origin), Some(digest))
            }
            PluginStatus::Disabled => ("disabled", None, None, None, None),
            PluginStatus::Unavailable { why, origin } => ("broken", Some(why), None, Some(origin), None),
        };
        PluginDetail {
            name: member.name,
            status: status.to_owned(),
            problem,
            version,
            digest,
            origin,
            summary: member.about.summary,
            file: member.file.map(|file| file.display().to_string()),
            installed: member.installed,
            rolled_back: member.rolled_back,
            hooks: member.hooks.iter().map(Hook::to_string).collect(),
            states: member.states,
            selector: member.selector,
            priority: member.priority,
            on_error: match member.on_error {
                OnError::Hold => "hold".to_owned(),
                OnError::Skip => "skip".to_owned(),
            },
            config: member.config,
            reach: member.reach.into_iter().map(reach).collect(),
            jobs,
            outbox,
            breakers: member.breakers.into_iter().map(breaker).collect(),
            history: member
                .history
                .into_iter()
                .map(|kept| KeptView { digest: kept.digest, version: kept.version, at: kept.at })
                .collect(),
            stopped,
        }
    }

    /// How far it has been told of events; none if it is not told of any.
    fn outbox(&self, name: &str) -> Option<OutboxView> {
        let state = self.outboxes.iter().find(|state| state.plugin == name)?;
        Some(OutboxView {
            behind: state.behind,
            parked: state.parked.len() as u64,
            dead_letters: state.dead_letters,
            lost: state.lost,
        })
    }
}

/// Why a plugin may order nothing until somebody approves.
async fn stopped(service: &Service, name: &str) -> Option<String> {
    match service.orders_state(&name.parse().ok()?).await {
        Ok(Orders::Stopped { most, .. }) => Some(format!("wanted more than {most} orders in one run")),
        Ok(Orders::Restored { taken_at }) => Some(format!(
            "may order again what was done after the restored backup of {}",
            taken_at.strftime("%F %T UTC")
        )),
        Ok(Orders::AsGranted | Orders::Approved { .. }) => None,
        Err(error) => Some(format!("it is not known whether it was stopped: {error}")),
    }
}

fn breaker((hook, state): (Hook, BreakerState)) -> BreakerView {
    let (state, for_s, why) = match state {
        BreakerState::Closed => ("closed", None, String::new()),
        BreakerState::Open { for_s, why } => ("open", Some(for_s), why),
        BreakerState::HalfOpen { why } => ("half-open", None, why),
        BreakerState::OutOfOrder { why } => ("out-of-order", None, why),
    };
    BreakerView { hook: hook.to_string(), state: state.to_owned(), for_s, why }
}

fn reach(reach: Reach) -> ReachView {
    ReachView { what: reach.what, meaning: reach.meaning }
}

pub(super) fn reloaded(reloaded: &Reloaded) -> ReloadedView {
    let change = match reloaded.change {
        Reload::Unchanged => "unchanged",
        Reload::Added => "added",
        Reload::Changed => "changed",
        Reload::Removed => "removed",
        Reload::Failed => "failed",
    };
    ReloadedView { name: reloaded.name.clone(), change: change.to_owned() }
}
