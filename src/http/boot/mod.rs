//! The boot plane: plain HTTP/1.0 and 1.1 for firmware, installers and freshly installed systems.
//!
//! Handlers parse, call one use case and encode. What every machine depends on stands outside of any limit: no layer here
//! may answer instead of `/bootstrap`.

mod bootstrap;
mod connection;
mod error;
mod files;
mod hosts;
mod idle;
mod parameters;
mod report;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};

use crate::render::BaseUrl;
use crate::service::Service;

pub use connection::{Limits, Peer, Transfers, serve};

/// Longest body of a report, in bytes: an inventory of 64 KB metadata in a form's encoding.
const MOST_BODY_BYTES: usize = 1024 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub struct BootPlane {
    /// The use cases.
    pub service: Arc<Service>,
    /// The folder with iPXE's binaries, if this machine has them.
    pub ipxe_dir: Option<Arc<Path>>,
}

impl BootPlane {
    /// The URL under which this peer reaches the server.
    fn base(&self, peer: &Peer) -> BaseUrl {
        self.service.public_url().unwrap_or_else(|| BaseUrl::of_address(peer.local))
    }
}

/// Every route of the boot plane.
pub fn router(plane: BootPlane) -> Router {
    Router::new()
        .route("/bootstrap.ipxe", get(bootstrap::first_script))
        .route("/boot.ipxe", get(bootstrap::first_script))
        .route("/bootstrap", get(bootstrap::bootstrap).head(bootstrap::glance))
        .route("/post-install", get(report::post_install))
        .route("/finish", get(report::finish).post(report::finish).head(no_glance))
        .route("/fail", get(report::fail).post(report::fail).head(no_glance))
        .route("/state", get(report::state))
        .route("/update", axum::routing::post(report::update))
        .route("/hosts", get(hosts::hosts))
        // Files look at the method themselves, and at the raw path: what axum decodes cannot be checked any more.
        .route("/images/{*path}", any(files::image_file))
        .route("/b/{*path}", any(files::boot_file))
        .route("/ipxe/{*path}", any(files::ipxe_file))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
        .with_state(plane)
}

async fn not_allowed() -> Response {
    plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here")
}

/// To look at a report would be to report.
async fn no_glance() -> Response {
    let mut response = not_allowed().await;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    response
}

/// One plain sentence.
fn plain(status: StatusCode, sentence: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, format!("{sentence}\n")).into_response()
}

/// A text that is for this one boot.
fn private_text(content_type: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, text).into_response()
}
