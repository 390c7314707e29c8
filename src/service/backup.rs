//! Backups of the running server, and what follows a restore.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::Instant;

use crate::store::backup::DumpError;
use crate::store::{Check, StoreError};

use super::Service;

/// The longest pause after a read.
const LONGEST_REST: Duration = Duration::from_millis(20);

impl Service {
    /// Everything in the store, in pieces. It rests as long as it reads, up to 20 ms after each piece: machines come first.
    pub fn backup(self: &Arc<Self>) -> impl Stream<Item = Result<Bytes, DumpError>> + Send + use<> {
        let dump = self.store.dump(self.clock.now());
        stream::try_unfold((Arc::clone(self), dump), async |(service, mut dump)| {
            let begun = Instant::now();
            let piece = dump.next(&service.store).await?;
            tokio::time::sleep(begun.elapsed().min(LONGEST_REST)).await;
            Ok(piece.map(|piece| (piece, (service, dump))))
        })
    }

    /// Reads the whole store: does it fit together?
    pub async fn check_store(&self) -> Result<Check, StoreError> {
        self.store.check(|_| ()).await
    }

    /// Whether a backup was restored, and hosts that become known are quarantined like those that were in it.
    pub fn is_quarantined(&self) -> bool {
        self.store.is_quarantined()
    }

    /// Trusts hosts that become known from now on.
    pub async fn lift_quarantine(&self) -> Result<(), StoreError> {
        self.store.lift_quarantine().await
    }
}
