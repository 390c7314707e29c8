//! The use cases: load, ask hooks, decide, commit, answer.
//!
//! Nothing is acknowledged before the store said that it is durable, and every decision that changes a host is
//! committed against the very version of the host that it was made for; if that has moved on, the decision is made anew.

mod clock;

pub use clock::{Clock, SystemClock};
