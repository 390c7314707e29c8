//! Transfers that outlive the store: a server that ends streams on, and another one has its store.
//!
//! Invariant: that a payload was delivered is durable somewhere before its last byte leaves, also when this process has
//! let go of its store. And what this process does not know (ranges that machines fetch from the other server meanwhile)
//! is taken to be fetched: the end of a payload counts as all of it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::domain::{BootId, Host, deliver};
use crate::store::StoreError;

use super::Service;
use super::files::FileRefused;

/// How far a file of a boot came in the server before this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The boot.
    pub bootid: BootId,
    /// The file's name.
    pub file: String,
    /// The file's size in bytes.
    pub size_bytes: u64,
    /// What of it was delivered.
    pub pieces: Vec<Range<u64>>,
}

/// Whoever writes down what this process delivers after it has let go of its store.
pub trait Heir: Send + Sync + 'static {
    /// Resolves once it is durable that this file was delivered whole, or known that its boot is over. An error means
    /// that it may not be, and ends the transfer.
    fn delivered(&self, carried: Carried) -> BoxFuture<'_, io::Result<()>>;
}

impl Service {
    /// Lets go of the store, for another process, while transfers stream on. Nothing else may be asked afterwards.
    pub async fn release(&self, heir: Arc<dyn Heir>) {
        // First, so that no byte leaves between the two unnoticed.
        self.progress.share();
        let _ = self.heir.set(heir);
        self.store.release().await;
    }

    /// The files of boots that are being fetched at this moment.
    pub fn streaming(&self) -> Vec<Carried> {
        self.progress.streaming()
    }

    /// Notes how far a file came in the server before this one, unless its boot is over. Makes the host one that is
    /// being installed.
    pub async fn carry(&self, carried: &Carried) -> Result<(), StoreError> {
        let host = self.store.host(carried.bootid.host()).await?;
        if host.as_ref().and_then(Host::current_boot).is_some_and(|boot| boot.bootid == carried.bootid) {
            self.progress.carry(carried, self.clock.now());
        }
        Ok(())
    }

    /// Notes durably that a payload was delivered whole. Fine when that is known already, or the boot is over: a boot that
    /// was superseded while its payload was on the way belongs to an order that is gone.
    pub async fn delivered(&self, bootid: BootId, file: &str) -> Result<(), FileRefused> {
        let change = |host: &Host| deliver(host, &bootid, file, self.clock.now());
        match self.advance_boot(bootid, change).await {
            Ok(_) | Err(FileRefused::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The same, wherever the store is by now.
    pub(super) async fn delivered_or_bequeathed(&self, bootid: BootId, file: &str) -> io::Result<()> {
        let Err(error) = self.delivered(bootid, file).await else { return Ok(()) };
        match (self.heir.get(), self.progress.carried(bootid, file)) {
            (Some(heir), Some(carried)) => heir.delivered(carried).await,
            // Superseded: see above.
            (Some(_), None) => Ok(()),
            (None, _) => Err(io::Error::other(error)),
        }
    }
}
