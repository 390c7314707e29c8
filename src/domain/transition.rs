//! What each request changes, as pure functions from a host to a changed host and its events, or to a refusal.
//!
//! These functions carry the promise "one order, one installation":
//! - only [`offer`] hands out a boot, and only when [`next_boot`] says so;
//! - an order whose payload was delivered whole is never offered again, unless [`retry`] or [`set_states`] orders anew;
//! - only the bootid of the current step finishes it, and only once;
//! - nothing but [`set_states`] with the owner's explicit wish leads out of `finished`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::{
    Actor, Boot, BootId, Event, EventKind, Facts, Hardware, Host, HostId, Hostname, Identity, MacAddr, Metadata,
    MetadataError, PastBoot, PastOutcome, Stage, StateName, States, Step, Writes,
};

/// A changed host and the events that explain the change, numbered; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The host afterwards.
    pub host: Host,
    /// What happened.
    pub events: Vec<Event>,
}

/// A change in the making.
struct Draft {
    host: Host,
    events: Vec<Event>,
    actor: Actor,
    now: Timestamp,
}

impl Draft {
    fn of(host: &Host, actor: Actor, now: Timestamp) -> Self {
        Self { host: host.clone(), events: Vec::new(), actor, now }
    }

    fn event(&mut self, kind: EventKind) {
        self.host.event_count = self.host.event_count.saturating_add(1);
        self.events.push(Event {
            host: self.host.id,
            seq: self.host.event_count,
            at: self.now,
            actor: self.actor.clone(),
            kind,
        });
    }

    /// The queue moves, or its current step is ordered anew: boots of the step before are over.
    fn queue(&mut self, states: States, outcome: PastOutcome) {
        self.retire_boot(outcome);
        self.host.states = states;
        self.host.step = self.host.step.next();
        self.host.attempts = 0;
        self.revise();
    }

    fn retire_boot(&mut self, outcome: PastOutcome) {
        if let Some(boot) = self.host.boot.take() {
            self.host.past.push(PastBoot { bootid: boot.bootid, outcome });
            let surplus = self.host.past.len().saturating_sub(Host::MOST_PAST_BOOTS);
            self.host.past.drain(..surplus);
        }
    }

    fn revise(&mut self) {
        self.host.revision = self.host.revision.saturating_add(1);
    }

    fn done(mut self) -> Change {
        self.host.changed_at = self.now;
        Change { host: self.host, events: self.events }
    }
}

// ---- Becoming known ----

/// A machine about to become known.
#[derive(Debug, Clone)]
pub struct Registration {
    /// What recognises it.
    pub identity: Identity,
    /// What its firmware told of it.
    pub hardware: Hardware,
    /// Its name.
    pub hostname: Option<Hostname>,
    /// Its first queue.
    pub states: States,
    /// What the site wants to remember of it.
    pub metadata: Metadata,
    /// Why it is nobody else.
    pub why: String,
}

/// A new host with this number.
pub fn register(id: HostId, registration: Registration, actor: Actor, now: Timestamp) -> Change {
    let Registration { identity, hardware, hostname, states, metadata, why } = registration;
    let host = Host {
        id,
        revision: 1,
        event_count: 0,
        identity,
        hardware,
        hostname,
        states: states.clone(),
        step: Step::FIRST,
        attempts: 0,
        boot: None,
        past: Vec::new(),
        metadata,
        seen: actor == Actor::Machine,
        created_at: now,
        changed_at: now,
    };
    let mut draft = Draft::of(&host, actor, now);
    draft.event(EventKind::Registered { states, why });
    draft.done()
}

/// What a strongly recognised machine showed that was unknown or has changed; none when that is nothing.
pub fn learn(host: &Host, facts: &Facts, now: Timestamp) -> Option<Change> {
    let known = &host.identity;
    let room = Identity::MOST_MACS.saturating_sub(known.macs.len());
    let macs: Vec<MacAddr> = facts.identity.macs.difference(&known.macs).copied().take(room).collect();
    let serial = known.serial.is_none().then(|| facts.identity.serial.clone()).flatten();
    let uuid = known.uuid.is_none().then_some(facts.identity.uuid).flatten();
    let dmi = serial.is_some() || uuid.is_some();
    let identity_grows = dmi || !macs.is_empty();
    let hardware = facts.hardware != host.hardware;
    if !identity_grows && !hardware && host.seen {
        return None;
    }
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.host.seen = true;
    draft.host.hardware = facts.hardware.clone();
    if identity_grows {
        draft.host.identity.macs.extend(&macs);
        draft.host.identity.serial = known.serial.clone().or(serial);
        draft.host.identity.uuid = known.uuid.or(uuid);
        draft.revise();
    }
    draft.event(EventKind::IdentityLearned { macs, dmi, hardware });
    Some(draft.done())
}

// ---- Booting ----

/// A request to `/bootstrap` by a recognised machine.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Where it came from.
    pub from: IpAddr,
    /// When.
    pub now: Timestamp,
    /// Whether files of the newest boot are being fetched.
    pub activity: Activity,
    /// Attempts that an order gets.
    pub most_attempts: u32,
}

/// Whether files of a boot are being fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// A transfer runs, or one ended a moment ago.
    Fetching,
    /// Nothing has been fetched for a while.
    Quiet,
}

/// What the host's record alone says about its next boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextBoot {
    /// Finished: its own disk.
    LocalDisk,
    /// `new`: wait for a state.
    Wait,
    /// Wait for a person.
    Hold(HoldReason),
    /// Boot the current state, if everybody else agrees.
    Offer,
}

/// Why a host's own record makes it hold. Its text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldReason {
    /// The payload was served whole and no finish came.
    Unreported(HostId),
    /// The machine reported a failure, in these words.
    Failed(HostId, String),
    /// The limit of attempts is reached.
    TooManyAttempts(HostId, u32),
    /// A boot of this host is running at another address.
    InUse(IpAddr),
    /// The clock is behind the host's newest event.
    ClockBehind,
}

impl HoldReason {
    /// Whether this stays until a person acts; then it is worth an event.
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Unreported(_) | Self::Failed(..) | Self::TooManyAttempts(..) => true,
            Self::InUse(_) | Self::ClockBehind => false,
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreported(id) => {
                write!(f, "installed but never reported: kiwispray host finish {id} or kiwispray host retry {id}")
            }
            Self::Failed(id, reason) => {
                write!(f, "the machine reported a failure ({reason}): kiwispray host retry {id}")
            }
            Self::TooManyAttempts(id, attempts) => {
                write!(f, "{attempts} attempts did not complete: kiwispray host retry {id}")
            }
            Self::InUse(address) => write!(f, "this host is being installed from {address}"),
            Self::ClockBehind => f.write_str("the server's clock is behind its own records: set it"),
        }
    }
}

/// How far the clock may be behind a record: time servers step clocks by less.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(10);

/// What the host's record alone says about its next boot. Changes nothing.
pub fn next_boot(host: &Host, ask: &Ask) -> NextBoot {
    if host.states.is_finished() {
        return NextBoot::LocalDisk;
    }
    if let Some(boot) = &host.boot
        && boot.from != ask.from
        && ask.activity == Activity::Fetching
    {
        return NextBoot::Hold(HoldReason::InUse(boot.from));
    }
    if host.states.is_new() {
        return NextBoot::Wait;
    }
    if ask.now.duration_until(host.changed_at) > CLOCK_TOLERANCE {
        return NextBoot::Hold(HoldReason::ClockBehind);
    }
    let Some(boot) = host.current_boot() else { return NextBoot::Offer };
    match &boot.stage {
        Stage::Failed { reason } => NextBoot::Hold(HoldReason::Failed(host.id, reason.clone())),
        Stage::Delivered if boot.writes.is_order() => NextBoot::Hold(HoldReason::Unreported(host.id)),
        Stage::Offered | Stage::Started | Stage::Delivered => {
            if boot.writes.is_order() && host.attempts >= ask.most_attempts {
                NextBoot::Hold(HoldReason::TooManyAttempts(host.id, host.attempts))
            } else {
                NextBoot::Offer
            }
        }
    }
}

/// A boot about to be handed out.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its new secret.
    pub bootid: BootId,
    /// Where the machine asked from.
    pub from: IpAddr,
    /// The image that it boots; none for a template.
    pub image: Option<StateName>,
    /// What that does to disks.
    pub writes: Writes,
}

/// Hands out a boot of the current step; the boot before it is superseded.
///
/// The caller asked [`next_boot`] of this very host and got [`NextBoot::Offer`]. A template fetches who knows what from
/// who knows where, so its attempt begins with the offer; the attempt of an image begins with its first file.
pub fn offer(host: &Host, offer: Offer, now: Timestamp) -> Change {
    let Offer { bootid, from, image, writes } = offer;
    let is_template = image.is_none();
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.retire_boot(PastOutcome::Superseded);
    let stage = if is_template { Stage::Started } else { Stage::Offered };
    draft.host.boot = Some(Boot { bootid, step: host.step, from, at: now, image, writes, stage, held: false });
    draft.host.seen = true;
    draft.event(EventKind::BootOffered { state: host.states.current().clone(), writes, from });
    if is_template {
        draft.host.attempts = host.attempts.saturating_add(1);
        draft.event(EventKind::AttemptStarted { number: draft.host.attempts, file: "template".to_owned() });
    }
    draft.done()
}

/// Remembers that a boot was answered by hold, which ends the attempt; none when that is remembered already.
pub fn note_hold(host: &Host, reason: &HoldReason, now: Timestamp) -> Option<Change> {
    let boot = host.current_boot()?;
    if boot.held || !reason.is_lasting() {
        return None;
    }
    let mut draft = Draft::of(host, Actor::Server, now);
    draft.host.boot = Some(Boot { held: true, ..boot.clone() });
    draft.event(EventKind::Held { why: reason.to_string() });
    Some(draft.done())
}

/// A boot's files are not, or no longer, to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchRefused {
    /// The bootid is of no current boot.
    #[error("this boot is over: its files are no longer served")]
    Over,
}

/// The first file of a boot is being fetched: an attempt. None when it is not the first.
pub fn start_attempt(host: &Host, bootid: &BootId, file: &str, now: Timestamp) -> Result<Option<Change>, FetchRefused> {
    let boot = boot_of(host, bootid)?;
    if boot.stage != Stage::Offered {
        return Ok(None);
    }
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.host.attempts = host.attempts.saturating_add(1);
    draft.host.boot = Some(Boot { stage: Stage::Started, ..boot.clone() });
    draft.event(EventKind::AttemptStarted { number: draft.host.attempts, file: file.to_owned() });
    Ok(Some(draft.done()))
}

/// The payload is about to be served whole. To be committed before its last byte leaves. None when it was before.
pub fn deliver(host: &Host, bootid: &BootId, file: &str, now: Timestamp) -> Result<Option<Change>, FetchRefused> {
    let boot = boot_of(host, bootid)?;
    match boot.stage {
        Stage::Delivered | Stage::Failed { .. } => return Ok(None),
        Stage::Offered | Stage::Started => {}
    }
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.host.boot = Some(Boot { stage: Stage::Delivered, ..boot.clone() });
    draft.event(EventKind::PayloadDelivered { file: file.to_owned() });
    Ok(Some(draft.done()))
}

fn boot_of<'a>(host: &'a Host, bootid: &BootId) -> Result<&'a Boot, FetchRefused> {
    host.current_boot().filter(|boot| boot.bootid == *bootid).ok_or(FetchRefused::Over)
}

// ---- Reporting ----

/// Why a finish changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FinishRefused {
    /// The bootid was never this host's, or is long forgotten.
    #[error("wrong bootid")]
    WrongBootId,
    /// The boot it belongs to was replaced by a later boot or order.
    #[error("this boot was superseded; nothing was changed")]
    Superseded,
}

/// Why a failure report changes nothing.
pub type FailRefused = FinishRefused;

/// The machine finished its step: the queue advances. None when it had said so before.
pub fn finish(host: &Host, bootid: &BootId, now: Timestamp) -> Result<Option<Change>, FinishRefused> {
    match caller(host, bootid)? {
        Caller::FinishedBefore => Ok(None),
        Caller::Current(_) => Ok(Some(advance(host, Actor::Machine, now))),
    }
}

/// Characters of a machine's words that are kept.
const LONGEST_REASON: usize = 300;

/// The machine failed its step: the host holds, with the reason. None when it had said so before.
pub fn fail(host: &Host, bootid: &BootId, reason: &str, now: Timestamp) -> Result<Option<Change>, FailRefused> {
    let boot = match caller(host, bootid)? {
        Caller::FinishedBefore => return Err(FinishRefused::Superseded),
        Caller::Current(boot) => boot,
    };
    if matches!(boot.stage, Stage::Failed { .. }) {
        return Ok(None);
    }
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.host.boot = Some(Boot { stage: Stage::Failed { reason: reason.clone() }, held: true, ..boot.clone() });
    draft.event(EventKind::Failed { reason });
    Ok(Some(draft.done()))
}

/// Declares the current step done by hand. None for a host that is finished.
pub fn finish_by_operator(host: &Host, actor: Actor, now: Timestamp) -> Option<Change> {
    if host.states.is_finished() { None } else { Some(advance(host, actor, now)) }
}

enum Caller<'a> {
    Current(&'a Boot),
    FinishedBefore,
}

fn caller<'a>(host: &'a Host, bootid: &BootId) -> Result<Caller<'a>, FinishRefused> {
    if let Some(boot) = host.boot.as_ref().filter(|boot| boot.bootid == *bootid) {
        return if boot.step == host.step { Ok(Caller::Current(boot)) } else { Err(FinishRefused::Superseded) };
    }
    match host.past.iter().rev().find(|past| past.bootid == *bootid).map(|past| past.outcome) {
        Some(PastOutcome::Finished) => Ok(Caller::FinishedBefore),
        Some(PastOutcome::Superseded) => Err(FinishRefused::Superseded),
        None => Err(FinishRefused::WrongBootId),
    }
}

fn advance(host: &Host, actor: Actor, now: Timestamp) -> Change {
    let mut draft = Draft::of(host, actor, now);
    let (from, to) = (host.states.clone(), host.states.after_current());
    draft.queue(to.clone(), PastOutcome::Finished);
    draft.event(EventKind::Finished { from, to });
    draft.done()
}

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

// ---- Orders and edits by people ----

/// Why the queue was not changed. The text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetRefused {
    /// The host is finished and the wish to install it again was not spoken.
    #[error("{0} is finished: this would install it again; say so with --reinstall")]
    Finished(String),
    /// An attempt is running and the wish to give it up was not spoken.
    #[error("{0} is being installed right now; give that up with --abort")]
    AttemptRunning(String),
}

/// Replaces the queue: the order by which machines get installed.
pub fn set_states(
    host: &Host,
    to: States,
    reinstall: bool,
    abort: bool,
    actor: Actor,
    now: Timestamp,
) -> Result<Change, SetRefused> {
    let leaves_finished = host.states.is_finished() && !to.is_finished();
    if leaves_finished && !reinstall {
        return Err(SetRefused::Finished(host.label()));
    }
    let aborts = host.is_attempt_open();
    if aborts && !abort {
        return Err(SetRefused::AttemptRunning(host.label()));
    }
    let mut draft = Draft::of(host, actor, now);
    draft.queue(to.clone(), PastOutcome::Superseded);
    draft.event(EventKind::StatesSet { from: host.states.clone(), to, reinstall: leaves_finished, abort: aborts });
    Ok(draft.done())
}

/// Why a step was not ordered anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryRefused {
    /// `new` and `finished` boot nothing.
    #[error("{0} is {1}: there is nothing to try again; give it a state with `kiwispray deploy`")]
    NothingToRetry(String, StateName),
    /// An attempt is running.
    #[error("{0} is being installed right now; give that up with --abort")]
    AttemptRunning(String),
}

/// Orders the current step anew: its attempts count from zero, and late calls of its boots are superseded.
pub fn retry(host: &Host, abort: bool, actor: Actor, now: Timestamp) -> Result<Change, RetryRefused> {
    let state = host.states.current().clone();
    if state.is_built_in() {
        return Err(RetryRefused::NothingToRetry(host.label(), state));
    }
    // A delivered payload waits for a report that may never come: trying again is the way out, not an accident.
    let is_transferring = host.current_boot().is_some_and(|boot| boot.stage == Stage::Started && !boot.held);
    if is_transferring && !abort {
        return Err(RetryRefused::AttemptRunning(host.label()));
    }
    let mut draft = Draft::of(host, actor, now);
    draft.queue(host.states.clone(), PastOutcome::Superseded);
    draft.event(EventKind::Retried { state });
    Ok(draft.done())
}

/// Changes by hand that are no orders.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// A name to set, or `Some(None)` to take it away.
    pub hostname: Option<Option<Hostname>>,
    /// What becomes of the metadata.
    pub metadata: MetadataEdit,
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
pub type EditRefused = MetadataError;

/// Changes name and metadata. None when that changes nothing.
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

/// The last event of a host that is taken out of the store.
pub fn forget(host: &Host, actor: Actor, now: Timestamp) -> Change {
    let mut draft = Draft::of(host, actor, now);
    draft.event(EventKind::Forgotten {});
    draft.done()
}

/// Puts an event on the timeline that changes nothing else.
pub fn note(host: &Host, kind: EventKind, actor: Actor, now: Timestamp) -> Change {
    let mut draft = Draft::of(host, actor, now);
    draft.event(kind);
    draft.done()
}
