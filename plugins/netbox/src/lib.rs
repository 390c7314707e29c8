//! The plugin `netbox`: hosts get name and metadata from NetBox, may be ordered there, and what became of them is written
//! back.
//!
//! Modules, from facts to deeds: [`device`], [`matching`], [`diff`], [`request`] and [`writeback`] decide and are pure;
//! [`api`] and [`trouble`] speak NetBox; [`lookup`], [`visit`] and [`ledger`] do it for hosts; [`jobs`] do it for all.
mod api;
mod config;
mod device;
mod diff;
#[cfg(test)]
mod double;
mod jobs;
mod ledger;
mod lookup;
mod matching;
mod request;
#[cfg(test)]
mod tests;
mod trouble;
mod visit;
mod writeback;

use std::collections::BTreeSet;

use kiwispray_sdk::ask;
use kiwispray_sdk::{ConfigProblem, Description, Error, Event, NextRun, Plugin};

use config::Config;

/// What a call must have left to tell NetBox of another host; the rest waits for the next job.
const TELL_MS: u32 = 4_000;

struct Sync;

impl Plugin for Sync {
    fn describe() -> Description {
        let summary = "Takes names, metadata and requests from NetBox, and writes back what became of them";
        let mut about = Description::new("netbox", env!("CARGO_PKG_VERSION"), summary)
            .job("full", 6 * 3_600)
            .job("incremental", 30)
            .job("diff", 24 * 3_600);
        for kind in writeback::EVENTS {
            about = about.event(*kind);
        }
        config::SCHEMA.clone_into(&mut about.config_schema);
        about
    }

    fn check_config(text: &str) -> Vec<ConfigProblem> {
        config::check(text)
    }

    /// Events are written down first. What cannot be told now is told by the next job, so an outage of NetBox holds up
    /// nothing and makes no dead letters.
    fn events(events: Vec<Event>) -> Result<u32, Error> {
        let config: Config = ask::config()?;
        let mut hosts = BTreeSet::new();
        let mut done = 0;
        for event in &events {
            if let (Some(task), Some(host)) = (writeback::task(event)?, &event.host) {
                ledger::take_in(host.id, event.host_seq, &task)?;
                hosts.insert(host.id);
            }
            done += 1;
        }
        for host in hosts {
            if ask::budget_ms() < TELL_MS {
                break;
            }
            if let Err(error) = jobs::tell(&config, host) {
                jobs::told_later(host, &error);
            }
        }
        Ok(done)
    }

    fn run(job: &str) -> Result<NextRun, Error> {
        let config: Config = ask::config()?;
        match job {
            "full" => jobs::full(&config),
            "incremental" => jobs::incremental(&config),
            "diff" => jobs::diff(&config),
            other => Err(Error::Invalid(format!("there is no job `{}`", other.escape_default()))),
        }
    }
}

kiwispray_sdk::plugin!(Sync: events, schedule);
