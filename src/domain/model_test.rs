//! Drives random sequences of requests, operator's wishes, power losses and crashes against the transitions, and checks
//! what the product promises: one order is carried out once, and nothing leads to an installer by accident.
//!
//! The machine in this model is honest but unlucky: it does what a script tells it, may lose power at any point, repeats
//! and delays its reports, and remembers every bootid it was ever given.

use std::net::{IpAddr, Ipv4Addr};

use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::*;

const MOST_ATTEMPTS: u32 = 3;

/// One thing that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step_ {
    /// The machine asks `/bootstrap`; where its record allows a boot, plugins say this.
    Boot { verdict: Verdict, from: u8 },
    /// A file of some boot ever given is fetched.
    Fetch { which: usize },
    /// The payload of some boot ever given is served whole.
    Deliver { which: usize },
    /// Some boot ever given reports that it is done.
    Finish { which: usize },
    /// The same, and a plugin keeps the queue from moving on.
    FinishHeld { which: usize },
    /// Some boot ever given reports that it failed.
    Fail { which: usize },
    /// An operator sets the queue.
    Set { states: &'static str, reinstall: bool, abort: bool },
    /// A plugin sets the queue, perhaps under a name.
    Order { states: &'static str, name: Option<&'static str>, reinstall: bool },
    /// An operator orders the step anew.
    Retry { abort: bool },
    /// An operator declares the step done.
    OperatorFinish,
    /// The server dies; the newest change was not durable, so nobody was answered.
    CrashBeforeCommit { which: usize },
}

/// What plugins say of a boot.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Image(Writes),
    /// Something harmless that is not the state.
    Detour,
    Template(Writes),
    LocalDisk,
    /// Or they fail, which is the same.
    Hold,
}

fn steps() -> impl Strategy<Value = Vec<Step_>> {
    let writes = || prop_oneof![Just(Writes::Nothing), Just(Writes::Disk), Just(Writes::Wipe)];
    let verdict = prop_oneof![
        7 => writes().prop_map(Verdict::Image),
        1 => writes().prop_map(Verdict::Template),
        2 => Just(Verdict::Detour),
        1 => Just(Verdict::LocalDisk),
        1 => Just(Verdict::Hold),
    ];
    let states = prop_oneof![Just("new"), Just("finished"), Just("image1"), Just("wipe,image1"), Just("discover,new")];
    let ordered = prop_oneof![Just("new"), Just("finished"), Just("image1"), Just("wipe,image1")];
    let name = prop::option::of(prop_oneof![Just("CHG1"), Just("CHG2")]);
    let which = 0usize..8;
    let step = prop_oneof![
        6 => (verdict, 0u8..2).prop_map(|(verdict, from)| Step_::Boot { verdict, from }),
        4 => which.clone().prop_map(|which| Step_::Fetch { which }),
        3 => which.clone().prop_map(|which| Step_::Deliver { which }),
        3 => which.clone().prop_map(|which| Step_::Finish { which }),
        2 => which.clone().prop_map(|which| Step_::FinishHeld { which }),
        1 => which.clone().prop_map(|which| Step_::Fail { which }),
        2 => (states, any::<bool>(), any::<bool>()).prop_map(|(states, reinstall, abort)| Step_::Set { states, reinstall, abort }),
        2 => (ordered, name, any::<bool>()).prop_map(|(states, name, reinstall)| Step_::Order { states, name, reinstall }),
        1 => any::<bool>().prop_map(|abort| Step_::Retry { abort }),
        1 => Just(Step_::OperatorFinish),
        1 => which.prop_map(|which| Step_::CrashBeforeCommit { which }),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the test knows of one boot that was handed out.
#[derive(Debug, Clone)]
struct Given {
    bootid: BootId,
    step: Step,
    writes: Writes,
    detour: bool,
}

struct World {
    host: Host,
    now: Timestamp,
    given: Vec<Given>,
    /// Steps whose payload was delivered whole by an order.
    delivered: Vec<Step>,
    /// Steps that were finished.
    done: Vec<Step>,
    /// Attempts begun at each order.
    begun: Vec<Step>,
    /// Names of orders that were carried out, as the store remembers them.
    spent: Vec<OrderName>,
    /// Whether something was installed and not wiped since.
    installed: bool,
}

impl World {
    fn new() -> Self {
        let registration = Registration {
            identity: Identity::default(),
            hardware: Hardware::default(),
            hostname: None,
            states: States::new_host(),
            metadata: Metadata::default(),
            why: String::new(),
        };
        let now = Timestamp::UNIX_EPOCH;
        let host = register(HostId::new(1), registration, Actor::Machine, now).host;
        Self {
            host,
            now,
            given: Vec::new(),
            delivered: Vec::new(),
            done: Vec::new(),
            begun: Vec::new(),
            installed: false,
            spent: Vec::new(),
        }
    }

    /// Commits a change, and checks what holds for every one of them.
    fn commit(&mut self, change: Change) {
        let Change { host, events, order } = change;
        assert!(!events.is_empty(), "every change is explained");
        let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
        let expected: Vec<u64> = (self.host.event_count + 1..=host.event_count).collect();
        assert_eq!(numbers, expected, "events are numbered without gaps");
        let queue_changed = host.states != self.host.states;
        assert!(!queue_changed || host.step > self.host.step, "a changed queue is another step");
        assert!(host.step >= self.host.step, "steps never come back");
        if host.step > self.host.step {
            assert!(host.current_boot().is_none(), "a new step starts without a boot");
            assert!(host.revision > self.host.revision);
        }
        if self.host.states.is_finished() && !host.states.is_finished() {
            let wished = events.iter().any(|e| matches!(e.kind, EventKind::StatesSet { reinstall: true, .. }));
            assert!(wished, "only the spoken wish to reinstall leads out of finished");
            let by_plugin = events.iter().any(|event| matches!(event.actor, Actor::Plugin(_)));
            assert!(!by_plugin || order.is_some(), "a plugin's order for a finished host has a name");
        }
        if let Some(name) = order {
            assert!(!self.spent.contains(&name), "a wish is carried out once");
            self.spent.push(name);
        }
        self.host = host;
    }

    fn boot(&mut self, verdict: Verdict, from: u8) {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, from + 1));
        let ask = Ask { from, now: self.now, activity: Activity::Quiet, most_attempts: MOST_ATTEMPTS };
        let state = self.host.states.current().clone();
        match next_boot(&self.host, &ask) {
            NextBoot::LocalDisk => assert!(state.is_finished()),
            NextBoot::Wait => assert!(state.is_new()),
            NextBoot::Hold(reason) => {
                assert!(!state.is_finished(), "a finished host is never held by its own record");
                if let Some(change) = note_hold(&self.host, &reason, self.now) {
                    self.commit(change);
                }
                assert!(note_hold(&self.host, &reason, self.now).is_none(), "a hold is noted once");
            }
            NextBoot::Advance => {
                assert!(self.done.contains(&self.host.step), "only a step that is done is moved on from");
                // Every other time plugins still say no, and nothing changes.
                if self.now.as_second() % 2 == 0 {
                    self.commit(advance(&self.host, None, Actor::Machine, self.now));
                }
            }
            NextBoot::Offer => {
                assert!(!state.is_built_in(), "new and finished boot nothing");
                let (writes, template, detour) = match verdict {
                    Verdict::Image(writes) => (writes, false, false),
                    Verdict::Detour => (Writes::Nothing, false, true),
                    Verdict::Template(writes) => (writes, true, false),
                    // The machine is told so, and nothing is offered or changed.
                    Verdict::LocalDisk | Verdict::Hold => return,
                };
                let step = self.host.step;
                assert!(!self.done.contains(&step), "a step that was finished is never booted again");
                // The image of a state does not change within a step in this model, as in a stable image folder.
                let known = self.given.iter().find(|given| given.step == step && !given.detour);
                let writes = known.filter(|_| !detour).map_or(writes, |given| given.writes);
                if writes.is_order() {
                    assert!(
                        !self.delivered.contains(&step),
                        "an order that was delivered whole is never offered again"
                    );
                    let begun = self.begun.iter().filter(|begun| **begun == step).count();
                    assert!(begun < MOST_ATTEMPTS as usize, "an order has a limit of attempts");
                }
                let bootid = BootId::new(self.host.id, (self.given.len() as u128).to_be_bytes());
                let image = (!template).then(|| state.clone());
                let change = offer(&self.host, Offer { bootid, from, image, writes, detour }, self.now);
                if template {
                    self.begun.push(step);
                    if writes.is_order() {
                        self.delivered.push(step);
                    }
                    self.installed |= writes == Writes::Disk;
                }
                self.commit(change);
                self.given.push(Given { bootid, step, writes, detour });
            }
        }
    }

    fn fetch(&mut self, given: &Given) {
        let is_current = self.host.current_boot().is_some_and(|boot| boot.bootid == given.bootid);
        match start_attempt(&self.host, &given.bootid, "kernel", self.now) {
            Err(FetchRefused::Over) => assert!(!is_current),
            Ok(None) => assert!(is_current),
            Ok(Some(change)) => {
                assert!(is_current, "files of a boot that is over are not served");
                if !given.detour {
                    self.begun.push(given.step);
                }
                self.commit(change);
            }
        }
    }

    fn deliver(&mut self, given: &Given) {
        self.fetch(given);
        if let Ok(change) = deliver(&self.host, &given.bootid, "image.xz", self.now) {
            if let Some(change) = change {
                self.installed |= given.writes == Writes::Disk;
                self.commit(change);
            }
            if given.writes.is_order() {
                self.delivered.push(given.step);
            }
        }
    }

    fn finish(&mut self, given: &Given) {
        let before = self.host.clone();
        match finish(&self.host, &given.bootid, self.now) {
            Ok(Some(change)) if given.detour => {
                self.commit(change);
                assert_eq!((&self.host.states, self.host.step), (&before.states, before.step), "the step is as it was");
                assert_eq!(finish(&self.host, &given.bootid, self.now), Ok(None), "said once is said");
            }
            Ok(Some(change)) => {
                assert_eq!(given.step, self.host.step, "only a boot of the current step finishes it");
                self.installed = match given.writes {
                    Writes::Disk => true,
                    Writes::Wipe => false,
                    Writes::Nothing => self.installed,
                };
                assert!(!self.done.contains(&given.step), "a step is finished once");
                self.done.push(given.step);
                self.commit(change);
                assert_eq!(self.host.states, before.states.after_current(), "a finish advances by one");
            }
            Ok(None) => {
                assert!(given.detour || self.done.contains(&given.step), "a repeated finish was a finish before");
            }
            Err(FinishRefused::Superseded | FinishRefused::WrongBootId) => {
                let is_current = self.host.current_boot().is_some_and(|boot| boot.bootid == given.bootid);
                assert!(!is_current, "the running boot is never refused its finish");
            }
        }
    }

    fn finish_held(&mut self, given: &Given) {
        if given.detour {
            return self.finish(given);
        }
        let states = self.host.states.clone();
        if let Ok(Some(change)) = finish_held(&self.host, &given.bootid, "not\nyet", self.now) {
            assert_eq!(given.step, self.host.step, "only a boot of the current step finishes it");
            self.done.push(given.step);
            self.installed = match given.writes {
                Writes::Disk => true,
                Writes::Wipe => false,
                Writes::Nothing => self.installed,
            };
            self.commit(change);
            assert_eq!(self.host.states, states, "the queue waits");
            assert_eq!(finish(&self.host, &given.bootid, self.now), Ok(None), "said once is said");
            assert!(fail(&self.host, &given.bootid, "late", self.now).is_err(), "what is done cannot fail");
        }
    }

    fn fail(&mut self, given: &Given) {
        if let Ok(Some(change)) = fail(&self.host, &given.bootid, "disk\nbroken", self.now) {
            assert_eq!(given.step, self.host.step);
            self.commit(change);
            let ask = Ask {
                from: IpAddr::V4(Ipv4Addr::LOCALHOST),
                now: self.now,
                activity: Activity::Quiet,
                most_attempts: MOST_ATTEMPTS,
            };
            let holds = matches!(next_boot(&self.host, &ask), NextBoot::Hold(HoldReason::Failed(..)));
            assert!(holds, "what failed is not tried again by itself");
        }
    }

    fn set(&mut self, states: &str, reinstall: bool, abort: bool) {
        let to: States = states.parse().unwrap();
        let leaves_finished = self.host.states.is_finished() && !to.is_finished();
        match set_states(&self.host, to.clone(), reinstall, abort, Actor::Operator("root".to_owned()), self.now) {
            Ok(change) => {
                assert!(!leaves_finished || reinstall);
                assert!(!self.host.is_attempt_open() || abort);
                self.commit(change);
                assert_eq!(self.host.states, to);
                assert_eq!(self.host.attempts, 0, "an order starts with all its attempts");
            }
            Err(SetRefused::Finished(_)) => assert!(leaves_finished && !reinstall),
            Err(SetRefused::AttemptRunning(_)) => assert!(self.host.is_attempt_open() && !abort),
            Err(SetRefused::Quarantined(..)) => assert!(self.host.quarantined && !to.is_finished()),
        }
    }

    fn order(&mut self, states: &str, name: Option<&str>, reinstall: bool) {
        let to: States = states.parse().unwrap();
        let name: Option<OrderName> = name.map(|name| name.parse().unwrap());
        // The store refuses what was carried out before; nothing comes of it.
        if name.as_ref().is_some_and(|name| self.spent.contains(name)) {
            return;
        }
        let wanted = Order { to: to.clone(), name: name.clone(), reinstall };
        let again = self.host.may_be_installed() && !to.is_finished();
        match order(&self.host, &wanted, &"cmdb".parse().unwrap(), self.now) {
            Ok(None) => assert_eq!(self.host.states, to, "the same queue is no order"),
            Ok(Some(change)) => {
                assert!(!again || (reinstall && name.is_some()));
                assert!(!self.host.is_attempt_open(), "a plugin gives up no attempt");
                assert_eq!(change.order, name, "the name is committed with the order");
                self.commit(change);
                assert_eq!(self.host.states, to);
            }
            Err(OrderRefused::Finished(_)) => assert!(again && !reinstall),
            Err(OrderRefused::Nameless(_)) => assert!(again && name.is_none()),
            Err(OrderRefused::AttemptRunning(_)) => assert!(self.host.is_attempt_open()),
            Err(OrderRefused::Quarantined(..)) => assert!(self.host.quarantined && !to.is_finished()),
        }
    }

    /// A backup is restored: what was done since is forgotten here, but not by disks and machines.
    fn restore(&mut self, backup: Host) {
        self.host = backup;
        let unknown = BootId::new(self.host.id, [0xee; 16]);
        self.commit(quarantine(&self.host, unknown, "a backup of yesterday", self.now));
    }

    fn happen(&mut self, step: &Step_) {
        self.now += 1.second();
        let pick = |which: usize, given: &[Given]| given.iter().rev().nth(which % given.len().max(1)).cloned();
        match step {
            Step_::Boot { verdict, from } => self.boot(*verdict, *from),
            Step_::Fetch { which } => drop(pick(*which, &self.given).map(|given| self.fetch(&given))),
            Step_::Deliver { which } => drop(pick(*which, &self.given).map(|given| self.deliver(&given))),
            Step_::Finish { which } => drop(pick(*which, &self.given).map(|given| self.finish(&given))),
            Step_::FinishHeld { which } => drop(pick(*which, &self.given).map(|given| self.finish_held(&given))),
            Step_::Fail { which } => drop(pick(*which, &self.given).map(|given| self.fail(&given))),
            Step_::Set { states, reinstall, abort } => self.set(states, *reinstall, *abort),
            Step_::Order { states, name, reinstall } => self.order(states, *name, *reinstall),
            Step_::Retry { abort } => {
                let is_built_in = self.host.states.current().is_built_in();
                match retry(&self.host, *abort, Actor::Operator("root".to_owned()), self.now) {
                    Ok(change) => {
                        assert!(!is_built_in);
                        self.commit(change);
                    }
                    Err(RetryRefused::NothingToRetry(..)) => assert!(is_built_in),
                    Err(RetryRefused::AttemptRunning(_)) => assert!(self.host.is_attempt_open() && !abort),
                    Err(RetryRefused::Quarantined(..)) => assert!(self.host.quarantined),
                }
            }
            Step_::OperatorFinish => {
                let step = self.host.step;
                if let Some(change) = finish_by_operator(&self.host, Actor::Operator("root".to_owned()), self.now) {
                    self.done.push(step);
                    self.commit(change);
                }
            }
            Step_::CrashBeforeCommit { which } => {
                // Computed, not durable, not answered: as if it had never been.
                let before = self.host.clone();
                if let Some(given) = pick(*which, &self.given) {
                    let _ = finish(&self.host, &given.bootid, self.now);
                    let _ = start_attempt(&self.host, &given.bootid, "kernel", self.now);
                }
                assert_eq!(self.host, before);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_requests_installs_twice_or_loses_a_finish(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.happen(step);
            assert!(!world.installed || world.host.installed, "what was installed is known as such, whatever queues come and go");
        }
    }
}

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
        let boots = world.given.len();
        for step in &after {
            world.happen(step);
            prop_assert_eq!(world.given.len(), boots, "nothing is booted");
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

// ---- The table of power losses, row by row ----

fn ordered() -> World {
    let mut world = World::new();
    world.set("wipe,image1", false, false);
    world
}

fn offered() -> (World, Given) {
    let mut world = ordered();
    world.boot(Verdict::Image(Writes::Disk), 0);
    let given = world.given.last().unwrap().clone();
    (world, given)
}

fn next(world: &World) -> NextBoot {
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
