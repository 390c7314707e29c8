//! Whatever makes a machine hold by the server's own rules is in the chapter on troubleshooting, in the words of its console.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use kiwispray::domain::{Actor, HoldReason, HostId, Safeguard};

use crate::support::book::{Page, line_matches, root};

/// One of each. A new one does not compile until it is here.
fn reasons() -> Vec<HoldReason> {
    let id: HostId = "3".parse().unwrap();
    let why = || "why".to_owned();
    let safeguard = || Safeguard::new(Actor::Operator("ada".into()), "why", Timestamp::UNIX_EPOCH);
    let next = |reason: &HoldReason| match reason {
        HoldReason::Unreported(_) => Some(HoldReason::Quarantined(id)),
        HoldReason::Quarantined(_) => Some(HoldReason::Failed(id, why())),
        HoldReason::Failed(..) => Some(HoldReason::NotAdvanced(id, why())),
        HoldReason::NotAdvanced(..) => Some(HoldReason::TooManyAttempts(id, 3)),
        HoldReason::TooManyAttempts(..) => Some(HoldReason::InUse(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        HoldReason::InUse(_) => Some(HoldReason::ClockBehind),
        HoldReason::ClockBehind => Some(HoldReason::Locked(id, safeguard())),
        HoldReason::Locked(..) => Some(HoldReason::Frozen(safeguard())),
        HoldReason::Frozen(_) => Some(HoldReason::TooManyReinstalls(10, None)),
        HoldReason::TooManyReinstalls(..) => None,
    };
    std::iter::successors(Some(HoldReason::Unreported(id)), next).collect()
}

#[test]
fn every_hold_is_in_the_chapter_on_troubleshooting() {
    let page = Page::read(&root().join("docs/src/troubleshooting.md"));
    let rows: Vec<String> =
        page.lines().filter_map(|(_, line)| Some(line.strip_prefix("| ")?.split_once(" | ")?.0.to_owned())).collect();
    let is_told = |text: &str| rows.iter().any(|row| line_matches(&format!("{row}…"), text));
    let missing: Vec<String> = reasons().iter().map(ToString::to_string).filter(|text| !is_told(text)).collect();
    assert!(missing.is_empty(), "no row begins as these do:\n{}", missing.join("\n"));
    assert_eq!(reasons().len(), 10);
}
