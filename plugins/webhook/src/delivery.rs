//! One delivery: what is sent, and what becomes of the answer.
//!
//! The invariant: the same event is the same body and the same delivery id at every try, so that a receiver can do things
//! once; only time and signature are fresh, so that it can refuse what is old.
use std::time::{Duration, UNIX_EPOCH};

use kiwispray_sdk::ask::http::{HttpError, Response};
use kiwispray_sdk::{Error, Event, RetryLater};
use serde_json::{Value, json};

/// Between tries, if the receiver names no time; doubles from try to try.
const RETRY_FIRST_MS: u64 = 2_000;
/// However long a receiver wants to be left alone.
const RETRY_MOST_MS: u64 = 60 * 60 * 1_000;
/// Of what a receiver says about a refusal.
const WORDS_MOST: usize = 200;

/// The body: the event, and the host as it is now.
///
/// # Errors
/// `invalid` when a document of it is no JSON, which the core does not send.
pub(crate) fn body(event: &Event) -> Result<Value, Error> {
    let host = match &event.host {
        None => Value::Null,
        Some(host) => json!({
            "id": host.id,
            "revision": host.revision,
            "hostname": host.hostname,
            "serial": host.serial,
            "uuid": host.uuid,
            "macs": host.macs,
            "states": host.states,
            "attempts": host.attempts,
            "metadata": host.metadata()?,
        }),
    };
    Ok(json!({
        "id": event.id,
        "seq": event.host_seq,
        "at_ms": event.at_ms,
        "kind": event.kind,
        "detail": event.detail()?,
        "host": host,
    }))
}

/// What is signed: the time in seconds, a dot, and the body as it is sent.
pub(crate) fn signed(timestamp_s: u64, body: &[u8]) -> Vec<u8> {
    [timestamp_s.to_string().as_bytes(), b".", body].concat()
}

/// `sha256=` and the signature in hex, as other senders of webhooks write it.
pub(crate) fn signature(hmac: &[u8]) -> String {
    let hex: String = hmac.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// Whether an event was delivered.
///
/// # Errors
/// `retry` for what may pass, `invalid` for what the receiver will refuse again, `failed` for what was not granted.
pub(crate) fn outcome(answer: Result<Response, HttpError>, attempt: u32, now_ms: u64) -> Result<(), Error> {
    match answer {
        Ok(response) => judge(&response, attempt, now_ms),
        // It answered, and would with the same length at every try: sent again and again, the event would arrive as often.
        Err(HttpError::TooLarge) => Err(Error::Invalid(
            "the receiver's answer is longer than the grant allows, so nobody knows whether it took the event: \
             raise max_response_bytes, or have it answer less"
                .into(),
        )),
        Err(HttpError::NotSent(why)) => retry(&format!("the receiver cannot be reached: {why}"), backoff_ms(attempt)),
        Err(HttpError::Unknown(why)) => retry(&format!("the receiver gave no answer: {why}"), backoff_ms(attempt)),
        Err(error @ (HttpError::Denied(_) | HttpError::Invalid(_))) => Err(error.into()),
    }
}

fn judge(response: &Response, attempt: u32, now_ms: u64) -> Result<(), Error> {
    let words: String = response.text().chars().filter(|character| !character.is_control()).take(WORDS_MOST).collect();
    let said = format!("the receiver answers {}: {words}", response.status);
    match response.status {
        200..300 => Ok(()),
        // Too early, too many, or not now.
        408 | 425 | 429 | 500.. => {
            let wish_ms = response.header("retry-after").and_then(|wish| retry_after_ms(wish, now_ms));
            retry(&said, wish_ms.unwrap_or_else(|| backoff_ms(attempt)))
        }
        300..400 => Err(Error::Invalid(format!("{said} (redirects are not followed: configure the address itself)"))),
        _ => Err(Error::Invalid(said)),
    }
}

fn retry(reason: &str, after_ms: u64) -> Result<(), Error> {
    let after_ms = u32::try_from(after_ms.min(RETRY_MOST_MS)).unwrap_or(u32::MAX);
    Err(Error::Retry(RetryLater { after_ms, reason: reason.to_owned() }))
}

fn backoff_ms(attempt: u32) -> u64 {
    RETRY_FIRST_MS.saturating_mul(1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX))
}

/// `Retry-After`: seconds, or a date.
fn retry_after_ms(text: &str, now_ms: u64) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let then = httpdate::parse_http_date(text).ok()?;
    let wait = then.duration_since(UNIX_EPOCH.checked_add(Duration::from_millis(now_ms))?).unwrap_or_default();
    u64::try_from(wait.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::{event, host};

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Result<Response, HttpError> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Response { status, headers, body: b"no\nthanks".to_vec() })
    }

    fn after_ms(answer: Result<Response, HttpError>, attempt: u32) -> u32 {
        // 1994-11-06 08:49:37 UTC
        match outcome(answer, attempt, 784_111_777_000) {
            Err(Error::Retry(later)) => later.after_ms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_success_is_done() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(outcome(answer(status, &[]), 1, 0), Ok(()));
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_later_and_later() {
        for status in [408, 425, 429, 500, 502, 503, 599] {
            assert_eq!(after_ms(answer(status, &[]), 1), 2_000);
        }
        assert_eq!(after_ms(answer(500, &[]), 4), 16_000);
        assert_eq!(after_ms(answer(500, &[]), 400), 3_600_000);
        assert_eq!(after_ms(Err(HttpError::NotSent("refused".into())), 2), 4_000);
        assert_eq!(after_ms(Err(HttpError::Unknown("time out".into())), 1), 2_000);
    }

    #[test]
    fn a_receiver_may_say_when() {
        assert_eq!(after_ms(answer(429, &[("Retry-After", " 7 ")]), 1), 7_000);
        assert_eq!(after_ms(answer(503, &[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")]), 1), 10_000);
        assert_eq!(after_ms(answer(503, &[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), 1), 0);
        assert_eq!(after_ms(answer(503, &[("retry-after", "99999999999999999999")]), 1), 2_000);
        assert_eq!(after_ms(answer(503, &[("retry-after", "999999999999")]), 1), 3_600_000);
        assert_eq!(after_ms(answer(503, &[("retry-after", "soon")]), 1), 2_000);
    }

    #[test]
    fn a_refusal_is_an_answer_with_the_receivers_words() {
        for status in [400, 401, 403, 404, 410, 422] {
            let Err(Error::Invalid(why)) = outcome(answer(status, &[]), 1, 0) else { panic!("{status}") };
            assert_eq!(why, format!("the receiver answers {status}: nothanks"));
        }
        assert!(matches!(outcome(answer(301, &[]), 1, 0), Err(Error::Invalid(why)) if why.contains("redirects")));
        assert!(matches!(outcome(Err(HttpError::Denied("no grant".into())), 1, 0), Err(Error::Failed(_))));
        let long = outcome(Err(HttpError::TooLarge), 1, 0);
        assert!(matches!(&long, Err(Error::Invalid(why)) if why.contains("max_response_bytes")), "{long:?}");
    }

    #[test]
    fn the_body_is_the_event_and_the_host_as_it_is_now() {
        let mut event = event("finished", Some(host("finished")));
        event.detail = r#"{"from":"web","to":"finished"}"#.into();
        let body = body(&event).unwrap();
        assert_eq!((&body["kind"], &body["detail"]["from"]), (&json!("finished"), &json!("web")));
        assert_eq!((&body["host"]["states"], &body["host"]["metadata"]), (&json!(["finished"]), &json!({})));
        event.host = None;
        assert!(super::body(&event).unwrap()["host"].is_null());
    }

    #[test]
    fn the_signature_covers_time_and_body_and_is_written_in_hex() {
        assert_eq!(signed(17, b"{}"), b"17.{}");
        assert_eq!(signature(&[0, 255, 16]), "sha256=00ff10");
    }
}
