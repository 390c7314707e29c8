//! `kiwispray host list` and `kiwispray host show`

use clap::Args;
use serde_json::Value;

use super::super::Context;
use super::super::act::Targets;
use super::super::client::Selection;
use super::super::error::Result;
use super::super::freeze::banner;
use super::super::screen::{Format, Look};
use super::super::table::{facts, hosts, state};
use super::super::words::{ago, harmless, last_seen, since, size};
use super::forget;
use crate::wire::HostView;

/// Lists hosts.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only these: numbers, names, serial numbers, MACs, UUIDs, ranges such as 1-20
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// Only those of which this is true, such as metadata.site=fra1, state=new, hold=yes, running=yes
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
    /// Hosts that were forgotten and may be installed: if one comes back, it boots its own disk
    #[arg(long, conflicts_with_all = ["hosts", "conditions"])]
    forgotten: bool,
}

/// Shows all that is known of hosts.
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    targets: Targets,
}

impl List {
    pub(crate) async fn run(self, context: &Context) -> Result {
        if self.forgotten {
            return forget::list(context).await;
        }
        let screen = &context.screen;
        let selection = Selection { hosts: self.hosts, conditions: self.conditions };
        let client = context.client()?;
        let found = client.hosts(&selection).await?;
        if screen.format == Format::Text
            && let Some(frozen) = banner(&client).await?
        {
            screen.remark(&frozen);
        }
        match screen.format {
            Format::Json => screen.json(&found),
            Format::Text if found.is_empty() && selection.is_empty() => {
                screen.remark("No host is known yet. Machines become known when they boot from the network.");
                Ok(())
            }
            Format::Text if found.is_empty() => {
                screen.remark("No host is like that.");
                Ok(())
            }
            Format::Text => screen.line(&hosts(&found, screen.look())),
        }
    }
}

impl Show {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let screen = &context.screen;
        let found = self.targets.find(context).await?;
        match screen.format {
            Format::Json => screen.json(&found),
            Format::Text => {
                let texts: Vec<String> = found.iter().map(|host| shown(host, screen.look())).collect();
                screen.line(&texts.join("\n\n"))
            }
        }
    }
}

fn shown(host: &HostView, look: Look) -> String {
    let absent = || "-".to_owned();
    let optional = |text: &Option<String>| text.as_deref().map_or_else(absent, harmless);
    let (states, paint) = state(host);
    let mut rows = vec![
        ("host", host.id.to_string()),
        ("name", optional(&host.hostname)),
        ("states", paint.on(&states, look.color)),
    ];
    if let Some(hold) = &host.hold {
        rows.push(("holds", harmless(hold)));
    }
    if let Some(lock) = &host.lock {
        rows.push(("locked", harmless(&since(lock))));
    }
    if let Some(progress) = &host.progress {
        let (done, whole) = (size(progress.bytes), size(progress.total));
        rows.push(("progress", format!("{} % ({done} of {whole}) of {}", progress.percent, harmless(&progress.file))));
    }
    rows.extend([
        ("attempts", host.attempts.to_string()),
        ("serial", optional(&host.serial)),
        ("uuid", optional(&host.uuid)),
        ("macs", if host.macs.is_empty() { absent() } else { host.macs.join("\n") }),
        ("model", optional(&host.model)),
        ("firmware", optional(&host.platform)),
        ("last seen", last_seen(host, look.now)),
        ("known", ago(host.created_at, look.now)),
        ("changed", format!("{}, revision {}", ago(host.changed_at, look.now), host.revision)),
    ]);
    if !host.metadata.is_empty() {
        // JSON's own line breaks are wanted, but it escapes only some of what steers a terminal.
        let value = Value::Object(host.metadata.clone());
        let text = serde_json::to_string_pretty(&value).unwrap_or_else(|_| value.to_string());
        rows.push(("metadata", text.lines().map(harmless).collect::<Vec<_>>().join("\n")));
    }
    facts(&rows)
}

#[cfg(test)]
mod tests {
    use super::super::super::samples;
    use super::*;

    #[test]
    fn a_host_is_shown_whole() {
        let metadata = serde_json::from_str(r#"{"site":"fra1","net":{"vlan":7}}"#).unwrap();
        let host = HostView { metadata, progress: samples::installing(3).progress, ..samples::held(3) };
        let look = Look { color: false, now: samples::time("2026-11-22T10:05:00Z") };
        insta::assert_snapshot!(shown(&host, look));
    }
}
