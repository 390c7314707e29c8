//! Hosts and events for the store's tests.
use jiff::Timestamp;

use crate::domain::{
    Actor, Boot, BootId, Event, EventKind, Hardware, Host, HostId, Identity, MacAddr, Metadata, PastBoot, PastOutcome,
    Registration, Stage, States, Step, Writes,
};

/// Some seconds after the beginning of these tests.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_790_000_000 + seconds, 123_456_789).unwrap()
}

/// A machine with everything, distinct from that of any other number.
pub(super) fn identity(number: u64) -> Identity {
    Identity {
        serial: Some(format!("CZJ{number:07}X").parse().unwrap()),
        uuid: Some(format!("4c4c4544-0051-3510-8052-{number:012x}").parse().unwrap()),
        macs: [mac(2 * number), mac(2 * number + 1)].into(),
    }
}

pub(super) fn mac(number: u64) -> MacAddr {
    let [.., a, b, c, d] = number.to_be_bytes();
    MacAddr::new([0x52, 0x54, a, b, c, d])
}

pub(super) fn registration(number: u64) -> Registration {
    Registration {
        identity: identity(number),
        hardware: Hardware { product: Some("R640".to_owned()), ..Hardware::default() },
        hostname: None,
        states: States::new_host(),
        metadata: Metadata::default(),
        why: "nobody has its serial".to_owned(),
    }
}

/// A host with every field in use.
pub(super) fn busy_host(number: u64) -> Host {
    let id = HostId::new(number);
    let past = |byte, outcome| PastBoot { bootid: BootId::new(id, [byte; 16]), outcome };
    Host {
        id,
        revision: 5,
        event_count: 300,
        identity: identity(number),
        hardware: Hardware { product: Some("R640 \"G\"".to_owned()), ..Hardware::default() },
        hostname: Some("node7.example.org".parse().unwrap()),
        states: "wipe,image1".parse().unwrap(),
        step: Step::new(4),
        attempts: 2,
        boot: Some(Boot {
            bootid: BootId::new(id, [0xab; 16]),
            step: Step::new(4),
            from: [10, 0, 0, 7].into(),
            at: at(40),
            image: Some("wipe".parse().unwrap()),
            writes: Writes::Wipe,
            detour: false,
            stage: Stage::Started,
            held: true,
        }),
        past: vec![past(1, PastOutcome::Finished), past(2, PastOutcome::Superseded)],
        metadata: Metadata::parse(r#"{"site": "fra1", "rack": {"unit": 7}}"#).unwrap(),
        installed: false,
        seen: true,
        quarantined: false,
        lock: None,
        reinstalls: false,
        created_at: at(0),
        changed_at: at(50),
    }
}

pub(super) fn event(host: HostId, seq: u64, at: Timestamp) -> Event {
    let kind = EventKind::StatesSet {
        from: States::new_host(),
        to: "wipe,image1".parse().unwrap(),
        reinstall: false,
        abort: true,
        order: None,
    };
    Event { host, seq, at, actor: Actor::Operator("uid 1000".to_owned()), kind }
}
