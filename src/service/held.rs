//! Machines that ask and cannot be told for certain: the newest request of each, for whoever resolves it.
//!
//! Only in memory, and bounded: such a machine asks again within half a minute, so after a restart the list fills by itself. Of
//! more than [`Held::MOST`] the one that asked longest ago is forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::domain::{DmiUuid, Facts, Finding, HostId, Identity, MacAddr, Serial};

/// A machine that is not recognised clearly.
#[derive(Debug, Clone)]
pub struct HeldMachine {
    /// What it reported.
    pub facts: Facts,
    /// Where it asked from.
    pub from: IpAddr,
    /// When it asked first, and last.
    pub asked: (Timestamp, Timestamp),
    /// How often.
    pub asks: u64,
    /// Why it is not clear who it is.
    pub doubt: Doubt,
    /// The comparison with each host that shares anything with it.
    pub findings: Vec<Finding>,
}

/// Why it is not clear who a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// One host matches, and not well enough.
    Weak(HostId),
    /// The evidence contradicts itself, or speaks for several hosts.
    Conflict(Vec<HostId>),
    /// It is this new host, and shares its serial number with others.
    SharedSerial {
        /// The host it became.
        id: HostId,
        /// The others.
        with: Vec<HostId>,
    },
    /// It reported nothing that identifies it.
    Nobody,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    machines: Mutex<HashMap<Key, HeldMachine>>,
}

/// The same machine reports the same; one that reports nothing is known by its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Shown(String),
    At(IpAddr),
}

impl Key {
    fn of(identity: &Identity, from: IpAddr) -> Self {
        if identity.is_empty() {
            return Self::At(from);
        }
        let serial = identity.serial.as_ref().map(|serial| serial.key());
        Self::Shown(format!("{serial:?} {:?} {:?}", identity.uuid.map(|uuid| uuid.key()), identity.macs))
    }
}

impl Held {
    /// About 2 KB each.
    const MOST: usize = 1_000;

    pub(super) fn keep(&self, facts: &Facts, from: IpAddr, now: Timestamp, doubt: Doubt, findings: &[Finding]) {
        let key = Key::of(&facts.identity, from);
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        if machines.len() >= Self::MOST && !machines.contains_key(&key) {
            let oldest = machines.iter().min_by_key(|(_, held)| held.asked.1).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| machines.remove(&oldest));
        }
        let (first, asks) = machines.get(&key).map_or((now, 0), |held| (held.asked.0, held.asks));
        let held = HeldMachine {
            facts: facts.clone(),
            from,
            asked: (first, now),
            asks: asks.saturating_add(1),
            doubt,
            findings: findings.to_vec(),
        };
        machines.insert(key, held);
    }

    /// The machine is told for certain now.
    pub(super) fn resolved(&self, identity: &Identity, from: IpAddr) {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        // Nearly always: everyone who boots comes here.
        if machines.is_empty() {
            return;
        }
        let key = Key::of(identity, from);
        // One that became a host of its own stays in the list, as its serial number stays shared.
        if machines.get(&key).is_some_and(|held| !matches!(held.doubt, Doubt::SharedSerial { .. })) {
            machines.remove(&key);
        }
    }

    /// A host took this identity over: whoever shares something with it is judged anew when it asks.
    pub(super) fn adopted(&self, identity: &Identity) {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.retain(|_, held| held.facts.identity != *identity);
    }

    /// Those that show a serial number, a UUID or a MAC.
    pub(super) fn showing(&self, text: &str) -> Vec<HeldMachine> {
        let (serial, uuid, mac) =
            (text.parse::<Serial>().ok(), text.parse::<DmiUuid>().ok(), text.parse::<MacAddr>().ok());
        let mut all = self.all();
        all.retain(|held| {
            let shown = &held.facts.identity;
            (serial.is_some() && shown.serial == serial)
                || (uuid.is_some() && shown.uuid == uuid)
                || mac.is_some_and(|mac| shown.macs.contains(&mac))
        });
        all
    }

    /// All of them, the newest request first.
    pub(super) fn all(&self) -> Vec<HeldMachine> {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<HeldMachine> = machines.values().cloned().collect();
        all.sort_by_key(|held| std::cmp::Reverse(held.asked.1));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Ignore, Parameter};

    fn facts(serial: &str) -> Facts {
        let parameter = Parameter { name: "serial".to_owned(), value: Some(serial.to_owned()) };
        Facts::from_parameters([parameter], &Ignore::default())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_machine_is_listed_once_until_it_is_recognised() {
        let held = Held::default();
        held.keep(&facts("SN1"), FROM, at(1), Doubt::Weak(HostId::new(3)), &[]);
        held.keep(&facts("sn1"), FROM, at(9), Doubt::Weak(HostId::new(3)), &[]);
        held.keep(&facts("SN2"), FROM, at(5), Doubt::Conflict(vec![HostId::new(4)]), &[]);
        let all = held.all();
        assert_eq!(
            all.iter().map(|held| (held.asked, held.asks)).collect::<Vec<_>>(),
            [((at(1), at(9)), 2), ((at(5), at(5)), 1)]
        );
        held.resolved(&facts("SN1").identity, FROM);
        assert_eq!(held.all().len(), 1);
    }

    #[test]
    fn of_too_many_the_one_that_asked_longest_ago_is_forgotten() {
        let held = Held::default();
        for number in 0..=1_000 {
            held.keep(&facts(&format!("SN{number}")), FROM, at(number), Doubt::Nobody, &[]);
        }
        let all = held.all();
        assert_eq!((all.len(), all.last().unwrap().asked.1), (Held::MOST, at(1)));
    }
}
