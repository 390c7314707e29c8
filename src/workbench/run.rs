//! Runs a plugin against written cases, on the real plugin host in this process.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::case::{Asked, Case, Expect};
use super::compare::{differences, unequal};
use super::manifest::{Manifest, ManifestError, WantedGrant};
use super::said::Said;
use super::world::World;
use crate::hooks::{
    Budgets, Call, DiscoveryVerdict, Grant, Hook, HookError, KnownHost, Patch, Plugin, Reply, Run, check_boot,
    check_discovery, check_transition,
};
use crate::plugin_host::egress::ScriptedRequest;
use crate::plugin_host::{Component, EngineError, Interface, LoadError, PluginHost, SecretError};

/// A plugin on the bench: its component, and what its folder says about it.
pub struct Bench {
    host: PluginHost,
    world: Arc<World>,
    /// None for a component without a folder.
    manifest: Option<Manifest>,
    component: PathBuf,
    bytes: Vec<u8>,
    /// What was loaded for cases: compiling a component anew for each would take a Python plugin minutes.
    loaded: Mutex<Vec<Loaded>>,
}

/// A plugin with what it was loaded with.
struct Loaded {
    config: Option<Map<String, Value>>,
    secrets: BTreeMap<String, String>,
    plugin: Arc<dyn Plugin>,
}

/// How a case went.
#[derive(Clone, Debug)]
pub struct Report {
    /// The case's name.
    pub name: String,
    /// The name of the hook that was asked.
    pub hook: String,
    /// Where it came out otherwise than expected; none: it passed.
    pub differences: Vec<String>,
    /// What the plugin noted.
    pub notes: Vec<String>,
    /// How long the call took.
    pub took: Duration,
}

impl Report {
    /// Whether everything came out as expected.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Why a plugin cannot be put on the bench.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The folder is no plugin's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There is no component.
    #[error("{}: {error}; `kiwispray plugin build` makes it", path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },
    /// Nothing runs here.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Bench {
    /// Puts the plugin of a folder on the bench.
    ///
    /// # Errors
    /// The folder is no plugin's, the plugin is not built, or nothing runs here.
    pub fn new(folder: &Path) -> Result<Self, BenchError> {
        let manifest = Manifest::read(folder)?;
        let path = manifest.component(folder);
        Self::with(Some(manifest), path)
    }

    /// Puts a component on the bench that has no folder.
    ///
    /// # Errors
    /// It cannot be read, or nothing runs here.
    pub(super) fn of_file(path: &Path) -> Result<Self, BenchError> {
        Self::with(None, path.to_owned())
    }

    fn with(manifest: Option<Manifest>, path: PathBuf) -> Result<Self, BenchError> {
        let bytes = fs::read(&path).map_err(|error| BenchError::NotBuilt { path: path.clone(), error })?;
        let world = Arc::new(World::default());
        let host = PluginHost::scripted(Arc::clone(&world) as _, Arc::clone(&world) as _)?;
        Ok(Self { host, world, manifest, component: path, bytes, loaded: Mutex::default() })
    }

    /// Loads the plugin with a configuration (none: the example of its `plugin.toml`) and the grants that it wants.
    ///
    /// # Errors
    /// Why the server would not take it.
    pub async fn load(&self, config: Option<&Map<String, Value>>) -> Result<Arc<dyn Plugin>, LoadError> {
        self.load_granted(config, self.grant().interfaces(), &BTreeMap::new()).await
    }

    /// The plugin for a case: loaded once for each configuration and its secrets.
    async fn loaded_for(&self, case: &Case) -> Result<Arc<dyn Plugin>, LoadError> {
        let (config, secrets) = (&case.config, &case.core.secrets);
        let mut loaded = self.loaded.lock().await;
        if let Some(same) = loaded.iter().find(|each| each.config == *config && each.secrets == *secrets) {
            return Ok(Arc::clone(&same.plugin));
        }
        let plugin = self.load_granted(config.as_ref(), self.grant().interfaces(), secrets).await?;
        let (config, secrets) = (config.clone(), secrets.clone());
        loaded.push(Loaded { config, secrets, plugin: Arc::clone(&plugin) });
        Ok(plugin)
    }

    pub(super) async fn load_granted(
        &self,
        config: Option<&Map<String, Value>>,
        imports: BTreeSet<Interface>,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn Plugin>, LoadError> {
        let name = self.manifest.as_ref().map_or_else(|| "plugin".to_owned(), |manifest| manifest.name.to_string());
        let grant = self.grant();
        let http = grant.rules().map_err(|error| LoadError::Grant(format!("a rule for http: {error}")))?;
        let secret = |(name, secret): (&String, &String)| Ok((name.clone(), secret.parse()?));
        // A case knows the secret; whether the plugin may use it, the grant says.
        let granted = secrets.iter().filter(|(name, _)| grant.signing.contains_key(*name));
        let signing = granted.map(secret).collect::<Result<_, SecretError>>();
        let signing = signing.map_err(|error| LoadError::Grant(format!("the case's secrets: {error}")))?;
        let component = Component {
            name,
            origin: self.component.display().to_string(),
            bytes: self.bytes.clone(),
            imports,
            grants: grant.core(),
            http,
            signing,
            config: config.map_or_else(|| self.example(), |config| Value::Object(config.clone())),
        };
        self.host.load(component).await
    }

    fn grant(&self) -> WantedGrant {
        self.manifest.as_ref().map(|manifest| manifest.grant.clone()).unwrap_or_default()
    }

    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    pub(super) fn host(&self) -> &PluginHost {
        &self.host
    }

    pub(super) fn path(&self) -> &Path {
        &self.component
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The example of a configuration; an empty one if there is none.
    pub(super) fn example(&self) -> Value {
        let example = self.manifest.as_ref().and_then(|manifest| serde_json::to_value(&manifest.config).ok());
        example.unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// Runs a case.
    pub async fn run(&self, case: &Case) -> Report {
        let hook = case.asked.hook();
        let report = |differences, notes, took| Report {
            name: case.name.clone(),
            hook: hook.to_string(),
            differences,
            notes,
            took,
        };
        let plugin = match self.loaded_for(case).await {
            Ok(plugin) => plugin,
            Err(error) => return report(vec![format!("it does not load: it {error}")], Vec::new(), Duration::ZERO),
        };
        self.world.become_that_of(&case.core, case.asked.hosts());
        let begun = Instant::now();
        let reply = ask(&*plugin, &call(case), &case.asked, &self.grant().hosts).await;
        let took = begun.elapsed();
        let mut told = Vec::new();
        compare(&case.expect, &reply, &self.world, &mut told);
        report(told, reply.notes, took)
    }
}

fn call(case: &Case) -> Call {
    let budgets = Budgets::default();
    let budget = match case.asked.hook() {
        Hook::Boot | Hook::Discovery | Hook::Render => budgets.call,
        Hook::Transition => budgets.transition_chain,
        Hook::Events => budgets.events,
        Hook::Schedule => budgets.schedule,
    };
    let core = &case.core;
    let run = if core.dry_run { Run::Dry } else { Run::Real };
    Call {
        attempt: core.attempt,
        budget: core.budget_ms.map_or(budget, |ms| Duration::from_millis(ms.into())),
        ..Call::new(core.call_id.clone(), core.now_ms, run)
    }
}

/// Asks a plugin, and holds its answer to what a server would: what it may not answer is an error here as there.
async fn ask(plugin: &dyn Plugin, call: &Call, asked: &Asked, grants: &BTreeSet<Grant>) -> Reply<Said> {
    fn said<T: Into<Said>>(reply: Reply<T>, check: impl FnOnce(&T) -> Result<(), HookError>) -> Reply<Said> {
        let checked = reply.result.and_then(|answer| check(&answer).map(|()| answer));
        Reply { result: checked.map(Into::into), notes: reply.notes }
    }
    let applies = |patch: &Patch, host: &KnownHost| patch.apply_to(&mut host.clone()).map(drop);
    match asked {
        Asked::Boot(request) => said(plugin.decide(call, request).await, |decision| {
            check_boot(decision, &request.host, grants)?;
            decision.patch.as_ref().map_or(Ok(()), |patch| applies(patch, &request.host))
        }),
        Asked::Discovery(request) => said(plugin.discovered(call, request).await, |decision| {
            check_discovery(decision, grants)?;
            match &decision.verdict {
                DiscoveryVerdict::Admit(patch) => applies(patch, &request.host),
                DiscoveryVerdict::Refuse(_) => Ok(()),
            }
        }),
        Asked::Render(request) => said(plugin.variables(call, request).await, |_| Ok(())),
        Asked::Transition(request) => {
            said(plugin.before(call, request).await, |decision| check_transition(decision, grants))
        }
        Asked::Events(events) => said(plugin.handle(call, events).await, |done| {
            if usize::try_from(*done).is_ok_and(|done| done <= events.len()) {
                return Ok(());
            }
            Err(HookError::BadAnswer(format!("it was told of {} events and says that {done} are done", events.len())))
        }),
        Asked::Schedule(job) => said(plugin.run(call, job).await, |_| Ok(())),
    }
}

/// Says where what came of a case is not what was expected.
fn compare(expect: &Expect, reply: &Reply<Said>, world: &World, told: &mut Vec<String>) {
    match (&reply.result, &expect.error) {
        (Ok(said), None) => compare_answer(expect, said, told),
        (Err(_), Some(_)) if expect.has_answer() => {
            told.push("error: a call that fails answers nothing: take the expected answer out of the case".to_owned());
        }
        (Err(error), Some(wanted)) => {
            let class = error.class().to_string();
            if class != wanted.class || !text_of(error).contains(&wanted.text) {
                told.push(format!("error: expected {} with {:?}, got {class}: it {error}", wanted.class, wanted.text));
            }
        }
        (Ok(_), Some(wanted)) => told.push(format!("error: expected {}, got an answer", wanted.class)),
        (Err(error), None) => told.push(format!("it {error}")),
    }
    for wanted in &expect.notes {
        if !reply.notes.iter().any(|note| note.contains(wanted)) {
            told.push(format!("notes: {wanted:?} is in none of {:?}", reply.notes));
        }
    }
    if let Some(wanted) = &expect.http {
        let sent = Value::Array(world.sent().iter().map(sent).collect());
        differences("http", &Value::Array(wanted.clone()), &sent, told);
    }
    told.extend(world.unanswered().iter().map(|sent| format!("http: the case has no answer to {sent}")));
    for (key, wanted) in &expect.kv {
        unequal(&format!("kv.{key}"), wanted, &world.kv_now(key), told);
    }
    for (id, wanted) in &expect.hosts {
        differences(&format!("hosts.{id}"), wanted, &world.host_now(*id), told);
    }
}

/// A request as cases write it: its body is `json` if it is JSON, else `text`.
fn sent(request: &ScriptedRequest) -> Value {
    let headers: Map<String, Value> =
        request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone().into())).collect();
    let body = request.body.as_deref().map(|body| match serde_json::from_slice::<Value>(body) {
        Ok(json) => ("json".to_owned(), json),
        Err(_) => ("text".to_owned(), String::from_utf8_lossy(body).into()),
    });
    let parts = [("method", json!(request.method)), ("url", json!(request.url)), ("headers", json!(headers))];
    Value::Object(parts.into_iter().map(|(name, part)| (name.to_owned(), part)).chain(body).collect())
}

fn text_of(error: &HookError) -> String {
    error.to_string()
}

fn compare_answer(expect: &Expect, said: &Said, told: &mut Vec<String>) {
    let mut part =
        |key: &str, wanted: &Option<Value>, is: &Option<Value>, compare: fn(&str, &Value, &Value, &mut Vec<String>)| {
            match (wanted, is) {
                (Some(wanted), Some(is)) => compare(key, wanted, is, told),
                (Some(_), None) => told.push(format!("{key}: this hook answers none")),
                (None, _) => {}
            }
        };
    part("verdict", &expect.verdict, &said.verdict, differences);
    part("patch", &expect.patch, &said.patch, unequal);
    part("reason", &expect.reason.clone().map(Into::into), &said.reason.clone().map(Into::into), unequal);
    part("variables", &expect.variables, &said.variables, differences);
    part("done", &expect.done.map(Into::into), &said.done.map(Into::into), unequal);
    part("next", &expect.next, &said.next, unequal);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default plugin as somebody's own.
    fn bench() -> (tempfile::TempDir, Bench) {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "name = \"standard\"\nhooks = [\"boot\", \"discovery\"]\nimports = [\"catalog\"]\n\
                        [grant]\ncatalog = true\n[config]\ndiscover = true\n";
        fs::write(folder.path().join("plugin.toml"), manifest).unwrap();
        fs::copy("plugins/default/default.wasm", folder.path().join("standard.wasm")).unwrap();
        let bench = Bench::new(folder.path()).unwrap();
        (folder, bench)
    }

    async fn run(bench: &Bench, case: &str) -> Vec<String> {
        bench.run(&Case::parse("case".into(), case).unwrap()).await.differences
    }

    /// A plugin that answers anything, with a grant for nothing.
    async fn judged(decision: serde_json::Value, hook: &str) -> Vec<String> {
        /// Says what it was told to say.
        struct Says(serde_json::Value);
        impl Plugin for Says {
            fn name(&self) -> &str {
                "says"
            }
            fn hooks(&self) -> crate::hooks::HookSet {
                Hook::ALL.into_iter().collect()
            }
            fn status(&self) -> crate::hooks::PluginStatus {
                crate::hooks::PluginStatus::Disabled
            }
            fn decide<'a>(
                &'a self,
                _call: &'a Call,
                _request: &'a crate::hooks::BootRequest,
            ) -> futures_util::future::BoxFuture<'a, Reply<crate::hooks::BootDecision>> {
                let decision = serde_json::from_value(self.0.clone()).unwrap();
                Box::pin(std::future::ready(Reply::from(Ok(decision))))
            }
            fn before<'a>(
                &'a self,
                _call: &'a Call,
                _request: &'a crate::hooks::TransitionRequest,
            ) -> futures_util::future::BoxFuture<'a, Reply<crate::hooks::TransitionDecision>> {
                let decision = serde_json::from_value(self.0.clone()).unwrap();
                Box::pin(std::future::ready(Reply::from(Ok(decision))))
            }
        }
        let request = if hook == "boot" {
            "{\"host\": {\"states\": [\"finished\"]}}"
        } else {
            "{\"host\": {}, \"to\": [\"web\"], \"cause\": \"operator\", \"actor\": \"ada\"}"
        };
        let case = format!(r#"{{"hook": "{hook}", "request": {request}, "expect": {{"notes": [""]}}}}"#);
        let case = Case::parse("case".into(), &case).unwrap();
        let reply = ask(&Says(decision), &call(&case), &case.asked, &BTreeSet::new()).await;
        reply.result.err().map(|error| error.to_string()).into_iter().collect()
    }

    #[tokio::test]
    async fn what_a_server_refuses_fails_a_case_too() {
        let boot = |verdict: serde_json::Value, patch: serde_json::Value| json!({"verdict": verdict, "patch": patch, "reason": ""});
        let patch = |states: serde_json::Value| json!({"hostname": "keep", "states": states, "order": null, "set": [], "unset": []});
        let image = json!({"boot": {"image": {"image": "web", "append": ["rd.kiwi.x"], "vars": []}}});
        let hold = json!({"hold": {"text": "wait", "again_after_ms": null}});
        for answer in [boot(image, json!(null)), boot(hold, json!(null)), boot(json!("pass"), patch(json!(["web"])))] {
            assert_eq!(judged(answer.clone(), "boot").await.len(), 1, "{answer}");
        }
        assert_eq!(
            judged(json!({"verdict": {"redirect": ["live", "web"]}, "reason": ""}), "transition").await.len(),
            1
        );
        assert!(judged(boot(json!("pass"), json!(null)), "boot").await.is_empty());
    }

    #[tokio::test]
    async fn a_case_passes_or_says_what_differs() {
        let (_folder, bench) = bench();
        let case = |image: &str, expect: &str| {
            format!(
                r#"{{"hook": "boot", "request": {{"host": {{"states": ["web"]}}}},
                     "core": {{"images": ["{image}"]}}, "expect": {expect}}}"#
            )
        };
        let none: [String; 0] = [];
        assert_eq!(run(&bench, &case("web", r#"{"verdict": {"image": "web"}, "patch": null}"#)).await, none);
        assert_eq!(
            run(&bench, &case("db", r#"{"verdict": {"image": "web"}, "notes": ["looked"]}"#)).await,
            ["verdict.image: expected \"web\", got null", "notes: \"looked\" is in none of []"]
        );
        assert_eq!(
            run(&bench, &case("web", r#"{"error": {"class": "retry"}}"#)).await,
            ["error: expected retry, got an answer"]
        );
        assert_eq!(run(&bench, &case("web", r#"{"done": 1}"#)).await, ["done: this hook answers none"]);
    }

    #[tokio::test]
    async fn the_example_of_the_manifest_is_the_configuration_of_cases_that_bring_none() {
        let (_folder, bench) = bench();
        let case = |config: &str| {
            format!(
                r#"{{"hook": "discovery", "request": {{}}, {config} "expect": {{"patch": {{"states": ["new"]}}}}}}"#
            )
        };
        assert_eq!(run(&bench, &case(r#""config": {"discover": false},"#)).await, Vec::<String>::new());
        let told = run(&bench, &case("")).await.join("\n");
        assert!(told.contains(r#"got {"states":["discover","new"]}"#), "{told}");
        let refused = run(&bench, &case(r#""config": {"dicsover": 1},"#)).await.join("\n");
        assert!(refused.contains("does not load") && refused.contains("dicsover"), "{refused}");
    }

    #[test]
    fn a_plugin_that_is_not_built_is_told_how_to_be() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plugin.toml"), "name = \"a\"\nhooks = []\n").unwrap();
        let error = Bench::new(folder.path()).err().unwrap().to_string();
        assert!(error.contains("kiwispray plugin build"), "{error}");
    }
}
