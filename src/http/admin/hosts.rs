//! `/api/v1/hosts…`

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::domain::{Actor, Edit, HostId, Hostname, Identity, IdentityEdit, MacAddr, Registration, Serial, States};
use crate::hooks::Run;
use crate::service::{Act, Terms};
use crate::wire::{ActOnHost, AddHost, AdoptMachine, Changed, EditHost, LockHost, NEXT_CURSOR, Page};

use super::error::Refusal;
use super::parse::{bad, document, fresh_metadata, if_match, list_query, merge, states};
use super::{Admin, Peer, Shared, view};

/// Hosts on a page, unless less is asked for.
const PAGE: u16 = 500;

type Answer<T> = Result<T, Refusal>;

pub(super) async fn list(State(admin): Shared, RawQuery(query): RawQuery) -> Answer<Response> {
    let query = list_query(query.as_deref())?;
    let limit = usize::from(query.limit.unwrap_or(PAGE).clamp(1, PAGE));
    let (hosts, next) = admin.service.find(&query.selection, query.cursor.map(HostId::new), limit).await?;
    let items = hosts.iter().map(|host| view::host(&admin.service, host)).collect();
    let next = next.map(|id| id.to_string());
    let ahead = next.as_ref().and_then(|next| HeaderValue::try_from(next).ok());
    let mut response = Json(Page { items, next }).into_response();
    // Whoever reads all pages asks for the next one while it still reads this one.
    response.headers_mut().extend(ahead.map(|next| (HeaderName::from_static(NEXT_CURSOR), next)));
    Ok(response)
}

pub(super) async fn show(State(admin): Shared, Path(host): Path<String>) -> Answer<Response> {
    let host = admin.service.find_one(&host).await?;
    let mut response = Json(view::host(&admin.service, &host)).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", host.revision)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

pub(super) async fn add(
    State(admin): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Answer<(StatusCode, Json<Changed>)> {
    let wanted: AddHost = document(&body)?;
    let run = run(wanted.dry_run);
    let acted = admin.service.add(registration(&admin, wanted, &peer.actor())?, peer.actor(), run).await?;
    let status = if run == Run::Real { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view::changed(&admin.service, &acted))))
}

pub(super) async fn edit(
    State(admin): Shared,
    Path(host): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Changed>> {
    let wanted: EditHost = document(&body)?;
    let identity = identity_edit(&admin, &wanted)?;
    let EditHost { hostname, metadata, states: queue, reinstall, abort, expect_serial, dry_run, .. } = wanted;
    let hostname = match hostname.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(name) => Some(Some(name.parse::<Hostname>().map_err(bad)?)),
    };
    let edit = Edit { hostname, metadata: merge(metadata)?, identity };
    let act = Act::Set { edit, states: queue.as_deref().map(states).transpose()?, reinstall, abort };
    let terms = terms(&peer, &headers, expect_serial.as_deref(), dry_run)?;
    act_on(&admin, &host, &act, &terms).await
}

pub(super) async fn finish(
    State(admin): Shared,
    Path(host): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Changed>> {
    let wanted: ActOnHost = document(&body)?;
    let terms = terms(&peer, &headers, wanted.expect_serial.as_deref(), wanted.dry_run)?;
    act_on(&admin, &host, &Act::Finish { abort: wanted.abort }, &terms).await
}

pub(super) async fn retry(
    State(admin): Shared,
    Path(host): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Changed>> {
    let wanted: ActOnHost = document(&body)?;
    let terms = terms(&peer, &headers, wanted.expect_serial.as_deref(), wanted.dry_run)?;
    act_on(&admin, &host, &Act::Retry { abort: wanted.abort }, &terms).await
}

pub(super) async fn release(
    State(admin): Shared,
    Path(host): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Changed>> {
    let wanted: ActOnHost = document(&body)?;
    let terms = terms(&peer, &headers, wanted.expect_serial.as_deref(), wanted.dry_run)?;
    act_on(&admin, &host, &Act::Release, &terms).await
}

pub(super) async fn lock(
    State(admin): Shared,
    Path(host): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Changed>> {
    let wanted: LockHost = document(&body)?;
    let terms = terms(&peer, &headers, wanted.expect_serial.as_deref(), wanted.dry_run)?;
    act_on(&admin, &host, &Act::Lock { why: wanted.why }, &terms).await
}

pub(super) async fn unlock(
    State(admin): Shared,
    Path(host): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Changed>> {
    let wanted: ActOnHost = document(&body)?;
    let terms = terms(&peer, &headers, wanted.expect_serial.as_deref(), wanted.dry_run)?;
    act_on(&admin, &host, &Act::Unlock, &terms).await
}

pub(super) async fn forget(
    State(admin): Shared,
    Path(host): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Changed>> {
    let wanted: ActOnHost = document(&body)?;
    let terms = terms(&peer, &headers, wanted.expect_serial.as_deref(), wanted.dry_run)?;
    act_on(&admin, &host, &Act::Forget { abort: wanted.abort, for_good: wanted.for_good }, &terms).await
}

pub(super) async fn adopt(
    State(admin): Shared,
    Path(host): Path<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Changed>> {
    let wanted: AdoptMachine = document(&body)?;
    let terms = terms(&peer, &headers, wanted.expect_serial.as_deref(), wanted.dry_run)?;
    let host = admin.service.find_one(&host).await?;
    let acted = admin.service.adopt(&wanted.machine, host.id, &terms).await?;
    Ok(Json(view::changed(&admin.service, &acted)))
}

async fn act_on(admin: &Admin, host: &str, act: &Act, terms: &Terms) -> Answer<Json<Changed>> {
    let host = admin.service.find_one(host).await?;
    let acted = admin.service.act(host.id, act, terms).await?;
    Ok(Json(view::changed(&admin.service, &acted)))
}

fn terms(peer: &Peer, headers: &HeaderMap, serial: Option<&str>, dry_run: bool) -> Answer<Terms> {
    let serial =
        serial.map(|text| text.parse::<Serial>().map_err(|why| bad(format_args!("{text:?} is no serial: {why}"))));
    Ok(Terms { actor: peer.actor(), revision: if_match(headers)?, serial: serial.transpose()?, run: run(dry_run) })
}

const fn run(dry_run: bool) -> Run {
    if dry_run { Run::Dry } else { Run::Real }
}

/// What becomes of an identity. What identifies no machine cannot be added, but taken away.
fn identity_edit(admin: &Admin, wanted: &EditHost) -> Answer<IdentityEdit> {
    let settings = admin.service.settings();
    let ignore = &settings.ignore;
    let useless =
        |text: &str, why: crate::domain::IdentityDefect| bad(format_args!("{text:?} identifies no machine: {why}"));
    let serial = match wanted.serial.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(text) => Some(Some(ignore.serial(text).map_err(|why| useless(text, why))?)),
    };
    let uuid = match wanted.uuid.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(text) => Some(Some(ignore.uuid(text).map_err(|why| useless(text, why))?)),
    };
    let add_macs = wanted.add_macs.iter().map(|text| ignore.mac(text).map_err(|why| useless(text, why)));
    let drop_macs = wanted.drop_macs.iter().map(|text| text.parse::<MacAddr>().map_err(bad));
    Ok(IdentityEdit {
        serial,
        uuid,
        add_macs: add_macs.collect::<Result<_, _>>()?,
        drop_macs: drop_macs.collect::<Result<_, _>>()?,
    })
}

/// The registration that somebody typed. What identifies no machine is refused here, as machines report it themselves.
fn registration(admin: &Admin, wanted: AddHost, actor: &Actor) -> Answer<Registration> {
    let settings = admin.service.settings();
    let ignore = &settings.ignore;
    let useless =
        |text: &str, why: crate::domain::IdentityDefect| bad(format_args!("{text:?} identifies no machine: {why}"));
    let serial = wanted.serial.as_deref().map(|text| ignore.serial(text).map_err(|why| useless(text, why)));
    let uuid = wanted.uuid.as_deref().map(|text| ignore.uuid(text).map_err(|why| useless(text, why)));
    let macs = wanted.macs.iter().map(|text| ignore.mac(text).map_err(|why| useless(text, why)));
    let by = match actor {
        Actor::Operator(name) => name.clone(),
        Actor::Machine | Actor::Plugin(_) | Actor::Server => "nobody".to_owned(),
    };
    Ok(Registration {
        identity: Identity {
            serial: serial.transpose()?,
            uuid: uuid.transpose()?,
            macs: macs.collect::<Result<_, _>>()?,
        },
        hardware: crate::domain::Hardware::default(),
        hostname: wanted.hostname.as_deref().map(|name| name.parse::<Hostname>().map_err(bad)).transpose()?,
        states: wanted.states.as_deref().map(states).transpose()?.unwrap_or_else(States::new_host),
        metadata: fresh_metadata(wanted.metadata)?,
        why: format!("registered by {by}"),
    })
}
