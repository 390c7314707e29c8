//! The table of power losses, row by row.

use super::world::Given;
use super::*;

pub(super) fn ordered() -> World {
    let mut world = World::new();
    world.set("wipe,image1", false, false);
    world
}

pub(super) fn offered() -> (World, Given) {
    let mut world = ordered();
    world.boot(Verdict::Image(Writes::Disk), 0);
    let given = world.given.last().unwrap().clone();
    (world, given)
}

pub(super) fn next(world: &World) -> NextBoot {
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
    next_boot(&world.host, &Ask { from, now: world.now, activity: Activity::Quiet, most_attempts: MOST_ATTEMPTS })
}

#[test]
fn power_lost_before_anything_was_fetched_is_no_attempt() {
    let (mut world, _) = offered();
    for _ in 0..20 {
        assert_eq!(next(&world), NextBoot::Offer);
        world.boot(Verdict::Image(Writes::Disk), 0);
    }
    assert_eq!(world.host.attempts, 0);
}

#[test]
fn power_lost_while_the_payload_was_served_is_retried_up_to_the_limit() {
    let (mut world, _) = offered();
    for attempt in 1..=MOST_ATTEMPTS {
        let given = world.given.last().unwrap().clone();
        world.fetch(&given);
        assert_eq!(world.host.attempts, attempt);
        if attempt < MOST_ATTEMPTS {
            world.boot(Verdict::Image(Writes::Disk), 0);
        }
    }
    assert_eq!(next(&world), NextBoot::Hold(HoldReason::TooManyAttempts(HostId::new(1), MOST_ATTEMPTS)));
}

#[test]
fn power_lost_after_the_payload_was_served_whole_holds_until_a_person_acts() {
    let (mut world, given) = offered();
    world.deliver(&given);
    assert_eq!(next(&world), NextBoot::Hold(HoldReason::Unreported(HostId::new(1))));
    let text = HoldReason::Unreported(HostId::new(1)).to_string();
    assert_eq!(text, "installed but never reported: kiwispray host finish 1 or kiwispray host retry 1");
    // The report may still come.
    world.finish(&given);
    assert_eq!(world.host.states.to_string(), "image1");
}

#[test]
fn an_image_that_writes_nothing_boots_again_and_again() {
    let mut world = ordered();
    for _ in 0..10 {
        world.boot(Verdict::Image(Writes::Nothing), 0);
        let given = world.given.last().unwrap().clone();
        world.deliver(&given);
        assert_eq!(next(&world), NextBoot::Offer);
    }
}

#[test]
fn the_answer_to_a_finish_may_be_lost() {
    let (mut world, given) = offered();
    world.deliver(&given);
    world.finish(&given);
    assert_eq!(finish(&world.host, &given.bootid, world.now), Ok(None));
    world.boot(Verdict::Image(Writes::Disk), 0);
    assert_eq!(finish(&world.host, &given.bootid, world.now), Ok(None), "not even when the next step has begun");
    assert_eq!(world.host.states.to_string(), "image1");
}

#[test]
fn reports_of_a_superseded_step_change_nothing() {
    let (mut world, given) = offered();
    world.fetch(&given);
    world.set("image1", false, true);
    assert_eq!(finish(&world.host, &given.bootid, world.now), Err(FinishRefused::Superseded));
    assert_eq!(fail(&world.host, &given.bootid, "late", world.now), Err(FinishRefused::Superseded));
    let stranger = BootId::new(world.host.id, [9; 16]);
    assert_eq!(finish(&world.host, &stranger, world.now), Err(FinishRefused::WrongBootId));
}

#[test]
fn a_colleagues_curl_does_not_kill_an_install() {
    let (mut world, given) = offered();
    world.fetch(&given);
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let ask = Ask { from: elsewhere, now: world.now, activity: Activity::Fetching, most_attempts: MOST_ATTEMPTS };
    let home = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
    assert_eq!(next_boot(&world.host, &ask), NextBoot::Hold(HoldReason::InUse(home)));
    assert_eq!(next_boot(&world.host, &Ask { from: home, ..ask }), NextBoot::Offer);
}

#[test]
fn a_clock_far_behind_the_records_installs_nothing() {
    let (mut world, _) = offered();
    world.now = Timestamp::UNIX_EPOCH - 1.hour();
    assert_eq!(next(&world), NextBoot::Hold(HoldReason::ClockBehind));
    world.now = Timestamp::UNIX_EPOCH;
    world.host.states = States::finished();
    world.now = Timestamp::UNIX_EPOCH - 1.hour();
    assert_eq!(next(&world), NextBoot::LocalDisk, "its own disk is no matter of clocks");
}

#[test]
fn a_plugin_needs_leave_to_install_again_what_may_be_installed() {
    let plugin: PluginName = "cmdb".parse().unwrap();
    let want = |name: Option<&str>, reinstall| Order {
        to: "image1".parse().unwrap(),
        name: name.map(|name| name.parse().unwrap()),
        reinstall,
    };
    let (mut delivered, given) = offered();
    delivered.deliver(&given);
    delivered.boot(Verdict::Image(Writes::Disk), 0);
    let (mut done, given) = offered();
    done.finish_held(&given);
    for world in [delivered, done] {
        let refuse = |want: &Order| order(&world.host, want, &plugin, world.now).unwrap_err();
        assert!(matches!(refuse(&want(Some("change 7"), false)), OrderRefused::Finished(_)));
        assert!(matches!(refuse(&want(None, true)), OrderRefused::Nameless(_)));
        assert!(order(&world.host, &want(Some("change 7"), true), &plugin, world.now).unwrap().is_some());
    }
}
