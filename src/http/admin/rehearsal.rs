//! `/api/v1/rehearsal`: what all hosts would be answered, line by line as it becomes known.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, future, stream};

use crate::service::{Decision, Installation, Rehearsed};
use crate::wire::{RehearsalLine, RehearsedView};

use super::error::Refusal;
use super::plugins::installation;
use super::{Admin, Shared, view};

/// As plugins are bound now.
pub(super) async fn run(State(admin): Shared) -> Result<Response, Refusal> {
    rehearse(&admin, None).await
}

/// As if a plugin were installed.
pub(super) async fn run_with(
    State(admin): Shared,
    Path(plugin): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    rehearse(&admin, Some(installation(plugin, &body)?)).await
}

async fn rehearse(admin: &Admin, with: Option<Installation>) -> Result<Response, Refusal> {
    let hooks = match with {
        Some(_) => Some(admin.roster.with(with).await?),
        None => None,
    };
    let total = admin.service.count_hosts().await?;
    let base = admin.service.public_url().unwrap_or_else(|| admin.about.base.clone());
    let hosts = Arc::clone(&admin.service).rehearse_all(hooks, base).map(|rehearsed| match rehearsed {
        Ok(rehearsed) => Some(RehearsalLine::Host(line(rehearsed))),
        // Without its last line it is known to be incomplete.
        Err(error) => {
            tracing::error!(%error, "a rehearsal broke off");
            None
        }
    });
    let lines = stream::iter([Some(RehearsalLine::Hosts(total))])
        .chain(hosts)
        .chain(stream::iter([Some(RehearsalLine::End)]))
        .take_while(|line| future::ready(line.is_some()))
        .map(|line| {
            let mut text = serde_json::to_vec(&line).unwrap_or_default();
            text.push(b'\n');
            Ok::<_, Infallible>(Bytes::from(text))
        });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn line(rehearsed: Rehearsed) -> RehearsedView {
    let Rehearsed { host, before, after, error, took_us } = rehearsed;
    let text = |decision: &Decision| view::told(decision).1;
    RehearsedView {
        id: host.id.get(),
        hostname: host.hostname.as_ref().map(ToString::to_string),
        state: host.states.current().to_string(),
        before: text(&before),
        after: text(&after),
        error,
        took_us,
    }
}
