//! `kiwispray plugin reload`, `rollback`, `disable`, `enable` and `approve`.

use clap::Args;
use serde_json::json;

use super::super::Context;
use super::super::error::{CliError, Result};
use super::super::screen::{Format, Paint};
use super::super::words::{harmless, shell};
use super::show::short;
use crate::wire::{ApproveOrders, Approved, PluginDetail, ReloadedView};

/// Reads bindings and components again.
#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// The plugin, which also ends its rollback [default: all]
    name: Option<String>,
}

/// Lets a plugin order again.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The plugin
    name: String,
    /// How many orders its next run may give [default: those that it stopped at]
    #[arg(long, value_name = "NUMBER")]
    orders: Option<u32>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Reload {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let path = match &self.name {
            Some(name) => format!("{}/reload", super::path(name)),
            None => "/api/v1/plugins/reload".to_owned(),
        };
        let all: Vec<ReloadedView> = client.post(&path, &json!({})).await?;
        match screen.format {
            Format::Json => screen.json(&all)?,
            Format::Text => {
                let look = screen.look();
                for plugin in &all {
                    let paint = match plugin.change.as_str() {
                        "failed" => Paint::Bad,
                        "unchanged" => Paint::Faint,
                        _ => Paint::Good,
                    };
                    let name = harmless(&plugin.name);
                    screen.line(&format!("{name}: {}", paint.on(&plugin.change, look.color)))?;
                }
            }
        }
        let failed: Vec<&ReloadedView> = all.iter().filter(|plugin| plugin.change == "failed").collect();
        let mut sentences = Vec::new();
        for plugin in &failed {
            let detail: PluginDetail = client.get(&super::path(&plugin.name)).await?;
            let runs = detail.digest.as_deref().map(|digest| format!("; {} goes on", short(digest)));
            let why = detail.problem.unwrap_or_else(|| "does not work".to_owned());
            sentences.push(harmless(&format!("the plugin {} {why}{}", plugin.name, runs.unwrap_or_default())));
        }
        if sentences.is_empty() { Ok(()) } else { Err(CliError::failed(sentences.join("\n"))) }
    }
}

impl Approve {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let plugin: PluginDetail = client.get(&super::path(&self.name)).await?;
        let name = harmless(&plugin.name);
        let how_many = match (&self.orders, &plugin.stopped) {
            (Some(orders), _) => format!("{orders} orders"),
            (None, Some(_)) => "the orders that it stopped at, or those of its grant".to_owned(),
            (None, None) => {
                let text = format!("{name} was not stopped: say how many orders it may give, with --orders");
                return Err(CliError { exit: super::super::error::Exit::Conflict, text });
            }
        };
        let why = plugin.stopped.map(|stopped| format!("The plugin {name} {}.\n", harmless(&stopped)));
        let stake = format!("{}Its next run may give {how_many}: disks may be erased.", why.unwrap_or_default());
        screen.confirm(&stake, self.yes)?;
        let path = format!("{}/approve", super::path(&self.name));
        let approved: Approved = client.post(&path, &ApproveOrders { orders: self.orders }).await?;
        match screen.format {
            Format::Json => screen.json(&approved),
            Format::Text if approved.orders == 0 => screen.line(&format!("{name}: it may order what its grant allows")),
            Format::Text => screen.line(&format!("{name}: its next run may give {} orders", approved.orders)),
        }
    }
}

/// Goes back to the component before.
pub(super) async fn rollback(context: &Context, name: &str) -> Result {
    let plugin: PluginDetail = context.client()?.post(&format!("{}/rollback", super::path(name)), &json!({})).await?;
    let runs = plugin.digest.as_deref().map(short).unwrap_or_default().to_owned();
    let version = plugin.version.clone().unwrap_or_default();
    told(context, &plugin, &format!("runs {version} ({runs}) again"), &format!("plugin reload {}", shell(name)))
}

/// Switches a plugin off.
pub(super) async fn disable(context: &Context, name: &str) -> Result {
    let plugin: PluginDetail = context.client()?.post(&format!("{}/disable", super::path(name)), &json!({})).await?;
    let decides = plugin.hooks.iter().any(|hook| !matches!(hook.as_str(), "events" | "schedule"));
    let means = if decides {
        "switched off: the next plugin decides in its place, and nothing that it guards is guarded"
    } else {
        "switched off: it is told nothing, and its jobs do not run"
    };
    told(context, &plugin, means, &format!("plugin enable {}", shell(name)))
}

/// Switches a plugin on.
pub(super) async fn enable(context: &Context, name: &str) -> Result {
    let plugin: PluginDetail = context.client()?.post(&format!("{}/enable", super::path(name)), &json!({})).await?;
    let means = match &plugin.problem {
        Some(problem) => format!("switched on, but it {problem}"),
        None => "switched on".to_owned(),
    };
    told(context, &plugin, &means, &format!("plugin disable {}", shell(name)))
}

fn told(context: &Context, plugin: &PluginDetail, what: &str, undo: &str) -> Result {
    let screen = &context.screen;
    match screen.format {
        Format::Json => screen.json(plugin),
        Format::Text => {
            screen.line(&harmless(&format!("{}: {what}", plugin.name)))?;
            screen.line(&Paint::Faint.on(&format!("  undo: kiwispray {undo}"), screen.look().color))
        }
    }
}
