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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::images::Delivery;
    use crate::service::fixtures::Site;
    use crate::service::{BootFile, Wanted};

    /// Notes what it is told, or refuses to.
    struct Notes(Option<Mutex<Vec<Carried>>>);

    impl Heir for Notes {
        fn delivered(&self, carried: Carried) -> BoxFuture<'_, io::Result<()>> {
            let noted = self.0.as_ref().map(|notes| notes.lock().unwrap().push(carried));
            std::future::ready(noted.ok_or_else(|| io::ErrorKind::TimedOut.into())).boxed()
        }
    }

    impl Notes {
        fn told(&self) -> Vec<Vec<Range<u64>>> {
            let notes = self.0.as_ref().unwrap().lock().unwrap();
            notes.iter().map(|carried| carried.pieces.clone()).collect()
        }
    }

    /// The pieces of a payload that was delivered whole.
    fn whole() -> Vec<Range<u64>> {
        std::iter::once(0..6).collect()
    }

    /// Host 1 fetches the payload `vmlinuz` of six bytes.
    async fn fetching(site: &Site) -> (BootId, Arc<dyn Delivery>) {
        site.boot().await;
        let bootid = site.call().await.bootid.unwrap();
        let base = "http://192.0.2.1:5000".parse().unwrap();
        match site.service.boot_file(&bootid, "vmlinuz", Wanted::Bytes, &base).await {
            Ok(BootFile::Plain(_, delivery)) => (bootid.parse().unwrap(), delivery),
            _ => panic!("no file"),
        }
    }

    #[tokio::test]
    async fn what_is_delivered_after_the_store_is_gone_is_told_to_its_next_owner_before_the_last_byte() {
        let site = Site::with_host("web", vec![]).await;
        let (_, delivery) = fetching(&site).await;
        let heir = Arc::new(Notes(Some(Mutex::default())));
        assert!(!delivery.handing(0..3));
        site.service.release(Arc::clone(&heir) as Arc<dyn Heir>).await;
        assert!(delivery.handing(3..6));
        delivery.before_last().await.unwrap();
        assert_eq!(heir.told(), [whole()]);
    }

    #[tokio::test]
    async fn what_nobody_notes_is_an_error_that_keeps_the_last_byte_back() {
        let site = Site::with_host("web", vec![]).await;
        let (_, delivery) = fetching(&site).await;
        site.service.release(Arc::new(Notes(None))).await;
        assert!(delivery.handing(0..6));
        assert!(delivery.before_last().await.is_err());
    }

    #[tokio::test]
    async fn the_end_of_a_payload_counts_as_all_of_it_while_another_server_may_have_served_its_beginning() {
        let site = Site::with_host("web", vec![]).await;
        let (_, delivery) = fetching(&site).await;
        assert!(!delivery.handing(4..6));
        site.service.release(Arc::new(Notes(Some(Mutex::default())))).await;
        assert!(!delivery.handing(3..4));
        assert!(delivery.handing(4..6));
    }

    #[tokio::test]
    async fn a_host_whose_file_another_process_streams_is_being_installed() {
        let site = Site::with_host("web", vec![]).await;
        site.boot().await;
        let bootid: BootId = site.call().await.bootid.unwrap().parse().unwrap();
        let carried =
            Carried { bootid, file: "vmlinuz".to_owned(), size_bytes: 6, pieces: std::iter::once(0..2).collect() };
        assert!(site.service.progress(bootid.host()).is_none());
        site.service.carry(&carried).await.unwrap();
        assert_eq!(site.service.progress(bootid.host()).unwrap().newest.delivered_bytes, 2);
        assert!(site.service.streaming().is_empty(), "it is not this process's stream");
        site.service.delivered(bootid, "vmlinuz").await.unwrap();
        site.service.delivered(bootid, "vmlinuz").await.unwrap();
        let kinds = site.kinds().await;
        assert_eq!(kinds.iter().filter(|kind| **kind == "payload_delivered").count(), 1, "{kinds:?}");
    }

    #[tokio::test]
    async fn a_boot_that_is_over_is_not_carried_and_its_payload_is_nobodys() {
        let site = Site::with_host("web", vec![]).await;
        site.boot().await;
        let over: BootId = site.call().await.bootid.unwrap().parse().unwrap();
        let (newer, delivery) = fetching(&site).await;
        let carried = Carried { bootid: over, file: "vmlinuz".to_owned(), size_bytes: 6, pieces: whole() };
        site.service.carry(&carried).await.unwrap();
        // Not even when it was the current one a moment ago.
        site.service.progress.carry(&carried, site.service.now());
        assert_ne!(over, newer);
        assert!(!delivery.handing(0..3));
        assert_eq!(site.service.progress(newer.host()).unwrap().newest.delivered_bytes, 3);
        site.service.delivered(over, "vmlinuz").await.unwrap();
        assert!(!site.kinds().await.contains(&"payload_delivered"));
    }
}
