//! Brings the firmware of a machine into a profile before it is installed.
//!
//! Two ways: a preparation image that is put before the states of an order, or settings that the machine's BMC makes over
//! Redfish while the host waits. The invariant of both: no host that has begun to install, or that is finished, is disturbed;
//! and no host that owes its settings boots an installer.
#[cfg(test)]
mod double;
mod profile;
mod redfish;
mod work;

use kiwispray_sdk::ask::{self, Level};
use kiwispray_sdk::select::Subject;
use kiwispray_sdk::{
    ALLOW, BootDecision, BootRequest, ConfigProblem, Description, DiscoveryDecision, Error, Event, KnownHost, NextRun,
    PASS, Patch, Plugin, TransitionDecision, TransitionRequest, admit, deny, hold, redirect,
};
use serde_json::Value;

use crate::profile::{Config, Prepare, problems, schema};
use crate::work::Occasion;

/// Takes what is under way further.
const APPLY: &str = "apply";
const APPLY_PERIOD_S: u32 = 10;
/// Finds hosts that no event told of: the profiles themselves have changed.
const LOOK: &str = "look";
const LOOK_PERIOD_S: u32 = 600;
/// Hosts asked for at a time.
const PAGE_HOSTS: u32 = 100;
/// With less time left no step over the network is begun.
const ENOUGH_MS: u32 = 15_000;
/// A host that waits for its settings asks this often.
const AGAIN_MS: u32 = 10_000;
const SOON_MS: u64 = 1_000;

struct BiosPrep;

impl Plugin for BiosPrep {
    fn describe() -> Description {
        let about = Description::new(
            "bios-prep",
            env!("CARGO_PKG_VERSION"),
            "Brings the firmware into a profile before a host is installed",
        );
        let kinds = ["registered", "states_set", "retried", "finished", "metadata_set", "identity_learned"];
        let about = kinds.into_iter().fold(about, |about, kind| about.event(kind));
        about.config_schema(&schema()).job(APPLY, APPLY_PERIOD_S).job(LOOK, LOOK_PERIOD_S)
    }

    fn check_config(config: &str) -> Vec<ConfigProblem> {
        problems(config)
    }

    fn discovered(request: BootRequest) -> Result<DiscoveryDecision, Error> {
        let config: Config = ask::config()?;
        let subject = Subject::booting(&request)?;
        let Some((profile, image, queue)) = config.prepared(&request.host.states, &subject) else {
            return Ok(admit(Patch::default()));
        };
        if !ask::has_image(image)? {
            return Ok(admit(Patch::default()).because(no_image(&profile.name, image)));
        }
        Ok(admit(Patch::default().states(queue)).because(format!("profile `{}` comes first", profile.name)))
    }

    fn before(request: TransitionRequest) -> Result<TransitionDecision, Error> {
        // A finish leads on in a queue that was prepared when it was ordered.
        if !matches!(request.cause.as_str(), "operator" | "plugin") {
            return Ok(ALLOW);
        }
        let config: Config = ask::config()?;
        let Some((profile, image, queue)) = config.prepared(&request.to, &Subject::of(&request.host)?) else {
            return Ok(ALLOW);
        };
        if !ask::has_image(image)? {
            return Ok(deny(no_image(&profile.name, image)));
        }
        Ok(redirect(queue).because(format!("profile `{}` version {} comes first", profile.name, profile.version.0)))
    }

    fn boot(request: BootRequest) -> Result<BootDecision, Error> {
        let config: Config = ask::config()?;
        let Some((profile, redfish)) = config.owes(&request.host, &Subject::booting(&request)?)? else {
            return Ok(PASS);
        };
        let why = format!("profile `{}` version {} is not in force", profile.name, profile.version.0);
        let known = Subject::of(&request.host)?;
        let (text, patch) = match redfish.url(&known) {
            Ok(_) => work::progress(request.host.id, &known)?,
            Err(missing) => (missing, None),
        };
        let mut wait = hold(format!("BIOS settings are being applied: {text}")).again_after_ms(AGAIN_MS).because(why);
        wait.patch = patch;
        Ok(wait)
    }

    fn event(event: Event) -> Result<(), Error> {
        let Some(host) = &event.host else { return Ok(()) };
        let config: Config = ask::config()?;
        if event.kind == "finished" {
            note_image(&config, host, &event.detail()?)?;
        }
        let is_order = matches!(event.kind.as_str(), "registered" | "states_set" | "retried");
        work::notice(&config, host, if is_order { Occasion::Order } else { Occasion::Change })
    }

    fn run(job: &str) -> Result<NextRun, Error> {
        // Nothing of a dry run may reach a machine.
        if ask::dry_run() {
            return Ok(NextRun::AtPeriod);
        }
        let config: Config = ask::config()?;
        if job == LOOK {
            look(&config)?;
        }
        Ok(match work::advance(&config, ENOUGH_MS)? {
            Some(wait_ms) if wait_ms < u64::from(APPLY_PERIOD_S) * 1_000 => {
                NextRun::AfterMs(u32::try_from(wait_ms.max(SOON_MS)).unwrap_or(u32::MAX))
            }
            Some(_) | None => NextRun::AtPeriod,
        })
    }
}

fn no_image(profile: &str, image: &str) -> String {
    format!("profile `{profile}` needs the image {image}, which this server does not offer")
}

/// The preparation image has reported: what it is for is done.
fn note_image(config: &Config, host: &KnownHost, detail: &Value) -> Result<(), Error> {
    let Some(profile) = config.profile(&Subject::of(host)?) else { return Ok(()) };
    match &profile.prepare {
        Prepare::Image(image) if first_state(detail.get("from").unwrap_or(&Value::Null)) == Some(image) => {
            work::note(host, profile).map_err(|reason| {
                ask::log(Level::Warn, "a profile is not noted", &[("host", &host.id.to_string()), ("why", &reason)]);
                Error::Retry(kiwispray_sdk::RetryLater { after_ms: 2_000, reason })
            })
        }
        Prepare::Image(_) | Prepare::Redfish(_) => Ok(()),
    }
}

/// The first of a queue, written as `wipe,web` or as a list.
fn first_state(queue: &Value) -> Option<&str> {
    let first = queue.as_str().or_else(|| queue.get(0)?.as_str())?;
    first.split(',').next()
}

fn look(config: &Config) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = ask::hosts::page(after, PAGE_HOSTS)?;
        for host in &page.hosts {
            work::notice(config, host, Occasion::Look)?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

kiwispray_sdk::plugin!(BiosPrep: boot, discovery, transition, events, schedule);

#[cfg(test)]
#[path = "lib_tests.rs"]
mod tests;
