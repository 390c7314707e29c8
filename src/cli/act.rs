//! Changes to hosts: tried first, then confirmed, then made.
//!
//! Invariant: nothing is changed before every change was tried and, if disks die by it, somebody agreed to exactly
//! those; and each change applies only to the very revision of the host that was shown.

use clap::Args;

use super::Context;
use super::client::{Act, Selection};
use super::error::{CliError, Result};
use super::freeze::banner;
use super::screen::{Format, Paint, Screen};
use super::table::state;
use super::undo::undo;
use super::words::{disk, harmless, label, last_seen, queue, since};
use crate::wire::{Changed, HostView};

/// Hosts to act on.
#[derive(Debug, Clone, Args)]
pub(crate) struct Targets {
    /// A host's number, name, serial number, MAC or UUID, or a range of numbers such as 1-20
    #[arg(value_name = "HOST", required_unless_present_any = ["conditions", "all"])]
    hosts: Vec<String>,
    /// All hosts of which this is true, such as metadata.site=fra1 or state=new (several: all must be)
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
    /// All hosts
    #[arg(long, conflicts_with_all = ["hosts", "conditions"])]
    all: bool,
}

/// How a change is agreed to.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Consent {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Whether a change is asked about even when no disk dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Only when a disk dies.
    Erasing,
    /// Always, as this is hard to take back; with the sentence that says why.
    Always(&'static str),
}

impl Targets {
    /// Hosts that are named, and conditions; one of them at least.
    pub(crate) const fn of(hosts: Vec<String>, conditions: Vec<String>) -> Self {
        Self { hosts, conditions, all: false }
    }

    /// The selection as the server understands it.
    pub(crate) fn selection(&self) -> Selection {
        Selection { hosts: self.hosts.clone(), conditions: self.conditions.clone() }
    }

    /// Refuses `--all` where nobody means it who says it.
    pub(crate) fn refuse_all(&self) -> Result {
        if self.all {
            let why = "--all is not for this: name the hosts, by a range such as 1-20 or by --where";
            return Err(CliError::usage(why));
        }
        Ok(())
    }

    /// The hosts, of which there is at least one.
    pub(crate) async fn find(&self, context: &Context) -> Result<Vec<HostView>> {
        let hosts = context.client()?.hosts(&self.selection()).await?;
        if hosts.is_empty() {
            return Err(CliError::not_found(match self.conditions.as_slice() {
                [] => "no host is known yet".to_owned(),
                conditions => format!("no host has {}", conditions.join(" and ")),
            }));
        }
        Ok(hosts)
    }
}

/// Does `act` to every target.
pub(crate) async fn act_on(
    context: &Context,
    targets: &Targets,
    act: &Act,
    consent: Consent,
    question: Question,
) -> Result {
    let client = context.client()?;
    let hosts = targets.find(context).await?;
    let mut previews = Vec::new();
    let mut refusals = Vec::new();
    for host in &hosts {
        match client.act(host, act, true).await {
            Ok(preview) => previews.push(preview),
            Err(error) => refusals.push(error),
        }
    }
    // All or nothing: half a rack in another state than the other half is what nobody wants.
    if !refusals.is_empty() {
        return Err(together(refusals, "nothing was changed"));
    }
    if consent.dry_run {
        return report(context, act, &previews, "would be changed");
    }
    let touched = previews.iter().filter(|preview| preview.changed).count();
    match stake(&hosts, &previews, question, context.screen.look().now) {
        Some(stake) => context.screen.confirm(&stake, consent.yes)?,
        // Nothing is lost by it, so scripts need not say --yes; but a range is quickly mistyped.
        None if touched > 1 && Screen::can_ask() => {
            context.screen.confirm(&format!("This changes {touched} hosts."), consent.yes)?;
        }
        None => {}
    }
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for host in &hosts {
        match client.act(host, act, false).await {
            Ok(changed) => done.push(changed),
            Err(error) => failures.push(error),
        }
    }
    report(context, act, &done, "changed")?;
    if done.iter().any(|changed| !changed.erases.is_empty())
        && let Some(frozen) = banner(&client).await?
    {
        context.screen.remark(&frozen);
    }
    if failures.is_empty() { Ok(()) } else { Err(together(failures, "these hosts were not changed")) }
}

/// Shows changes that were made, or would be.
pub(crate) fn report(context: &Context, act: &Act, changes: &[Changed], verb: &str) -> Result {
    let screen = &context.screen;
    match screen.format {
        Format::Json => screen.json(&changes),
        Format::Text => {
            let color = screen.look().color;
            changes.iter().try_for_each(|changed| screen.line(&told(act, changed, verb, color)))
        }
    }
}

/// Before, after and the way back, of one change.
fn told(act: &Act, changed: &Changed, verb: &str, color: bool) -> String {
    let Some(host) = changed.after.as_ref().or(changed.before.as_ref()) else { return String::new() };
    if !changed.changed {
        return format!("{}: already so, nothing {verb}", harmless(&label(host)));
    }
    let mut lines = vec![harmless(&label(host))];
    lines.extend(match (&changed.before, &changed.after) {
        (Some(before), Some(after)) => differences(before, after, color),
        (None, Some(after)) => vec![format!("  known now, {}", state(after).0)],
        (Some(before), None) => vec![format!("  no longer known, was {}", state(before).0)],
        (None, None) => Vec::new(),
    });
    lines.push(Paint::Faint.on(&format!("  undo: {}", harmless(&undo(act, changed))), color));
    lines.join("\n")
}

fn differences(before: &HostView, after: &HostView, color: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let ((old, _), (new, paint)) = (state(before), state(after));
    if before.states != after.states || old != new {
        lines.push(format!("  states: {old} -> {}", paint.on(&new, color)));
    }
    if before.quarantined && !after.quarantined {
        lines.push("  quarantine: released".to_owned());
    }
    if before.lock != after.lock {
        let told =
            |host: &HostView| host.lock.as_ref().map_or_else(|| "none".to_owned(), |lock| harmless(&since(lock)));
        lines.push(format!("  lock: {} -> {}", told(before), told(after)));
    }
    if before.attempts != after.attempts && before.states == after.states {
        lines.push(format!("  attempts: {} -> {}", before.attempts, after.attempts));
    }
    if before.hostname != after.hostname {
        let name = |host: &HostView| harmless(host.hostname.as_deref().unwrap_or("none"));
        lines.push(format!("  hostname: {} -> {}", name(before), name(after)));
    }
    for (name, old, new) in [("serial", &before.serial, &after.serial), ("uuid", &before.uuid, &after.uuid)] {
        if old != new {
            let text = |value: &Option<String>| harmless(value.as_deref().unwrap_or("none"));
            lines.push(format!("  {name}: {} -> {}", text(old), text(new)));
        }
    }
    if before.macs != after.macs {
        let text = |macs: &[String]| if macs.is_empty() { "none".to_owned() } else { macs.join(" ") };
        lines.push(format!("  macs: {} -> {}", text(&before.macs), text(&after.macs)));
    }
    let (old, new) = (&before.metadata, &after.metadata);
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys.into_iter().filter(|key| old.get(*key) != new.get(*key)) {
        let value = |value: Option<&serde_json::Value>| {
            value.map_or_else(|| "none".to_owned(), |value| harmless(&value.to_string()))
        };
        lines.push(format!("  {}: {} -> {}", harmless(key), value(old.get(key)), value(new.get(key))));
    }
    lines
}

/// What is lost by a change and has to be agreed to.
fn stake(hosts: &[HostView], previews: &[Changed], question: Question, now: jiff::Timestamp) -> Option<String> {
    let erasing: Vec<(&HostView, &Changed)> =
        hosts.iter().zip(previews).filter(|(_, preview)| !preview.erases.is_empty()).collect();
    let mut parts = Vec::new();
    if let Question::Always(why) = question {
        let names: Vec<String> = hosts.iter().map(|host| format!("  {}", described(host, now))).collect();
        parts.push(format!("{why}\n{}", names.join("\n")));
    }
    if !erasing.is_empty() {
        let lines = erasing.iter().map(|(host, preview)| {
            let disks: Vec<String> =
                preview.erases.iter().map(|erasure| format!("{} (by {})", disk(erasure), erasure.state)).collect();
            format!("  {}\n    erases {}", described(host, now), disks.join(", then "))
        });
        let of = if erasing.len() == 1 { String::new() } else { format!(" of {} hosts", erasing.len()) };
        parts.push(format!("This erases disks{of}:\n{}", lines.collect::<Vec<_>>().join("\n")));
    }
    (!parts.is_empty()).then(|| parts.join("\n"))
}

/// A host as somebody needs to see it before its disk dies.
fn described(host: &HostView, now: jiff::Timestamp) -> String {
    let serial = host.serial.as_deref().unwrap_or("unknown");
    let (seen, states) = (last_seen(host, now), queue(&host.states));
    harmless(&format!("{}, serial {serial}, last seen {seen}, now {states}", label(host)))
}

/// Several refusals as one, with the exit code of the first.
fn together(errors: Vec<CliError>, remark: &str) -> CliError {
    let exit = errors.first().map_or(super::error::Exit::Failed, |error| error.exit);
    let texts: Vec<String> = errors.into_iter().map(|error| error.text).collect();
    match texts.as_slice() {
        [only] => CliError { exit, text: only.clone() },
        many => CliError { exit, text: format!("{remark}:\n  {}", many.join("\n  ")) },
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::wire::{EditHost, Erasure};

    fn ordered(host: HostView, disk: Option<&str>) -> (HostView, Changed) {
        let after = HostView { state: "image1".into(), states: vec!["image1".into()], revision: 2, ..host.clone() };
        let erases = vec![Erasure { state: "image1".into(), disk: disk.map(str::to_owned) }];
        (host.clone(), Changed { before: Some(host), after: Some(after), changed: true, erases })
    }

    #[test]
    fn what_dies_is_said_with_name_serial_last_seen_and_disk() {
        let (hosts, previews): (Vec<_>, Vec<_>) = [
            ordered(samples::host(1), Some("first")),
            ordered(HostView { hostname: None, serial: None, last_seen: None, ..samples::host(2) }, None),
        ]
        .into_iter()
        .unzip();
        let text = stake(&hosts, &previews, Question::Erasing, samples::time("2026-11-22T10:05:00Z")).unwrap();
        insta::assert_snapshot!(text, @r"
        This erases disks of 2 hosts:
          node1 (host 1), serial SN0001, last seen 5 min ago, now new
            erases its first disk (by image1)
          host 2, serial unknown, last seen before the server started, now new
            erases a disk that the server cannot name (by image1)
        ");
    }

    #[test]
    fn a_change_tells_before_after_and_undo() {
        let (_, changed) = ordered(samples::host(3), Some("first"));
        insta::assert_snapshot!(told(&Act::Edit(EditHost::default()), &changed, "changed", false), @r"
        node3 (host 3)
          states: new -> image1 (waits)
          undo: kiwispray host set 3 --state new
        ");
    }

    #[test]
    fn a_change_of_nothing_is_not_asked_about() {
        let host = samples::host(3);
        let changed =
            Changed { before: Some(host.clone()), after: Some(host.clone()), changed: false, erases: Vec::new() };
        let now = samples::time("2026-11-22T10:05:00Z");
        assert_eq!(stake(&[host], std::slice::from_ref(&changed), Question::Erasing, now), None);
        let text = told(&Act::Edit(EditHost::default()), &changed, "changed", false);
        assert_eq!(text, "node3 (host 3): already so, nothing changed");
    }
}
