//! One host and its device: what NetBox says is applied, a request acted on once, outcomes told. In a trial the same is only
//! looked at.

use kiwispray_sdk::ask::hosts::{self, HostsError};
use kiwispray_sdk::{Edit, Error, KnownHost, Patch, ask};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{self, NetBox};
use crate::config::Config;
use crate::device::Device;
use crate::diff::{Difference, diff};
use crate::ledger;
use crate::matching;
use crate::request::{self, Acted, Step, Wish};
use crate::trouble::Trouble;
use crate::writeback::{self, Task};

/// How long a journal entry that was sent may be on its way by the hand of another call.
const ON_ITS_WAY_MS: u64 = 90_000;

/// What a visit came to, as an operator reads it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Visit {
    pub(crate) host: u64,
    pub(crate) device: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) differences: Vec<Difference>,
    /// The queue that is ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<String>,
}

/// Applies what NetBox says, and acts on a request. With `trial` nothing is changed anywhere.
///
/// # Errors
/// What time may help: NetBox or the core is away. What concerns this host alone is in the answer's problems.
pub(crate) fn visit(config: &Config, host: KnownHost, device: &Device, trial: bool) -> Result<Visit, Error> {
    let mut visit = Visit { host: host.id, device: device.id, ..Visit::default() };
    let host = facts(config, host, device, trial, &mut visit)?;
    if !trial && !matching::has_serial_of(&host, device) {
        ledger::bind(device.id, host.id)?;
    }
    let acted = ledger::load(host.id)?.acted;
    match request::step(device, config, acted.as_ref()) {
        Step::Nothing => {}
        Step::Unfit(why) => visit.problems.push(why),
        Step::Order(wish, _) if trial => visit.order = Some(wish.states.join(",")),
        Step::Forget | Step::Clear(_) if trial => {}
        Step::Forget => {
            ledger::act(host.id, None)?;
        }
        Step::Clear(acted) => clear(config, host.id, &acted, &mut visit)?,
        Step::Order(wish, next) => order(config, &host, &wish, next, &mut visit)?,
    }
    Ok(visit)
}

fn facts(
    config: &Config,
    host: KnownHost,
    device: &Device,
    trial: bool,
    visit: &mut Visit,
) -> Result<KnownHost, Error> {
    let mut found = diff(&host, device, config)?;
    visit.problems.append(&mut found.problems);
    if found.is_empty() {
        return Ok(host);
    }
    visit.differences = found.differences;
    if trial {
        return Ok(host);
    }
    let nameless = Patch { hostname: Edit::Keep, ..found.patch.clone() };
    let mut outcome = apply(&host, found.patch, |host| Ok(diff(host, device, config)?.patch))?;
    if let Err(why) = &outcome
        && visit.differences.iter().any(|one| one.what == "hostname")
    {
        // A name that another host has is no reason to leave the rest as it is.
        visit.problems.push(format!("the hostname stays as it is: {why}"));
        outcome =
            apply(&host, nameless, |host| Ok(Patch { hostname: Edit::Keep, ..diff(host, device, config)?.patch }))?;
    }
    Ok(outcome.unwrap_or_else(|why| {
        visit.problems.push(format!("the metadata stays as it is: {why}"));
        host
    }))
}

/// Gives the order. It is written down before, and again after: whatever happens in between, it is given once.
fn order(config: &Config, host: &KnownHost, wish: &Wish, mut next: Acted, visit: &mut Visit) -> Result<(), Error> {
    ledger::act(host.id, Some(&next))?;
    visit.order = Some(wish.states.join(","));
    let patch = || Patch::default().states(wish.states.clone()).order(next.order.clone());
    match apply(host, patch(), |_| Ok(patch()))? {
        Ok(_) => {}
        // The only refusal that speaks of the order's name is the one for a name that was used: this very wish was carried
        // out, and somebody was interrupted before that was written down.
        Err(why) if why.contains(&next.order) => {}
        Err(why) => {
            let problem = format!("the request `{}` was not carried out: {why}", wish.text);
            // It is tried again and again, but one word in the log is enough.
            if next.refused.as_ref() == Some(&why) {
                ask::note(&format!("host {}: {problem}", host.id));
            } else {
                visit.problems.push(problem);
                next.refused = Some(why);
                ledger::act(host.id, Some(&next))?;
            }
            return Ok(());
        }
    }
    next.done = true;
    next.refused = None;
    ledger::act(host.id, Some(&next))?;
    clear(config, host.id, &next, visit)
}

/// Empties the request field, if it still holds what was acted on.
fn clear(config: &Config, host: u64, acted: &Acted, visit: &mut Visit) -> Result<(), Error> {
    let Some(field) = &config.request_field else { return Ok(()) };
    let netbox = NetBox::new(config);
    let outcome = netbox.device(acted.device).and_then(|read| match request::step(&read.device, config, Some(acted)) {
        Step::Clear(_) => netbox.change(&read, &api::cleared(field, config.request_none.as_deref())),
        // Somebody was faster, or asks for something else by now: the next visit sees it.
        Step::Nothing | Step::Forget | Step::Order(..) | Step::Unfit(_) => Ok(read.device),
    });
    match outcome {
        Ok(device) => {
            if request::step(&device, config, Some(acted)) == Step::Forget {
                ledger::act(host, None)?;
            }
            Ok(())
        }
        Err(Trouble::Refused(why)) => {
            visit.problems.push(format!("the request was carried out but cannot be cleared: {why}"));
            Ok(())
        }
        Err(Trouble::Gone | Trouble::Changed) => Ok(()),
        Err(away @ Trouble::Away { .. }) => Err(away.into()),
    }
}

/// Applies a patch; made anew once if the host has changed meanwhile. The inner error is what the core will not do.
fn apply(
    host: &KnownHost,
    patch: Patch,
    again: impl Fn(&KnownHost) -> Result<Patch, Error>,
) -> Result<Result<KnownHost, String>, Error> {
    let mut outcome = hosts::apply(host, patch);
    if let Err(HostsError::Conflict(_)) = outcome {
        let host = hosts::get(host.id)?;
        outcome = hosts::apply(&host, again(&host)?);
    }
    match outcome {
        Ok(host) => Ok(Ok(host)),
        Err(HostsError::Denied(why) | HostsError::Invalid(why)) => Ok(Err(why)),
        Err(error @ (HostsError::NotFound | HostsError::Conflict(_) | HostsError::Unavailable(_))) => Err(error.into()),
    }
}

/// Tells NetBox what became of a host: in the journal, and by the status, each only where it is not so already.
///
/// # Errors
/// What keeps it from being told. What was told is remembered, the rest stays to be done.
pub(crate) fn tell(config: &Config, host: u64, device: &Device, tasks: &[Task]) -> Result<(), Error> {
    let mut refused = None;
    let mut told = Vec::new();
    for task in tasks.iter().filter(|task| !is_sent_by_another(task)) {
        match tell_journal(config, host, device, task) {
            Ok(()) => told.push(task),
            // The rest may be possible all the same.
            Err(error @ Error::Invalid(_)) => refused = refused.or(Some(error)),
            Err(error @ (Error::Retry(_) | Error::Failed(_) | Error::Fatal(_))) => return Err(error),
        }
    }
    tell_status(config, device, tasks)?;
    for task in told {
        ledger::done(host, task)?;
    }
    refused.map_or(Ok(()), Err)
}

fn tell_status(config: &Config, device: &Device, tasks: &[Task]) -> Result<(), Error> {
    let is_so = |device: &Device, status: &str| device.status.as_deref() == Some(status);
    let Some(status) = writeback::status(tasks, config).filter(|status| !is_so(device, status)) else { return Ok(()) };
    let netbox = NetBox::new(config);
    let read = netbox.device(device.id)?;
    // A change that changes nothing would still be an event for everybody who listens to NetBox.
    if !is_so(&read.device, status) {
        netbox.change(&read, &json!({"status": status}))?;
    }
    Ok(())
}

fn tell_journal(config: &Config, host: u64, device: &Device, task: &Task) -> Result<(), Error> {
    let Some(entry) = writeback::journal(task, device.id, host, config).filter(|_| !task.journaled) else {
        return Ok(());
    };
    let netbox = NetBox::new(config);
    if task.sent_ms.is_none() || !netbox.has_journal(device.id, &writeback::mark(task))? {
        ledger::edit_task(host, task, |task| task.sent_ms = Some(ask::now_ms()))?;
        if let Err(trouble) = netbox.add_journal(&entry) {
            // It may have arrived: the next try looks before it sends, and need not wait.
            ledger::edit_task(host, task, |task| task.sent_ms = Some(0))?;
            return Err(trouble.into());
        }
    }
    ledger::edit_task(host, task, |task| task.journaled = true)
}

fn is_sent_by_another(task: &Task) -> bool {
    task.sent_ms.is_some_and(|sent| sent > 0 && ask::now_ms().saturating_sub(sent) < ON_ITS_WAY_MS)
}
