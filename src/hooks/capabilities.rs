//! What plugins may ask of the core. The service implements it, `app` injects it into the plugin host.
use futures_util::future::BoxFuture;

/// Questions that a plugin with the grant may ask. Every implementation answers in far less than a hook's budget, and
/// checks every parameter: names come from plugins.
pub trait Capabilities: Send + Sync {
    /// Whether the catalogue offers an image of this name.
    fn has_image<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>>;

    /// Whether there is a boot template of this name.
    fn has_template<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>>;

    /// The names of all images that the catalogue offers, in order.
    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>>;
}

/// Why the core did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// The plugin may not ask this.
    #[error("{0}")]
    Denied(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}
