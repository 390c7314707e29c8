//! `kiwispray plugin logs`.

use std::time::Duration;

use clap::Args;

use super::super::Context;
use super::super::client::{Client, with_query};
use super::super::error::{Exit, Result};
use super::super::screen::{Format, Look, Paint, Screen};
use super::super::words::{harmless, shell};
use crate::wire::LogLineView;

/// How often a follower asks for more.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows what a plugin wrote.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The plugin
    name: String,
    /// Go on with what it writes from now on
    #[arg(short, long)]
    follow: bool,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (client, screen) = (context.client()?, &context.screen);
        let path = format!("{}/logs", super::path(&self.name));
        let lines: Vec<LogLineView> = client.get(&path).await?;
        if !self.follow && screen.format == Format::Json {
            return screen.json(&lines);
        }
        if lines.is_empty() {
            let name = harmless(&self.name);
            screen.remark(&format!("The plugin {name} has written nothing since the server started."));
        }
        lines.iter().try_for_each(|line| shown(screen, line))?;
        if self.follow {
            follow(client, screen, &path, lines.last().map(|line| line.number)).await?;
        }
        Ok(())
    }
}

/// Shows what comes after the newest line that was shown, over interruptions, until it fails.
async fn follow(client: Client, screen: &Screen, path: &str, mut newest: Option<u64>) -> Result {
    let mut is_lost = false;
    loop {
        tokio::time::sleep(PAUSE).await;
        let after = newest.map(|number| number.to_string());
        let asked = client.get(&with_query(path, after.as_deref().map(|number| ("after", number)))).await;
        let lines: Vec<LogLineView> = match asked {
            // The server was stopped, or its machine went away: it may come back.
            Err(error) if error.exit == Exit::Unreachable => {
                if !is_lost {
                    screen.remark(&format!("{error}; waiting for it."));
                }
                is_lost = true;
                continue;
            }
            asked => asked?,
        };
        is_lost = false;
        lines.iter().try_for_each(|line| shown(screen, line))?;
        newest = lines.last().map(|line| line.number).or(newest);
    }
}

fn shown(screen: &Screen, line: &LogLineView) -> Result {
    match screen.format {
        Format::Json => screen.json_line(line),
        Format::Text => screen.line(&told(line, screen.look())),
    }
}

/// Time, level and hook under each other, then what is said. Times are UTC, as in timelines.
fn told(line: &LogLineView, look: Look) -> String {
    let paint = match line.level.as_str() {
        "error" => Paint::Bad,
        "warn" => Paint::Busy,
        "debug" => Paint::Faint,
        _ => Paint::Plain,
    };
    let at = Paint::Faint.on(&line.at.strftime("%F %T").to_string(), look.color);
    let (level, hook) = (harmless(&line.level), harmless(line.hook.as_deref().unwrap_or("load")));
    let level = paint.on(&format!("{level:<5}"), look.color);
    let fields = line.fields.iter().map(|(name, value)| format!("  {}", harmless(&format!("{name}={}", shell(value)))));
    let fields = Paint::Faint.on(&fields.collect::<String>(), look.color);
    format!("{at}  {level}  {hook:<10}  {}{fields}", paint.on(&harmless(&line.text), look.color))
}

#[cfg(test)]
mod tests {
    use super::super::super::samples;
    use super::*;

    #[test]
    fn lines_stand_under_each_other_and_cannot_steer_a_terminal() {
        let line = |level: &str, hook: Option<&str>, text: &str| LogLineView {
            number: 1,
            at: samples::time("2026-11-22T10:00:00Z"),
            level: level.to_owned(),
            hook: hook.map(str::to_owned),
            call: "c1".to_owned(),
            text: text.to_owned(),
            fields: vec![("host".to_owned(), "7".to_owned()), ("why".to_owned(), "not granted".to_owned())],
        };
        let plain = Look { color: false, now: samples::time("2026-11-22T10:05:00Z") };
        let lines = [
            line("warn", Some("schedule"), "a host stays new"),
            LogLineView { fields: Vec::new(), ..line("error", None, "no rack\u{1b}[2J\nno row") },
        ];
        insta::assert_snapshot!(lines.map(|line| told(&line, plain)).join("\n"), @r"
        2026-11-22 10:00:00  warn   schedule    a host stays new  host=7  why='not granted'
        2026-11-22 10:00:00  error  load        no rack�[2J�no row
        ");
        let painted = told(&line("error", None, "no rack"), Look { color: true, ..plain });
        assert!(painted.contains("\u{1b}[31mno rack"), "{painted:?}");
    }
}
