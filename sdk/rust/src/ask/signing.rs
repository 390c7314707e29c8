//! Signatures by secrets that the operator named in the grant `signing`; the plugin never sees them.
use crate::Error;
pub use crate::bindings::signing::SigningError;

#[cfg(target_family = "wasm")]
use crate::bindings::signing as core;
#[cfg(not(target_family = "wasm"))]
use crate::testing::signing as core;

/// HMAC-SHA-256 of the data by a secret, 32 bytes.
///
/// # Errors
/// `NotFound` when the grant names no such secret; `Denied`.
pub fn hmac_sha256(secret: &str, data: &[u8]) -> Result<Vec<u8>, SigningError> {
    core::hmac_sha256(secret, data)
}

impl From<SigningError> for Error {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Denied(why) => Self::Failed(format!("may not sign: {why}")),
            SigningError::NotFound => Self::Failed("the grant `signing` names no such secret".into()),
        }
    }
}
