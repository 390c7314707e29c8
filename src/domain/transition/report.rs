//! Reporting: a step is done, or it failed.

use jiff::Timestamp;

use super::{Change, Draft};
use crate::domain::{Actor, Boot, BootId, EventKind, Host, PastOutcome, Stage, States, Writes};

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
        Caller::FinishedBefore | Caller::Current(Boot { stage: Stage::Done { .. }, .. }) => Ok(None),
        Caller::Current(boot) if boot.detour => Ok(Some(end_detour(host, boot, now))),
        Caller::Current(_) => Ok(Some(advance(host, None, Actor::Machine, now))),
    }
}

/// Something that was booted in between is over: the step is as it was.
fn end_detour(host: &Host, boot: &Boot, now: Timestamp) -> Change {
    let image = boot.image.as_ref().map_or("template", |image| image.as_str()).to_owned();
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.retire_boot(PastOutcome::Finished);
    draft.event(EventKind::DetourEnded { image, state: host.states.current().clone() });
    draft.done()
}

/// The machine finished its step, and that is never forgotten, but something keeps the queue from moving on: the host holds
/// on the done step, which is not booted again. None when it had said so before.
pub fn finish_held(host: &Host, bootid: &BootId, why: &str, now: Timestamp) -> Result<Option<Change>, FinishRefused> {
    let boot = match caller(host, bootid)? {
        Caller::FinishedBefore | Caller::Current(Boot { stage: Stage::Done { .. }, .. }) => return Ok(None),
        Caller::Current(boot) => boot,
    };
    let why = bounded(why);
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.host.boot = Some(Boot { stage: Stage::Done { why: why.clone() }, held: true, ..boot.clone() });
    draft.host.installed |= boot.writes == Writes::Disk;
    draft.event(EventKind::StepDone { state: host.states.current().clone(), why });
    Ok(Some(draft.done()))
}

/// The queue moves on from its current step, which is done: to what stands next, or to another queue. The caller makes sure
/// that the other one orders nothing that the own one would not.
pub fn advance(host: &Host, to: Option<States>, actor: Actor, now: Timestamp) -> Change {
    let mut draft = Draft::of(host, actor, now);
    // A wipe may have been of one disk among several: what was installed may still be there.
    draft.host.installed |= host.current_boot().is_some_and(|boot| boot.writes == Writes::Disk);
    let (from, to) = (host.states.clone(), to.unwrap_or_else(|| host.states.after_current()));
    draft.queue(to.clone(), PastOutcome::Finished);
    draft.event(EventKind::Finished { from, to });
    draft.done()
}

/// Characters of a machine's words that are kept.
const LONGEST_REASON: usize = 300;

/// The machine failed its step: the host holds, with the reason. None when it had said so before.
pub fn fail(host: &Host, bootid: &BootId, reason: &str, now: Timestamp) -> Result<Option<Change>, FailRefused> {
    let boot = match caller(host, bootid)? {
        Caller::FinishedBefore | Caller::Current(Boot { stage: Stage::Done { .. }, .. }) => {
            return Err(FinishRefused::Superseded);
        }
        Caller::Current(boot) => boot,
    };
    if matches!(boot.stage, Stage::Failed { .. }) {
        return Ok(None);
    }
    let reason = bounded(reason);
    let mut draft = Draft::of(host, Actor::Machine, now);
    draft.host.boot = Some(Boot { stage: Stage::Failed { reason: reason.clone() }, held: true, ..boot.clone() });
    draft.event(EventKind::Failed { reason });
    Ok(Some(draft.done()))
}

/// Declares the current step done by hand. None for a host that is finished.
pub fn finish_by_operator(host: &Host, actor: Actor, now: Timestamp) -> Option<Change> {
    if host.states.is_finished() { None } else { Some(advance(host, None, actor, now)) }
}

fn bounded(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect()
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
