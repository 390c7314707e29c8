//! Tables and timelines: pure functions from wire types to text.

use super::columns::{Cell, Table};
use super::screen::{Look, Paint};
use super::words::{harmless, last_seen, queue, since, size};
use crate::wire::{EventView, HostView, ImageView, ManifestView};

/// Hosts, one a line; below them, what those that hold wait for.
pub(crate) fn hosts(hosts: &[HostView], look: Look) -> String {
    let mut table = table(["ID", "NAME", "SERIAL", "MODEL", "MAC", "STATE", "PROGRESS", "LAST SEEN"]);
    for host in hosts {
        let (state, paint) = state(host);
        table.add_row([
            cell(&host.id.to_string(), Paint::Plain, look),
            optional(host.hostname.as_deref(), look),
            optional(host.serial.as_deref(), look),
            optional(host.model.as_deref(), look),
            optional(macs(host).as_deref(), look),
            cell(&state, paint, look),
            optional(progress(host).as_deref(), look),
            cell(&last_seen(host, look.now), Paint::Plain, look),
        ]);
    }
    let mut text = table.rendered();
    for host in hosts {
        if let Some(hold) = &host.hold {
            let line = format!("host {} holds: {}", host.id, harmless(hold));
            text.push_str(&format!("\n{}", Paint::Bad.on(&line, look.color)));
        } else if let Some(lock) = &host.lock {
            let line = format!("host {} is locked {}", host.id, harmless(&since(lock)));
            text.push_str(&format!("\n{}", Paint::Faint.on(&line, look.color)));
        }
    }
    text
}

/// Images, one a line; below them, what is wrong with those that are not offered.
pub(crate) fn images(images: &[ImageView], look: Look) -> String {
    let mut table = table(["NAME", "KIND", "WRITES", "DEVICE", "PAYLOAD", "SIZE"]);
    for image in images {
        let paint = if image.problem.is_some() { Paint::Bad } else { Paint::Good };
        let manifest = image.manifest.as_ref();
        let field = |of: fn(&ManifestView) -> Option<String>| optional(manifest.and_then(of).as_deref(), look);
        table.add_row([
            cell(&image.name, paint, look),
            field(|manifest| Some(manifest.kind.clone())),
            field(|manifest| Some(manifest.writes.clone())),
            field(|manifest| manifest.device.clone()),
            field(|manifest| manifest.payload.clone()),
            field(|manifest| Some(size(manifest.total_bytes))),
        ]);
    }
    let mut text = table.rendered();
    for problem in images.iter().filter_map(|image| image.problem.as_ref()) {
        text.push_str(&format!("\n{}", Paint::Bad.on(&format!("not offered: {}", harmless(problem)), look.color)));
    }
    text
}

/// Names and values under each other; values may have several lines.
pub(crate) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = rows.iter().map(|(name, value)| {
        let indented = value.replace('\n', &format!("\n{:width$}  ", ""));
        format!("{name:<width$}  {indented}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A line of a timeline. Times are UTC, so that lines of several machines can be compared.
pub(crate) fn event(event: &EventView, with_host: bool, look: Look) -> String {
    let paint = match event.kind.as_str() {
        "finished" => Paint::Good,
        "failed" | "held" | "doubted" | "foreign_boot" | "call_refused" | "mac_taken" => Paint::Bad,
        "attempt_started" | "payload_delivered" | "boot_offered" => Paint::Busy,
        _ => Paint::Plain,
    };
    let at = Paint::Faint.on(&event.at.strftime("%F %T").to_string(), look.color);
    let host = if with_host { format!("host {:<4} ", event.host) } else { String::new() };
    let by = match event.actor.as_str() {
        "machine" => String::new(),
        actor => Paint::Faint.on(&format!("  ({})", harmless(actor)), look.color),
    };
    format!("{at}  {host}{}{by}", paint.on(&harmless(&event.text), look.color))
}

/// The queue, and what stands out about it.
pub(crate) fn state(host: &HostView) -> (String, Paint) {
    let states = queue(&host.states);
    match host.state.as_str() {
        _ if host.hold.is_some() => (format!("{states} (holds)"), Paint::Bad),
        _ if host.running => (format!("{states} (running)"), Paint::Busy),
        "finished" | "new" if host.lock.is_some() => (format!("{states} (locked)"), Paint::Plain),
        "finished" => (states, Paint::Good),
        "new" => (states, Paint::Faint),
        _ => (format!("{states} (waits)"), Paint::Busy),
    }
}

fn progress(host: &HostView) -> Option<String> {
    let progress = host.progress.as_ref()?;
    Some(format!("{} % of {}", progress.percent, size(progress.total)))
}

fn macs(host: &HostView) -> Option<String> {
    let (first, more) = host.macs.split_first()?;
    Some(if more.is_empty() { first.clone() } else { format!("{first} +{}", more.len()) })
}

pub(super) fn table<const N: usize>(header: [&'static str; N]) -> Table {
    Table::new(header)
}

pub(super) fn optional(text: Option<&str>, look: Look) -> Cell {
    match text {
        Some(text) => cell(text, Paint::Plain, look),
        None => cell("-", Paint::Faint, look),
    }
}

pub(super) fn cell(text: &str, paint: Paint, look: Look) -> Cell {
    Cell::new(text, if look.color { paint } else { Paint::Plain })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn plain() -> Look {
        Look { color: false, now: samples::time("2026-11-22T10:05:00Z") }
    }

    #[test]
    fn hosts_are_a_table_with_the_holds_below() {
        let unknown = HostView {
            hostname: None,
            serial: None,
            model: None,
            last_seen: None,
            seen: false,
            quarantined: false,
            lock: None,
            macs: vec!["52:54:00:00:00:05".to_owned(), "52:54:00:00:00:06".to_owned()],
            ..samples::host(4)
        };
        let finished = HostView {
            state: "finished".into(),
            states: vec!["finished".into()],
            last_seen: None,
            ..samples::host(1000)
        };
        let locked = samples::locked(1001);
        let all = [samples::host(1), samples::installing(2), samples::held(3), unknown, finished, locked];
        insta::assert_snapshot!(hosts(&all, plain()));
    }

    #[test]
    fn colours_do_not_disturb_the_columns() {
        let all = [samples::host(1), samples::held(3)];
        let painted = hosts(&all, Look { color: true, ..plain() });
        assert!(painted.contains("\u{1b}["));
        let stripped = anstream::adapter::strip_str(&painted).to_string();
        let trimmed: Vec<&str> = stripped.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n"), hosts(&all, plain()));
    }

    #[test]
    fn images_are_a_table_with_the_problems_below() {
        let broken = ImageView {
            name: "image2".to_owned(),
            problem: Some("the image image2 has no image.toml".to_owned()),
            manifest: None,
        };
        insta::assert_snapshot!(images(&[samples::image("image1"), broken], plain()));
    }

    #[test]
    fn a_timeline_tells_when_what_and_who() {
        let by_machine = EventView { actor: "machine".to_owned(), ..samples::event(2, "asked\u{1b}[2J") };
        let lines = [event(&samples::event(1, "new -> image1"), false, plain()), event(&by_machine, true, plain())];
        insta::assert_snapshot!(lines.join("\n"), @r"
        2026-11-22 10:00:00  new -> image1  (operator root)
        2026-11-22 10:00:00  host 3    asked�[2J
        ");
    }
}
