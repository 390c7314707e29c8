//! What goes wrong with NetBox, sorted by what helps: time, an operator, or reading the device again.
//!
//! NetBox answers 403 to everything that is wrong with a token; only the words of `detail` tell which it is.

use kiwispray_sdk::ask::http::{HttpError, Response};
use kiwispray_sdk::{Error, RetryLater};
use serde_json::Value;

/// How long to wait for a NetBox that is away and does not say how long.
const AWAY_MS: u32 = 15_000;
/// Bounds of what it may say.
const WAIT_MS: (u32, u32) = (1_000, 3_600_000);
/// Characters of NetBox's words that are passed on.
const WORDS_CHARS: usize = 300;

/// Why NetBox did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is down or busy: the same helps later.
    Away { after_ms: u32, reason: String },
    /// It will not, until somebody changes token, permissions, configuration or grant; which, in a sentence.
    Refused(String),
    /// The object is not there.
    Gone,
    /// The object has changed since it was read.
    Changed,
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Away { after_ms, reason } => Self::Retry(RetryLater { after_ms, reason }),
            // An answer, not a fault of the plugin: the breaker stays closed and the next period tries again.
            Trouble::Refused(why) => Self::Invalid(why),
            Trouble::Gone => Self::Invalid("NetBox no longer has the device".into()),
            Trouble::Changed => {
                Self::Retry(RetryLater { after_ms: WAIT_MS.0, reason: "the device has changed".into() })
            }
        }
    }
}

/// Nothing came back. `what`: what was wanted, as `read devices`.
pub(crate) fn unanswered(error: HttpError, what: &str) -> Trouble {
    match error {
        HttpError::NotSent(why) | HttpError::Unknown(why) => {
            Trouble::Away { after_ms: AWAY_MS, reason: format!("NetBox cannot be reached to {what}: {}", shown(&why)) }
        }
        HttpError::Denied(why) => Trouble::Refused(format!("the plugin was not granted to {what}: {}", shown(&why))),
        HttpError::Invalid(why) => Trouble::Refused(format!("`url` leads nowhere: {}", shown(&why))),
        HttpError::TooLarge => Trouble::Refused(format!(
            "NetBox's answer is too large to {what}: lower `page_size` or raise the grant's limit"
        )),
    }
}

/// The JSON of a good answer. `needs`: the permission without which this is refused, as `view on dcim.device`.
pub(crate) fn read(response: &Response, what: &str, needs: &str) -> Result<Value, Trouble> {
    let body: Option<Value> = serde_json::from_slice(&response.body).ok();
    let is_json = body.is_some();
    let body = body.unwrap_or_default();
    let detail = body.get("detail").and_then(Value::as_str).unwrap_or_default();
    let status = response.status;
    let refused = |why: String| Err(Trouble::Refused(why));
    match status {
        200..=299 if is_json => Ok(body),
        429 | 500..=599 | 408 => {
            let why = if status == 429 { "asks to be asked less often" } else { "has trouble of its own" };
            let reason = format!("NetBox {why} (status {status}, to {what})");
            Err(Trouble::Away { after_ms: wait_ms(response), reason })
        }
        404 if is_json => Err(Trouble::Gone),
        412 => Err(Trouble::Changed),
        401 | 403 if is_json => refused(forbidden(detail, what, needs)),
        400..=499 if is_json => refused(format!("NetBox will not {what}: {}", shown(&body.to_string()))),
        300..=399 => {
            refused(format!("NetBox redirects elsewhere (status {status}) to {what}: is `url` as NetBox calls itself?"))
        }
        _ => refused(format!("no NetBox answers at `url` (status {status}, to {what}): {}", kind_of(response))),
    }
}

/// A 403 in a sentence that names the remedy.
fn forbidden(detail: &str, what: &str, needs: &str) -> String {
    let known = |word: &str| detail.to_ascii_lowercase().contains(word);
    let remedy = if known("credentials were not provided") {
        "no token came along: name the header Authorization in the plugin's grant, as `Bearer nbt_…` or `Token …`"
            .into()
    } else if known("source ip") {
        "the token does not allow this server's address: see `allowed IPs` of the token".into()
    } else if known("expired") {
        "the token has expired: make a new one".into()
    } else if known("disabled") || known("inactive") {
        "the token or its user is disabled".into()
    } else if known("invalid") {
        "it does not know the token: compare the file that the grant names with NetBox's".into()
    } else if known("permission") {
        format!("the token's user needs the permission `{needs}`, and the token must be allowed to write for that")
    } else {
        format!("the token's user may lack the permission `{needs}`")
    };
    let remedy = if needs.starts_with("view") {
        remedy.replace(", and the token must be allowed to write for that", "")
    } else {
        remedy
    };
    format!("NetBox will not {what}: {remedy} (it says: {})", shown(detail))
}

/// What `Retry-After` says in seconds, within reason. A date there is not read.
fn wait_ms(response: &Response) -> u32 {
    let seconds = response.header("retry-after").and_then(|text| text.trim().parse::<u32>().ok());
    seconds.map_or(AWAY_MS, |seconds| seconds.saturating_mul(1_000).clamp(WAIT_MS.0, WAIT_MS.1))
}

fn kind_of(response: &Response) -> String {
    let kind = response.header("content-type").unwrap_or("nothing that is said");
    format!("it sends {}", shown(kind))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::response;
    use serde_json::json;

    use super::*;

    fn words(trouble: Result<Value, Trouble>) -> String {
        match trouble.unwrap_err() {
            Trouble::Refused(why) => why,
            other @ (Trouble::Away { .. } | Trouble::Gone | Trouble::Changed) => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_403_names_its_own_remedy() {
        for (detail, word) in [
            ("Invalid v2 token", "does not know the token"),
            ("Invalid v1 token", "does not know the token"),
            ("Token disabled", "disabled"),
            ("Token expired", "expired"),
            ("User inactive", "disabled"),
            ("Source IP 127.0.0.1 is not permitted to authenticate using this token.", "allowed IPs"),
            ("Authentication credentials were not provided.", "Authorization"),
            ("You do not have permission to perform this action.", "`change on dcim.device`"),
            ("Nein.", "may lack"),
        ] {
            let answer = read(&response(403, &json!({"detail": detail})), "change device 3", "change on dcim.device");
            let said = words(answer);
            assert!(said.contains(word) && said.contains(detail), "{said}");
        }
    }

    #[test]
    fn a_token_that_may_not_write_is_hinted_at_only_where_something_is_written() {
        let denied = response(403, &json!({"detail": "You do not have permission to perform this action."}));
        assert!(words(read(&denied, "change device 3", "change on dcim.device")).contains("allowed to write"));
        assert!(!words(read(&denied, "read devices", "view on dcim.device")).contains("allowed to write"));
    }

    #[test]
    fn a_busy_or_broken_netbox_is_asked_again_when_it_says() {
        let mut busy = response(429, &json!({"detail": "Request was throttled."}));
        for (header, after) in
            [("7", 7_000), ("0", 1_000), ("9999999999", AWAY_MS), ("99999", 3_600_000), ("soon", AWAY_MS)]
        {
            busy.headers = vec![("Retry-After".into(), header.into())];
            let Err(Trouble::Away { after_ms, .. }) = read(&busy, "read devices", "") else { panic!("{header}") };
            assert_eq!(after_ms, after, "{header}");
        }
        let html = Response { status: 502, headers: vec![], body: b"<html>Bad Gateway".to_vec() };
        assert!(matches!(read(&html, "read devices", ""), Err(Trouble::Away { .. })));
        assert!(matches!(unanswered(HttpError::Unknown("reset".into()), "x"), Trouble::Away { .. }));
    }

    #[test]
    fn what_is_no_netbox_is_said_so() {
        for status in [200, 404, 403, 400] {
            let headers = vec![("content-type".into(), "text/html".into())];
            let page = Response { status, headers, body: b"<!DOCTYPE html><html>".to_vec() };
            let said = words(read(&page, "read devices", ""));
            assert!(said.contains("no NetBox") && said.contains("text/html"), "{said}");
        }
        let moved = Response { status: 301, headers: vec![], body: vec![] };
        assert!(words(read(&moved, "read devices", "")).contains("redirects"));
    }

    #[test]
    fn gone_and_changed_are_told_apart() {
        assert_eq!(read(&response(404, &json!({"detail": "No Device"})), "", ""), Err(Trouble::Gone));
        assert_eq!(read(&response(412, &json!({"detail": "Precondition failed."})), "", ""), Err(Trouble::Changed));
    }

    #[test]
    fn only_what_time_helps_is_retried() {
        assert!(
            matches!(Error::from(Trouble::Away { after_ms: 5, reason: "x".into() }), Error::Retry(l) if l.after_ms == 5)
        );
        assert!(matches!(Error::from(Trouble::Refused("x".into())), Error::Invalid(_)));
    }
}
