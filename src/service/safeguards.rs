//! What people put between orders and disks: the freeze, and the turnstile of reinstalls. The rules are `domain`'s; here
//! they are asked with what is durable at that moment, and the answer is committed on condition that it is so still.

use crate::domain::{Actor, EventKind, Fleet, HoldReason, Host, Offer, Safeguard, offer};
use crate::store::StoreError;

use super::Service;

impl Service {
    /// Lets no image that writes a disk be booted until [`Service::thaw`], whatever plugins say. What was handed out before
    /// goes on. Returns the freeze that there is now, and the one before.
    pub async fn freeze(&self, why: &str, by: Actor) -> Result<(Safeguard, Option<Safeguard>), StoreError> {
        let freeze = Safeguard::new(by, why, self.clock.now());
        let before = self.store.freeze(&freeze).await?;
        tracing::warn!("frozen {freeze} - no image that writes a disk is booted until `kiwispray thaw`");
        Ok((freeze, before))
    }

    /// Takes the freeze back. Returns it, if there was one.
    pub async fn thaw(&self, by: &Actor) -> Result<Option<Safeguard>, StoreError> {
        let before = self.store.thaw().await?;
        if let Some(before) = &before {
            tracing::warn!(?by, "thawed, what was frozen {before}: images that write disks are booted again");
        }
        Ok(before)
    }

    /// The freeze, if there is one.
    pub async fn frozen(&self) -> Result<Option<Safeguard>, StoreError> {
        self.store.frozen().await
    }

    /// What holds for all hosts now.
    pub(super) async fn fleet(&self) -> Result<Fleet, StoreError> {
        self.store.fleet(self.settings().reinstalls_per_hour).await
    }

    /// Hands out a boot, durably; or says why it may not be handed out.
    pub(super) async fn hand_out(&self, host: &Host, offered: Offer) -> Result<Result<Host, HoldReason>, StoreError> {
        let writes = offered.writes.is_order();
        // Who is counted is counted alone: a rack that asks at once must not spend its time on conflicts.
        let _turn = if writes && host.reinstalls { self.reinstalling.acquire().await.ok() } else { None };
        let fleet = if writes { self.fleet().await? } else { Fleet::default() };
        match offer(host, offered, &fleet, self.clock.now()) {
            // Durable before the machine sees it: the answer to a later call must not depend on luck.
            Ok(change) => self.commit(host, change).await.map(Ok),
            Err(reason) => Ok(Err(reason)),
        }
    }

    /// Puts what keeps a host from its order on its timeline, now and then while that lasts.
    pub(super) async fn note_safeguard(&self, host: &Host, reason: &HoldReason) {
        let what = match reason {
            HoldReason::Locked(..) => "locked",
            HoldReason::Frozen(_) => "frozen",
            HoldReason::TooManyReinstalls(..) => "too many reinstalls",
            HoldReason::Unreported(_)
            | HoldReason::Quarantined(_)
            | HoldReason::Failed(..)
            | HoldReason::NotAdvanced(..)
            | HoldReason::TooManyAttempts(..)
            | HoldReason::InUse(_)
            | HoldReason::ClockBehind => return,
        };
        self.note_once(host, EventKind::Held { why: reason.to_string() }, what, None).await;
    }
}
