//! What a plugin says about itself when it is loaded, and about its configuration. It can reach nothing meanwhile.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use wasmtime::component::InstancePre;

use super::contract::exports::kiwispray::plugin::about::GuestIndices;
use super::contract::kiwispray::plugin::types as wit;
use super::journal::Journal;
use super::load::LoadError;
use super::sandbox::{CallState, Sandbox};
use crate::hooks::{About, Call, Job, Run};

/// What a plugin has to say what it is.
const ABOUT_BUDGET: Duration = Duration::from_millis(200);
/// Of a version, a kind of events, a job: each is one word.
const NAME_MAX_CHARS: usize = 64;
const SUMMARY_MAX_CHARS: usize = 500;
const EVENTS_MAX: usize = 64;
const JOBS_MAX: usize = 16;
/// The schema, and what else it says.
const DOCUMENT_MAX_BYTES: usize = 64 << 10;
/// Problems of a configuration that are told.
const PROBLEMS_MAX: usize = 10;

/// A plugin that is being loaded.
pub(super) struct Newcomer {
    pub(super) name: Arc<str>,
    pub(super) journal: Arc<Journal>,
    /// Milliseconds since 1970.
    pub(super) now_ms: u64,
}

impl Newcomer {
    /// A call in which nothing can be reached and the configuration is not known yet.
    pub(super) fn state(&self) -> CallState {
        let call = Call { budget: ABOUT_BUDGET, ..Call::new("load", self.now_ms, Run::Dry) };
        CallState::new(Arc::clone(&self.name), Arc::from("{}"), None, call, Arc::clone(&self.journal))
    }
}

/// Asks the plugin what it is. Returns its version, and the rest.
pub(super) async fn describe(
    sandbox: &Sandbox,
    newcomer: &Newcomer,
    pre: &InstancePre<CallState>,
    about: &GuestIndices,
) -> Result<(String, About), LoadError> {
    let about = about.clone();
    let describe = sandbox.run(newcomer.state(), pre, move |store, instance| {
        async move { about.load(&mut *store, &instance)?.call_describe(store).await }.boxed()
    });
    let description = describe.await.result.map_err(LoadError::About)?;
    read(description).map_err(LoadError::BadDescription)
}

/// Asks the plugin what is wrong with a configuration.
pub(super) async fn check_config(
    sandbox: &Sandbox,
    newcomer: &Newcomer,
    pre: &InstancePre<CallState>,
    about: &GuestIndices,
    config: &str,
) -> Result<(), LoadError> {
    let (about, config) = (about.clone(), config.to_owned());
    let check = sandbox.run(newcomer.state(), pre, move |store, instance| {
        async move { about.load(&mut *store, &instance)?.call_check_config(store, &config).await }.boxed()
    });
    let problems = check.await.result.map_err(LoadError::About)?;
    if problems.is_empty() {
        return Ok(());
    }
    let sentence = |problem: &wit::ConfigProblem| {
        let at = if problem.at.is_empty() { String::new() } else { format!("{}: ", problem.at) };
        format!("{at}{}", problem.message).chars().take(300).collect::<String>()
    };
    Err(LoadError::Config(problems.iter().take(PROBLEMS_MAX).map(sentence).collect::<Vec<_>>().join("; ")))
}

/// Checks a description. A sentence says what is wrong with it.
fn read(description: wit::Description) -> Result<(String, About), String> {
    is_name("name", &description.name)?;
    is_name("version", &description.version)?;
    if description.events.len() > EVENTS_MAX {
        return Err(format!("it names more than {EVENTS_MAX} kinds of events"));
    }
    description.events.iter().try_for_each(|kind| is_name("kind of events", kind))?;
    let jobs: Vec<_> = description.jobs.into_iter().map(|job| Job { name: job.name, period_s: job.period_s }).collect();
    check_jobs(&jobs)?;
    let about = About {
        summary: description.summary.chars().take(SUMMARY_MAX_CHARS).collect(),
        events: description.events,
        jobs,
        config_schema: document("configuration's schema", &description.config_schema)?,
        more: document("further words", &description.more)?,
    };
    Ok((description.version, about))
}

fn check_jobs(jobs: &[Job]) -> Result<(), String> {
    if jobs.len() > JOBS_MAX {
        return Err(format!("it has more than {JOBS_MAX} jobs"));
    }
    let mut names = BTreeSet::new();
    for job in jobs {
        is_name("job", &job.name)?;
        if job.period_s == 0 {
            return Err(format!("its job `{}` has no period", job.name));
        }
        if !names.insert(&job.name) {
            return Err(format!("it has two jobs `{}`", job.name));
        }
    }
    Ok(())
}

/// Words that end up in lists and logs.
fn is_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("it has no {what}"));
    }
    if name.chars().count() > NAME_MAX_CHARS || !name.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("its {what} is not up to {NAME_MAX_CHARS} printable characters without blanks"));
    }
    Ok(())
}

fn document(what: &str, text: &str) -> Result<Value, String> {
    if text.len() > DOCUMENT_MAX_BYTES {
        return Err(format!("its {what} have more than {DOCUMENT_MAX_BYTES} bytes"));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        Ok(_) => Err(format!("its {what} is no JSON object")),
        Err(error) => Err(format!("its {what} is no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> wit::Description {
        wit::Description {
            name: "racks".into(),
            version: "1.0".into(),
            summary: "Racks.".into(),
            config_schema: r#"{"type": "object"}"#.into(),
            events: vec!["*".into()],
            jobs: vec![wit::Job { name: "sync".into(), period_s: 60 }],
            more: "{}".into(),
        }
    }

    #[test]
    fn a_description_is_taken_over() {
        let (version, about) = read(description()).unwrap();
        assert_eq!((version.as_str(), about.summary.as_str()), ("1.0", "Racks."));
        assert_eq!((about.events, about.jobs), (vec!["*".into()], vec![Job { name: "sync".into(), period_s: 60 }]));
        assert_eq!(about.config_schema, serde_json::json!({"type": "object"}));
    }

    #[test]
    fn a_description_that_means_nothing_is_refused_with_a_reason() {
        let job = |name: &str, period_s| wit::Job { name: name.into(), period_s };
        type Spoil = fn(&mut wit::Description);
        let bad: [(&str, Spoil); 7] = [
            ("no name", |d| d.name.clear()),
            ("printable", |d| d.version = "1\n2".into()),
            ("no JSON", |d| d.config_schema = "{".into()),
            ("no JSON object", |d| d.more = "[]".into()),
            ("more than 64 kinds", |d| d.events = vec!["finished".into(); 65]),
            ("no period", |d| d.jobs[0].period_s = 0),
            ("two jobs `sync`", |d| d.jobs.push(d.jobs[0].clone())),
        ];
        for (why, spoil) in bad {
            let mut description = description();
            spoil(&mut description);
            let error = read(description).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
        let many = wit::Description { jobs: (0..17).map(|n| job(&n.to_string(), 1)).collect(), ..description() };
        assert!(read(many).unwrap_err().contains("more than 16 jobs"));
    }
}
