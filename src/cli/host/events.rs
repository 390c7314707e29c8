//! `kiwispray host events`

use clap::Args;

use super::super::Context;
use super::super::client::{Client, Selection, with_query};
use super::super::error::Result;
use super::super::screen::{Format, Screen};
use super::super::stream::{News, follow};
use super::super::table::event;
use super::one;
use crate::wire::{EventView, Page};

/// Shows a timeline.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The host; with --follow none means all
    #[arg(required_unless_present = "follow")]
    host: Option<String>,
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
}

impl Events {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let mut selection = Selection::default();
        let mut last_seq = 0;
        if let Some(name) = &self.host {
            let host = one(&client, name).await?;
            let events = timeline(&client, host.id).await?;
            last_seq = events.last().map_or(0, |event| event.seq);
            selection.hosts.push(host.id.to_string());
            match (screen.format, self.follow) {
                (Format::Json, false) => screen.json(&events)?,
                (Format::Json, true) | (Format::Text, _) => {
                    events.iter().try_for_each(|event| show(screen, event, false))?;
                }
            }
        }
        if !self.follow {
            return Ok(());
        }
        let is_one = self.host.is_some();
        follow(&client, screen, &selection, |news| match news {
            // Between reading the timeline and following it, an event may come both ways.
            News::Event(event) if is_one && event.seq <= last_seq => Ok(()),
            News::Event(event) => show(screen, &event, !is_one),
            News::Gap => {
                screen.remark("Some events were missed: kiwispray host events HOST shows them.");
                Ok(())
            }
        })
        .await
    }
}

/// Every event of a host.
async fn timeline(client: &Client, id: u64) -> Result<Vec<EventView>> {
    let mut events: Vec<EventView> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let query = cursor.iter().map(|cursor| ("cursor", cursor.as_str()));
        let page: Page<EventView> = client.get(&with_query(&format!("/api/v1/hosts/{id}/events"), query)).await?;
        events.extend(page.items);
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(events),
        }
    }
}

/// One line of a timeline; JSON one document a line, so that a stream can be read as it comes.
pub(super) fn show(screen: &Screen, view: &EventView, with_host: bool) -> Result {
    match screen.format {
        Format::Json => screen.json_line(view),
        Format::Text => screen.line(&event(view, with_host, screen.look())),
    }
}
