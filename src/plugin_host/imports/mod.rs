//! What guests may ask. Shims here only translate: whether a question is allowed, the core decides by the call's `Allowance`.
//!
//! Invariant: every question goes through [`CallState::ask`] or [`CallState::tell`], so it is paid for, and so is its answer.
use std::sync::Arc;

use bytes::Bytes;

use super::contract::kiwispray::plugin as wit;
use super::sandbox::{CallState, Reach};

mod bytes;
mod call;
mod catalog;
mod hosts;
mod http;
mod kv;

/// What an import answers; the outer error ends the call.
type Answer<T, E> = wasmtime::Result<Result<T, E>>;

/// Nothing can be reached in this call.
struct Unreachable;

const UNREACHABLE: &str = "nothing can be asked while a plugin is loaded";

impl wit::types::Host for CallState {}

impl CallState {
    /// Asks the core. The answer, as the guest sees it, is a future that does nothing before the question was paid for.
    async fn ask<T: Bytes>(&mut self, bytes: usize, answer: impl Future<Output = T> + Send) -> wasmtime::Result<T> {
        self.pay(bytes)?;
        let answer = answer.await;
        self.pay_bytes(answer.bytes())?;
        Ok(answer)
    }

    /// Answers from what is known about this call.
    fn tell<T: Bytes>(&mut self, bytes: usize, answer: impl FnOnce(&mut Self) -> T) -> wasmtime::Result<T> {
        self.pay(bytes)?;
        let answer = answer(self);
        self.pay_bytes(answer.bytes())?;
        Ok(answer)
    }

    fn reach(&self) -> Result<Arc<Reach>, Unreachable> {
        self.reach.clone().ok_or(Unreachable)
    }
}

macro_rules! denied_when_unreachable {
    ($($error:ty),*) => { $(
        impl From<Unreachable> for $error {
            fn from(_: Unreachable) -> Self {
                Self::Denied(UNREACHABLE.to_owned())
            }
        }
    )* };
}
denied_when_unreachable!(
    wit::catalog::CatalogError,
    wit::hosts::HostsError,
    wit::kv::KvError,
    wit::http::HttpError,
    wit::signing::SigningError
);
