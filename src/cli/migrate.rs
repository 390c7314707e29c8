//! `kiwispray migrate`
//!
//! Invariant: everything is read and tried before anything is written, in this order: images, templates, settings, hosts.
//! So no host is known before what it boots is there, and whatever interrupts this, running it again goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::{Access, access};
use serde::Serialize;

use super::Context;
use super::act::Consent;
use super::client::Client;
use super::columns::Table;
use super::error::{CliError, Exit, Result};
use super::screen::{Format, Look, Paint, Screen, Verbosity};
use super::server::Server;
use super::table::{cell, table};
use super::words::harmless;
use crate::migrate::{Choices, Item, MigrateError, OldHost, Plan, Put, put, read, settings_file, take_image};
use crate::wire::{ImageView, StatusView, TakeHost, TakeHosts, TookHost};

/// Hosts and bytes of one request: the server takes a megabyte.
const HOSTS_AT_ONCE: usize = 500;
const BYTES_AT_ONCE: usize = 512 * 1024;
/// The file of `conf.d` with what the original allowed everybody.
const SETTINGS: &str = "from-kiwispray.toml";
/// Sentences that are shown of each kind; all of them are in `--json`.
const MOST_SHOWN: usize = 20;

/// Takes over an installation of the original KIWIspray: its hosts with their numbers, images and templates. The
/// original is not changed; stop it first. What was taken already is left alone, so this can be run again.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The original's folder, in which ks.py runs
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The disk to write, of all images or of one: /dev/disk/by-id/…, another /dev/…, smallest, or first (by name)
    #[arg(long, value_name = "[IMAGE=]DEVICE")]
    device: Vec<String>,
    /// An image that writes no disk
    #[arg(long, value_name = "IMAGE")]
    harmless: Vec<String>,
    /// Go on without hosts that cannot be taken: their machines will be unknown
    #[arg(long)]
    leave_out: bool,
    #[command(flatten)]
    consent: Consent,
}

/// What became of everything.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Whether nothing was changed.
    dry_run: bool,
    /// Numbers of hosts that are known from now on.
    new: Vec<u64>,
    /// Numbers of hosts that were known already.
    there: Vec<u64>,
    /// Hosts that are not taken, one sentence each.
    left_out: Vec<String>,
    /// What was dropped of hosts, or looks strange.
    notes: Vec<String>,
    /// Numbers of hosts that boot an image next.
    ordered: Vec<u64>,
    /// Images, templates and settings.
    items: Vec<Done>,
}

/// A part of the original, and what was done about it.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    item: Item,
    /// `taken`, `there`, `other` (something else is there and stays), `built-in` or `not taken`.
    outcome: &'static str,
    /// It was understood, and its files turned out not to be whole.
    #[serde(skip)]
    damaged: bool,
}

/// Where the server has its folders.
struct Folders {
    images: PathBuf,
    templates: PathBuf,
    settings: PathBuf,
}

impl Migrate {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let choices = Choices::parse(&self.device, &self.harmless).map_err(CliError::usage)?;
        let plan = read(&self.from, &choices).map_err(refused)?;
        let mut report = report_of(&plan, self.consent.dry_run);
        let client = match context.client() {
            Ok(client) => client,
            Err(error) if self.consent.dry_run => {
                context.screen.remark(&format!("{error}\nWithout a server it cannot be said what is there already."));
                report.new = plan.hosts.iter().map(|host| host.id.get()).collect();
                show(context, &report)?;
                return self.check_hosts(&plan, &[]);
            }
            Err(error) => return Err(error),
        };
        if matches!(client.server(), Server::Http(_)) {
            let why = "this writes into the folders of the server: run it on that machine, over its socket";
            return Err(CliError::usage(why));
        }
        let folders = folders(&client).await?;
        let batches = batches(&plan.hosts);
        let refusals = try_hosts(&client, &batches, &mut report).await?;
        if self.consent.dry_run {
            report.left_out.extend(refusals.iter().cloned());
            look_at_folders(&plan, &folders, &mut report)?;
            show(context, &report)?;
            return self.check_hosts(&plan, &refusals);
        }
        self.check_hosts(&plan, &refusals)?;
        check_folders(&folders)?;
        let stored: Vec<ImageView> = client.get("/api/v1/images").await?;
        self.confirm(context, &orders(&plan, &stored, &report.new))?;
        take_files(context, &plan, &folders, &mut report)?;
        for batch in &batches {
            let hosts = TakeHosts { hosts: batch.clone(), dry_run: false };
            let took: Vec<TookHost> = client.post("/api/v1/migration/hosts", &hosts).await?;
            if let Some(why) = took.iter().filter(|host| host.outcome == "refused").find_map(sentence) {
                return Err(conflict(format!("{why}; look at what changed meanwhile, and run this again")));
            }
        }
        show(context, &report)?;
        let damaged = report.items.iter().filter(|done| done.damaged).count();
        if damaged > 0 {
            return Err(CliError::failed(format!(
                "{} could not be taken: put right what is said above and run this again; until then its hosts hold",
                if damaged == 1 { "an image".to_owned() } else { format!("{damaged} images") }
            )));
        }
        Ok(())
    }

    /// Whether every host can be taken.
    fn check_hosts(&self, plan: &Plan, refusals: &[String]) -> Result {
        if !refusals.is_empty() {
            let some = listed(refusals);
            return Err(conflict(format!(
                "{} hosts cannot be taken, and nothing was changed:\n{some}",
                refusals.len()
            )));
        }
        if !plan.impossible.is_empty() && !self.leave_out {
            return Err(CliError::failed(format!(
                "{} of the original cannot be taken, and nothing was changed:\n{}\nCorrect them in known_hosts.json, or \
                 say --leave-out: then their machines are unknown, and wait when they boot.",
                if plan.impossible.len() == 1 {
                    "a host".to_owned()
                } else {
                    format!("{} hosts", plan.impossible.len())
                },
                listed(&plan.impossible)
            )));
        }
        Ok(())
    }

    /// Hosts that the original would install at their next boot are installed at it here, too.
    fn confirm(&self, context: &Context, (count, states): &(usize, BTreeSet<String>)) -> Result {
        if *count == 0 {
            return Ok(());
        }
        let hosts = if *count == 1 { "1 host has".to_owned() } else { format!("{count} hosts have") };
        let states: Vec<String> = states.iter().map(|state| harmless(state)).collect();
        let stake = format!(
            "{hosts} an order in the original ({}): the next boot erases the disk, if that was done already, too.",
            states.join(", ")
        );
        context.screen.confirm(&stake, self.consent.yes)
    }
}

/// Whether everything can be written.
fn check_folders(folders: &Folders) -> Result {
    for folder in [&folders.images, &folders.templates, &folders.settings] {
        let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
        if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            let there = there.display();
            return Err(CliError::failed(format!("you may not write to {there}: use sudo, or become its owner")));
        }
    }
    Ok(())
}

/// How many of the new hosts have orders, and for what. An image is an order unless it is known to write nothing: one that
/// has no disk yet, or no files, may get them any day.
fn orders(plan: &Plan, stored: &[ImageView], new: &[u64]) -> (usize, BTreeSet<String>) {
    let writes_nothing = |state: &str| match stored.iter().find(|image| image.name == state) {
        // The one that is there stays, whatever the original has under this name.
        Some(image) => image.manifest.as_ref().is_some_and(|manifest| manifest.writes == "nothing"),
        None => plan.images.iter().any(|image| image.request.name.as_str() == state && !image.request.kind.writes()),
    };
    let mut states = BTreeSet::new();
    let mut count = 0;
    for host in plan.hosts.iter().filter(|host| new.contains(&host.id.get())) {
        let orders: Vec<String> = host
            .states
            .iter()
            .filter(|state| !state.is_built_in() && !writes_nothing(state.as_str()))
            .map(ToString::to_string)
            .collect();
        count += usize::from(!orders.is_empty());
        states.extend(orders);
    }
    (count, states)
}

async fn folders(client: &Client) -> Result<Folders> {
    let status: StatusView = client.get("/api/v1/status").await?;
    if status.templates_dir.is_empty() || status.config_dir.is_empty() {
        return Err(CliError::failed("the server is older than this program: restart it"));
    }
    let settings = Path::new(&status.config_dir).join("conf.d");
    Ok(Folders { images: status.images_dir.into(), templates: status.templates_dir.into(), settings })
}

/// The hosts, in portions that the server takes.
fn batches(hosts: &[OldHost]) -> Vec<Vec<TakeHost>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for host in hosts {
        let host = wire(host);
        let size = serde_json::to_vec(&host).map_or(0, |text| text.len());
        if !batch.is_empty() && (batch.len() >= HOSTS_AT_ONCE || bytes + size > BYTES_AT_ONCE) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(host);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

fn wire(host: &OldHost) -> TakeHost {
    TakeHost {
        id: host.id.get(),
        hostname: host.hostname.as_ref().map(ToString::to_string),
        serial: host.identity.serial.as_ref().map(ToString::to_string),
        uuid: host.identity.uuid.map(|uuid| uuid.to_string()),
        macs: host.identity.macs.iter().map(ToString::to_string).collect(),
        states: host.states.iter().map(ToString::to_string).collect(),
        metadata: host.metadata.as_map().clone(),
        seen: host.seen,
    }
}

/// Asks the server about every host; what it would refuse.
async fn try_hosts(client: &Client, batches: &[Vec<TakeHost>], report: &mut Report) -> Result<Vec<String>> {
    let mut refusals = Vec::new();
    for batch in batches {
        let hosts = TakeHosts { hosts: batch.clone(), dry_run: true };
        let took: Vec<TookHost> = client.post("/api/v1/migration/hosts", &hosts).await?;
        for host in &took {
            match host.outcome.as_str() {
                "new" => report.new.push(host.id),
                "there" => {
                    report.there.push(host.id);
                    report.notes.extend(sentence(host));
                }
                _ => refusals.extend(sentence(host)),
            }
        }
    }
    Ok(refusals)
}

fn sentence(host: &TookHost) -> Option<String> {
    let why = host.why.as_deref()?;
    Some(format!("host {}: {why}", host.id))
}

/// Writes images, templates and settings.
fn take_files(context: &Context, plan: &Plan, folders: &Folders, report: &mut Report) -> Result {
    let bar = bar(plan.images.iter().map(|image| image.size_bytes).sum(), &context.screen);
    for image in &plan.images {
        let name = image.request.name.to_string();
        let taken = take_image(&folders.images, image, |bytes| bar.inc(bytes));
        match taken {
            Ok(put) => report.done(&name, put),
            // One damaged image is no reason to leave the others behind: its hosts hold.
            Err(error) => {
                let done = report.items.iter_mut().find(|done| done.item.to.as_deref() == Some(&name));
                if let Some(done) = done {
                    done.outcome = "not taken";
                    done.damaged = true;
                    done.item.notes.push(error.to_string());
                }
            }
        }
    }
    bar.finish_and_clear();
    let failed = |folder: &Path, error: std::io::Error| CliError::failed(format!("{}: {error}", folder.display()));
    for template in &plan.templates {
        let put = put(&folders.templates, &template.name, &template.text);
        let put = put.map_err(|error| failed(&folders.templates, error))?;
        report.done(&format!("templates/{}", template.name), put);
    }
    if !plan.settings.is_empty() {
        let put = put(&folders.settings, SETTINGS, &settings_file(&plan.settings));
        let put = put.map_err(|error| failed(&folders.settings, error))?;
        for setting in &plan.settings {
            report.done(&format!("boot.{} = true", setting.key), put);
        }
    }
    Ok(())
}

/// What would become of images, templates and settings.
fn look_at_folders(plan: &Plan, folders: &Folders, report: &mut Report) -> Result {
    let would = |path: PathBuf, text: Option<&str>| match (std::fs::read(&path), text) {
        (Ok(found), Some(text)) if found == text.as_bytes() => Put::There,
        (Ok(_), Some(_)) => Put::Other,
        _ if std::fs::symlink_metadata(&path).is_ok() => Put::There,
        _ => Put::New,
    };
    for image in &plan.images {
        let name = image.request.name.to_string();
        report.done(&name, would(folders.images.join(&name), None));
    }
    for template in &plan.templates {
        let put = would(folders.templates.join(&template.name), Some(&template.text));
        report.done(&format!("templates/{}", template.name), put);
    }
    let put = would(folders.settings.join(SETTINGS), Some(&settings_file(&plan.settings)));
    for setting in &plan.settings {
        report.done(&format!("boot.{} = true", setting.key), put);
    }
    Ok(())
}

fn report_of(plan: &Plan, dry_run: bool) -> Report {
    let items = plan.items.iter().map(|item| Done {
        item: item.clone(),
        outcome: match (&item.to, item.is_built_in) {
            (_, true) => "built-in",
            (Some(_), false) => "taken",
            (None, false) => "not taken",
        },
        damaged: false,
    });
    let ordered = plan.hosts.iter().filter(|host| !host.states.is_new() && !host.states.is_finished());
    Report {
        dry_run,
        left_out: plan.impossible.clone(),
        notes: plan.notes.clone(),
        ordered: ordered.map(|host| host.id.get()).collect(),
        items: items.collect(),
        ..Report::default()
    }
}

impl Report {
    fn done(&mut self, to: &str, put: Put) {
        if let Some(done) = self.items.iter_mut().find(|done| done.item.to.as_deref() == Some(to)) {
            done.outcome = match put {
                Put::New => "taken",
                Put::There => "there",
                Put::Other => "other",
            };
        }
    }

    fn text(&self, look: Look) -> String {
        let would = if self.dry_run { "would be " } else { "" };
        let hosts = |count: usize| if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") };
        let mut lines = vec![format!(
            "{} {would}taken with their numbers, {} there already",
            Paint::Good.on(&hosts(self.new.len()), look.color),
            self.there.len()
        )];
        let told = |sentences: &[String], paint: Paint, lines: &mut Vec<String>| {
            lines
                .extend(sentences.iter().take(MOST_SHOWN).map(|s| format!("  {}", paint.on(&harmless(s), look.color))));
            if sentences.len() > MOST_SHOWN {
                lines.push(format!("  and {} more: see --json", sentences.len() - MOST_SHOWN));
            }
        };
        told(&self.left_out, Paint::Bad, &mut lines);
        told(&self.notes, Paint::Busy, &mut lines);
        if !self.items.is_empty() {
            lines.push(String::new());
            lines.push(self.table(look).rendered());
        }
        for done in &self.items {
            let paint = if done.outcome == "not taken" { Paint::Bad } else { Paint::Plain };
            let about = |note: &String| paint.on(&harmless(&format!("{}: {note}", done.item.from)), look.color);
            lines.extend(done.item.notes.iter().map(about));
        }
        lines.push(String::new());
        if !self.ordered.is_empty() {
            lines.push(format!(
                "{} of the original to boot an image. Those that it installed already, or installs right now: kiwispray \
                 host finish ID",
                if self.ordered.len() == 1 { "1 host has an order".to_owned() } else { format!("{} hosts have orders", self.ordered.len()) }
            ));
        }
        lines.push(if self.dry_run {
            "Nothing was changed. Whether images are whole is seen when they are taken.".to_owned()
        } else {
            "Next: restart the server, so that it reads its settings, and look at kiwispray image list".to_owned()
        });
        lines.join("\n")
    }

    fn table(&self, look: Look) -> Table {
        let mut table = table(["WHAT", "IN THE ORIGINAL", "HERE", "RESULT"]);
        for done in &self.items {
            let what = serde_json::to_value(done.item.what).unwrap_or_default();
            let (result, paint) = match (done.outcome, self.dry_run) {
                ("taken", true) => ("would be taken", Paint::Good),
                ("taken", false) => ("taken", Paint::Good),
                ("there", _) => ("there already", Paint::Faint),
                ("built-in", _) => ("built in", Paint::Faint),
                ("other", _) => ("something else is there, and stays", Paint::Busy),
                _ => ("not taken", Paint::Bad),
            };
            table.add_row([
                cell(what.as_str().unwrap_or_default(), Paint::Plain, look),
                cell(&done.item.from, Paint::Plain, look),
                cell(done.item.to.as_deref().unwrap_or("-"), Paint::Plain, look),
                cell(result, paint, look),
            ]);
        }
        table
    }
}

fn show(context: &Context, report: &Report) -> Result {
    match context.screen.format {
        Format::Json => context.screen.json(report),
        Format::Text => context.screen.line(&report.text(context.screen.look())),
    }
}

fn listed(sentences: &[String]) -> String {
    let mut lines: Vec<String> = sentences.iter().take(MOST_SHOWN).map(|s| format!("  {}", harmless(s))).collect();
    if sentences.len() > MOST_SHOWN {
        lines.push(format!("  and {} more: see --dry-run --json", sentences.len() - MOST_SHOWN));
    }
    lines.join("\n")
}

fn refused(error: MigrateError) -> CliError {
    let exit = match &error {
        MigrateError::NoHosts(_) | MigrateError::NoSuchImage(_) => Exit::NotFound,
        MigrateError::Unreadable { .. } => Exit::Failed,
        MigrateError::TooLarge { .. } | MigrateError::NotJson { .. } | MigrateError::NoList(_) => Exit::Usage,
    };
    CliError { exit, text: harmless(&error.to_string()) }
}

fn conflict(text: String) -> CliError {
    CliError { exit: Exit::Conflict, text }
}

fn bar(bytes: u64, screen: &Screen) -> ProgressBar {
    let is_wanted = screen.verbosity >= Verbosity::Normal && screen.format == Format::Text;
    let target = if is_wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let template = "copying images {bar:30} {percent:>3} % of {decimal_total_bytes}, {eta} to go";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // The template is a constant; a plain bar is no reason to stop.
        Err(_) => bar,
    }
}
