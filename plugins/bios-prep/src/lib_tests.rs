use kiwispray_sdk::testing::{Core, event, request};
use kiwispray_sdk::{BootVerdict, DiscoveryVerdict, TransitionVerdict};
use serde_json::json;

use super::*;
use crate::double::{Bench, ordered};

fn core(host: KnownHost) -> Core {
    Bench::new().core(host)
}

fn change(product: &str, to: &str, cause: &str) -> TransitionRequest {
    TransitionRequest {
        host: ordered(product, "finished"),
        to: to.split(',').map(str::to_owned).collect(),
        cause: cause.into(),
        actor: "root".into(),
    }
}

#[test]
fn an_order_is_led_through_the_preparation_image() {
    let core = core(ordered("KVM", "new"));
    for cause in ["operator", "plugin"] {
        let decision = core.run(|| BiosPrep::before(change("KVM", "wipe,web", cause))).unwrap();
        assert_eq!(
            decision.verdict,
            TransitionVerdict::Redirect(["bios-kvm", "wipe", "web"].map(str::to_owned).into())
        );
        assert!(decision.reason.contains("`kvm`"));
    }
    for (product, to, cause) in
        [("KVM", "web", "finish"), ("KVM", "web", "retry"), ("KVM", "new", "operator"), ("R750", "web", "operator")]
    {
        assert_eq!(core.run(|| BiosPrep::before(change(product, to, cause))), Ok(ALLOW), "{product} {to} {cause}");
    }
    let bare = Core::new().config(crate::double::CONFIG);
    let decision = bare.run(|| BiosPrep::before(change("KVM", "web", "operator"))).unwrap();
    assert!(matches!(decision.verdict, TransitionVerdict::Deny(why) if why.contains("bios-kvm")));
}

#[test]
fn a_discovered_machine_that_was_given_states_is_prepared_first() {
    let mut boot = request(ordered("", "web"));
    boot.facts.push(("product".into(), "KVM".into()));
    let states = |boot: &BootRequest| {
        let decision = core(ordered("", "new")).run(|| BiosPrep::discovered(boot.clone())).unwrap();
        let DiscoveryVerdict::Admit(patch) = decision.verdict else { panic!("refused") };
        patch.states.map(|states| states.join(","))
    };
    assert_eq!(states(&boot).as_deref(), Some("bios-kvm,web"));
    boot.host.states = vec!["new".into()];
    assert_eq!(states(&boot), None);
}

#[test]
fn the_preparation_image_is_noted_when_it_has_reported() {
    for from in [json!("bios-kvm,web"), json!(["bios-kvm", "web"])] {
        let core = core(ordered("KVM", "web"));
        let mut finished = event("finished", core.host_now(7));
        finished.detail = json!({"from": from, "to": "web"}).to_string();
        core.run(|| BiosPrep::event(finished.clone())).unwrap();
        assert_eq!(core.host_now(7).unwrap().metadata().unwrap()["bios"], json!({"profile": "kvm", "version": "1"}));
        // Delivered again, at an old revision: the same.
        core.run(|| BiosPrep::event(finished)).unwrap();
    }
    for odd in [json!({"from": "wipe,bios-kvm"}), json!({"from": null}), json!({}), json!([]), json!({"from": [[], 7]})]
    {
        let core = core(ordered("KVM", "web"));
        let mut finished = event("finished", core.host_now(7));
        finished.detail = odd.to_string();
        core.run(|| BiosPrep::event(finished)).unwrap();
        assert!(core.applied().is_empty(), "{odd}");
    }
}

#[test]
fn a_host_that_owes_its_settings_waits_and_says_for_what() {
    let core = core(ordered("R750", "web"));
    let decide = |host: KnownHost| core.clone().deciding().run(|| BiosPrep::boot(request(host))).unwrap();
    let text = |host: KnownHost| match decide(host).verdict {
        BootVerdict::Hold(hold) => hold.text,
        other @ (BootVerdict::Pass | BootVerdict::Boot(_)) => panic!("{other:?}"),
    };
    assert_eq!(text(ordered("R750", "web")), "BIOS settings are being applied: about to begin");
    core.run(|| BiosPrep::event(event("states_set", core.host_now(7)))).unwrap();
    assert!(text(ordered("R750", "web")).ends_with("comparing the settings"));
    let nowhere = KnownHost { metadata: "{}".into(), ..ordered("R750", "web") };
    assert!(text(nowhere).contains("metadata.bmc.url names no BMC"));
    for (product, states) in [("R750", "new"), ("KVM", "web"), ("other", "web"), ("R750", "discover,new")] {
        assert_eq!(decide(ordered(product, states)), PASS);
    }
    assert_eq!(decide(KnownHost { attempts: 1, ..ordered("R750", "web") }), PASS);
    let done = KnownHost { metadata: r#"{"bios":{"profile":"r750","version":2}}"#.into(), ..ordered("R750", "web") };
    assert_eq!(decide(done), PASS);
}

#[test]
fn an_order_is_carried_through_by_runs_alone() {
    let bench = Bench::new();
    let core = bench.core(ordered("R750", "web"));
    // Nobody told it: the look finds the host.
    let mut now_ms = 0;
    assert_eq!(core.run(|| BiosPrep::run(LOOK)), Ok(NextRun::AfterMs(1_000)));
    for _ in 0..5 {
        now_ms += 5_000;
        core.clone().now_ms(now_ms).run(|| BiosPrep::run(APPLY)).unwrap();
    }
    assert_eq!(core.host_now(7).unwrap().metadata().unwrap()["bios"], json!({"profile": "r750", "version": "2"}));
    assert_eq!(bench.0.borrow().resets.len(), 1);
}

#[test]
fn a_dry_run_touches_no_machine() {
    let core = core(ordered("R750", "web"));
    core.run(|| BiosPrep::event(event("states_set", core.host_now(7)))).unwrap();
    assert_eq!(core.clone().dry_run().run(|| BiosPrep::run(APPLY)), Ok(NextRun::AtPeriod));
    assert!(core.requests().is_empty());
}

#[test]
fn a_run_without_time_begins_nothing() {
    let core = core(ordered("R750", "web")).budget_ms(500);
    assert!(core.run(|| BiosPrep::run(LOOK)).is_ok());
    assert!(core.requests().is_empty());
}
