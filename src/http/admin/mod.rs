//! The admin plane: JSON for people and programs, on a unix socket.
//!
//! Handlers parse, call once, encode. What they answer is in `wire`, why they refuse in `error`; who asks is known from
//! the connection, never from what it says.

mod backup;
mod configuration;
mod conflicts;
mod error;
mod events;
mod forgotten;
mod freeze;
mod handover;
mod hosts;
mod images;
mod import;
mod inside;
mod migration;
mod parse;
mod peer;
mod plugins;
mod rehearsal;
mod server;
mod socket;
mod status;
mod verification;
mod view;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::render::BaseUrl;
use crate::service::{Reloader, Roster, Service};

use error::Refusal;

pub use handover::{tell_delivered, tell_streaming};
pub use peer::Peer;
pub use server::serve;
pub use socket::{SocketError, bind};

/// More than any document; archives are streamed and have no limit here.
const MOST_BODY_BYTES: usize = 1 << 20;

/// A list of hosts to be imported, of the most that a list may name.
const MOST_LIST_BYTES: usize = 128 << 20;

/// A component, with its binding before it.
const MOST_COMPONENT_BYTES: usize = 65 << 20;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct About {
    /// Addresses of the boot plane, for `/api/v1/status`.
    pub listen: Vec<String>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The site's own templates.
    pub templates_dir: PathBuf,
    /// The folder of the configuration file and of `conf.d`.
    pub config_dir: PathBuf,
    /// When the server started.
    pub started_at: Timestamp,
    /// The URL for scripts that are only shown, if the configuration names none.
    pub base: BaseUrl,
}

/// Everything that people ask and change.
#[derive(Clone)]
pub struct People {
    /// Hosts, images and events.
    pub service: Arc<Service>,
    /// Plugins.
    pub roster: Arc<dyn Roster>,
    /// Settings.
    pub reloader: Arc<dyn Reloader>,
}

struct Admin {
    service: Arc<Service>,
    roster: Arc<dyn Roster>,
    reloader: Arc<dyn Reloader>,
    about: About,
    /// Ends the event streams, which would otherwise keep the server from ending.
    shutdown: CancellationToken,
}

type Shared = axum::extract::State<Arc<Admin>>;

/// The routes of the admin plane. Every connection needs a [`Peer`] as its connect info.
pub fn router(people: People, about: About, shutdown: CancellationToken) -> Router {
    let People { service, roster, reloader } = people;
    let component = || DefaultBodyLimit::max(MOST_COMPONENT_BYTES);
    let api = Router::new()
        .route("/hosts", get(hosts::list).post(hosts::add))
        .route("/hosts/{host}", get(hosts::show).patch(hosts::edit).delete(hosts::forget))
        .route("/hosts/{host}/finish", post(hosts::finish))
        .route("/hosts/{host}/retry", post(hosts::retry))
        .route("/hosts/{host}/release", post(hosts::release))
        .route("/hosts/{host}/adopt", post(hosts::adopt))
        .route("/hosts/{host}/lock", post(hosts::lock).delete(hosts::unlock))
        .route("/forgotten", get(forgotten::list))
        .route("/forgotten/{id}", delete(forgotten::forget))
        .route("/freeze", get(freeze::show).put(freeze::freeze).delete(freeze::thaw))
        .route("/hosts/{host}/events", get(events::timeline))
        .route("/hosts/{host}/explain", get(status::explain))
        .route("/hosts/{host}/plan", get(status::plan))
        .route("/import/hosts", post(import::run).layer(DefaultBodyLimit::max(MOST_LIST_BYTES)))
        .route("/migration/hosts", post(migration::take))
        .route("/conflicts", get(conflicts::list))
        .route("/images", get(images::list))
        .route("/images/{name}", get(images::show).put(images::import).delete(images::remove))
        .route("/images/{name}/verify", get(verification::verify))
        .route("/plugins", get(plugins::list))
        .route("/plugins/reload", post(plugins::reload_all))
        .route("/plugins/{name}", get(plugins::show).put(plugins::install).delete(plugins::remove).layer(component()))
        .route("/plugins/{name}/reload", post(plugins::reload))
        .route("/plugins/{name}/rollback", post(plugins::rollback))
        .route("/plugins/{name}/disable", post(plugins::disable))
        .route("/plugins/{name}/enable", post(plugins::enable))
        .route("/plugins/{name}/approve", post(plugins::approve))
        .route("/plugins/{name}/recordings", get(plugins::recordings).post(plugins::record))
        .route("/plugins/{name}/logs", get(inside::logs))
        .route("/plugins/{name}/dead-letters", get(inside::letters).delete(inside::drop_letters))
        .route("/plugins/{name}/dead-letters/replay", post(inside::replay))
        .route("/plugins/{name}/jobs/{job}/run", post(inside::run_job))
        .route("/plugins/{name}/kv", get(inside::keys))
        .route("/plugins/{name}/kv/{*key}", get(inside::value))
        .route("/rehearsal", post(rehearsal::run))
        .route("/rehearsal/{plugin}", post(rehearsal::run_with).layer(component()))
        .route("/backup", get(backup::download))
        .route("/check", get(backup::check))
        .route("/quarantine/lift", post(backup::lift))
        .route("/config/reload", post(configuration::reload))
        .route("/events", get(events::stream))
        .route(handover::STREAMING, post(handover::streaming))
        .route(handover::DELIVERED, post(handover::delivered))
        .route("/status", get(status::status));
    Router::new()
        .nest("/api/v1", api)
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::ready))
        .fallback(async || Refusal::NoRoute)
        .method_not_allowed_fallback(async || Refusal::NoMethod)
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
        .layer(map_response(as_problem))
        .with_state(Arc::new(Admin { service, roster, reloader, about, shutdown }))
}

/// What is refused before a handler sees it is refused in plain text by axum; programs are promised problems.
async fn as_problem(response: Response) -> Response {
    let is_text = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/plain");
    if !response.headers().get(header::CONTENT_TYPE).is_some_and(is_text) {
        return response;
    }
    match response.status() {
        StatusCode::BAD_REQUEST => {
            Refusal::BadRequest("the request is no UTF-8, or not whole".to_owned()).into_response()
        }
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge.into_response(),
        _ => response,
    }
}
