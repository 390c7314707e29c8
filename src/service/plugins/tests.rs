use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::hooks::{Binding, HookError};
use crate::hooks::{
    BootDecision, BootPlan, BootRequest, BootVerdict, Call, DiscoveryDecision, DiscoveryVerdict, Edit, Grant, Grants,
    Hook, HookSet, ImageBoot, Plugin, PluginStatus, Reply, Run, TransitionVerdict,
};
use crate::service::fixtures::{Says, Site, ada, by_ada, registration, site};
use crate::service::{Act, Outcome};
use crate::store::Orders;

const ALL: [Grant; 6] =
    [Grant::Read, Grant::Hostname, Grant::Metadata, Grant::States, Grant::Reinstall, Grant::HoldFinished];
const ALL_BUT_REINSTALL: [Grant; 5] =
    [Grant::Read, Grant::Hostname, Grant::Metadata, Grant::States, Grant::HoldFinished];

struct Lab {
    site: Site,
    core: PluginCore,
    calls: AtomicU32,
}

fn lab(site: Site) -> Lab {
    let (catalogue, renderer) = (Arc::clone(&site.service.catalogue), Arc::clone(&site.service.renderer));
    let core = PluginCore::new(Shelf::new(catalogue, renderer));
    core.attach(&site.service);
    Lab { site, core, calls: AtomicU32::new(0) }
}

fn states(states: &[&str], order: Option<&str>) -> Patch {
    let states = Some(states.iter().map(|state| (*state).to_owned()).collect());
    Patch { states, order: order.map(str::to_owned), ..Patch::default() }
}

fn set(path: &str, value: Value) -> Patch {
    Patch { set: vec![(path.to_owned(), value)], ..Patch::default() }
}

fn named(name: &str) -> Patch {
    Patch { hostname: Edit::Set(name.to_owned()), ..Patch::default() }
}

fn page(limit: u32) -> Page {
    Page { after: None, limit }
}

impl Lab {
    /// Host 1 with this queue.
    async fn with_host(queue: &str) -> Self {
        lab(Site::with_host(queue, Vec::new()).await)
    }

    /// A run of its own of the plugin `cmdb`, which may give two orders.
    fn run(&self, grants: &[Grant]) -> Allowance {
        let call = format!("run-{}", self.calls.fetch_add(1, Ordering::Relaxed));
        allowance("cmdb", grants, Hook::Schedule, Run::Real, &call)
    }

    async fn revision(&self, id: u64) -> u64 {
        self.site.service.find_one(&id.to_string()).await.unwrap().revision
    }

    async fn apply(&self, by: &Allowance, id: u64, patch: Patch) -> Result<KnownHost, HostsError> {
        self.core.apply(by, id, self.revision(id).await, patch).await
    }

    /// Host 1 is declared done by a person.
    async fn finish(&self) {
        self.site.service.act(HostId::new(1), &Act::Finish { abort: false }, &by_ada()).await.unwrap();
    }

    async fn orders(&self) -> Orders {
        self.site.service.orders_state(&cmdb()).await.unwrap()
    }
}

fn allowance(plugin: &str, hosts: &[Grant], hook: Hook, run: Run, call: &str) -> Allowance {
    let grants = Grants { hosts: hosts.iter().copied().collect(), kv: true, max_orders_per_run: 2 };
    Allowance::new(plugin.into(), Arc::new(grants), hook, run, call.to_owned())
}

fn cmdb() -> PluginName {
    "cmdb".parse().unwrap()
}

/// A host that plugins caused no change of.
async fn untouched(lab: &Lab) -> bool {
    let events = lab.site.service.timeline(HostId::new(1), 1, 100).await.unwrap();
    lab.site.states().await == "finished"
        && !events.iter().any(|event| matches!(event.actor, crate::domain::Actor::Plugin(_)))
}

// ---- A plugin that tries to wipe finished hosts ----

#[tokio::test]
async fn a_finished_host_is_not_wiped_without_the_grant_however_it_is_written() {
    let lab = Lab::with_host("finished").await;
    for queue in [&["web"][..], &["new"], &["live", "web"], &["finished", "web"], &["web", "finished"], &["live"]] {
        for order in [None, Some("CHG1")] {
            let by = lab.run(&ALL_BUT_REINSTALL);
            let refused = lab.apply(&by, 1, states(queue, order)).await.unwrap_err();
            assert!(matches!(&refused, HostsError::Denied(why) if why.contains("`reinstall`")), "{queue:?}: {refused}");
        }
    }
    assert!(untouched(&lab).await);
    assert_eq!(lab.orders().await, Orders::AsGranted, "what was refused is no order");
}

#[tokio::test]
async fn a_finished_host_is_not_wiped_without_an_orders_name() {
    let lab = Lab::with_host("finished").await;
    for order in [None, Some(""), Some("  "), Some("a\nb")] {
        let refused = lab.apply(&lab.run(&ALL), 1, states(&["web"], order)).await.unwrap_err();
        assert!(matches!(&refused, HostsError::Denied(_) | HostsError::Invalid(_)), "{order:?}: {refused}");
    }
    let long = "x".repeat(201);
    assert!(matches!(lab.apply(&lab.run(&ALL), 1, states(&["web"], Some(&long))).await, Err(HostsError::Invalid(_))));
    assert!(untouched(&lab).await);
}

#[tokio::test]
async fn the_same_wish_is_carried_out_once_whoever_repeats_it() {
    let lab = Lab::with_host("finished").await;
    let installed = lab.apply(&lab.run(&ALL), 1, states(&["web"], Some("CHG1"))).await.unwrap();
    assert_eq!(installed.states, ["web"]);
    lab.finish().await;
    for plugin in ["cmdb", "other"] {
        let by = allowance(plugin, &ALL, Hook::Events, Run::Real, "c");
        for queue in [&["web"][..], &["live"], &["finished"]] {
            let refused = lab.apply(&by, 1, states(queue, Some("CHG1"))).await.unwrap_err();
            assert_eq!(
                refused.to_string(),
                "node1 was ordered by the name CHG1 before: a wish is carried out once",
                "{plugin}: {queue:?}"
            );
        }
    }
    assert_eq!(lab.site.states().await, "finished");
    assert!(lab.apply(&lab.run(&ALL), 1, states(&["web"], Some("CHG2"))).await.is_ok());
    let events = lab.site.service.timeline(HostId::new(1), 1, 100).await.unwrap();
    assert!(format!("{events:?}").contains("CHG2"), "the name is on the timeline");
}

#[tokio::test]
async fn a_name_that_was_used_before_the_host_was_finished_is_spent_too() {
    let lab = Lab::with_host("new").await;
    lab.apply(&lab.run(&ALL), 1, states(&["web"], Some("CHG1"))).await.unwrap();
    lab.finish().await;
    assert!(lab.apply(&lab.run(&ALL), 1, states(&["web"], Some("CHG1"))).await.is_err());
    assert_eq!(lab.site.states().await, "finished");
}

#[tokio::test]
async fn a_finished_host_is_not_wiped_by_way_of_new() {
    let lab = Lab::with_host("finished").await;
    assert!(lab.apply(&lab.run(&ALL_BUT_REINSTALL), 1, states(&["new"], Some("CHG1"))).await.is_err());
    assert!(lab.apply(&lab.run(&ALL), 1, states(&["new"], None)).await.is_err());
    // With all grants it is possible, and the first step is an order with a name and counts.
    let by = lab.run(&ALL);
    lab.apply(&by, 1, states(&["new"], Some("CHG1"))).await.unwrap();
    lab.apply(&by, 1, states(&["web"], None)).await.unwrap();
    assert!(matches!(lab.apply(&by, 1, states(&["web", "live"], None)).await, Err(HostsError::Denied(_))));
}

#[tokio::test]
async fn clearing_and_naming_the_same_states_are_no_orders() {
    let lab = Lab::with_host("finished").await;
    let by = lab.run(&ALL);
    for queue in [&[][..], &["finished"]] {
        let host = lab.apply(&by, 1, states(queue, None)).await.unwrap();
        assert_eq!(host.states, ["finished"]);
    }
    assert!(untouched(&lab).await);
}

#[tokio::test]
async fn a_wish_that_the_host_fulfils_already_is_not_carried_out_when_it_has_finished() {
    let lab = Lab::with_host("web").await;
    let by = lab.run(&ALL);
    let host = lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.unwrap();
    assert_eq!(host.states, ["web"]);
    lab.apply(&by, 1, states(&["finished"], None)).await.unwrap();
    let again = lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.unwrap_err();
    assert!(matches!(&again, HostsError::Denied(why) if why.contains("CHG1")), "{again}");
}

#[tokio::test]
async fn a_grant_that_is_taken_away_ends_for_calls_under_way_too() {
    let lab = Lab::with_host("finished").await;
    let bound = |grants: &[Grant]| {
        let plugin = Says::to_transitions(|_| Ok(TransitionVerdict::Allow));
        Binding { grants: grants.iter().copied().collect(), ..plugin.bound() }
    };
    let by = allowance("says", &ALL, Hook::Schedule, Run::Real, "began before");
    for (left, grant) in [(&ALL_BUT_REINSTALL[..], "`reinstall`"), (&[Grant::Read], "`states`"), (&[], "`read`")] {
        lab.site.bind(vec![bound(left)]);
        let refused = lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.unwrap_err();
        assert!(matches!(&refused, HostsError::Denied(why) if why.contains(grant)), "{left:?}: {refused}");
    }
    assert!(untouched(&lab).await);
    lab.site.bind(vec![bound(&ALL)]);
    assert!(lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.is_ok());
    let few = allowance("says", &[Grant::Read], Hook::Schedule, Run::Real, "c");
    assert!(lab.apply(&few, 1, named("x")).await.is_err(), "what was given since is for later calls");
}

/// A plugin that has `live` boot before whatever is ordered.
fn prepares() -> Binding {
    let prepared = |asked: &[String]| {
        let missing = asked.iter().all(|state| state != "live").then(|| "live".to_owned());
        missing.into_iter().chain(asked.iter().cloned()).collect()
    };
    let plugin = Says::to_transitions(move |request| Ok(TransitionVerdict::Redirect(prepared(&request.to))));
    Binding { grants: BTreeSet::from([Grant::States]), ..plugin.bound() }
}

#[tokio::test]
async fn a_wish_that_is_under_way_in_other_words_is_not_carried_out_when_the_host_has_finished() {
    let lab = Lab::with_host("new").await;
    lab.site.bind(vec![prepares()]);
    lab.site.set(1, "web", &by_ada()).await.unwrap();
    assert_eq!(lab.site.states().await, "live,web");
    let by = lab.run(&ALL);
    let host = lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.unwrap();
    assert_eq!(host.states, ["live", "web"], "that is on its way");
    let nameless = lab.apply(&by, 1, states(&["web"], None)).await.unwrap_err();
    assert!(matches!(&nameless, HostsError::Unavailable(why) if why.contains("keeps the states")), "{nameless}");
    lab.site.bind(Vec::new());
    lab.apply(&by, 1, states(&["finished"], None)).await.unwrap();
    let again = lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.unwrap_err();
    assert!(matches!(&again, HostsError::Denied(why) if why.contains("CHG1")), "{again}");
}

/// Greets new machines with `web`, under a name.
struct Greets;

impl Plugin for Greets {
    fn name(&self) -> &str {
        "greets"
    }
    fn hooks(&self) -> HookSet {
        HookSet::from([Hook::Discovery])
    }
    fn status(&self) -> PluginStatus {
        PluginStatus::Ready { version: "1".to_owned(), origin: "native".to_owned(), digest: String::new() }
    }
    fn discovered<'a>(&'a self, _: &'a Call, _: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        let verdict = DiscoveryVerdict::Admit(states(&["web"], Some("rule 1")));
        std::future::ready(Reply::from(Ok(DiscoveryDecision { verdict, reason: String::new() }))).boxed()
    }
}

#[tokio::test]
async fn the_first_states_of_a_machine_are_a_wish_that_is_carried_out_once_too() {
    let greets = Binding { grants: BTreeSet::from(ALL), ..Binding::new(Arc::new(Greets)) };
    let lab = lab(Site::with_host("finished", vec![greets]).await);
    lab.site.boot_of("SNA2", "52:54:00:00:00:02").await;
    let machine = lab.site.service.find_one("52:54:00:00:00:02").await.unwrap();
    assert_eq!(machine.states.to_string(), "web");
    // A person lets it wait instead. Nothing was installed, so no grant but the name is in the way.
    lab.site.set(machine.id.get(), "new", &by_ada()).await.unwrap();
    let refused = lab.apply(&lab.run(&ALL), machine.id.get(), states(&["web"], Some("rule 1"))).await.unwrap_err();
    assert!(matches!(&refused, HostsError::Denied(why) if why.contains("rule 1")), "{refused}");
    assert!(lab.apply(&lab.run(&ALL), machine.id.get(), states(&["web"], Some("rule 2"))).await.is_ok());
}

#[tokio::test]
async fn the_disk_that_dies_is_not_chosen_by_who_may_only_describe() {
    let lab = Lab::with_host("finished").await;
    let describes = lab.run(&[Grant::Read, Grant::Metadata]);
    for path in ["install_device", "install_device.x", r"install\_device", "local"] {
        let refused = lab.apply(&describes, 1, set(path, json!("/dev/sdb"))).await.unwrap_err();
        assert!(matches!(&refused, HostsError::Denied(why) if why.contains("`states`")), "{path}: {refused}");
    }
    assert!(untouched(&lab).await);
    let host = lab.apply(&describes, 1, set("site", json!("ams1"))).await.unwrap();
    assert_eq!(host.metadata.get("site"), Some(&json!("ams1")));
}

/// Answers every hook by an order.
struct Grabs;

impl Plugin for Grabs {
    fn name(&self) -> &str {
        "grabs"
    }
    fn hooks(&self) -> HookSet {
        HookSet::from([Hook::Boot, Hook::Discovery])
    }
    fn status(&self) -> PluginStatus {
        PluginStatus::Ready { version: "1".to_owned(), origin: "native".to_owned(), digest: String::new() }
    }
    fn decide<'a>(&'a self, _: &'a Call, request: &'a BootRequest) -> BoxFuture<'a, Reply<BootDecision>> {
        let image = BootPlan::Image(ImageBoot { image: "web".to_owned(), append: Vec::new(), vars: Vec::new() });
        // The first time with a patch, then with the plan alone.
        let patch = request.host.metadata.contains_key("rack").then(|| states(&["web"], Some("CHG1")));
        let decision = BootDecision { verdict: BootVerdict::Boot(image), patch, reason: String::new() };
        std::future::ready(Reply::from(Ok(decision))).boxed()
    }
    fn discovered<'a>(&'a self, _: &'a Call, _: &'a BootRequest) -> BoxFuture<'a, Reply<DiscoveryDecision>> {
        let verdict = DiscoveryVerdict::Admit(states(&["web"], None));
        std::future::ready(Reply::from(Ok(DiscoveryDecision { verdict, reason: String::new() }))).boxed()
    }
}

#[tokio::test]
async fn a_finished_host_is_not_wiped_by_answers_to_boot_and_discovery() {
    for patched in [true, false] {
        let binding = Binding {
            states: vec!["*".to_owned(), "finished".to_owned()].into(),
            grants: BTreeSet::from(ALL),
            ..Binding::new(Arc::new(Grabs))
        };
        let lab = lab(Site::with_host("finished", vec![binding]).await);
        if !patched {
            lab.apply(&lab.run(&ALL), 1, Patch { unset: vec!["rack".to_owned()], ..Patch::default() }).await.unwrap();
        }
        let (outcome, script) = lab.site.boot().await;
        assert_ne!(outcome, Outcome::Boot, "{script}");
        assert_eq!(lab.site.states().await, "finished");
    }
}

#[tokio::test]
async fn what_another_plugin_refuses_is_not_ordered_and_does_not_count() {
    let lab = Lab::with_host("finished").await;
    lab.site.bind(vec![Says::to_transitions(|_| Ok(TransitionVerdict::Deny("not today".to_owned()))).bound()]);
    let by = lab.run(&ALL);
    for _ in 0..4 {
        let refused = lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.unwrap_err();
        assert!(matches!(&refused, HostsError::Unavailable(why) if why.contains("not today")), "{refused}");
    }
    lab.site.bind(vec![Says::to_transitions(|_| Err(HookError::Failed("broke".to_owned()))).bound()]);
    assert!(lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.is_err());
    assert!(untouched(&lab).await);
    lab.site.bind(Vec::new());
    assert!(lab.apply(&by, 1, states(&["web"], Some("CHG1"))).await.is_ok());
}

#[tokio::test]
async fn many_at_once_stop_the_plugin_until_somebody_approves() {
    let lab = lab(Site::with_three_hosts().await);
    let by = lab.run(&ALL);
    for id in [1, 2] {
        lab.apply(&by, id, states(&["web"], None)).await.unwrap();
    }
    let refused = lab.apply(&by, 3, states(&["web"], None)).await.unwrap_err();
    assert!(matches!(&refused, HostsError::Denied(why) if why.contains("kiwispray plugin approve cmdb")), "{refused}");
    assert!(matches!(lab.orders().await, Orders::Stopped { most: 2, host, .. } if host == HostId::new(3)));
    let refused = lab.apply(&lab.run(&ALL), 3, states(&["web"], None)).await.unwrap_err();
    assert!(refused.to_string().contains("plugin approve"), "no later run either: {refused}");
    let events = lab.site.service.timeline(HostId::new(3), 1, 100).await.unwrap();
    let stops: Vec<_> = events.iter().filter(|event| event.kind.name() == "order_refused").collect();
    assert_eq!((stops.len(), stops[0].actor.clone()), (1, crate::domain::Actor::Plugin("cmdb".to_owned())));
    assert!(format!("{:?}", stops[0].kind).contains("kiwispray plugin approve cmdb"), "{stops:?}");
    assert!(lab.apply(&lab.run(&ALL), 3, states(&["live"], None)).await.is_ok(), "what writes nothing is no order");

    let approved = lab.site.service.approve_orders(&cmdb(), Some(3), "ada").await.unwrap();
    assert_eq!(approved, 3);
    let by = lab.run(&ALL);
    for (id, queue) in [(1, ["live", "web"]), (2, ["live", "web"]), (3, ["live", "web"])] {
        lab.apply(&by, id, states(&queue, None)).await.unwrap();
    }
    assert!(matches!(lab.orders().await, Orders::Approved { most: 3, call: Some(_), .. }));
    let by = lab.run(&ALL);
    for id in [1, 2] {
        lab.apply(&by, id, states(&["web"], None)).await.unwrap();
    }
    assert!(lab.apply(&by, 3, states(&["web"], None)).await.is_err(), "the approval was for one run");
}

#[tokio::test]
async fn a_retry_of_a_run_does_not_begin_to_count_anew() {
    let lab = lab(Site::with_three_hosts().await);
    for (id, expected) in [(1, true), (2, true), (3, false)] {
        let retry = allowance("cmdb", &ALL, Hook::Events, Run::Real, "events-7");
        assert_eq!(lab.apply(&retry, id, states(&["web"], None)).await.is_ok(), expected);
    }
    let approved = lab.site.service.approve_orders(&cmdb(), None, "ada").await.unwrap();
    assert_eq!(approved, 2, "as many as it could give when it was stopped");
    let retry = allowance("cmdb", &ALL, Hook::Events, Run::Real, "events-7");
    assert!(lab.apply(&retry, 3, states(&["web"], None)).await.is_ok());
    assert!(matches!(
        lab.site.service.approve_orders(&"other".parse().unwrap(), None, "ada").await,
        Err(ApproveRefused::NotStopped(_))
    ));
}

#[tokio::test]
async fn after_a_restore_a_plugin_does_nothing_twice_until_somebody_approves() {
    let lab = Lab::with_host("finished").await;
    // The name was used before the restore, and the backup does not know.
    lab.site.service.store.as_restored(lab.site.service.clock.now()).await;
    for _ in 0..2 {
        let refused = lab.apply(&lab.run(&ALL), 1, states(&["web"], Some("CHG1"))).await.unwrap_err();
        let says = |why: &str| why.contains("a backup was restored") && why.contains("kiwispray plugin approve cmdb");
        assert!(matches!(&refused, HostsError::Denied(why) if says(why)), "{refused}");
    }
    assert!(untouched(&lab).await);
    assert_eq!(lab.site.service.approve_orders(&cmdb(), None, "ada").await.unwrap(), 0, "what its grant allows");
    assert!(lab.apply(&lab.run(&ALL), 1, states(&["web"], Some("CHG2"))).await.is_ok());
}

#[tokio::test]
async fn a_plugin_that_may_not_order_gives_new_machines_no_queue_either() {
    let greets = Binding { grants: BTreeSet::from(ALL), ..Binding::new(Arc::new(Grabs)) };
    let lab = lab(Site::with_host("finished", vec![greets]).await);
    let states = async |mac: &str| lab.site.service.find_one(mac).await.unwrap().states.to_string();
    lab.site.boot_of("SNA2", "52:54:00:00:00:02").await;
    assert_eq!(states("52:54:00:00:00:02").await, "web");
    lab.site.service.store.as_restored(lab.site.service.clock.now()).await;
    let (outcome, script) = lab.site.boot_of("SNA3", "52:54:00:00:00:03").await;
    assert_eq!((outcome, states("52:54:00:00:00:03").await.as_str()), (Outcome::Hold, "new"), "{script}");
}

#[tokio::test]
async fn a_wish_that_a_stopped_plugin_greets_with_is_not_used_up() {
    let greets = Binding { grants: BTreeSet::from(ALL), ..Binding::new(Arc::new(Greets)) };
    let lab = lab(Site::with_host("finished", vec![greets]).await);
    let store = &lab.site.service.store;
    let stopped = Orders::Stopped { at: lab.site.service.now(), most: 2, host: HostId::new(1) };
    store.put_orders_of(&"greets".parse().unwrap(), &stopped, 0).await.unwrap();
    lab.site.boot_of("SNA2", "52:54:00:00:00:02").await;
    let machine = lab.site.service.find_one("52:54:00:00:00:02").await.unwrap();
    assert_eq!(machine.states.to_string(), "new");
    assert!(lab.apply(&lab.run(&ALL), machine.id.get(), states(&["web"], Some("rule 1"))).await.is_ok());
}

// ---- Changes ----

#[tokio::test]
async fn a_dry_run_answers_as_if_and_changes_and_counts_nothing() {
    let lab = lab(Site::with_three_hosts().await);
    let by = allowance("cmdb", &ALL, Hook::Schedule, Run::Dry, "dry");
    for id in [1, 2] {
        assert_eq!(lab.apply(&by, id, states(&["web"], Some("CHG1"))).await.unwrap().states, ["web"]);
    }
    assert!(lab.apply(&by, 3, states(&["web"], None)).await.is_err(), "it would be one too many");
    assert!(matches!(lab.apply(&by, 1, states(&["nothing"], None)).await, Err(HostsError::Invalid(_))));
    assert_eq!(lab.orders().await, Orders::AsGranted);
    for id in 1..=3 {
        assert_eq!(lab.core.host(&by, id).await.unwrap().states, ["new"]);
    }
    assert_eq!(lab.core.kv_put(&by, "k", b"v".to_vec(), Expect::Absent).await, Ok(1));
    assert_eq!(lab.core.kv_get(&by, "k").await, Ok(None));
}

#[tokio::test]
async fn of_two_changes_at_one_revision_one_wins() {
    let lab = Lab::with_host("new").await;
    let revision = lab.revision(1).await;
    let by = lab.run(&ALL);
    let both = join_all(["a", "b"].map(|name| lab.core.apply(&by, 1, revision, named(name)))).await;
    let won = both.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "{both:?}");
    assert!(both.iter().any(|result| *result == Err(HostsError::Conflict(revision + 1))), "{both:?}");
    assert_eq!(lab.core.apply(&by, 99, 1, named("a")).await, Err(HostsError::NotFound));
}

#[tokio::test]
async fn of_two_orders_by_one_name_one_is_carried_out() {
    let lab = Lab::with_host("finished").await;
    let revision = lab.revision(1).await;
    let by = lab.run(&ALL);
    let order = |queue| lab.core.apply(&by, 1, revision, states(queue, Some("CHG1")));
    let both = join_all([order(&["web"]), order(&["live"])]).await;
    assert_eq!(both.iter().filter(|result| result.is_ok()).count(), 1, "{both:?}");
}

#[tokio::test]
async fn names_and_states_are_checked_as_for_operators() {
    let lab = lab(Site::with_three_hosts().await);
    let by = lab.run(&ALL);
    for patch in [
        named("node2"),
        named("no name"),
        states(&["nothing"], None),
        states(&["broken"], None),
        states(&["a b"], None),
        set("a..b", json!(1)),
        set("a", json!("x".repeat(70_000))),
        Patch { order: Some("CHG1".to_owned()), ..Patch::default() },
    ] {
        let refused = lab.apply(&by, 1, patch.clone()).await.unwrap_err();
        assert!(matches!(refused, HostsError::Invalid(_)), "{patch:?}: {refused}");
    }
    assert_eq!(lab.revision(1).await, 1);
    assert_eq!(lab.orders().await, Orders::AsGranted);
    let all = Patch { hostname: Edit::Set("db1".to_owned()), ..states(&["live", "web"], Some("CHG1")) };
    let host = lab.apply(&by, 1, Patch { set: vec![("role".to_owned(), json!("db"))], ..all }).await.unwrap();
    assert_eq!((host.hostname.as_deref(), host.states.len()), (Some("db1"), 2));
    let events = lab.site.service.timeline(HostId::new(1), 2, 9).await.unwrap();
    assert!(events.iter().all(|event| event.actor == crate::domain::Actor::Plugin("cmdb".to_owned())));
}

#[tokio::test]
async fn a_running_attempt_is_not_given_up_by_a_plugin() {
    let lab = Lab::with_host("web").await;
    let host = lab.site.service.find_one("1").await.unwrap();
    let bootid = crate::domain::BootId::new(host.id, [7; 16]);
    let offered = crate::domain::Offer {
        bootid,
        from: [10, 0, 0, 1].into(),
        image: Some("web".parse().unwrap()),
        writes: crate::domain::Writes::Disk,
        detour: false,
    };
    let now = lab.site.service.now();
    let host = lab
        .site
        .service
        .commit(&host, crate::domain::offer(&host, offered, &Default::default(), now).unwrap())
        .await
        .unwrap();
    let change = crate::domain::start_attempt(&host, &bootid, "vmlinuz", now).unwrap().unwrap();
    lab.site.service.commit(&host, change).await.unwrap();
    let refused = lab.apply(&lab.run(&ALL), 1, states(&["live"], None)).await.unwrap_err();
    assert!(refused.to_string().contains("being installed right now"), "{refused}");
    assert!(lab.apply(&lab.run(&ALL), 1, named("db1")).await.is_ok());
}

#[tokio::test]
async fn an_order_for_a_locked_host_is_refused_and_once_on_its_timeline() {
    let lab = Lab::with_host("finished").await;
    let lock = Act::Lock { why: "evidence".to_owned() };
    lab.site.service.act(HostId::new(1), &lock, &by_ada()).await.unwrap();
    for call in 0..3 {
        let wanted = states(&["web"], Some(&format!("CHG{call}")));
        let refused = lab.apply(&lab.run(&ALL), 1, wanted).await.unwrap_err();
        assert!(matches!(&refused, HostsError::Denied(why) if why.contains("host unlock 1")), "{refused}");
    }
    assert!(lab.apply(&lab.run(&ALL), 1, named("db1")).await.is_ok(), "a name is no order");
    let events = lab.site.service.timeline(HostId::new(1), 1, 100).await.unwrap();
    let refused: Vec<_> = events.iter().filter(|event| event.kind.name() == "order_refused").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].actor, crate::domain::Actor::Plugin("cmdb".to_owned()));
}

#[tokio::test]
async fn nothing_changes_in_hooks_that_decide() {
    let lab = Lab::with_host("new").await;
    for hook in [Hook::Boot, Hook::Discovery, Hook::Render, Hook::Transition] {
        let by = allowance("cmdb", &ALL, hook, Run::Real, "c");
        assert!(matches!(lab.apply(&by, 1, named("x")).await, Err(HostsError::Denied(_))), "{hook}");
        assert!(matches!(lab.core.kv_put(&by, "k", vec![], Expect::Whatever).await, Err(KvError::Denied(_))));
        assert!(matches!(lab.core.kv_delete(&by, "k", Expect::Whatever).await, Err(KvError::Denied(_))));
        assert_eq!(lab.core.kv_get(&by, "k").await, Ok(None));
        assert!(lab.core.host(&by, 1).await.is_ok());
    }
    let by = allowance("cmdb", &[], Hook::Schedule, Run::Real, "c");
    assert!(matches!(lab.core.host(&by, 1).await, Err(HostsError::Denied(_))));
    assert!(matches!(lab.core.hosts(&by, page(1)).await, Err(HostsError::Denied(_))));
    assert!(matches!(lab.core.find_hosts(&by, "serial", "SNA1", page(1)).await, Err(HostsError::Denied(_))));
}

// ---- Reading ----

#[tokio::test]
async fn hosts_are_found_by_what_names_them_and_by_metadata() {
    let lab = lab(Site::with_three_hosts().await);
    let by = lab.run(&[Grant::Read]);
    for (key, value, expected) in [
        ("serial", "sna2", &[2][..]),
        ("mac", "52-54-00-00-00-03", &[3]),
        ("hostname", "node1", &[1]),
        ("metadata.site", "fra1", &[1, 2, 3]),
        ("metadata.rack", "7", &[1, 2, 3]),
        ("metadata.rack.unit", "7", &[]),
        ("netbox.id", "7", &[]),
        ("serial", "SNA9", &[]),
    ] {
        let found = lab.core.find_hosts(&by, key, value, page(100)).await.unwrap();
        assert_eq!(found.hosts.iter().map(|host| host.id).collect::<Vec<_>>(), expected, "{key}={value}");
        assert_eq!(found.next, None);
    }
    for (key, value) in [("asset", "1"), ("", "1"), ("serial", ""), ("uuid", "x"), ("mac", "x"), ("a..b", "1")] {
        let found = lab.core.find_hosts(&by, key, value, page(1)).await;
        assert!(matches!(found, Err(HostsError::Invalid(_))), "{key}={value}: {found:?}");
    }
}

#[tokio::test]
async fn pages_are_bounded_and_follow_each_other() {
    let site = site();
    for n in 0..130_u64 {
        let wanted = registration(&format!("SNB{n:04}"), &format!("52:54:00:01:00:{n:02x}"), None);
        site.service.add(wanted, ada(), Run::Real).await.unwrap();
    }
    let lab = lab(site);
    let by = lab.run(&[Grant::Read]);
    for limit in [0, 1, 7, 100, u32::MAX] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = lab.core.find_hosts(&by, "metadata.site", "fra1", Page { after, limit }).await.unwrap();
            assert!(page.hosts.len() <= 100);
            seen.extend(page.hosts.iter().map(|host| host.id));
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert_eq!(seen, (1..=130).collect::<Vec<u64>>(), "limit {limit}");
    }
}

#[tokio::test]
async fn a_page_of_large_hosts_is_bounded_in_bytes() {
    let lab = lab(Site::with_three_hosts().await);
    let site = &lab.site.service;
    for n in 10..30_u64 {
        let mut wanted = registration(&format!("SNC{n:04}"), &format!("52:54:00:02:00:{n:02x}"), None);
        wanted.metadata = crate::domain::Metadata::parse(&format!(r#"{{"big":"{}"}}"#, "x".repeat(60_000))).unwrap();
        site.add(wanted, ada(), Run::Real).await.unwrap();
    }
    let first = lab.core.hosts(&lab.run(&[Grant::Read]), page(100)).await.unwrap();
    assert!(first.hosts.len() < 15 && first.next.is_some(), "{} hosts", first.hosts.len());
}

// ---- A store of its own ----

#[tokio::test]
async fn no_key_reaches_into_the_store_of_another_plugin() {
    let lab = Lab::with_host("new").await;
    let [a, ab] = ["a", "a-b"].map(|plugin| allowance(plugin, &[], Hook::Schedule, Run::Real, "c"));
    lab.core.kv_put(&ab, "secret", b"s".to_vec(), Expect::Absent).await.unwrap();
    for key in ["../a-b/secret", "-b/secret", "/../a-b/secret", "a-b/secret", "secret", "\u{0}", "p/a-b/secret"] {
        assert_eq!(lab.core.kv_get(&a, key).await, Ok(None), "{key}");
        lab.core.kv_put(&a, key, b"mine".to_vec(), Expect::Absent).await.unwrap();
    }
    assert_eq!(lab.core.kv_list(&a, "", Some("../a-b/"), 100).await.unwrap().len(), 5, "only own keys follow");
    assert_eq!(lab.core.kv_list(&ab, "", None, 100).await.unwrap(), ["secret"]);
    assert_eq!(lab.core.kv_get(&ab, "secret").await.unwrap().unwrap().value, b"s");
    for plugin in ["a/b", "", "A", "a\n"] {
        let by = allowance(plugin, &ALL, Hook::Schedule, Run::Real, "c");
        assert!(matches!(lab.core.kv_get(&by, "k").await, Err(KvError::Denied(_))), "{plugin:?}");
        assert!(matches!(lab.apply(&by, 1, named("x")).await, Err(HostsError::Denied(_))), "{plugin:?}");
    }
}

#[tokio::test]
async fn versions_guard_values_and_never_come_back() {
    let lab = Lab::with_host("new").await;
    let by = lab.run(&[]);
    let put = |value: &str, expect| lab.core.kv_put(&by, "k", value.as_bytes().to_vec(), expect);
    let first = put("1", Expect::Absent).await.unwrap();
    assert_eq!(put("2", Expect::Absent).await, Err(KvError::Conflict(first)));
    let second = put("2", Expect::Version(first)).await.unwrap();
    assert!(second > first);
    assert_eq!(put("3", Expect::Version(first)).await, Err(KvError::Conflict(second)));
    assert_eq!(lab.core.kv_delete(&by, "k", Expect::Version(first)).await, Err(KvError::Conflict(second)));
    assert_eq!(lab.core.kv_delete(&by, "k", Expect::Whatever).await, Ok(()));
    assert_eq!(lab.core.kv_delete(&by, "k", Expect::Whatever).await, Ok(()));
    assert_eq!(put("4", Expect::Version(second)).await, Err(KvError::Conflict(0)));
    assert!(put("4", Expect::Absent).await.unwrap() > second);
    let many = join_all((0..8).map(|_| put("5", Expect::Whatever))).await;
    assert!(many.iter().all(Result::is_ok), "{many:?}");
}

#[tokio::test]
async fn a_plugins_store_is_bounded_also_after_a_restart_and_room_comes_back() {
    let lab = Lab::with_host("new").await;
    let by = lab.run(&[]);
    let put = |key: String, bytes: usize| {
        lab.core.kv_put(&by, Box::leak(key.into_boxed_str()), vec![7; bytes], Expect::Whatever)
    };
    assert_eq!(put("k".to_owned(), (64 << 10) + 1).await, Err(KvError::TooLarge));
    assert_eq!(put("k".repeat(257), 1).await, Err(KvError::TooLarge));
    assert!(matches!(put(String::new(), 1).await, Err(KvError::Denied(_))));
    let mut kept = 0;
    while put(format!("k{kept:03}"), 64 << 10).await.is_ok() {
        kept += 1;
    }
    assert_eq!(kept, 255, "keys count too");
    assert_eq!(put("one-more".to_owned(), 64 << 10).await, Err(KvError::Full));
    lab.site.service.spaces.forget(&cmdb());
    assert_eq!(put("one-more".to_owned(), 64 << 10).await, Err(KvError::Full), "the sums are those of the store");
    assert!(put("k000".to_owned(), 64 << 10).await.is_ok(), "what takes no more room is allowed");
    lab.core.kv_delete(&by, "k001", Expect::Whatever).await.unwrap();
    assert!(put("one-more".to_owned(), 64 << 10).await.is_ok());
    let other = allowance("other", &[], Hook::Schedule, Run::Real, "c");
    assert!(lab.core.kv_put(&other, "k", vec![1], Expect::Absent).await.is_ok(), "every plugin has its own room");

    let keys = lab.site.service.plugin_keys(&cmdb(), "k00", None, 100).await.unwrap();
    assert_eq!((keys.len(), keys[0].bytes), (9, 64 << 10));
    assert_eq!(lab.site.service.clear_plugin(&cmdb()).await.unwrap(), 255);
    assert_eq!(lab.site.service.plugin_value(&cmdb(), "k000").await.unwrap(), None);
    assert!(put("k".to_owned(), 64 << 10).await.is_ok());
    assert!(lab.core.kv_get(&other, "k").await.unwrap().is_some());
}

// ---- Any sequence ----

fn patches() -> impl Strategy<Value = Patch> {
    let state = prop_oneof![Just("new"), Just("finished"), Just("web"), Just("live"), Just("nothing")];
    let queue = prop::option::weighted(0.8, prop::collection::vec(state.prop_map(str::to_owned), 0..4));
    let order = prop::option::of(prop_oneof![Just("CHG1"), Just("CHG2"), Just("")].prop_map(str::to_owned));
    let path = prop_oneof![Just("install_device"), Just("local"), Just("site"), Just(r"install\_device.x")];
    let set = prop::collection::vec((path.prop_map(str::to_owned), Just(json!("/dev/sdb"))), 0..2);
    let name = prop_oneof![Just(Edit::Keep), Just(Edit::Clear), Just(Edit::Set("n1".to_owned()))];
    (queue, order, set, name).prop_map(|(states, order, set, hostname)| Patch {
        hostname,
        states,
        order,
        set,
        unset: Vec::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_changes_leads_out_of_finished_without_the_grant(
        patches in prop::collection::vec((patches(), any::<bool>()), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let lab = Lab::with_host("web").await;
            let mut was_finished = false;
            for (patch, reinstall) in patches {
                // The grants of another plugin must not help either, so they are not given to the same.
                let grants: &[Grant] = if reinstall { &[Grant::Read, Grant::Reinstall, Grant::HoldFinished] } else { &ALL_BUT_REINSTALL };
                drop(lab.apply(&lab.run(grants), 1, patch).await);
                let is_finished = lab.site.states().await == "finished";
                assert!(is_finished || !was_finished, "a finished host was ordered for");
                was_finished = is_finished;
            }
        });
    }
}
