//! The author's workbench: makes plugins, builds them, checks them, runs them against written cases and recorded calls.
//!
//! Invariant: everything here runs on the real plugin host, in this process, without a server and without a network: what a
//! plugin is answered was written into a case or recorded by a server.
//!
//! In reading order: `manifest` is `plugin.toml`, `scaffold` makes a folder, `build` makes a component of a folder (`lang` for
//! JavaScript and Python), `component` looks into one, `case` is a written case, `world` the core that it describes, `run`
//! asks the plugin and compares, `check` is what a server would say to it, `replay` runs a recorded call again.
mod build;
mod case;
mod check;
mod compare;
mod component;
mod lang;
mod manifest;
mod replay;
mod run;
mod said;
mod scaffold;
mod watch;
mod world;

pub use build::{BuildError, Built, build};
pub use case::{Asked, Case, CaseError, cases};
pub use check::{CheckError, Checked, check, check_file};
pub use component::{Inspected, NotAComponent, inspect};
pub use lang::LangError;
pub use manifest::{Lang, Manifest, ManifestError, WantedGrant};
pub use replay::{Replay, ReplayError, replay};
pub use run::{Bench, BenchError, Report};
pub use scaffold::{ScaffoldError, scaffold};
pub use watch::Watch;
