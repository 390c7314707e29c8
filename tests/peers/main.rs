//! The shipped plugins against their real counterparts: the built component in the real server, and at the other end a
//! program that others wrote, or for `webhook` one that shares no line with it.
//!
//! What takes minutes to set up is `#[ignore]`d here and run by `cargo xtask test --long`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and clippy takes only test functions themselves for tests"
)]

#[allow(dead_code, unused_imports, reason = "shared with the integration tests, which use all of it")]
#[path = "../support/mod.rs"]
mod support;

mod peer;

mod bios;
mod image_select;
mod netbox;
mod webhook;
