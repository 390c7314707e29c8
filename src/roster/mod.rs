//! The plugins that are bound: reads bindings and components, keeps what works running, and replaces it without a gap.
//!
//! Invariant: there is always a whole chain. A change is prepared beside the plugins that run, and takes their place in one
//! step or not at all; who is being asked meanwhile answers. A plugin that is missing or broken fails its own calls and
//! nothing else.
//!
//! `library` is what is kept on disk, `slot` one plugin's place, `install` how plugins come and go, `reach` what they may do
//! in words, `secrets` the files that their grants name, `text` bindings as they are written.
mod install;
mod library;
mod look;
mod reach;
mod secrets;
mod slot;
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::config::{Config, DEFAULT_PLUGIN, Digest, PluginBinding, PluginGrant, PluginName, Source};
use crate::hooks::{Binding, Hooks, LogLine, OnError, PluginStatus, Selector, StatesFilter};
use crate::plugin_host::PluginHost;
use crate::service::{Installation, Installed, Member, Reload, Reloaded, RosterError, Service};

pub use look::{Looked, Outcome, look};

use library::Library;
use slot::{Load, Slot, Workshop};

/// Components that are compiled at the same time.
const LOADING_MAX: usize = 4;

/// The plugins of a running server. Clones are the same roster.
#[derive(Clone)]
pub struct LiveRoster(Arc<Inner>);

struct Inner {
    source: Source,
    service: Arc<Service>,
    workshop: Workshop,
    /// Held while something is changed; those who only look use `shown`.
    slots: Mutex<Vec<Slot>>,
    shown: ArcSwap<Vec<Slot>>,
}

impl LiveRoster {
    /// A roster that has loaded nothing yet. `host` may be missing, with a sentence: then all plugins are stand-ins.
    #[must_use]
    pub fn new(source: Source, config: &Config, host: Result<PluginHost, String>, service: Arc<Service>) -> Self {
        let library = Arc::new(Library::new(&config.data_dir));
        let workshop = Workshop { host, library, plugins_dir: config.plugins_dir.clone() };
        Self(Arc::new(Inner { source, service, workshop, slots: Mutex::default(), shown: ArcSwap::default() }))
    }

    /// Loads everything that is bound, for the first time. Never fails: what does not load is degraded.
    pub async fn start(&self, config: &Config) {
        let mut slots = self.0.slots.lock().await;
        *slots = self.0.filled(config, &[]).await;
        self.0.publish(&slots).await;
    }

    /// Does something to its end, even if whoever asked for it goes away.
    fn to_its_end<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> BoxFuture<'static, Result<T, RosterError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RosterError>> + Send + 'static,
    {
        let work = tokio::spawn(work(Arc::clone(&self.0)));
        async move { work.await.unwrap_or(Err(RosterError::Interrupted)) }.boxed()
    }
}

impl crate::service::Roster for LiveRoster {
    fn members(&self) -> Vec<Member> {
        let now = Instant::now();
        self.0.shown.load().iter().map(|slot| slot.member(now)).collect()
    }

    fn log_lines(&self, name: &str) -> Vec<LogLine> {
        let host = self.0.workshop.host.as_ref();
        host.map(|host| host.log_lines(name)).unwrap_or_default()
    }

    fn reload(&self, name: Option<String>) -> BoxFuture<'_, Result<Vec<Reloaded>, RosterError>> {
        self.to_its_end(|inner| async move { inner.reload(name).await })
    }

    fn rollback(&self, name: String) -> BoxFuture<'_, Result<Member, RosterError>> {
        self.to_its_end(|inner| async move { inner.rollback(&name).await })
    }

    fn set_enabled(&self, name: String, enabled: bool) -> BoxFuture<'_, Result<Member, RosterError>> {
        self.to_its_end(move |inner| async move { inner.set_enabled(&name, enabled).await })
    }

    fn install(&self, wanted: Installation) -> BoxFuture<'_, Result<Installed, RosterError>> {
        self.to_its_end(|inner| async move { inner.install(wanted).await })
    }

    fn remove(&self, name: String) -> BoxFuture<'_, Result<(), RosterError>> {
        self.to_its_end(|inner| async move { inner.remove(&name).await })
    }

    fn with(&self, more: Option<Installation>) -> BoxFuture<'_, Result<Hooks, RosterError>> {
        self.to_its_end(|inner| async move { inner.with(more).await })
    }
}

impl Inner {
    async fn config(self: &Arc<Self>) -> Result<Config, RosterError> {
        let source = self.source.clone();
        let config = spawn_blocking(move || source.load()).await.map_err(|_| RosterError::Interrupted)?;
        config.map_err(|error| RosterError::Config(error.to_string()))
    }

    async fn reload(self: &Arc<Self>, name: Option<String>) -> Result<Vec<Reloaded>, RosterError> {
        let mut slots = self.slots.lock().await;
        let mut config = self.config().await?;
        if let Some(name) = &name {
            let bound = config.plugins.iter().map(|binding| binding.name.as_str());
            let names: Vec<String> =
                bound.chain(slots.iter().map(|slot| slot.binding.name.as_str())).map(str::to_owned).collect();
            let name = known(name, names.iter().map(String::as_str))?;
            if self.roll_forward(&name, &config).await? {
                config = self.config().await?;
            }
            // The others stay as they are bound now.
            config.plugins.retain(|binding| binding.name == name);
            let others = slots.iter().filter(|slot| slot.binding.name != name && is_written(slot));
            config.plugins.extend(others.map(|slot| slot.binding.clone()));
        }
        let mut filled = match &name {
            None => self.filled(&config, &slots).await,
            Some(name) => self.filled_only(name, &config, &slots).await,
        };
        std::mem::swap(&mut *slots, &mut filled);
        self.publish(&slots).await;
        let changes = changes(&filled, &slots);
        let about = |change: &Reloaded| name.as_ref().is_none_or(|name| *name == change.name);
        Ok(changes.into_iter().filter(about).collect())
    }

    /// Ends a rollback. Whether the binding's file was put back to what it was before.
    async fn roll_forward(&self, name: &PluginName, config: &Config) -> Result<bool, RosterError> {
        let mut record = self.record(name)?;
        let Some(back) = record.rolled_back_to() else { return Ok(false) };
        let file = config.plugins.iter().find(|binding| binding.name == *name && is_installed(binding));
        let newest = record.history.last().filter(|ran| ran.digest != back.to_string());
        let mut is_put_back = false;
        if let (Some(binding), Some(text)) = (file, newest.and_then(|ran| ran.binding.clone())) {
            // Who has changed it since means what is written there.
            if record.text(&back) == Some(read(binding.file.clone()).await?) {
                write(binding.file.clone(), text).await?;
                is_put_back = true;
            }
        }
        record.rolled_back_to = None;
        self.remember(name, &record)?;
        Ok(is_put_back)
    }

    async fn rollback(self: &Arc<Self>, name: &str) -> Result<Member, RosterError> {
        let mut slots = self.slots.lock().await;
        let place = place(&slots, name)?;
        let old = slots.get(place).cloned().ok_or(RosterError::Interrupted)?;
        let mut binding = old.binding.clone();
        if binding.digest.is_some() && !old.installed {
            return Err(RosterError::Elsewhere { name: name.to_owned(), file: binding.file.clone() });
        }
        let runs = old.digest().map(|digest| digest.to_string());
        let mut record = self.record(&binding.name)?;
        let back = record.before(runs.as_deref()).ok_or_else(|| RosterError::NothingBefore(name.to_owned()))?;
        let not_loaded = |why: String| RosterError::NotLoaded { name: name.to_owned(), why };
        let path = self.workshop.library.path(&back);
        let library = Arc::clone(&self.workshop.library);
        let bytes = spawn_blocking(move || library.component(&back)).await.map_err(|_| RosterError::Interrupted)?;
        let bytes = bytes.map_err(|error| RosterError::File { path: path.clone(), error })?;
        let found = slot::Found::of(path.display().to_string(), bytes);
        // A digest that is written says which component runs, so the file goes back, too, with all that was written then.
        let mut text = None;
        if binding.digest.is_some() {
            let current = read(binding.file.clone()).await?;
            let before = record.text(&back).or_else(|| text::repinned(&current, &binding.name, &back));
            let before = before.ok_or(RosterError::Interrupted)?;
            let table = text::binding_in(&before, &binding.name).ok_or(RosterError::Interrupted)?;
            binding = Config::binding(&binding.file, table).map_err(|error| RosterError::Binding(error.to_string()))?;
            record.keep_text(runs.as_deref(), current);
            record.keep_text(Some(&back.to_string()), before.clone());
            text = Some(before);
        }
        let running = self.workshop.make(&binding, &found).await.map_err(not_loaded)?;
        if let Some(text) = text {
            self.remember(&binding.name, &record)?;
            write(binding.file.clone(), text).await?;
        }
        record.rolled_back_to = Some(back.to_string());
        self.remember(&binding.name, &record)?;
        let slot = self.workshop.seat(binding, old.installed, record, running, found, self.service.now()).await;
        self.replace(&mut slots, place, slot).await
    }

    async fn set_enabled(self: &Arc<Self>, name: &str, enabled: bool) -> Result<Member, RosterError> {
        let mut slots = self.slots.lock().await;
        let place = place(&slots, name)?;
        let old = slots.get(place).cloned().ok_or(RosterError::Interrupted)?;
        if old.binding.name.is_default() {
            return Err(RosterError::Default(if enabled { "switched on" } else { "switched off" }));
        }
        let mut record = self.record(&old.binding.name)?;
        record.disabled = !enabled;
        self.remember(&old.binding.name, &record)?;
        let slot = self
            .workshop
            .fill(old.binding.clone(), old.installed, Some(old), Load::IfChanged, self.service.now())
            .await;
        self.replace(&mut slots, place, slot).await
    }

    /// Puts a slot in the place of another one, and binds what is there now.
    async fn replace(&self, slots: &mut [Slot], place: usize, slot: Slot) -> Result<Member, RosterError> {
        let member = slot.member(Instant::now());
        if let Some(old) = slots.get_mut(place) {
            *old = slot;
        }
        self.publish(slots).await;
        Ok(member)
    }

    /// Slots for everything that is bound, the default plugin last. What is the same as in `old` is kept.
    async fn filled(&self, config: &Config, old: &[Slot]) -> Vec<Slot> {
        let filling = bindings(config).into_iter().map(|binding| {
            let old = old.iter().find(|slot| slot.binding.name == binding.name).cloned();
            let installed = is_installed(&binding);
            self.workshop.fill(binding, installed, old, Load::IfChanged, self.service.now())
        });
        let mut slots: Vec<Slot> = futures_util::stream::iter(filling).buffered(LOADING_MAX).collect().await;
        in_order(&mut slots);
        slots
    }

    /// The same for one plugin, which is loaded again whether or not anything changed; all others stay.
    async fn filled_only(&self, name: &str, config: &Config, old: &[Slot]) -> Vec<Slot> {
        let mut slots: Vec<Slot> = old.iter().filter(|slot| slot.binding.name.as_str() != name).cloned().collect();
        if let Some(binding) = bindings(config).into_iter().find(|binding| binding.name.as_str() == name) {
            let before = old.iter().find(|slot| slot.binding.name == binding.name).cloned();
            let installed = is_installed(&binding);
            slots.push(self.workshop.fill(binding, installed, before, Load::Anew, self.service.now()).await);
        }
        in_order(&mut slots);
        slots
    }

    /// Binds what is in the slots, for everyone who asks from now on.
    async fn publish(&self, slots: &[Slot]) {
        if let Some(hooks) = chain(slots) {
            self.service.replace_hooks(hooks);
        }
        self.shown.store(Arc::new(slots.to_vec()));
        let named: BTreeSet<Digest> =
            slots.iter().flat_map(|slot| [slot.binding.digest, slot.digest()]).flatten().collect();
        let library = Arc::clone(&self.workshop.library);
        // What is left over costs space and nothing else.
        let _ = spawn_blocking(move || library.sweep(&named)).await;
    }

    fn record(&self, name: &PluginName) -> Result<library::Record, RosterError> {
        let library = &self.workshop.library;
        library.record(name).map_err(|error| RosterError::File { path: library.record_path(name), error })
    }

    fn remember(&self, name: &PluginName, record: &library::Record) -> Result<(), RosterError> {
        let library = &self.workshop.library;
        let file = |error| RosterError::File { path: library.record_path(name), error };
        library.remember(name, record).map_err(file)
    }
}

/// The text of a binding's file.
async fn read(path: PathBuf) -> Result<String, RosterError> {
    let read = spawn_blocking(move || fs::read_to_string(&path).map_err(|error| RosterError::File { path, error }));
    read.await.map_err(|_| RosterError::Interrupted)?
}

async fn write(path: PathBuf, text: String) -> Result<(), RosterError> {
    let write =
        move || library::write_whole(&path, text.as_bytes(), 0o640).map_err(|error| RosterError::File { path, error });
    spawn_blocking(write).await.map_err(|_| RosterError::Interrupted)?
}

/// The chain of these slots; none without a default plugin.
fn chain(slots: &[Slot]) -> Option<Hooks> {
    let (default, chain): (Vec<&Slot>, Vec<&Slot>) = slots.iter().partition(|slot| slot.binding.name.is_default());
    let default = default.first()?.running.as_ref()?;
    let bindings: Vec<Binding> = chain.into_iter().filter_map(Slot::bound).collect();
    Some(Hooks::new(bindings, Arc::clone(&default.plugin)).with_default_breakers(Arc::clone(&default.breakers)))
}

/// All bindings, one for the default plugin among them.
fn bindings(config: &Config) -> Vec<PluginBinding> {
    let mut bindings = config.plugins.clone();
    let discover = Value::Bool(config.discover);
    match bindings.iter_mut().find(|binding| binding.name.is_default()) {
        Some(binding) => {
            if let Value::Object(config) = &mut binding.config {
                config.entry("discover").or_insert(discover);
            }
            binding.grant.catalog = true;
        }
        None => bindings.extend(default_binding(Map::from_iter([("discover".to_owned(), discover)]))),
    }
    bindings
}

/// The default plugin as nobody configured it.
fn default_binding(config: Map<String, Value>) -> Option<PluginBinding> {
    Some(PluginBinding {
        name: DEFAULT_PLUGIN.parse().ok()?,
        file: PathBuf::new(),
        component: None,
        digest: None,
        hooks: None,
        states: StatesFilter::unfinished(),
        selector: Selector::default(),
        selector_text: Vec::new(),
        events: None,
        priority: 0,
        on_error: OnError::Hold,
        config: Value::Object(config),
        grant: PluginGrant { catalog: true, ..PluginGrant::default() },
    })
}

/// Whether a binding stands in a file of its own that the server may write.
fn is_installed(binding: &PluginBinding) -> bool {
    let folder = binding.file.parent().and_then(|folder| folder.file_name());
    let own = format!("{}.toml", binding.name);
    folder.is_some_and(|folder| folder == "plugins.d")
        && binding.file.file_name().is_some_and(|name| name == own.as_str())
}

/// Whether somebody wrote its binding.
fn is_written(slot: &Slot) -> bool {
    !slot.binding.file.as_os_str().is_empty()
}

/// As they are asked.
fn in_order(slots: &mut [Slot]) {
    slots.sort_by(|a, b| {
        let place = |slot: &Slot| (slot.binding.name.is_default(), slot.binding.priority);
        place(a).cmp(&place(b)).then_with(|| a.binding.name.cmp(&b.binding.name))
    });
}

fn place(slots: &[Slot], name: &str) -> Result<usize, RosterError> {
    let found = slots.iter().position(|slot| slot.binding.name.as_str() == name);
    found.ok_or_else(|| RosterError::not_found(name, slots.iter().map(|slot| slot.binding.name.as_str())))
}

fn known<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> Result<PluginName, RosterError> {
    match names.clone().find(|known| *known == name).and_then(|known| known.parse().ok()) {
        Some(name) => Ok(name),
        None => Err(RosterError::not_found(name, names)),
    }
}

/// What is different.
fn changes(old: &[Slot], new: &[Slot]) -> Vec<Reloaded> {
    let found = |slots: &[Slot], name: &PluginName| slots.iter().find(|slot| slot.binding.name == *name).cloned();
    let kept = new.iter().map(|slot| {
        let before = found(old, &slot.binding.name);
        let same = before.as_ref().is_some_and(|before| {
            before.status == slot.status && before.binding == slot.binding && before.is_same(slot)
        });
        let change = match (&slot.status, before) {
            (PluginStatus::Degraded { .. } | PluginStatus::Unavailable { .. }, _) => Reload::Failed,
            (PluginStatus::Ready { .. } | PluginStatus::Disabled, None) => Reload::Added,
            (PluginStatus::Ready { .. } | PluginStatus::Disabled, Some(_)) if same => Reload::Unchanged,
            (PluginStatus::Ready { .. } | PluginStatus::Disabled, Some(_)) => Reload::Changed,
        };
        Reloaded { name: slot.binding.name.to_string(), change }
    });
    let gone = old.iter().filter(|slot| found(new, &slot.binding.name).is_none());
    let gone = gone.map(|slot| Reloaded { name: slot.binding.name.to_string(), change: Reload::Removed });
    kept.chain(gone).collect()
}
