//! Runs the benchmarks (`examples/bench`, `examples/plugin_bench`, `examples/import_bench`, and those of the command line) in
//! release mode, with their files beside what cargo builds.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, ensure};

/// Measure, as ratios within one run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// How fast machines are answered, against what the store alone can do.
    Boots(Arguments),
    /// What plugins cost, against bare wasmtime.
    Plugins(Arguments),
    /// How fast an image is imported, against `xz -dc FILE | sha256sum`.
    Import(Arguments),
    /// How long `host import` and `host list` of a fleet take, from the command line to the server and back.
    List(crate::bench_list::Arguments),
    /// How long `migrate` takes for the hosts of an original KIWIspray.
    Migrate(crate::bench_migrate::Arguments),
    /// How long machines wait for answers during a `backup`, against without one.
    Backup(crate::bench_backup::Arguments),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Arguments of the benchmark itself, as `--rounds 3`; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    let (example, arguments) = match command {
        Command::Boots(arguments) => ("bench", arguments),
        Command::Plugins(arguments) => ("plugin_bench", arguments),
        Command::Import(arguments) => ("import_bench", arguments),
        Command::List(arguments) => return crate::bench_list::run(&server(None)?, arguments),
        Command::Migrate(arguments) => {
            return crate::bench_migrate::run(&server(arguments.program.as_deref())?, arguments);
        }
        Command::Backup(arguments) => {
            return crate::bench_backup::run(&server(arguments.program.as_deref())?, arguments);
        }
    };
    let program = build(&["--example", example])?;
    // Beside the program, which is on a disk; the folder for temporary files often is not.
    let folder = program.with_file_name(format!("{example}-data"));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // The server writes its log as it always does, but to a file.
    let log = program.with_file_name(format!("{example}.log"));
    let log_file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut bench = Process::new(&program);
    bench.arg(&folder).args(&arguments.arguments).stderr(Stdio::from(log_file));
    let status = bench.status().context("cannot run the benchmark")?;
    ensure!(status.success(), "the benchmark failed, or fell short of a target; its log is {}", log.display());
    Ok(())
}

/// The kiwispray that is measured: the one that was named, else one that is built.
fn server(named: Option<&Path>) -> Result<PathBuf> {
    match named {
        Some(program) => program.canonicalize().with_context(|| format!("cannot find {}", program.display())),
        None => build(&["--bin", "kiwispray"]),
    }
}

/// Builds what is measured and returns where it is.
fn build(what: &[&str]) -> Result<PathBuf> {
    let mut cargo = Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--package", "kiwispray"]).args(what);
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the benchmark does not build");
    let messages = String::from_utf8(output.stdout).context("cargo's messages are no text")?;
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    messages.lines().rev().find_map(executable).context("cargo built no benchmark")
}
