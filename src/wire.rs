//! The admin plane's JSON: what the server answers and what the command line sends.
//!
//! Invariant: these types are the interface. They are plain data of their own, so that the domain and the store can
//! change without breaking scripts; fields are added, never renamed. Times are RFC 3339, sizes are bytes, a queue is
//! written as an array of state names.

mod config;
mod import;
mod migration;
mod plugin;
mod store;

pub use config::{RereadView, SettingView};
pub use import::{HostRow, HostRows, RowAnswer, RowDone, RowProblem};
pub use migration::{TakeHost, TakeHosts, TookHost};
pub use plugin::{
    ApproveOrders, Approved, BreakerView, DroppedView, InstallPlugin, InstalledPlugin, JobRanView, JobView, KeptView,
    KeyView, LetterView, LogLineView, OutboxView, PluginDetail, ReachView, RecordCalls, RehearsalLine, RehearsedView,
    ReloadedView, ReplayedView, RunJob,
};

pub use store::{BackupView, CheckView, RestoredView};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

/// A host as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// Its number.
    pub id: u64,
    /// Grows when name, states, metadata or identity change; `If-Match` takes it.
    pub revision: u64,
    /// Its name, if it has one.
    pub hostname: Option<String>,
    /// DMI serial number.
    pub serial: Option<String>,
    /// DMI UUID.
    pub uuid: Option<String>,
    /// Network cards, in order.
    pub macs: Vec<String>,
    /// Manufacturer and product, as the firmware words them.
    pub model: Option<String>,
    /// `pcbios` or `efi`.
    pub platform: Option<String>,
    /// The current state: the first of `states`.
    pub state: String,
    /// The queue.
    pub states: Vec<String>,
    /// Attempts at the current step.
    pub attempts: u32,
    /// Whether an attempt at the current step is under way.
    pub running: bool,
    /// Why its own record makes it hold, with the remedy; absent when it does not.
    pub hold: Option<String>,
    /// The file that it fetches now.
    pub progress: Option<ProgressView>,
    /// What the site wants to remember of it.
    pub metadata: Map<String, Value>,
    /// When it last asked for anything; absent when it has not since the server started.
    pub last_seen: Option<Timestamp>,
    /// Whether it ever booted.
    pub seen: bool,
    /// Whether it came from a restored backup and boots only its own disk until it is released.
    #[serde(default)]
    pub quarantined: bool,
    /// Who locked it, if anybody did: it takes no orders, and boots nothing that writes.
    #[serde(default)]
    pub lock: Option<SafeguardView>,
    /// When it became known.
    pub created_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
}

/// A lock, or a freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeguardView {
    /// Who: `operator NAME`.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
    /// Why, in their words; may be empty.
    pub why: String,
}

/// A lock to be put on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LockHost {
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The serial number that the host must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_serial: Option<String>,
    /// Say what would change, and change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// A freeze to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FreezeFleet {
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Whether images that write disks are booted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeView {
    /// The freeze that there is now.
    pub frozen: Option<SafeguardView>,
    /// The one that this request put an end to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<SafeguardView>,
}

/// How far the transfer of a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    /// The file's name.
    pub file: String,
    /// Bytes served.
    pub bytes: u64,
    /// Bytes of the whole file.
    pub total: u64,
    /// Whole percent served, 0 to 100.
    pub percent: u8,
}

/// The header of a page of hosts that has the same as `next` in it.
pub const NEXT_CURSOR: &str = "x-kiwispray-next";

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries, in order.
    pub items: Vec<T>,
    /// What `cursor` gives the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A host to be made known by hand. At least one of serial, UUID and MAC is needed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddHost {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// DMI serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// DMI UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Network cards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// The first queue; `new` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<String>>,
    /// What the site wants to remember of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Say what would change, and change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// Changes to one host, made together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EditHost {
    /// The new name; an empty text takes the name away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// To be merged into the metadata: `null` removes a key.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// The new queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<String>>,
    /// The serial number; an empty text takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The UUID; an empty text takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Network cards that it has besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_macs: Vec<String>,
    /// Network cards that it has no longer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_macs: Vec<String>,
    /// Whether a finished host may be installed again.
    #[serde(skip_serializing_if = "is_false")]
    pub reinstall: bool,
    /// Whether a running attempt may be given up.
    #[serde(skip_serializing_if = "is_false")]
    pub abort: bool,
    /// The serial number that the host must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_serial: Option<String>,
    /// Say what would change, and change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// A single act on a host: finish, retry or forget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActOnHost {
    /// Whether a running attempt may be given up.
    #[serde(skip_serializing_if = "is_false")]
    pub abort: bool,
    /// Whether the machine of a host that is forgotten is new if it comes back, although it may be installed.
    #[serde(skip_serializing_if = "is_false")]
    pub for_good: bool,
    /// The serial number that the host must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_serial: Option<String>,
    /// Say what would change, and change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// What is left of a forgotten host that may be installed: its machine boots its own disk if it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenView {
    /// Its number.
    pub id: u64,
    /// Its name, if it had one.
    pub hostname: Option<String>,
    /// DMI serial number.
    pub serial: Option<String>,
    /// DMI UUID.
    pub uuid: Option<String>,
    /// Network cards, in order.
    pub macs: Vec<String>,
    /// When it was forgotten.
    pub forgotten_at: Timestamp,
}

/// The machine that takes the place of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdoptMachine {
    /// Another host, which is then forgotten, by whatever names it; or a serial number, UUID or MAC of a machine that is held.
    pub machine: String,
    /// The serial number that the host must have before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_serial: Option<String>,
    /// Say what would change, and change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// A machine that asks and is not recognised clearly, since the server started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictView {
    /// `weak`: it may be one host, and that is not enough; `conflict`: the evidence contradicts itself, or speaks for several;
    /// `shared_serial`: it became a host of its own, with a serial number that others have; `nobody`: it shows nothing.
    pub kind: String,
    /// What it shows: its DMI serial number.
    pub serial: Option<String>,
    /// Its DMI UUID.
    pub uuid: Option<String>,
    /// Its network cards.
    pub macs: Vec<String>,
    /// Manufacturer and product, as its firmware words them.
    pub model: Option<String>,
    /// Where it asked from.
    pub from: String,
    /// When it asked first.
    pub first_at: Timestamp,
    /// When it asked last.
    pub at: Timestamp,
    /// How often.
    pub asks: u64,
    /// The hosts that it may be.
    pub hosts: Vec<u64>,
    /// The comparison with each of them, one sentence each.
    pub findings: Vec<String>,
    /// What resolves it, one command or sentence each.
    pub remedies: Vec<String>,
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The host before; absent when it was made known just now.
    pub before: Option<HostView>,
    /// The host afterwards; absent when it was forgotten.
    pub after: Option<HostView>,
    /// Whether anything is different.
    pub changed: bool,
    /// Disks that lose their contents when the machine works through the new queue.
    pub erases: Vec<Erasure>,
}

/// A disk that loses its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The state that writes it.
    pub state: String,
    /// Which disk: a device path, `first`, `smallest` or `all`; absent when nothing in the server knows.
    pub disk: Option<String>,
}

/// An event of a host's timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Its name, which no other event has, not even after a restore: the key for doing something about it once.
    #[serde(default)]
    pub id: String,
    /// The host it happened to.
    pub host: u64,
    /// Its place on the host's timeline, from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who caused it: `machine`, `server`, `operator NAME` or `plugin NAME`.
    pub actor: String,
    /// What, as a stable word.
    pub kind: String,
    /// What, as a sentence for people; its wording may change.
    pub text: String,
    /// The particulars, by kind.
    pub data: Map<String, Value>,
}

/// An event that is damaged in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableEvent {
    /// The host it happened to.
    pub host: u64,
    /// Its place on the host's timeline.
    pub seq: u64,
    /// What is wrong with it.
    pub why: String,
}

/// How the newest request of a host to `/bootstrap` was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// When it asked.
    pub at: Timestamp,
    /// From where.
    pub from: String,
    /// Who it was taken for, in a sentence.
    pub recognition: String,
    /// The comparison with every host that shares anything with it, one sentence each.
    pub findings: Vec<String>,
    /// Parameters that were disregarded.
    pub ignored: Vec<IgnoredView>,
    /// What it was answered, in a sentence.
    pub answer: String,
}

/// A parameter of a boot that was disregarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredView {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What a host would be answered if it booted now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// `boot`, `local`, `wait` or `hold`.
    pub outcome: String,
    /// The same as a sentence, with the reason.
    pub text: String,
    /// The iPXE script, with a bootid that opens nothing.
    pub script: Option<String>,
}

/// An image folder, offered or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// The state that boots it.
    pub name: String,
    /// Why it is not offered; absent when it is.
    pub problem: Option<String>,
    /// The rest, when its manifest can be read.
    #[serde(flatten)]
    pub manifest: Option<ManifestView>,
}

/// What an image's manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestView {
    /// `kiwi`, `linux` or `live`.
    pub kind: String,
    /// What booting it does to disks: `nothing`, `disk` or `wipe`.
    pub writes: String,
    /// Which disk it writes: a device path, `first`, `smallest` or `all`.
    pub device: Option<String>,
    /// Kernel arguments besides the server's own.
    pub append: String,
    /// The kernel's file name.
    pub kernel: String,
    /// The initrd's file name.
    pub initrd: Option<String>,
    /// The file whose whole delivery means "installed".
    pub payload: Option<String>,
    /// Bytes of the payload.
    pub payload_bytes: Option<u64>,
    /// Bytes of all files that were imported.
    pub total_bytes: u64,
}

/// How an image is to be imported. The body of the request is what KIWI built or, with `kernel`, the bytes of the kernel
/// and behind them those of the initrd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportQuery {
    /// Which disk it writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Kernel arguments behind those of the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
    /// The file name of what KIWI built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The kernel's file name, for what KIWI did not build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Bytes of the kernel.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number_in_text")]
    pub kernel_bytes: Option<u64>,
    /// The initrd's file name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// Bytes of the initrd.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number_in_text")]
    pub initrd_bytes: Option<u64>,
    /// What kernel and initrd do to disks: `nothing`, `disk` or `wipe`; has to be said, as nobody can see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes: Option<String>,
    /// Whether machines in this state may report their MACs and metadata.
    #[serde(skip_serializing_if = "is_false")]
    pub inventory: bool,
    /// Whether an image of that name may be replaced.
    #[serde(skip_serializing_if = "is_false")]
    pub replace: bool,
}

/// Parameters of a query are text.
fn number_in_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
}

/// An image that was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedView {
    /// The image.
    pub image: ImageView,
    /// Kernel arguments of the archive that were dropped, as the server adds its own.
    pub dropped_args: Vec<String>,
    /// What somebody had put beside the files of the replaced image, templates above all, and is kept.
    pub kept_templates: Vec<String>,
    /// Whether it replaced another image.
    pub replaced: bool,
}

/// A line of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyLine {
    /// How far it is.
    Progress {
        /// Bytes that were read.
        read_bytes: u64,
        /// Bytes of the whole image.
        total_bytes: u64,
    },
    /// How it ended; the last line.
    Done(VerifiedView),
}

/// An image that was read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedView {
    /// The image.
    pub name: String,
    /// Files that were read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that no sum was recorded of.
    pub unrecorded: Vec<String>,
    /// Why it is not whole; absent when it is.
    pub problem: Option<String>,
}

/// The server itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Its version.
    pub version: String,
    /// Addresses that it listens on for machines.
    pub listen: Vec<String>,
    /// Where it keeps its data.
    pub data_dir: String,
    /// Where its images are.
    pub images_dir: String,
    /// Where the site's own templates are.
    #[serde(default)]
    pub templates_dir: String,
    /// Where `kiwispray.toml` is, or would be; `conf.d` is beside it.
    #[serde(default)]
    pub config_dir: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Its plugins.
    pub plugins: Vec<PluginView>,
    /// The freeze: no image that writes a disk is booted.
    #[serde(default)]
    pub frozen: Option<SafeguardView>,
    /// What keeps it from being ready, one sentence each.
    pub not_ready: Vec<String>,
    /// What works, but not as it should, one sentence each.
    #[serde(default)]
    pub degraded: Vec<String>,
}

/// A plugin's condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginView {
    /// Its instance name.
    pub name: String,
    /// `ok`, or what is wrong.
    pub state: String,
}

/// Why a request was refused: RFC 9457 with a stable `code`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// One sentence for people, with the remedy where there is one.
    pub detail: String,
    /// Which problem it is; stable, for programs.
    pub code: String,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}
