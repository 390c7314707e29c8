//! Stands in for all other servers, for authors of plugins: what may be sent is checked as ever, and nothing is sent.
use crate::plugin_host::contract::kiwispray::plugin::http::{HttpError, Request, Response};

/// Answers what plugins send.
pub trait Script: Send + Sync {
    /// What becomes of a request that a rule covers.
    ///
    /// # Errors
    /// There is no answer.
    fn answer(&self, request: ScriptedRequest) -> Result<ScriptedResponse, ScriptedFailure>;
}

/// What a plugin sends, without the headers that a rule would add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptedRequest {
    /// Upper case.
    pub method: String,
    /// As the plugin wrote it.
    pub url: String,
    /// In the order they were given.
    pub headers: Vec<(String, String)>,
    /// None: there is no body.
    pub body: Option<Vec<u8>>,
}

/// What another server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the part of the same name")]
pub struct ScriptedResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Why another server does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptedFailure {
    /// Nothing reached it.
    NotSent(String),
    /// It may have acted on the request.
    Unknown(String),
}

/// What a guest gets for a request that was checked.
pub(super) fn play(script: &dyn Script, request: Request) -> Result<Response, HttpError> {
    let Request { method, url, headers, body, timeout_ms: _ } = request;
    match script.answer(ScriptedRequest { method, url, headers, body }) {
        Ok(ScriptedResponse { status, headers, body }) => Ok(Response { status, headers, body }),
        Err(ScriptedFailure::NotSent(why)) => Err(HttpError::NotSent(why)),
        Err(ScriptedFailure::Unknown(why)) => Err(HttpError::Unknown(why)),
    }
}
