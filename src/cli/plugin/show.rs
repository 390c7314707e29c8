//! `kiwispray plugin list` and `show`.

use super::super::Context;
use super::super::error::Result;
use super::super::screen::{Format, Look, Paint};
use super::super::table::{cell, facts, optional, table};
use super::super::words::{ago, harmless};
use crate::wire::{PluginDetail, ReachView};

/// Digits of a digest that tell components apart in a table.
const DIGEST_DIGITS: usize = 12;

/// All plugins.
pub(super) async fn list(context: &Context) -> Result {
    let all: Vec<PluginDetail> = context.client()?.get("/api/v1/plugins").await?;
    match context.screen.format {
        Format::Json => context.screen.json(&all),
        Format::Text => context.screen.line(&plugins(&all, context.screen.look())),
    }
}

/// One plugin.
pub(super) async fn show(context: &Context, name: &str) -> Result {
    let plugin: PluginDetail = context.client()?.get(&super::path(name)).await?;
    match context.screen.format {
        Format::Json => context.screen.json(&plugin),
        Format::Text => context.screen.line(&shown(&plugin, context.screen.look())),
    }
}

/// Plugins in the order in which they are asked; below them, what is wrong.
fn plugins(all: &[PluginDetail], look: Look) -> String {
    let mut rows = table(["NAME", "STATUS", "VERSION", "DIGEST", "HOOKS", "STATES", "PRIORITY"]);
    for plugin in all {
        let (status, paint) = status(plugin);
        let priority = if plugin.name == "default" { "last".to_owned() } else { plugin.priority.to_string() };
        rows.add_row([
            cell(&plugin.name, Paint::Plain, look),
            cell(&status, paint, look),
            optional(plugin.version.as_deref(), look),
            optional(plugin.digest.as_deref().map(short), look),
            cell(&plugin.hooks.join(","), Paint::Plain, look),
            cell(&plugin.states.join(","), Paint::Plain, look),
            cell(&priority, Paint::Plain, look),
        ]);
    }
    let troubles = all.iter().flat_map(troubles).map(|trouble| Paint::Bad.on(&trouble, look.color));
    [rows.rendered()].into_iter().chain(troubles).collect::<Vec<_>>().join("\n")
}

/// What is wrong with a plugin, one sentence each.
fn troubles(plugin: &PluginDetail) -> Vec<String> {
    let name = harmless(&plugin.name);
    let problem = plugin.problem.as_ref().map(|problem| match plugin.status.as_str() {
        "degraded" => format!("{name} {}; an earlier component runs", harmless(problem)),
        _ => format!("{name} {}", harmless(problem)),
    });
    let breakers = plugin.breakers.iter().map(|breaker| {
        let until = breaker.for_s.map(|seconds| format!(" for {seconds} s")).unwrap_or_default();
        format!("{name} is not asked in {}{until}, as it {}", breaker.hook, harmless(&breaker.why))
    });
    let letters = plugin.outbox.filter(|outbox| outbox.dead_letters > 0).map(|outbox| {
        format!("{name} could not be told of {} events: kiwispray plugin dead-letters list {name}", outbox.dead_letters)
    });
    let stopped = plugin
        .stopped
        .as_ref()
        .map(|stopped| format!("{name} orders nothing, as it {}: kiwispray plugin approve {name}", harmless(stopped)));
    problem.into_iter().chain(breakers).chain(letters).chain(stopped).collect()
}

/// Everything.
pub(super) fn shown(plugin: &PluginDetail, look: Look) -> String {
    let (status, paint) = status(plugin);
    let some = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), harmless);
    let mut rows = vec![("plugin", harmless(&plugin.name)), ("status", paint.on(&status, look.color))];
    let troubles = troubles(plugin);
    if !troubles.is_empty() {
        rows.push(("trouble", troubles.join("\n")));
    }
    if !plugin.summary.is_empty() {
        rows.push(("summary", harmless(&plugin.summary)));
    }
    rows.extend([("version", some(&plugin.version)), ("digest", some(&plugin.digest)), ("from", some(&plugin.origin))]);
    rows.push(("bound in", some(&plugin.file)));
    rows.push(("hooks", plugin.hooks.join(", ")));
    rows.push(("states", harmless(&plugin.states.join(", "))));
    if !plugin.selector.is_empty() {
        let fields = plugin.selector.iter().map(|(field, value)| format!("{field} = {value}"));
        rows.push(("hosts with", harmless(&fields.collect::<Vec<_>>().join(" and "))));
    }
    rows.push(("on error", plugin.on_error.clone()));
    rows.push(("config", harmless(&plugin.config.to_string())));
    if !plugin.reach.is_empty() {
        rows.push(("may", reach(&plugin.reach, look)));
    }
    if !plugin.jobs.is_empty() {
        let jobs = plugin.jobs.iter().map(|job| {
            let next = job.next_at.map(|at| format!(", next at {}", at.strftime("%F %T"))).unwrap_or_default();
            format!("{} every {} s{next}", harmless(&job.name), job.period_s)
        });
        rows.push(("jobs", jobs.collect::<Vec<_>>().join("\n")));
    }
    if let Some(outbox) = plugin.outbox {
        let behind = outbox.behind.map_or_else(|| "many".to_owned(), |behind| behind.to_string());
        rows.push(("events", format!("{behind} to be told, {} hosts parked", outbox.parked)));
    }
    let history = plugin.history.iter().rev().map(|kept| {
        let runs = if Some(&kept.digest) == plugin.digest.as_ref() { ", runs" } else { "" };
        format!("{} {}, {}{runs}", short(&kept.digest), harmless(&kept.version), ago(kept.at, look.now))
    });
    if !plugin.history.is_empty() {
        rows.push(("history", history.collect::<Vec<_>>().join("\n")));
    }
    facts(&rows)
}

/// What a plugin may do, as a table without a head.
pub(super) fn reach(reach: &[ReachView], look: Look) -> String {
    let width = reach.iter().map(|line| line.what.chars().count()).max().unwrap_or_default();
    let lines = reach.iter().map(|line| {
        let what = harmless(&line.what);
        let paint = if is_grave(&line.what) { Paint::Bad } else { Paint::Plain };
        format!("{}  {}", paint.on(&format!("{what:<width$}"), look.color), harmless(&line.meaning))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether disks, or running systems, hang on it.
fn is_grave(what: &str) -> bool {
    ["hosts: states", "hosts: reinstall", "hosts: hold-finished", "state: finished"].contains(&what)
}

fn status(plugin: &PluginDetail) -> (String, Paint) {
    let rolled_back = if plugin.rolled_back { " (rolled back)" } else { "" };
    let stopped = if plugin.stopped.is_some() { " (stopped)" } else { "" };
    let paint = match plugin.status.as_str() {
        "ok" if !plugin.breakers.is_empty() || plugin.stopped.is_some() => Paint::Bad,
        "ok" => Paint::Good,
        "degraded" => Paint::Busy,
        "disabled" => Paint::Faint,
        _ => Paint::Bad,
    };
    (format!("{}{rolled_back}{stopped}", plugin.status), paint)
}

/// Enough of a digest to tell it from others.
pub(super) fn short(digest: &str) -> &str {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..DIGEST_DIGITS).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::super::super::samples;
    use super::*;

    fn plain() -> Look {
        Look { color: false, now: samples::time("2026-11-22T10:05:00Z") }
    }

    #[test]
    fn plugins_are_a_table_with_the_troubles_below() {
        let broken = PluginDetail {
            status: "broken".into(),
            problem: Some("has no component: there is no /etc/racks.wasm".into()),
            version: None,
            digest: None,
            ..samples::plugin("racks")
        };
        let stopped =
            PluginDetail { stopped: Some("wanted more than 5 orders in one run".into()), ..samples::plugin("netbox") };
        let default = PluginDetail { breakers: Vec::new(), ..samples::plugin("default") };
        insta::assert_snapshot!(plugins(&[broken, stopped, default], plain()));
    }

    #[test]
    fn a_plugin_is_shown_whole() {
        insta::assert_snapshot!(shown(&samples::plugin("netbox"), plain()));
    }
}
