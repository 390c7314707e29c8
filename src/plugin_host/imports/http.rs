//! The imports `http` and `signing`.
use super::Answer;
use crate::plugin_host::contract::kiwispray::plugin::http::{self, HttpError, Request, Response};
use crate::plugin_host::contract::kiwispray::plugin::signing::{self, SigningError};
use crate::plugin_host::sandbox::CallState;

impl http::Host for CallState {
    async fn send(&mut self, request: Request) -> Answer<Response, HttpError> {
        let bytes = request.url.len() + request.body.map_or(0, |body| body.len());
        self.ask(bytes, async { Err(HttpError::Denied("http is not offered yet".to_owned())) }).await
    }
}

impl signing::Host for CallState {
    async fn hmac_sha256(&mut self, secret: String, data: Vec<u8>) -> Answer<Vec<u8>, SigningError> {
        self.ask(secret.len() + data.len(), async { Err(SigningError::NotFound) }).await
    }
}
