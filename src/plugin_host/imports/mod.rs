//! What guests may ask. Shims here only translate: whether a question is allowed, the core decides by the call's `Allowance`.
//!
//! Invariant: every question goes through [`CallState::ask`] or [`CallState::tell`], so it is paid for, and so is its answer.
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::contract::kiwispray::plugin as wit;
use super::deck::Question;
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
    /// A question, with what it weighs and the tuple of its arguments.
    fn question(&self, import: &'static str, bytes: usize, arguments: &impl Serialize) -> Question {
        self.deck.question(import, bytes, arguments)
    }

    /// Asks the core. The answer, as the guest sees it, is a future that does nothing before the question was paid for.
    async fn ask<T: Bytes + Serialize + DeserializeOwned>(
        &mut self,
        question: Question,
        answer: impl Future<Output = T> + Send,
    ) -> wasmtime::Result<T> {
        self.pay(question.bytes)?;
        let answer = match self.deck.played(&question)? {
            Some(played) => played,
            None => answer.await,
        };
        self.pay_bytes(answer.bytes())?;
        self.deck.record(question, &answer);
        Ok(answer)
    }

    /// Answers from what is known about this call. What it writes down about the call it does in a replay, too.
    fn tell<T: Bytes + Serialize + DeserializeOwned>(
        &mut self,
        question: Question,
        answer: impl FnOnce(&mut Self) -> T,
    ) -> wasmtime::Result<T> {
        self.pay(question.bytes)?;
        let played = self.deck.played(&question)?;
        let told = answer(self);
        let answer = played.unwrap_or(told);
        self.pay_bytes(answer.bytes())?;
        self.deck.record(question, &answer);
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
