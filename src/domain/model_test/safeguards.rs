//! Locks, the freeze and the limit of reinstalls, one by one.

use super::rows::{next, offered, ordered};
use super::*;

fn root() -> Actor {
    Actor::Operator("root".to_owned())
}

fn writing(world: &World) -> Result<Clearance, HoldReason> {
    clear(&world.host, Writes::Disk, &world.fleet, world.now)
}

#[test]
fn a_locked_host_takes_no_orders_from_anybody() {
    let mut world = ordered();
    world.commit(lock(&world.host, "evidence", root(), world.now).unwrap());
    let set = set_states(&world.host, "image1".parse().unwrap(), true, true, root(), world.now).unwrap_err();
    let wanted = Order { to: "image1".parse().unwrap(), name: Some("CHG1".parse().unwrap()), reinstall: true };
    let plugin = order(&world.host, &wanted, &"cmdb".parse().unwrap(), world.now).unwrap_err();
    let retry = retry(&world.host, true, root(), world.now).unwrap_err();
    let forget = check_unlocked(&world.host).unwrap_err();
    for refused in [set.to_string(), plugin.to_string(), retry.to_string(), forget.to_string()] {
        assert_eq!(
            refused,
            "host 1 is locked by root since 1970-01-01 00:00:00 UTC: evidence - it takes no orders until \
             `kiwispray host unlock 1`"
        );
    }
    assert!(
        set_states(&world.host, States::finished(), false, false, root(), world.now).is_ok(),
        "it may be taken back"
    );
    assert_eq!(lock(&world.host, "", root(), world.now), None, "once is enough");
    assert_eq!(lock(&world.host, "evidence", root(), world.now), None);
    assert!(lock(&world.host, "the trial is over", root(), world.now).is_some(), "another reason is news");
    world.commit(unlock(&world.host, root(), world.now).unwrap());
    assert_eq!(unlock(&world.host, root(), world.now), None);
    assert_eq!(writing(&world), Ok(Clearance::Writing));
}

#[test]
fn a_lock_and_a_freeze_keep_what_writes_from_booting_and_nothing_else() {
    let (mut world, given) = offered();
    world.commit(lock(&world.host, "", root(), world.now).unwrap());
    world.fleet.frozen = Some(Safeguard::new(root(), "fire", world.now));
    assert_eq!(next(&world), NextBoot::Offer, "what boots is for plugins to say, and then it is looked at");
    assert!(matches!(writing(&world), Err(HoldReason::Locked(..))));
    assert_eq!(clear(&world.host, Writes::Nothing, &world.fleet, world.now), Ok(Clearance::NotNeeded));
    // What was handed out before goes on.
    world.deliver(&given);
    world.finish(&given);
    world.commit(unlock(&world.host, root(), world.now).unwrap());
    let reason = writing(&world).unwrap_err();
    assert_eq!(
        reason.to_string(),
        "frozen by root since 1970-01-01 00:00:00 UTC: fire - no image that writes is booted until: kiwispray thaw"
    );
    world.finish(&given);
    world.happen(&Step_::OperatorFinish);
    assert_eq!(next(&world), NextBoot::LocalDisk);
}

#[test]
fn what_was_delivered_and_is_tried_again_by_hand_counts() {
    let (mut world, given) = offered();
    world.deliver(&given);
    assert!(world.fleet.reinstalls.moments().is_empty(), "a first installation does not count");
    world.happen(&Step_::Retry { abort: false });
    world.boot(Verdict::Image(Writes::Disk), 0);
    assert_eq!(world.fleet.reinstalls.moments().len(), 1, "its disk may hold a system that did not report");
}

#[test]
fn an_order_for_an_installed_host_counts_once_whoever_gave_it_and_however_often_it_boots() {
    let (mut world, given) = offered();
    world.deliver(&given);
    world.finish(&given);
    world.happen(&Step_::OperatorFinish);
    assert!(world.fleet.reinstalls.moments().is_empty(), "a first installation does not count");
    for (count, by_plugin) in [(1, false), (2, true), (3, false)] {
        if by_plugin {
            world.order("image1", Some("CHG1"), true);
        } else {
            world.set("image1", true, true);
        }
        for _ in 0..2 {
            world.boot(Verdict::Detour, 0);
            world.boot(Verdict::Image(Writes::Disk), 0);
            assert_eq!(world.fleet.reinstalls.moments().len(), count);
        }
        let given = world.given.last().unwrap().clone();
        world.deliver(&given);
        world.finish(&given);
    }
    world.set("image1", true, true);
    let reason = writing(&world).unwrap_err().to_string();
    assert!(reason.starts_with("limits.reinstalls_per_hour is 3"), "{reason}");
    assert!(reason.contains("the next may be at 1970-01-01 01:00:"), "{reason}");
    world.fleet.most_reinstalls = 4;
    assert!(matches!(writing(&world), Ok(Clearance::Reinstalling(_))));
    world.fleet.most_reinstalls = 3;
    world.now += 1.hour();
    assert!(matches!(writing(&world), Ok(Clearance::Reinstalling(_))));
}

#[test]
fn an_order_that_replaces_another_does_not_escape_the_count() {
    let mut world = World::new();
    // Declared finished by hand: nothing is known of its disk.
    world.happen(&Step_::OperatorFinish);
    world.set("image1", true, false);
    world.set("new", false, false);
    world.set("wipe,image1", false, false);
    assert!(world.host.reinstalls);
}
