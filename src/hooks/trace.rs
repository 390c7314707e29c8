//! What every plugin of a chain said: stored with the boot, shown by `kiwispray host explain`.
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BootPlan, BootVerdict, DiscoveryVerdict, ErrorClass, Hook, HookError, TransitionVerdict};

/// A text of a plugin in a trace, in characters; what is longer is cut.
pub(super) const TEXT_MAX_CHARS: usize = 300;
/// Notes of one call in a trace.
pub(super) const NOTES_MAX: usize = 20;

/// One chain, in the order asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// One for every plugin that was, or would have been, asked.
    pub steps: Vec<TraceStep>,
}

/// One plugin's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The instance's name.
    pub plugin: String,
    /// What it was asked.
    pub hook: Hook,
    /// What it said.
    pub result: TraceResult,
    /// Why, in its words; may be empty.
    pub reason: String,
    /// Whether its patch was applied for those asked after it. A failure later in the chain keeps it from being committed.
    pub patched: bool,
    /// What it noted on the way.
    pub notes: Vec<String>,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// What a plugin said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "said")]
pub enum TraceResult {
    /// No opinion.
    Pass,
    /// Boot an image.
    Image {
        /// Its name.
        name: String,
    },
    /// Boot a template.
    Template {
        /// Its name.
        name: String,
    },
    /// Boot the local disk.
    LocalDisk,
    /// Wait.
    Hold {
        /// The console's text.
        text: String,
    },
    /// Take the machine in.
    Admit,
    /// Do not.
    Refuse {
        /// The console's text.
        text: String,
    },
    /// Variables for a document.
    Variables {
        /// How many.
        count: usize,
    },
    /// The queue may change.
    Allow,
    /// The queue becomes another one.
    Redirect {
        /// Which.
        to: String,
    },
    /// The queue may not change.
    Deny {
        /// Why.
        text: String,
    },
    /// Nothing usable.
    Error {
        /// The kind.
        class: ErrorClass,
        /// One sentence, continuing the plugin's name.
        message: String,
    },
}

impl From<&BootVerdict> for TraceResult {
    fn from(verdict: &BootVerdict) -> Self {
        match verdict {
            BootVerdict::Pass => Self::Pass,
            BootVerdict::Boot(BootPlan::Image(boot)) => Self::Image { name: short(&boot.image) },
            BootVerdict::Boot(BootPlan::Template(boot)) => Self::Template { name: short(&boot.template) },
            BootVerdict::Boot(BootPlan::LocalDisk) => Self::LocalDisk,
            BootVerdict::Hold(hold) => Self::Hold { text: short(&hold.text) },
        }
    }
}

impl From<&DiscoveryVerdict> for TraceResult {
    fn from(verdict: &DiscoveryVerdict) -> Self {
        match verdict {
            DiscoveryVerdict::Admit(_) => Self::Admit,
            DiscoveryVerdict::Refuse(text) => Self::Refuse { text: short(text) },
        }
    }
}

impl From<&TransitionVerdict> for TraceResult {
    fn from(verdict: &TransitionVerdict) -> Self {
        match verdict {
            TransitionVerdict::Allow => Self::Allow,
            TransitionVerdict::Redirect(to) => Self::Redirect { to: short(&to.join(",")) },
            TransitionVerdict::Deny(text) => Self::Deny { text: short(text) },
        }
    }
}

impl From<&HookError> for TraceResult {
    fn from(error: &HookError) -> Self {
        Self::Error { class: error.class(), message: short(&error.to_string()) }
    }
}

/// Cuts a text to what a trace keeps. Control characters become spaces: a trace is read on terminals.
pub(super) fn short(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut cut: String = text.chars().map(clean).take(TEXT_MAX_CHARS).collect();
    if text.chars().nth(TEXT_MAX_CHARS).is_some() {
        cut.push('…');
    }
    cut
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
            for note in &step.notes {
                writeln!(f, "  note: {note}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for TraceStep {
    /// `default: boot image web, as its state names this image (0.4 ms)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.plugin, self.result)?;
        if !self.reason.is_empty() {
            write!(f, ", as {}", self.reason)?;
        }
        if self.patched {
            f.write_str(", with a change to the host")?;
        }
        write!(f, " ({}.{} ms)", self.took_us / 1000, self.took_us % 1000 / 100)
    }
}

impl fmt::Display for TraceResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Image { name } => write!(f, "boot image {name}"),
            Self::Template { name } => write!(f, "boot template {name}"),
            Self::LocalDisk => f.write_str("boot the local disk"),
            Self::Hold { text } => write!(f, "hold “{text}”"),
            Self::Admit => f.write_str("admit"),
            Self::Refuse { text } => write!(f, "refuse “{text}”"),
            Self::Variables { count } => write!(f, "{count} variables"),
            Self::Allow => f.write_str("allow"),
            Self::Redirect { to } => write!(f, "redirect to {to}"),
            Self::Deny { text } => write!(f, "deny “{text}”"),
            Self::Error { class, message } => write!(f, "{message} [{class}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        let step = |plugin: &str, result, reason: &str, notes: &[&str], took_us| TraceStep {
            plugin: plugin.into(),
            hook: Hook::Boot,
            result,
            reason: reason.into(),
            patched: false,
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
            took_us,
        };
        let timeout = HookError::Timeout { budget: std::time::Duration::from_millis(200) };
        Trace {
            steps: vec![
                step("racks", TraceResult::from(&timeout), "", &["asked the catalogue"], 203_456),
                step("default", TraceResult::Image { name: "web".into() }, "its state names this image", &[], 412),
            ],
        }
    }

    #[test]
    fn a_trace_reads_as_sentences() {
        assert_eq!(
            trace().to_string(),
            "racks: gave no answer within 200 ms [timeout] (203.4 ms)\n  note: asked the catalogue\n\
             default: boot image web, as its state names this image (0.4 ms)\n"
        );
    }

    #[test]
    fn a_trace_survives_storage() {
        let text = serde_json::to_string(&trace()).unwrap();
        assert_eq!(serde_json::from_str::<Trace>(&text).unwrap(), trace());
    }

    #[test]
    fn texts_are_cut_and_cannot_steer_a_terminal() {
        assert_eq!(short("a\u{1b}[2Jb\n"), "a [2Jb ");
        assert_eq!(short(&"x".repeat(1000)).chars().count(), TEXT_MAX_CHARS + 1);
    }
}
