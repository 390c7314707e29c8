//! The rules, and nothing else: who a machine is, what it boots next, and what each request changes.
//!
//! Everything here is pure and synchronous. Time, randomness, stored hosts and plugin verdicts come in as arguments, and
//! what follows goes out as data: a changed [`Host`] and the [`Event`]s that explain the change. So a property test can
//! drive the very code that runs in production through any order of requests and crashes.

mod bootid;
mod device;
mod event;
mod facts;
mod first_boot;
mod host;
mod identity;
mod mac;
mod metadata;
mod order_name;
mod recognise;
mod safeguard;
mod state;
mod tombstone;
mod transition;

#[cfg(test)]
mod model_test;

pub use bootid::{BootId, BootIdError};
pub use device::{DevicePath, DevicePolicy, DevicePolicyError};
pub use event::{Actor, Event, EventKind};
pub use facts::{Facts, Hardware, IgnoredParameter, Parameter};
pub use first_boot::FirstBoot;
pub use host::{Boot, Host, HostId, Hostname, HostnameError, PastBoot, PastOutcome, Stage, Step, Writes};
pub use identity::{DmiUuid, Identity, IdentityDefect, Ignore, Serial};
pub use mac::{MacAddr, MacError};
pub use metadata::{Metadata, MetadataError};
pub use order_name::{OrderName, OrderNameError, PluginName, PluginNameError};
pub use recognise::{Candidate, Evidence, Finding, Match, Recognition, recognise};
pub use safeguard::{Fleet, LockedHost, Reinstalls, Safeguard};
pub use state::{StateName, States, StatesError};
pub use tombstone::{Tombstone, queue_of_returned};
pub use transition::{
    Activity, AdoptRefused, Ask, Change, Clearance, Edit, EditRefused, FailRefused, FetchRefused, FinishRefused,
    HoldReason, IdentityEdit, IdentityRefused, Inventory, InventoryRefused, MetadataEdit, NextBoot, Offer, Order,
    OrderRefused, Registration, RetryRefused, SetRefused, adopt, advance, check_unlocked, clear, deliver, edit, fail,
    finish, finish_by_operator, finish_held, forget, forget_for_good, learn, lock, next_boot, note, note_hold, offer,
    order, quarantine, register, release, retry, set_states, spend, start_attempt, take_back, take_inventory,
    take_over, unlock,
};
