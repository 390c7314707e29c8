//! kiwispray: machines boot over the network, and this server decides what they boot, remembers what they did, and asks
//! sandboxed plugins for everything that is particular to a site.
//!
//! The modules in reading order: `domain` is the whole of the rules, pure and synchronous; `store` keeps them, `render`
//! and `images` turn decisions into scripts and files; `hooks` is what the core asks plugins; `service` puts these
//! together into use cases; `http`, `plugin_host` and `dnsmasq` are adapters; `roster` keeps the bound plugins; `app` builds
//! the world; `maintenance` works on the store of a stopped server; `doctor` looks at everything without a server; `cli`
//! talks to it; `workbench` is for authors of plugins; `migrate` reads the original KIWIspray.
pub mod app;
pub mod cli;
pub mod config;
pub mod dnsmasq;
pub mod doctor;
pub mod domain;
pub mod hooks;
pub mod http;
pub mod images;
pub mod maintenance;
pub mod migrate;
pub mod plugin_host;
pub mod render;
pub mod roster;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod wire;
pub mod workbench;
