//! Who is asking: the facts of a boot against the hosts that share something with them.
//!
//! Only unanimous evidence lets a machine install. The table of evidence is [`judge`]; everything a person needs to
//! understand a decision comes out as [`Finding`]s.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Host, HostId, Identity, MacAddr, Tombstone};

/// A host that shares a serial number, a UUID or a card with the machine that asks.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The host.
    pub id: HostId,
    /// What is known of it.
    pub identity: Identity,
    /// Whether a machine ever booted as this host. One that was registered by hand is known by what was typed, and the
    /// rest is learned at its first boot.
    pub seen: bool,
    /// Whether it is only what is left of a host.
    pub forgotten: bool,
}

impl From<&Host> for Candidate {
    fn from(host: &Host) -> Self {
        Self { id: host.id, identity: host.identity.clone(), seen: host.seen, forgotten: false }
    }
}

impl From<&Tombstone> for Candidate {
    fn from(tombstone: &Tombstone) -> Self {
        Self { id: tombstone.id, identity: tombstone.identity.clone(), seen: true, forgotten: true }
    }
}

/// The outcome for one kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Both sides have it and agree.
    Same,
    /// Both sides have it and disagree.
    Differs,
    /// At least one side has none that is good.
    Absent,
}

/// How much the evidence for one host is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// This is the host.
    Strong,
    /// Probably, and that is not enough to install.
    Weak,
    /// The evidence contradicts itself.
    Conflict,
    /// A shared serial number and nothing else: another machine.
    SharedSerial,
    /// Nothing but cards that several hosts share.
    None,
}

/// The comparison with one candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The candidate.
    pub id: HostId,
    /// Serial numbers compared.
    pub serial: Match,
    /// UUIDs compared.
    pub uuid: Match,
    /// Cards that both have and no third host has.
    pub macs: Vec<MacAddr>,
    /// Cards that both have, and other hosts too: no evidence.
    pub shared_macs: Vec<MacAddr>,
    /// The conclusion.
    pub evidence: Evidence,
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognition {
    /// This host, beyond doubt.
    Known(HostId),
    /// A machine that nobody knows.
    New {
        /// Hosts with the same serial number that are other machines all the same.
        serial_shared_with: Vec<HostId>,
    },
    /// A machine that may be one of these forgotten hosts, which may be installed, and is none that is known.
    Returned {
        /// Whom it may have been.
        was: Vec<HostId>,
        /// What that is worth: for one of them, or a conflict where there are several.
        evidence: Evidence,
    },
    /// One of these hosts, or none of them: nothing may be installed.
    Doubt {
        /// Whom it might be.
        candidates: Vec<HostId>,
        /// Which forgotten hosts it might be, too.
        forgotten: Vec<HostId>,
        /// Whether one single host matched weakly, as against contradicting evidence.
        weak: bool,
    },
    /// The machine reported nothing that identifies it.
    Nobody,
}

/// Compares the facts of a boot with every host that shares any of them.
pub fn recognise(asking: &Identity, candidates: &[Candidate]) -> (Recognition, Vec<Finding>) {
    let mut owners: BTreeMap<MacAddr, u32> = BTreeMap::new();
    // A card does not become nobody's by what is left of forgotten hosts: its machine would then be new, and installed.
    for mac in candidates.iter().filter(|candidate| !candidate.forgotten).flat_map(|candidate| &candidate.identity.macs)
    {
        let count = owners.entry(*mac).or_default();
        *count = count.saturating_add(1);
    }
    let is_shared = |mac: &MacAddr| owners.get(mac).is_some_and(|count| *count > 1);
    let findings: Vec<Finding> = candidates.iter().map(|candidate| compare(asking, candidate, &is_shared)).collect();
    let with = |wanted: &[Evidence]| -> Vec<HostId> {
        findings.iter().filter(|f| wanted.contains(&f.evidence)).map(|f| f.id).collect()
    };
    let relevant = with(&[Evidence::Strong, Evidence::Weak, Evidence::Conflict]);
    let strong = with(&[Evidence::Strong]);
    let is_forgotten = |id: &HostId| candidates.iter().any(|candidate| candidate.id == *id && candidate.forgotten);
    let (forgotten, relevant): (Vec<HostId>, Vec<HostId>) = relevant.into_iter().partition(is_forgotten);
    let evidence_of = |id: &HostId| findings.iter().find(|finding| finding.id == *id).map(|finding| finding.evidence);
    let recognition = match (relevant.as_slice(), strong.as_slice()) {
        _ if asking.is_empty() => Recognition::Nobody,
        ([], _) if !forgotten.is_empty() => {
            let evidence = match forgotten.as_slice() {
                [only] => evidence_of(only).unwrap_or(Evidence::Conflict),
                _ => Evidence::Conflict,
            };
            Recognition::Returned { was: forgotten, evidence }
        }
        _ if !forgotten.is_empty() => Recognition::Doubt { candidates: relevant, forgotten, weak: false },
        ([only], [_]) => Recognition::Known(*only),
        ([], _) => Recognition::New { serial_shared_with: with(&[Evidence::SharedSerial]) },
        ([_], _) => Recognition::Doubt { weak: with(&[Evidence::Weak]) == relevant, candidates: relevant, forgotten },
        (_, _) => Recognition::Doubt { candidates: relevant, forgotten, weak: false },
    };
    (recognition, findings)
}

fn compare(asking: &Identity, candidate: &Candidate, is_shared: &dyn Fn(&MacAddr) -> bool) -> Finding {
    let known = &candidate.identity;
    let (shared_macs, macs): (Vec<MacAddr>, Vec<MacAddr>) =
        asking.macs.intersection(&known.macs).copied().partition(is_shared);
    let mut finding = Finding {
        id: candidate.id,
        serial: matched(asking.serial.as_ref(), known.serial.as_ref()),
        uuid: matched(asking.uuid.as_ref(), known.uuid.as_ref()),
        macs,
        shared_macs,
        evidence: Evidence::None,
    };
    finding.evidence = judge(&finding, asking, candidate);
    finding
}

fn matched<T: PartialEq>(asking: Option<&T>, known: Option<&T>) -> Match {
    match (asking, known) {
        (Some(a), Some(b)) if a == b => Match::Same,
        (Some(_), Some(_)) => Match::Differs,
        (None, _) | (_, None) => Match::Absent,
    }
}

/// The table of evidence.
fn judge(finding: &Finding, asking: &Identity, candidate: &Candidate) -> Evidence {
    use Match::{Absent, Differs, Same};
    let known = &candidate.identity;
    let by_mac = !finding.macs.is_empty();
    let registered = !candidate.seen;
    match (finding.serial, finding.uuid, by_mac) {
        (Same, Same | Absent, true) | (Absent, Same, true) => Evidence::Strong,
        // Registered by serial number or UUID alone, and never seen: this is its first boot.
        (Same, Same | Absent, false) | (Absent, Same, false) if registered && known.macs.is_empty() => Evidence::Strong,
        (Same, Same | Absent, false) | (Absent, Same, false) => Evidence::Weak,
        (Same, Differs, true) | (Differs, Same, true) => Evidence::Conflict,
        (Absent, Absent, true) if !asking.has_dmi() && !known.has_dmi() => Evidence::Strong,
        // Registered by a card alone, and never seen.
        (Absent, Absent, true) if registered && !known.has_dmi() => Evidence::Strong,
        // A machine that used to show its DMI and does not now, or the other way round.
        (Absent, Absent, true) => Evidence::Weak,
        (Differs, Differs | Absent, true) | (Absent, Differs, true) => Evidence::Conflict,
        (Same, Differs, false) => Evidence::SharedSerial,
        // A UUID is made to be unique: that two machines have it is no ordinary thing.
        (Differs, Same, false) => Evidence::Conflict,
        (Differs | Absent, Differs | Absent, false) => Evidence::None,
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |of: Match| match of {
            Match::Same => "same",
            Match::Differs => "different",
            Match::Absent => "not comparable",
        };
        write!(f, "host {}: serial {}, uuid {}, ", self.id, word(self.serial), word(self.uuid))?;
        match self.macs.as_slice() {
            [] => f.write_str("no card of its own")?,
            macs => {
                f.write_str("card")?;
                macs.iter().try_for_each(|mac| write!(f, " {mac}"))?;
            }
        }
        if !self.shared_macs.is_empty() {
            write!(f, " (and {} shared by several hosts)", self.shared_macs.len())?;
        }
        f.write_str(match self.evidence {
            Evidence::Strong => ": this host",
            Evidence::Weak => ": too weak",
            Evidence::Conflict => ": contradictory",
            Evidence::SharedSerial => ": another machine with the same serial",
            Evidence::None => ": no evidence",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: [&str; 2] = ["SERIAL-A", "SERIAL-B"];
    const U: [&str; 2] = ["4c4c4544-0051-3510-8052-b4c04f4a3132", "5d5d4544-0051-3510-8052-b4c04f4a3133"];

    /// `"s0 u0 m0 m1"` -> an identity.
    fn identity(text: &str) -> Identity {
        let mut identity = Identity::default();
        for word in text.split_whitespace() {
            let (kind, number) = word.split_at(1);
            let number: usize = number.parse().unwrap();
            match kind {
                "s" => identity.serial = Some(S[number].parse().unwrap()),
                "u" => identity.uuid = Some(U[number].parse().unwrap()),
                "m" => drop(identity.macs.insert(format!("52:54:00:00:00:0{number}").parse().unwrap())),
                other => panic!("{other}"),
            }
        }
        identity
    }

    fn ask(asking: &str, hosts: &[&str]) -> Recognition {
        ask_with(asking, hosts, true)
    }

    fn ask_with(asking: &str, hosts: &[&str], seen: bool) -> Recognition {
        let candidates: Vec<Candidate> = (1..)
            .zip(hosts)
            .map(|(id, host)| Candidate { id: HostId::new(id), identity: identity(host), seen, forgotten: false })
            .collect();
        recognise(&identity(asking), &candidates).0
    }

    fn known() -> Recognition {
        Recognition::Known(HostId::new(1))
    }

    fn doubt(weak: bool, candidates: &[u64]) -> Recognition {
        Recognition::Doubt {
            weak,
            candidates: candidates.iter().map(|id| HostId::new(*id)).collect(),
            forgotten: Vec::new(),
        }
    }

    fn new(shared: &[u64]) -> Recognition {
        Recognition::New { serial_shared_with: shared.iter().map(|id| HostId::new(*id)).collect() }
    }

    #[test]
    fn strong_evidence_is_dmi_and_a_card_or_a_card_where_there_is_no_dmi() {
        assert_eq!(ask("s0 u0 m0", &["s0 u0 m0 m1"]), known());
        assert_eq!(ask("s0 m0", &["s0 u0 m0"]), known());
        assert_eq!(ask("u0 m0", &["s0 u0 m0"]), known());
        assert_eq!(ask("s0 u0 m0", &["s0 m0"]), known());
        assert_eq!(ask("m0", &["m0 m1"]), known());
    }

    #[test]
    fn dmi_with_unknown_cards_is_weak() {
        assert_eq!(ask("s0 u0 m5", &["s0 u0 m0"]), doubt(true, &[1]));
        assert_eq!(ask("s0 m5", &["s0 m0"]), doubt(true, &[1]));
    }

    #[test]
    fn contradictions_are_conflicts() {
        assert_eq!(ask("s0 u1 m0", &["s0 u0 m0"]), doubt(false, &[1]));
        assert_eq!(ask("s1 u0 m0", &["s0 u0 m0"]), doubt(false, &[1]));
        assert_eq!(ask("s1 u1 m0", &["s0 u0 m0"]), doubt(false, &[1]));
        assert_eq!(ask("s1 m0", &["s0 m0"]), doubt(false, &[1]));
        assert_eq!(ask("s0 u0 m0 m1", &["s0 u0 m0", "s1 u1 m1"]), doubt(false, &[1, 2]));
        assert_eq!(ask("s1 u0", &["s0 u0 m0"]), doubt(false, &[1]));
    }

    #[test]
    fn a_twin_with_the_same_serial_is_a_new_host() {
        assert_eq!(ask("s0 u1 m5", &["s0 u0 m0"]), new(&[1]));
    }

    #[test]
    fn a_twin_is_recognised_although_its_sister_shares_the_serial() {
        assert_eq!(ask("s0 u0 m0", &["s0 u0 m0", "s0 u1 m5"]), known());
    }

    #[test]
    fn a_card_that_several_hosts_have_is_no_evidence() {
        assert_eq!(ask("s0 u0 m0 m9", &["s0 u0 m0 m9", "s1 u1 m1 m9"]), known());
        assert_eq!(ask("m9", &["m0 m9", "m1 m9"]), new(&[]));
    }

    #[test]
    fn a_card_alone_is_weak_when_one_side_has_dmi() {
        assert_eq!(ask("s0 u0 m0", &["m0"]), doubt(true, &[1]));
        assert_eq!(ask("m0", &["s0 u0 m0"]), doubt(true, &[1]));
    }

    #[test]
    fn a_registration_by_hand_is_met_by_what_was_typed() {
        for registered in ["m0", "s0", "u0", "s0 u0", "s0 m0"] {
            assert_eq!(ask_with("s0 u0 m0", &[registered], false), known(), "{registered}");
        }
        assert_eq!(ask_with("s1 u0 m0", &["s0 m0"], false), doubt(false, &[1]));
        assert_eq!(ask_with("s0 u0 m5", &["s0 m0"], false), doubt(true, &[1]));
    }

    /// Against hosts, and forgotten ones whose numbers begin with 11.
    fn ask_of(asking: &str, hosts: &[&str], forgotten: &[&str]) -> Recognition {
        let candidate = |id: u64, text: &str, forgotten| Candidate {
            id: HostId::new(id),
            identity: identity(text),
            seen: true,
            forgotten,
        };
        let known = (1..).zip(hosts).map(|(id, text)| candidate(id, text, false));
        let gone = (11..).zip(forgotten).map(|(id, text)| candidate(id, text, true));
        recognise(&identity(asking), &known.chain(gone).collect::<Vec<_>>()).0
    }

    #[test]
    fn a_forgotten_host_is_evidence_but_nobody_is_served_as_one() {
        let back = |was: &[u64], evidence| Recognition::Returned {
            was: was.iter().map(|id| HostId::new(*id)).collect(),
            evidence,
        };
        assert_eq!(ask_of("s0 u0 m0", &[], &["s0 u0 m0"]), back(&[11], Evidence::Strong));
        assert_eq!(ask_of("s0 u0 m5", &[], &["s0 u0 m0"]), back(&[11], Evidence::Weak));
        assert_eq!(ask_of("s1 u1 m0", &[], &["s0 u0 m0"]), back(&[11], Evidence::Conflict));
        assert_eq!(ask_of("s0 u0 m0", &[], &["s0 m0", "u0 m5"]), back(&[11, 12], Evidence::Conflict));
        assert_eq!(ask_of("s0 u1 m5", &[], &["s0 u0 m0"]), new(&[11]), "a twin shares its serial");
        assert_eq!(ask_of("m9", &[], &["m1 m9", "m2 m9"]), back(&[11, 12], Evidence::Conflict));
        assert_eq!(ask_of("m9", &["m0 m9", "m3 m9"], &["m1 m9"]), new(&[]), "a card of several is nobody's");
    }

    #[test]
    fn a_host_and_a_forgotten_one_are_a_doubt() {
        let doubt =
            Recognition::Doubt { candidates: vec![HostId::new(1)], forgotten: vec![HostId::new(11)], weak: false };
        assert_eq!(ask_of("s0 u0 m0", &["s0 u0 m0"], &["s0 u0 m1"]), doubt);
        assert_eq!(ask_of("s0 u0 m0 m1", &["s0 u0 m0"], &["s1 u1 m1"]), doubt);
        // It came back without its DMI, was taken for a weak match, and asks again.
        assert_eq!(ask_of("m0", &["m0"], &["s0 u0 m0"]), doubt);
        assert_eq!(ask_of("s0 u0 m0", &["s0 u0 m0"], &["s0 u1 m1"]), known());
    }

    #[test]
    fn a_machine_without_any_identity_is_nobody() {
        assert_eq!(ask("", &[]), Recognition::Nobody);
    }
}
