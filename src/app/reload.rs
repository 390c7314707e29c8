//! Reads the configuration again while the server runs, at SIGHUP or by command.
//!
//! Invariant: a configuration that is wrong changes nothing. What cannot change while the server runs stays as it is and is
//! reported, at every reload until the restart.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Source};
use crate::service::{Reload, Reloader, Reread, Roster, RosterError, Service, SettingChange};

/// The configuration of a running server, and who is told when it changes.
pub(super) struct LiveConfig {
    source: Source,
    service: Arc<Service>,
    roster: Arc<dyn Roster>,
    running: Mutex<Config>,
}

impl LiveConfig {
    pub(super) fn new(source: Source, running: Config, service: Arc<Service>, roster: Arc<dyn Roster>) -> Self {
        Self { source, service, roster, running: Mutex::new(running) }
    }

    async fn reread(&self) -> Result<Reread, RosterError> {
        let mut running = self.running.lock().await;
        let source = self.source.clone();
        let written = tokio::task::spawn_blocking(move || source.load()).await.map_err(|_| RosterError::Interrupted)?;
        let written = written.map_err(|error| RosterError::Config(error.to_string()))?;
        // First, as it may still refuse: settings cannot.
        let plugins = self.roster.reload(None).await?;
        let settings = running
            .changes_to(&written)
            .into_iter()
            .map(|change| SettingChange { key: change.key, from: change.from, to: change.to, holds: change.live })
            .collect();
        *running = running.clone().taking_over(&written);
        self.service.replace_settings(super::settings(&running));
        Ok(Reread { settings, plugins })
    }

    /// Reads everything again at every SIGHUP.
    pub(super) async fn listen(self: Arc<Self>, mut hangups: Signal, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangups.recv() => {}
            }
            match self.reread().await {
                Ok(found) => log(&found),
                Err(error) => tracing::error!(%error, "nothing was reloaded"),
            }
        }
    }
}

impl Reloader for LiveConfig {
    fn reload(&self) -> BoxFuture<'_, Result<Reread, RosterError>> {
        async move {
            let found = self.reread().await?;
            log(&found);
            Ok(found)
        }
        .boxed()
    }
}

fn log(found: &Reread) {
    for SettingChange { key, from, to, holds } in &found.settings {
        if *holds {
            tracing::info!(key, from, to, "a setting changed");
        } else {
            tracing::warn!(key, from, to, "a setting changes with the next start of the server");
        }
    }
    let changed = found.plugins.iter().filter(|plugin| plugin.change != Reload::Unchanged).count();
    tracing::info!(plugins = found.plugins.len(), changed, "configuration and plugins reloaded");
}
