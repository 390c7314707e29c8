//! Jobs of native plugins, over real stores.
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::*;
use crate::domain::Ignore;
use crate::hooks::native::NativeDefault;
use crate::hooks::{About, HookSet, Plugin, PluginStatus, Reply};
use crate::images::{Catalogue, LocalBoot};
use crate::render::Renderer;
use crate::service::fixtures::until;
use crate::service::{Settings, Shelf, SystemClock};
use crate::store::{Store, StoreOptions};

type Answer = dyn Fn(&str, u32) -> Result<NextRun, HookError> + Send + Sync;

/// Keeps what it was asked to run.
struct Worker {
    jobs: Vec<Job>,
    answer: Box<Answer>,
    takes: Duration,
    calls: Mutex<Vec<(String, Call)>>,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
}

impl Worker {
    fn new(
        jobs: &[(&str, u32)],
        answer: impl Fn(&str, u32) -> Result<NextRun, HookError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            jobs: jobs.iter().map(|(name, period_s)| Job { name: (*name).to_owned(), period_s: *period_s }).collect(),
            answer: Box::new(answer),
            takes: Duration::ZERO,
            calls: Mutex::default(),
            at_once: AtomicU32::new(0),
            most_at_once: AtomicU32::new(0),
        }
    }

    fn calls(&self) -> Vec<(String, Call)> {
        self.calls.lock().unwrap().clone()
    }
}

impl Plugin for Worker {
    fn name(&self) -> &str {
        "netbox"
    }
    fn hooks(&self) -> HookSet {
        HookSet::from([Hook::Schedule])
    }
    fn status(&self) -> PluginStatus {
        PluginStatus::Ready { version: "1".into(), origin: "test".into(), digest: String::new() }
    }
    fn about(&self) -> About {
        About { jobs: self.jobs.clone(), ..About::default() }
    }
    fn run<'a>(&'a self, call: &'a Call, job: &'a str) -> BoxFuture<'a, Reply<NextRun>> {
        async move {
            let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
            let number = {
                let mut calls = self.calls.lock().unwrap();
                calls.push((job.to_owned(), call.clone()));
                u32::try_from(calls.len()).unwrap()
            };
            tokio::time::sleep(self.takes).await;
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            Reply { result: (self.answer)(job, number), notes: vec!["was asked".into()] }
        }
        .boxed()
    }
}

struct Site {
    service: Arc<Service>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Site {
    fn new(store: Store, worker: &Arc<Worker>) -> Self {
        let catalogue = Arc::new(Catalogue::new(std::path::Path::new("/nonexistent")));
        let renderer = Arc::new(Renderer::new(None));
        let shelf = Arc::new(Shelf::new(Arc::clone(&catalogue), Arc::clone(&renderer)));
        let hooks = Hooks::new(vec![Binding::new(worker.clone())], Arc::new(NativeDefault::new(shelf, false)));
        let settings = Settings {
            public_url: None,
            most_attempts: 3,
            again_s: (3, 30),
            new_hosts_per_minute: None,
            reinstalls_per_hour: 10,
            open_state: false,
            open_hosts: false,
            local: LocalBoot::Exit,
            ignore: Ignore::default(),
        };
        let mut service = Service::new(store, hooks, catalogue, renderer, Arc::new(SystemClock), settings);
        service.schedule.first_run_ms = (10, 20);
        Self { service: Arc::new(service), stop: CancellationToken::new(), task: None }
    }

    fn start(&mut self) {
        self.task = Some(tokio::spawn(Arc::clone(&self.service).run_plugins(self.stop.clone())));
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
        self.service.close().await;
        drop(Arc::into_inner(self.service).unwrap());
    }

    async fn job(&self) -> JobState {
        self.service.schedule_state().await.unwrap().remove(0)
    }

    /// Waits until the newest run of the job is so.
    async fn until_job(&self, is_so: impl Fn(&JobRun) -> bool) -> JobRun {
        for _ in 0..1_000 {
            if let Some(last) = self.job().await.last.filter(&is_so) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for a run");
    }
}

const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 8 << 20, min_free_bytes: 0 };

#[tokio::test]
async fn a_job_runs_soon_after_the_start_and_then_at_its_period_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for expected in [1, 0] {
        // The other one is new after the restart. It runs behind whatever is due as long as it is.
        let jobs = [("sync", 86_400), ("other", 86_400)];
        let jobs = if expected > 0 { &jobs[..1] } else { &jobs[..] };
        let worker = Arc::new(Worker::new(jobs, |_, _| Ok(NextRun::AtPeriod)));
        let mut site = Site::new(Store::open(dir.path(), &OPTIONS).await.unwrap(), &worker);
        site.start();
        if expected > 0 {
            site.until_job(|last| last.outcome == JobOutcome::Done).await;
        } else {
            until("the other one ran", || worker.calls().iter().any(|(job, _)| job == "other")).await;
        }
        assert_eq!(worker.calls().iter().filter(|(job, _)| job == "sync").count(), expected);
        let job = site.job().await;
        let last = job.last.unwrap();
        assert_eq!((job.job.as_str(), &last.outcome), ("sync", &JobOutcome::Done));
        let pause = last.next_at.duration_since(last.started_at);
        assert!((86_399..=86_431).contains(&pause.as_secs()), "{pause}");
        site.stop().await;
    }
}

#[tokio::test]
async fn a_plugin_runs_one_job_at_a_time_and_more_often_if_it_says_so() {
    let worker = Worker::new(&[("a", 3_600), ("b", 3_600)], |_, number| {
        Ok(if number < 12 { NextRun::AfterMs(1) } else { NextRun::AtPeriod })
    });
    let worker = Arc::new(Worker { takes: Duration::from_millis(5), ..worker });
    let mut site = Site::new(Store::memory(), &worker);
    site.start();
    until("both are done", || worker.calls().len() >= 13).await;
    assert_eq!(worker.most_at_once.load(Ordering::Relaxed), 1);
    let jobs: Vec<String> = worker.calls().into_iter().map(|(job, _)| job).collect();
    assert!(jobs[..3].contains(&"b".to_owned()), "a job that is always due starves another: {jobs:?}");
    // `after-ms` has a lower bound.
    let first: Vec<u64> =
        worker.calls().iter().filter(|(job, _)| job == "a").map(|(_, call)| call.now_ms).take(2).collect();
    assert!(first[1] - first[0] >= 100, "{first:?}");
    site.stop().await;
}

#[tokio::test]
async fn a_run_that_asks_for_time_is_the_same_call_again() {
    let worker = Arc::new(Worker::new(&[("sync", 3_600)], |_, number| match number {
        1 | 2 => Err(HookError::Retry { after_ms: 50, reason: "NetBox is down".into() }),
        _ => Ok(NextRun::AtPeriod),
    }));
    let mut site = Site::new(Store::memory(), &worker);
    site.start();
    until("it went well", || worker.calls().len() >= 3).await;
    let calls = worker.calls();
    assert!(calls.iter().all(|(_, call)| call.id == calls[0].1.id), "{calls:?}");
    assert_eq!(calls.iter().map(|(_, call)| call.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    site.stop().await;
}

#[tokio::test]
async fn what_a_job_does_in_small_pieces_is_one_run_until_its_period_is_over() {
    let worker = Arc::new(Worker::new(&[("sync", 1)], |_, number| match number {
        2 => Err(HookError::Retry { after_ms: 1, reason: "busy".into() }),
        _ => Ok(NextRun::AfterMs(1)),
    }));
    let mut site = Site::new(Store::memory(), &worker);
    site.start();
    let runs = || {
        let mut runs: Vec<String> = worker.calls().iter().map(|(_, call)| call.run_id().to_owned()).collect();
        runs.dedup();
        runs
    };
    until("there are three runs", || runs().len() >= 3).await;
    let calls = worker.calls();
    assert!(calls.len() > 6, "each of them many calls");
    let first = &calls[0].1;
    assert_eq!((first.goes_on_from.as_ref(), calls[1].1.run_id(), calls[3].1.run_id()), (None, &*first.id, &*first.id));
    let mut seen = std::collections::BTreeSet::new();
    assert!(runs().into_iter().all(|run| seen.insert(run)), "none comes back");
    let second = calls.iter().find(|(_, call)| call.run_id() != first.id).unwrap();
    assert!(second.1.now_ms >= first.now_ms + 990, "{calls:?}");
    site.stop().await;
}

#[tokio::test]
async fn a_run_that_fails_is_reported_and_repeated_at_the_period() {
    let worker = Arc::new(Worker::new(&[("sync", 3_600)], |_, _| Err(HookError::Trap("unreachable".into()))));
    let mut site = Site::new(Store::memory(), &worker);
    site.start();
    until("it ran", || !worker.calls().is_empty()).await;
    let last = site.until_job(|last| matches!(last.outcome, JobOutcome::Failed { .. })).await;
    assert_eq!(worker.calls().len(), 1);
    assert!(matches!(&last.outcome, JobOutcome::Failed { why } if why.contains("unreachable")), "{last:?}");
    assert_eq!(last.failures, 1);
    site.stop().await;
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace_and_a_real_one_does() {
    let worker = Arc::new(Worker::new(&[("sync", 3_600)], |_, _| Ok(NextRun::AtPeriod)));
    let site = Site::new(Store::memory(), &worker);
    let ran = site.service.run_job_now("netbox", "sync", Run::Dry).await.unwrap();
    assert_eq!((ran.result, ran.notes), (Ok(NextRun::AtPeriod), vec!["was asked".to_owned()]));
    assert_eq!(worker.calls()[0].1.run, Run::Dry);
    assert_eq!(site.job().await.last, None);
    site.service.run_job_now("netbox", "sync", Run::Real).await.unwrap();
    assert_eq!(site.job().await.last.unwrap().outcome, JobOutcome::Done);
    let missing = site.service.run_job_now("netbox", "synk", Run::Dry).await.unwrap_err();
    assert_eq!(missing.to_string(), "the plugin netbox has no job synk; it has sync");
}

#[tokio::test]
async fn a_job_does_not_run_while_another_server_has_the_lease() {
    let worker = Arc::new(Worker::new(&[("sync", 3_600)], |_, _| Ok(NextRun::AtPeriod)));
    let mut site = Site::new(Store::memory(), &worker);
    let (now, other) = (site.service.now(), site.service.schedule.holder.wrapping_add(1));
    let until_then = later(now, Duration::from_secs(60));
    assert!(site.service.store.take_lease("netbox", other, now, until_then).await.unwrap());
    site.start();
    while site.job().await.waits_for.as_deref() != Some("another server runs its jobs") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(worker.calls().len(), 0);
    let busy = site.service.run_job_now("netbox", "sync", Run::Dry).await;
    assert!(matches!(busy, Err(ScheduleError::Busy(_))), "{busy:?}");
    // Over, it is anybody's.
    let holder = site.service.schedule.holder;
    assert!(site.service.store.take_lease("netbox", holder, until_then, until_then).await.unwrap());
    site.stop().await;
}

#[test]
fn a_plugin_cannot_put_a_job_off_for_weeks_and_a_wrong_clock_neither() {
    let period = Duration::from_secs(60);
    let retry = Err(HookError::Retry { after_ms: u32::MAX, reason: "later".into() });
    assert_eq!(judge(&retry, period, Duration::ZERO).1, Duration::from_secs(3_600));
    let job = Job { name: "sync".into(), period_s: 60 };
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let last = JobRun {
        started_at: now,
        took_ms: None,
        outcome: JobOutcome::Later { why: "later".into() },
        next_at: "2060-01-01T00:00:00Z".parse().unwrap(),
        failures: 1,
    };
    assert_eq!(pause_before(&job, Some(&last), now, now), Duration::from_secs(3_600));
}

#[test]
fn jitter_makes_a_period_a_tenth_longer_at_most_and_never_half_a_minute() {
    for (period_s, most_ms) in [(10, 11_000), (3_600, 3_630_000)] {
        for _ in 0..200 {
            let period = with_jitter(Duration::from_secs(period_s), most_jitter(Duration::from_secs(period_s)));
            assert!((u128::from(period_s) * 1_000..=most_ms).contains(&period.as_millis()), "{period:?}");
        }
    }
}

#[tokio::test]
async fn failures_in_a_row_are_counted_until_a_run_goes_well() {
    let worker = Arc::new(Worker::new(&[("sync", 3_600)], |_, number| match number {
        1..=3 => Err(HookError::Failed("no".into())),
        _ => Ok(NextRun::AtPeriod),
    }));
    let site = Site::new(Store::memory(), &worker);
    let mut counted = Vec::new();
    for _ in 0..4 {
        site.service.run_job_now("netbox", "sync", Run::Real).await.unwrap();
        counted.push(site.job().await.last.unwrap().failures);
    }
    assert_eq!(counted, [1, 2, 3, 0]);
}
