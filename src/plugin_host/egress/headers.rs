//! Which headers a plugin may set and see.
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::plugin_host::contract::kiwispray::plugin::http::HttpError;

/// Headers of one request or answer.
const HEADERS_MAX: usize = 64;
/// Their names and values together.
const HEADERS_MAX_BYTES: usize = 32 << 10;

/// They say whom a message is for and where it ends. Two opinions on that are how requests are smuggled.
const OF_THE_CONNECTION: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header that a rule may add.
pub(super) fn addable(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    (!OF_THE_CONNECTION.contains(&name.as_str())).then_some(name)
}

/// The headers of a request: those of the guest, then those that the rule adds.
pub(super) fn outgoing(
    guest: &[(String, String)],
    added: &[(HeaderName, HeaderValue)],
) -> Result<HeaderMap, HttpError> {
    if guest.len() > HEADERS_MAX || bytes(guest.iter().map(|(name, value)| (name.len(), value.len()))) {
        return Err(HttpError::TooLarge);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in guest {
        let invalid = |what: &str| HttpError::Invalid(format!("`{}` is no {what}", name.escape_default()));
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("header"))?;
        if OF_THE_CONNECTION.contains(&parsed.as_str()) || added.iter().any(|(added, _)| *added == parsed) {
            return Err(HttpError::Denied(format!("the header `{parsed}` is the core's")));
        }
        headers.append(parsed, HeaderValue::from_str(value).map_err(|_| invalid("header with such a value"))?);
    }
    for (name, value) in added {
        headers.insert(name, value.clone());
    }
    Ok(headers)
}

/// The headers of an answer. One that repeats what the rule added is left out: the server may have sent it back.
pub(super) fn incoming(
    headers: &HeaderMap,
    added: &[(HeaderName, HeaderValue)],
) -> Result<Vec<(String, String)>, HttpError> {
    if headers.len() > HEADERS_MAX || bytes(headers.iter().map(|(name, value)| (name.as_str().len(), value.len()))) {
        return Err(HttpError::TooLarge);
    }
    let own = |name: &HeaderName, value: &HeaderValue| {
        added.iter().any(|(added, secret)| added == name || secret.as_bytes() == value.as_bytes())
    };
    let shown = headers.iter().filter(|(name, value)| !own(name, value));
    Ok(shown
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect())
}

/// Whether these are too many bytes.
fn bytes(mut headers: impl Iterator<Item = (usize, usize)>) -> bool {
    headers.try_fold(0, |sum, (name, value)| Some(sum + name + value).filter(|sum| *sum <= HEADERS_MAX_BYTES)).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing_of(name: &str, value: &str) -> Result<HeaderMap, HttpError> {
        let added = [(HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer s3cret"))];
        outgoing(&[(name.to_owned(), value.to_owned())], &added)
    }

    #[test]
    fn a_guest_sets_no_header_of_the_connection_or_the_rule() {
        for name in ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "Authorization", "Te", "Expect"] {
            assert!(matches!(outgoing_of(name, "x"), Err(HttpError::Denied(_))), "{name}");
        }
        let headers = outgoing_of("Accept", "application/json").unwrap();
        assert_eq!((headers.len(), &headers["authorization"]), (2, &HeaderValue::from_static("Bearer s3cret")));
    }

    #[test]
    fn a_header_cannot_carry_another_one() {
        for (name, value) in [("X-A", "1\r\nHost: b"), ("X-A\r\nHost", "b"), ("X A", "1"), ("", "1"), ("X-A", "\0")] {
            assert!(matches!(outgoing_of(name, value), Err(HttpError::Invalid(_))), "{name:?} {value:?}");
        }
    }

    #[test]
    fn too_many_headers_and_too_long_ones_are_too_large() {
        let many = vec![("x-a".to_owned(), "1".to_owned()); HEADERS_MAX + 1];
        assert!(matches!(outgoing(&many, &[]), Err(HttpError::TooLarge)));
        assert!(matches!(outgoing_of("x-a", &"1".repeat(HEADERS_MAX_BYTES)), Err(HttpError::TooLarge)));
    }

    #[test]
    fn an_answer_that_repeats_a_secret_header_does_not_show_it() {
        let added = [(HeaderName::from_static("x-token"), HeaderValue::from_static("s3cret"))];
        let mut headers = HeaderMap::new();
        headers.insert("x-token", HeaderValue::from_static("anything"));
        headers.insert("x-echo", HeaderValue::from_static("s3cret"));
        headers.insert("x-plain", HeaderValue::from_static("yes"));
        assert_eq!(incoming(&headers, &added).unwrap(), [("x-plain".to_owned(), "yes".to_owned())]);
    }
}
