//! Signatures with secrets that the operator named in a grant. The plugin names one and gets a signature, never the secret.
use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::secret::{SecretError, SecretText};

/// The secrets of one plugin, by name.
pub(super) struct Keys(BTreeMap<String, Hmac<Sha256>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Keys {
    /// Reads the secrets' files.
    pub(super) fn read(secrets: &BTreeMap<String, SecretText>) -> Result<Self, SecretError> {
        let mut keys = BTreeMap::new();
        for (name, text) in secrets {
            // Keys of any length are taken: this does not fail.
            if let Ok(key) = Hmac::new_from_slice(text.read()?.expose()) {
                keys.insert(name.clone(), key);
            }
        }
        Ok(Self(keys))
    }

    /// 32 bytes; none if there is no secret of this name.
    pub(super) fn hmac_sha256(&self, secret: &str, data: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.get(secret)?.clone().chain_update(data).finalize().into_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        let keys = Keys::read(&BTreeMap::from([("hook".to_owned(), "Jefe".parse().unwrap())])).unwrap();
        let signature = keys.hmac_sha256("hook", b"what do ya want for nothing?").unwrap();
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(keys.hmac_sha256("other", b""), None);
        assert_eq!(format!("{keys:?}"), r#"{"hook"}"#);
    }
}
