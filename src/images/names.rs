//! What an image is made of, as types: file names, the disk policy, kernel arguments.
//!
//! Invariant: a value of these types can stand in a path, in a URL that KIWI's installer passes through an unquoted
//! `eval`, and on a kernel command line in an iPXE script, without meaning anything but itself. Each is parsed once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Makes a text type that is parsed by `FromStr` and written by `Display`, in serde too.
macro_rules! parsed_text {
    ($type:ty, $error:ty) => {
        impl TryFrom<String> for $type {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// The name of a file of an image: `[A-Za-z0-9._-]`, beginning with a letter, a digit or `_`, at most 255 bytes.
///
/// It is one path component: never `..`, never hidden, never with a slash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

/// A text that is no [`FileName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no file name of an image: letters, digits, `.`, `_` and `-`, no folders, and not hidden")]
pub struct FileNameError(String);

impl FileName {
    /// The manifest of every image.
    pub const MANIFEST: &'static str = "image.toml";

    const LONGEST: usize = 255;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether machines may fetch such a file: not the manifest, and no template, which is rendered and never shown.
    pub fn is_servable(&self) -> bool {
        self.0 != Self::MANIFEST && !self.is_template()
    }

    /// Whether this is a template, `*.hbs`.
    pub fn is_template(&self) -> bool {
        self.0.to_ascii_lowercase().ends_with(".hbs")
    }
}

impl FromStr for FileName {
    type Err = FileNameError;

    fn from_str(text: &str) -> Result<Self, FileNameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let begins_well = !text.starts_with(['.', '-']) && !text.is_empty();
        if begins_well && text.len() <= Self::LONGEST && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FileNameError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

parsed_text!(FileName, FileNameError);

/// Arguments of a kernel: words of `[A-Za-z0-9._:/@=,+%~-]`, `[` and `]`, one space between them.
///
/// iPXE expands `${`, ends a command at `||` and `&&` and has comments, and nothing escapes these in a command line:
/// what could become code is refused when it is written down, not replaced when a machine boots.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelArgs(Vec<String>);

/// A text that is no [`KernelArgs`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelArgsError {
    /// A character that means something to iPXE or a shell.
    #[error("the kernel argument {word:?} holds {character:?}, which cannot pass through a boot script")]
    Character {
        /// The word, shortened.
        word: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// Longer than [`KernelArgs::LONGEST_BYTES`].
    #[error("the kernel arguments are longer than {} bytes", KernelArgs::LONGEST_BYTES)]
    TooLong,
}

impl KernelArgs {
    /// x86 kernels take 2048 bytes of command line; the server adds its own words.
    pub const LONGEST_BYTES: usize = 1536;

    /// The words.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These words, then the others.
    pub fn and(mut self, others: &Self) -> Self {
        self.0.extend(others.0.iter().cloned());
        self
    }

    /// Splits off the words that `wanted` refuses: those that stay, and those that do not.
    pub fn partition(self, mut wanted: impl FnMut(&str) -> bool) -> (Self, Vec<String>) {
        let (stay, go) = self.0.into_iter().partition(|word| wanted(word));
        (Self(stay), go)
    }

    fn allows(c: char) -> bool {
        c.is_ascii_alphanumeric() || "._:/@=,+%~[]-".contains(c)
    }
}

impl FromStr for KernelArgs {
    type Err = KernelArgsError;

    fn from_str(text: &str) -> Result<Self, KernelArgsError> {
        if text.len() > Self::LONGEST_BYTES {
            return Err(KernelArgsError::TooLong);
        }
        let words = text.split_ascii_whitespace().map(|word| match word.chars().find(|c| !Self::allows(*c)) {
            Some(character) => Err(KernelArgsError::Character { word: word.chars().take(80).collect(), character }),
            None => Ok(word.to_owned()),
        });
        words.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for KernelArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, word) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

parsed_text!(KernelArgs, KernelArgsError);

/// The SHA-256 of a file as it lies in the image's folder, written in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Sum([u8; 32]);

/// A text that is no [`Sha256Sum`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a sha256 is 64 hexadecimal digits")]
pub struct Sha256SumError;

impl From<[u8; 32]> for Sha256Sum {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Sha256Sum {
    type Err = Sha256SumError;

    fn from_str(text: &str) -> Result<Self, Sha256SumError> {
        let bytes = parse_hex(text).ok_or(Sha256SumError)?;
        bytes.try_into().map(Self).map_err(|_| Sha256SumError)
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

parsed_text!(Sha256Sum, Sha256SumError);

/// The bytes that an even number of hexadecimal digits stands for.
pub(super) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_one_plain_path_component() {
        for name in ["", ".", "..", ".hidden", "-rf", "a/b", "a\\b", "a b", "a%2e", "ä", "a\0", &"x".repeat(256)] {
            assert!(name.parse::<FileName>().is_err(), "{name:?}");
        }
        let plain: FileName = "pxeboot.SLES-15.6_x86.kernel".parse().unwrap();
        assert!(plain.is_servable());
        for private in ["image.toml", "post_install.sh.hbs", "X.HBS"] {
            assert!(!private.parse::<FileName>().unwrap().is_servable(), "{private}");
        }
    }

    #[test]
    fn kernel_arguments_cannot_become_script() {
        let args: KernelArgs = " console=ttyS0,115200  ip=[2001:db8::1]:x\n".parse().unwrap();
        assert_eq!(args.to_string(), "console=ttyS0,115200 ip=[2001:db8::1]:x");
        for wrong in ["a ${net0/mac}", "a || b", "a && b", "a #b", "a;b", "$(id)", "`id`", "a\"b", "a\\b", "ä", "a\0b"]
        {
            assert!(wrong.parse::<KernelArgs>().is_err(), "{wrong:?}");
        }
        assert_eq!("x".repeat(1537).parse::<KernelArgs>(), Err(KernelArgsError::TooLong));
    }

    #[test]
    fn sums_are_read_and_written_in_hexadecimal() {
        let text = "00ff".repeat(16);
        assert_eq!(text.parse::<Sha256Sum>().unwrap().to_string(), text);
        for wrong in ["", "0", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64), &"+1".repeat(32)] {
            assert!(wrong.parse::<Sha256Sum>().is_err(), "{wrong:?}");
        }
    }
}
