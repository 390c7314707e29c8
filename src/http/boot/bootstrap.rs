//! `/bootstrap.ipxe` and `/bootstrap`: always 200, always a whole script.

use std::panic::AssertUnwindSafe;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use futures_util::FutureExt;

use crate::render::{BootScript, BootstrapVars, ServerVars, last_resort_hold};
use crate::service::{Answer, BootstrapRequest, Outcome};

use super::{BootPlane, Peer, parameters, private_text};

const OUTCOME: HeaderName = HeaderName::from_static("x-kiwispray-outcome");
const HOST: HeaderName = HeaderName::from_static("x-kiwispray-host");

/// Seconds until a machine asks again after a fault of ours.
const AGAIN_AFTER_FAULT_S: u32 = 10;

/// The script that reports the machine and asks what to do.
pub(super) async fn first_script(State(plane): State<BootPlane>, Extension(peer): Extension<Peer>) -> Response {
    let script = BootScript::Bootstrap(BootstrapVars { server: ServerVars { base: plane.base(&peer) } });
    private_text("text/plain; charset=utf-8", plane.service.script_or_built_in(&script))
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
    let answered = AssertUnwindSafe(plane.service.bootstrap(&request)).catch_unwind().await;
    let answer = answered.unwrap_or_else(|_| {
        tracing::error!("answering /bootstrap panicked; the machine was told to wait");
        let script = last_resort_hold(&base, "the server has a fault, see its log", AGAIN_AFTER_FAULT_S);
        Answer { script, outcome: Outcome::Hold, host: None }
    });
    let mut response = private_text("text/plain; charset=utf-8", answer.script);
    response.headers_mut().insert(OUTCOME, HeaderValue::from_static(answer.outcome.as_str()));
    if let Some(host) = answer.host {
        response.headers_mut().insert(HOST, HeaderValue::from(host.get()));
    }
    response
}
