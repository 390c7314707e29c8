//! `image.toml`: what an image boots, and whether and where it writes a disk.
//!
//! Invariant: a [`Manifest`] says nothing that contradicts itself, and nothing that the server adds to a command line
//! by itself. Whether its files are there is the catalogue's question.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::{DevicePolicy, FirstBoot, Writes};

use super::live::is_iso_name;
use super::names::{FileName, KernelArgs, Sha256Sum};

/// How an image is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// KIWI's network installer, which fetches the payload and writes it to a disk.
    Kiwi,
    /// A kernel, and mostly an initrd.
    Linux,
    /// A live system of KIWI, whose initrd fetches the payload, an ISO, into memory.
    Live,
}

/// How machines leave for their own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalBoot {
    /// iPXE's `exit 1`: the firmware goes on to its next boot option.
    Exit,
    /// iPXE's `sanboot` of the first BIOS disk.
    Sanboot,
}

/// A manifest, parsed and free of contradictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// How it is booted.
    pub kind: Kind,
    /// The kernel that iPXE loads.
    pub kernel: FileName,
    /// The initrd that iPXE loads; always there for KIWI.
    pub initrd: Option<FileName>,
    /// The file whose whole delivery means "installed"; always there when the image writes a disk.
    pub payload: Option<FileName>,
    /// Kernel arguments besides those that the server adds.
    pub append: KernelArgs,
    /// What it does to the disk.
    pub writes: Writes,
    /// Which disk; an image that writes is not offered without.
    pub device: Option<DevicePolicy>,
    /// Whether machines in this state may post `/update`.
    pub inventory: bool,
    /// What is told where the documents of the first boot are; none: only the post-install script is offered.
    pub first_boot: Option<FirstBoot>,
    /// The files as they were imported.
    pub files: Vec<FileRecord>,
}

/// One file as it was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name in the image's folder.
    pub name: FileName,
    /// Its size in bytes.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// The sum of its bytes.
    pub sha256: Sha256Sum,
    /// For a payload: the size in bytes of what it decompresses to, which is what is written to the disk.
    #[serde(rename = "raw_size", default, skip_serializing_if = "Option::is_none")]
    pub raw_size_bytes: Option<u64>,
}

/// Why a text is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No TOML, a key missing, or a value of the wrong kind.
    #[error("line {line}: {message}")]
    Toml {
        /// The line, from 1.
        line: usize,
        /// One line that says what is wrong.
        message: String,
    },
    /// A key that means nothing.
    #[error("it has the unknown key `{key}`{}", .suggestion.map(|s| format!(": is `{s}` meant?")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// The known key that it resembles.
        suggestion: Option<&'static str>,
    },
    /// A KIWI image without an initrd or payload.
    #[error("a kiwi image needs `{0}`")]
    KiwiNeeds(&'static str),
    /// A KIWI image that says it writes nothing: it would be booted, and would install, again and again.
    #[error("a kiwi image writes a disk: `writes` is \"disk\" or \"wipe\"")]
    KiwiWrites,
    /// An image that writes one disk, for all of them.
    #[error("`device` is \"all\" only where `writes` is \"wipe\" and `kind` is \"linux\": name the one disk")]
    AllDisks,
    /// A live image without an initrd or ISO.
    #[error("a live image needs `{0}`")]
    LiveNeeds(&'static str),
    /// A live image that says it writes.
    #[error("a live image writes no disk: `writes` is \"nothing\", and there is no `device`")]
    LiveWrites,
    /// A live image's payload of another name.
    #[error("the payload of a live image ends in `.iso`, and `{0}` does not")]
    LivePayload(FileName),
    /// An argument that lets a live system write a disk, or takes it from elsewhere.
    #[error(
        "`{0}` in `append` of a live image is refused: the server says `root`, and `rd.kiwi.live.system` wipes a disk"
    )]
    LiveWord(String),
    /// A payload in a format that KIWI's installer writes to the disk without decompressing it.
    #[error("the payload of a kiwi image ends in `.xz`, and `{0}` does not, or holds `.xz` twice")]
    KiwiPayload(FileName),
    /// A kernel argument that the server itself adds.
    #[error("`{0}` in `append` is the server's own word: {hint}", hint = OWN_WORDS_HINT)]
    OwnWord(String),
    /// A file that is never served.
    #[error("`{0}` is never served to machines")]
    NotServable(FileName),
    /// Two `[[file]]` tables for one name.
    #[error("`{0}` has two [[file]] tables")]
    FileTwice(FileName),
}

const OWN_WORDS_HINT: &str = "the disk is named by `device`, the rest is added at every boot";

/// Kernel arguments that the server adds itself, before their `=`: those of an archive are dropped, an operator's refused.
const OWN_WORDS: [&str; 8] = [
    "kiwispray.device",
    "rd.kiwi.install.pxe",
    "rd.kiwi.install.image",
    "rd.kiwi.oem.installdevice",
    "rd.kiwi.oem.smallest_disk",
    "BOOTIF",
    "razorurl",
    "initrd",
];

const KEYS: [&str; 10] =
    ["kind", "kernel", "initrd", "payload", "append", "writes", "device", "inventory", "first_boot", "file"];
const FILE_KEYS: [&str; 4] = ["name", "size", "sha256", "raw_size"];

/// `image.toml` as it is written.
#[derive(Serialize, Deserialize)]
struct ManifestToml {
    kind: Kind,
    kernel: FileName,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<FileName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<FileName>,
    #[serde(default, skip_serializing_if = "KernelArgs::is_empty")]
    append: KernelArgs,
    writes: Writes,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DevicePolicy>,
    #[serde(default)]
    inventory: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_boot: Option<FirstBoot>,
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    files: Vec<FileRecord>,
}

impl Manifest {
    /// Reads an `image.toml`.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let toml = parse_toml(text)?;
        let manifest = Self {
            payload: toml.payload.or_else(|| match (toml.kind, toml.writes) {
                (Kind::Kiwi | Kind::Live, _) | (Kind::Linux, Writes::Nothing) => None,
                (Kind::Linux, Writes::Disk | Writes::Wipe) => {
                    Some(toml.initrd.as_ref().unwrap_or(&toml.kernel).clone())
                }
            }),
            kind: toml.kind,
            kernel: toml.kernel,
            initrd: toml.initrd,
            append: toml.append,
            writes: toml.writes,
            device: toml.device,
            inventory: toml.inventory,
            first_boot: toml.first_boot,
            files: toml.files,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// The `image.toml` that reads back as this.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let this = self.clone();
        let body = toml::to_string(&ManifestToml {
            kind: this.kind,
            kernel: this.kernel,
            initrd: this.initrd,
            payload: this.payload,
            append: this.append,
            writes: this.writes,
            device: this.device,
            inventory: this.inventory,
            first_boot: this.first_boot,
            files: this.files,
        })?;
        Ok(format!(
            "# Made by `kiwispray image import`. `append`, `device`, `inventory` and `first_boot` may be edited.\n{body}"
        ))
    }

    /// Every file that the image cannot do without: kernel, initrd, payload and those with a `[[file]]` table.
    pub fn needed_files(&self) -> BTreeSet<&FileName> {
        let roles = [Some(&self.kernel), self.initrd.as_ref(), self.payload.as_ref()];
        roles.into_iter().flatten().chain(self.files.iter().map(|file| &file.name)).collect()
    }

    fn check(&self) -> Result<(), ManifestError> {
        if self.device == Some(DevicePolicy::All) && (self.kind == Kind::Kiwi || self.writes != Writes::Wipe) {
            return Err(ManifestError::AllDisks);
        }
        if self.kind == Kind::Kiwi {
            if self.writes == Writes::Nothing {
                return Err(ManifestError::KiwiWrites);
            }
            if self.initrd.is_none() {
                return Err(ManifestError::KiwiNeeds("initrd"));
            }
            let payload = self.payload.as_ref().ok_or(ManifestError::KiwiNeeds("payload"))?;
            if !is_installer_url_safe(payload) {
                return Err(ManifestError::KiwiPayload(payload.clone()));
            }
        }
        if self.kind == Kind::Live {
            self.check_live()?;
        }
        if let Some(word) = self.append.words().find(|word| is_own_word(word)) {
            return Err(ManifestError::OwnWord(word.to_owned()));
        }
        if let Some(name) = self.needed_files().into_iter().find(|name| !name.is_servable()) {
            return Err(ManifestError::NotServable(name.clone()));
        }
        let mut seen = BTreeSet::new();
        match self.files.iter().find(|file| !seen.insert(&file.name)) {
            Some(file) => Err(ManifestError::FileTwice(file.name.clone())),
            None => Ok(()),
        }
    }

    fn check_live(&self) -> Result<(), ManifestError> {
        if self.writes != Writes::Nothing || self.device.is_some() {
            return Err(ManifestError::LiveWrites);
        }
        if self.initrd.is_none() {
            return Err(ManifestError::LiveNeeds("initrd"));
        }
        let payload = self.payload.as_ref().ok_or(ManifestError::LiveNeeds("payload"))?;
        if !is_iso_name(payload) {
            return Err(ManifestError::LivePayload(payload.clone()));
        }
        match self.append.words().find(|word| LIVE_FORBIDDEN.contains(&key_of(word))) {
            Some(word) => Err(ManifestError::LiveWord(word.to_owned())),
            None => Ok(()),
        }
    }
}

/// Kernel arguments that no live image has, before their `=`.
const LIVE_FORBIDDEN: [&str; 2] = ["root", "rd.kiwi.live.system"];

fn key_of(word: &str) -> &str {
    word.split('=').next().unwrap_or(word)
}

/// Whether the server adds this kernel argument itself.
pub(super) fn is_own_word(word: &str) -> bool {
    OWN_WORDS.contains(&key_of(word))
}

/// Whether KIWI's installer finds the side files of such a payload: it replaces every `.xz` of the URL, and decompresses
/// nothing whose URL does not end in it.
pub(super) fn is_installer_url_safe(payload: &FileName) -> bool {
    payload.as_str().strip_suffix(".xz").is_some_and(|stem| !stem.contains(".xz"))
}

fn parse_toml(text: &str) -> Result<ManifestToml, ManifestError> {
    let toml_error = |error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        ManifestError::Toml { line, message: message.chars().filter(|c| !c.is_control()).collect() }
    };
    let mut unknown = None;
    let deserializer = toml::Deserializer::parse(text).map_err(toml_error)?;
    let parsed: Result<ManifestToml, _> = serde_ignored::deserialize(deserializer, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    // A misspelt key is the likely reason for a missing one, so it is said first.
    match unknown {
        Some(path) => Err(unknown_key(&path)),
        None => parsed.map_err(toml_error),
    }
}

fn unknown_key(path: &str) -> ManifestError {
    let key = path.rsplit('.').next().unwrap_or(path);
    let known: &[&'static str] = if path.starts_with("file.") { &FILE_KEYS } else { &KEYS };
    let nearest = known.iter().map(|known| (strsim::damerau_levenshtein(key, known), *known)).min();
    let suggestion = nearest.filter(|(distance, _)| *distance <= 2).map(|(_, known)| known);
    ManifestError::UnknownKey { key: key.chars().filter(|c| !c.is_control()).take(80).collect(), suggestion }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: &str = "kind = \"linux\"\nkernel = \"vmlinuz\"\nwrites = \"nothing\"\n";

    fn error_of(text: &str) -> String {
        Manifest::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_written_manifest_reads_back_as_itself() {
        let text = r#"
            kind = "kiwi"
            kernel = "pxeboot.N.kernel"
            initrd = "pxeboot.N.initrd"
            payload = "N.xz"
            append = "console=ttyS0"
            writes = "disk"
            device = "/dev/disk/by-id/x"
            [[file]]
            name = "N.xz"
            size = 12
            raw_size = 1024
            sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        "#;
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.files[0].raw_size_bytes, Some(1024));
        assert_eq!(Manifest::parse(&manifest.to_toml().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn a_writing_linux_image_is_installed_when_its_last_fetched_file_is_delivered() {
        let writing = LINUX.replace("nothing", "disk");
        assert_eq!(Manifest::parse(&writing).unwrap().payload.unwrap().as_str(), "vmlinuz");
        let with_initrd = format!("{writing}initrd = \"initrd\"\n");
        assert_eq!(Manifest::parse(&with_initrd).unwrap().payload.unwrap().as_str(), "initrd");
        assert_eq!(Manifest::parse(LINUX).unwrap().payload, None);
    }

    #[test]
    fn unknown_keys_are_errors_with_a_suggestion() {
        let missing = LINUX.replace("kernel", "kernal");
        assert_eq!(error_of(&missing), "it has the unknown key `kernal`: is `kernel` meant?");
        assert_eq!(error_of(&format!("{LINUX}colour = 1\n")), "it has the unknown key `colour`");
        let file = format!("{LINUX}[[file]]\nnmae = \"x\"\n");
        assert_eq!(error_of(&file), "it has the unknown key `nmae`: is `name` meant?");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line_with_its_place() {
        assert_eq!(error_of("kind = \"linux\"\nkernel = \"k\"\n"), "line 1: missing field `writes`");
        let wrong = error_of(&LINUX.replace("nothing", "disc"));
        assert_eq!(wrong, "line 3: unknown variant `disc`, expected one of `nothing`, `disk`, `wipe`");
        assert!(
            error_of(&LINUX.replace("vmlinuz", "../vmlinuz")).starts_with("line 2: \"../vmlinuz\" is no file name")
        );
        assert!(error_of("kind = ").starts_with("line 1: "));
        assert!(!error_of("kind = \n[[[").contains('\n'));
    }

    #[test]
    fn a_kiwi_image_must_be_one_that_installs() {
        let kiwi = "kind = \"kiwi\"\nkernel = \"k\"\ninitrd = \"i\"\nwrites = \"disk\"\n";
        assert_eq!(Manifest::parse(kiwi), Err(ManifestError::KiwiNeeds("payload")));
        assert_eq!(Manifest::parse(&kiwi.replace("disk", "nothing")), Err(ManifestError::KiwiWrites));
        for payload in ["image.raw", "a.xz.b.xz"] {
            let text = format!("{kiwi}payload = \"{payload}\"\n");
            assert!(matches!(Manifest::parse(&text), Err(ManifestError::KiwiPayload(_))), "{payload}");
        }
    }

    #[test]
    fn only_what_wipes_is_for_all_disks() {
        let all = |writes| LINUX.replace("nothing", writes) + "device = \"all\"\n";
        assert_eq!(Manifest::parse(&all("wipe")).unwrap().device, Some(DevicePolicy::All));
        assert_eq!(Manifest::parse(&all("disk")), Err(ManifestError::AllDisks));
    }

    #[test]
    fn what_the_server_adds_by_itself_is_refused() {
        for word in ["rd.kiwi.install.pxe", "rd.kiwi.oem.installdevice=/dev/sdb", "razorurl=http://x"] {
            let text = format!("{LINUX}append = \"quiet {word}\"\n");
            assert_eq!(Manifest::parse(&text), Err(ManifestError::OwnWord(word.to_owned())));
        }
        let text = LINUX.replace("vmlinuz", "image.toml");
        assert!(matches!(Manifest::parse(&text), Err(ManifestError::NotServable(_))));
    }
}
