//! What a booted machine reports: finish, fail, state, inventory.

use std::fmt::Write as _;

use crate::domain::{
    Actor, BootId, EventKind, FinishRefused, Host, HostId, Identity, Inventory, InventoryRefused, MacAddr, Metadata,
    MetadataError, PastOutcome, fail, finish_held, note, take_inventory,
};
use crate::store::StoreError;

use super::{CONFLICT_RETRIES, Service};

/// Who calls: the host's number and the bootid, as they stood in the request.
#[derive(Debug, Clone)]
pub struct Call {
    /// The parameter `id`.
    pub id: Option<String>,
    /// The parameter `bootid`.
    pub bootid: Option<String>,
}

/// Why a call has no valid caller.
#[derive(Debug, thiserror::Error)]
pub enum CallRefused {
    /// The host is unknown, or its number is missing.
    #[error("there is no such host")]
    UnknownHost,
    /// The bootid is missing, malformed or not this host's.
    #[error("wrong bootid")]
    WrongBootId,
    /// The store did not answer.
    #[error("the server cannot reach its store; try again")]
    Store(#[from] StoreError),
}

/// Why a report changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReportRefused {
    /// No valid caller.
    #[error(transparent)]
    Call(#[from] CallRefused),
    /// The boot was superseded.
    #[error("this boot was superseded; nothing was changed")]
    Superseded,
    /// The current state takes no inventory.
    #[error("the state {0} takes no inventory")]
    NoInventory(String),
    /// The inventory itself.
    #[error(transparent)]
    Inventory(#[from] InventoryRefused),
    /// A MAC that is none.
    #[error(transparent)]
    Mac(#[from] crate::domain::MacError),
    /// Metadata that is none.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl From<StoreError> for ReportRefused {
    fn from(error: StoreError) -> Self {
        Self::Call(error.into())
    }
}

/// How often a report is tried. Machines try again, but not for ever; and what they report must not be lost.
const REPORT_RETRIES: u32 = 32;

/// What a machine reports of its step.
#[derive(Clone, Copy)]
enum Report<'a> {
    Finish,
    /// In its words.
    Fail(&'a str),
}

impl Report<'_> {
    const fn call(&self) -> &'static str {
        match self {
            Self::Finish => "finish",
            Self::Fail(_) => "fail",
        }
    }
}

/// What an inventory image posts.
#[derive(Debug, Clone, Default)]
pub struct InventoryPost {
    /// Every `mac`.
    pub macs: Vec<String>,
    /// Every `metadata`, to be merged in order.
    pub metadata: Vec<String>,
}

impl Service {
    /// The machine finished its step.
    pub async fn finish(&self, call: &Call) -> Result<(), ReportRefused> {
        let bootid = self.report(Report::Finish, call).await?;
        self.progress.forget(&bootid);
        Ok(())
    }

    /// The machine failed its step.
    pub async fn fail(&self, call: &Call, reason: &str) -> Result<(), ReportRefused> {
        let reason = if reason.trim().is_empty() { "no reason given" } else { reason.trim() };
        let bootid = self.report(Report::Fail(reason), call).await?;
        self.progress.forget(&bootid);
        Ok(())
    }

    /// The current state of a host.
    pub async fn state(&self, call: &Call) -> Result<String, CallRefused> {
        let host = self.named_host(call).await?;
        if !self.settings().open_state && !knows_bootid(&host, call) {
            return Err(CallRefused::WrongBootId);
        }
        Ok(host.states.current().to_string())
    }

    /// What a machine found out about itself. Returns nothing; a MAC of another host is noted and passed over.
    pub async fn update(&self, call: &Call, post: &InventoryPost) -> Result<(), ReportRefused> {
        let mut metadata = Metadata::default();
        for document in &post.metadata {
            metadata = metadata.merged(&Metadata::parse(document)?)?;
        }
        let macs = post.macs.iter().map(|mac| mac.parse()).collect::<Result<Vec<MacAddr>, _>>()?;
        for _ in 0..CONFLICT_RETRIES {
            let (host, bootid) = self.caller(call).await?;
            let state = host.states.current().clone();
            if !self.takes_inventory(&host) {
                return Err(ReportRefused::NoInventory(state.to_string()));
            }
            let inventory = self.sort_macs(&host, &macs, metadata.clone()).await?;
            let Some(change) = take_inventory(&host, &bootid, &inventory, self.clock.now())? else { return Ok(()) };
            match self.commit(&host, change).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Every host in a table, if the configuration opens it.
    pub async fn open_table(&self) -> Result<Option<String>, CallRefused> {
        if !self.settings().open_hosts {
            return Ok(None);
        }
        let mut table = "#Id Hostname State Serial#\n".to_owned();
        let mut after = None;
        loop {
            let page = self.store.hosts(after, 500).await?;
            let Some(last) = page.last() else { return Ok(Some(table)) };
            after = Some(last.id);
            for host in &page {
                let name = host.hostname.as_ref().map_or("-", |name| name.as_str());
                let serial = host.identity.serial.as_ref().map_or("-", |serial| serial.as_str());
                let _ = writeln!(table, "{} {name} {} {serial}", host.id, host.states);
            }
        }
    }

    /// The host that a call names, whoever calls.
    pub(super) async fn named_host(&self, call: &Call) -> Result<Host, CallRefused> {
        let id: HostId = call.id.as_deref().and_then(|id| id.parse().ok()).ok_or(CallRefused::UnknownHost)?;
        self.store.host(id).await?.ok_or(CallRefused::UnknownHost)
    }

    /// The host that a call names, if the call also carries a well-formed bootid of that host.
    pub(super) async fn caller(&self, call: &Call) -> Result<(Host, BootId), CallRefused> {
        let host = self.named_host(call).await?;
        let bootid: BootId = call.bootid.as_deref().and_then(|id| id.parse().ok()).ok_or(CallRefused::WrongBootId)?;
        if bootid.host() == host.id { Ok((host, bootid)) } else { Err(CallRefused::WrongBootId) }
    }

    async fn report(&self, report: Report<'_>, call: &Call) -> Result<BootId, ReportRefused> {
        for tries in 0..REPORT_RETRIES {
            let (host, bootid) = self.caller(call).await?;
            let change = match report {
                Report::Finish if tries == 0 || !self.hooks().has_transitions() => {
                    self.finish_as_allowed(&host, &bootid).await
                }
                // Plugins take time, in which others change the host again: what is done must not wait for them.
                Report::Finish => finish_held(&host, &bootid, "others changed it meanwhile", self.clock.now()),
                Report::Fail(reason) => fail(&host, &bootid, reason, self.clock.now()),
            };
            let committed = match change {
                Ok(None) => return Ok(bootid),
                Ok(Some(change)) => self.commit(&host, change).await,
                Err(FinishRefused::WrongBootId) => return Err(CallRefused::WrongBootId.into()),
                Err(refused @ FinishRefused::Superseded) => {
                    let kind = EventKind::CallRefused { call: report.call().to_owned(), why: refused.to_string() };
                    let noted = self.commit(&host, note(&host, kind, Actor::Machine, self.clock.now())).await;
                    if let Err(error) = noted {
                        tracing::warn!(host = %host.id, %error, "could not note a refused call");
                    }
                    return Err(ReportRefused::Superseded);
                }
            };
            match committed {
                Ok(_) => return Ok(bootid),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Whether the machine may post an inventory now: while `discover` runs, or an image whose manifest says so.
    fn takes_inventory(&self, host: &Host) -> bool {
        let state = host.states.current();
        let image = host.current_boot().and_then(|boot| boot.image.as_ref()).unwrap_or(state);
        state.as_str() == "discover" || self.image(image).is_ok_and(|image| image.manifest.inventory)
    }

    async fn sort_macs(&self, host: &Host, macs: &[MacAddr], metadata: Metadata) -> Result<Inventory, StoreError> {
        let mut inventory = Inventory { metadata, ..Inventory::default() };
        for mac in macs.iter().filter(|mac| !mac.is_junk() && !host.identity.macs.contains(mac)) {
            let probe = Identity { macs: [*mac].into(), ..Identity::default() };
            let found = self.store.candidates(&probe).await?;
            let hosts = found.hosts.iter().map(|owner| owner.id).filter(|owner| *owner != host.id);
            match hosts.chain(found.tombstones.iter().map(|tombstone| tombstone.id)).next() {
                Some(owner) => inventory.taken.push((*mac, owner)),
                None => drop(inventory.macs.insert(*mac)),
            }
        }
        Ok(inventory)
    }
}

/// Whether a call carries the bootid of the host's current or a finished boot.
fn knows_bootid(host: &Host, call: &Call) -> bool {
    let Some(bootid) = call.bootid.as_deref().and_then(|id| id.parse::<BootId>().ok()) else { return false };
    let is_current = host.boot.as_ref().is_some_and(|boot| boot.bootid == bootid);
    let just_finished = host.past.last().filter(|past| past.outcome == PastOutcome::Finished);
    is_current || just_finished.is_some_and(|past| past.bootid == bootid)
}
