//! What the files of a KIWI install archive (`installpxe="true"`) are for, in every layout KIWI has had.
//!
//! With `B = <image>.<arch>-<version>`: the payload `B.xz`, which is the disk image; its checksum `B.md5`, `B.sha256`
//! or `B.sha512` (`<sum> <blocks> <blocksize>` of what `B.xz` decompresses to); the installer `pxeboot.B.kernel` and
//! `pxeboot.B.initrd` (`.initrd.xz` before 9.24.11; without `B` up to 9.18.17); `B.append`; and the installed system's
//! own `B.kernel`, `B.initrd` and `B.config.bootoptions`, which the installer fetches by name.

use std::collections::BTreeSet;

use super::manifest::{is_installer_url_safe, is_own_word};
use super::names::{FileName, KernelArgs, KernelArgsError, parse_hex};

/// Which file of an archive is what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) kernel: FileName,
    pub(super) initrd: FileName,
    pub(super) payload: FileName,
    pub(super) append: Option<FileName>,
    pub(super) checksums: Vec<FileName>,
}

/// What a checksum file says about the decompressed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) algorithm: Algorithm,
    pub(super) sum: Vec<u8>,
    pub(super) raw_size_bytes: u64,
}

/// The sums that KIWI has written over the years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Until late 2024.
    Md5,
    /// From KIWI 10.2.6.
    Sha256,
    /// Possible from KIWI 10.3.6.
    Sha512,
}

/// Why an archive is no KIWI install archive that could be deployed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KiwiError {
    /// There is no disk image in it.
    #[error(
        "the archive holds no disk image (`<name>.xz`): is it the `.install.tar` of a KIWI image with `installpxe=\"true\"`?"
    )]
    NoPayload,
    /// There are several.
    #[error("the archive holds two disk images, {0} and {1}")]
    TwoPayloads(FileName, FileName),
    /// KIWI's installer replaces every `.xz` of the URL.
    #[error("{0} holds `.xz` twice, which KIWI's installer cannot fetch: rename the image")]
    PayloadName(FileName),
    /// A file that every layout has is missing.
    #[error("the archive holds no {what}: neither {expected}")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The names it could have.
        expected: String,
    },
    /// The checksum file is not as KIWI writes it.
    #[error("{0} is no checksum file of KIWI (`<sum> <blocks> <blocksize>`)")]
    BadChecksum(FileName),
    /// The command line of the archive cannot be used.
    #[error("{file}: {error}")]
    BadAppend {
        /// The file.
        file: FileName,
        /// What is wrong with it.
        error: KernelArgsError,
    },
    /// The command line of the archive is no text.
    #[error("{0} is no plain text")]
    AppendNotText(FileName),
}

/// Whether this is a disk image, by its name.
pub(super) fn is_payload(name: &FileName) -> bool {
    let name = name.as_str();
    name.ends_with(".xz") && !name.starts_with("pxeboot.") && !name.ends_with(".initrd.xz")
}

/// The algorithm of a checksum file, by its name; `None` for every other file.
pub(super) fn checksum_algorithm(name: &FileName) -> Option<Algorithm> {
    match name.as_str().rsplit_once('.')?.1 {
        "md5" => Some(Algorithm::Md5),
        "sha256" => Some(Algorithm::Sha256),
        "sha512" => Some(Algorithm::Sha512),
        _ => None,
    }
}

/// The name without its last extension: `B` of a payload or checksum.
pub(super) fn stem(name: &FileName) -> &str {
    name.as_str().rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem)
}

impl Layout {
    /// Recognises the layout from the names in an archive.
    pub(super) fn recognise(names: &BTreeSet<FileName>) -> Result<Self, KiwiError> {
        let mut payloads = names.iter().filter(|name| is_payload(name));
        let payload = payloads.next().ok_or(KiwiError::NoPayload)?;
        if let Some(second) = payloads.next() {
            return Err(KiwiError::TwoPayloads(payload.clone(), second.clone()));
        }
        if !is_installer_url_safe(payload) {
            return Err(KiwiError::PayloadName(payload.clone()));
        }
        let b = stem(payload);
        let one_of = |what: &'static str, candidates: &[String]| {
            let found = candidates.iter().find_map(|name| names.iter().find(|known| known.as_str() == name));
            found.cloned().ok_or_else(|| KiwiError::Missing { what, expected: candidates.join(" nor ") })
        };
        let kernel = one_of("installer kernel", &[format!("pxeboot.{b}.kernel"), "pxeboot.kernel".to_owned()])?;
        let initrds = [
            format!("pxeboot.{b}.initrd"),
            format!("pxeboot.{b}.initrd.xz"),
            "pxeboot.initrd".to_owned(),
            "pxeboot.initrd.xz".to_owned(),
        ];
        let initrd = one_of("installer initrd", &initrds)?;
        let sums = [format!("{b}.sha512"), format!("{b}.sha256"), format!("{b}.md5")];
        one_of("checksum of the disk image", &sums)?;
        Ok(Self {
            kernel,
            initrd,
            payload: payload.clone(),
            append: names.iter().find(|name| name.as_str() == format!("{b}.append")).cloned(),
            checksums: names
                .iter()
                .filter(|name| checksum_algorithm(name).is_some() && stem(name) == b)
                .cloned()
                .collect(),
        })
    }
}

impl Checksum {
    /// Reads a checksum file. KIWI writes two more numbers for a compressed source, which the installer ignores too.
    pub(super) fn parse(name: &FileName, text: &[u8]) -> Result<Self, KiwiError> {
        let bad = || KiwiError::BadChecksum(name.clone());
        let algorithm = checksum_algorithm(name).ok_or_else(bad)?;
        let mut fields = str::from_utf8(text).map_err(|_| bad())?.split_ascii_whitespace();
        let number = |field: Option<&str>| field.and_then(|field| field.parse::<u64>().ok()).ok_or_else(bad);
        let sum =
            fields.next().and_then(parse_hex).filter(|sum| sum.len() == algorithm.length_bytes()).ok_or_else(bad)?;
        let (blocks, block_size) = (number(fields.next())?, number(fields.next())?);
        let raw_size_bytes = blocks.checked_mul(block_size).filter(|size| *size > 0).ok_or_else(bad)?;
        Ok(Self { algorithm, sum, raw_size_bytes })
    }
}

impl Algorithm {
    fn length_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// Reads `B.append` without the words that the server adds itself, which are returned too: KIWI writes placeholders
/// such as `rd.kiwi.install.image=http://example.com/image.xz`.
pub(super) fn parse_append(name: &FileName, text: &[u8]) -> Result<(KernelArgs, Vec<String>), KiwiError> {
    let text = str::from_utf8(text).map_err(|_| KiwiError::AppendNotText(name.clone()))?;
    let args: KernelArgs = text.parse().map_err(|error| KiwiError::BadAppend { file: name.clone(), error })?;
    Ok(args.partition(|word| !is_own_word(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<FileName> {
        list.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn every_layout_of_kiwis_life_is_recognised() {
        let layouts: [(&[&str], &str, &str); 4] = [
            (
                &["pxeboot.kernel", "pxeboot.initrd.xz", "i.x86_64-1.xz", "i.x86_64-1.md5"],
                "pxeboot.kernel",
                "pxeboot.initrd.xz",
            ),
            (
                &["pxeboot.B.kernel", "pxeboot.B.initrd.xz", "B.xz", "B.md5", "B.append"],
                "pxeboot.B.kernel",
                "pxeboot.B.initrd.xz",
            ),
            (&["pxeboot.B.kernel", "pxeboot.B.initrd", "B.xz", "B.sha256"], "pxeboot.B.kernel", "pxeboot.B.initrd"),
            (
                &[
                    "pxeboot.B.kernel",
                    "pxeboot.B.initrd",
                    "pxeboot.B.xen.gz",
                    "B.xz",
                    "B.sha512",
                    "B.initrd",
                    "B.kernel",
                ],
                "pxeboot.B.kernel",
                "pxeboot.B.initrd",
            ),
        ];
        for (list, kernel, initrd) in layouts {
            let layout = Layout::recognise(&names(list)).unwrap();
            assert_eq!((layout.kernel.as_str(), layout.initrd.as_str()), (kernel, initrd));
            assert_eq!(layout.checksums.len(), 1);
            assert_eq!(layout.append.is_some(), list.contains(&"B.append"));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |list: &[&str]| Layout::recognise(&names(list)).unwrap_err().to_string();
        assert!(error(&["pxeboot.B.kernel"]).starts_with("the archive holds no disk image"));
        assert_eq!(error(&["a.xz", "b.xz"]), "the archive holds two disk images, a.xz and b.xz");
        assert_eq!(
            error(&["B.xz", "pxeboot.C.kernel"]),
            "the archive holds no installer kernel: neither pxeboot.B.kernel nor pxeboot.kernel"
        );
        assert!(error(&["B.xz", "pxeboot.kernel"]).starts_with("the archive holds no installer initrd: "));
        let no_sum = error(&["B.xz", "pxeboot.kernel", "pxeboot.initrd", "C.md5"]);
        assert_eq!(no_sum, "the archive holds no checksum of the disk image: neither B.sha512 nor B.sha256 nor B.md5");
        assert!(error(&["a.xz.b.xz"]).contains("twice"));
    }

    #[test]
    fn checksum_files_say_the_sum_and_the_raw_size() {
        let name = "B.md5".parse().unwrap();
        let parse = |text: &str| Checksum::parse(&name, text.as_bytes());
        let sum = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(parse(&format!("{sum} 3 8192\n")).unwrap().raw_size_bytes, 24_576);
        assert_eq!(parse(&format!("{sum} 3 8192 7 11\n")).unwrap().raw_size_bytes, 24_576);
        let overflow = format!("{sum} {} 2", u64::MAX);
        for wrong in
            ["", sum, "0123 3 8192", &format!("{sum} 3"), &format!("{sum} -3 2"), &format!("{sum} 0 2"), &overflow]
        {
            assert_eq!(parse(wrong), Err(KiwiError::BadChecksum(name.clone())), "{wrong}");
        }
    }

    #[test]
    fn kiwis_placeholders_are_dropped_from_the_command_line() {
        let name = "B.append".parse().unwrap();
        let text =
            b"rd.kiwi.install.pxe rd.kiwi.install.image=http://example.com/image.xz console=tty0 rd.kiwi.debug\n";
        let (args, dropped) = parse_append(&name, text).unwrap();
        assert_eq!(args.to_string(), "console=tty0 rd.kiwi.debug");
        assert_eq!(dropped, ["rd.kiwi.install.pxe", "rd.kiwi.install.image=http://example.com/image.xz"]);
        assert!(parse_append(&name, b"a ${x}").unwrap_err().to_string().starts_with("B.append: the kernel argument"));
    }
}
