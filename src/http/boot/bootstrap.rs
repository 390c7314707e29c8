//! `/bootstrap.ipxe` and `/bootstrap`: always 200, always a whole script.

use std::panic::AssertUnwindSafe;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use futures_util::FutureExt;

use crate::domain::HostId;
use crate::render::{BootScript, BootstrapVars, ServerVars, last_resort_hold};
use crate::service::{BootstrapRequest, Outcome};

use super::{BootPlane, Peer, parameters, private_text};

const OUTCOME: HeaderName = HeaderName::from_static("x-kiwispray-outcome");
const HOST: HeaderName = HeaderName::from_static("x-kiwispray-host");

/// Seconds until a machine asks again after a fault of ours.
const AGAIN_AFTER_FAULT_S: u32 = 10;

/// The script that reports the machine and asks what to do.
pub(super) async fn first_script(State(plane): State<BootPlane>, Extension(peer): Extension<Peer>) -> Response {
    let script = BootScript::Bootstrap(BootstrapVars { server: ServerVars { base: plane.base(&peer) } });
    private_text("text/plain; charset=utf-8", plane.service.script_or_built_in(script).await)
}

/// What this machine boots.
pub(super) async fn bootstrap(
    State(plane): State<BootPlane>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Response {
    let base = plane.base(&peer);
    let parameters = parameters::parse(query.unwrap_or_default().as_bytes());
    let request = BootstrapRequest { parameters, from: peer.remote.ip().to_canonical(), base: base.clone() };
    // A machine that gets no answer falls through to its next boot device, so not even a bug may cost it one.
    if let Ok(answer) = AssertUnwindSafe(plane.service.bootstrap(&request)).catch_unwind().await {
        return script(answer.script, answer.outcome, answer.host);
    }
    tracing::error!("answering /bootstrap panicked");
    if let Ok(answer) = AssertUnwindSafe(plane.service.answer_after_fault(&request)).catch_unwind().await {
        return script(answer.script, answer.outcome, answer.host);
    }
    let text = last_resort_hold(&base, "the server has a fault, see its log", AGAIN_AFTER_FAULT_S);
    script(text, Outcome::Hold, None)
}

/// What this machine would boot, for who only looks: a monitor must not use up boots.
pub(super) async fn glance(
    State(plane): State<BootPlane>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Response {
    let parameters = parameters::parse(query.unwrap_or_default().as_bytes());
    let request = BootstrapRequest { parameters, from: peer.remote.ip().to_canonical(), base: plane.base(&peer) };
    let (outcome, host) = plane.service.glance(&request).await;
    // The length that a HEAD tells must be that of a whole script: the one that asks again.
    let again = BootScript::Bootstrap(BootstrapVars { server: ServerVars { base: request.base } });
    script(plane.service.script_or_built_in(again).await, outcome, host)
}

fn script(text: String, outcome: Outcome, host: Option<HostId>) -> Response {
    let mut response = private_text("text/plain; charset=utf-8", text);
    response.headers_mut().insert(OUTCOME, HeaderValue::from_static(outcome.as_str()));
    if let Some(host) = host {
        response.headers_mut().insert(HOST, HeaderValue::from(host.get()));
    }
    response
}
