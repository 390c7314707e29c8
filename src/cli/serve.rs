//! `kiwispray serve`

use std::time::Duration;

use super::Context;
use super::error::{CliError, Result};
use super::screen::Verbosity;
use crate::config::{ServeArgs, Source, Surroundings};
use crate::{app, telemetry};

/// How long work that cannot be interrupted may go on when all is over: a thread may wait for a disk that hangs.
const LAST_WORK: Duration = Duration::from_secs(2);

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
    let served = runtime.block_on(app::serve(config, source, inherited));
    runtime.shutdown_timeout(LAST_WORK);
    served.map_err(|error| CliError::failed(format!("{error:#}")))
}
