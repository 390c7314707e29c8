//! `kiwispray host watch`: a line per event, and below them, on a terminal, a bar per running installation.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::super::Context;
use super::super::client::{Client, Selection};
use super::super::error::{CliError, Exit, Result};
use super::super::screen::{Format, Screen};
use super::super::stream::{News, follow, unreadable};
use super::super::table::{event, hosts};
use super::super::words::{harmless, label};
use super::events::show;
use crate::wire::HostView;

/// How often progress is asked for: often enough to look alive, seldom enough to cost nothing.
const TICK: Duration = Duration::from_secs(1);

/// Follows hosts.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Only these
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// Only those of which this is true, such as metadata.site=fra1
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
}

impl Watch {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let selection = Selection { hosts: self.hosts, conditions: self.conditions };
        if screen.format == Format::Json || !Screen::is_terminal() {
            return follow(
                &client,
                screen,
                &selection,
                async || Ok(()),
                |news| match news {
                    News::Event(event) => show(screen, &event, true),
                    News::Unreadable(lost) => {
                        screen.remark(&unreadable(&lost));
                        Ok(())
                    }
                    News::Gap => Ok(()),
                },
            )
            .await;
        }
        let bars = Bars::default();
        let table = async || {
            let known = client.hosts(&selection).await?;
            bars.all.println(hosts(&known, screen.look()))?;
            screen.remark("Following; Ctrl-C ends.");
            Ok(())
        };
        let events = follow(&client, screen, &selection, table, |news| bars.take(screen, &news));
        tokio::select! {
            ended = events => ended,
            ended = draw(&client, &bars, &selection) => ended,
        }
    }
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
}

impl Bars {
    fn take(&self, screen: &Screen, news: &News) -> Result {
        let line = match news {
            News::Event(view) => event(view, true, screen.look()),
            News::Unreadable(lost) => unreadable(lost),
            News::Gap => "(some events were missed)".to_owned(),
        };
        Ok(self.all.println(line)?)
    }
}

/// Keeps the bars true.
async fn draw(client: &Client, bars: &Bars, selection: &Selection) -> Result {
    let mut running = selection.clone();
    running.conditions.push("running=yes".to_owned());
    let mut shown: BTreeMap<u64, ProgressBar> = BTreeMap::new();
    loop {
        let installing = match client.hosts(&running).await {
            Ok(installing) => installing,
            // The stream says that the server is gone, and waits for it.
            Err(CliError { exit: Exit::Unreachable, .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        shown.retain(|id, bar| {
            let runs = installing.iter().any(|host| host.id == *id);
            if !runs {
                bar.finish_and_clear();
                bars.all.remove(bar);
            }
            runs
        });
        for host in &installing {
            let bar = shown.entry(host.id).or_insert_with(|| bars.all.add(bar_of(host)));
            if let Some(progress) = &host.progress {
                bar.set_length(progress.total);
                bar.set_position(progress.bytes);
                bar.set_message(harmless(&progress.file));
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

fn bar_of(host: &HostView) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(harmless(&label(host)));
    match ProgressStyle::with_template(
        "{prefix:24!} {bar:30} {percent:>3} % {decimal_bytes:>9} {decimal_bytes_per_sec:>11} {msg}",
    ) {
        Ok(style) => bar.with_style(style),
        // The template is a constant; a plain bar is no reason to stop.
        Err(_) => bar,
    }
}
