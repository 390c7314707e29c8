use std::future::ready;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::*;
use crate::hooks::{
    Binding, BootDecision, BootPlan, BootVerdict, Grant, Hold, Hook, HookError, HookSet, ImageBoot, Plugin,
    PluginStatus, RenderRequest, Reply, StatesFilter, TransitionDecision, TransitionVerdict,
};
use crate::service::fixtures::{Says, Site, by_ada};
use crate::service::{HostsError, Outcome};

/// A plugin with the grant to give states, which redirects every change to this queue.
fn redirecting(to: &'static [&'static str]) -> Binding {
    let to = move || to.iter().map(|state| (*state).to_owned()).collect();
    let mut binding = Says::to_transitions(move |_| Ok(TransitionVerdict::Redirect(to()))).bound();
    binding.grants.insert(Grant::States);
    binding
}

/// Machine 1 has been offered `web`.
async fn installing(plugins: Vec<Binding>) -> Site {
    let site = Site::with_host("live,live", plugins).await;
    assert_eq!(site.boot().await.0, Outcome::Boot);
    site
}

#[tokio::test]
async fn a_finish_that_a_plugin_denies_is_done_and_moves_on_once_it_agrees() {
    let agrees = Arc::new(AtomicBool::new(false));
    let ask = Arc::clone(&agrees);
    let plugin = Says::to_transitions(move |request| {
        assert_eq!((request.cause.as_str(), request.actor.as_str()), ("finish", ""));
        assert_eq!(request.to, ["live"]);
        Ok(if ask.load(Ordering::Relaxed) {
            TransitionVerdict::Allow
        } else {
            TransitionVerdict::Deny("the rack is frozen".to_owned())
        })
    });
    let site = installing(vec![plugin.bound()]).await;
    let call = site.call().await;
    site.service.finish(&call).await.unwrap();
    site.service.finish(&call).await.unwrap();
    assert_eq!(site.states().await, "live,live");
    let (outcome, script) = site.boot().await;
    assert_eq!(outcome, Outcome::Hold);
    assert!(script.contains("the rack is frozen"), "{script}");
    assert_eq!(site.call().await.bootid, call.bootid, "the image that is done was handed out again");
    agrees.store(true, Ordering::Relaxed);
    assert_eq!(site.boot().await.0, Outcome::Boot);
    assert_eq!(site.states().await, "live");
    assert!(site.service.finish(&call).await.is_ok(), "said once is said");
    assert_eq!(site.states().await, "live");
    let kinds = site.kinds().await;
    assert_eq!(kinds.iter().filter(|kind| **kind == "step_done").count(), 1, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "finished").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn a_finish_survives_every_failure_of_a_plugin() {
    for error in [
        HookError::Trap("unreachable".to_owned()),
        HookError::Failed("panicked".to_owned()),
        HookError::Unavailable("is not there".to_owned()),
        HookError::Retry { after_ms: 1, reason: "later".to_owned() },
    ] {
        let site = installing(vec![Says::to_transitions(move |_| Err(error.clone())).bound()]).await;
        site.service.finish(&site.call().await).await.unwrap();
        assert!(site.kinds().await.contains(&"step_done"));
        assert_eq!(site.boot().await.0, Outcome::Hold);
        site.bind(Vec::new());
        assert_eq!(site.boot().await.0, Outcome::Boot);
        assert_eq!(site.states().await, "live");
    }
}

#[tokio::test]
async fn an_operators_wish_that_a_plugin_denies_changes_nothing() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let plugin = Says::to_transitions(move |request| {
        heard.lock().unwrap().push((request.cause.clone(), request.actor.clone(), request.to.join(",")));
        Ok(TransitionVerdict::Deny("not on Fridays".to_owned()))
    });
    let site = Site::with_host("live", vec![plugin.bound()]).await;
    let error = site.set(1, "web", &by_ada()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the plugin says refuses: not on Fridays; nothing was changed, and it can be tried again"
    );
    assert!(site.service.act(crate::domain::HostId::new(1), &Act::Finish { abort: false }, &by_ada()).await.is_err());
    let retry = Act::Retry { abort: false };
    assert!(site.service.act(crate::domain::HostId::new(1), &retry, &by_ada()).await.is_err());
    assert_eq!(site.states().await, "live");
    let asked = asked.lock().unwrap();
    let said: Vec<_> = asked.iter().map(|(cause, actor, to)| (cause.as_str(), actor.as_str(), to.as_str())).collect();
    assert_eq!(said, [("operator", "ada", "web"), ("finish", "ada", "finished"), ("retry", "ada", "live")]);
}

#[tokio::test]
async fn a_redirect_puts_in_steps_that_write_nothing_and_leaves_steps_out() {
    let site = Site::with_host("new", vec![redirecting(&["live", "web"])]).await;
    site.set(1, "web", &by_ada()).await.unwrap();
    assert_eq!(site.states().await, "live,web");
    site.bind(vec![redirecting(&[])]);
    site.set(1, "web", &by_ada()).await.unwrap();
    assert_eq!(site.states().await, "finished");
}

#[tokio::test]
async fn a_redirect_cannot_order() {
    for to in [&["web"][..], &["live", "web"], &["web", "live"], &["broken", "live"], &["nothing"], &["a b"]] {
        let site = Site::with_host("new", vec![redirecting(to)]).await;
        let error = site.set(1, "live", &by_ada()).await.unwrap_err();
        assert!(matches!(error, HostsError::RefusedByPlugin(_)), "{to:?}: {error}");
        assert_eq!(site.states().await, "new");
    }
    let site = Site::with_host("new", vec![redirecting(&["web", "web"])]).await;
    assert!(site.set(1, "web", &by_ada()).await.is_err(), "one order became two");
    let site = installing(vec![redirecting(&["web"])]).await;
    site.service.finish(&site.call().await).await.unwrap();
    assert_eq!((site.states().await.as_str(), site.boot().await.0), ("live,live", Outcome::Hold));
}

#[tokio::test]
async fn a_redirect_cannot_have_a_disk_wiped_after_it_was_installed() {
    // Nobody knows the image `wipe` here, so it may write.
    let may = async |to: &'static [&'static str]| {
        let site = Site::with_host("new", vec![redirecting(to)]).await;
        let host = site.service.find_one("1").await.unwrap();
        let asked = "wipe,web,live".parse().unwrap();
        site.service.may_become(&host, &asked, "operator", &Actor::Server, Run::Real).await
    };
    for to in [&["web", "wipe", "live"][..], &["live", "web", "wipe"], &["web", "wipe"]] {
        let refused = may(to).await.unwrap_err();
        assert!(refused.why.contains("wipe") && refused.why.contains("cannot order"), "{to:?}: {refused}");
    }
    for to in [&["wipe", "web"][..], &["live", "wipe", "web"], &["web", "live"], &["wipe"], &[]] {
        assert!(matches!(may(to).await, Ok(MayBecome::Other { .. })), "{to:?}");
    }
}

#[tokio::test]
async fn without_the_grant_a_redirect_is_refused() {
    let mut binding = redirecting(&["live", "web"]);
    binding.grants.clear();
    let site = Site::with_host("new", vec![binding]).await;
    let error = site.set(1, "web", &by_ada()).await.unwrap_err().to_string();
    assert!(error.contains("the grant `states`"), "{error}");
}

#[tokio::test]
async fn what_a_plugin_causes_is_not_asked_of_that_plugin() {
    let plugin = || Says::to_transitions(|_| Ok(TransitionVerdict::Deny("no".to_owned()))).bound();
    let site = Site::with_host("live", vec![plugin()]).await;
    let host = site.service.find_one("1").await.unwrap();
    let may = |name: &str| {
        let actor = Actor::Plugin(name.to_owned());
        let (site, host) = (&site, &host);
        async move { site.service.may_become(host, &States::finished(), "plugin", &actor, Run::Real).await }
    };
    assert!(matches!(may("says").await, Ok(MayBecome::Asked)));
    assert!(may("other").await.is_err());
}

#[tokio::test]
async fn a_finished_host_boots_its_disk_whatever_a_plugin_that_is_asked_says() {
    let image = || ImageBoot { image: "web".to_owned(), append: Vec::new(), vars: Vec::new() };
    let live = || ImageBoot { image: "live".to_owned(), append: Vec::new(), vars: Vec::new() };
    let hold = || BootVerdict::Hold(Hold { text: "wait".to_owned(), again_after_ms: None });
    let said: Vec<Result<BootVerdict, HookError>> = vec![
        Ok(BootVerdict::Pass),
        Ok(BootVerdict::Boot(BootPlan::Image(image()))),
        Ok(BootVerdict::Boot(BootPlan::Image(live()))),
        Ok(hold()),
        Err(HookError::Trap("unreachable".to_owned())),
        Err(HookError::Fatal("out of order".to_owned())),
    ];
    let binding = |verdict: Result<BootVerdict, HookError>| {
        let decide = move |_: &crate::hooks::BootRequest| {
            Ok(BootDecision { verdict: verdict.clone()?, patch: None, reason: String::new() })
        };
        let says = Says { boot: Some(Box::new(decide)), ..Says::default() };
        Binding { states: StatesFilter::from(vec!["finished".to_owned()]), ..says.bound() }
    };
    for verdict in said {
        let site = Site::with_host("finished", vec![binding(verdict.clone())]).await;
        assert_eq!(site.boot().await.0, Outcome::Local, "{verdict:?}");
    }
    let mut granted = binding(Ok(hold()));
    granted.grants.insert(Grant::HoldFinished);
    let site = Site::with_host("finished", vec![granted]).await;
    assert_eq!(site.boot().await.0, Outcome::Hold);
}

#[tokio::test]
async fn documents_get_the_variables_of_plugins_or_wait_for_them() {
    let site = Site::with_host("live", Vec::new()).await;
    let folder = site.service.catalogue.root().join("live");
    std::fs::write(folder.join("post_install.sh.hbs"), "#!/bin/sh\necho {{sh vars.role}}\n").unwrap();
    let base = "http://192.0.2.1:5000".parse().unwrap();
    assert_eq!(site.boot().await.0, Outcome::Boot);
    let call = site.call().await;
    let render = |answer: Result<&'static str, HookError>| {
        let say = move |request: &crate::hooks::RenderRequest| {
            assert_eq!(request.document, "post-install");
            Ok([("role".to_owned(), json!(answer.clone()?))].into_iter().collect())
        };
        Says { render: Some(Box::new(say)), ..Says::default() }.bound()
    };
    site.bind(vec![render(Ok("it's web"))]);
    let script = site.service.post_install(&call, &base).await.unwrap();
    assert!(script.contains(r"echo 'it'\''s web'"), "{script}");
    site.bind(vec![render(Err(HookError::Retry { after_ms: 5, reason: "not yet".to_owned() }))]);
    let refused = site.service.post_install(&call, &base).await.unwrap_err();
    assert!(matches!(refused, crate::service::PostInstallRefused::Plugin(_)), "{refused}");
}

/// Denies everything, and notes the names of the questions.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

impl Plugin for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn hooks(&self) -> HookSet {
        [Hook::Transition, Hook::Render].into_iter().collect()
    }

    fn status(&self) -> PluginStatus {
        PluginStatus::Ready { version: "1".to_owned(), origin: "native".to_owned(), digest: String::new() }
    }

    fn before<'a>(&'a self, call: &'a Call, _: &'a TransitionRequest) -> BoxFuture<'a, Reply<TransitionDecision>> {
        self.0.lock().unwrap().push(call.id.clone());
        let decision = TransitionDecision { verdict: TransitionVerdict::Deny("no".to_owned()), reason: String::new() };
        ready(Reply::from(Ok(decision))).boxed()
    }

    fn variables<'a>(&'a self, call: &'a Call, _: &'a RenderRequest) -> BoxFuture<'a, Reply<Map<String, Value>>> {
        self.0.lock().unwrap().push(call.id.clone());
        ready(Reply::from(Ok(Map::new()))).boxed()
    }
}

#[tokio::test]
async fn a_question_has_the_same_name_when_it_is_asked_again_and_no_other_has_not_even_in_a_restored_store() {
    let site = Site::with_host("live", Vec::new()).await;
    site.boot().await;
    let (names, call) = (Names::default(), site.call().await);
    site.bind(vec![Binding::new(Arc::new(names.clone()))]);
    for states in ["web", "web", "live,web"] {
        site.set(1, states, &by_ada()).await.unwrap_err();
    }
    site.service.post_install(&call, &"http://192.0.2.1:5000".parse().unwrap()).await.unwrap();
    let names = names.0.lock().unwrap();
    let [web, again, other, document] = names.as_slice() else { panic!("{names:?}") };
    assert_eq!(web, again);
    assert_ne!(web, other);
    // The numbers of events begin anew in it, and those whom plugins talk to have seen them.
    let generation = site.service.store.generation();
    for (name, hook) in [(web, "transition"), (document, "render")] {
        assert!(name.starts_with(&format!("{hook}-{generation}-1-")), "{name}");
    }
}
