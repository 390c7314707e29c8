//! `/api/v1/hosts/{host}/events` and `/api/v1/events`

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};

use crate::domain::{Event, HostId};
use crate::service::{HostsError, Selection};
use crate::store::{EventStream, Position, StreamError};
use crate::wire::{EventView, Page, UnreadableEvent};

use super::error::Refusal;
use super::parse::{bad, list_query};
use super::{Admin, Shared, view};

/// Events on a page, unless less is asked for.
const PAGE: u16 = 500;
/// Hosts that one stream may name.
const MOST_HOSTS: usize = 10_000;

pub(super) async fn timeline(
    State(admin): Shared,
    Path(host): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<EventView>>, Refusal> {
    let query = list_query(query.as_deref())?;
    let limit = u32::from(query.limit.unwrap_or(PAGE).clamp(1, PAGE));
    // The timeline of a forgotten host stays, under its number.
    let id = match (admin.service.find_one(&host).await, host.parse::<HostId>()) {
        (Ok(host), _) => host.id,
        (Err(HostsError::NotFound { .. }), Ok(id)) => id,
        (Err(error), _) => return Err(error.into()),
    };
    let events = admin.service.timeline(id, query.cursor.unwrap_or(1), limit).await?;
    if events.is_empty() && query.cursor.is_none() {
        return Err(HostsError::Gone(id).into());
    }
    let is_full = events.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = events.last().filter(|_| is_full).map(|last| last.seq.saturating_add(1).to_string());
    Ok(Json(Page { items: events.iter().map(|event| view::event(&admin.service, event)).collect(), next }))
}

/// Events of hosts as they happen. Each has its position as `id`; `Last-Event-ID` goes on behind it. When events may be
/// missing, `gap` says so, and the stream goes on with what happens from then on; `unreadable` stands for an event that is
/// damaged, and the stream goes on behind it.
pub(super) async fn stream(
    State(admin): Shared,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, Refusal> {
    let Selection { selectors, conditions } = list_query(query.as_deref())?.selection;
    let after = headers.get("last-event-id").map(|id| {
        let text = id.to_str().unwrap_or_default();
        text.parse::<Position>().map_err(bad)
    });
    let after = after.transpose()?;
    let ids = if selectors.is_empty() {
        None
    } else {
        let named = Selection { selectors, conditions: Vec::new() };
        let (hosts, more) = admin.service.find(&named, None, MOST_HOSTS).await?;
        if more.is_some() {
            return Err(bad(format_args!("a stream can follow {MOST_HOSTS} named hosts, or all")));
        }
        Some(hosts.iter().map(|host| host.id).collect())
    };
    let events = admin.service.store.subscribe(after);
    let shutdown = admin.shutdown.clone();
    let selection = Selection { selectors: Vec::new(), conditions };
    let follower = Follower { admin, events, ids, selection };
    let messages = stream::unfold(follower, Follower::next).take_until(shutdown.cancelled_owned());
    Ok(Sse::new(messages).keep_alive(KeepAlive::default()))
}

struct Follower {
    admin: Arc<Admin>,
    events: EventStream,
    /// None: every host.
    ids: Option<BTreeSet<HostId>>,
    selection: Selection,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Message, Infallible>, Self)> {
        loop {
            match self.events.next().await {
                Ok(committed) if self.wants(&committed.event).await => {
                    let data =
                        serde_json::to_string(&view::event(&self.admin.service, &committed.event)).unwrap_or_default();
                    let message = Message::default().event("event").id(committed.position.to_string()).data(data);
                    return Some((Ok(message), self));
                }
                Ok(_) => {}
                Err(StreamError::Resync) => {
                    self.events = self.admin.service.store.subscribe(None);
                    return Some((Ok(Message::default().event("gap").data("{}")), self));
                }
                Err(StreamError::Stopped) => return None,
                Err(StreamError::Record(lost)) => {
                    tracing::error!(host = %lost.host, seq = lost.seq, error = %lost, "an event cannot be read");
                    if self.ids.as_ref().is_none_or(|ids| ids.contains(&lost.host)) {
                        let lost = UnreadableEvent { host: lost.host.get(), seq: lost.seq, why: lost.to_string() };
                        let data = serde_json::to_string(&lost).unwrap_or_default();
                        return Some((Ok(Message::default().event("unreadable").data(data)), self));
                    }
                }
            }
        }
    }

    async fn wants(&self, event: &Event) -> bool {
        if self.ids.as_ref().is_some_and(|ids| !ids.contains(&event.host)) {
            return false;
        }
        if self.selection.conditions.is_empty() {
            return true;
        }
        let host = self.admin.service.store.host(event.host).await;
        host.is_ok_and(|host| host.is_some_and(|host| self.admin.service.agrees(&host, &self.selection.conditions)))
    }
}
