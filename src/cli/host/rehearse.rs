//! `kiwispray host plan --all`: what all hosts would be answered, and what another plugin would change.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::super::Context;
use super::super::client::segment;
use super::super::error::{CliError, Result};
use super::super::plugin::{BindingArgs, Wanted};
use super::super::screen::{Format, Look, Paint, Screen, Verbosity};
use super::super::words::harmless;
use crate::wire::{RehearsalLine, RehearsedView};

/// Plugins that take longer for a host are told of: half of what a call may take.
const SLOW_US: u64 = 100_000;
/// Hosts that are named of each kind.
const NAMED_MAX: usize = 8;

/// What came out.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Summary {
    /// How many hosts.
    hosts: usize,
    /// How many of them boot as before.
    unchanged: usize,
    /// The others.
    changes: Vec<Change>,
    /// Failures of plugins.
    errors: Vec<Trouble>,
    /// Hosts for which plugins took long.
    slow: Vec<Slow>,
}

/// Hosts that are answered something else.
#[derive(Debug, PartialEq, Serialize)]
struct Change {
    from: String,
    to: String,
    hosts: Vec<u64>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Trouble {
    error: String,
    hosts: Vec<u64>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Slow {
    host: u64,
    took_us: u64,
}

/// Asks about all hosts; with a plugin, also as if it were installed.
pub(super) async fn run(context: &Context, with: Option<(&std::path::Path, &BindingArgs)>) -> Result {
    let (client, screen) = (context.client()?, &context.screen);
    let (path, body, is_trial) = match with {
        Some((path, args)) => {
            let wanted = Wanted::read(&client, path, args).await?;
            (format!("/api/v1/rehearsal/{}", segment(&wanted.name)), wanted.body(true, true)?, true)
        }
        None => ("/api/v1/rehearsal".to_owned(), Vec::new(), false),
    };
    let mut pieces = client.post_for_stream(&path, body).await?;
    let (mut rest, mut hosts, mut is_whole) = (Vec::new(), Vec::new(), false);
    let bar = bar(screen);
    while let Some(piece) = pieces.next().await {
        rest.extend(piece?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let strange =
                |error| CliError::failed(format!("the server answered something else than expected: {error}"));
            match serde_json::from_slice(&line).map_err(strange)? {
                RehearsalLine::Hosts(count) => bar.set_length(count),
                RehearsalLine::Host(host) => {
                    bar.inc(1);
                    hosts.push(host);
                }
                RehearsalLine::End => is_whole = true,
            }
        }
    }
    bar.finish_and_clear();
    if !is_whole {
        return Err(CliError::failed("the server broke off in the middle; its log says why"));
    }
    let summary = summary(&hosts);
    match screen.format {
        Format::Json => screen.json(&summary),
        Format::Text if is_trial => screen.line(&told(&summary, screen.look())),
        Format::Text => screen.line(&listed(&hosts, &summary, screen.look())),
    }
}

fn bar(screen: &Screen) -> ProgressBar {
    let is_wanted = screen.verbosity >= Verbosity::Normal;
    let target = if is_wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    match ProgressStyle::with_template("asking {bar:30} {pos} of {len} hosts, {eta} to go") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn summary(hosts: &[RehearsedView]) -> Summary {
    let mut changes: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    let mut errors: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for host in hosts {
        if host.before != host.after {
            changes.entry((&host.before, &host.after)).or_default().push(host.id);
        }
        if let Some(error) = &host.error {
            errors.entry(error).or_default().push(host.id);
        }
    }
    let slow = hosts.iter().filter(|host| host.took_us >= SLOW_US);
    let mut slow: Vec<Slow> = slow.map(|host| Slow { host: host.id, took_us: host.took_us }).collect();
    slow.sort_by_key(|slow| std::cmp::Reverse(slow.took_us));
    let mut changes: Vec<Change> = changes
        .into_iter()
        .map(|((from, to), hosts)| Change { from: from.to_owned(), to: to.to_owned(), hosts })
        .collect();
    changes.sort_by_key(|change| std::cmp::Reverse(change.hosts.len()));
    let errors = errors.into_iter().map(|(error, hosts)| Trouble { error: error.to_owned(), hosts }).collect();
    let unchanged = hosts.iter().filter(|host| host.before == host.after).count();
    Summary { hosts: hosts.len(), unchanged, changes, errors, slow }
}

/// What a plugin would change.
fn told(summary: &Summary, look: Look) -> String {
    let mut lines = vec![format!("{} of {} boot as before", summary.unchanged, count(summary.hosts))];
    for change in &summary.changes {
        lines.push(format!("{} ({}):", changes(change.hosts.len()), named(&change.hosts)));
        lines.push(format!("  now   {}", harmless(&change.from)));
        lines.push(format!("  then  {}", Paint::Busy.on(&harmless(&change.to), look.color)));
    }
    lines.extend(troubles(summary, look));
    lines.join("\n")
}

/// What all hosts would be answered.
fn listed(hosts: &[RehearsedView], summary: &Summary, look: Look) -> String {
    let mut answers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for host in hosts {
        answers.entry(&host.after).or_default().push(host.id);
    }
    let answers = answers
        .into_iter()
        .map(|(answer, hosts)| format!("{} ({}): {}", count(hosts.len()), named(&hosts), harmless(answer)));
    let lines: Vec<String> = answers.chain(troubles(summary, look)).collect();
    if lines.is_empty() { "there are no hosts".to_owned() } else { lines.join("\n") }
}

fn troubles(summary: &Summary, look: Look) -> Vec<String> {
    let errors = summary.errors.iter().map(|trouble| {
        let line = format!("{} ({}): {}", count(trouble.hosts.len()), named(&trouble.hosts), harmless(&trouble.error));
        Paint::Bad.on(&line, look.color)
    });
    let slow = summary.slow.first().map(|slowest| {
        let hosts: Vec<u64> = summary.slow.iter().map(|slow| slow.host).collect();
        let line = format!("slow for {} ({}): up to {} ms", count(hosts.len()), named(&hosts), slowest.took_us / 1000);
        Paint::Bad.on(&line, look.color)
    });
    errors.chain(slow).collect()
}

fn count(hosts: usize) -> String {
    if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") }
}

fn changes(hosts: usize) -> String {
    if hosts == 1 { "1 host changes".to_owned() } else { format!("{hosts} hosts change") }
}

fn named(hosts: &[u64]) -> String {
    let mut names: Vec<String> = hosts.iter().take(NAMED_MAX).map(u64::to_string).collect();
    if hosts.len() > NAMED_MAX {
        names.push("…".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::super::samples;
    use super::*;

    #[test]
    fn a_rehearsal_tells_what_would_change_and_what_would_break() {
        let host = |id, before: &str, after: &str, error: Option<&str>, took_us| RehearsedView {
            id,
            hostname: None,
            state: "web".into(),
            before: before.into(),
            after: after.into(),
            error: error.map(str::to_owned),
            took_us,
        };
        let mut hosts: Vec<RehearsedView> =
            (1..=12).map(|id| host(id, "boot image web", "hold: not in the CMDB", None, 400)).collect();
        hosts.push(host(13, "boot image db", "boot image db", None, 300));
        let error = "racks gave no answer within 200 ms";
        hosts.push(host(14, "boot image db", "hold: The plugin racks gave no answer.", Some(error), 203_000));
        let look = Look { color: false, now: samples::time("2026-11-22T10:05:00Z") };
        insta::assert_snapshot!(told(&summary(&hosts), look));
        insta::assert_snapshot!(listed(&hosts, &summary(&hosts), look));
    }
}
