//! The chapters that are made of the program itself: `cargo xtask reference` has this test write them, and otherwise it
//! compares.

use std::fmt::Write as _;
use std::fs;

use clap::Command;

use crate::support::book::{Page, root};

const CHAPTER: &str = "docs/src/cli.md";
/// Set by `cargo xtask reference`.
const WRITES: &str = "WRITE_REFERENCE";

const HEAD: &str = "# The command line

<!-- Made by `cargo xtask reference` from the program. -->

Every command says the same with `--help`. HOST is a number, a range such as `1-20`, a hostname, a serial number or a MAC address. Flags of
`serve` can be set by the environment, too: [Configuration](configuration.md#flags-and-the-environment).
";

/// The names that lead to each command that does something, beginning with the program's.
pub(super) fn paths(command: &Command) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    add_paths(command, &[], &mut all);
    all
}

fn add_paths(command: &Command, above: &[String], into: &mut Vec<Vec<String>>) {
    let path = [above, &[command.get_name().to_owned()]].concat();
    let mut below =
        command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set()).peekable();
    if below.peek().is_none() {
        into.push(path);
        return;
    }
    below.for_each(|below| add_paths(below, &path, into));
}

fn chapter() -> String {
    let mut program = kiwispray::cli::command().term_width(100);
    program.build();
    let mut text = HEAD.to_owned();
    let whole = program.render_help().to_string();
    let (_, global) = whole.split_once("\nGlobal options").unwrap();
    for path in paths(&program) {
        let mut command = &mut program;
        for name in &path[1..] {
            command = command.find_subcommand_mut(name).unwrap();
        }
        let help = command.render_help().to_string();
        // They are the same everywhere.
        let own = help.split_once("\nGlobal options").map_or(&*help, |(own, _)| own);
        write!(text, "\n## {}\n\n```text\n{}\n```\n", path.join(" "), trimmed(own)).unwrap();
    }
    write!(
        text,
        "\n## Global options\n\nEvery command takes these.\n\n```text\n{}\n```\n",
        trimmed(global.trim_start_matches(':'))
    )
    .unwrap();
    text
}

/// Without blanks at the ends of lines, and without empty lines around.
fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

#[test]
fn the_manual_has_the_command_line_as_it_is() {
    let path = root().join(CHAPTER);
    let chapter = chapter();
    if std::env::var_os(WRITES).is_some() {
        fs::write(&path, chapter).unwrap();
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = (1..).zip(found.lines().zip(chapter.lines())).find(|(_, (old, new))| old != new);
    assert!(found == chapter, "{CHAPTER} is not what the program says: run `cargo xtask reference`. {differs:?}");
}

#[test]
fn every_environment_variable_is_in_the_chapter_on_configuration() {
    let page = Page::read(&root().join("docs/src/configuration.md"));
    let told: Vec<String> = page.spans().into_iter().map(|(_, span)| span).collect();
    let mut missing = Vec::new();
    let mut commands = vec![kiwispray::cli::command()];
    while let Some(command) = commands.pop() {
        for name in command.get_arguments().filter_map(clap::Arg::get_env) {
            let name = name.to_string_lossy().into_owned();
            if !told.contains(&name) && !missing.contains(&name) {
                missing.push(name);
            }
        }
        commands.extend(command.get_subcommands().cloned());
    }
    assert!(missing.is_empty(), "{} does not tell {}", page.path.display(), missing.join(", "));
}
