//! What integration tests stand on: the real server as a process, its command line, and machines that speak to it.
//!
//! Nothing in here knows the server's types: what is tested is what machines, scripts and people meet.

pub(crate) mod archive;
pub(crate) mod book;
pub(crate) mod cli;
pub(crate) mod guest;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod server;
pub(crate) mod shell;
pub(crate) mod site;

pub(crate) use cli::Run;
pub(crate) use http::{Client, Response};
pub(crate) use machine::{Boot, Machine};
pub(crate) use server::Server;
pub(crate) use site::Site;
