//! What reading the configuration again found.

use serde::{Deserialize, Serialize};

use super::ReloadedView;

/// Answer of `POST /api/v1/config/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RereadView {
    /// Every setting that is written differently from what the server ran with.
    pub settings: Vec<SettingView>,
    /// What became of each plugin.
    pub plugins: Vec<ReloadedView>,
}

/// A setting that is written differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingView {
    /// As in the file: `boot.attempts`.
    pub key: String,
    /// What the server ran with.
    pub from: String,
    /// What is written now.
    pub to: String,
    /// Whether it holds only from the next start on.
    pub needs_restart: bool,
}
