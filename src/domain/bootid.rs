//! The secret of one boot.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

use super::HostId;

/// A random secret that stands for one boot of one step; it begins with its host's id, so it needs no index.
///
/// Written `7-0123456789abcdef0123456789abcdef`, which passes unchanged through URLs, kernel command lines and shells.
#[derive(Clone, Copy)]
pub struct BootId {
    host: HostId,
    secret: [u8; 16],
}

/// The text is no bootid. It does not repeat the text, which may be a mistyped secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no bootid: a number, `-` and 32 hexadecimal digits are expected")]
pub struct BootIdError;

impl BootId {
    /// The bootid of this host with 16 bytes from a cryptographic source.
    pub const fn new(host: HostId, random: [u8; 16]) -> Self {
        Self { host, secret: random }
    }

    /// The host that booted.
    pub const fn host(&self) -> HostId {
        self.host
    }

    /// The text for URLs and for the store; nothing else may see it.
    pub fn expose(&self) -> String {
        format!("{}-{:032x}", self.host, u128::from_be_bytes(self.secret))
    }

    /// The random half, for the store's compact records.
    pub const fn secret(&self) -> [u8; 16] {
        self.secret
    }
}

/// Compares in constant time, so that answers do not tell how much of a guess was right.
impl PartialEq for BootId {
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host && bool::from(self.secret.ct_eq(&other.secret))
    }
}

impl Eq for BootId {}

impl FromStr for BootId {
    type Err = BootIdError;

    fn from_str(text: &str) -> Result<Self, BootIdError> {
        let (host, secret) = text.split_once('-').ok_or(BootIdError)?;
        let canonical = secret.len() == 32 && secret.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical {
            return Err(BootIdError);
        }
        let secret = u128::from_str_radix(secret, 16).map_err(|_| BootIdError)?.to_be_bytes();
        Ok(Self { host: host.parse().map_err(|_| BootIdError)?, secret })
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-…", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootid_survives_its_text_and_hides_from_logs() {
        let id = BootId::new(HostId::new(7), [0xab; 16]);
        assert_eq!(id.expose().parse::<BootId>().unwrap(), id);
        assert_eq!(format!("{id:?}"), "7-…");
    }

    #[test]
    fn only_one_spelling_is_a_bootid() {
        let good = BootId::new(HostId::new(7), [0xab; 16]).expose();
        for text in ["", "7", "7-", &good.to_uppercase(), &format!("0{good}"), &format!("{good}0"), &format!("+{good}")]
        {
            assert!(text.parse::<BootId>().is_err(), "{text}");
        }
    }
}
