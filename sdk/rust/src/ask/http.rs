//! Other servers, with the grant `http`: in `events` and `schedule` only. The core adds the headers with secrets that the
//! operator wrote into the grant; redirects are answers like any other.
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::bindings::http as types;
pub use crate::bindings::http::{HttpError, Response};

#[cfg(not(target_family = "wasm"))]
use crate::testing::http as core;
#[cfg(target_family = "wasm")]
use types as core;

use super::retry;

/// A request to be sent: `http::get(url).header("accept", "application/json").send()?`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Absolute.
    pub url: String,
    /// In the order they were added.
    pub headers: Vec<(String, String)>,
    /// None: no body at all.
    pub body: Option<Vec<u8>>,
    /// None: what the grant and the call's budget allow.
    pub timeout_ms: Option<u32>,
    /// Why it cannot be sent: its body is no JSON.
    unfit: Option<String>,
}

/// A `GET`.
#[must_use]
pub fn get(url: impl Into<String>) -> Request {
    request("GET", url)
}

/// A `POST`.
#[must_use]
pub fn post(url: impl Into<String>) -> Request {
    request("POST", url)
}

/// A `PATCH`.
#[must_use]
pub fn patch(url: impl Into<String>) -> Request {
    request("PATCH", url)
}

/// A `PUT`.
#[must_use]
pub fn put(url: impl Into<String>) -> Request {
    request("PUT", url)
}

/// A `DELETE`.
#[must_use]
pub fn delete(url: impl Into<String>) -> Request {
    request("DELETE", url)
}

/// A request with any method.
#[must_use]
pub fn request(method: impl Into<String>, url: impl Into<String>) -> Request {
    let (method, url) = (method.into(), url.into());
    Request { method, url, headers: Vec::new(), body: None, timeout_ms: None, unfit: None }
}

impl Request {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends JSON, and says so in `content-type`.
    #[must_use]
    pub fn json<T: Serialize>(mut self, body: &T) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => self.body = Some(body),
            Err(error) => self.unfit = Some(error.to_string()),
        }
        self.header("content-type", "application/json")
    }

    /// Sends bytes.
    #[must_use]
    pub fn body(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }

    /// Waits this long at most.
    #[must_use]
    pub fn timeout_ms(mut self, ms: u32) -> Self {
        self.timeout_ms = Some(ms);
        self
    }

    /// Sends it. Every status is an answer, see [`Response::is_success`].
    ///
    /// # Errors
    /// `NotSent` is safe to send again; after `Unknown` the other side may have acted. `Denied` when no grant covers it or
    /// this hook may not use http; `Invalid`, `TooLarge`.
    pub fn send(self) -> Result<Response, HttpError> {
        if let Some(why) = self.unfit {
            return Err(HttpError::Invalid(format!("the body is no JSON: {why}")));
        }
        let Self { method, url, headers, body, timeout_ms, unfit: _ } = self;
        core::send(&types::Request { method, url, headers, body, timeout_ms })
    }

    /// What the core is sent, as it was built.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn from_sent(sent: &types::Request) -> Self {
        let types::Request { method, url, headers, body, timeout_ms } = sent.clone();
        Self { method, url, headers, body, timeout_ms, unfit: None }
    }
}

impl Response {
    /// Whether the status is one from 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of a name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// `failed` when it is not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::Failed(format!("an answer with status {} does not fit: {error}", self.status)))
    }

    /// The body as text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl From<HttpError> for Error {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Denied(why) => Self::Failed(format!("may not send that: {why}")),
            HttpError::Invalid(why) => Self::Failed(format!("made a request that is none: {why}")),
            HttpError::NotSent(why) => retry(format!("a server cannot be reached: {why}")),
            HttpError::Unknown(why) => retry(format!("a server gave no answer: {why}")),
            HttpError::TooLarge => Self::Failed("an answer is too large".into()),
        }
    }
}
