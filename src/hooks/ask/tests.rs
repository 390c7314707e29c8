//! The composition of plugins.
use std::sync::Mutex;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::super::native::NativeDefault;
use super::super::native::tests::{FixedCatalog, call, request};
use super::super::{Edit, ErrorClass, HookSet, ImageBoot, StatesFilter};
use std::collections::BTreeSet;
use std::time::Instant;

use super::*;
use crate::hooks::{Grant, Reply, Trace};

/// Says what it was told to say, and keeps what it was asked.
struct Scripted {
    name: String,
    boot: Result<BootDecision, HookError>,
    discovery: Result<DiscoveryDecision, HookError>,
    delay: Duration,
    seen: Mutex<Vec<BootRequest>>,
}

impl Scripted {
    fn boot(name: &str, boot: Result<BootDecision, HookError>) -> Arc<Self> {
        let discovery = Err(HookError::Invalid("not scripted".into()));
        Arc::new(Self { name: name.into(), boot, discovery, delay: Duration::ZERO, seen: Mutex::default() })
    }

    fn discovery(name: &str, discovery: Result<DiscoveryVerdict, HookError>) -> Arc<Self> {
        let boot = Ok(decision(BootVerdict::Pass));
        let discovery = discovery.map(|verdict| DiscoveryDecision { verdict, reason: String::new() });
        Arc::new(Self { name: name.into(), boot, discovery, delay: Duration::ZERO, seen: Mutex::default() })
    }

    fn slow(name: &str) -> Arc<Self> {
        let plugin = Self::boot(name, Ok(decision(BootVerdict::Pass)));
        Arc::new(Self { delay: Duration::from_secs(60), ..Arc::into_inner(plugin).unwrap() })
    }

    fn seen(&self) -> Vec<BootRequest> {
        self.seen.lock().unwrap().clone()
    }
}

impl Plugin for Scripted {
    fn name(&self) -> &str {
        &self.name
    }
    fn hooks(&self) -> HookSet {
        HookSet::from([Hook::Boot, Hook::Discovery])
    }
    fn status(&self) -> PluginStatus {
        PluginStatus::Ready { version: "1".into(), origin: "test".into(), digest: String::new() }
    }
    fn decide<'a>(&'a self, _: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        self.seen.lock().unwrap().push(request.clone());
        async {
            tokio::time::sleep(self.delay).await;
            Reply { result: self.boot.clone(), notes: vec!["was asked".into()] }
        }
        .boxed()
    }
    fn discovered<'a>(&'a self, _: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        self.seen.lock().unwrap().push(request.clone());
        async {
            tokio::time::sleep(self.delay).await;
            Reply::from(self.discovery.clone())
        }
        .boxed()
    }
}

fn decision(verdict: BootVerdict) -> BootDecision {
    BootDecision { verdict, patch: None, reason: String::new() }
}

fn image(name: &str, append: &[&str]) -> BootDecision {
    let append = append.iter().map(|argument| (*argument).to_owned()).collect();
    decision(BootVerdict::Boot(BootPlan::Image(ImageBoot { image: name.into(), append, vars: vec![] })))
}

fn hold(text: &str) -> BootDecision {
    decision(BootVerdict::Hold(Hold { text: text.into(), again_after_ms: None }))
}

fn trap() -> HookError {
    HookError::Trap("unreachable".into())
}

fn with_default(bindings: Vec<Binding>) -> Hooks {
    Hooks::new(bindings, Arc::new(NativeDefault::new(FixedCatalog::with(&["web", "wipe"], &[]), false)))
}

fn booted(outcome: &BootOutcome) -> String {
    match &outcome.answer {
        BootAnswer::Boot(plan) => TraceResult::from(&BootVerdict::Boot(plan.clone())).to_string(),
        BootAnswer::Hold(hold) => format!("hold: {}", hold.text),
    }
}

fn asked(trace: &Trace) -> Vec<&str> {
    trace.steps.iter().map(|step| step.plugin.as_str()).collect()
}

#[tokio::test]
async fn plugins_are_asked_by_priority_then_name_and_the_default_last() {
    let pass = |name: &str, priority| Binding {
        priority,
        ..Binding::new(Scripted::boot(name, Ok(decision(BootVerdict::Pass))))
    };
    let hooks = with_default(vec![pass("b", 50), pass("z", 1), pass("a", 50)]);
    let outcome = hooks.decide_boot(call(), request("web")).await;
    assert_eq!(asked(&outcome.trace), ["z", "a", "b", "default"]);
    assert_eq!(booted(&outcome), "boot image web");
    assert_eq!(outcome.decided_by, DecidedBy::Plugin("default".into()));
    assert_eq!(outcome.trace.steps[0].notes, ["was asked"]);
}

#[tokio::test]
async fn the_first_boot_or_hold_ends_the_chain() {
    for (first, expected) in
        [(hold("not before nine"), "hold: not before nine"), (image("wipe", &[]), "boot image wipe")]
    {
        let hooks = with_default(vec![Binding::new(Scripted::boot("first", Ok(first)))]);
        let outcome = hooks.decide_boot(call(), request("web")).await;
        assert_eq!((booted(&outcome).as_str(), asked(&outcome.trace)), (expected, vec!["first"]));
    }
}

#[tokio::test]
async fn a_pass_goes_on_with_its_patch_applied() {
    let patch = Patch { hostname: Edit::Set("n1".into()), set: vec![("a.b".into(), json!(1))], ..Patch::default() };
    let renames = Scripted::boot("a", Ok(BootDecision { patch: Some(patch.clone()), ..decision(BootVerdict::Pass) }));
    let looks = Scripted::boot("b", Ok(decision(BootVerdict::Pass)));
    let grants = BTreeSet::from([Grant::Hostname, Grant::Metadata]);
    let hooks = with_default(vec![Binding { grants, ..Binding::new(renames) }, Binding::new(looks.clone())]);
    let outcome = hooks.decide_boot(call(), request("web")).await;
    let seen = looks.seen().remove(0).host;
    assert_eq!((seen.hostname.as_deref(), &seen.metadata["a"]), (Some("n1"), &json!({"b": 1})));
    assert_eq!(outcome.patches, [GivenPatch { plugin: "a".into(), patch }]);
    assert!(outcome.trace.steps[0].patched && !outcome.trace.steps[1].patched);
}

#[tokio::test]
async fn a_patch_beyond_the_grants_counts_as_a_failure_and_is_not_applied() {
    let patch = Patch { states: Some(vec!["wipe".into()]), ..Patch::default() };
    let orders = Scripted::boot("a", Ok(BootDecision { patch: Some(patch), ..decision(BootVerdict::Pass) }));
    let outcome = with_default(vec![Binding::new(orders)]).decide_boot(call(), request("web")).await;
    assert_eq!(outcome.decided_by, DecidedBy::FailureOf("a".into()));
    assert!(booted(&outcome).starts_with("hold: The plugin a may not do that"), "{}", booted(&outcome));
    assert_eq!(outcome.patches, []);
}

#[tokio::test]
async fn a_failing_plugin_holds_or_is_skipped_as_its_binding_says() {
    let failing = |on_error| Binding { on_error, ..Binding::new(Scripted::boot("bad", Err(trap()))) };
    let held = with_default(vec![failing(OnError::Hold)]).decide_boot(call(), request("web")).await;
    assert_eq!(booted(&held), "hold: The plugin bad trapped: unreachable.");
    let skipped = with_default(vec![failing(OnError::Skip)]).decide_boot(call(), request("web")).await;
    assert_eq!(booted(&skipped), "boot image web");
    assert!(matches!(skipped.trace.steps[0].result, TraceResult::Error { class: ErrorClass::Trap, .. }));
}

#[tokio::test]
async fn a_failing_default_plugin_holds_waiting_hosts_and_leaves_finished_ones_their_disk() {
    let hooks = Hooks::new(vec![], Scripted::boot("default", Err(trap())));
    assert!(booted(&hooks.decide_boot(call(), request("web")).await).starts_with("hold"));
    let finished = hooks.decide_boot(call(), request("finished")).await;
    assert_eq!((booted(&finished).as_str(), finished.trace.steps.len()), ("boot the local disk", 0));
}

#[tokio::test]
async fn a_finished_host_gets_its_disk_unless_a_binding_names_finished() {
    let plugin = Scripted::boot("a", Ok(image("rescue", &[])));
    let star = Binding::new(plugin.clone());
    let named = Binding { states: StatesFilter::from(vec!["finished".to_owned()]), ..star.clone() };
    assert_eq!(booted(&with_default(vec![star]).decide_boot(call(), request("finished")).await), "boot the local disk");
    assert_eq!(booted(&with_default(vec![named]).decide_boot(call(), request("finished")).await), "boot image rescue");
}

#[tokio::test]
async fn failure_or_an_ungranted_hold_gives_a_finished_host_its_disk() {
    let states = StatesFilter::from(vec!["finished".to_owned()]);
    for (answer, class) in [(Err(trap()), ErrorClass::Trap), (Ok(hold("wait")), ErrorClass::Denied)] {
        let binding = Binding { states: states.clone(), ..Binding::new(Scripted::boot("a", answer)) };
        let outcome = with_default(vec![binding]).decide_boot(call(), request("finished")).await;
        assert_eq!(booted(&outcome), "boot the local disk");
        assert!(matches!(outcome.trace.steps[0].result, TraceResult::Error { class: c, .. } if c == class));
    }
    let grants = BTreeSet::from([Grant::HoldFinished]);
    let binding = Binding { states, grants, ..Binding::new(Scripted::boot("a", Ok(hold("wait")))) };
    assert_eq!(booted(&with_default(vec![binding]).decide_boot(call(), request("finished")).await), "hold: wait");
}

#[tokio::test]
async fn a_reserved_kernel_argument_is_a_bad_answer() {
    let plugin = Scripted::boot("a", Ok(image("web", &["quiet", "rd.kiwi.oem.installdevice=/dev/sda"])));
    let outcome = with_default(vec![Binding::new(plugin)]).decide_boot(call(), request("web")).await;
    assert_eq!(outcome.decided_by, DecidedBy::FailureOf("a".into()));
    assert!(matches!(outcome.trace.steps[0].result, TraceResult::Error { class: ErrorClass::BadAnswer, .. }));
}

#[tokio::test]
async fn plugins_that_hang_cannot_starve_the_default_or_the_chain() {
    let budgets = Budgets {
        call: Duration::from_millis(100),
        boot_chain: Duration::from_millis(500),
        discovery_chain: Duration::from_millis(250),
        ..Budgets::default()
    };
    let slow = |name: &str| Binding { on_error: OnError::Skip, ..Binding::new(Scripted::slow(name)) };
    let hooks = with_default("abcdefg".chars().map(|c| slow(&c.to_string())).collect()).with_budgets(budgets);
    let start = Instant::now();
    let outcome = hooks.decide_boot(call(), request("web")).await;
    assert!(start.elapsed() < Duration::from_millis(550), "{:?}", start.elapsed());
    assert_eq!(booted(&outcome), "boot image web");
    let failed = |n: usize, expected| matches!(&outcome.trace.steps[n].result, TraceResult::Error { class, .. } if *class == expected);
    assert!(failed(0, ErrorClass::Timeout) && failed(6, ErrorClass::Unavailable), "{}", outcome.trace);
}

#[tokio::test]
async fn a_plugin_that_asks_to_be_tried_again_says_when() {
    let later = HookError::Retry { after_ms: 7_000, reason: "NetBox is down".into() };
    let outcome =
        with_default(vec![Binding::new(Scripted::boot("a", Err(later)))]).decide_boot(call(), request("web")).await;
    assert!(matches!(outcome.answer, BootAnswer::Hold(hold) if hold.again_after_ms == Some(7_000)));
}

#[tokio::test]
async fn an_unknown_machine_is_admitted_with_what_all_plugins_gave_it() {
    let patch =
        Patch { hostname: Edit::Set("n1".into()), set: vec![("site".into(), json!("fra1"))], ..Patch::default() };
    let bindings = vec![
        Binding::new(Scripted::discovery("a", Ok(DiscoveryVerdict::Admit(patch)))),
        Binding::new(Scripted::discovery("b", Err(trap()))),
    ];
    let outcome = with_default(bindings).discovered(call(), request("new")).await;
    assert_eq!(asked(&outcome.trace), ["a", "b", "default"]);
    let DiscoveryAnswer::Admit(host) = outcome.answer else { panic!("refused") };
    assert_eq!((host.hostname.as_deref(), host.state(), &host.metadata["site"]), (Some("n1"), "new", &json!("fra1")));
}

#[tokio::test]
async fn a_refusal_ends_the_chain_and_an_ungranted_installation_is_passed_over() {
    let refuses = Binding::new(Scripted::discovery("a", Ok(DiscoveryVerdict::Refuse("not ours".into()))));
    let outcome = with_default(vec![refuses]).discovered(call(), request("new")).await;
    assert_eq!(outcome.answer, DiscoveryAnswer::Refuse { plugin: "a".into(), text: "not ours".into() });

    let patch = Patch { states: Some(vec!["web".into()]), ..Patch::default() };
    let installs = Binding::new(Scripted::discovery("a", Ok(DiscoveryVerdict::Admit(patch))));
    let outcome = with_default(vec![installs]).discovered(call(), request("new")).await;
    assert!(matches!(outcome.answer, DiscoveryAnswer::Admit(host) if host.states == ["new"]));
}

#[tokio::test]
async fn chains_can_be_asked_from_any_task() {
    let hooks = Arc::new(with_default(vec![]));
    let asked = tokio::spawn(async move {
        let boot = hooks.decide_boot(call(), request("web")).await;
        (boot, hooks.discovered(call(), request("new")).await)
    });
    assert_eq!(booted(&asked.await.unwrap().0), "boot image web");
}
