//! What identifies a machine: serial number, DMI UUID, and the addresses of its network cards.
//!
//! Firmware fills these fields with junk often enough that every value passes here before it may be evidence.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::MacAddr;

/// A serial number as DMI gives it, trimmed. Compared without regard to case.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(String);

/// A DMI UUID. Equal in both byte orders: SMBIOS wants the first three fields little-endian, and firmware disagrees
/// with iPXE and the kernel about who swaps them.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DmiUuid(Uuid);

/// What is known of a machine. Holds no junk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The serial number.
    pub serial: Option<Serial>,
    /// The DMI UUID.
    pub uuid: Option<DmiUuid>,
    /// Every network card.
    pub macs: BTreeSet<MacAddr>,
}

/// Why a reported value is no evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityDefect {
    /// Empty, or blanks.
    #[error("empty")]
    Empty,
    /// A filler that many machines share.
    #[error("a filler, not a value of this machine")]
    Junk,
    /// Named in the configuration's `identity.ignore`.
    #[error("named in identity.ignore")]
    Ignored,
    /// Control characters, or too long.
    #[error("no usable text")]
    NotText,
    /// Not of the form of a UUID or MAC.
    #[error("not of the right form")]
    Malformed,
}

/// The values that a site wants disregarded, from `identity.ignore`.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    serials: HashSet<String>,
    uuids: HashSet<[u8; 16]>,
    macs: HashSet<MacAddr>,
}

impl Ignore {
    /// Sorts each text by what it looks like: a MAC, a UUID, or else a serial number.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut ignore = Self::default();
        for value in values {
            if let Ok(mac) = value.parse() {
                ignore.macs.insert(mac);
            } else if let Ok(uuid) = Uuid::parse_str(value.trim()) {
                ignore.uuids.insert(DmiUuid(uuid).key());
            } else {
                ignore.serials.insert(value.trim().to_lowercase());
            }
        }
        ignore
    }

    /// The serial number in this text, if it identifies a machine.
    pub fn serial(&self, text: &str) -> Result<Serial, IdentityDefect> {
        let serial = text.parse::<Serial>()?;
        if self.serials.contains(&serial.key()) { Err(IdentityDefect::Ignored) } else { Ok(serial) }
    }

    /// The UUID in this text, if it identifies a machine.
    pub fn uuid(&self, text: &str) -> Result<DmiUuid, IdentityDefect> {
        let uuid = text.parse::<DmiUuid>()?;
        if self.uuids.contains(&uuid.key()) { Err(IdentityDefect::Ignored) } else { Ok(uuid) }
    }

    /// The MAC in this text, if it identifies a network card.
    pub fn mac(&self, text: &str) -> Result<MacAddr, IdentityDefect> {
        if text.trim().is_empty() {
            return Err(IdentityDefect::Empty);
        }
        let mac: MacAddr = text.parse().map_err(|_| IdentityDefect::Malformed)?;
        if mac.is_junk() {
            return Err(IdentityDefect::Junk);
        }
        if self.macs.contains(&mac) { Err(IdentityDefect::Ignored) } else { Ok(mac) }
    }
}

impl Serial {
    const LONGEST: usize = 128;

    /// Fillers seen in the field, in lower case. What repeats one character is found by rule.
    const JUNK: &[&str] = &[
        "0123456789",
        "01234567890123456789",
        "0123456789abcdef",
        "1234567890",
        "123456789",
        "12345678",
        "base board serial number",
        "chassis serial number",
        "default string",
        "empty",
        "invalid",
        "n/a",
        "na",
        "no asset information",
        "none",
        "not applicable",
        "not available",
        "not specified",
        "null",
        "o.e.m.",
        "oem",
        "serial number",
        "system serial number",
        "to be filled by o.e.m.",
        "to be filled by o.e.m",
        "to be filled by oem",
        "undefined",
        "unknown",
        "unspecified",
    ];

    /// The serial number as reported.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form under which serial numbers are compared and indexed.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for Serial {
    type Err = IdentityDefect;

    fn from_str(text: &str) -> Result<Self, IdentityDefect> {
        let text = text.trim();
        if text.is_empty() {
            return Err(IdentityDefect::Empty);
        }
        if text.len() > Self::LONGEST || text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
            return Err(IdentityDefect::NotText);
        }
        let lower = text.to_lowercase();
        if is_one_character_repeated(&lower) || Self::JUNK.contains(&lower.as_str()) {
            return Err(IdentityDefect::Junk);
        }
        Ok(Self(text.to_owned()))
    }
}

impl DmiUuid {
    /// Fillers seen in the field beside one digit repeated; each counts in both byte orders.
    const JUNK: &[Uuid] = &[
        Uuid::from_u128(0x0300_0200_0400_0500_0006_0007_0008_0009),
        Uuid::from_u128(0x1234_5678_1234_5678_90ab_cdde_efaa_bbcc),
        Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        // Dell without a service tag: four letters and blanks.
        Uuid::from_u128(0x4c4c_4544_0000_2010_8020_80c0_4f20_2020),
    ];

    /// The form under which UUIDs are compared and indexed: the smaller of the two byte orders.
    pub fn key(self) -> [u8; 16] {
        (*self.0.as_bytes()).min(self.0.to_bytes_le())
    }
}

impl FromStr for DmiUuid {
    type Err = IdentityDefect;

    fn from_str(text: &str) -> Result<Self, IdentityDefect> {
        let text = text.trim();
        if text.is_empty() {
            return Err(IdentityDefect::Empty);
        }
        let uuid = Self(Uuid::parse_str(text).map_err(|_| IdentityDefect::Malformed)?);
        let digits = uuid.0.simple().to_string();
        if is_one_character_repeated(&digits) || Self::JUNK.iter().any(|junk| Self(*junk) == uuid) {
            return Err(IdentityDefect::Junk);
        }
        Ok(uuid)
    }
}

impl Identity {
    /// More network cards than any machine has: beyond it, a report is not believed.
    pub const MOST_MACS: usize = 64;

    /// Whether serial or UUID are known.
    pub const fn has_dmi(&self) -> bool {
        self.serial.is_some() || self.uuid.is_some()
    }

    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        !self.has_dmi() && self.macs.is_empty()
    }
}

fn is_one_character_repeated(text: &str) -> bool {
    let mut characters = text.chars().filter(|c| !matches!(c, ' ' | '-' | '.'));
    let first = characters.next();
    characters.all(|c| Some(c) == first)
}

impl PartialEq for Serial {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Serial {}

impl PartialEq for DmiUuid {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for DmiUuid {}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for DmiUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DmiUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<String> for Serial {
    type Error = IdentityDefect;

    fn try_from(text: String) -> Result<Self, IdentityDefect> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fillers_are_no_evidence() {
        for text in [
            "To be filled by O.E.M.",
            "Default string",
            "System Serial Number",
            "0123456789",
            "0000000",
            "xxxx",
            "-",
            ".",
        ] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
        for text in [
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
        ] {
            assert_eq!(text.parse::<DmiUuid>(), Err(IdentityDefect::Junk), "{text}");
        }
    }

    #[test]
    fn serials_ignore_case_and_blanks_and_uuids_byte_order() {
        assert_eq!(" czj1234abc ".parse::<Serial>().unwrap(), "CZJ1234ABC".parse().unwrap());
        let told = "4c4c4544-0051-3510-8052-b4c04f4a3132".parse::<DmiUuid>().unwrap();
        assert_eq!(told, "44454C4C-5100-1035-8052-B4C04F4A3132".parse().unwrap());
        assert_ne!(told, "44454c4c-5100-1035-8052-b4c04f4a3133".parse().unwrap());
    }

    #[test]
    fn what_a_site_ignores_is_no_evidence() {
        let ignore = Ignore::new(["SPARE", "02:00:00:00:00:01", "4c4c4544-0051-3510-8052-b4c04f4a3132"]);
        assert_eq!(ignore.serial("spare"), Err(IdentityDefect::Ignored));
        assert_eq!(ignore.mac("02-00-00-00-00-01"), Err(IdentityDefect::Ignored));
        assert_eq!(ignore.uuid("44454C4C-5100-1035-8052-B4C04F4A3132"), Err(IdentityDefect::Ignored));
        assert!(ignore.serial("other").is_ok());
    }
}
