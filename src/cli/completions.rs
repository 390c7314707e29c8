//! `kiwispray completions`.

use clap::Args;
use clap_complete::Shell;

use super::Context;
use super::error::Result;

/// Prints a completion script.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, context: &Context, command: &mut clap::Command) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "kiwispray", &mut script);
        context.screen.line(String::from_utf8_lossy(&script).trim_end())
    }
}
