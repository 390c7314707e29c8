//! What the command line writes and asks: results on standard output, remarks and questions on standard error.

use std::io::{self, BufRead, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use super::error::{CliError, Result};

/// Whether to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What results look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables and sentences.
    Text,
    /// The wire types as JSON.
    Json,
}

/// How much is said beside the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Results only.
    Quiet,
    /// Results and what helps.
    Normal,
    /// Also which server is talked to, and the like.
    Verbose,
}

/// What a colour means. Everything is also said in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Waits for a person.
    Bad,
    /// Of less interest.
    Faint,
    /// Nothing in particular.
    Plain,
}

/// Whether text is painted at all, and the time by which ages are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Whether colours are written.
    pub(crate) color: bool,
    /// Now.
    pub(crate) now: Timestamp,
}

/// Standard output and error, as the flags want them.
#[derive(Debug)]
pub(crate) struct Screen {
    /// What results look like.
    pub(crate) format: Format,
    /// How much is said beside them.
    pub(crate) verbosity: Verbosity,
    out_color: bool,
    err_color: bool,
}

impl Paint {
    /// The colour's number in the terminal's own palette.
    pub(crate) const fn color(self) -> Option<AnsiColor> {
        match self {
            Self::Good => Some(AnsiColor::Green),
            Self::Busy => Some(AnsiColor::Yellow),
            Self::Bad => Some(AnsiColor::Red),
            Self::Faint => Some(AnsiColor::BrightBlack),
            Self::Plain => None,
        }
    }

    /// The text in this colour.
    pub(crate) fn on(self, text: &str, color: bool) -> String {
        match self.color().filter(|_| color) {
            Some(ansi) => {
                let style = Style::new().fg_color(Some(ansi.into()));
                format!("{style}{text}{style:#}")
            }
            None => text.to_owned(),
        }
    }
}

impl Screen {
    pub(crate) fn new(color: Color, format: Format, verbosity: Verbosity) -> Self {
        let choice = match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::AlwaysAnsi,
            Color::Never => ColorChoice::Never,
        };
        choice.write_global();
        let is_on = |detected: ColorChoice| detected != ColorChoice::Never;
        Self {
            format,
            verbosity,
            out_color: is_on(AutoStream::choice(&io::stdout())),
            err_color: is_on(AutoStream::choice(&io::stderr())),
        }
    }

    /// How results are painted now.
    pub(crate) fn look(&self) -> Look {
        Look { color: self.out_color, now: now() }
    }

    /// Whether a person sits there and can be asked.
    pub(crate) fn can_ask() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Writes a line, or several, to standard output.
    pub(crate) fn line(&self, text: &str) -> Result {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()?;
        Ok(())
    }

    /// Writes a document to standard output.
    pub(crate) fn json(&self, document: &impl Serialize) -> Result {
        let text = serde_json::to_string_pretty(document).map_err(|error| CliError::failed(error.to_string()))?;
        self.line(&text)
    }

    /// Writes a document on one line, for streams.
    pub(crate) fn json_line(&self, document: &impl Serialize) -> Result {
        let text = serde_json::to_string(document).map_err(|error| CliError::failed(error.to_string()))?;
        self.line(&text)
    }

    /// Says something that helps, unless `--quiet`.
    pub(crate) fn remark(&self, text: &str) {
        if self.verbosity >= Verbosity::Normal {
            // Nobody can be told that standard error is gone.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Says something for those who want to know more.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.remark(text);
        }
    }

    /// Says what went wrong.
    pub(crate) fn error(&self, error: &CliError) {
        let label = Paint::Bad.on("error:", self.err_color);
        let _ = writeln!(io::stderr(), "{label} {error}");
    }

    /// Says what is at stake and asks whether to go on. Without a person to ask, `--yes` is demanded.
    pub(crate) fn confirm(&self, stake: &str, yes: bool) -> Result {
        if yes {
            return Ok(());
        }
        if !Self::can_ask() {
            return Err(CliError::usage(format!(
                "{stake}\nThere is no terminal to ask on: say --yes if this is meant."
            )));
        }
        let mut err = io::stderr().lock();
        write!(err, "{stake}\n{} [y/N] ", Paint::Busy.on("Go on?", self.err_color))?;
        err.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(CliError::failed("nothing was changed")),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "ages are told by the clock of whoever reads them")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_a_confirmation_demands_yes() {
        let screen = Screen { format: Format::Text, verbosity: Verbosity::Normal, out_color: false, err_color: false };
        assert_eq!(screen.confirm("This erases /dev/sda.", true), Ok(()));
        if !Screen::can_ask() {
            let error = screen.confirm("This erases /dev/sda.", false).unwrap_err();
            assert_eq!(error.exit.code(), 2);
            insta::assert_snapshot!(error, @r"
            This erases /dev/sda.
            There is no terminal to ask on: say --yes if this is meant.
            ");
        }
    }

    #[test]
    fn colours_are_written_only_when_wanted() {
        assert_eq!(Paint::Bad.on("hold", false), "hold");
        assert_eq!(Paint::Bad.on("hold", true), "\u{1b}[31mhold\u{1b}[0m");
        assert_eq!(Paint::Plain.on("x", true), "x");
    }
}
