//! The use cases: load, ask hooks, decide, commit, answer.
//!
//! Nothing is acknowledged before the store said that it is durable, and every decision that changes a host is
//! committed against the very version of the host that it was made for; if that has moved on, the decision is made anew.

mod admission;
mod backup;
mod boot;
mod catalog;
mod clock;
mod documents;
mod explain;
mod files;
mod finished;
#[cfg(test)]
mod fixtures;
mod handover;
mod held;
mod hosts;
mod images;
mod notes;
mod outbox;
mod pauses;
mod plan;
mod plugins;
mod progress;
mod rehearsal;
mod reload;
mod report;
mod roster;
mod safeguards;
mod schedule;
mod transition;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::domain::{BootId, Change, Event, Host, HostId, Ignore};
use crate::hooks::Hooks;
use crate::images::{Catalogue, ImageFiles, LocalBoot};
use crate::render::{BaseUrl, BootScript, Renderer};
use crate::store::{Candidates, Stopped, Store, StoreError};

pub use boot::{Answer, BootstrapRequest, Outcome};
pub use catalog::Shelf;
pub use clock::{Clock, SystemClock};
pub use explain::{Decision, Explanation};
pub use files::{BootFile, FileRefused, PostInstallRefused, Wanted};
pub use handover::{Carried, Heir};
pub use held::{Doubt, HeldMachine};
pub use hosts::{
    Act, Acted, Condition, ConditionError, Erased, HostsError, ImportOutcome, ImportProblem, Imported, Newcomer,
    Preview, Row, Selection, Selector, SelectorError, Taken, Terms, sentence,
};
pub use images::RemoveRefused;
pub use outbox::{Letters, Mode, OutboxError, OutboxState, ParkedHost, Replayed};
pub use plugins::{ApproveRefused, PluginCore, PluginKey, PluginValue};
pub use progress::{FileProgress, HostProgress};
pub use rehearsal::Rehearsed;
pub use reload::{Reloader, Reread, SettingChange};
pub use report::{Call, CallRefused, InventoryPost, ReportRefused};
pub use roster::{Installation, Installed, Kept, Member, Reach, Reload, Reloaded, Roster, RosterError};
pub use schedule::{JobRan, JobState, ScheduleError};
pub use transition::TransitionRefused;

use admission::Admission;
use explain::Explanations;
use finished::FinishedHosts;
use held::Held;
use notes::Notes;
use outbox::Outbox;
use plugins::{Runs, Spaces};
use progress::Progress;
use schedule::Schedule;

/// What the use cases are allowed and told to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// URL under which machines reach this server; none: the address that the request arrived on.
    pub public_url: Option<BaseUrl>,
    /// Attempts that an order gets.
    pub most_attempts: u32,
    /// The shortest and longest time after which a waiting machine asks again, in seconds.
    pub again_s: (u32, u32),
    /// Unknown machines that are registered in a minute; the rest is held. None: as many as come.
    pub new_hosts_per_minute: Option<u32>,
    /// Hosts that may have been installed and are installed again within an hour; the rest holds.
    pub reinstalls_per_hour: u32,
    /// Whether `/state` answers without a bootid.
    pub open_state: bool,
    /// Whether `/hosts` answers at all.
    pub open_hosts: bool,
    /// How machines leave for their own disk, where their metadata says nothing else.
    pub local: LocalBoot,
    /// Values that identify no machine.
    pub ignore: Ignore,
}

/// All use cases over one store.
pub struct Service {
    pub(crate) store: Store,
    hooks: ArcSwap<Hooks>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) renderer: Arc<Renderer>,
    pub(crate) clock: Arc<dyn Clock>,
    settings: ArcSwap<Settings>,
    files: ImageFiles,
    progress: Arc<Progress>,
    explanations: Explanations,
    finished: FinishedHosts,
    admission: Admission,
    held: Held,
    notes: Notes,
    runs: Runs,
    outbox: Outbox,
    schedule: Schedule,
    spaces: Spaces,
    /// One at a time is counted as a reinstall.
    reinstalling: Semaphore,
    /// Set when the store is another process's.
    heir: OnceLock<Arc<dyn Heir>>,
}

/// How often a decision is made anew because its host changed meanwhile.
const CONFLICT_RETRIES: u32 = 4;

impl Service {
    /// Puts the use cases over their parts. The catalogue and renderer are shared with what plugins may ask.
    pub fn new(
        store: Store,
        hooks: Hooks,
        catalogue: Arc<Catalogue>,
        renderer: Arc<Renderer>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Self {
        Self {
            files: ImageFiles::new(catalogue.root()),
            progress: Arc::default(),
            explanations: Explanations::default(),
            finished: FinishedHosts::default(),
            admission: Admission::new(settings.new_hosts_per_minute),
            held: Held::default(),
            notes: Notes::default(),
            runs: Runs::default(),
            outbox: Outbox::default(),
            schedule: Schedule::default(),
            spaces: Spaces::default(),
            reinstalling: Semaphore::new(1),
            heir: OnceLock::new(),
            store,
            hooks: ArcSwap::from_pointee(hooks),
            catalogue,
            renderer,
            clock,
            settings: ArcSwap::from_pointee(settings),
        }
    }

    /// URL under which machines reach this server, if the configuration names one.
    pub fn public_url(&self) -> Option<BaseUrl> {
        self.settings.load().public_url.clone()
    }

    /// What the use cases are told now. Whoever asks several things of them in one breath keeps what this returns.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Tells the use cases something else, from the next request on.
    pub fn replace_settings(&self, settings: Settings) {
        self.admission.set_limit(settings.new_hosts_per_minute);
        self.settings.store(Arc::new(settings));
    }

    /// A script that writes no disk, from the site's template or, if that is broken or its disk hangs, the built-in one.
    pub async fn script_or_built_in(&self, script: BootScript) -> String {
        let script = Arc::new(script);
        let (renderer, for_thread) = (Arc::clone(&self.renderer), Arc::clone(&script));
        let rendering = tokio::task::spawn_blocking(move || renderer.boot_script_or_built_in(&for_thread));
        match tokio::time::timeout(SCRIPT_WITHIN, rendering).await {
            Ok(Ok((text, None))) => text,
            Ok(Ok((text, Some(error)))) => {
                tracing::error!(%error, "a site's template is broken; the built-in one was used");
                text
            }
            Ok(Err(_)) | Err(_) => {
                tracing::error!("a site's template could not be read in time; the built-in one was used");
                self.renderer.built_in(&script)
            }
        }
    }

    /// The time now, by the server's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The plugins as they are bound now. Whoever asks several things of them in one breath keeps what this returns.
    pub fn hooks(&self) -> Arc<Hooks> {
        self.hooks.load_full()
    }

    /// Binds other plugins. What is being asked goes on with those that were bound when it began.
    pub fn replace_hooks(&self, hooks: Hooks) {
        self.hooks.store(Arc::new(hooks));
        self.outbox.rebound();
    }

    /// Resolves when the store can no longer acknowledge anything, with the reason.
    pub async fn store_stopped(&self) -> Stopped {
        self.store.stopped().await
    }

    /// Closes the store; nothing may be asked afterwards.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// How far the boot of a host has come, while one is running.
    pub fn progress(&self, id: HostId) -> Option<HostProgress> {
        self.progress.of(id)
    }

    /// When a machine last asked as this host, as far as this process knows.
    pub fn last_seen(&self, id: HostId) -> Option<Timestamp> {
        self.explanations.last_seen(id)
    }

    /// How the newest `/bootstrap` of a host was answered, and why.
    pub fn explain(&self, id: HostId) -> Option<Explanation> {
        self.explanations.of(id)
    }

    /// Commits a change against the version of the host it was made for.
    pub(crate) async fn commit(&self, before: &Host, change: Change) -> Result<Host, StoreError> {
        self.commit_beside(before, change, None).await
    }

    /// The same for a change of what recognises the host, if those who share it are still the ones that it was judged beside.
    pub(crate) async fn commit_beside(
        &self,
        before: &Host,
        change: Change,
        candidates: Option<&Candidates>,
    ) -> Result<Host, StoreError> {
        let events = change.events.clone();
        let host = self.store.commit_beside(before, change, candidates).await?;
        self.finished.keep(&host);
        announce(&host, &events);
        Ok(host)
    }
}

/// One line per event for whoever watches the server.
pub(crate) fn announce(host: &Host, events: &[Event]) {
    for event in events {
        let what = sentence(&event.kind);
        tracing::info!(host = %host.id, name = %host.label(), states = %host.states, what, "{}", event.kind.name());
    }
}

/// A fresh bootid. The kernel's source of randomness does not fail once it was seeded; if it does, no machine boots.
fn random_bootid(host: HostId) -> Option<BootId> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    Some(BootId::new(host, random))
}

/// A pause between the bounds, so that machines that came up together do not ask together for ever.
fn jitter(bounds: (u32, u32)) -> u32 {
    let (shortest, longest) = bounds;
    let span = longest.saturating_sub(shortest).saturating_add(1);
    let mut random = [0; 4];
    // Without randomness all machines wait equally long: no reason to answer nothing.
    let _ = getrandom::fill(&mut random);
    shortest.saturating_add(u32::from_le_bytes(random) % span.max(1))
}

/// Every decision for `/bootstrap` is there by then, whatever plugins, store and disks do.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_750);

/// The part of it that the site's own template for waiting and local disks may take.
const SCRIPT_WITHIN: Duration = Duration::from_millis(150);
