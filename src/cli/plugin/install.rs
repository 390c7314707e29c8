//! `kiwispray plugin install`: shows what a plugin may do before it may.

use std::path::PathBuf;

use clap::Args;

use super::super::Context;
use super::super::error::{CliError, Exit, Result};
use super::super::screen::{Format, Look, Paint};
use super::super::table::facts;
use super::super::words::{harmless, shell, size};
use super::binding::{BindingArgs, Wanted};
use super::show::{reach, short};
use crate::wire::{InstalledPlugin, ReachView};

/// Installs a plugin.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The component, or the plugin's folder
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
    #[command(flatten)]
    binding: BindingArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// With --yes: it may be allowed more than the one that it replaces
    #[arg(long)]
    widen: bool,
    /// Say what it may do, and install nothing
    #[arg(long)]
    dry_run: bool,
}

impl Install {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let wanted = Wanted::read(&client, &self.path, &self.binding).await?;
        let path = super::path(&wanted.name);
        let look = screen.look();
        let trial: InstalledPlugin = client.put(&path, wanted.body(self.widen, true)?).await?;
        if self.dry_run {
            return match screen.format {
                Format::Json => screen.json(&trial),
                Format::Text => screen.line(&described(&trial, &wanted, look)),
            };
        }
        if self.yes && !self.widen && wanted.is_bound && !trial.widened.is_empty() {
            let text = format!("{}\nSay --widen if this is meant.", difference(&trial, Look { color: false, ..look }));
            return Err(CliError { exit: Exit::Conflict, text });
        }
        screen.confirm(&described(&trial, &wanted, look), self.yes)?;
        // Who was shown the difference and went on means it.
        let installed: InstalledPlugin = client.put(&path, wanted.body(true, false)?).await?;
        match screen.format {
            Format::Json => screen.json(&installed),
            Format::Text => screen.line(&told(&installed, look)),
        }
    }
}

/// What it is, and what it may do.
fn described(trial: &InstalledPlugin, wanted: &Wanted, look: Look) -> String {
    let plugin = &trial.plugin;
    let mut rows = vec![("plugin", format!("{} {}", harmless(&plugin.name), version(trial)))];
    if !plugin.summary.is_empty() {
        rows.push(("summary", harmless(&plugin.summary)));
    }
    rows.push(("component", harmless(&wanted.file.display().to_string())));
    if let Ok(bytes) = std::fs::metadata(&wanted.file) {
        rows.push(("size", size(bytes.len())));
    }
    rows.push(("digest", plugin.digest.clone().unwrap_or_default()));
    rows.push(("hooks", plugin.hooks.join(", ")));
    rows.push(("states", harmless(&plugin.states.join(", "))));
    rows.push(("on error", plugin.on_error.clone()));
    rows.push(("config", harmless(&plugin.config.to_string())));
    let mut text = facts(&rows);
    if wanted.is_bound {
        text.push_str(&format!("\n{}", difference(trial, look)));
    } else {
        text.push_str(&format!("\nIt may do this and nothing else:\n{}", indented(&plugin.reach, look)));
    }
    text
}

/// What changes for a plugin that is bound already.
fn difference(trial: &InstalledPlugin, look: Look) -> String {
    let replaced = trial.replaces.as_deref().map(short).unwrap_or("nothing that runs");
    let mut parts = vec![format!("It replaces {replaced}.")];
    if !trial.widened.is_empty() {
        parts.push(format!("It may do this, which it may not now:\n{}", indented(&trial.widened, look)));
    }
    if !trial.narrowed.is_empty() {
        parts.push(format!("It may no longer do this:\n{}", indented(&trial.narrowed, look)));
    }
    if trial.widened.is_empty() && trial.narrowed.is_empty() {
        parts.push("It may do what it may now.".to_owned());
    }
    parts.join("\n")
}

fn indented(lines: &[ReachView], look: Look) -> String {
    if lines.is_empty() {
        return "  nothing".to_owned();
    }
    reach(lines, look).lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn told(installed: &InstalledPlugin, look: Look) -> String {
    let plugin = &installed.plugin;
    let name = harmless(&plugin.name);
    let verb = if installed.replaces.is_some() { "replaced by" } else { "installed," };
    let off = if plugin.status == "disabled" { ", switched off" } else { "" };
    let undo = match installed.replaces {
        Some(_) => format!("kiwispray plugin rollback {}", shell(&name)),
        None => format!("kiwispray plugin remove {}", shell(&name)),
    };
    let file = plugin.file.as_deref().map(harmless).unwrap_or_default();
    [
        format!("{name}: {verb} {}{off}", version(installed)),
        format!("  bound in {file}; change it there, then kiwispray plugin reload {}", shell(&name)),
        Paint::Faint.on(&format!("  undo: {undo}"), look.color),
    ]
    .join("\n")
}

fn version(installed: &InstalledPlugin) -> String {
    let plugin = &installed.plugin;
    let digest = plugin.digest.as_deref().map(short).unwrap_or("-");
    format!("{} ({digest})", harmless(plugin.version.as_deref().unwrap_or("-")))
}
