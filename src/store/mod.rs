//! All persistence. `kv` is the seam: ordered keys, compare-and-set, durable before acknowledged. `memory` and `sled` are
//! its backends, held to one suite (`conformance`).
//!
//! Invariant: nothing above the seam sees a write, not even through a read or a watch, before it would survive a power cut.
#[cfg(test)]
mod conformance;
pub mod kv;
pub mod memory;
mod progress;
pub mod sled;
pub mod watch;
