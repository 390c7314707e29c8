//! What people do to images. All of it blocks: callers run it on a thread of its own.

use std::io::Read;
use std::ops::ControlFlow;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::domain::StateName;
use crate::images::{self, Image, ImportError, ImportRequest, Imported, NotOffered, NotWhole, Verified};

use super::transition::is_order;
use super::{HostsError, Service};

/// Why an image was not removed, or not replaced.
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
    /// Hosts were given a state that writes nothing, and would lose a disk.
    #[error("{} {} {state} in the queue, and nobody ordered that a disk of {} be written: give {} another state first",
        .hosts.join(", "), if .hosts.len() == 1 { "has" } else { "have" }, if .hosts.len() == 1 { "it" } else { "them" },
        if .hosts.len() == 1 { "it" } else { "them" })]
    NotOrdered {
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
        looking(|| self.catalogue.image(name))
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
        match self.waiting_for(name).await? {
            hosts if hosts.is_empty() => Ok(()),
            hosts => Err(RemoveRefused::InUse { state: name.clone(), hosts }),
        }
    }

    /// Refuses to put an image that writes in the place of an image or template that does not while hosts are waiting for
    /// that: what they were given was no order.
    pub async fn check_ordered(&self, request: &ImportRequest) -> Result<(), RemoveRefused> {
        let name = &request.name;
        // Whatever writes is given a disk.
        if request.device.is_none() || looking(|| is_order(&self.catalogue, &self.renderer, name)) {
            return Ok(());
        }
        match self.waiting_for(name).await? {
            hosts if hosts.is_empty() => Ok(()),
            hosts => Err(RemoveRefused::NotOrdered { state: name.clone(), hosts }),
        }
    }

    /// Some of the hosts that have an image in their queue.
    async fn waiting_for(&self, name: &StateName) -> Result<Vec<String>, HostsError> {
        let hosts = self.hosts_with_state(name.as_str(), MOST_NAMED).await?;
        Ok(hosts.iter().map(|host| format!("host {}", host.id)).collect())
    }

    /// What imports must leave free on the disk of the images.
    pub fn keep_free_bytes(&self) -> u64 {
        self.catalogue.keep_free_bytes()
    }

    /// Removes an image; transfers under way go on to their end.
    pub fn remove_image(&self, name: &StateName) -> Result<(), RemoveRefused> {
        images::remove(self.catalogue.root(), name)?;
        tracing::info!(image = %name, "removed an image");
        Ok(())
    }
}

/// Looks at folders of images or templates on the thread of some task: their disk may hang, and the other tasks of that
/// thread, machines that want their own disks among them, go on elsewhere.
pub(super) fn looking<T>(look: impl FnOnce() -> T) -> T {
    // Elsewhere is only where there are several threads.
    if Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread) {
        block_in_place(look)
    } else {
        look()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_folder_on_a_disk_that_hangs_keeps_no_other_task_from_going_on() {
        let (looks, has_looked) = mpsc::channel();
        let (answer, disk) = mpsc::channel::<()>();
        let hanging = tokio::spawn(async move {
            looking(|| {
                looks.send(()).unwrap();
                disk.recv_timeout(Duration::from_secs(30))
            })
        });
        // The only thread of the tasks is at the disk now.
        has_looked.recv().unwrap();
        tokio::spawn(async move { answer.send(()).unwrap() }).await.unwrap();
        assert_eq!(hanging.await.unwrap(), Ok(()));
    }
}
