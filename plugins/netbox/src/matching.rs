//! Which device is a host: only one that came back with the very serial number or MAC, alone, and with nothing against it.
//!
//! NetBox ignores filters that are empty or unknown and answers every device, so nothing is believed for having been asked:
//! what came back is compared.

use std::collections::{BTreeMap, BTreeSet};

use kiwispray_sdk::KnownHost;

use crate::device::Device;

/// Serial numbers that say nothing, in lower case; those of one character repeated are junk too.
const JUNK: &[&str] = &[
    "to be filled by o.e.m.",
    "to be filled by oem",
    "default string",
    "system serial number",
    "not specified",
    "not available",
    "not applicable",
    "unknown",
    "none",
    "n/a",
    "serial",
    "0123456789",
    "123456789",
    "1234567890",
];

/// What was found for a host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// Nothing.
    No,
    /// This device, and no other.
    One(Box<Device>),
    /// Something, but not enough to act on; why.
    Doubt(String),
}

/// The serial number to look for, if it says anything.
pub(crate) fn serial(host: &KnownHost) -> Option<&str> {
    let serial = host.serial.trim();
    says_something(serial).then_some(serial)
}

/// Whether a host and a device are known by the same serial number.
pub(crate) fn has_serial_of(host: &KnownHost, device: &Device) -> bool {
    serial(host).is_some_and(|serial| serial.eq_ignore_ascii_case(&device.serial))
}

/// The MACs to look for: canonical ones that name a card.
pub(crate) fn macs(host: &KnownHost) -> impl Iterator<Item = &str> {
    host.macs.iter().map(String::as_str).filter(|mac| canonical(mac).is_some_and(|mac| mac != "00:00:00:00:00:00"))
}

/// Whether a serial number tells one machine from another.
pub(crate) fn says_something(serial: &str) -> bool {
    let serial = serial.trim().to_ascii_lowercase();
    let mut bytes = serial.bytes();
    let first = bytes.next();
    let is_text = !serial.is_empty() && !serial.contains(char::is_control);
    is_text && !JUNK.contains(&serial.as_str()) && bytes.any(|byte| Some(byte) != first)
}

/// A MAC in whatever notation, as the server writes it; none if it is no MAC.
pub(crate) fn canonical(mac: &str) -> Option<String> {
    let digits: String = mac.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect::<String>().to_ascii_lowercase();
    let is_mac = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_mac.then(|| {
        let pairs: Vec<&str> = (0..12).step_by(2).filter_map(|at| digits.get(at..at + 2)).collect();
        pairs.join(":")
    })
}

/// The device with a host's serial number among those that came back.
pub(crate) fn by_serial(serial: &str, devices: &[Device]) -> Found {
    let same: Vec<&Device> =
        devices.iter().filter(|device| device.serial.eq_ignore_ascii_case(serial.trim())).collect();
    match same.as_slice() {
        [] => Found::No,
        [device] => Found::One(Box::new((*device).clone())),
        several => {
            let ids: Vec<u64> = several.iter().map(|device| device.id).collect();
            Found::Doubt(format!("several devices have the serial number {}: {}", serial.escape_default(), list(&ids)))
        }
    }
}

/// The id of the one device that has any of a host's MACs. `owners`: for each MAC, the devices it came back with.
pub(crate) fn owner(host: &KnownHost, owners: &BTreeMap<String, BTreeSet<u64>>) -> Result<Option<u64>, String> {
    let ids: BTreeSet<u64> =
        macs(host).filter_map(canonical).filter_map(|mac| owners.get(&mac)).flatten().copied().collect();
    let mut found = ids.iter();
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => Ok(Some(*id)),
        (Some(_), Some(_)) => {
            let ids: Vec<u64> = ids.into_iter().collect();
            Err(format!("its MACs belong to several devices: {}", list(&ids)))
        }
    }
}

/// The device that was found by MAC: not if it carries another machine's serial number.
pub(crate) fn by_mac(host: &KnownHost, id: u64, devices: &[Device]) -> Found {
    let Some(device) = devices.iter().find(|device| device.id == id) else { return Found::No };
    match serial(host) {
        Some(ours) if says_something(&device.serial) && !device.serial.eq_ignore_ascii_case(ours) => {
            Found::Doubt(format!(
                "device {id} has its MAC but the serial number {}, not {}",
                device.serial.escape_default(),
                ours.escape_default()
            ))
        }
        Some(_) | None => Found::One(Box::new(device.clone())),
    }
}

fn list(ids: &[u64]) -> String {
    let shown: Vec<String> = ids.iter().take(5).map(u64::to_string).collect();
    let more = if ids.len() > 5 { format!(" and {} more", ids.len() - 5) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::host;
    use serde_json::json;

    use super::*;

    fn device(id: u64, serial: &str) -> Device {
        Device::read(&json!({"id": id, "serial": serial})).unwrap()
    }

    #[test]
    fn serial_numbers_are_compared_without_regard_to_case_and_only_as_a_whole() {
        let devices = [device(1, "sn-1"), device(2, "SN-10"), device(3, "")];
        assert!(matches!(by_serial("SN-1", &devices), Found::One(device) if device.id == 1));
        assert_eq!(by_serial("SN", &devices), Found::No);
        assert_eq!(by_serial("SN-2", &devices), Found::No);
    }

    #[test]
    fn two_devices_with_a_serial_number_are_doubt() {
        let devices = [device(1, "SN-1"), device(2, "sn-1")];
        assert!(matches!(by_serial("SN-1", &devices), Found::Doubt(why) if why.contains("1, 2")));
    }

    #[test]
    fn junk_is_never_looked_for() {
        for junk in ["", "  ", "0000000", "x", "To Be Filled By O.E.M.", "Default string", "........", "S\u{0}7"] {
            let mut host = host("new");
            host.serial = junk.into();
            assert_eq!(serial(&host), None, "{junk:?}");
        }
        assert_eq!(serial(&host("new")), Some("S7"));
    }

    #[test]
    fn macs_are_read_in_any_notation() {
        for mac in ["52:54:00:AA:00:10", "52-54-00-aa-00-10", "5254.00aa.0010", "525400aa0010"] {
            assert_eq!(canonical(mac).as_deref(), Some("52:54:00:aa:00:10"));
        }
        for odd in ["", "52:54:00:aa:00", "52:54:00:aa:00:1g", "ж2:54:00:aa:00:10"] {
            assert_eq!(canonical(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn macs_of_two_devices_are_doubt() {
        let mut machine = host("new");
        machine.macs.push("52:54:00:00:00:08".into());
        let mut owners = BTreeMap::from([("52:54:00:00:00:07".to_owned(), BTreeSet::from([4]))]);
        assert_eq!(owner(&machine, &owners), Ok(Some(4)));
        owners.insert("52:54:00:00:00:08".into(), BTreeSet::from([5]));
        assert!(owner(&machine, &owners).unwrap_err().contains("4, 5"));
        assert_eq!(owner(&machine, &BTreeMap::new()), Ok(None));
    }

    #[test]
    fn a_device_with_the_mac_but_anothers_serial_number_is_doubt() {
        let machine = host("new");
        assert!(matches!(by_mac(&machine, 4, &[device(4, "OTHER-1")]), Found::Doubt(why) if why.contains("OTHER-1")));
        assert!(matches!(by_mac(&machine, 4, &[device(4, "s7")]), Found::One(_)));
        assert!(matches!(by_mac(&machine, 4, &[device(4, "")]), Found::One(_)));
        assert_eq!(by_mac(&machine, 4, &[device(5, "")]), Found::No);
    }
}
