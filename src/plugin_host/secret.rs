//! Secrets that the operator names in a grant. A plugin uses them without ever seeing them.
//!
//! Invariant: what was read from a file is in no log line and no error; its `Debug` hides it.
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

/// A file with a secret in it is a token, not a book.
const FILE_MAX_BYTES: u64 = 64 << 10;

/// A text of the configuration in which `${file:/path}` stands for what is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SecretText(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    File(PathBuf),
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Who writes a token straight into the configuration shall not find it in the log either.
            Self::Literal(_) => f.write_str("…"),
            Self::File(path) => write!(f, "${{file:{}}}", path.display()),
        }
    }
}

/// The bytes themselves.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// `${…}` that is no file.
    #[error("`${{…}}` must be `${{file:/absolute/path}}`")]
    Syntax,
    /// The file cannot be read.
    #[error("the secret in {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl FromStr for SecretText {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, reference)) = rest.split_once("${") {
            let (reference, after) = reference.split_once('}').ok_or(SecretError::Syntax)?;
            let path = Path::new(reference.strip_prefix("file:").ok_or(SecretError::Syntax)?);
            if !path.is_absolute() {
                return Err(SecretError::Syntax);
            }
            parts.extend([Part::Literal(before.to_owned()), Part::File(path.to_owned())]);
            rest = after;
        }
        parts.push(Part::Literal(rest.to_owned()));
        Ok(Self(parts))
    }
}

impl TryFrom<String> for SecretText {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        text.parse()
    }
}

impl SecretText {
    /// Reads the files. A line's end after a secret is none of it.
    pub(super) fn read(&self) -> Result<Secret, SecretError> {
        let mut bytes = Vec::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => bytes.extend_from_slice(text.as_bytes()),
                Part::File(path) => {
                    let read = read_file(path);
                    bytes.extend(read.map_err(|source| SecretError::Unreadable { path: path.clone(), source })?);
                }
            }
        }
        Ok(Secret(bytes))
    }
}

impl Secret {
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    if about.permissions().mode() & 0o004 != 0 {
        tracing::warn!(path = %path.display(), "everybody on this machine can read a file with a secret: chmod o-r");
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {FILE_MAX_BYTES} bytes")));
    }
    while bytes.last().is_some_and(u8::is_ascii_whitespace) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_into_its_place_without_its_last_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "s3cret\n").unwrap();
        let text: SecretText = format!("Bearer ${{file:{}}}!", path.display()).parse().unwrap();
        let secret = text.read().unwrap();
        assert_eq!(secret.expose(), b"Bearer s3cret!");
        assert!(!format!("{text:?} {secret:?}").contains("Bearer") && !format!("{secret:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_no_file_reference_is_refused() {
        for text in ["${TOKEN}", "${file:token}", "${file:/etc/x", "a ${}"] {
            assert!(matches!(text.parse::<SecretText>(), Err(SecretError::Syntax)), "{text}");
        }
    }

    #[test]
    fn missing_empty_and_endless_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("empty"), "\n").unwrap();
        fs::write(dir.path().join("large"), vec![b'x'; FILE_MAX_BYTES as usize + 1]).unwrap();
        let paths = ["none", "empty", "large", "."].map(|name| dir.path().join(name));
        for path in paths.into_iter().chain([PathBuf::from("/dev/zero")]) {
            let text: SecretText = format!("${{file:{}}}", path.display()).parse().unwrap();
            assert!(matches!(text.read(), Err(SecretError::Unreadable { .. })), "{}", path.display());
        }
    }
}
