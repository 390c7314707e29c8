//! A host, its unlucky machine, and what the test itself remembers of both.

use super::*;

/// What the test knows of one boot that was handed out.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) bootid: BootId,
    pub(super) step: Step,
    pub(super) writes: Writes,
    pub(super) detour: bool,
}

pub(super) struct World {
    pub(super) host: Host,
    pub(super) now: Timestamp,
    pub(super) given: Vec<Given>,
    /// How many boots were handed out, ever.
    pub(super) boots: usize,
    /// Steps whose payload was delivered whole by an order.
    pub(super) delivered: Vec<Step>,
    /// Steps that were finished.
    pub(super) done: Vec<Step>,
    /// Attempts begun at each order.
    pub(super) begun: Vec<Step>,
    /// Names of orders that were carried out, as the store remembers them.
    pub(super) spent: Vec<OrderName>,
    /// Whether something was installed.
    pub(super) installed: bool,
    /// What holds for all hosts.
    pub(super) fleet: Fleet,
    /// Which order the host has: grows with each.
    pub(super) order: u32,
    /// Whether that order was given when the disk was installed.
    pub(super) again: bool,
    /// Orders given to an installed host of which a boot that writes was handed out.
    pub(super) reinstalled: Vec<u32>,
}

impl World {
    pub(super) fn new() -> Self {
        let registration = Registration {
            identity: Identity { macs: [MacAddr::new([0x52, 0x54, 0, 0, 0, 1])].into(), ..Identity::default() },
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
            boots: 0,
            delivered: Vec::new(),
            done: Vec::new(),
            begun: Vec::new(),
            installed: false,
            fleet: Fleet { most_reinstalls: MOST_REINSTALLS, ..Fleet::default() },
            order: 0,
            again: false,
            reinstalled: Vec::new(),
            spent: Vec::new(),
        }
    }

    /// Commits a change, and checks what holds for every one of them.
    pub(super) fn commit(&mut self, change: Change) {
        let Change { host, events, order, clearance, tombstone: _ } = change;
        if let Clearance::Reinstalling(counted) = clearance {
            self.fleet.reinstalls = counted;
        }
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

    pub(super) fn boot(&mut self, verdict: Verdict, from: u8) {
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
                let bootid = BootId::new(self.host.id, (self.boots as u128).to_be_bytes());
                let image = (!template).then(|| state.clone());
                let offered = offer(&self.host, Offer { bootid, from, image, writes, detour }, &self.fleet, self.now);
                let change = match offered {
                    Ok(change) => change,
                    Err(reason) => return self.refused(writes, &reason),
                };
                if writes.is_order() {
                    assert!(self.host.lock.is_none(), "a locked host is handed nothing that writes");
                    assert!(self.fleet.frozen.is_none(), "nothing that writes is handed out while frozen");
                    if self.again && !self.reinstalled.contains(&self.order) {
                        self.reinstalled.push(self.order);
                        assert!(self.reinstalled.len() <= MOST_REINSTALLS as usize, "reinstalls have a limit");
                    }
                }
                if template {
                    self.begun.push(step);
                    if writes.is_order() {
                        self.delivered.push(step);
                    }
                    self.installed |= writes == Writes::Disk;
                }
                self.commit(change);
                self.boots += 1;
                self.given.push(Given { bootid, step, writes, detour });
            }
        }
    }

    /// A boot was not handed out: then for a reason that is there.
    fn refused(&self, writes: Writes, reason: &HoldReason) {
        assert!(writes.is_order(), "what writes nothing may always boot");
        match reason {
            HoldReason::Locked(..) => assert!(self.host.lock.is_some()),
            HoldReason::Frozen(_) => assert!(self.fleet.frozen.is_some()),
            HoldReason::TooManyReinstalls(most, Some(_)) => {
                assert_eq!(self.fleet.reinstalls.moments().len(), *most as usize);
                assert!(self.host.reinstalls, "others are not counted");
            }
            HoldReason::TooManyReinstalls(_, None)
            | HoldReason::Unreported(_)
            | HoldReason::Quarantined(_)
            | HoldReason::Failed(..)
            | HoldReason::NotAdvanced(..)
            | HoldReason::TooManyAttempts(..)
            | HoldReason::InUse(_)
            | HoldReason::ClockBehind => panic!("{reason}"),
        }
    }

    /// An order was given.
    fn ordered(&mut self, before: &Host) {
        self.order += 1;
        self.again = self.installed || before.states.is_finished();
    }

    pub(super) fn fetch(&mut self, given: &Given) {
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

    pub(super) fn deliver(&mut self, given: &Given) {
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

    pub(super) fn finish(&mut self, given: &Given) {
        let before = self.host.clone();
        match finish(&self.host, &given.bootid, self.now) {
            Ok(Some(change)) if given.detour => {
                self.commit(change);
                assert_eq!((&self.host.states, self.host.step), (&before.states, before.step), "the step is as it was");
                assert_eq!(finish(&self.host, &given.bootid, self.now), Ok(None), "said once is said");
            }
            Ok(Some(change)) => {
                assert_eq!(given.step, self.host.step, "only a boot of the current step finishes it");
                // A wipe may have been of another disk.
                self.installed |= given.writes == Writes::Disk;
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

    pub(super) fn finish_held(&mut self, given: &Given) {
        if given.detour {
            return self.finish(given);
        }
        let states = self.host.states.clone();
        if let Ok(Some(change)) = finish_held(&self.host, &given.bootid, "not\nyet", self.now) {
            assert_eq!(given.step, self.host.step, "only a boot of the current step finishes it");
            self.done.push(given.step);
            self.installed |= given.writes == Writes::Disk;
            self.commit(change);
            assert_eq!(self.host.states, states, "the queue waits");
            assert_eq!(finish(&self.host, &given.bootid, self.now), Ok(None), "said once is said");
            assert!(fail(&self.host, &given.bootid, "late", self.now).is_err(), "what is done cannot fail");
        }
    }

    pub(super) fn fail(&mut self, given: &Given) {
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

    pub(super) fn set(&mut self, states: &str, reinstall: bool, abort: bool) {
        let to: States = states.parse().unwrap();
        let leaves_finished = self.host.states.is_finished() && !to.is_finished();
        match set_states(&self.host, to.clone(), reinstall, abort, Actor::Operator("root".to_owned()), self.now) {
            Ok(change) => {
                assert!(!leaves_finished || reinstall);
                assert!(!self.host.is_attempt_open() || abort);
                assert!(self.host.lock.is_none() || to.is_finished(), "a locked host takes no orders");
                self.ordered(&self.host.clone());
                self.commit(change);
                assert_eq!(self.host.states, to);
                assert_eq!(self.host.attempts, 0, "an order starts with all its attempts");
            }
            Err(SetRefused::Finished(_)) => assert!(leaves_finished && !reinstall),
            Err(SetRefused::AttemptRunning(_)) => assert!(self.host.is_attempt_open() && !abort),
            Err(SetRefused::Locked(_)) => assert!(self.host.lock.is_some() && !to.is_finished()),
            Err(SetRefused::Quarantined(..)) => assert!(self.host.quarantined && !to.is_finished()),
        }
    }

    pub(super) fn order(&mut self, states: &str, name: Option<&str>, reinstall: bool) {
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
                assert!(self.host.lock.is_none() || to.is_finished(), "a locked host takes no orders");
                self.ordered(&self.host.clone());
                self.commit(change);
                assert_eq!(self.host.states, to);
            }
            Err(OrderRefused::Finished(_)) => assert!(again && !reinstall),
            Err(OrderRefused::Nameless(_)) => assert!(again && name.is_none()),
            Err(OrderRefused::AttemptRunning(_)) => assert!(self.host.is_attempt_open()),
            Err(OrderRefused::Locked(_)) => assert!(self.host.lock.is_some() && !to.is_finished()),
            Err(OrderRefused::Quarantined(..)) => assert!(self.host.quarantined && !to.is_finished()),
        }
    }

    /// A backup is restored: what was done since is forgotten here, but not by disks and machines.
    pub(super) fn restore(&mut self, backup: Host) {
        self.host = backup;
        let unknown = BootId::new(self.host.id, [0xee; 16]);
        self.commit(quarantine(&self.host, unknown, "a backup of yesterday", self.now));
    }

    /// The host is forgotten, its machine is not.
    fn forget_and_return(&mut self) {
        if check_unlocked(&self.host).is_err() {
            return;
        }
        let forgotten = forget(&self.host, Actor::Operator("root".to_owned()), self.now);
        assert_eq!(forgotten.events.len(), 1);
        let registration = Registration {
            identity: self.host.identity.clone(),
            hardware: Hardware::default(),
            hostname: None,
            // As a plugin would have it that may give queues to new machines.
            states: "image1".parse().unwrap(),
            metadata: Metadata::default(),
            why: String::new(),
        };
        let (id, quarantined) = (HostId::new(self.host.id.get() + 1), self.host.quarantined);
        self.host = match forgotten.tombstone {
            Some(tombstone) => {
                let back = take_back(id, registration, &[&tombstone], true, Actor::Machine, self.now);
                assert!(back.host.states.is_finished() && back.host.installed, "it boots its own disk");
                let names_it =
                    |event: &Event| matches!(&event.kind, EventKind::Returned { was, .. } if *was == [self.host.id]);
                assert!(back.events.iter().any(names_it), "and that is reported");
                self.installed = true;
                back.host
            }
            None => {
                assert!(!self.installed, "what is installed is never new again");
                register(id, Registration { states: States::new_host(), ..registration }, Actor::Machine, self.now).host
            }
        };
        // The store sees to that for all that become known after a restore.
        self.host.quarantined = quarantined;
        // Calls of its boots are those of a host that nobody knows.
        self.given.clear();
        self.delivered.clear();
        self.done.clear();
        self.begun.clear();
        self.spent.clear();
        self.again = false;
    }

    pub(super) fn happen(&mut self, step: &Step_) {
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
                        assert!(!is_built_in && self.host.lock.is_none());
                        self.commit(change);
                    }
                    Err(RetryRefused::NothingToRetry(..)) => assert!(is_built_in),
                    Err(RetryRefused::AttemptRunning(_)) => assert!(self.host.is_attempt_open() && !abort),
                    Err(RetryRefused::Locked(_)) => assert!(self.host.lock.is_some()),
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
            Step_::Lock => {
                let change = lock(&self.host, "", Actor::Operator("root".to_owned()), self.now);
                assert_eq!(change.is_none(), self.host.lock.is_some());
                change.into_iter().for_each(|change| self.commit(change));
            }
            Step_::Unlock => {
                let change = unlock(&self.host, Actor::Operator("root".to_owned()), self.now);
                change.into_iter().for_each(|change| self.commit(change));
            }
            Step_::Freeze => self.fleet.frozen = Some(Safeguard::new(Actor::Server, "", self.now)),
            Step_::Thaw => self.fleet.frozen = None,
            Step_::ForgetAndReturn => self.forget_and_return(),
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
