//! Signatures by the test's secrets: the real algorithm, so that a receiver in the test can check them.
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Core, OUTSIDE, with};
use crate::bindings::signing::SigningError;

impl Core {
    /// Knows a secret.
    #[must_use]
    pub fn secret(mut self, name: &str, secret: impl AsRef<[u8]>) -> Self {
        self.secrets.insert(name.to_owned(), secret.as_ref().to_vec());
        self
    }
}

pub(crate) fn hmac_sha256(secret: &str, data: &[u8]) -> Result<Vec<u8>, SigningError> {
    let found = with(|core| core.secrets.get(secret).cloned());
    let key = found.ok_or_else(|| SigningError::Denied(OUTSIDE.into()))?.ok_or(SigningError::NotFound)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| SigningError::Denied(error.to_string()))?;
    mac.update(data);
    Ok(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask;

    #[test]
    fn a_signature_is_the_one_of_rfc_4231() {
        let core = Core::new().secret("hook", "Jefe");
        let signature = core.run(|| ask::signing::hmac_sha256("hook", b"what do ya want for nothing?")).unwrap();
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(core.run(|| ask::signing::hmac_sha256("other", b"")), Err(SigningError::NotFound));
    }
}
