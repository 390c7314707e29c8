//! What plugins may ask about images and templates.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::domain::StateName;
use crate::hooks::{Capabilities, CapabilityError};
use crate::images::Catalogue;
use crate::render::Renderer;

/// Images and templates, as plugins see them.
#[derive(Debug, Clone)]
pub struct Shelf {
    catalogue: Arc<Catalogue>,
    renderer: Arc<Renderer>,
}

impl Shelf {
    /// Over the server's own catalogue and renderer.
    pub const fn new(catalogue: Arc<Catalogue>, renderer: Arc<Renderer>) -> Self {
        Self { catalogue, renderer }
    }

    /// Whether there is a folder of this name: a broken image is one too, so that its fault is told at boot.
    pub fn has_image(&self, name: &str) -> bool {
        name.parse::<StateName>().is_ok_and(|name| self.catalogue.has_folder(&name))
    }

    /// Whether a host can boot a template of this name.
    pub fn has_template(&self, name: &str) -> bool {
        self.renderer.has_template(None, &format!("{name}.ipxe"))
    }
}

impl Capabilities for Shelf {
    // All three look at a few directory entries, which the kernel keeps in memory: quicker than handing over to a thread.
    fn has_image<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        std::future::ready(Ok(self.has_image(name))).boxed()
    }

    fn has_template<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        std::future::ready(Ok(self.has_template(name))).boxed()
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>> {
        let names = self
            .catalogue
            .list()
            .map(|images| images.into_iter().map(|(name, _)| name).collect())
            .map_err(|error| CapabilityError::Unavailable(error.to_string()));
        std::future::ready(names).boxed()
    }
}
