//! The imports `http` and `signing`.
use super::Answer;
use crate::plugin_host::contract::kiwispray::plugin::http::{self, HttpError, Request, Response};
use crate::plugin_host::contract::kiwispray::plugin::signing::{self, SigningError};
use crate::plugin_host::sandbox::CallState;

impl http::Host for CallState {
    async fn send(&mut self, request: Request) -> Answer<Response, HttpError> {
        let (reach, left) = (self.reach(), self.left());
        let headers = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let bytes = request.url.len() + headers + request.body.as_ref().map_or(0, Vec::len);
        let question = self.question("http.send", bytes, &(&request,));
        let answer = async {
            let reach = reach?;
            reach.egress.send(&reach.allowance, left, request).await
        };
        self.ask(question, answer).await
    }
}

impl signing::Host for CallState {
    async fn hmac_sha256(&mut self, secret: String, data: Vec<u8>) -> Answer<Vec<u8>, SigningError> {
        let reach = self.reach();
        let bytes = secret.len() + data.len();
        let question = self.question("signing.hmac-sha256", bytes, &(&secret, &data));
        self.ask(question, async { reach?.keys.hmac_sha256(&secret, &data).ok_or(SigningError::NotFound) }).await
    }
}
