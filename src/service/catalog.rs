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

    fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Self) -> Result<T, CapabilityError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, CapabilityError>> {
        let shelf = self.clone();
        let looking = tokio::task::spawn_blocking(move || look(&shelf));
        looking
            .map(|looked| looked.unwrap_or_else(|error| Err(CapabilityError::Unavailable(error.to_string()))))
            .boxed()
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
    // On threads of their own: the folders may be on a disk that hangs, and a plugin's time is bounded only if it can yield.
    fn has_image<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        let name = name.to_owned();
        self.look(move |shelf| Ok(shelf.has_image(&name)))
    }

    fn has_template<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, CapabilityError>> {
        let name = name.to_owned();
        self.look(move |shelf| Ok(shelf.has_template(&name)))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, CapabilityError>> {
        self.look(|shelf| {
            let images = shelf.catalogue.list().map_err(|error| CapabilityError::Unavailable(error.to_string()))?;
            Ok(images.into_iter().map(|(name, _)| name).collect())
        })
    }
}
