//! Jobs of plugins: each at its period, never two of a plugin at the same time, on one server at a time.
//!
//! Invariant: a job runs only under its plugin's lease in the store, and its newest run is durable before the next one
//! begins; so a restart neither forgets a job nor repeats one that is not due.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::pauses::{later, with_jitter, words};
use super::{Service, jitter};
use crate::hooks::{Admission, Binding, Call, Hook, HookError, Hooks, Job, NextRun, Run};
use crate::store::{JobOutcome, JobRun, StoreError};

/// The longest jitter of a period: a tenth of it, and not more than this.
const MOST_JITTER: Duration = Duration::from_secs(30);
/// No job runs again sooner.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// How soon a plugin that cannot be asked is looked at again.
const LOOKS_AGAIN: Duration = Duration::from_secs(5);
/// A run that was cut off by the end of the server is repeated after this, or its period if that is shorter.
const REPEATED_AFTER: Duration = Duration::from_secs(60);
/// A plugin gets this much longer than its budget; and the lease, longer than that.
const GRACE: Duration = Duration::from_millis(100);
const LEASE_GRACE: Duration = Duration::from_secs(30);
/// How long a run under way may go on when the server stops.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// What runs of jobs share with operators.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Names this process in leases.
    holder: u64,
    /// A job that never ran, or is overdue, runs so long after the start, in milliseconds.
    first_run_ms: (u32, u32),
    desks: Mutex<BTreeMap<String, Arc<Desk>>>,
}

/// One plugin's.
#[derive(Debug, Default)]
struct Desk {
    /// Held during every run.
    runs: Arc<tokio::sync::Mutex<()>>,
    /// Why a job that is due does not run.
    waits: Mutex<Option<String>>,
}

impl Default for Schedule {
    fn default() -> Self {
        let mut holder = [0; 8];
        // Without randomness two servers could not be told apart; none of them would get far without it anyway.
        let _ = getrandom::fill(&mut holder);
        Self { holder: u64::from_le_bytes(holder), first_run_ms: (1_000, 5_000), desks: Mutex::default() }
    }
}

impl Schedule {
    fn desk(&self, plugin: &str) -> Arc<Desk> {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(desks.entry(plugin.to_owned()).or_default())
    }

    /// Waits until no job of a plugin runs, and lets none begin while the guard is held.
    pub(super) async fn no_run(&self, plugin: &str) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.desk(plugin).runs).lock_owned().await
    }
}

impl Desk {
    fn waits_for(&self, why: Option<String>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// A job, for the operator's eyes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobState {
    /// The plugin's instance name.
    pub plugin: String,
    /// The job.
    pub job: String,
    /// How often it runs, in seconds.
    pub period_s: u32,
    /// Its newest run, and when the next one is due; none if it never ran.
    pub last: Option<JobRun>,
    /// Whether one of the plugin's jobs runs now.
    pub is_busy: bool,
    /// Why it does not run although it is due.
    pub waits_for: Option<String>,
}

/// A run that an operator asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRan {
    /// What the plugin answered.
    pub result: Result<NextRun, HookError>,
    /// What it noted.
    pub notes: Vec<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Why a job was not run.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// There is no plugin of this name with jobs.
    #[error("no plugin {0} is bound to the schedule")]
    NotBound(String),
    /// The plugin has no job of this name.
    #[error("the plugin {plugin} has no job {job}; it has {has}")]
    NoJob {
        /// Whose.
        plugin: String,
        /// Which.
        job: String,
        /// Those that it has, in words.
        has: String,
    },
    /// One of the plugin's jobs runs, here or on another server.
    #[error("a job of the plugin {0} is running: try again when it is done")]
    Busy(String),
    /// The store's own reasons.
    #[error(transparent)]
    Store(#[from] StoreError),
}

// ---- For operators ----

impl Service {
    /// Every job of every plugin that is bound to the schedule, in the order of the chain.
    pub async fn schedule_state(&self) -> Result<Vec<JobState>, ScheduleError> {
        let hooks = self.hooks();
        let mut states = Vec::new();
        for binding in hooks.asked(Hook::Schedule) {
            let plugin = binding.plugin.name();
            let desk = self.schedule.desk(plugin);
            for Job { name, period_s } in binding.plugin.about().jobs {
                states.push(JobState {
                    plugin: plugin.to_owned(),
                    last: self.store.job_run(plugin, &name).await?,
                    job: name,
                    period_s,
                    is_busy: desk.runs.try_lock().is_err(),
                    waits_for: desk.waits.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                });
            }
        }
        Ok(states)
    }

    /// Runs a job now, in its ordinary budget. A dry run changes nothing and leaves no trace.
    pub async fn run_job_now(&self, plugin: &str, job: &str, run: Run) -> Result<JobRan, ScheduleError> {
        let hooks = self.hooks();
        let binding = hooks.asked(Hook::Schedule).find(|binding| binding.plugin.name() == plugin);
        let binding = binding.ok_or_else(|| ScheduleError::NotBound(plugin.to_owned()))?;
        let jobs = binding.plugin.about().jobs;
        let Some(job) = jobs.iter().find(|known| known.name == job) else {
            let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(ScheduleError::NoJob { plugin: plugin.to_owned(), job: job.to_owned(), has });
        };
        let desk = self.schedule.desk(plugin);
        let Ok(_one_run) = desk.runs.try_lock() else { return Err(ScheduleError::Busy(plugin.to_owned())) };
        if !self.is_bound(Hook::Schedule, plugin) {
            return Err(ScheduleError::NotBound(plugin.to_owned()));
        }
        let call = JobCall { hooks: &hooks, binding, job, run, again: &Again::default(), admission: None };
        match self.leased_run(&call).await? {
            Some(ran) => {
                // The task that waits for the next run looks at it anew.
                self.outbox.rebound();
                Ok(ran)
            }
            None => Err(ScheduleError::Busy(plugin.to_owned())),
        }
    }
}

// ---- The schedule itself ----

/// One run in the making.
struct JobCall<'a> {
    hooks: &'a Hooks,
    binding: &'a Binding,
    job: &'a Job,
    run: Run,
    again: &'a Again,
    /// As what the breaker let it through; none: an operator wants it, whatever the breaker says.
    admission: Option<Admission>,
}

/// What a job that is not done takes to its next call.
#[derive(Clone, Debug, Default)]
struct Again {
    /// Of a call that is to be tried again: its id, and how often it was tried.
    id: Option<String>,
    tries: u32,
    /// The first call of the run, and when it began: a run is not made longer than a period by doing little at a time.
    began: Option<(String, Timestamp)>,
}

impl Service {
    /// Runs the jobs of whatever is bound until `stop`.
    pub(super) async fn run_schedules(self: Arc<Self>, stop: CancellationToken) {
        let mut bound = self.outbox.bound.subscribe();
        let mut running: BTreeMap<String, (CancellationToken, JoinHandle<()>)> = BTreeMap::new();
        while !stop.is_cancelled() {
            bound.mark_unchanged();
            let hooks = self.hooks();
            let wanted: BTreeSet<&str> = hooks.asked(Hook::Schedule).map(|binding| binding.plugin.name()).collect();
            let gone: Vec<String> = running
                .iter()
                .filter(|(name, (_, task))| !wanted.contains(name.as_str()) || task.is_finished())
                .map(|(name, _)| name.clone())
                .collect();
            for name in gone {
                if let Some((stop, task)) = running.remove(&name) {
                    stop.cancel();
                    if let Err(error) = task.await {
                        tracing::error!(plugin = name, %error, "running a plugin's jobs broke; it begins again");
                    }
                }
            }
            for name in wanted {
                running.entry(name.to_owned()).or_insert_with(|| {
                    let stop = stop.child_token();
                    let jobs = Arc::clone(&self).run_jobs_of(name.to_owned(), stop.clone());
                    (stop, tokio::spawn(jobs))
                });
            }
            tokio::select! {
                () = stop.cancelled() => {}
                changed = bound.changed() => drop(changed),
                () = tokio::time::sleep(LEASE_GRACE) => {}
            }
        }
        for (_, (stop, task)) in running {
            stop.cancel();
            drop(task.await);
        }
    }

    /// Runs one plugin's jobs, one after the other.
    async fn run_jobs_of(self: Arc<Self>, plugin: String, stop: CancellationToken) {
        let mut bound = self.outbox.bound.subscribe();
        let first_at = later(self.clock.now(), Duration::from_millis(jitter(self.schedule.first_run_ms).into()));
        let mut again: BTreeMap<String, Again> = BTreeMap::new();
        while !stop.is_cancelled() {
            bound.mark_unchanged();
            let pause = match self.run_due(&plugin, first_at, &mut again, &stop).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(plugin, %error, "a plugin's jobs cannot run");
                    LOOKS_AGAIN
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                changed = bound.changed() => drop(changed),
                // A clock that is set meanwhile is noticed soon.
                () = tokio::time::sleep(pause.min(LEASE_GRACE)) => {}
            }
        }
    }

    /// Runs the job that is due for longest, if one is. Returns how long there is nothing to do.
    async fn run_due(
        &self,
        plugin: &str,
        first_at: Timestamp,
        again: &mut BTreeMap<String, Again>,
        stop: &CancellationToken,
    ) -> Result<Duration, StoreError> {
        let hooks = self.hooks();
        let binding = hooks.asked(Hook::Schedule).find(|binding| binding.plugin.name() == plugin);
        let Some(binding) = binding.filter(|binding| binding.plugin.status().is_ready()) else {
            return Ok(LOOKS_AGAIN);
        };
        let now = self.clock.now();
        let jobs = binding.plugin.about().jobs;
        let mut next: Option<(Duration, Timestamp, &Job)> = None;
        for job in &jobs {
            let last = self.store.job_run(plugin, &job.name).await?;
            let pause = pause_before(job, last.as_ref(), first_at, now);
            // Of several that are due, the one that waits for longest: a job that is always due must not starve the others.
            let due_at = last.map_or(first_at, |last| last.next_at);
            if next.is_none_or(|(shortest, earliest, _)| (pause, due_at) < (shortest, earliest)) {
                next = Some((pause, due_at, job));
            }
        }
        let Some((pause, _, job)) = next else { return Ok(LOOKS_AGAIN) };
        if !pause.is_zero() {
            return Ok(pause);
        }
        let desk = self.schedule.desk(plugin);
        // An operator's run goes first.
        let Ok(_one_run) = desk.runs.try_lock() else { return Ok(SHORTEST_PAUSE) };
        if !self.is_bound(Hook::Schedule, plugin) {
            // It may even have been forgotten meanwhile: a run would be written down again.
            return Ok(LOOKS_AGAIN);
        }
        let admission = match binding.breakers.admit(Hook::Schedule, Instant::now()) {
            Ok(admission) => admission,
            Err(open) => {
                desk.waits_for(Some(words(&open)));
                return Ok(LOOKS_AGAIN);
            }
        };
        desk.waits_for(None);
        let mut tried = again.remove(&job.name).unwrap_or_default();
        tried.began = tried.began.filter(|(_, at)| now < later(*at, period(job)));
        // Named here, as a retry must have the same name, whatever the clock says by then.
        let id = tried.id.get_or_insert_with(|| call_id(plugin, &job.name, now)).clone();
        let call = JobCall { hooks: &hooks, binding, job, run: Run::Real, again: &tried, admission: Some(admission) };
        let ran = tokio::select! {
            ran = self.leased_run(&call) => ran?,
            () = async { stop.cancelled().await; tokio::time::sleep(STOPS_WITHIN).await } => return Ok(Duration::ZERO),
        };
        match ran {
            None => {
                desk.waits_for(Some("another server runs its jobs".to_owned()));
                return Ok(LOOKS_AGAIN);
            }
            Some(JobRan { result: Err(HookError::Retry { .. }), .. }) => {
                let tries = tried.tries.saturating_add(1);
                again.insert(job.name.clone(), Again { id: Some(id), tries, began: tried.began });
            }
            Some(JobRan { result: Ok(NextRun::AfterMs(_)), .. }) => {
                let began = tried.began.or(Some((id, now)));
                again.insert(job.name.clone(), Again { began, ..Again::default() });
            }
            Some(_) => {}
        }
        Ok(SHORTEST_PAUSE)
    }

    /// One run under the plugin's lease; none if another server has it. The caller sees to it that there is one at a time.
    async fn leased_run(&self, call: &JobCall<'_>) -> Result<Option<JobRan>, StoreError> {
        let plugin = call.binding.plugin.name();
        let holder = self.schedule.holder;
        let now = self.clock.now();
        let until = later(now, call.hooks.budgets().schedule + LEASE_GRACE);
        if !self.store.take_lease(plugin, holder, now, until).await? {
            return Ok(None);
        }
        let ran = self.run_job(call, now).await;
        self.store.release_lease(plugin, holder).await?;
        ran.map(Some)
    }

    async fn run_job(&self, call: &JobCall<'_>, started_at: Timestamp) -> Result<JobRan, StoreError> {
        let JobCall { hooks, binding, job, run, again, admission } = call;
        let plugin = binding.plugin.name();
        let period = period(job);
        let failed_before = self.store.job_run(plugin, &job.name).await?.map_or(0, |last| last.failures);
        if *run == Run::Real {
            let (outcome, failures) = (JobOutcome::Running, failed_before);
            let next_at = later(started_at, REPEATED_AFTER.min(period));
            self.store
                .put_job_run(plugin, &job.name, &JobRun { started_at, took_ms: None, outcome, next_at, failures })
                .await?;
        }
        let budget = hooks.budgets().schedule;
        let id = again.id.clone().unwrap_or_else(|| call_id(plugin, &job.name, started_at));
        let now_ms = u64::try_from(started_at.as_millisecond()).unwrap_or_default();
        let goes_on_from = again.began.as_ref().map(|(first, _)| first.clone());
        let attempt = again.tries.saturating_add(1);
        let asked = Call { attempt, budget, goes_on_from, ..Call::new(id, now_ms, *run) };
        let began = Instant::now();
        let reply = tokio::time::timeout(budget + GRACE, binding.plugin.run(&asked, &job.name)).await;
        let (result, notes) = match reply {
            Ok(reply) => (reply.result, reply.notes),
            Err(_) => (Err(HookError::Timeout { budget }), Vec::new()),
        };
        let took = began.elapsed();
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if *run == Run::Real {
            if let Some(admission) = admission {
                binding.breakers.record(Hook::Schedule, *admission, result.as_ref().err(), Instant::now());
            }
            let (outcome, pause) = judge(&result, period, took);
            let failures = match &outcome {
                JobOutcome::Later { why } | JobOutcome::Failed { why } => {
                    tracing::warn!(plugin, job = job.name, why, "a job did not go well");
                    failed_before.saturating_add(1)
                }
                JobOutcome::Running | JobOutcome::Done | JobOutcome::More => 0,
            };
            let next_at = later(self.clock.now(), pause);
            let run = JobRun { started_at, took_ms: Some(took_ms), outcome, next_at, failures };
            self.store.put_job_run(plugin, &job.name, &run).await?;
        }
        Ok(JobRan { result, notes, took_ms })
    }
}

/// What became of a run, and after which pause the next one begins.
fn judge(result: &Result<NextRun, HookError>, period: Duration, took: Duration) -> (JobOutcome, Duration) {
    // The period counts from the beginning of a run.
    let at_period = with_jitter(period, most_jitter(period)).saturating_sub(took).max(SHORTEST_PAUSE);
    match result {
        Ok(NextRun::AtPeriod) => (JobOutcome::Done, at_period),
        Ok(NextRun::AfterMs(ms)) => {
            (JobOutcome::More, Duration::from_millis((*ms).into()).max(SHORTEST_PAUSE).min(at_period))
        }
        Err(error @ HookError::Retry { after_ms, .. }) => {
            let pause = Duration::from_millis((*after_ms).into()).clamp(SHORTEST_PAUSE, longest_wait(period));
            (JobOutcome::Later { why: words(error) }, pause)
        }
        Err(error) => (JobOutcome::Failed { why: words(error) }, at_period),
    }
}

/// In how long a job is due.
fn pause_before(job: &Job, last: Option<&JobRun>, first_at: Timestamp, now: Timestamp) -> Duration {
    let from_now = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
    // Whatever is overdue at the start does not run in the first second of it.
    let first = from_now(first_at);
    let Some(last) = last else { return first };
    // The period may have become shorter, and the clock may have been wrong.
    let most = match last.outcome {
        JobOutcome::Later { .. } => longest_wait(period(job)),
        JobOutcome::Running | JobOutcome::Done | JobOutcome::More | JobOutcome::Failed { .. } => {
            period(job) + MOST_JITTER
        }
    };
    from_now(last.next_at).min(most).max(first)
}

/// The longest that a plugin can ask to be left alone.
fn longest_wait(period: Duration) -> Duration {
    period.max(MOST_WAIT)
}

/// A plugin that asks for time gets so much of it, or its period.
const MOST_WAIT: Duration = Duration::from_secs(3_600);

fn period(job: &Job) -> Duration {
    Duration::from_secs(u64::from(job.period_s.max(1)))
}

fn most_jitter(period: Duration) -> Duration {
    (period / 10).min(MOST_JITTER)
}

fn call_id(plugin: &str, job: &str, started_at: Timestamp) -> String {
    format!("{}-{job}-{}-{plugin}", Hook::Schedule, started_at.as_millisecond())
}
