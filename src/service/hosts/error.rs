//! Why an operator's wish was not carried out, in sentences that name the remedy.

use crate::domain::{
    AdoptRefused, EditRefused, HostId, Hostname, Identity, IdentityRefused, LockedHost, MetadataError, RetryRefused,
    Serial, SetRefused, StateName,
};
use crate::images::NotOffered;
use crate::service::TransitionRefused;
use crate::store::StoreError;

/// Why nothing was changed, or found.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// Nothing is called like this.
    #[error("there is no host {selector}{}", suggested(.suggestion.as_deref()))]
    NotFound {
        /// What was asked for.
        selector: String,
        /// The name that it resembles.
        suggestion: Option<String>,
    },
    /// The host was forgotten meanwhile.
    #[error("there is no host {0}")]
    Gone(HostId),
    /// Several hosts are called like this.
    #[error("{selector} means several hosts: {}; name one by its number", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        selector: String,
        /// `host 3 by its serial number`, …
        candidates: Vec<String>,
    },
    /// One host is needed and a range was given.
    #[error("{0} is a range, and one host is needed")]
    NotOne(String),
    /// Somebody else changed the host.
    #[error("{host} was changed meanwhile by {by}: it has revision {found}, and {expected} was looked at; look again")]
    Revised {
        /// The host.
        host: String,
        /// Who changed it last.
        by: String,
        /// The revision that was looked at.
        expected: u64,
        /// Its revision.
        found: u64,
    },
    /// The host is another than was meant.
    #[error("{host} has {}, not serial number {expected}", serial_of(.found.as_ref()))]
    OtherSerial {
        /// The host.
        host: String,
        /// The serial number it should have.
        expected: Serial,
        /// The one it has.
        found: Option<Serial>,
    },
    /// A state that names nothing.
    #[error("there is no image and no template {state}{}", suggested(.suggestion.as_deref()))]
    NothingToBoot {
        /// The state.
        state: StateName,
        /// The image that it resembles.
        suggestion: Option<String>,
    },
    /// A state that names a broken image.
    #[error(transparent)]
    NotOffered(#[from] NotOffered),
    /// Another host has the name.
    #[error("host {owner} is called {name} already")]
    NameTaken {
        /// The name.
        name: Hostname,
        /// Whose it is.
        owner: HostId,
    },
    /// A registration of a machine that is known, or might be.
    #[error("this machine is, or may be, one that is known: {}", hosts(.0))]
    KnownAs(Vec<HostId>),
    /// A registration that orders something for a machine that was forgotten after it was installed.
    #[error("this machine may be {0}: make it known as finished, and order with --reinstall")]
    MayBeInstalled(String),
    /// A registration that would recognise no machine.
    #[error("a serial number, a UUID or a MAC is needed to recognise the machine by")]
    NoIdentity,
    /// More cards than a machine has.
    #[error("{most} network cards at most", most = Identity::MOST_MACS)]
    TooManyMacs,
    /// Forgetting a machine in the middle of an installation.
    #[error("{0} is being installed right now; give that up with --abort")]
    BeingInstalled(String),
    /// The order was refused.
    #[error(transparent)]
    Set(#[from] SetRefused),
    /// It is locked.
    #[error(transparent)]
    Locked(#[from] LockedHost),
    /// The repetition was refused.
    #[error(transparent)]
    Retry(#[from] RetryRefused),
    /// The metadata was refused.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The identity was refused.
    #[error(transparent)]
    Identity(#[from] IdentityRefused),
    /// What shall recognise a host recognises another one.
    #[error("{host} cannot have this identity, as it is, or may be, that of {}: {findings}", hosts(.owners))]
    IdentityTaken {
        /// The host that was to have it.
        host: String,
        /// The hosts that have something of it.
        owners: Vec<HostId>,
        /// The comparison with each of them.
        findings: String,
    },
    /// The adoption was refused.
    #[error(transparent)]
    Adopt(#[from] AdoptRefused),
    /// Nothing is called like this, neither a host nor a machine that is held.
    #[error(
        "there is no host {0}, and no machine that is held shows it: `kiwispray host conflicts` lists those, since the server started"
    )]
    NotHeld(String),
    /// A plugin keeps the queue as it is.
    #[error("{0}; nothing was changed, and it can be tried again")]
    RefusedByPlugin(#[from] TransitionRefused),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<EditRefused> for HostsError {
    fn from(refused: EditRefused) -> Self {
        match refused {
            EditRefused::Metadata(error) => Self::Metadata(error),
            EditRefused::Identity(error) => Self::Identity(error),
        }
    }
}

/// The name that resembles a text, if any does.
pub(super) fn nearest(text: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let text = text.to_lowercase();
    let allowed = if text.chars().count() <= 4 { 1 } else { 2 };
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&text, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

fn suggested(name: Option<&str>) -> String {
    name.map(|name| format!(": is {name} meant?")).unwrap_or_default()
}

fn serial_of(serial: Option<&Serial>) -> String {
    serial.map_or_else(|| "no serial number".to_owned(), |serial| format!("serial number {serial}"))
}

fn hosts(ids: &[HostId]) -> String {
    ids.iter().map(|id| format!("host {id}")).collect::<Vec<_>>().join(", ")
}
