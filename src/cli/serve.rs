//! `kiwispray serve`

use super::Context;
use super::error::{CliError, Result};
use super::screen::Verbosity;
use crate::config::{ServeArgs, Source, Surroundings};
use crate::{app, telemetry};

/// Runs the server until it is told to stop.
pub(crate) fn run(context: &Context, args: &ServeArgs) -> Result {
    // First: the socket is known by its number only.
    let inherited = app::inherited::listener().map_err(|error| CliError::failed(error.to_string()))?;
    let verbosity = match context.screen.verbosity {
        Verbosity::Quiet => -1,
        Verbosity::Normal => 0,
        Verbosity::Verbose => 1,
    };
    let directives = std::env::var(telemetry::LOG_VARIABLE).ok();
    telemetry::start(verbosity, directives.as_deref()).map_err(|error| CliError::usage(error.to_string()))?;
    let working_dir =
        std::env::current_dir().map_err(|error| CliError::failed(format!("no working directory: {error}")))?;
    let source = Source { args: args.clone(), around: Surroundings::of_system(working_dir) };
    let config = source.load().map_err(|error| CliError::usage(error.to_string()))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| CliError::failed(format!("no runtime: {error}")))?;
    runtime.block_on(app::serve(config, source, inherited)).map_err(|error| CliError::failed(format!("{error:#}")))
}
