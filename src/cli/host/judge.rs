//! `kiwispray host plan` and `kiwispray host explain`: what the server thinks, and why.

use std::path::PathBuf;

use clap::Args;

use super::super::Context;
use super::super::error::{CliError, Result};
use super::super::plugin::BindingArgs;
use super::super::screen::Format;
use super::super::table::facts;
use super::super::words::{ago, harmless, label};
use super::{one, rehearse};
use crate::wire::{ExplanationView, PlanView};

/// Tells what a host would be answered.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The host
    #[arg(required_unless_present = "all")]
    host: Option<String>,
    /// Print the iPXE script
    #[arg(long, conflicts_with = "all")]
    script: bool,
    /// All hosts
    #[arg(long, conflicts_with = "host")]
    all: bool,
    /// With --all: what would change if this plugin were installed, a component or a plugin's folder
    #[arg(long, value_name = "FILE|DIR", requires = "all")]
    with: Option<PathBuf>,
    #[command(flatten)]
    binding: BindingArgs,
}

/// Tells how the newest boot was judged.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The host
    host: String,
}

impl Plan {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let Some(host) = &self.host else {
            return rehearse::run(context, self.with.as_deref().map(|path| (path, &self.binding))).await;
        };
        let (client, screen) = (context.client()?, &context.screen);
        let host = one(&client, host).await?;
        let plan: PlanView = client.get(&format!("/api/v1/hosts/{}/plan", host.id)).await?;
        match (screen.format, self.script) {
            (Format::Json, _) => screen.json(&plan),
            (Format::Text, false) => screen.line(&harmless(&format!("{}: {}", label(&host), plan.text))),
            (Format::Text, true) => match plan.script {
                Some(script) => screen.line(script.trim_end()),
                None => Err(CliError::failed(format!("{}: there is no script: {}", label(&host), plan.text))),
            },
        }
    }
}

impl Explain {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let host = one(&client, &self.host).await?;
        let explanation: ExplanationView = client.get(&format!("/api/v1/hosts/{}/explain", host.id)).await?;
        match screen.format {
            Format::Json => screen.json(&explanation),
            Format::Text => screen.line(&told(&explanation, screen.look().now)),
        }
    }
}

fn told(explanation: &ExplanationView, now: jiff::Timestamp) -> String {
    let ignored: Vec<String> =
        explanation.ignored.iter().map(|parameter| format!("{}: {}", parameter.name, parameter.reason)).collect();
    let lines = |lines: &[String]| lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n");
    let mut rows = vec![
        ("asked", format!("{}, from {}", ago(explanation.at, now), harmless(&explanation.from))),
        ("taken for", harmless(&explanation.recognition)),
    ];
    if !explanation.findings.is_empty() {
        rows.push(("compared", lines(&explanation.findings)));
    }
    if !ignored.is_empty() {
        rows.push(("ignored", lines(&ignored)));
    }
    rows.push(("answered", harmless(&explanation.answer)));
    facts(&rows)
}

#[cfg(test)]
mod tests {
    use super::super::super::samples;
    use super::*;
    use crate::wire::IgnoredView;

    #[test]
    fn an_explanation_names_everything_that_counted_and_what_did_not() {
        let explanation = ExplanationView {
            at: samples::time("2026-11-22T10:00:00Z"),
            from: "192.168.42.7".into(),
            recognition: "host 3, beyond doubt".into(),
            findings: vec!["host 3: serial same: this host".into(), "host 4: no evidence".into()],
            ignored: vec![IgnoredView { name: "uuid".into(), reason: "a filler".into() }],
            answer: "boot image1".into(),
        };
        insta::assert_snapshot!(told(&explanation, samples::time("2026-11-22T10:05:00Z")), @r"
        asked      5 min ago, from 192.168.42.7
        taken for  host 3, beyond doubt
        compared   host 3: serial same: this host
                   host 4: no evidence
        ignored    uuid: a filler
        answered   boot image1
        ");
    }
}
