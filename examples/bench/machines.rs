//! Invented machines: what they report, what the store remembers of them, and who asks for which of them.
//!
//! Of every hundred hosts 64 install, one for each connection, so that no two connections boot the same host at once; 18
//! wait for a state and 18 are finished.
use anyhow::Result;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use kiwispray::domain::{self, Actor, Hardware, Identity, MacAddr, Metadata, Registration, States};
use kiwispray::store::Store;

/// Machines that ask at the same time.
pub(crate) const CONNECTIONS: u64 = 64;
/// Hosts come in blocks of this many.
pub(crate) const BLOCK: u64 = 100;
/// The image that installing hosts boot.
pub(crate) const IMAGE: &str = "image1";

/// What a host is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Its state names an image that writes a disk.
    Installing,
    /// It is `finished`.
    Finished,
    /// It is `new`.
    Waiting,
}

impl Doing {
    fn of(number: u64) -> Self {
        match (number - 1) % BLOCK {
            0..CONNECTIONS => Self::Installing,
            CONNECTIONS..82 => Self::Waiting,
            82.. => Self::Finished,
        }
    }

    fn states(self) -> &'static str {
        match self {
            Self::Installing => IMAGE,
            Self::Finished => "finished",
            Self::Waiting => "new",
        }
    }

    /// The host that a connection asks for next, spread over the whole store.
    pub(crate) fn host(self, hosts: u64, connection: u64, turn: u64) -> u64 {
        let block = turn.wrapping_mul(7_919) % (hosts / BLOCK);
        let place = match self {
            Self::Installing => connection % CONNECTIONS,
            Self::Waiting => CONNECTIONS + connection % 18,
            Self::Finished => 82 + connection % 18,
        };
        1 + block * BLOCK + place
    }
}

/// What recognises the machine with this number.
pub(crate) fn identity(number: u64) -> Result<Identity> {
    Ok(Identity {
        serial: Some(serial(number).parse()?),
        uuid: Some(uuid(number).parse()?),
        macs: macs(number).map(MacAddr::new).into(),
    })
}

fn serial(number: u64) -> String {
    format!("CZJ{number:07}X")
}

fn uuid(number: u64) -> String {
    format!("4c4c4544-0051-3510-8052-{number:012x}")
}

fn macs(number: u64) -> [[u8; 6]; 2] {
    let [.., a, b, c, d] = number.to_be_bytes();
    [[0x52, 0x54, a, b, c, d], [0x52, 0x55, a, b, c, d]]
}

/// The path and query with which iPXE asks on this machine.
pub(crate) fn question(number: u64) -> String {
    let [net0, net1] = macs(number).map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    format!(
        "/bootstrap?net0={net0}&net1={net1}&net2=&net3=&net4=&net5=&net6=&net7=&dhcp_mac={net0}&serial={}&uuid={}\
         &asset=&manufacturer=Dell%20Inc.&product=PowerEdge%20R640&buildarch=x86_64&platform=efi&hostname=",
        serial(number),
        uuid(number),
    )
}

fn hardware() -> Hardware {
    Hardware {
        manufacturer: Some("Dell Inc.".to_owned()),
        product: Some("PowerEdge R640".to_owned()),
        buildarch: Some("x86_64".to_owned()),
        platform: Some("efi".to_owned()),
        ..Hardware::default()
    }
}

/// Registers machines 1 to `hosts`, many at a time.
pub(crate) async fn register_all(store: &Store, hosts: u64) -> Result<()> {
    let numbers: Vec<u64> = (1..=hosts).collect();
    for numbers in numbers.chunks(256) {
        try_join_all(numbers.iter().map(|number| register(store, *number))).await?;
    }
    Ok(())
}

async fn register(store: &Store, number: u64) -> Result<()> {
    let registration = Registration {
        identity: identity(number)?,
        hardware: hardware(),
        hostname: None,
        states: Doing::of(number).states().parse::<States>()?,
        // About what a site remembers of a machine.
        metadata: Metadata::parse(&format!("{{\"site\":\"fra1\",\"notes\":\"{}\"}}", "inventory ".repeat(120)))?,
        why: "measured".to_owned(),
    };
    let candidates = store.candidates(&registration.identity).await?;
    // As a machine, so that nothing is left to learn at its first boot.
    let build = |id| domain::register(id, registration, Actor::Machine, Timestamp::UNIX_EPOCH);
    store.register(&candidates, build).await?;
    Ok(())
}
