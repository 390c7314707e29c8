//! Hardware addresses of network cards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet address; written in lower case with colons, read with colons or hyphens in any case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

/// The text is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no MAC address: six pairs of hexadecimal digits with `:` or `-` between them are expected")]
pub struct MacError(String);

impl MacAddr {
    /// The address with these bytes, in the order in which they are written.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes in the order in which they are written.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Whether this identifies no single card: all zeros, broadcast, or a group address (IEEE 802, the lowest bit of
    /// the first byte).
    pub const fn is_junk(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 1 || u64::from_be_bytes(self.widened()) == 0
    }

    const fn widened(self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self.0;
        [0, 0, a, b, c, d, e, f]
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let refuse = || MacError(text.chars().take(40).collect());
        let mut bytes = [0; 6];
        let mut pairs = text.trim().split([':', '-']);
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(refuse)?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        if pairs.next().is_some() {
            return Err(refuse());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_form_however_it_was_written() {
        for text in ["52:54:00:Ab:cD:01", "52-54-00-ab-cd-01", " 52:54:00:AB:CD:01 "] {
            assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), "52:54:00:ab:cd:01");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "52:54:00", "52:54:00:ab:cd:0", "52:54:00:ab:cd:01:02", "52:54:00:ab:cd:+1", "${net0/mac}"] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_no_single_card_are_junk() {
        for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            assert!(text.parse::<MacAddr>().unwrap().is_junk(), "{text}");
        }
        assert!(!"52:54:00:ab:cd:01".parse::<MacAddr>().unwrap().is_junk());
    }
}
