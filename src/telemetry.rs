//! Log lines on standard error.
//!
//! The invariant: one event is one line. Values come from firmware and from the network, so control characters in them are
//! written as escapes and can neither forge a line nor steer a terminal; and other crates' debug output, which would show
//! bootids, stays off whatever level is asked for.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::util::SubscriberInitExt;

/// Environment variable with filter directives, as `debug` or `kiwispray::store=trace`; wins over `-v` and `-q`.
pub const LOG_VARIABLE: &str = "KIWISPRAY_LOG";

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives make no sense.
    #[error(
        "KIWISPRAY_LOG={given:?} is no log filter: write a level (error, warn, info, debug, trace) or module=level"
    )]
    BadFilter {
        /// As given.
        given: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Called twice.
    #[error("logging was set up before")]
    AlreadyStarted(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the whole process.
///
/// `verbosity` counts `-v` less `-q`: 0 shows what happens to machines, 1 adds debug, 2 trace; -1 warnings, -2 errors.
/// `directives` is the value of [`LOG_VARIABLE`].
///
/// # Errors
/// The directives cannot be read, or logging runs already.
pub fn start(verbosity: i8, directives: Option<&str>) -> Result<(), TelemetryError> {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    subscriber(filter(verbosity, directives)?, std::io::stderr, colours)
        .try_init()
        .map_err(TelemetryError::AlreadyStarted)
}

fn filter(verbosity: i8, directives: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let written = match directives.filter(|text| !text.trim().is_empty()) {
        Some(text) => text,
        None => match verbosity {
            i8::MIN..=-2 => "error",
            -1 => "warn",
            0 => "warn,kiwispray=info",
            1 => "info,kiwispray=debug",
            2.. => "debug,kiwispray=trace",
        },
    };
    // Handlebars logs every value that it renders, and among them are bootids.
    EnvFilter::builder()
        .parse(format!("{written},handlebars=warn"))
        .map_err(|source| TelemetryError::BadFilter { given: written.to_owned(), source })
}

fn subscriber<W>(filter: EnvFilter, writer: W, colours: bool) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let fields = debug_fn(|writer: &mut Writer<'_>, field, value: &dyn std::fmt::Debug| {
        let text = escaped(&format!("{value:?}"));
        if field.name() == "message" { write!(writer, "{text}") } else { write!(writer, "{field}={text}") }
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .with_target(false)
        .fmt_fields(fields.delimited(" "))
        .finish()
}

/// Control characters, and those that reorder text on a terminal, as escapes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_unicode())
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What a subscriber with this filter writes while `work` runs.
    fn logged(filter: EnvFilter, work: impl FnOnce()) -> String {
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let writer = {
            let written = written.clone();
            move || Shared(written.clone())
        };
        tracing::subscriber::with_default(subscriber(filter, writer, false), work);
        String::from_utf8(written.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn hostile_values_stay_on_one_line_and_cannot_steer_a_terminal() {
        let log = logged(filter(0, None).unwrap(), || {
            let serial = "x\nERROR forged\u{1b}[2J\u{202e}";
            tracing::info!(%serial, name = serial, "host\nasked");
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains(r"host\nasked serial=x\nERROR forged\u{1b}[2J\u{202e}"), "{log}");
        assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}'), "{log}");
    }

    #[test]
    fn flags_choose_the_level_and_the_variable_wins() {
        let shows = |verbosity, directives| {
            let log = logged(filter(verbosity, directives).unwrap(), || {
                tracing::error!("E");
                tracing::warn!("W");
                tracing::info!("I");
                tracing::debug!("D");
            });
            log.lines().filter_map(|line| line.chars().last()).collect::<String>()
        };
        assert_eq!(shows(-2, None), "E");
        assert_eq!(shows(-1, None), "EW");
        assert_eq!(shows(0, Some("")), "EWI");
        assert_eq!(shows(1, None), "EWID");
        assert_eq!(shows(1, Some("error")), "E");
        assert!(filter(0, Some("kiwispray=loud")).is_err());
    }

    #[test]
    fn template_values_are_never_logged() {
        let log = logged(filter(0, Some("trace")).unwrap(), || {
            tracing::debug!(target: "handlebars::render", "secret");
            tracing::debug!("shown");
        });
        assert!(log.contains("shown") && !log.contains("secret"), "{log}");
    }
}
