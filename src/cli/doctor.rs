//! `kiwispray doctor`, and how findings are shown.

use clap::Args;
use serde_json::json;

use super::Context;
use super::error::{CliError, Result};
use super::screen::{Format, Look, Paint};
use super::words::harmless;
use crate::config::{ServeArgs, Source, Surroundings};
use crate::doctor::{self, Circumstances, Finding, Verdict, worst};

/// Looks for what goes wrong in practice. Takes the flags of `serve`, and looks at what a server with them would meet.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    serve: ServeArgs,
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut transaction = [0; 4];
        getrandom::fill(&mut transaction).map_err(|error| CliError::failed(format!("no randomness: {error}")))?;
        let circumstances =
            Circumstances { now: context.screen.look().now, transaction: u32::from_le_bytes(transaction) };
        if self.serve.dnsmasq.is_some() {
            context.screen.remark("Looking for DHCP servers takes some seconds.");
        }
        let findings = doctor::examine(&source(self.serve)?, circumstances).await;
        show(context, &findings)
    }
}

/// What a server with these flags would read.
pub(crate) fn source(args: ServeArgs) -> Result<Source> {
    let working_dir =
        std::env::current_dir().map_err(|error| CliError::failed(format!("no working directory: {error}")))?;
    Ok(Source { args, around: Surroundings::of_system(working_dir) })
}

/// Prints findings, and fails if one of them is a failure.
pub(crate) fn show(context: &Context, findings: &[Finding]) -> Result {
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    match context.screen.format {
        Format::Json => context.screen.json(&json!({ "verdict": worst(findings), "findings": findings }))?,
        Format::Text => context.screen.line(&text(findings, context.screen.look()))?,
    }
    match failed {
        0 => Ok(()),
        1 => Err(CliError::failed("1 check failed")),
        many => Err(CliError::failed(format!("{many} checks failed"))),
    }
}

/// A line for each finding, its columns aligned, and the remedy below it.
fn text(findings: &[Finding], look: Look) -> String {
    let width = |of: fn(&Finding) -> &str| findings.iter().map(|it| of(it).chars().count()).max().unwrap_or_default();
    let check_width = width(|finding| finding.check);
    // A long path must not push everything out of sight.
    let subject_width = width(|finding| &finding.subject).min(32);
    let mut lines = Vec::new();
    for Finding { check, subject, verdict, said, remedy } in findings {
        let (word, paint) = match verdict {
            Verdict::Ok => ("ok  ", Paint::Good),
            Verdict::Warn => ("warn", Paint::Busy),
            Verdict::Fail => ("fail", Paint::Bad),
        };
        let subject = harmless(subject);
        let said = indented(said, "      ");
        lines.push(format!("{}  {check:check_width$}  {subject:subject_width$}  {said}", paint.on(word, look.color)));
        if let Some(remedy) = remedy {
            lines.push(format!("      {} {}", Paint::Faint.on("→", look.color), indented(remedy, "        ")));
        }
    }
    lines.join("\n")
}

/// Every line harmless by itself: a refusal may hold a command on a line of its own.
fn indented(text: &str, by: &str) -> String {
    text.lines().map(harmless).collect::<Vec<_>>().join(&format!("\n{by}"))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn findings_are_aligned_with_the_remedy_below() {
        let finding = |check, subject: &str, verdict, said: &str, remedy: Option<&str>| Finding {
            check,
            subject: subject.to_owned(),
            verdict,
            said: said.to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let findings = [
            finding("ports", "TCP 5000", Verdict::Ok, "free for machines", None),
            finding("dhcp", "eth1", Verdict::Fail, "no DHCP server answers", Some("serve:\n    kiwispray serve")),
            finding("data", "/data", Verdict::Warn, "is \u{1b}[31mopen", Some("chmod o-rwx /data")),
        ];
        let look = Look { color: false, now: samples::time("2026-11-22T10:05:00Z") };
        insta::assert_snapshot!(text(&findings, look), @r"
        ok    ports  TCP 5000  free for machines
        fail  dhcp   eth1      no DHCP server answers
              → serve:
                    kiwispray serve
        warn  data   /data     is �[31mopen
              → chmod o-rwx /data
        ");
    }
}
