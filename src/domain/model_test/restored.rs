//! A restored backup boots nothing but local disks, until it is released.

use super::rows::{next, offered, ordered};
use super::*;

proptest! {
    #[test]
    fn a_host_of_a_restored_backup_boots_nothing_until_it_is_released(before in steps(), lost in steps(), after in steps()) {
        let mut world = World::new();
        for step in &before {
            world.happen(step);
        }
        let backup = world.host.clone();
        for step in &lost {
            world.happen(step);
        }
        world.restore(backup);
        let boots = world.boots;
        for step in &after {
            world.happen(step);
            prop_assert_eq!(world.boots, boots, "nothing is booted");
        }
        prop_assert!(world.host.quarantined);
    }
}

#[test]
fn a_release_serves_no_payload_twice_and_old_calls_stay_refused() {
    let (mut world, given) = offered();
    world.deliver(&given);
    let backup = world.host.clone();
    world.restore(backup);
    assert_eq!(next(&world), NextBoot::Hold(HoldReason::Quarantined(HostId::new(1))));
    assert!(HoldReason::Quarantined(HostId::new(1)).to_string().contains("kiwispray release 1"));
    for _ in 0..2 {
        assert_eq!(finish(&world.host, &given.bootid, world.now), Err(FinishRefused::Superseded));
        assert_eq!(fail(&world.host, &given.bootid, "late", world.now), Err(FinishRefused::Superseded));
        assert_eq!(deliver(&world.host, &given.bootid, "image.xz", world.now), Err(FetchRefused::Over));
        if let Some(change) = release(&world.host, Actor::Operator("root".to_owned()), world.now) {
            world.commit(change);
        }
    }
    assert_eq!(next(&world), NextBoot::Hold(HoldReason::Unreported(HostId::new(1))), "it may be installed");
    assert_eq!(release(&world.host, Actor::Server, world.now), None);
}

#[test]
fn a_finished_host_of_a_restored_backup_boots_its_disk_and_takes_no_orders() {
    let mut world = ordered();
    world.happen(&Step_::OperatorFinish);
    world.happen(&Step_::OperatorFinish);
    let backup = world.host.clone();
    world.restore(backup);
    assert_eq!(next(&world), NextBoot::LocalDisk);
    let root = || Actor::Operator("root".to_owned());
    let set = set_states(&world.host, "image1".parse().unwrap(), true, false, root(), world.now);
    assert!(set.unwrap_err().to_string().contains("kiwispray release 1"));
    let wanted = Order { to: "image1".parse().unwrap(), name: Some("CHG1".parse().unwrap()), reinstall: true };
    let refused = order(&world.host, &wanted, &"cmdb".parse().unwrap(), world.now).unwrap_err();
    assert!(matches!(refused, OrderRefused::Quarantined(..)), "its name may have been used after the backup");
    world.commit(release(&world.host, root(), world.now).unwrap());
    assert!(set_states(&world.host, "image1".parse().unwrap(), true, false, root(), world.now).is_ok());
}
