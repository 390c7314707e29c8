use kiwispray_sdk::testing::Core;
use serde_json::{Value, json};

use super::*;
use crate::double::{Bench, CONFIG, UUID, ordered};

fn config() -> Config {
    ask::parse_config(CONFIG).unwrap()
}

fn begin(core: &Core) {
    core.run(|| notice(&config(), &core.host_now(7).unwrap(), Occasion::Order)).unwrap();
}

/// One run at a time of the clock.
fn run_at(core: &Core, now_ms: u64) -> Option<u64> {
    core.clone().now_ms(now_ms).run(|| advance(&config(), 1_000)).unwrap()
}

fn step(core: &Core) -> Option<Step> {
    core.entry_now(&key(7)).map(|work| serde_json::from_slice::<Work>(&work).unwrap().step)
}

fn words(core: &Core) -> String {
    core.run(|| progress(7, &Subject::of(&core.host_now(7).unwrap()).unwrap())).unwrap().0
}

fn bios(core: &Core) -> Value {
    core.host_now(7).unwrap().metadata().unwrap()["bios"].clone()
}

#[test]
fn settings_are_made_in_small_steps_and_the_disk_is_put_back_after_the_installation() {
    let bench = Bench::new();
    let core = bench.core(ordered("R750", "web"));
    begin(&core);
    run_at(&core, 0);
    assert_eq!((step(&core), bench.0.borrow().pending.len()), (Some(Step::Reset), 1));
    assert_eq!(run_at(&core, 1), Some(AFTER_RESET_MS));
    assert_eq!(bench.0.borrow().resets, ["On"]);
    assert_eq!(bench.0.borrow().boot, ("Pxe".to_owned(), "Once".to_owned()));
    assert_eq!(bios(&core), Value::Null);
    run_at(&core, 10_000);
    assert_eq!(step(&core), Some(Step::Installing));
    assert_eq!(bios(&core), json!({"profile": "r750", "version": "2"}));
    run_at(&core, 100_000);
    assert_eq!(step(&core), Some(Step::Installing));

    let finished = KnownHost { states: vec!["finished".into()], revision: 50, ..core.host_now(7).unwrap() };
    let core = core.host(finished);
    core.clone().now_ms(110_000).run(|| notice(&config(), &core.host_now(7).unwrap(), Occasion::Change)).unwrap();
    run_at(&core, 110_000);
    run_at(&core, 110_001);
    assert_eq!(bench.0.borrow().boot, ("Hdd".to_owned(), "Once".to_owned()));
    assert_eq!((step(&core), bench.0.borrow().resets.len()), (None, 1));
}

#[test]
fn a_machine_that_has_its_settings_is_not_reset() {
    let bench = Bench::new();
    bench.0.borrow_mut().attributes.insert("Turbo".into(), json!("Off"));
    let core = bench.core(ordered("R750", "web"));
    begin(&core);
    run_at(&core, 0);
    assert_eq!(bios(&core)["profile"], "r750");
    assert!(core.requests().iter().all(|request| request.method == "GET"));
}

#[test]
fn a_machine_that_runs_is_reset_only_when_it_has_asked_and_waits() {
    let bench = Bench::new();
    bench.0.borrow_mut().power = "On".into();
    let core = bench.core(ordered("R750", "web")).now_ms(500);
    begin(&core);
    for now_ms in [500, 501, 6_000, 12_000] {
        run_at(&core, now_ms);
    }
    assert_eq!((step(&core), bench.0.borrow().resets.len()), (Some(Step::Reset), 0));
    // What it was told before an earlier order does not count.
    let host = |waiting: u64| KnownHost {
        metadata: json!({"bmc": {"url": "https://bmc"}, "bios": {"waiting": waiting}}).to_string(),
        ..core.host_now(7).unwrap()
    };
    let core = core.clone().host(host(499));
    run_at(&core, 20_000);
    assert!(bench.0.borrow().resets.is_empty());
    let subject = Subject::of(&core.host_now(7).unwrap()).unwrap();
    let (_, patch) = core.clone().deciding().run(|| progress(7, &subject)).unwrap();
    assert_eq!(patch, Some(Patch::default().set("bios.waiting", 500)));
    let core = core.clone().host(host(500));
    let subject = Subject::of(&core.host_now(7).unwrap()).unwrap();
    assert_eq!(core.run(|| progress(7, &subject)).unwrap().1, None, "once is enough");
    run_at(&core, 30_000);
    assert_eq!(bench.0.borrow().resets, ["PowerCycle"]);
    run_at(&core, 40_000);
    assert_eq!(bios(&core), json!({"profile": "r750", "version": "2"}));
}

#[test]
fn a_machine_that_starts_again_by_itself_is_not_reset() {
    let bench = Bench::new();
    bench.0.borrow_mut().power = "On".into();
    let core = bench.core(ordered("R750", "web"));
    begin(&core);
    run_at(&core, 0);
    run_at(&core, 1);
    let mut double = bench.0.borrow_mut();
    let mut pending = std::mem::take(&mut double.pending);
    double.attributes.append(&mut pending);
    drop(double);
    run_at(&core, 60_000);
    assert_eq!((bios(&core)["profile"].clone(), bench.0.borrow().resets.len()), (json!("r750"), 0));
}

/// Everything that must keep a machine from being reset, happening just before the reset.
#[test]
fn no_host_that_is_done_finished_or_has_begun_is_reset() {
    let changes: [fn(&mut KnownHost); 6] = [
        |host| host.states = vec!["finished".into()],
        |host| host.states = vec!["new".into()],
        |host| host.attempts = 1,
        |host| host.more = r#"{"hardware":{"product":"R750"},"boot":{"stage":"offered"}}"#.into(),
        |host| host.metadata = r#"{"bmc":{"url":"https://bmc"},"bios":{"profile":"r750","version":2}}"#.into(),
        |host| host.more = r#"{"hardware":{"product":"other"}}"#.into(),
    ];
    for change in changes {
        let bench = Bench::new();
        let core = bench.core(ordered("R750", "web"));
        begin(&core);
        run_at(&core, 0);
        assert_eq!(step(&core), Some(Step::Reset));
        let mut host = core.host_now(7).unwrap();
        change(&mut host);
        let core = core.host(host);
        for now_ms in [1, 60_000, 10_000_000] {
            run_at(&core, now_ms);
        }
        assert_eq!((step(&core), bench.0.borrow().resets.len()), (None, 0));
    }
}

#[test]
fn a_host_that_begins_while_its_bmc_answers_is_not_reset() {
    let bench = Bench::new();
    let core = bench.core(ordered("R750", "web"));
    begin(&core);
    run_at(&core, 0);
    // Reading the BIOS is the last thing before the reset: the host changes under it.
    let (double, other) = (bench.0.clone(), core.clone());
    let core = core.http(move |request| {
        if request.url.ends_with("/firmware") {
            let _ = other.clone().host(KnownHost { attempts: 1, ..other.host_now(7).unwrap() });
        }
        double.borrow_mut().answer(request)
    });
    run_at(&core, 1);
    run_at(&core, 2_000);
    assert_eq!((step(&core), bench.0.borrow().resets.len()), (None, 0));
}

#[test]
fn what_a_bmc_refuses_is_shown_once_tried_again_and_cleared() {
    let bench = Bench::new();
    let info = json!({"error": {"@Message.ExtendedInfo": [{"Message": "Turbo is read-only"}]}});
    bench.0.borrow_mut().refuses = Some((400, info));
    let core = bench.core(ordered("R750", "web"));
    begin(&core);
    assert_eq!(run_at(&core, 0), Some(BACKOFF_FIRST_MS));
    assert!(bios(&core)["error"].as_str().unwrap().contains("Turbo is read-only"));
    assert!(words(&core).contains("Turbo is read-only"));
    assert_eq!(run_at(&core, 5_000), Some(2 * BACKOFF_FIRST_MS));
    assert_eq!(core.applied().len(), 1, "the same words are not written again");
    bench.0.borrow_mut().refuses = None;
    run_at(&core, 20_000);
    assert_eq!((step(&core), bios(&core)), (Some(Step::Reset), json!({})));
}

#[test]
fn an_unreachable_bmc_is_asked_less_and_less_often_and_again_when_its_address_changes() {
    let bench = Bench::new();
    bench.0.borrow_mut().is_down = true;
    let core = bench.core(ordered("R750", "web"));
    begin(&core);
    let mut now_ms = 0;
    for _ in 0..20 {
        let wait_ms = run_at(&core, now_ms).unwrap();
        assert!(wait_ms <= BACKOFF_MOST_MS);
        now_ms += wait_ms;
    }
    assert_eq!(core.requests().len(), 20);
    bench.0.borrow_mut().is_down = false;
    core.clone().now_ms(now_ms - 1).run(|| notice(&config(), &core.host_now(7).unwrap(), Occasion::Look)).unwrap();
    assert_eq!(run_at(&core, now_ms - 1), Some(1));
    core.clone().now_ms(now_ms - 1).run(|| notice(&config(), &core.host_now(7).unwrap(), Occasion::Change)).unwrap();
    run_at(&core, now_ms - 1);
    assert_eq!(step(&core), Some(Step::Reset));
}

#[test]
fn a_bios_that_does_not_obey_is_given_up_after_three_resets_until_the_next_order() {
    let bench = Bench::new();
    bench.0.borrow_mut().obeys = false;
    let waiting = r#"{"bmc":{"url":"https://bmc"},"bios":{"waiting":0}}"#;
    let core = bench.core(KnownHost { metadata: waiting.into(), ..ordered("R750", "web") });
    begin(&core);
    let mut now_ms = 0;
    for _ in 0..2_000 {
        now_ms += run_at(&core, now_ms).unwrap().max(1);
    }
    assert_eq!((step(&core), bench.0.borrow().resets.len()), (Some(Step::Stuck), 3));
    assert!(bios(&core)["error"].as_str().unwrap().contains("Turbo is not \"Off\""), "{}", bios(&core));
    core.run(|| notice(&config(), &core.host_now(7).unwrap(), Occasion::Change)).unwrap();
    assert_eq!(step(&core), Some(Step::Stuck));
    bench.0.borrow_mut().obeys = true;
    begin(&core);
    for _ in 0..10 {
        now_ms += run_at(&core, now_ms).unwrap().max(1);
    }
    assert_eq!(bios(&core), json!({"profile": "r750", "version": "2"}));
}

#[test]
fn an_address_that_is_missing_or_anothers_is_told_and_nothing_is_changed() {
    for (metadata, word) in [
        ("{}", "metadata.bmc.url"),
        (r#"{"bmc":{"url":[]}}"#, "metadata.bmc.url"),
        (r#"{"bmc":{"url":"https://u:p@bmc"}}"#, "no address"),
    ] {
        let core = Bench::new().core(KnownHost { metadata: metadata.into(), ..ordered("R750", "web") });
        begin(&core);
        run_at(&core, 0);
        assert!(bios(&core)["error"].as_str().unwrap().contains(word), "{metadata}");
        assert!(core.requests().is_empty());
    }
    let core = Bench::new().core(KnownHost { uuid: UUID.replace('7', "9"), ..ordered("R750", "web") });
    begin(&core);
    run_at(&core, 0);
    assert!(bios(&core)["error"].as_str().unwrap().contains("not the host's"));
}

#[test]
fn a_host_that_is_forgotten_and_an_entry_of_another_version_are_dropped() {
    let bench = Bench::new();
    let core = bench.core(ordered("R750", "web")).entry(&key(7), "{}").entry("work/odd", "{}").entry(&key(8), {
        let config = config();
        let work = Work::new(config.named("r750", "2").unwrap(), 0);
        serde_json::to_vec(&work).unwrap()
    });
    assert_eq!(run_at(&core, 0), None);
    assert!(core.entries().is_empty() && core.requests().is_empty());
}

#[test]
fn all_hosts_are_looked_at_also_where_they_are_more_than_the_server_lists_at_once() {
    // What another version of the plugin left is put away when it is looked at.
    let core = (0..600).fold(Bench::new().core(ordered("R750", "web")), |core, id| core.entry(&key(id), "of before"));
    run_at(&core, 0);
    assert_eq!(core.entries().len(), 0);
}
