//! `kiwispray plugin test`.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::super::Context;
use super::super::error::{CliError, Result};
use super::super::screen::{Format, Paint};
use super::Folder;
use crate::workbench::{self, Bench, Report, Watch};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs a plugin's cases.
#[derive(Debug, Args)]
pub(crate) struct Test {
    #[command(flatten)]
    folder: Folder,
    /// Build and run again whenever a file of the plugin changes
    #[arg(long)]
    watch: bool,
}

impl Test {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let folder = &self.folder.path;
        if !self.watch {
            return run_cases(context, folder).await;
        }
        let mut watch = Watch::new(folder);
        loop {
            let built = workbench::build(folder).map_err(|error| CliError::failed(error.to_string()));
            let ended = match built {
                Ok(_) => run_cases(context, folder).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                context.screen.error(&error);
            }
            context.screen.remark("waiting for changes; Ctrl-C ends");
            while !watch.has_changed() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

async fn run_cases(context: &Context, folder: &Path) -> Result {
    let failed = |error: &dyn std::fmt::Display| CliError::failed(error.to_string());
    let cases = workbench::cases(folder).map_err(|error| failed(&error))?;
    let bench = Bench::new(folder).map_err(|error| failed(&error))?;
    let mut reports = Vec::new();
    for case in &cases {
        let report = bench.run(case).await;
        if context.screen.format == Format::Text {
            context.screen.line(&told(&report, context.screen.look().color))?;
        }
        reports.push(report);
    }
    let wrong = reports.iter().filter(|report| !report.has_passed()).count();
    let passed = reports.len() - wrong;
    match context.screen.format {
        Format::Text => context.screen.line(&format!("{passed} passed, {wrong} failed"))?,
        Format::Json => context.screen.json(&reports.iter().map(as_json).collect::<Vec<_>>())?,
    }
    if wrong == 0 { Ok(()) } else { Err(CliError::failed(format!("{wrong} of {} cases failed", reports.len()))) }
}

fn told(report: &Report, color: bool) -> String {
    let (word, paint) = if report.has_passed() { ("ok", Paint::Good) } else { ("FAILED", Paint::Bad) };
    let took = report.took.as_micros();
    let mut text = format!("{}  {}  ({}, {took} us)", paint.on(&format!("{word:6}"), color), report.name, report.hook);
    for difference in &report.differences {
        text.push_str(&format!("\n        {difference}"));
    }
    if !report.has_passed() {
        for note in &report.notes {
            text.push_str(&format!("\n        note: {note}"));
        }
    }
    text
}

fn as_json(report: &Report) -> serde_json::Value {
    json!({
        "case": report.name,
        "hook": report.hook,
        "passed": report.has_passed(),
        "differences": report.differences,
        "notes": report.notes,
        "took_us": u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_case_says_what_differs_and_what_the_plugin_noted() {
        let report = Report {
            name: "waits".into(),
            hook: "boot".into(),
            differences: vec!["verdict: expected \"pass\", got {\"hold\":\"x\"}".into()],
            notes: vec!["its rack is known".into()],
            took: Duration::from_micros(77),
        };
        insta::assert_snapshot!(told(&report, false), @r#"
        FAILED  waits  (boot, 77 us)
                verdict: expected "pass", got {"hold":"x"}
                note: its rack is known
        "#);
        let passed = Report { differences: Vec::new(), ..report };
        assert_eq!(told(&passed, false), "ok      waits  (boot, 77 us)");
    }
}
