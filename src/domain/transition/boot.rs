//! Booting: what a host's record allows, the one place that hands out a boot, and how far boots come.

use std::fmt;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::{Change, Clearance, Draft, clear};
use crate::domain::safeguard::moment;
use crate::domain::{
    Actor, Boot, BootId, EventKind, Fleet, Host, HostId, PastOutcome, Safeguard, Stage, StateName, Writes,
};

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
    /// The step is done, and the queue was kept from moving on: ask again whether it may.
    Advance,
    /// Boot the current state, if everybody else agrees.
    Offer,
}

/// Why a host's own record, or what holds for all hosts, makes it hold. Its text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldReason {
    /// The payload was served whole and no finish came.
    Unreported(HostId),
    /// It was brought back from a backup, and nobody said yet that its queue is still right.
    Quarantined(HostId),
    /// The machine reported a failure, in these words.
    Failed(HostId, String),
    /// The machine reported that it is done, and the queue was kept from moving on.
    NotAdvanced(HostId, String),
    /// The limit of attempts is reached.
    TooManyAttempts(HostId, u32),
    /// A boot of this host is running at another address.
    InUse(IpAddr),
    /// The clock is behind the host's newest event.
    ClockBehind,
    /// Somebody locked it.
    Locked(HostId, Safeguard),
    /// Nothing that writes is booted by any host.
    Frozen(Safeguard),
    /// So many installed hosts were installed again within an hour, and that is the limit; when the next may be.
    TooManyReinstalls(u32, Option<Timestamp>),
}

impl HoldReason {
    /// Whether this stays until a person acts; then it is worth an event.
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Unreported(_) | Self::Failed(..) | Self::TooManyAttempts(..) => true,
            // The event that quarantined it is on the timeline already.
            Self::Quarantined(_)
            | Self::NotAdvanced(..)
            | Self::InUse(_)
            | Self::ClockBehind
            | Self::Locked(..)
            | Self::Frozen(_)
            | Self::TooManyReinstalls(..) => false,
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreported(id) => {
                write!(f, "installed but never reported: kiwispray host finish {id} or kiwispray host retry {id}")
            }
            Self::Quarantined(id) => write!(
                f,
                "quarantined, as a backup was restored that may be older than its disk: kiwispray release {id}, or if it is \
                 installed kiwispray host finish {id}"
            ),
            Self::Failed(id, reason) => {
                write!(f, "the machine reported a failure ({reason}): kiwispray host retry {id}")
            }
            Self::NotAdvanced(id, why) => {
                write!(f, "done, and kept from going on: {why}; it is asked again, or: kiwispray host finish {id}")
            }
            Self::TooManyAttempts(id, attempts) => {
                write!(f, "{attempts} attempts did not complete: kiwispray host retry {id}")
            }
            Self::InUse(address) => write!(f, "this host is being installed from {address}"),
            Self::ClockBehind => f.write_str("the server's clock is behind its own records: set it"),
            Self::Locked(id, lock) => {
                write!(f, "locked {lock} - this would write its disk: kiwispray host unlock {id}")
            }
            Self::Frozen(freeze) => write!(f, "frozen {freeze} - no image that writes is booted until: kiwispray thaw"),
            Self::TooManyReinstalls(most, next) => {
                write!(f, "limits.reinstalls_per_hour is {most}, and so many hosts were installed again")?;
                match next {
                    Some(next) => write!(f, ", the next may be at {}, or raise the limit", moment(*next))?,
                    None => f.write_str(", raise the limit")?,
                }
                f.write_str(" and say: kiwispray config reload")
            }
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
    if host.quarantined {
        return NextBoot::Hold(HoldReason::Quarantined(host.id));
    }
    if ask.now.duration_until(host.changed_at) > CLOCK_TOLERANCE {
        return NextBoot::Hold(HoldReason::ClockBehind);
    }
    let Some(boot) = host.current_boot() else { return NextBoot::Offer };
    match &boot.stage {
        Stage::Failed { reason } => NextBoot::Hold(HoldReason::Failed(host.id, reason.clone())),
        Stage::Done { .. } => NextBoot::Advance,
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
    /// Whether it is something else than the current state.
    pub detour: bool,
}

/// Hands out a boot of the current step; the boot before it is superseded. Refused is what would write a disk that must not
/// be written now.
///
/// The caller asked [`next_boot`] of this very host and got [`NextBoot::Offer`]. A template fetches who knows what from
/// who knows where, so with the offer its attempt has begun and, if it writes, all may have been delivered; the attempt of
/// an image begins with its first file.
pub fn offer(host: &Host, offer: Offer, fleet: &Fleet, now: Timestamp) -> Result<Change, HoldReason> {
    let Offer { bootid, from, image, writes, detour } = offer;
    let clearance = clear(host, writes, fleet, now)?;
    let is_template = image.is_none();
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.retire_boot(PastOutcome::Superseded);
    // Once for each order: further attempts at it are of the same reinstall.
    draft.host.reinstalls &= !matches!(clearance, Clearance::Reinstalling(_));
    draft.clearance = clearance;
    let stage = match (is_template, writes.is_order()) {
        (false, _) => Stage::Offered,
        (true, false) => Stage::Started,
        (true, true) => Stage::Delivered,
    };
    draft.host.boot = Some(Boot { bootid, step: host.step, from, at: now, image, writes, detour, stage, held: false });
    draft.host.seen = true;
    draft.event(EventKind::BootOffered { state: host.states.current().clone(), writes, from });
    if is_template {
        draft.host.attempts = host.attempts.saturating_add(u32::from(!detour));
        draft.host.installed |= writes == Writes::Disk;
        draft.event(EventKind::AttemptStarted { number: draft.host.attempts, file: "template".to_owned() });
    }
    Ok(draft.done())
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
    // What is booted in between is no attempt at the step.
    draft.host.attempts = host.attempts.saturating_add(u32::from(!boot.detour));
    draft.host.boot = Some(Boot { stage: Stage::Started, ..boot.clone() });
    draft.event(EventKind::AttemptStarted { number: draft.host.attempts, file: file.to_owned() });
    Ok(Some(draft.done()))
}

/// The payload is about to be served whole. To be committed before its last byte leaves. None when it was before.
pub fn deliver(host: &Host, bootid: &BootId, file: &str, now: Timestamp) -> Result<Option<Change>, FetchRefused> {
    let boot = boot_of(host, bootid)?;
    match boot.stage {
        Stage::Delivered | Stage::Failed { .. } | Stage::Done { .. } => return Ok(None),
        Stage::Offered | Stage::Started => {}
    }
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.host.boot = Some(Boot { stage: Stage::Delivered, ..boot.clone() });
    draft.host.installed |= boot.writes == Writes::Disk;
    draft.event(EventKind::PayloadDelivered { file: file.to_owned() });
    Ok(Some(draft.done()))
}

pub(super) fn boot_of<'a>(host: &'a Host, bootid: &BootId) -> Result<&'a Boot, FetchRefused> {
    host.current_boot().filter(|boot| boot.bootid == *bootid).ok_or(FetchRefused::Over)
}
