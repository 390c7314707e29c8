//! Changes that are no orders: inventories that machines post, names and metadata that people give.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::boot::boot_of;
use super::identity::{IdentityEdit, IdentityRefused, edit_identity};
use super::{Change, Draft};
use crate::domain::{Actor, BootId, EventKind, Host, HostId, Hostname, Identity, MacAddr, Metadata, MetadataError};

/// What a machine may add about itself while its state takes inventory.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Cards that belong to nobody else.
    pub macs: BTreeSet<MacAddr>,
    /// Cards that do: kept as a note.
    pub taken: Vec<(MacAddr, HostId)>,
    /// To be merged into the metadata.
    pub metadata: Metadata,
}

/// Why an inventory changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryRefused {
    /// Not the bootid of the boot that runs.
    #[error("wrong bootid")]
    WrongBootId,
    /// The merged metadata would be too large or deep.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// More cards than a machine has.
    #[error("{} network cards are too many", Identity::MOST_MACS)]
    TooManyMacs,
}

/// Adds cards and metadata that a machine posts about itself. None when all of it was known.
pub fn take_inventory(
    host: &Host,
    bootid: &BootId,
    inventory: &Inventory,
    now: Timestamp,
) -> Result<Option<Change>, InventoryRefused> {
    boot_of(host, bootid).map_err(|_| InventoryRefused::WrongBootId)?;
    let mut draft = Draft::of(host, Actor::Machine, now);
    let metadata = host.metadata.merged(&inventory.metadata)?;
    let new_macs: Vec<MacAddr> = inventory.macs.difference(&host.identity.macs).copied().collect();
    draft.host.identity.macs.extend(&new_macs);
    if draft.host.identity.macs.len() > Identity::MOST_MACS {
        return Err(InventoryRefused::TooManyMacs);
    }
    if !new_macs.is_empty() {
        draft.event(EventKind::IdentityLearned { macs: new_macs, dmi: false, hardware: false });
    }
    for (mac, owner) in &inventory.taken {
        draft.event(EventKind::MacTaken { mac: *mac, owner: *owner });
    }
    replace_metadata(&mut draft, metadata);
    if draft.events.is_empty() {
        return Ok(None);
    }
    draft.revise();
    Ok(Some(draft.done()))
}

/// Changes by hand that are no orders.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// A name to set, or `Some(None)` to take it away.
    pub hostname: Option<Option<Hostname>>,
    /// What becomes of the metadata.
    pub metadata: MetadataEdit,
    /// What becomes of its identity.
    pub identity: IdentityEdit,
}

/// What becomes of the metadata.
#[derive(Debug, Clone)]
pub enum MetadataEdit {
    /// This is put over it, see [`Metadata::merged`].
    Merge(Metadata),
    /// This takes its place.
    Replace(Metadata),
}

impl Default for MetadataEdit {
    fn default() -> Self {
        Self::Merge(Metadata::default())
    }
}

/// Why an edit changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditRefused {
    /// The metadata would be too large or deep.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The identity cannot be like this.
    #[error(transparent)]
    Identity(#[from] IdentityRefused),
}

/// Changes name, metadata and identity. None when that changes nothing.
pub fn edit(host: &Host, edit: &Edit, actor: Actor, now: Timestamp) -> Result<Option<Change>, EditRefused> {
    let mut draft = Draft::of(host, actor, now);
    if let Some(hostname) = edit.hostname.clone().filter(|name| *name != host.hostname) {
        draft.event(EventKind::HostnameSet { from: host.hostname.clone(), to: hostname.clone() });
        draft.host.hostname = hostname;
    }
    let metadata = match &edit.metadata {
        MetadataEdit::Merge(over) => host.metadata.merged(over)?,
        MetadataEdit::Replace(with) => with.clone(),
    };
    replace_metadata(&mut draft, metadata);
    if !edit.identity.is_empty() {
        edit_identity(&mut draft, &edit.identity)?;
    }
    if draft.events.is_empty() {
        return Ok(None);
    }
    draft.revise();
    Ok(Some(draft.done()))
}

fn replace_metadata(draft: &mut Draft, metadata: Metadata) {
    let (old, new) = (draft.host.metadata.as_map(), metadata.as_map());
    let touched: BTreeSet<&String> =
        old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).collect();
    let keys: Vec<String> = touched.into_iter().cloned().collect();
    if !keys.is_empty() {
        draft.host.metadata = metadata;
        draft.event(EventKind::MetadataSet { keys });
    }
}
