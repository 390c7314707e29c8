//! The command line: a client of the admin plane, and the way to start the server.
//!
//! Invariant: no command touches the store or the domain; what it knows came over HTTP, as wire types, or from `maintenance` where
//! there is no server to ask. Results go to
//! standard output, everything else to standard error, and the exit code says how it ended.

mod act;
mod backup;
mod client;
mod columns;
mod completions;
mod config;
mod deploy;
mod dnsmasq;
mod doctor;
mod error;
mod freeze;
mod hook;
mod host;
mod image;
mod image_import;
mod image_verify;
mod migrate;
mod plugin;
#[cfg(test)]
mod samples;
mod screen;
mod serve;
mod server;
mod sheet;
mod stream;
mod table;
mod template;
mod undo;
mod words;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::ServeArgs;
use client::Client;
use error::{CliError, Result};
use screen::{Color, Format, Screen, Verbosity};
use server::Server;

/// Bare-metal deployment server: boots machines over the network, installs images, remembers.
#[derive(Debug, Parser)]
#[command(name = "kiwispray", version, max_term_width = 100, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict, 5 server not reachable.";

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The server: unix:PATH or http://ADDRESS:PORT [default: ./data/admin.sock, /var/lib/kiwispray/admin.sock]
    #[arg(long, global = true, env = "KIWISPRAY_SERVER", hide_env = true, value_name = "ADDRESS")]
    server: Option<Server>,
    /// Print JSON, whose fields are stable
    #[arg(long, global = true, env = "KIWISPRAY_JSON", hide_env = true)]
    json: bool,
    /// Use colours
    #[arg(long, global = true, env = "KIWISPRAY_COLOR", hide_env = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
    /// Print results only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Box<ServeArgs>),
    /// Order an image for hosts: what is on their disks will be lost
    Deploy(deploy::Deploy),
    /// Boot no image that writes a disk, until it is thawed
    Freeze(freeze::Freeze),
    /// Take a freeze back
    Thaw(freeze::Thaw),
    /// Show and change hosts
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Show, import, verify and remove images
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Make, test, install and operate plugins
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Save everything the server remembers in a file
    Backup(backup::Backup),
    /// Make the store of a stopped server out of a backup
    Restore(backup::Restore),
    /// Let hosts boot again that hold because a backup was restored
    Release(backup::Release),
    /// Check that a store fits together
    Fsck(backup::Fsck),
    /// Show, explain and check templates
    #[command(subcommand)]
    Template(template::TemplateCommand),
    /// Check the configuration, or let the server read it again
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Find out what goes wrong, and what to do about it
    Doctor(Box<doctor::Doctor>),
    /// Print what dnsmasq needs to know
    #[command(subcommand)]
    Dnsmasq(dnsmasq::DnsmasqCommand),
    /// Take over an installation of the original KIWIspray
    Migrate(migrate::Migrate),
    /// Print a shell's completion script
    Completions(completions::Completions),
}

/// What every command needs.
#[derive(Debug)]
struct Context {
    screen: Screen,
    server: Option<Server>,
}

impl Context {
    /// A client of the server that is named, or found.
    fn client(&self) -> Result<Client> {
        let client = Client::new(server::find(self.server.as_ref())?)?;
        self.screen.detail(&format!("server: {}", client.server()));
        Ok(client)
    }
}

/// Parses the command line, does what it says, and says how that ended.
pub fn main() -> ExitCode {
    // clap answers --help and --version, and complains with exit code 2, by itself.
    let Cli { global, command } = Cli::parse();
    let format = if global.json { Format::Json } else { Format::Text };
    let verbosity = match (global.quiet, global.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, false) => Verbosity::Normal,
        (false, true) => Verbosity::Verbose,
    };
    let context = Context { screen: Screen::new(global.color, format, verbosity), server: global.server };
    match run(&context, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.exit != error::Exit::ReaderGone {
                context.screen.error(&error);
            }
            ExitCode::from(error.exit.code())
        }
    }
}

fn run(context: &Context, command: Command) -> Result {
    match command {
        Command::Serve(args) => serve::run(context, &args),
        Command::Deploy(deploy) => wait_for(deploy.run(context)),
        Command::Freeze(freeze) => wait_for(freeze.run(context)),
        Command::Thaw(thaw) => wait_for(thaw.run(context)),
        Command::Host(command) => wait_for(command.run(context)),
        Command::Image(command) => wait_for(command.run(context)),
        Command::Plugin(command) => wait_for(command.run(context)),
        Command::Backup(backup) => wait_for(backup.run(context)),
        Command::Restore(restore) => wait_for(restore.run(context)),
        Command::Release(release) => wait_for(release.run(context)),
        Command::Fsck(fsck) => wait_for(fsck.run(context)),
        Command::Template(command) => command.run(context),
        Command::Config(command) => wait_for(command.run(context)),
        Command::Doctor(doctor) => wait_for(doctor.run(context)),
        Command::Dnsmasq(command) => command.run(context),
        Command::Migrate(migrate) => wait_for(migrate.run(context)),
        Command::Completions(completions) => completions.run(context, &mut Cli::command()),
    }
}

/// The whole command line as data: what the manual's reference is made of, and what its commands are held against.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs a client's work, for which one thread is plenty.
fn wait_for(work: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CliError::failed(format!("no runtime: {error}")))?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help_of(path: &[&str]) -> String {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut found = &mut command;
        for name in path {
            found = found.find_subcommand_mut(name).unwrap();
        }
        let help = found.render_help().to_string();
        // They are the same everywhere.
        match help.split_once("\nGlobal options") {
            Some((own, _)) if !path.is_empty() => own.to_owned(),
            Some(_) | None => help,
        }
    }

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_is_reviewed() {
        let paths: &[&[&str]] = &[
            &[],
            &["deploy"],
            &["freeze"],
            &["thaw"],
            &["host"],
            &["host", "list"],
            &["host", "show"],
            &["host", "add"],
            &["host", "set"],
            &["host", "finish"],
            &["host", "retry"],
            &["host", "lock"],
            &["host", "unlock"],
            &["host", "forget"],
            &["host", "identity"],
            &["host", "adopt"],
            &["host", "conflicts"],
            &["host", "import"],
            &["host", "export"],
            &["host", "plan"],
            &["host", "explain"],
            &["host", "events"],
            &["host", "watch"],
            &["image"],
            &["image", "import"],
            &["image", "list"],
            &["image", "show"],
            &["image", "verify"],
            &["image", "remove"],
            &["image", "hook"],
            &["plugin"],
            &["plugin", "new"],
            &["plugin", "build"],
            &["plugin", "check"],
            &["plugin", "test"],
            &["plugin", "record"],
            &["plugin", "replay"],
            &["plugin", "list"],
            &["plugin", "show"],
            &["plugin", "logs"],
            &["plugin", "install"],
            &["plugin", "remove"],
            &["plugin", "reload"],
            &["plugin", "rollback"],
            &["plugin", "disable"],
            &["plugin", "enable"],
            &["plugin", "approve"],
            &["plugin", "dead-letters"],
            &["plugin", "dead-letters", "replay"],
            &["plugin", "run"],
            &["plugin", "kv"],
            &["backup"],
            &["restore"],
            &["release"],
            &["fsck"],
            &["template"],
            &["template", "list"],
            &["template", "check"],
            &["config"],
            &["config", "check"],
            &["doctor"],
            &["dnsmasq", "config"],
            &["migrate"],
        ];
        let helps: Vec<String> =
            paths.iter().map(|path| format!("$ kiwispray {} --help\n{}", path.join(" "), help_of(path))).collect();
        insta::assert_snapshot!(helps.join("\n"));
    }

    #[test]
    fn typing_errors_are_answered_with_a_suggestion() {
        let complaint = |line: &[&str]| Cli::try_parse_from(line).unwrap_err().to_string();
        assert!(complaint(&["kiwispray", "dploy"]).contains("'deploy'"));
        assert!(complaint(&["kiwispray", "host", "lst"]).contains("'list'"));
        assert!(complaint(&["kiwispray", "host", "set", "3", "--stat", "x"]).contains("'--state'"));
    }

    #[test]
    fn hosts_must_be_named_before_anything_is_done_to_them() {
        for line in [&["kiwispray", "deploy", "image1"][..], &["kiwispray", "host", "retry"]] {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
        assert!(Cli::try_parse_from(["kiwispray", "host", "retry", "--where", "state=image1"]).is_ok());
    }
}
