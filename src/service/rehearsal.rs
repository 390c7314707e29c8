//! What all hosts would be answered: as plugins are bound now, and with others.
//!
//! Invariant: nothing comes of it. Every host is asked about with breakers of its own, so that each answer is the plugins'
//! and no fault is held against those that are bound.
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};

use crate::domain::{Host, HostId};
use crate::hooks::{Hooks, Trace, TraceResult};
use crate::render::BaseUrl;

use super::{Decision, HostsError, Preview, Selection, Service};

/// Hosts that are asked about at the same time. Real boots have most of the server to themselves.
const AT_ONCE: usize = 4;
/// Hosts that are read at once.
const PAGE: usize = 200;

/// One host of a rehearsal.
#[derive(Debug, Clone)]
pub struct Rehearsed {
    /// The host.
    pub host: Host,
    /// What it would be answered now.
    pub before: Decision,
    /// What it would be answered with the other plugins.
    pub after: Decision,
    /// The first failure of a plugin on the way to it.
    pub error: Option<String>,
    /// How long the plugins took, in microseconds.
    pub took_us: u64,
}

impl Service {
    /// How many hosts there may be: an upper bound that costs nothing to know is not to be had, so they are counted.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn count_hosts(&self) -> Result<u64, HostsError> {
        let (mut count, mut after) = (0_u64, None);
        loop {
            let (hosts, next) = self.find(&Selection::default(), after, PAGE).await?;
            count = count.saturating_add(hosts.len() as u64);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(count),
            }
        }
    }

    /// Asks about every host, in the order of their numbers. None as `with`: only as plugins are bound now.
    pub fn rehearse_all(
        self: Arc<Self>,
        with: Option<Hooks>,
        base: BaseUrl,
    ) -> impl Stream<Item = Result<Rehearsed, HostsError>> + Send {
        let (now, with) = (self.hooks(), with.map(Arc::new));
        let service = Arc::clone(&self);
        hosts(self)
            .map(move |host| {
                let (service, now, with, base) = (Arc::clone(&service), Arc::clone(&now), with.clone(), base.clone());
                async move { Ok(service.rehearse_twice(&now, with.as_deref(), host?, &base).await) }
            })
            .buffered(AT_ONCE)
    }

    async fn rehearse_twice(&self, now: &Hooks, with: Option<&Hooks>, host: Host, base: &BaseUrl) -> Rehearsed {
        let before = self.rehearse_with(&now.rehearsing(), host.clone(), base).await;
        let after = match with {
            Some(with) => self.rehearse_with(&with.rehearsing(), host.clone(), base).await,
            None => before.clone(),
        };
        let Preview { decision, trace, .. } = after;
        let trace = trace.unwrap_or_default();
        let took_us = trace.steps.iter().fold(0_u64, |sum, step| sum.saturating_add(step.took_us));
        Rehearsed { host, before: before.decision, after: decision, error: first_error(&trace), took_us }
    }
}

/// All hosts, page by page.
fn hosts(service: Arc<Service>) -> impl Stream<Item = Result<Host, HostsError>> + Send {
    type Place = Option<Option<HostId>>;
    let pages = stream::try_unfold(Some(None), move |place: Place| {
        let service = Arc::clone(&service);
        async move {
            let Some(after) = place else { return Ok::<_, HostsError>(None) };
            let (hosts, next) = service.find(&Selection::default(), after, PAGE).await?;
            Ok(Some((hosts, next.map(Some))))
        }
    });
    pages.flat_map(|page| match page {
        Ok(hosts) => stream::iter(hosts.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    })
}

fn first_error(trace: &Trace) -> Option<String> {
    trace.steps.iter().find_map(|step| match &step.result {
        TraceResult::Error { message, .. } => Some(format!("{} {message}", step.plugin)),
        TraceResult::Pass
        | TraceResult::Image { .. }
        | TraceResult::Template { .. }
        | TraceResult::LocalDisk
        | TraceResult::Hold { .. }
        | TraceResult::Admit
        | TraceResult::Refuse { .. }
        | TraceResult::Variables { .. }
        | TraceResult::Allow
        | TraceResult::Redirect { .. }
        | TraceResult::Deny { .. } => None,
    })
}
