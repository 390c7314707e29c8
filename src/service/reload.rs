//! Reading the configuration again while the server runs; `app` implements it and injects it into the admin plane.
//!
//! Invariant: a configuration that is wrong changes nothing, and whoever asked is told of every setting that is written
//! differently now, also of those that wait for a restart.

use futures_util::future::BoxFuture;

use super::roster::{Reloaded, RosterError};

/// Reads the configuration again.
pub trait Reloader: Send + Sync {
    /// Reads everything again: settings that can change while the server runs, then plugins.
    fn reload(&self) -> BoxFuture<'_, Result<Reread, RosterError>>;
}

/// What reading again found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// Every setting that is written differently now.
    pub settings: Vec<SettingChange>,
    /// What became of each plugin.
    pub plugins: Vec<Reloaded>,
}

/// A setting that is written differently from what the server runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// As in the file: `boot.attempts`.
    pub key: &'static str,
    /// What the server ran with.
    pub from: String,
    /// What is written now.
    pub to: String,
    /// Whether it holds now; else from the next start on.
    pub holds: bool,
}
