//! `kiwispray host conflicts`

use clap::Args;

use super::super::Context;
use super::super::error::Result;
use super::super::screen::Format;
use super::super::table::facts;
use super::super::words::{ago, harmless};
use crate::wire::ConflictView;

/// Lists machines that ask and are not recognised clearly. The server keeps them in memory: after its start, the list fills as
/// machines ask again.
#[derive(Debug, Args)]
pub(crate) struct Conflicts {}

impl Conflicts {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let screen = &context.screen;
        let conflicts: Vec<ConflictView> = context.client()?.get("/api/v1/conflicts").await?;
        match screen.format {
            Format::Json => screen.json(&conflicts),
            Format::Text if conflicts.is_empty() => {
                screen.remark("Every machine that asked since the server started was recognised clearly.");
                Ok(())
            }
            Format::Text => {
                let now = screen.look().now;
                let texts: Vec<String> = conflicts.iter().map(|conflict| told(conflict, now)).collect();
                screen.line(&texts.join("\n\n"))
            }
        }
    }
}

fn told(conflict: &ConflictView, now: jiff::Timestamp) -> String {
    let absent = || "-".to_owned();
    let optional = |text: &Option<String>| text.as_deref().map_or_else(absent, harmless);
    let lines = |lines: &[String]| lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n");
    let hosts: Vec<String> = conflict.hosts.iter().map(|id| format!("host {id}")).collect();
    let verdict = match conflict.kind.as_str() {
        "weak" => format!("may be {}, and that is not enough to install", hosts.join(" or ")),
        "conflict" => format!("contradicts {}", hosts.join(" and ")),
        "shared_serial" => format!("has the serial number of {}", hosts.join(" and ")),
        _ => "shows nothing that identifies it".to_owned(),
    };
    let mut rows = vec![
        ("machine", verdict),
        ("serial", optional(&conflict.serial)),
        ("uuid", optional(&conflict.uuid)),
        ("macs", if conflict.macs.is_empty() { absent() } else { lines(&conflict.macs) }),
        ("model", optional(&conflict.model)),
        (
            "asked",
            format!("{} times, last {}, from {}", conflict.asks, ago(conflict.at, now), harmless(&conflict.from)),
        ),
    ];
    if !conflict.findings.is_empty() {
        rows.push(("compared", lines(&conflict.findings)));
    }
    rows.push(("what now", lines(&conflict.remedies)));
    facts(&rows)
}
