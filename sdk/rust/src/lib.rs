//! Write kiwispray plugins in Rust.
//!
//! A plugin is a type that implements [`Plugin`] and one line that says which hooks it exports:
//!
//! ```
//! use kiwispray_sdk::{BootDecision, BootRequest, Description, Error, PASS, Plugin, image};
//!
//! struct Racks;
//!
//! impl Plugin for Racks {
//!     fn describe() -> Description {
//!         Description::new("racks", env!("CARGO_PKG_VERSION"), "Rack r7 boots the burn-in image first")
//!     }
//!
//!     fn boot(request: BootRequest) -> Result<BootDecision, Error> {
//!         if request.host.metadata()?["rack"] == "r7" {
//!             return Ok(image("burn-in").append("quiet").because("rack r7 is new"));
//!         }
//!         Ok(PASS)
//!     }
//! }
//!
//! kiwispray_sdk::plugin!(Racks: boot);
//! # fn main() {}
//! ```
//!
//! The same code runs natively in tests: [`testing::Core`] answers what the plugin asks of the core.
//!
//! Modules: [`plugin`] is the trait and the macro, [`answers`] builds verdicts, [`core`](mod@crate::ask) is what a plugin
//! may ask, [`select`] holds hosts against conditions, [`testing`] stands in for the server, `bindings` is generated from
//! `sdk/wit`, `arena` is the memory of a guest.
mod answers;
#[cfg(target_family = "wasm")]
mod arena;
pub mod ask;
#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod panics;
pub mod plugin;
mod requests;
pub mod select;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use answers::{ALLOW, PASS, Queue, admit, assign, deny, hold, image, local_disk, redirect, refuse, template};
pub use bindings::types::{
    BootDecision, BootPlan, BootRequest, BootVerdict, ConfigProblem, Description, DiscoveryDecision, DiscoveryVerdict,
    Edit, Error, Event, Hold, ImageBoot, Job, KnownHost, NextRun, Patch, RenderRequest, RetryLater, TemplateBoot,
    TransitionDecision, TransitionRequest, TransitionVerdict,
};
pub use plugin::Plugin;

/// The README's example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The manual's recipes, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/src/plugins/recipes.md")]
struct Recipes;
