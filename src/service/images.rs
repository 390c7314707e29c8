//! What people do to images. All of it blocks: callers run it on a thread of its own.

use std::io::Read;
use std::ops::ControlFlow;

use crate::domain::StateName;
use crate::images::{self, Image, ImportError, ImportRequest, Imported, NotOffered, NotWhole, Verified};

use super::{HostsError, Service};

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveRefused {
    /// Hosts would hold.
    #[error("{} {} {state} in the queue, and would hold: give {} another state first, or say --force",
        .hosts.join(", "), if .hosts.len() == 1 { "has" } else { "have" }, if .hosts.len() == 1 { "it" } else { "them" })]
    InUse {
        /// The image.
        state: StateName,
        /// Some of the hosts.
        hosts: Vec<String>,
    },
    /// The hosts could not be read.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// The folder could not be removed.
    #[error(transparent)]
    Images(#[from] ImportError),
}

/// Hosts that a refusal names at most.
const MOST_NAMED: usize = 5;

impl Service {
    /// Every image folder by name, with its image or why it is not offered.
    pub fn images(&self) -> std::io::Result<Vec<(String, Result<Image, NotOffered>)>> {
        self.catalogue.list()
    }

    /// One image.
    pub fn image(&self, name: &StateName) -> Result<Image, NotOffered> {
        self.catalogue.image(name)
    }

    /// Imports an archive; it is offered once this returns.
    pub fn import_image(&self, request: &ImportRequest, archive: impl Read) -> Result<Imported, ImportError> {
        let imported = images::import(self.catalogue.root(), request, archive, |_| {})?;
        tracing::info!(image = %request.name, replaced = imported.replaced, "imported an image");
        Ok(imported)
    }

    /// Reads a stored image again, whether or not it is offered.
    pub fn verify_image(
        &self,
        name: &StateName,
        progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Verified, NotWhole> {
        let verified = images::verify(&self.catalogue, name, progress);
        match &verified {
            Ok(_) | Err(NotWhole::Stopped) => {}
            Err(error) => tracing::warn!(image = %name, %error, "an image is not whole"),
        }
        verified
    }

    /// Refuses to remove an image that hosts are waiting for.
    pub async fn check_unused(&self, name: &StateName) -> Result<(), RemoveRefused> {
        let hosts = self.hosts_with_state(name.as_str(), MOST_NAMED).await?;
        if hosts.is_empty() {
            return Ok(());
        }
        let hosts = hosts.iter().map(|host| format!("host {}", host.id)).collect();
        Err(RemoveRefused::InUse { state: name.clone(), hosts })
    }

    /// Removes an image; transfers under way go on to their end.
    pub fn remove_image(&self, name: &StateName) -> Result<(), RemoveRefused> {
        images::remove(self.catalogue.root(), name)?;
        tracing::info!(image = %name, "removed an image");
        Ok(())
    }
}
