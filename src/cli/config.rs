//! `kiwispray config check` and `reload`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::doctor::{show, source};
use super::error::{CliError, Result};
use super::screen::{Format, Paint};
use super::words::harmless;
use crate::config::ServeArgs;
use crate::doctor;
use crate::wire::{RereadView, SettingView};

/// What can be done about the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say everything that a server would say about its configuration
    Check(Box<Check>),
    /// Let the server read its configuration again, as SIGHUP does
    Reload,
}

/// Checks files, folders, templates, images and plugins as a server with the same flags would.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Configuration file, before the one of --config; otherwise as `serve` finds it
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
}

impl ConfigCommand {
    pub(crate) async fn run(self, context: &Context) -> Result {
        match self {
            Self::Check(check) => {
                let Check { file, serve } = *check;
                let args = ServeArgs { config: file.or(serve.config.clone()), ..serve };
                let findings = doctor::examine_config(&source(args)?).await;
                show(context, &findings)
            }
            Self::Reload => reload(context).await,
        }
    }
}

async fn reload(context: &Context) -> Result {
    let (client, screen) = (context.client()?, &context.screen);
    let found: RereadView = client.post("/api/v1/config/reload", &json!({})).await?;
    match screen.format {
        Format::Json => screen.json(&found)?,
        Format::Text => {
            let look = screen.look();
            for SettingView { key, from, to, needs_restart } in &found.settings {
                let line = format!("{}: {} -> {}", harmless(key), harmless(from), harmless(to));
                screen.line(&if *needs_restart {
                    format!("{line}  {}", Paint::Busy.on("(from the next start of the server on)", look.color))
                } else {
                    line
                })?;
            }
            for plugin in found.plugins.iter().filter(|plugin| plugin.change != "unchanged") {
                let paint = if plugin.change == "failed" { Paint::Bad } else { Paint::Good };
                screen.line(&format!(
                    "plugin {}: {}",
                    harmless(&plugin.name),
                    paint.on(&harmless(&plugin.change), look.color)
                ))?;
            }
            if found.settings.is_empty() && found.plugins.iter().all(|plugin| plugin.change == "unchanged") {
                screen.remark("nothing is different");
            }
        }
    }
    let failed: Vec<String> = found
        .plugins
        .iter()
        .filter(|plugin| plugin.change == "failed")
        .map(|plugin| format!("the plugin {} did not load: see `kiwispray plugin show {0}`", harmless(&plugin.name)))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(CliError::failed(failed.join("\n"))) }
}
