//! `kiwispray host events`

use std::cell::Cell;

use clap::Args;

use super::super::Context;
use super::super::client::{Client, Selection, with_query};
use super::super::error::Result;
use super::super::screen::{Format, Screen};
use super::super::stream::{News, follow, unreadable};
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
        let Some(name) = &self.host else { return follow_all(&client, screen).await };
        let id = number(&client, name).await?;
        if !self.follow {
            let events = timeline(&client, id).await?;
            return match screen.format {
                Format::Json => screen.json(&events),
                Format::Text => events.iter().try_for_each(|event| show(screen, event, false)),
            };
        }
        let selection = Selection { hosts: vec![id.to_string()], conditions: Vec::new() };
        let last_seq = Cell::new(0);
        let before = async || {
            let events = timeline(&client, id).await?;
            last_seq.set(events.last().map_or(0, |event| event.seq));
            events.iter().try_for_each(|event| show(screen, event, false))
        };
        follow(&client, screen, &selection, before, |news| match news {
            // It came in the timeline already.
            News::Event(event) if event.seq <= last_seq.get() => Ok(()),
            News::Event(event) => show(screen, &event, false),
            News::Unreadable(lost) => {
                screen.remark(&unreadable(&lost));
                Ok(())
            }
            News::Gap => {
                screen.remark(MISSED);
                Ok(())
            }
        })
        .await
    }
}

const MISSED: &str = "Some events were missed: kiwispray host events HOST shows them.";

async fn follow_all(client: &Client, screen: &Screen) -> Result {
    follow(
        client,
        screen,
        &Selection::default(),
        async || Ok(()),
        |news| match news {
            News::Event(event) => show(screen, &event, true),
            News::Unreadable(lost) => {
                screen.remark(&unreadable(&lost));
                Ok(())
            }
            News::Gap => {
                screen.remark(MISSED);
                Ok(())
            }
        },
    )
    .await
}

/// The number of a host, which may be forgotten by now if it is named by that.
async fn number(client: &Client, name: &str) -> Result<u64> {
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(one(client, name).await?.id),
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
