//! `kiwispray plugin dead-letters`, `run` and `kv`.

use clap::{Args, Subcommand};

use super::super::Context;
use super::super::client::{segment, with_query};
use super::super::error::{CliError, Result};
use super::super::screen::{Format, Paint};
use super::super::table::event;
use super::super::words::harmless;
use crate::wire::{DroppedView, JobRanView, KeyView, LetterView, ReplayedView, RunJob};

/// Events that a plugin could not be told of.
#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: LettersCommand,
}

#[derive(Debug, Subcommand)]
enum LettersCommand {
    /// List them
    List(Which),
    /// Tell the plugin of them again; those that it takes are gone
    Replay(Which),
    /// Forget them: the plugin will never be told
    Drop {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// All letters of a plugin, those about a host, or one of them.
#[derive(Debug, Args)]
struct Which {
    /// The plugin
    name: String,
    /// Those about the host with this number
    #[arg(long, value_name = "NUMBER")]
    host: Option<u64>,
    /// The one about this event of the host
    #[arg(long, value_name = "NUMBER", requires = "host")]
    event: Option<u64>,
}

/// Runs a job.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The plugin
    name: String,
    /// The job
    job: String,
    /// Change nothing: the plugin says what it would do
    #[arg(long)]
    dry_run: bool,
}

/// Requests in a row that nothing came of, after which the plugin is taken to be out of order.
const MOST_IN_VAIN: u32 = 10;

/// Shows a plugin's own store.
#[derive(Debug, Args)]
pub(crate) struct Kv {
    /// The plugin
    name: String,
    /// Show the value of this key [default: list all keys]
    key: Option<String>,
    /// List the keys that begin like this
    #[arg(long, conflicts_with = "key")]
    prefix: Option<String>,
}

impl Which {
    fn path(&self, action: &str, after: Option<&str>) -> String {
        let numbers = [("host", self.host), ("event", self.event)];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string())));
        let pairs: Vec<(&str, String)> = numbers.chain(after.map(|after| ("after", after.to_owned()))).collect();
        let path = format!("{}/dead-letters{action}", super::path(&self.name));
        with_query(&path, pairs.iter().map(|(name, number)| (*name, number.as_str())))
    }
}

impl DeadLetters {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        match self.command {
            LettersCommand::List(which) => {
                let mut all: Vec<LetterView> = Vec::new();
                loop {
                    let after = all.last().map(|letter| format!("{}-{}", letter.event.host, letter.event.seq));
                    let page: Vec<LetterView> = client.get(&which.path("", after.as_deref())).await?;
                    let is_last = page.is_empty() || which.event.is_some();
                    all.extend(page);
                    if is_last {
                        break;
                    }
                }
                match screen.format {
                    Format::Json => screen.json(&all),
                    Format::Text if all.is_empty() => {
                        screen.remark("There are no dead letters.");
                        Ok(())
                    }
                    Format::Text => all.iter().try_for_each(|letter| {
                        let look = screen.look();
                        let why = format!("    event {}: {}", letter.event.seq, harmless(&letter.error));
                        screen.line(&format!(
                            "{}\n{}",
                            event(&letter.event, true, look),
                            Paint::Bad.on(&why, look.color)
                        ))
                    }),
                }
            }
            LettersCommand::Replay(which) => {
                let mut sum = ReplayedView::default();
                let mut in_vain = 0;
                loop {
                    let path = which.path("/replay", sum.next.as_deref());
                    let one: ReplayedView = client.post(&path, &()).await?;
                    in_vain = if one.told > 0 { 0 } else { in_vain + 1 };
                    sum = ReplayedView {
                        told: sum.told.saturating_add(one.told),
                        failed: sum.failed.saturating_add(one.failed),
                        next: one.next,
                        left: one.left,
                        error: one.error.or(sum.error),
                    };
                    if sum.next.is_none() || in_vain == MOST_IN_VAIN {
                        break;
                    }
                }
                match screen.format {
                    Format::Json => screen.json(&sum)?,
                    Format::Text => screen.line(&format!("{} told, {} failed again", sum.told, sum.failed))?,
                }
                if sum.left > 0 {
                    screen.remark(&format!("The plugin has {} dead letters left.", sum.left));
                }
                if sum.next.is_some() {
                    screen.remark("The plugin takes none of them, so the others were not tried.");
                }
                match &sum.error {
                    Some(error) => Err(CliError::failed(format!("the plugin {} {}", which.name, harmless(error)))),
                    None => Ok(()),
                }
            }
            LettersCommand::Drop { which, yes } => {
                screen.confirm(
                    &format!("The plugin {} will never be told of these events.", harmless(&which.name)),
                    yes,
                )?;
                let dropped: DroppedView = client.delete_for(&which.path("", None)).await?;
                match screen.format {
                    Format::Json => screen.json(&dropped),
                    Format::Text => screen.line(&format!("{} dropped", dropped.dropped)),
                }
            }
        }
    }
}

impl RunArgs {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let path = format!("{}/jobs/{}/run", super::path(&self.name), segment(&self.job));
        let ran: JobRanView = context.client()?.post(&path, &RunJob { dry_run: self.dry_run }).await?;
        let screen = &context.screen;
        match screen.format {
            Format::Json => screen.json(&ran)?,
            Format::Text => {
                ran.notes.iter().try_for_each(|note| screen.line(&harmless(note)))?;
                screen.remark(&format!("{} took {} ms", harmless(&self.job), ran.took_ms));
            }
        }
        match &ran.error {
            Some(error) => Err(CliError::failed(harmless(&format!("the plugin {} {error}", self.name)))),
            None => Ok(()),
        }
    }
}

impl Kv {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let path = format!("{}/kv", super::path(&self.name));
        if let Some(key) = &self.key {
            let found: KeyView = client.get(&format!("{path}/{}", segment(key))).await?;
            return match (screen.format, &found.value) {
                (Format::Json, _) => screen.json(&found),
                (Format::Text, Some(value)) => screen.line(&harmless(value)),
                (Format::Text, None) => Err(CliError::failed(format!("{} bytes that are no text", found.bytes))),
            };
        }
        let mut all: Vec<KeyView> = Vec::new();
        loop {
            let after = all.last().map(|key| ("after", key.key.as_str()));
            let prefix = self.prefix.as_deref().map(|prefix| ("prefix", prefix));
            let page: Vec<KeyView> = client.get(&with_query(&path, prefix.into_iter().chain(after))).await?;
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        match screen.format {
            Format::Json => screen.json(&all),
            Format::Text if all.is_empty() => {
                screen.remark("It stores nothing.");
                Ok(())
            }
            Format::Text => all.iter().try_for_each(|key| {
                screen.line(&format!("{}  {} bytes, version {}", harmless(&key.key), key.bytes, key.version))
            }),
        }
    }
}
