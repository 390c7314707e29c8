//! Runs plugins as WebAssembly components: everything about wasmtime is in here, and nothing about booting is.
//!
//! Invariants: a guest sees only the interfaces it was granted; every call has a fresh instance, a deadline, a sum of memory
//! and a sum of questions; whatever a guest does, the call ends with an answer or a typed failure within its time, and the
//! next call works. A component that does not load degrades to a plugin that answers `unavailable`, never to a server that
//! does not start.
//!
//! In reading order: `engine` compiles and keeps the clock, `sandbox` is one call, `imports` is what guests may ask, `load` and
//! `about` turn a file into something callable, `schema` holds configurations to what it says, `convert` translates, `plugin`
//! is what the core calls (`broken` where there is nothing to call), `recording` is a call as data
//! and `deck` what writes it down and plays it, `host` is the way in.
mod about;
mod broken;
mod cache;
mod contract;
mod convert;
mod deck;
pub mod egress;
mod engine;
mod host;
mod imports;
mod journal;
mod load;
mod plugin;
mod recording;
mod sandbox;
mod schema;
mod secret;
mod signing;

pub use broken::BrokenPlugin;
pub use engine::{Allocation, EngineError};
pub use host::{Component, PluginHost};
pub use load::{Interface, LoadError};
pub use recording::{Diverged, ImportCall, RECORDING_FORMAT, RecordedAnswer, RecordedCall, Recording, Replayed, Tape};
pub use schema::{BadSchema, SchemaProblem, schema_problems};
pub use secret::{SecretError, SecretText};
