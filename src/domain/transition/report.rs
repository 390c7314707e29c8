//! Reporting: a step is done, or it failed.

use jiff::Timestamp;

use super::{Change, Draft};
use crate::domain::{Actor, Boot, BootId, EventKind, Host, PastOutcome, Stage};

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
