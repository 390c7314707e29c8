//! `kiwispray host import`
//!
//! Invariant: nothing is changed before the server tried every line; and if one of them is wrong, nothing is changed at all,
//! unless wrong lines were to be left out.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::Context;
use super::super::client::Client;
use super::super::error::{CliError, Exit, Result};
use super::super::screen::{Format, Screen, Verbosity};
use super::super::sheet::{Complaint, Sheet, SheetFormat, read, text};
use super::super::words::{disk, harmless};
use crate::wire::{HostRow, HostRows, RowAnswer, RowDone};

/// Problems, and hosts whose disks die, that are listed one by one.
const LISTED: usize = 200;

/// Makes hosts known, or changes them, as a list says: CSV with a first line that names the columns (hostname, serial, uuid, macs,
/// states, metadata.KEY), or a JSON array. The same list again changes nothing.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The list; - reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Go on without the lines that are wrong
    #[arg(long)]
    leave_out: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Say what would change, line by line, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let mut sheet = self.sheet()?;
        let rows = std::mem::take(&mut sheet.rows);
        let tried = self.send(&client, screen, &rows, true).await?;
        let mut complaints = sheet.complaints.clone();
        complaints.extend(tried.iter().flat_map(|done| refusals(done, &sheet)));
        complaints.sort();
        if self.dry_run {
            show(screen, &tried, true)?;
            screen.remark(&summary(&tried, complaints.len(), "would be "));
            return if complaints.is_empty() { Ok(()) } else { Err(wrong(&complaints, "these lines are wrong")) };
        }
        if !complaints.is_empty() && !self.leave_out {
            return Err(wrong(
                &complaints,
                "nothing was changed, as lines are wrong (--leave-out goes on without them)",
            ));
        }
        if tried.iter().all(|done| !is_work(done)) {
            show(screen, &tried, false)?;
            screen.remark(&summary(&tried, complaints.len(), ""));
            return left_out(&complaints);
        }
        self.confirm(screen, &tried)?;
        let done = self.send(&client, screen, &rows, false).await?;
        show(screen, &done, false)?;
        let mut complaints = sheet.complaints.clone();
        complaints.extend(done.iter().flat_map(|done| refusals(done, &sheet)));
        complaints.sort();
        screen.remark(&summary(&done, complaints.len(), ""));
        left_out(&complaints)
    }

    fn sheet(&self) -> Result<Sheet> {
        let is_input = self.file == Path::new("-");
        let name = if is_input { "standard input".to_owned() } else { self.file.display().to_string() };
        let about = |why: String| CliError::usage(format!("{name}: {why}"));
        let read_text = match is_input {
            true => text(io::stdin().lock()),
            false => text(File::open(&self.file).map_err(|error| about(format!("it cannot be opened: {error}")))?),
        };
        let format = match self.file.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("json") => Some(SheetFormat::Json),
            Some(extension) if extension.eq_ignore_ascii_case("csv") => Some(SheetFormat::Csv),
            Some(_) | None => None,
        };
        let sheet = read(&read_text.map_err(about)?, format).map_err(about)?;
        if sheet.rows.is_empty() && sheet.complaints.is_empty() {
            return Err(about("it names no host".to_owned()));
        }
        Ok(sheet)
    }

    async fn send(&self, client: &Client, screen: &Screen, rows: &[HostRow], dry_run: bool) -> Result<Vec<RowDone>> {
        let bar = bar(screen, rows.len(), if dry_run { "checking" } else { "importing" });
        let (mut answers, mut is_whole) = (Vec::with_capacity(rows.len()), false);
        let document = HostRows { hosts: rows.to_vec(), leave_out: self.leave_out, dry_run };
        let listened = client.post_for_lines("/api/v1/import/hosts", &document, |answer| match answer {
            RowAnswer::Line(done) => {
                bar.inc(1);
                answers.push(done);
            }
            RowAnswer::End => is_whole = true,
        });
        let listened = listened.await;
        bar.finish_and_clear();
        let far = || answers.iter().filter(|done| is_work(done)).count();
        match listened {
            Ok(()) if is_whole => Ok(answers),
            Ok(()) | Err(CliError { exit: Exit::Unreachable, .. }) if !dry_run && !answers.is_empty() => {
                let text = format!("the server broke off after {} hosts: the same import again does the rest", far());
                Err(CliError::unreachable(text))
            }
            Ok(()) => Err(CliError::failed("the server broke off in the middle; its log says why")),
            Err(error) => Err(error),
        }
    }

    /// Whoever sits there is asked; disks are not erased without somebody who agrees.
    fn confirm(&self, screen: &Screen, tried: &[RowDone]) -> Result {
        let erasing: Vec<&RowDone> = tried.iter().filter(|done| is_work(done) && !done.erases.is_empty()).collect();
        let all = format!("{}.", summary(tried, 0, "will be "));
        if erasing.is_empty() {
            return if Screen::can_ask() { screen.confirm(&all, self.yes) } else { Ok(()) };
        }
        let mut lines: Vec<String> = erasing
            .iter()
            .take(LISTED)
            .map(|done| {
                let disks: Vec<String> =
                    done.erases.iter().map(|erasure| format!("{} (by {})", disk(erasure), erasure.state)).collect();
                harmless(&format!("  {}: {}", named(done), disks.join(", then ")))
            })
            .collect();
        if erasing.len() > LISTED {
            lines.push(format!("  and {} more", erasing.len() - LISTED));
        }
        let stake = format!("{all}\nThe next boot of {} of them erases a disk:\n{}", erasing.len(), lines.join("\n"));
        screen.confirm(&stake, self.yes)
    }
}

fn is_work(done: &RowDone) -> bool {
    matches!(done.outcome.as_str(), "created" | "changed")
}

/// Why the server refused a line, at its place in the file.
fn refusals(done: &RowDone, sheet: &Sheet) -> Vec<Complaint> {
    let complaint = |problem: &crate::wire::RowProblem| Complaint {
        line: done.line,
        column: problem.field.as_deref().and_then(|field| sheet.column(field)),
        why: match (&problem.field, sheet.columns.is_empty()) {
            (Some(field), true) => format!("{field}: {}", problem.why),
            (_, _) => problem.why.clone(),
        },
    };
    done.problems.iter().map(complaint).collect()
}

/// `line 3, node7 (host 12)`.
fn named(done: &RowDone) -> String {
    let number = done.id.map(|id| format!("host {id}"));
    match (&done.hostname, number) {
        (Some(name), Some(number)) => format!("line {}, {name} ({number})", done.line),
        (Some(name), None) => format!("line {}, {name}", done.line),
        (None, Some(number)) => format!("line {}, {number}", done.line),
        (None, None) => format!("line {}", done.line),
    }
}

/// What became of the lines; of a trial, all of them.
fn show(screen: &Screen, done: &[RowDone], is_trial: bool) -> Result {
    if screen.format == Format::Json {
        return screen.json(&done);
    }
    let mut lines = Vec::new();
    for done in done {
        let would = if is_trial { "would be " } else { "" };
        match done.outcome.as_str() {
            "created" => lines.push(format!("{}: {would}made known", named(done))),
            "changed" => lines.push(format!("{}: {would}changed: {}", named(done), done.changes.join("; "))),
            "same" if is_trial => lines.push(format!("{}: is so already", named(done))),
            "refused" if is_trial => lines.push(format!("{}: would be refused", named(done))),
            _ => {}
        }
        lines.extend(done.kept.iter().map(|kept| format!("{}: {kept}", named(done))));
    }
    if lines.is_empty() {
        Ok(())
    } else {
        screen.line(&lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n"))
    }
}

fn summary(done: &[RowDone], wrong: usize, would: &str) -> String {
    let count = |outcome: &str| done.iter().filter(|done| done.outcome == outcome).count();
    let hosts = |count: usize| if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") };
    let mut text = format!(
        "{} {would}made known, {} {would}changed, {} so already",
        hosts(count("created")),
        hosts(count("changed")),
        hosts(count("same"))
    );
    if wrong > 0 {
        text.push_str(&format!(", {wrong} wrong"));
    }
    text
}

/// The exit code says that not everything was done.
fn left_out(complaints: &[Complaint]) -> Result {
    if complaints.is_empty() { Ok(()) } else { Err(CliError::failed(listed(complaints, "these lines were left out"))) }
}

fn wrong(complaints: &[Complaint], remark: &str) -> CliError {
    CliError::usage(listed(complaints, remark))
}

fn listed(complaints: &[Complaint], remark: &str) -> String {
    let mut lines: Vec<String> =
        complaints.iter().take(LISTED).map(|complaint| format!("  {}", harmless(&complaint.to_string()))).collect();
    if complaints.len() > LISTED {
        lines.push(format!("  and {} more", complaints.len() - LISTED));
    }
    format!("{remark}:\n{}", lines.join("\n"))
}

fn bar(screen: &Screen, hosts: usize, verb: &str) -> ProgressBar {
    let is_wanted = screen.verbosity >= Verbosity::Normal;
    let target = if is_wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(u64::try_from(hosts).ok(), target).with_message(verb.to_owned());
    match ProgressStyle::with_template("{msg} {bar:30} {pos} of {len} hosts") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
