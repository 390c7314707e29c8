//! The outbox over real stores, with native plugins that misbehave on order.
mod site;
mod torture;

use std::sync::atomic::AtomicBool;

use serde_json::json;
use site::{Listener, OPTIONS, QUICK, Site, count, hooks, host};

use super::*;
use crate::domain::Actor;
use crate::hooks::{Binding, HookError, Selector};
use crate::service::fixtures::until;
use crate::store::{Store, TIMELINE_EVENTS};

fn trap() -> HookError {
    HookError::Trap("unreachable".into())
}

#[tokio::test]
async fn every_event_is_told_once_and_in_the_order_of_its_host() {
    let dir = tempfile::tempdir().unwrap();
    for store in [Store::memory(), Store::open(dir.path(), &OPTIONS).await.unwrap()] {
        let plugin = Listener::willing();
        let mut site = Site::bound(store, &plugin);
        site.start().await;
        let mut machines = Vec::new();
        for _ in 0..5 {
            machines.push(site.host().await);
        }
        let all = machines.into_iter().map(|machine| site.notes(machine, 40));
        futures_util::future::join_all(all).await;
        site.quiet().await;
        for id in 1..=5 {
            assert_eq!(plugin.told_of(id), (1..=41).collect::<Vec<_>>(), "host {id}");
        }
        let events = plugin.events();
        let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids.len(), events.len());
        let noted = events.iter().find(|event| event.kind == "foreign_boot").unwrap();
        assert_eq!(noted.detail["actor"], "machine");
        assert_eq!(noted.detail["from"], "10.0.0.9");
        assert_eq!(noted.host.as_ref().unwrap().id, host(noted));
        let service = site.stop().await;
        service.close().await;
    }
}

#[tokio::test]
async fn a_new_plugin_is_told_of_what_happens_from_now_on() {
    let plugin = Listener::willing();
    let mut site = Site::bound(Store::memory(), &plugin);
    let machine = site.host().await;
    site.start().await;
    site.note(&machine).await;
    site.quiet().await;
    assert_eq!(plugin.told(), [(1, 2)]);
}

#[test]
fn what_was_committed_but_not_told_before_a_crash_is_told_after_it() {
    let dir = tempfile::tempdir().unwrap();
    // The tasks end wherever they are when their runtime goes: nothing is written down any more, as after kill -9.
    let crashing = tokio::runtime::Runtime::new().unwrap();
    crashing.block_on(async {
        let plugin = Listener::willing();
        let never = Pace { cursor_every: Duration::from_secs(3_600), ..QUICK };
        let store = Store::open(dir.path(), &OPTIONS).await.unwrap();
        let mut site = Site::with(store, vec![Binding::new(plugin.clone())], never);
        site.start().await;
        let machine = site.host().await;
        until("the first event is told", || plugin.told() == [(1, 1)]).await;
        let _closed = plugin.gate.write().await;
        site.notes(machine, 3).await;
        until("the plugin is being told", || plugin.calls().len() > 1).await;
        assert_eq!(plugin.told(), [(1, 1)]);
    });
    crashing.shutdown_timeout(Duration::from_secs(5));

    let plugin = Listener::willing();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut site = Site::bound(Store::open(dir.path(), &OPTIONS).await.unwrap(), &plugin);
        site.start().await;
        site.quiet().await;
        // The first one again, as nothing says any more that it was told.
        assert_eq!(plugin.told_of(1), [1, 2, 3, 4]);
    });
}

#[tokio::test]
async fn a_clean_stop_leaves_nothing_to_be_told_again() {
    let dir = tempfile::tempdir().unwrap();
    let never = Pace { cursor_every: Duration::from_secs(3_600), ..QUICK };
    let first = Listener::willing();
    let store = Store::open(dir.path(), &OPTIONS).await.unwrap();
    let mut site = Site::with(store, vec![Binding::new(first.clone())], never);
    site.start().await;
    let machine = site.host().await;
    site.notes(machine, 9).await;
    until("all is told", || first.told().len() == 10).await;
    let service = site.stop().await;
    service.close().await;
    drop(Arc::into_inner(service).unwrap());

    let second = Listener::willing();
    let mut site = Site::bound(Store::open(dir.path(), &OPTIONS).await.unwrap(), &second);
    site.start().await;
    site.quiet().await;
    assert_eq!(second.told(), []);
    let machine = site.host().await;
    site.quiet().await;
    assert_eq!(second.told(), [(machine.id.get(), 1)]);
}

#[tokio::test]
async fn a_parked_host_stops_no_other_and_goes_on_in_order() {
    let works = Arc::new(AtomicBool::new(false));
    let now_works = Arc::clone(&works);
    let fails_for_1 = Listener::new(move |_, events| {
        if events.iter().any(|event| host(event) == 1) && !works.load(Ordering::Relaxed) {
            return Err(trap());
        }
        Ok(count(events))
    });
    let plugin = Arc::new(fails_for_1);
    let pace = Pace { most_faults: 1_000, ..QUICK };
    let mut site = Site::with(Store::memory(), vec![Binding::new(plugin.clone())], pace);
    site.start().await;
    let (one, two) = (site.host().await, site.host().await);
    let (one, _two) = (site.notes(one, 5).await, site.notes(two, 5).await);
    until("the other host is told", || plugin.told_of(2).len() == 6).await;
    until("the first host is tried again", || {
        plugin.calls().iter().any(|(call, events)| call.attempt > 2 && host(&events[0]) == 1)
    })
    .await;
    let state = site.state().await;
    assert_eq!((state.parked.len(), state.dead_letters), (1, 0), "{state:?}");
    assert_eq!((state.parked[0].host.get(), state.parked[0].from_seq), (1, 1));
    assert!(state.parked[0].why.contains("unreachable"), "{state:?}");
    assert_eq!(plugin.told_of(1), [0; 0]);

    now_works.store(true, Ordering::Relaxed);
    site.note(&one).await;
    site.quiet().await;
    assert_eq!(plugin.told_of(1), (1..=7).collect::<Vec<_>>());
    // A retry is the same call again.
    let of_first = plugin.calls().into_iter().filter(|(_, events)| (host(&events[0]), events[0].host_seq) == (1, 1));
    let ids: BTreeSet<String> = of_first.map(|(call, _)| call.id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test]
async fn an_event_that_fails_too_often_is_a_dead_letter_that_can_be_replayed_and_dropped() {
    let works = Arc::new(AtomicBool::new(false));
    let now_works = Arc::clone(&works);
    let plugin = Arc::new(Listener::new(move |_, events| {
        let bad = |event: &crate::hooks::Event| host(event) == 1 && [2, 3].contains(&event.host_seq);
        if events.iter().any(bad) && !works.load(Ordering::Relaxed) {
            return Err(HookError::Failed("no".into()));
        }
        Ok(count(events))
    }));
    let mut site = Site::bound(Store::memory(), &plugin);
    site.start().await;
    let (one, two) = (site.host().await, site.host().await);
    site.notes(one, 3).await;
    site.notes(two, 3).await;
    site.quiet().await;
    assert_eq!((plugin.told_of(1), plugin.told_of(2)), (vec![1, 4], vec![1, 2, 3, 4]));
    let letters = site.service.dead_letters("webhook", None, None, 10).await.unwrap();
    let seqs: Vec<u64> = letters.iter().map(|letter| letter.event.seq).collect();
    assert_eq!((seqs, letters[0].error.as_str()), (vec![2, 3], "failed: no"));
    assert!(letters[0].attempts >= QUICK.most_faults, "{letters:?}");
    assert_eq!(site.state().await.dead_letters, 2);

    let id = letters[0].event.host;
    let failed = site.service.replay_dead_letters("webhook", Letters::One(id, 2), None).await.unwrap();
    assert_eq!((failed.told, failed.failed), (0, 1));
    let again = site.service.dead_letters("webhook", Some(id), None, 1).await.unwrap();
    assert_eq!(again[0].attempts, letters[0].attempts + 1);

    now_works.store(true, Ordering::Relaxed);
    let replayed = site.service.replay_dead_letters("webhook", Letters::One(id, 2), None).await.unwrap();
    assert_eq!((replayed.told, replayed.next), (1, None));
    assert_eq!(plugin.told_of(1), [1, 4, 2]);
    assert_eq!(site.service.drop_dead_letters("webhook", Letters::All).await.unwrap(), 1);
    assert_eq!(site.service.dead_letters("webhook", None, None, 10).await.unwrap(), []);
    let gone = site.service.drop_dead_letters("webhook", Letters::One(id, 2)).await;
    assert!(matches!(gone, Err(OutboxError::NoLetter { seq: 2, .. })), "{gone:?}");
}

#[tokio::test]
async fn a_dead_letter_that_is_replayed_twice_at_once_is_told_once() {
    let works = Arc::new(AtomicBool::new(false));
    let now_works = Arc::clone(&works);
    let plugin = Arc::new(Listener::new(move |_, events| match works.load(Ordering::Relaxed) {
        true => Ok(count(events)),
        false => Err(HookError::Invalid("no".into())),
    }));
    let mut site = Site::bound(Store::memory(), &plugin);
    site.start().await;
    site.host().await;
    site.quiet().await;
    assert_eq!(site.state().await.dead_letters, 1);
    now_works.store(true, Ordering::Relaxed);
    let closed = plugin.gate.write().await;
    let replay = || site.service.replay_dead_letters("webhook", Letters::All, None);
    let (one, other, ()) = tokio::join!(replay(), replay(), async {
        until("one of them tells it", || plugin.calls().len() > 1).await;
        drop(closed);
    });
    let told = one.unwrap().told + other.unwrap().told;
    assert_eq!((told, plugin.told()), (1, vec![(1, 1)]));
}

#[tokio::test]
async fn what_makes_no_sense_to_a_plugin_is_a_dead_letter_at_once_and_nothing_else_is() {
    let plugin = Arc::new(Listener::new(|_, events| {
        if events.iter().any(|event| host(event) == 2 && event.host_seq == 2) {
            return Err(HookError::Invalid("what is that?".into()));
        }
        Ok(count(events))
    }));
    let mut site = Site::bound(Store::memory(), &plugin);
    let closed = plugin.gate.write().await;
    site.start().await;
    let (one, two) = (site.host().await, site.host().await);
    let (_, _) = (site.notes(one, 2).await, site.notes(two, 2).await);
    drop(closed);
    site.quiet().await;
    assert_eq!((plugin.told_of(1), plugin.told_of(2)), (vec![1, 2, 3], vec![1, 3]));
    let letters = site.service.dead_letters("webhook", None, None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].event.host.get(), letters[0].event.seq), (2, 2));
}

#[tokio::test]
async fn letters_that_fail_again_keep_nobody_from_those_behind_them() {
    let second_works = Arc::new(AtomicBool::new(false));
    let now_works = Arc::clone(&second_works);
    let plugin = Arc::new(Listener::new(move |_, events| {
        let good = events.iter().all(|event| host(event) == 2) && second_works.load(Ordering::Relaxed);
        if good { Ok(count(events)) } else { Err(HookError::Invalid("what is that?".into())) }
    }));
    let mut site = Site::bound(Store::memory(), &plugin);
    site.start().await;
    let (one, two) = (site.host().await, site.host().await);
    let (_, _) = (site.notes(one, 4).await, site.notes(two, 1).await);
    site.quiet().await;
    now_works.store(true, Ordering::Relaxed);
    let (mut told, mut failed, mut after, mut left) = (0, 0, None, 0);
    for _ in 0..10 {
        let replayed = site.service.replay_dead_letters("webhook", Letters::All, after).await.unwrap();
        (told, failed, after) = (told + replayed.told, failed + replayed.failed, replayed.next);
        left = replayed.left;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((told, failed, after, left), (2, 5, None, 5));
    assert_eq!(site.service.dead_letters("webhook", None, None, 10).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_plugin_that_asks_for_time_gets_it_as_often_as_it_likes() {
    let asked = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&asked);
    let plugin = Arc::new(Listener::new(move |_, events| {
        if counts.fetch_add(1, Ordering::Relaxed) < 3 * u64::from(QUICK.most_faults) {
            return Err(HookError::Retry { after_ms: 1, reason: "NetBox is down".into() });
        }
        Ok(count(events))
    }));
    let mut site = Site::bound(Store::memory(), &plugin);
    site.start().await;
    site.host().await;
    site.quiet().await;
    assert_eq!((plugin.told(), site.state().await.dead_letters), (vec![(1, 1)], 0));
}

#[tokio::test]
async fn a_plugin_that_takes_some_events_gets_the_rest_again() {
    let plugin = Arc::new(Listener::new(|_, events| Ok(count(events).min(3))));
    let mut site = Site::bound(Store::memory(), &plugin);
    let closed = plugin.gate.write().await;
    site.start().await;
    let machine = site.host().await;
    site.notes(machine, 20).await;
    drop(closed);
    site.quiet().await;
    assert_eq!(plugin.told_of(1), (1..=21).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_open_breaker_parks_and_loses_nothing() {
    let works = Arc::new(AtomicBool::new(false));
    let now_works = Arc::clone(&works);
    let plugin = Arc::new(Listener::new(move |_, events| {
        if works.load(Ordering::Relaxed) { Ok(count(events)) } else { Err(HookError::Fatal("no token".into())) }
    }));
    let binding = Binding::new(plugin.clone());
    let mut site = Site::new(Store::memory(), vec![binding.clone()]);
    site.start().await;
    for _ in 0..20 {
        site.host().await;
    }
    until("the plugin is out of order", || !binding.breakers.states(std::time::Instant::now()).is_empty()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let state = site.state().await;
    assert_eq!((state.parked.len(), state.dead_letters, state.behind), (0, 0, Some(20)), "{state:?}");
    assert!(matches!(&state.mode, Mode::Waiting { why } if why.contains("no token")), "{state:?}");
    // A new configuration brings new breakers.
    now_works.store(true, Ordering::Relaxed);
    site.service.replace_hooks(hooks(vec![Binding::new(plugin.clone())]));
    site.quiet().await;
    assert_eq!(plugin.told().len(), 20);
}

#[tokio::test]
async fn a_plugin_that_was_overrun_catches_up_from_the_timelines() {
    let plugin = Listener::willing();
    let mut site = Site::bound(Store::memory(), &plugin);
    site.start().await;
    let mut machines = Vec::new();
    for _ in 0..20 {
        machines.push(site.host().await);
    }
    site.quiet().await;
    let closed = plugin.gate.write().await;
    // More commits than the ring keeps.
    let all = machines.into_iter().map(|machine| site.notes(machine, 450));
    futures_util::future::join_all(all).await;
    assert_eq!(site.state().await.behind, None);
    drop(closed);
    site.quiet().await;
    for id in 1..=20 {
        assert_eq!(plugin.told_of(id), (1..=451).collect::<Vec<_>>(), "host {id}");
    }
}

#[tokio::test]
async fn the_last_events_of_a_forgotten_host_are_told_live_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Listener::willing();
    let mut site = Site::bound(Store::open(dir.path(), &OPTIONS).await.unwrap(), &plugin);
    site.start().await;
    let (one, two) = (site.host().await, site.host().await);
    site.forget(&one).await;
    site.quiet().await;
    assert_eq!(plugin.told_of(1), [1, 2]);
    let forgotten = plugin.events().pop().unwrap();
    assert_eq!((forgotten.kind.as_str(), &forgotten.host), ("forgotten", &None));
    let service = site.stop().await;
    // Nobody is told of this; live, it is gone.
    let now = service.now();
    let kind = crate::domain::EventKind::ForeignBoot { from: [10, 0, 0, 9].into() };
    let noted = service.store.commit(&two, crate::domain::note(&two, kind, Actor::Machine, now)).await.unwrap();
    service.store.forget(&noted, crate::domain::forget(&noted, Actor::Server, now)).await.unwrap();
    service.close().await;
    drop(Arc::into_inner(service).unwrap());

    let plugin = Listener::willing();
    let selector = Selector::new([("metadata.site".to_owned(), json!("fra2"))]).unwrap();
    let binding = Binding { selector, ..Binding::new(plugin.clone()) };
    let mut site = Site::new(Store::open(dir.path(), &OPTIONS).await.unwrap(), vec![binding]);
    site.start().await;
    site.quiet().await;
    assert_eq!(plugin.told(), [(2, 2), (2, 3)]);
}

#[tokio::test]
async fn a_plugin_is_told_of_what_it_and_its_binding_want_and_never_of_its_own_doing() {
    let plugin = Listener::wanting(&["foreign_boot", "forgotten"]);
    let selector = Selector::new([("metadata.site".to_owned(), json!("fra1"))]).unwrap();
    let events = Some(vec!["foreign_boot".to_owned(), "registered".to_owned()]);
    let binding = Binding { selector, events, ..Binding::new(plugin.clone()) };
    let mut site = Site::new(Store::memory(), vec![binding]);
    site.start().await;
    let (one, two) = (site.host().await, site.host().await);
    let one = site.note(&one).await;
    site.note(&two).await;
    let one = site.note_by(&one, Actor::Plugin("webhook".into())).await;
    let one = site.note_by(&one, Actor::Plugin("netbox".into())).await;
    site.forget(&one).await;
    site.quiet().await;
    assert_eq!(plugin.told(), [(1, 2), (1, 4)]);
}

#[tokio::test]
async fn replacing_plugins_loses_and_skips_nothing() {
    let (first, second) = (Listener::willing(), Listener::willing());
    let mut site = Site::bound(Store::memory(), &first);
    site.start().await;
    let mut machine = site.host().await;
    for round in 0..30 {
        let plugin = if round % 2 == 0 { &second } else { &first };
        site.service.replace_hooks(hooks(vec![Binding::new(plugin.clone())]));
        machine = site.notes(machine, 5).await;
    }
    // For a while it is not bound at all, then it does not load.
    site.service.replace_hooks(hooks(Vec::new()));
    machine = site.notes(machine, 5).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.service.replace_hooks(hooks(vec![Binding::new(Listener::broken())]));
    machine = site.notes(machine, 5).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.service.replace_hooks(hooks(vec![Binding::new(first.clone())]));
    site.quiet().await;
    let mut told = [first.told_of(1), second.told_of(1)].concat();
    told.sort_unstable();
    assert_eq!(told, (1..=machine.event_count).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_timeline_keeps_what_a_plugin_must_still_be_told() {
    let works = Arc::new(AtomicBool::new(false));
    let now_works = Arc::clone(&works);
    let plugin = Arc::new(Listener::new(move |_, events| {
        let fails = events.iter().any(|event| host(event) == 1) && !works.load(Ordering::Relaxed);
        if fails { Err(trap()) } else { Ok(count(events)) }
    }));
    let pace = Pace { most_faults: 1_000_000, ..QUICK };
    let mut site = Site::with(Store::memory(), vec![Binding::new(plugin.clone())], pace);
    site.start().await;
    let (one, two) = (site.host().await, site.host().await);
    until("the host is tried", || !plugin.calls().is_empty()).await;
    let (one, two) = (site.notes(one, TIMELINE_EVENTS + 200).await, site.notes(two, TIMELINE_EVENTS + 200).await);
    until("the other host is told", || plugin.told_of(2).len() as u64 == two.event_count).await;
    assert_eq!(site.timeline(&one).await.first().unwrap().seq, 1);
    now_works.store(true, Ordering::Relaxed);
    site.quiet().await;
    assert_eq!(plugin.told_of(1), (1..=one.event_count).collect::<Vec<_>>());
    assert_eq!(site.state().await.lost, 0);
    // Then the timelines are as short as ever.
    for machine in [&one, &two] {
        for tries in 0.. {
            let oldest = site.timeline(machine).await.first().unwrap().seq;
            if oldest == machine.event_count + 1 - TIMELINE_EVENTS {
                break;
            }
            assert!(tries < 500, "the oldest event is {oldest}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn too_many_parked_hosts_make_a_plugin_wait_and_lose_nothing() {
    let works = Arc::new(AtomicBool::new(false));
    let now_works = Arc::clone(&works);
    let plugin = Arc::new(Listener::new(move |_, events| {
        if works.load(Ordering::Relaxed) {
            return Ok(count(events));
        }
        Err(HookError::Retry { after_ms: 20, reason: "down".into() })
    }));
    let pace = Pace { most_parked: 2, ..QUICK };
    let mut site = Site::with(Store::memory(), vec![Binding::new(plugin.clone())], pace);
    site.start().await;
    for _ in 0..10 {
        site.host().await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let state = site.state().await;
    assert!((1..=2).contains(&state.parked.len()) && state.behind > Some(0), "{state:?}");
    now_works.store(true, Ordering::Relaxed);
    site.quiet().await;
    assert_eq!(plugin.told().len(), 10);
}

#[tokio::test]
async fn with_no_room_for_dead_letters_hosts_stay_parked() {
    let plugin = Arc::new(Listener::new(|_, _| Err(HookError::Invalid("no".into()))));
    let pace = Pace { most_letters: 2, ..QUICK };
    let mut site = Site::with(Store::memory(), vec![Binding::new(plugin.clone())], pace);
    site.start().await;
    for _ in 0..4 {
        site.host().await;
    }
    until("nothing is new", || plugin.calls().len() > 8).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let state = site.state().await;
    assert_eq!((state.dead_letters, state.parked.len()), (2, 2), "{state:?}");
    site.service.drop_dead_letters("webhook", Letters::All).await.unwrap();
    site.quiet().await;
    assert_eq!(site.state().await.dead_letters, 2);
}

#[tokio::test]
async fn a_plugin_that_is_gone_can_be_forgotten_and_begins_anew() {
    let plugin = Arc::new(Listener::new(|_, _| Err(HookError::Invalid("no".into()))));
    let mut site = Site::bound(Store::memory(), &plugin);
    site.start().await;
    let machine = site.host().await;
    site.quiet().await;
    let bound = site.service.forget_outbox("webhook").await;
    assert!(matches!(bound, Err(OutboxError::StillBound(_))), "{bound:?}");
    site.service.replace_hooks(hooks(Vec::new()));
    site.note(&machine).await;
    site.service.forget_outbox("webhook").await.unwrap();
    assert_eq!(site.service.outbox_state().await.unwrap(), []);
    let willing = Listener::willing();
    site.service.replace_hooks(hooks(vec![Binding::new(willing.clone())]));
    until("it is bound", || *lock(&site.service.outbox.desk("webhook").mode) == Mode::Following).await;
    site.host().await;
    site.quiet().await;
    assert_eq!(willing.told(), [(2, 1)]);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_lost_alone_live_and_parked_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let works = Arc::new(AtomicBool::new(false));
    let now_works = Arc::clone(&works);
    let plugin = Arc::new(Listener::new(move |_, events| {
        let fails = events.iter().any(|event| host(event) == 2) && !works.load(Ordering::Relaxed);
        if fails { Err(HookError::Retry { after_ms: 100, reason: "later".into() }) } else { Ok(count(events)) }
    }));
    let mut site = Site::bound(Store::open(dir.path(), &OPTIONS).await.unwrap(), &plugin);
    site.start().await;
    let (one, two) = (site.host().await, site.host().await);
    let (one, two) = (site.notes(one, 2).await, site.notes(two, 4).await);
    until("the first host is told", || plugin.told_of(1) == [1, 2, 3]).await;
    until("the other one is parked", || plugin.calls().iter().any(|(call, _)| call.attempt > 2)).await;
    site.service.store.damage_event(one.id, 2).await;
    site.service.store.damage_event(two.id, 2).await;
    site.service.store.damage_event(two.id, 5).await;
    let one = site.note(&one).await;
    until("what follows is told", || plugin.told_of(1) == [1, 2, 3, 4]).await;
    now_works.store(true, Ordering::Relaxed);
    site.quiet().await;
    assert_eq!((plugin.told_of(2), site.state().await.lost), (vec![1, 3, 4], 3));

    let service = site.stop().await;
    let kind = crate::domain::EventKind::ForeignBoot { from: [10, 0, 0, 9].into() };
    let note = |host| crate::domain::note(host, kind.clone(), Actor::Machine, service.now());
    let noted = service.store.commit(&one, note(&one)).await.unwrap();
    service.store.commit(&noted, note(&noted)).await.unwrap();
    service.store.damage_event(one.id, 5).await;
    service.close().await;
    drop(Arc::into_inner(service).unwrap());
    let plugin = Listener::willing();
    let mut site = Site::bound(Store::open(dir.path(), &OPTIONS).await.unwrap(), &plugin);
    site.start().await;
    site.quiet().await;
    assert_eq!((plugin.told(), site.state().await.lost), (vec![(1, 6)], 1));
}

#[tokio::test]
async fn a_plugin_is_forgotten_after_whoever_still_tells_it_and_nobody_tells_it_later() {
    let plugin = Listener::willing();
    let mut site = Site::bound(Store::memory(), &plugin);
    let closed = plugin.gate.write().await;
    site.start().await;
    site.host().await;
    until("the plugin is being told", || !plugin.calls().is_empty()).await;
    // What operators are shown says nothing about who may write.
    site.service.outbox.desk("webhook").set_mode(Mode::Stopped);
    site.service.replace_hooks(hooks(Vec::new()));
    let forgetting = tokio::spawn({
        let service = Arc::clone(&site.service);
        async move { service.forget_outbox("webhook").await }
    });
    tokio::task::yield_now().await;
    drop(closed);
    forgetting.await.unwrap().unwrap();
    // A dispatcher that was begun before, and has its turn only now.
    let stopped = CancellationToken::new();
    stopped.cancel();
    Dispatcher::run(Arc::clone(&site.service), "webhook".to_owned(), stopped).await;
    let service = site.stop().await;
    assert_eq!(service.outbox_state().await.unwrap(), []);
}

#[tokio::test]
async fn an_old_event_is_tried_more_than_once_before_it_is_given_up_for_its_age() {
    let plugin = Arc::new(Listener::new(|call, events| {
        if call.attempt < 4 { Err(HookError::Retry { after_ms: 1, reason: "down".into() }) } else { Ok(count(events)) }
    }));
    let mut site = Site::bound(Store::memory(), &plugin);
    site.start().await;
    // As after a jump of the clock: everything that happened before it is of last month.
    let machine = site.host().await;
    let kind = crate::domain::EventKind::ForeignBoot { from: [10, 0, 0, 9].into() };
    let long_ago = site.service.now().checked_sub(jiff::SignedDuration::from_hours(30 * 24)).unwrap();
    let change = crate::domain::note(&machine, kind, Actor::Machine, long_ago);
    site.service.store.commit(&machine, change).await.unwrap();
    site.quiet().await;
    assert_eq!((plugin.told(), site.state().await.dead_letters), (vec![(1, 1), (1, 2)], 0));
}
