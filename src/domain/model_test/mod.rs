//! Drives random sequences of requests, operator's wishes, power losses and crashes against the transitions, and checks
//! what the product promises: one order is carried out once, and nothing leads to an installer by accident.
//!
//! The machine in this model is honest but unlucky: it does what a script tells it, may lose power at any point, repeats
//! and delays its reports, and remembers every bootid it was ever given.

use std::net::{IpAddr, Ipv4Addr};

use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::*;

mod restored;
mod rows;
mod safeguards;
mod world;

use world::World;

const MOST_ATTEMPTS: u32 = 3;
const MOST_REINSTALLS: u32 = 3;

/// One thing that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step_ {
    /// The machine asks `/bootstrap`; where its record allows a boot, plugins say this.
    Boot {
        verdict: Verdict,
        from: u8,
    },
    /// A file of some boot ever given is fetched.
    Fetch {
        which: usize,
    },
    /// The payload of some boot ever given is served whole.
    Deliver {
        which: usize,
    },
    /// Some boot ever given reports that it is done.
    Finish {
        which: usize,
    },
    /// The same, and a plugin keeps the queue from moving on.
    FinishHeld {
        which: usize,
    },
    /// Some boot ever given reports that it failed.
    Fail {
        which: usize,
    },
    /// An operator sets the queue.
    Set {
        states: &'static str,
        reinstall: bool,
        abort: bool,
    },
    /// A plugin sets the queue, perhaps under a name.
    Order {
        states: &'static str,
        name: Option<&'static str>,
        reinstall: bool,
    },
    /// An operator orders the step anew.
    Retry {
        abort: bool,
    },
    /// An operator declares the step done.
    OperatorFinish,
    /// An operator locks the host, or unlocks it.
    Lock,
    Unlock,
    /// An operator freezes all hosts, or thaws them.
    Freeze,
    Thaw,
    /// An operator forgets the host, and its machine comes back.
    ForgetAndReturn,
    /// The server dies; the newest change was not durable, so nobody was answered.
    CrashBeforeCommit {
        which: usize,
    },
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
        1 => prop_oneof![Just(Step_::Lock), Just(Step_::Unlock), Just(Step_::Unlock)],
        1 => prop_oneof![Just(Step_::Freeze), Just(Step_::Thaw), Just(Step_::Thaw)],
        1 => Just(Step_::ForgetAndReturn),
        1 => which.prop_map(|which| Step_::CrashBeforeCommit { which }),
    ];
    prop::collection::vec(step, 1..60)
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
