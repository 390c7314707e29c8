//! Follows the event stream, over interruptions.

use std::time::Duration;

use futures_util::{Stream, StreamExt};

use super::client::{Client, Selection, with_query};
use super::error::{CliError, Exit, Result};
use super::screen::Screen;
use crate::wire::{EventView, UnreadableEvent};

/// How long to wait before connecting again.
const PAUSE: Duration = Duration::from_secs(1);

/// What came over the stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    /// An event.
    Event(EventView),
    /// An event that is damaged in the store; the stream goes on behind it.
    Unreadable(UnreadableEvent),
    /// Events may have been missed: what was known is stale.
    Gap,
}

/// What is said of an event that is damaged.
pub(crate) fn unreadable(lost: &UnreadableEvent) -> String {
    let UnreadableEvent { host, seq, why } = lost;
    format!("Event {seq} of host {host} is damaged and was left out ({why}): kiwispray fsck tells more.")
}

/// One message of a stream (WHATWG, server-sent events).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Message {
    id: Option<String>,
    event: String,
    data: String,
}

/// Calls `opened` once the stream stands, so that what is read then and what comes leave no gap; then `take` for
/// everything that happens, until it fails.
pub(crate) async fn follow(
    client: &Client,
    screen: &Screen,
    selection: &Selection,
    opened: impl AsyncFnOnce() -> Result,
    mut take: impl FnMut(News) -> Result,
) -> Result {
    let hosts = selection.hosts.iter().map(|host| ("host", host.as_str()));
    let conditions = selection.conditions.iter().map(|condition| ("where", condition.as_str()));
    let path = with_query("/api/v1/events", hosts.chain(conditions));
    let mut last = None;
    let mut opened = Some(opened);
    loop {
        match client.stream(&path, last.as_deref()).await {
            Ok(pieces) => {
                if let Some(opened) = opened.take() {
                    opened().await?;
                }
                match listen(pieces, &mut last, &mut take).await {
                    // The server was stopped, or its machine went away: it may come back.
                    Ok(()) => screen.remark("The server ended the stream; waiting for it."),
                    Err(error) if error.exit == Exit::Unreachable => {
                        screen.remark(&format!("{error}; waiting for it."));
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) if error.exit == Exit::Unreachable && opened.is_none() => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(
    mut pieces: impl Stream<Item = Result<bytes::Bytes>> + Unpin,
    last: &mut Option<String>,
    take: &mut impl FnMut(News) -> Result,
) -> Result {
    let mut buffer = Vec::new();
    while let Some(piece) = pieces.next().await {
        buffer.extend_from_slice(&piece?);
        while let Some(message) = next_message(&mut buffer) {
            match message.event.as_str() {
                "event" => {
                    let event = serde_json::from_str(&message.data)
                        .map_err(|error| CliError::failed(format!("an event that cannot be read: {error}")))?;
                    take(News::Event(event))?;
                }
                "unreadable" => {
                    let lost = serde_json::from_str(&message.data)
                        .map_err(|error| CliError::failed(format!("an event that cannot be read: {error}")))?;
                    take(News::Unreadable(lost))?;
                }
                "gap" => take(News::Gap)?,
                // A newer server may say more.
                _ => {}
            }
            if message.id.is_some() {
                *last = message.id;
            }
        }
    }
    Ok(())
}

/// Takes the first whole message out of the buffer.
fn next_message(buffer: &mut Vec<u8>) -> Option<Message> {
    let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
    let text: Vec<u8> = buffer.drain(..end.saturating_add(2)).collect();
    let mut message = Message::default();
    for line in String::from_utf8_lossy(&text).lines() {
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => message.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut message.event),
            "data" => message.data.push_str(value),
            _ => {}
        }
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_at_blank_lines_and_kept_until_whole() {
        let mut buffer = b"id: 7\nevent: event\ndata: {}\n\n: alive\n\nevent: ga".to_vec();
        let first = Message { id: Some("7".into()), event: "event".into(), data: "{}".into() };
        assert_eq!(next_message(&mut buffer), Some(first));
        assert_eq!(next_message(&mut buffer), Some(Message::default()));
        assert_eq!(next_message(&mut buffer), None);
        buffer.extend_from_slice(b"p\n\n");
        assert_eq!(next_message(&mut buffer).unwrap().event, "gap");
        assert!(buffer.is_empty());
    }
}
