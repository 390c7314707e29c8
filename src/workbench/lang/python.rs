//! Python, by componentize-py: CPython with the plugin's modules imported into it.
use std::path::Path;
use std::process::Command;

use super::{LangError, Make, Manifest, SAID_MAX_LINES, Tool, WORK, WORLD, absolute, program};

pub(super) const MAKE: Make = Make {
    tool: Tool {
        package: "componentize-py",
        version: VERSION,
        install,
        remedy: "Python plugins are built with Python 3.10 or later, its venv and pip (on Debian: python3-venv)",
    },
    command,
    said,
};

/// From PyPI. The SDK is tested with this one.
const VERSION: &str = "0.25.1";

fn install(folder: &Path) -> Vec<Command> {
    let mut venv = program("python3", folder);
    venv.args(["-m", "venv", "venv"]);
    let mut pip = program(folder.join("venv/bin/python"), folder);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.arg(format!("componentize-py=={VERSION}"));
    vec![venv, pip]
}

fn command(tool: &Path, folder: &Path, _: &Manifest, out: &Path) -> Result<Command, LangError> {
    let mut python = program(absolute(tool)?.join("venv/bin/componentize-py"), folder);
    python
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["--wit-path", &format!("{WORK}/wit"), "--world", WORLD, "componentize", "kiwispray.entry"])
        // Without WASI: the core offers nothing but the contract.
        .args(["--stub-wasi", "--python-path", ".", "--output"])
        .arg(absolute(out)?);
    Ok(python)
}

/// Python's traceback, without the tool's own, and of the SDK's complaints only the sentence.
fn said(text: &str) -> String {
    let text = text.split("Stack backtrace:").next().unwrap_or(text);
    let text = text.split("\nCaused by:").next().unwrap_or(text);
    let text = text.split_once("AssertionError: ").map_or(text, |(_, inner)| inner).trim();
    if let Some((_, sentence)) = text.rsplit_once("kiwispray.hooks.NotWritten: ") {
        return sentence.to_owned();
    }
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("File \"<frozen")).collect();
    let from = lines.len().saturating_sub(SAID_MAX_LINES);
    // The plugin's folder has this name inside of the tool.
    lines.get(from..).unwrap_or_default().join("\n").replace("\"/0/", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: &str =
        "Traceback (most recent call last):\n  File \"/venv/bin/componentize-py\", line 8\nAssertionError: ";

    #[test]
    fn of_what_the_tool_says_pythons_traceback_is_left() {
        let text = format!(
            "{AROUND}Traceback (most recent call last):\n  File \"/0/plugin.py\", line 7, in <module>\nNameError: x\n\n\n\
             Caused by:\n    NameError: x\n\nStack backtrace:\n   0: anyhow\n"
        );
        assert_eq!(
            said(&text),
            "Traceback (most recent call last):\n  File \"plugin.py\", line 7, in <module>\nNameError: x"
        );
    }

    #[test]
    fn a_complaint_of_the_sdk_is_one_sentence() {
        let text = format!(
            "{AROUND}Traceback:\n  File \"/0/kiwispray/hooks.py\"\nkiwispray.hooks.NotWritten: no `boot`\n\nCaused by:"
        );
        assert_eq!(said(&text), "no `boot`");
    }
}
