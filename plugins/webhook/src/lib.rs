//! Delivers committed events as signed POSTs.
//!
//! The invariant: an event counts as done only when the receiver said so (2xx) or when the configuration does not want it.
//! Events of a batch are sent one by one and in order, and what was not reached is delivered again by the server.
mod config;
mod delivery;

use kiwispray_sdk::{ConfigProblem, Description, Error, Event, Plugin, ask};

use crate::config::{Config, problems, schema};
use crate::delivery::{body, outcome, signature, signed};

/// With less time left, an answer might come after the call is over; the rest of a batch is left to the next call.
const ENOUGH_MS: u32 = 1_000;

struct Webhook;

impl Plugin for Webhook {
    fn describe() -> Description {
        Description::new("webhook", env!("CARGO_PKG_VERSION"), "Delivers committed events as signed POSTs")
            .config_schema(&schema())
            .event("*")
    }

    fn check_config(config: &str) -> Vec<ConfigProblem> {
        problems(config)
    }

    fn events(events: Vec<Event>) -> Result<u32, Error> {
        let config: Config = ask::config()?;
        let mut done = 0;
        for event in events {
            if done > 0 && ask::budget_ms() < ENOUGH_MS {
                break;
            }
            match deliver(&config, &event) {
                Ok(()) => done += 1,
                // Those before it are done; its own error is told when it comes first.
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

fn deliver(config: &Config, event: &Event) -> Result<(), Error> {
    if !config.wants(event)? {
        return Ok(());
    }
    let now_ms = ask::now_ms();
    let body = body(event)?.to_string().into_bytes();
    let hmac = ask::signing::hmac_sha256(&config.secret, &signed(now_ms / 1_000, &body))?;
    let answer = ask::http::post(&config.url)
        .header("content-type", "application/json")
        .header("x-kiwispray-event", &event.kind)
        .header("x-kiwispray-delivery", &event.id)
        .header("x-kiwispray-timestamp", (now_ms / 1_000).to_string())
        .header("x-kiwispray-signature", signature(&hmac))
        .timeout_ms(config.timeout_ms)
        .body(body)
        .send();
    outcome(answer, ask::attempt(), now_ms)
}

kiwispray_sdk::plugin!(Webhook: events);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use kiwispray_sdk::testing::{Core, event, host, response};
    use serde_json::json;

    use super::*;

    const CONFIG: &str = r#"{"url": "http://receiver/hook", "secret": "hook", "kinds": ["finished", "failed"]}"#;

    fn core() -> Core {
        Core::new().config(CONFIG).secret("hook", "key").now_ms(1_700_000_000_999).budget_ms(10_000)
    }

    fn batch(kinds: &[&str]) -> Vec<Event> {
        let numbered = |(seq, kind): (u64, &&str)| Event {
            id: format!("e{seq}"),
            host_seq: seq,
            ..event(kind, Some(host("web")))
        };
        (1..).zip(kinds).map(numbered).collect()
    }

    #[test]
    fn a_delivery_carries_kind_id_time_and_signature() {
        let core = core().http(|_| Ok(response(204, &json!(null))));
        assert_eq!(core.run(|| Webhook::events(batch(&["finished"]))), Ok(1));
        let sent = core.requests().remove(0);
        let header = |name: &str| sent.headers.iter().find(|(key, _)| key == name).unwrap().1.clone();
        assert_eq!((sent.method.as_str(), sent.url.as_str()), ("POST", "http://receiver/hook"));
        assert_eq!(header("x-kiwispray-event"), "finished");
        assert_eq!(header("x-kiwispray-delivery"), "e1");
        assert_eq!(header("x-kiwispray-timestamp"), "1700000000");
        let expected = core.run(|| {
            let body = sent.body.clone().unwrap();
            ask::signing::hmac_sha256("hook", &[b"1700000000.".as_slice(), body.as_slice()].concat()).unwrap()
        });
        assert_eq!(header("x-kiwispray-signature"), signature(&expected));
    }

    #[test]
    fn what_is_not_wanted_is_done_without_being_sent() {
        let core = core().http(|_| Ok(response(200, &json!({}))));
        assert_eq!(core.run(|| Webhook::events(batch(&["booted", "finished", "held", "failed"]))), Ok(4));
        assert_eq!(core.requests().len(), 2);
    }

    #[test]
    fn a_batch_ends_at_the_first_that_is_not_taken_and_its_error_comes_first_next_time() {
        let count = Cell::new(0);
        let core = core().http(move |_| {
            count.set(count.get() + 1);
            Ok(response(if count.get() == 3 { 503 } else { 200 }, &json!({})))
        });
        let events = batch(&["finished", "failed", "finished", "failed"]);
        assert_eq!(core.run(|| Webhook::events(events.clone())), Ok(2));
        assert_eq!(core.requests().len(), 3);
        assert_eq!(core.run(|| Webhook::events(events[2..].to_vec())), Ok(2));
        let refused = super::tests::core().http(|_| Ok(response(410, &json!({}))));
        assert!(matches!(refused.run(|| Webhook::events(events)), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_call_that_runs_out_of_time_leaves_the_rest() {
        let core = core().http(|_| Ok(response(200, &json!({})))).budget_ms(10);
        assert_eq!(core.run(|| Webhook::events(batch(&["finished"; 9]))), Ok(1));
    }

    #[test]
    fn without_the_secret_nothing_is_sent() {
        let core = Core::new().config(CONFIG).http(|_| Ok(response(200, &json!({}))));
        assert!(core.run(|| Webhook::events(batch(&["finished"]))).is_err());
        assert!(core.requests().is_empty());
    }

    #[test]
    fn hostile_text_stays_text() {
        let core = core().http(|_| Ok(response(200, &json!({}))));
        let mut event = batch(&["finished"]).remove(0);
        let text = "\"}],\u{0}\r\nX-Evil: 1 <script>";
        event.host.as_mut().unwrap().serial = text.to_owned();
        event.host.as_mut().unwrap().metadata = json!({ "a": [text, {"b": vec![0; 5_000]}] }).to_string();
        assert_eq!(core.run(|| Webhook::events(vec![event])), Ok(1));
        let sent: serde_json::Value = serde_json::from_slice(&core.requests()[0].body.clone().unwrap()).unwrap();
        assert_eq!(sent["host"]["serial"], text);
    }
}
