//! A newcomer's shell: what the manual shows is typed here.

use std::path::Path;
use std::process::{Command, Stdio};

use super::book::Shown;

/// A shell as a newcomer has it: kiwispray is in the path, and nothing of cargo's or the caller's settings is around.
pub(crate) fn newcomer(script: &str, folder: &Path) -> Command {
    let binaries = Path::new(env!("CARGO_BIN_EXE_kiwispray")).parent().unwrap().to_owned();
    let others = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([binaries].into_iter().chain(std::env::split_paths(&others))).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", script]).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let is_cargos = name.starts_with("CARGO_") && name != "CARGO_HOME";
        if is_cargos || name.starts_with("KIWISPRAY_") || name.contains("RUSTFLAGS") {
            shell.env_remove(name);
        }
    }
    shell.env("PATH", path).env("NO_COLOR", "1");
    shell
}

/// Types a command, and the answer to its question if one is shown. Says whether it succeeded, and what is on the screen.
pub(crate) fn typed(shown: &Shown, folder: &Path) -> (bool, String) {
    // Who is shown an answer to a question sits at a terminal.
    let answer = shown.output.iter().find_map(|line| line.split_once("[y/N] ")).map(|(_, answer)| answer);
    // A command that waits for ever must not keep the others from being typed.
    let patience = "timeout --kill-after=5 300";
    let script = match answer {
        None => format!("exec 2>&1\n{patience} sh -euc {}", quoted(&shown.command)),
        // `script` makes the terminal; what is typed is echoed there, as a reader sees it.
        Some(answer) => {
            let inner = quoted(&format!("sh -euc {}", quoted(&shown.command)));
            format!("(sleep 1; echo {answer}; sleep 1) | {patience} script -qec {inner} /dev/null 2>&1")
        }
    };
    let output = newcomer(&script, folder).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), printed.lines().map(|line| format!("{}\n", left_on_screen(line))).collect())
}

/// A word for `sh`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What stays of a line on a terminal: progress bars are drawn over.
fn left_on_screen(line: &str) -> &str {
    let line = line.trim_end_matches('\r');
    line.rsplit(['\r', '\u{1b}']).next().unwrap_or_default().trim_start_matches("[2K")
}
