//! Integration tests, in one binary: the real server as machines, scripts and people meet it. Each test has a server,
//! folders and machines of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and clippy takes only test functions themselves for tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod broken;
mod cli;
mod crash;
mod doctor;
mod doubt;
mod dozens;
mod first_boot;
mod hostile;
mod images;
mod layers;
mod live;
mod manual;
mod migrate;
mod operators;
mod people;
mod plane;
mod plugins;
mod restart;
mod second_day;
mod start;
mod text;
mod walkthrough;
mod way;
mod workbench;
