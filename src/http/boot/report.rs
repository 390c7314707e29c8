//! `/post-install`, `/finish`, `/fail`, `/state`, `/update`: what installed systems and inventory images call.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use crate::service::{CallRefused, InventoryPost, ReportRefused};

use super::error::Refusal;
use super::{BootPlane, Peer, parameters, plain, private_text};

pub(super) async fn post_install(
    State(plane): State<BootPlane>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let call = parameters::call(&parameters::parse(query.unwrap_or_default().as_bytes()));
    let script = plane.service.post_install(&call, &plane.base(&peer)).await?;
    Ok(private_text("text/x-shellscript; charset=utf-8", script))
}

pub(super) async fn finish(State(plane): State<BootPlane>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let call = parameters::call(&parameters::parse(query.unwrap_or_default().as_bytes()));
    unknown_host_is_unauthorized(plane.service.finish(&call).await)?;
    Ok(plain(StatusCode::OK, "finished"))
}

pub(super) async fn fail(State(plane): State<BootPlane>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let parameters = parameters::parse(query.unwrap_or_default().as_bytes());
    let reason = parameters::first(&parameters, "reason").unwrap_or_default();
    unknown_host_is_unauthorized(plane.service.fail(&parameters::call(&parameters), reason).await)?;
    Ok(plain(StatusCode::OK, "noted"))
}

pub(super) async fn state(State(plane): State<BootPlane>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let call = parameters::call(&parameters::parse(query.unwrap_or_default().as_bytes()));
    Ok(plain(StatusCode::OK, &plane.service.state(&call).await?))
}

pub(super) async fn update(
    State(plane): State<BootPlane>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "the inventory is too large"));
        }
        Err(_) => return Err(Refusal::BadRequest("the inventory did not arrive whole".to_owned())),
    };
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    if !is_form {
        return Err(Refusal::BadRequest("an inventory is posted as a form: mac=… and metadata={…}".to_owned()));
    }
    let call = parameters::call(&parameters::parse(query.unwrap_or_default().as_bytes()));
    let mut post = InventoryPost::default();
    for parameter in parameters::parse(&body) {
        let Some(value) = parameter.value else {
            return Err(Refusal::BadRequest(format!("the value of {:?} is no UTF-8", parameter.name)));
        };
        match parameter.name.as_str() {
            "mac" => post.macs.push(value),
            "metadata" => post.metadata.push(value),
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(Refusal::BadRequest(format!("{other:?} is no part of an inventory: mac and metadata are")));
            }
        }
    }
    unknown_host_is_unauthorized(plane.service.update(&call, &post).await)?;
    Ok(plain(StatusCode::OK, "noted"))
}

/// To report for a host that does not exist is no different from using a wrong secret.
fn unknown_host_is_unauthorized(outcome: Result<(), ReportRefused>) -> Result<(), ReportRefused> {
    match outcome {
        Err(ReportRefused::Call(CallRefused::UnknownHost)) => Err(CallRefused::WrongBootId.into()),
        outcome => outcome,
    }
}
