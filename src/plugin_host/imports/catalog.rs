//! The import `catalog`.
use super::Answer;
use crate::hooks::CapabilityError;
use crate::plugin_host::contract::kiwispray::plugin::catalog::{self, CatalogError};
use crate::plugin_host::sandbox::CallState;

/// Names in a catalogue are shorter; what is longer need not be looked up.
const NAME_MAX_BYTES: usize = 255;

impl catalog::Host for CallState {
    async fn has_image(&mut self, name: String) -> Answer<bool, CatalogError> {
        let reach = self.reach();
        let question = self.question("catalog.has-image", name.len(), &(&name,));
        self.ask(question, async { Ok(reach?.core.has_image(bounded(&name)).await?) }).await
    }

    async fn has_template(&mut self, name: String) -> Answer<bool, CatalogError> {
        let reach = self.reach();
        let question = self.question("catalog.has-template", name.len(), &(&name,));
        self.ask(question, async { Ok(reach?.core.has_template(bounded(&name)).await?) }).await
    }

    async fn images(&mut self) -> Answer<Vec<String>, CatalogError> {
        let reach = self.reach();
        let nothing: [(); 0] = [];
        let question = self.question("catalog.images", 0, &nothing);
        self.ask(question, async { Ok(reach?.core.images().await?) }).await
    }
}

/// The empty name is nobody's.
fn bounded(name: &str) -> &str {
    if name.len() > NAME_MAX_BYTES { "" } else { name }
}

impl From<CapabilityError> for CatalogError {
    fn from(error: CapabilityError) -> Self {
        match error {
            CapabilityError::Denied(why) => Self::Denied(why),
            CapabilityError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
