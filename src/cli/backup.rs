//! `kiwispray backup`, `restore`, `release` and `fsck`: the store as a whole.
//!
//! Invariant: a backup has its name only once it was read back whole, and is readable by its owner alone.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tempfile::NamedTempFile;

use super::Context;
use super::act::{Consent, Question, Targets, act_on};
use super::client::{Act, Selection};
use super::error::{CliError, Result};
use super::screen::{Format, Screen, Verbosity};
use super::words::{harmless, shell, size};
use crate::maintenance::{self, Existing, MaintenanceError, Progress, StoppedStore};
use crate::wire::{ActOnHost, BackupView, CheckView, RestoredView};

/// Saves the store.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write; its owner alone may read it, as it holds the secrets of boots and plugins
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    replace: bool,
    /// Save the store of a stopped server, in this data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Makes a store out of a backup.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup
    file: PathBuf,
    /// The data directory of a server that is stopped, or of a new one
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_DATA_DIR", hide_env = true)]
    data_dir: PathBuf,
    /// Put the store that is there aside, and use the backup in its place
    #[arg(long)]
    replace_store: bool,
}

/// Lets hosts boot again.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").multiple(true).required(true).args(["hosts", "conditions", "all"])))]
pub(crate) struct Release {
    /// A host's number, name, serial number, MAC or UUID, or a range of numbers such as 1-20
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// All hosts of which this is true, such as metadata.site=fra1 (several: all must be)
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
    /// All hosts, and those that become known from now on
    #[arg(long, conflicts_with_all = ["hosts", "conditions"])]
    all: bool,
    #[command(flatten)]
    consent: Consent,
    /// Refuse unless the host has this serial number
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,
}

/// Checks a store.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Check the store of a stopped server, in this data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What a backup of the store does not have.
const LEFT_OUT: &str = "not in it: images, templates, configuration, plugins and their bindings (save these folders too), \
                        and the progress of running transfers";

impl Backup {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let screen = &context.screen;
        if !self.replace && self.file.exists() {
            return Err(CliError::usage(format!("{} is there already: add --replace", self.file.display())));
        }
        let refused = |error: std::io::Error| not_written(&self.file, &error);
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // For its owner alone from its first byte on.
        let mut file = NamedTempFile::new_in(folder).map_err(refused)?;
        let bar = spinner(screen, "saved");
        match &self.data_dir {
            Some(data_dir) => stopped(data_dir, screen, &mut file, &self.file, &bar).await?,
            None => serving(context, &mut file, &self.file, &bar).await?,
        }
        bar.finish_and_clear();
        // What was written is what counts, not what was sent.
        let saved = maintenance::read_backup(file.path(), |_| ()).map_err(|error| {
            CliError::failed(format!("the backup broke off, and {} was not written: {error}", self.file.display()))
        })?;
        file.as_file().sync_all().map_err(refused)?;
        let persisted = if self.replace { file.persist(&self.file) } else { file.persist_noclobber(&self.file) };
        persisted.map_err(|error| refused(error.error))?;
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused)?;
        match screen.format {
            Format::Json => screen.json(&saved),
            Format::Text => screen.line(&saved_as(&saved, &self.file)),
        }
    }
}

async fn serving(context: &Context, file: &mut NamedTempFile, name: &Path, bar: &ProgressBar) -> Result {
    let mut pieces = context.client()?.stream("/api/v1/backup", None).await?;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        file.write_all(&piece).map_err(|error| not_written(name, &error))?;
        bar.inc(piece.len() as u64);
    }
    Ok(())
}

async fn stopped(data_dir: &Path, screen: &Screen, file: &mut NamedTempFile, name: &Path, bar: &ProgressBar) -> Result {
    let store = StoppedStore::open(data_dir).await.map_err(told)?;
    let mut dump = store.dump(screen.look().now);
    while let Some(piece) = store.next(&mut dump).await.map_err(told)? {
        file.write_all(&piece).map_err(|error| not_written(name, &error))?;
        bar.inc(piece.len() as u64);
    }
    store.close().await;
    Ok(())
}

/// What was there under this name is there still.
fn not_written(name: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("{} was not written: {error}", name.display()))
}

impl Restore {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let screen = &context.screen;
        let existing = if self.replace_store { Existing::Replace } else { Existing::Refuse };
        let length = std::fs::metadata(&self.file).map_or(0, |about| about.len());
        let bar = spinner(screen, "restored");
        bar.set_length(length);
        let progress = |progress: Progress| match progress {
            Progress::Checked(_) => {}
            Progress::Written(bytes) => bar.set_position(bytes),
            Progress::Quarantined(hosts) => bar.set_message(format!("hosts quarantined: {hosts}")),
        };
        let made = maintenance::restore(&self.file, &self.data_dir, existing, screen.look().now, progress).await;
        bar.finish_and_clear();
        let made = made.map_err(told)?;
        match screen.format {
            Format::Json => screen.json(&made),
            Format::Text => screen.line(&restored(&made, &self.data_dir)),
        }
    }
}

impl Release {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let act = Act::Release(ActOnHost { expect_serial: self.expect_serial, ..ActOnHost::default() });
        if !self.all {
            let targets = Targets::of(self.hosts, self.conditions);
            return act_on(context, &targets, &act, self.consent, Question::Erasing).await;
        }
        let targets = Targets::of(Vec::new(), vec!["quarantined=yes".to_owned()]);
        let client = context.client()?;
        let quarantined = Selection { hosts: Vec::new(), conditions: vec!["quarantined=yes".to_owned()] };
        if !client.hosts(&quarantined).await?.is_empty() {
            act_on(context, &targets, &act, self.consent, Question::Erasing).await?;
        }
        if !self.consent.dry_run {
            client.post_for_nothing("/api/v1/quarantine/lift").await?;
            context.screen.remark("Hosts that become known from now on are not quarantined.");
        }
        Ok(())
    }
}

impl Fsck {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let screen = &context.screen;
        let check: CheckView = match &self.data_dir {
            Some(data_dir) => {
                let store = StoppedStore::open(data_dir).await.map_err(told)?;
                let bar = counter(screen);
                let check = store.check(|entries| bar.set_position(entries)).await;
                bar.finish_and_clear();
                store.close().await;
                check.map_err(told)?
            }
            None => context.client()?.get("/api/v1/check").await?,
        };
        match screen.format {
            Format::Json => screen.json(&check)?,
            Format::Text => screen.line(&found(&check))?,
        }
        if check.problem_count == 0 {
            return Ok(());
        }
        Err(CliError::failed(format!(
            "the store has {} problems; save it with `kiwispray backup`, and ask, or restore an older backup",
            check.problem_count
        )))
    }
}

/// An error of the store as one sentence, with its causes.
fn told(error: MaintenanceError) -> CliError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    CliError::failed(text)
}

fn saved_as(saved: &BackupView, file: &Path) -> String {
    let name = file.display().to_string();
    format!(
        "{}: {} records, {}\n  {LEFT_OUT}\n  to use it: stop the server, then kiwispray restore {} --data-dir DIR",
        harmless(&name),
        saved.records,
        size(saved.bytes),
        shell(&name)
    )
}

fn restored(made: &RestoredView, data_dir: &Path) -> String {
    let mut lines =
        vec![format!("{}: {} hosts, as of {}", data_dir.display(), made.hosts, made.taken_at.strftime("%F %T UTC"))];
    if let Some(kept) = &made.kept {
        lines.push(format!("  the store before is kept in {kept}"));
    }
    lines.push(format!(
        "  nothing writes a disk until it is released: {} hosts hold, finished ones boot their disk, new ones wait",
        made.holding
    ));
    lines.push(
        "  no plugin orders until it is approved: it may order again what was done since; see kiwispray plugin list"
            .to_owned(),
    );
    lines.push(
        "  next: start the server, look at `kiwispray host list --where hold=yes`, then kiwispray release HOST…, or --all"
            .to_owned(),
    );
    lines.join("\n")
}

fn found(check: &CheckView) -> String {
    let mut lines = vec![format!(
        "{} hosts, {} forgotten, {} events, {} values to find hosts by, {} values of plugins: {} in {} records",
        check.hosts,
        check.forgotten,
        check.events,
        check.indexed,
        check.plugin_values,
        size(check.bytes),
        check.entries
    )];
    lines.extend(check.problems.iter().map(|problem| format!("  {}", harmless(problem))));
    let rest = check.problem_count.saturating_sub(check.problems.len() as u64);
    if rest > 0 {
        lines.push(format!("  and {rest} more"));
    }
    if check.problem_count == 0 {
        lines.push("  everything fits together".to_owned());
    }
    lines.join("\n")
}

fn spinner(screen: &Screen, verb: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(verb.to_owned());
    draw(&bar, screen, "{spinner} {bytes} {msg} ({bytes_per_sec})");
    bar
}

fn counter(screen: &Screen) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    draw(&bar, screen, "{spinner} {human_pos} records checked");
    bar
}

/// Only where a person looks at it.
fn draw(bar: &ProgressBar, screen: &Screen, template: &str) {
    let is_shown = screen.verbosity >= Verbosity::Normal && screen.format == Format::Text;
    bar.set_draw_target(if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::time;
    use super::*;

    #[test]
    fn a_backup_says_what_it_leaves_out_and_how_it_is_used() {
        let saved =
            BackupView { taken_at: time("2026-11-22T10:00:00Z"), program: "0.1.0".into(), records: 70, bytes: 12_345 };
        insta::assert_snapshot!(saved_as(&saved, Path::new("kiwi spray.backup")));
    }

    #[test]
    fn a_restore_says_what_holds_and_how_to_go_on() {
        let made = RestoredView {
            taken_at: time("2026-11-22T10:00:00Z"),
            hosts: 20,
            holding: 3,
            kept: Some("/var/lib/kiwispray/store.before-restore-1".into()),
        };
        insta::assert_snapshot!(restored(&made, Path::new("/var/lib/kiwispray")));
    }

    #[test]
    fn a_check_names_the_first_problems_and_counts_the_rest() {
        let check = CheckView {
            hosts: 2,
            forgotten: 1,
            tombstones: 1,
            events: 30,
            indexed: 7,
            plugin_values: 0,
            entries: 44,
            bytes: 9_000,
            problems: vec!["of host 2 only one of two records is there".into()],
            problem_count: 12,
        };
        insta::assert_snapshot!(found(&check));
    }
}
