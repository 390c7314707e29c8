//! Which program of an installed system is told where the documents of its first boot are.

use serde::{Deserialize, Serialize};

/// What configures an image's system at its first boot, beside or instead of the post-install script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstBoot {
    /// cloud-init: its source NoCloud reads `meta-data`, `user-data` and `vendor-data`.
    Nocloud,
    /// Ignition: reads `config.ign`.
    Ignition,
}
