//! What is under way over Redfish: one entry in kv per host, taken one small step further per run.
//!
//! The invariant: a machine is reset only if the host, read anew just before, still owes its settings (it is about to
//! install, has not begun, and its metadata does not say that it is done), and if it does nothing else: it is switched off,
//! or has asked what to boot since the order and was told to wait. Every step may be repeated: an entry that was not written
//! after a step only makes the step happen again.
use std::time::Duration;

use kiwispray_sdk::ask::hosts::HostsError;
use kiwispray_sdk::ask::kv::{self, Expect};
use kiwispray_sdk::ask::{self, Level};
use kiwispray_sdk::select::Subject;
use kiwispray_sdk::{Error, KnownHost, Patch};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::profile::{Config, Prepare, Profile, Redfish};
use crate::redfish::{Bmc, System, Trouble};

const PREFIX: &str = "work/";
/// Metadata of a machine that was told to wait: since which order.
const WAITING: &str = "bios.waiting";
/// Entries of one listing.
const LIST_MOST: u32 = 1_000;
/// A reset takes effect seconds later.
const AFTER_RESET_MS: u64 = 5_000;
const POLL_MS: u64 = 5_000;
/// How often a host that installs is looked at; its end is also told by an event.
const INSTALLING_MS: u64 = 60_000;
/// How long a machine may take to come up with its new settings.
const APPLY_MOST_MS: u64 = 20 * 60_000;
/// Resets for one order. More would not help, and somebody has to look.
const RESETS_MOST: u32 = 3;
const BACKOFF_FIRST_MS: u64 = 5_000;
const BACKOFF_MOST_MS: u64 = 10 * 60_000;
/// A host that changes all the time is left for the next run.
const TRIES: usize = 3;

/// What is under way for one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The profile it gets, and its version.
    profile: String,
    version: String,
    /// When it was ordered: what the machine did before does not count.
    began_ms: u64,
    step: Step,
    /// When the step began.
    since_ms: u64,
    /// When it is looked at next.
    due_ms: u64,
    /// Failures in a row.
    failures: u32,
    resets: u32,
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    /// Compare the settings, give the BIOS those that differ, and boot the network next.
    Compare,
    /// Reset, as soon as that disturbs nothing. A machine that starts again by itself needs none.
    Reset,
    /// Wait until the settings are as wanted.
    Poll,
    /// Too many resets: a new order begins anew.
    Stuck,
    /// Settings are done; wait until the host is installed.
    Installing,
    /// Boot from the disk again.
    PutBack,
}

/// What a step leads to.
enum Next {
    Go(Step, u64),
    Wait(u64),
    Done,
}

impl Work {
    fn new(profile: &Profile, now_ms: u64) -> Self {
        Self {
            profile: profile.name.clone(),
            version: profile.version.0.clone(),
            began_ms: now_ms,
            step: Step::Compare,
            since_ms: now_ms,
            due_ms: now_ms,
            failures: 0,
            resets: 0,
            error: None,
        }
    }

    /// Whether the machine has been told to wait since this began: then a reset takes nothing from anybody.
    fn is_waited_for(&self, subject: &Subject) -> bool {
        subject.metadata(WAITING).and_then(Value::as_u64) == Some(self.began_ms)
    }

    /// Where it stands, for the console.
    fn words(&self) -> String {
        let step = match self.step {
            Step::Compare => "comparing the settings",
            Step::Reset => "they are made when the machine starts again",
            Step::Poll => "waiting until they are in force",
            Step::Stuck => "given up; order again to begin anew",
            Step::Installing | Step::PutBack => "done",
        };
        match &self.error {
            Some(error) => format!("{step}. {error}"),
            None => step.to_owned(),
        }
    }
}

/// Where a host's preparation stands, in words for its console, and what is to be noted of a machine that is told to wait.
/// Works in hooks that decide.
///
/// # Errors
/// kv cannot be read.
pub(crate) fn progress(host: u64, subject: &Subject) -> Result<(String, Option<Patch>), Error> {
    let Some(work) = kv::get_json::<Work>(&key(host))? else { return Ok(("about to begin".to_owned(), None)) };
    let patch = (!work.is_waited_for(subject)).then(|| Patch::default().set(WAITING, work.began_ms));
    Ok((work.words(), patch))
}

/// Why a host is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Somebody gave it states: what was given up begins anew.
    Order,
    /// Something about it has changed, which may be what was wrong.
    Change,
    /// It was its turn.
    Look,
}

/// Notes what there is to do for a host: its preparation begins, begins anew, or ends.
///
/// # Errors
/// kv cannot be written; safe to repeat.
pub(crate) fn notice(config: &Config, host: &KnownHost, occasion: Occasion) -> Result<(), Error> {
    let now_ms = ask::now_ms();
    let known: Option<Work> = kv::get_json(&key(host.id))?;
    let owed = config.owes(host, &Subject::of(host)?)?;
    let work = match (known, owed) {
        (None, None) => return Ok(()),
        (None, Some((profile, _))) => Work::new(profile, now_ms),
        (Some(known), Some((profile, _))) if occasion == Occasion::Order || known.step == Step::Installing => {
            Work { error: known.error, ..Work::new(profile, now_ms) }
        }
        (Some(known), Some(_)) if occasion == Occasion::Change && known.failures > 0 => {
            Work { due_ms: now_ms, ..known }
        }
        (Some(known), None) if known.step == Step::Installing => Work { due_ms: now_ms, ..known },
        (Some(_), _) => return Ok(()),
    };
    kv::put_json(&key(host.id), &work).map(|_| ())
}

/// Takes everything that is due one step further. Returns when the next is due, from now.
///
/// # Errors
/// kv or hosts cannot be reached. What a BMC does is no error here.
pub(crate) fn advance(config: &Config, enough_ms: u32) -> Result<Option<u64>, Error> {
    let now_ms = ask::now_ms();
    let mut next_ms: Option<u64> = None;
    for key in kv::list(PREFIX, None, LIST_MOST)? {
        let Some(entry) = kv::get(&key)? else { continue };
        // What another version of this plugin left is begun anew when the host is noticed.
        let (Ok(mut work), Some(id)) = (serde_json::from_slice::<Work>(&entry.value), id_of(&key)) else {
            kv::delete(&key, Expect::Version(entry.version))?;
            continue;
        };
        if work.due_ms <= now_ms && ask::budget_ms() >= enough_ms {
            if !take_step(config, id, &mut work, now_ms)? {
                kv::delete(&key, Expect::Version(entry.version))?;
                continue;
            }
            let text = serde_json::to_vec(&work).map_err(|error| Error::Failed(error.to_string()))?;
            // Noticed anew meanwhile: that counts, and begins with what is true now.
            if let Err(error @ kv::KvError::Unavailable(_)) = kv::put(&key, &text, Expect::Version(entry.version)) {
                return Err(error.into());
            }
        }
        let wait_ms = work.due_ms.saturating_sub(now_ms);
        next_ms = Some(next_ms.map_or(wait_ms, |next_ms| next_ms.min(wait_ms)));
    }
    Ok(next_ms)
}

/// Whether there is more to do afterwards.
fn take_step(config: &Config, id: u64, work: &mut Work, now_ms: u64) -> Result<bool, Error> {
    let host = match ask::hosts::get(id) {
        Ok(host) => host,
        Err(HostsError::NotFound) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let subject = Subject::of(&host)?;
    let outcome = match work.step {
        Step::Compare | Step::Reset | Step::Poll | Step::Stuck => match config.owes(&host, &subject)? {
            // Forgotten, finished, begun, done by hand, or given another profile: all of that is noticed elsewhere.
            None => return Ok(false),
            Some((profile, _)) if profile.name != work.profile || profile.version.0 != work.version => {
                *work = Work::new(profile, now_ms);
                return Ok(true);
            }
            Some((profile, redfish)) => prepare(config, &host, &subject, (profile, redfish), work, now_ms),
        },
        Step::Installing if host.is_finished() => Ok(Next::Go(Step::PutBack, 0)),
        Step::Installing => Ok(Next::Wait(INSTALLING_MS)),
        Step::PutBack => put_back(config, &host, &subject, work),
    };
    match outcome {
        Ok(Next::Done) => return Ok(false),
        Ok(Next::Go(step, after_ms)) => {
            ask::log(
                Level::Info,
                "a step of a preparation is done",
                &[("host", &id.to_string()), ("next", &format!("{step:?}"))],
            );
            (work.step, work.since_ms, work.due_ms) = (step, now_ms, now_ms.saturating_add(after_ms));
            work.failures = 0;
            show(&host, work, None);
        }
        Ok(Next::Wait(after_ms)) => {
            work.due_ms = now_ms.saturating_add(after_ms);
            work.failures = 0;
            if work.step != Step::Stuck {
                show(&host, work, None);
            }
        }
        Err(Trouble { why, after }) => {
            work.failures = work.failures.saturating_add(1);
            work.due_ms = now_ms.saturating_add(pause_ms(work.failures, after));
            show(&host, work, Some(why));
        }
    }
    Ok(true)
}

fn prepare(
    config: &Config,
    host: &KnownHost,
    subject: &Subject,
    (profile, redfish): (&Profile, &Redfish),
    work: &mut Work,
    now_ms: u64,
) -> Result<Next, Trouble> {
    let system = Bmc::at(redfish.url(subject)?)?.system(&host.uuid, &host.serial)?;
    let bios = system.bios()?;
    let differing = bios.differing(&redfish.attributes)?;
    // A machine that is off has to be started in any case.
    if differing.is_empty() && (work.step != Step::Reset || !system.is_off()) {
        note(host, profile)?;
        return Ok(if profile.put_back.is_some() { Next::Go(Step::Installing, INSTALLING_MS) } else { Next::Done });
    }
    match work.step {
        Step::Compare if work.resets >= RESETS_MOST => {
            let why = format!("the settings are not in force after {RESETS_MOST} resets: {}", list(&differing));
            (work.step, work.since_ms) = (Step::Stuck, now_ms);
            Err(why.into())
        }
        Step::Compare => {
            system.set(&bios, &differing)?;
            system.boot_network_once()?;
            Ok(Next::Go(Step::Reset, 0))
        }
        Step::Reset => reset(config, host, &system, work),
        Step::Poll if now_ms.saturating_sub(work.since_ms) > APPLY_MOST_MS => {
            let said = bios.complaint().map(|said| format!(" ({said})")).unwrap_or_default();
            (work.step, work.since_ms) = (Step::Compare, now_ms);
            Err(format!("not in force after {} minutes: {}{said}", APPLY_MOST_MS / 60_000, list(&differing)).into())
        }
        Step::Poll => Ok(Next::Wait(POLL_MS)),
        Step::Stuck => Ok(Next::Wait(BACKOFF_MOST_MS)),
        Step::Installing | Step::PutBack => Ok(Next::Done),
    }
}

/// The one place that resets a machine.
fn reset(config: &Config, host: &KnownHost, system: &System, work: &mut Work) -> Result<Next, Trouble> {
    let unknown = |error: &dyn std::fmt::Debug| Trouble::from(format!("the host cannot be read: {error:?}"));
    let now = ask::hosts::get(host.id).map_err(|error| unknown(&error))?;
    let subject = Subject::of(&now).map_err(|error| unknown(&error))?;
    match config.owes(&now, &subject).map_err(|error| unknown(&error))? {
        Some((profile, _)) if profile.name == work.profile && profile.version.0 == work.version => {}
        // The next step finds out what is true now.
        Some(_) | None => return Ok(Next::Wait(0)),
    }
    if !system.is_off() && !work.is_waited_for(&subject) {
        return Ok(Next::Wait(POLL_MS));
    }
    system.reset()?;
    work.resets = work.resets.saturating_add(1);
    Ok(Next::Go(Step::Poll, AFTER_RESET_MS))
}

fn put_back(config: &Config, host: &KnownHost, subject: &Subject, work: &Work) -> Result<Next, Trouble> {
    let Some(profile) = config.named(&work.profile, &work.version) else { return Ok(Next::Done) };
    let (Some(to), Prepare::Redfish(redfish)) = (profile.put_back, &profile.prepare) else {
        return Ok(Next::Done);
    };
    Bmc::at(redfish.url(subject)?)?.system(&host.uuid, &host.serial)?.put_back(to)?;
    Ok(Next::Done)
}

/// Writes down that a host has a profile: from then on it installs.
///
/// # Errors
/// A sentence: it could not be written; the step is repeated.
pub(crate) fn note(host: &KnownHost, profile: &Profile) -> Result<(), String> {
    let mut host = host.clone();
    for _ in 0..TRIES {
        let patch = Patch::default()
            .set("bios.profile", profile.name.clone())
            .set("bios.version", profile.version.0.clone())
            .unset("bios.error")
            .unset(WAITING);
        match ask::hosts::apply(&host, patch) {
            Ok(_) => return Ok(()),
            Err(HostsError::Conflict(_)) => match ask::hosts::get(host.id) {
                Ok(now) => host = now,
                Err(error) => return Err(format!("the host cannot be read: {error:?}")),
            },
            Err(error) => return Err(format!("the profile cannot be noted: {error:?}")),
        }
    }
    Err("the host changes all the time".to_owned())
}

/// Shows the operator what is wrong, or that nothing is wrong any more. Only changes are written.
fn show(host: &KnownHost, work: &mut Work, error: Option<String>) {
    if work.error == error {
        return;
    }
    let patch = match &error {
        Some(error) => {
            let id = host.id.to_string();
            ask::log(Level::Warn, "the preparation of a host does not go on", &[("host", &id), ("why", error)]);
            Patch::default().set("bios.error", error.as_str())
        }
        None => Patch::default().unset("bios.error"),
    };
    // The error stands on the console in any case. If the host has just changed, its metadata is told the next time.
    let now = ask::hosts::get(host.id);
    if now.and_then(|now| ask::hosts::apply(&now, patch)).is_ok() {
        work.error = error;
    }
}

fn list(attributes: &Map<String, Value>) -> String {
    let wanted: Vec<String> = attributes.iter().take(5).map(|(name, value)| format!("{name} is not {value}")).collect();
    wanted.join(", ")
}

fn pause_ms(failures: u32, after: Option<Duration>) -> u64 {
    let wish_ms = after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    BACKOFF_FIRST_MS.saturating_mul(doubled).max(wish_ms).min(BACKOFF_MOST_MS)
}

fn key(host: u64) -> String {
    format!("{PREFIX}{host:020}")
}

fn id_of(key: &str) -> Option<u64> {
    key.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
