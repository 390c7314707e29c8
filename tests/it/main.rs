//! Integration tests, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and clippy takes only test functions themselves for tests"
)]

mod cli;
mod layers;
