//! Why a plugin gave no usable answer.
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A call that ended without a usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The plugin's answer: the input makes no sense to it.
    #[error("calls the request invalid: {0}")]
    Invalid(String),
    /// The plugin's answer: later.
    #[error("asks to be tried again in {after_ms} ms: {reason}")]
    Retry {
        /// When, in milliseconds.
        after_ms: u32,
        /// Why.
        reason: String,
    },
    /// The plugin broke in this call; panics end here too.
    #[error("failed: {0}")]
    Failed(String),
    /// The plugin is out of order until its configuration or component changes.
    #[error("is out of order: {0}")]
    Fatal(String),
    /// The guest trapped.
    #[error("trapped: {0}")]
    Trap(String),
    /// The call, with its start code and everything it asked for, took longer than it may.
    #[error("gave no answer within {} ms", budget.as_millis())]
    Timeout {
        /// What it had.
        budget: Duration,
    },
    /// The guest wanted more memory than it may have.
    #[error("wanted more than {limit_bytes} bytes of memory")]
    Memory {
        /// What all its memories may have together.
        limit_bytes: usize,
    },
    /// The guest asked the core too often, or for too many bytes.
    #[error("asked too much of the server: {0}")]
    Flood(String),
    /// An answer that breaks the contract: no JSON where there must be, a forbidden kernel argument, …
    #[error("gave a bad answer: {0}")]
    BadAnswer(String),
    /// An answer that its grants do not cover.
    #[error("may not do that: {0}")]
    Denied(String),
    /// There is no working component, or no room to run it.
    #[error("is unavailable: {0}")]
    Unavailable(String),
}

impl HookError {
    /// The class, for traces and metrics.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Invalid(_) => ErrorClass::Invalid,
            Self::Retry { .. } => ErrorClass::Retry,
            Self::Failed(_) => ErrorClass::Failed,
            Self::Fatal(_) => ErrorClass::Fatal,
            Self::Trap(_) => ErrorClass::Trap,
            Self::Timeout { .. } => ErrorClass::Timeout,
            Self::Memory { .. } => ErrorClass::Memory,
            Self::Flood(_) => ErrorClass::Flood,
            Self::BadAnswer(_) => ErrorClass::BadAnswer,
            Self::Denied(_) => ErrorClass::Denied,
            Self::Unavailable(_) => ErrorClass::Unavailable,
        }
    }

    /// Whether the plugin broke. `invalid` and `retry` are answers.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(self.class(), ErrorClass::Invalid | ErrorClass::Retry)
    }
}

/// The kinds of [`HookError`], by a name that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the HookError of the same name")]
pub enum ErrorClass {
    Invalid,
    Retry,
    Failed,
    Fatal,
    Trap,
    Timeout,
    Memory,
    Flood,
    BadAnswer,
    Denied,
    Unavailable,
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::Retry => "retry",
            Self::Failed => "failed",
            Self::Fatal => "fatal",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Flood => "flood",
            Self::BadAnswer => "bad-answer",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        })
    }
}
