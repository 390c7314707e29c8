//! What plugins write to the log, as those who look after them read it.

use super::Hook;

/// A line that a plugin wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Grows with every line of this plugin's name, also from one run of the server to the next.
    pub number: u64,
    /// When its call began, in milliseconds since 1970.
    pub at_ms: u64,
    /// How urgent the plugin finds it.
    pub level: LogLevel,
    /// The hook it was in; none while it was loaded.
    pub hook: Option<Hook>,
    /// Which call: the same for every retry.
    pub call: String,
    /// What it says: text from outside.
    pub text: String,
    /// Names and values: the same.
    pub fields: Vec<(String, String)>,
}

/// How urgent a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "as everywhere")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}
