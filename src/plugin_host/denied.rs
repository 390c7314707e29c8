//! Interfaces of the contract that this server does not offer yet. They link, so that a plugin which could use them loads, and
//! answer `denied`, which is what they answer inside decision hooks in any case.
use super::contract::kiwispray::plugin::{hosts, http, kv, signing, types};
use super::sandbox::CallState;

const DENIED: &str = "not offered in this hook";

type Answer<T, E> = wasmtime::Result<Result<T, E>>;

impl CallState {
    fn deny<T, E>(&mut self, bytes: usize, error: impl FnOnce(String) -> E) -> Answer<T, E> {
        self.pay(bytes)?;
        Ok(Err(error(DENIED.to_owned())))
    }
}

impl hosts::Host for CallState {
    async fn get(&mut self, _id: u64) -> Answer<types::KnownHost, hosts::HostsError> {
        self.deny(0, hosts::HostsError::Denied)
    }

    async fn find(
        &mut self,
        key: String,
        value: String,
        _after: Option<u64>,
        _limit: u32,
    ) -> Answer<hosts::HostPage, hosts::HostsError> {
        self.deny(key.len() + value.len(), hosts::HostsError::Denied)
    }

    async fn page(&mut self, _after: Option<u64>, _limit: u32) -> Answer<hosts::HostPage, hosts::HostsError> {
        self.deny(0, hosts::HostsError::Denied)
    }

    async fn apply(
        &mut self,
        _id: u64,
        _revision: u64,
        _patch: types::Patch,
    ) -> Answer<types::KnownHost, hosts::HostsError> {
        self.deny(0, hosts::HostsError::Denied)
    }
}

impl kv::Host for CallState {
    async fn get(&mut self, key: String) -> Answer<Option<kv::Entry>, kv::KvError> {
        self.deny(key.len(), kv::KvError::Denied)
    }

    async fn put(&mut self, key: String, value: Vec<u8>, _expect: kv::Expect) -> Answer<u64, kv::KvError> {
        self.deny(key.len() + value.len(), kv::KvError::Denied)
    }

    async fn delete(&mut self, key: String, _expect: kv::Expect) -> Answer<(), kv::KvError> {
        self.deny(key.len(), kv::KvError::Denied)
    }

    async fn list(&mut self, prefix: String, _after: Option<String>, _limit: u32) -> Answer<Vec<String>, kv::KvError> {
        self.deny(prefix.len(), kv::KvError::Denied)
    }
}

impl http::Host for CallState {
    async fn send(&mut self, request: http::Request) -> Answer<http::Response, http::HttpError> {
        self.deny(request.url.len() + request.body.map_or(0, |body| body.len()), http::HttpError::Denied)
    }
}

impl signing::Host for CallState {
    async fn hmac_sha256(&mut self, secret: String, data: Vec<u8>) -> Answer<Vec<u8>, signing::SigningError> {
        self.deny(secret.len() + data.len(), signing::SigningError::Denied)
    }
}
