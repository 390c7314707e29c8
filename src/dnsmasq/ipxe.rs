//! The iPXE binaries of this machine, under the names that distributions give them.
//!
//! iPXE is used, never shipped: what is missing is not offered, and the configuration says so.

use std::path::{Path, PathBuf};

/// Where Debian (first) and openSUSE (second) put iPXE.
const DISTRIBUTION_DIRS: [&str; 2] = ["/usr/lib/ipxe", "/usr/share/ipxe"];
const BIOS_NAMES: &[&str] = &["undionly.kpxe"];
// The "snp only" builds use the firmware's own network driver, which is what loaded them and therefore works.
const X64_NAMES: &[&str] = &["snponly.efi", "snponly-x86_64.efi", "snp-x86_64.efi", "ipxe.efi", "ipxe-x86_64.efi"];
const ARM64_NAMES: &[&str] = &["snponly-arm64.efi", "snp-arm64.efi", "ipxe-arm64.efi"];

/// The firmware files of one directory, which is also the TFTP root and what `/ipxe/<file>` serves.
///
/// One directory and no merging: dnsmasq has one TFTP root, and everything outside it must stay out of reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpxeFiles {
    /// The directory; `None` if no file was found anywhere.
    pub directory: Option<PathBuf>,
    /// File name for BIOS machines.
    pub bios: Option<&'static str>,
    /// File name for UEFI on x86-64.
    pub x64: Option<&'static str>,
    /// File name for UEFI on ARM64.
    pub arm64: Option<&'static str>,
    /// Where it was looked, in order; for messages.
    pub looked_in: Vec<PathBuf>,
}

impl IpxeFiles {
    /// Looks in `ipxe_dir` (of `--ipxe-dir`) first, then where distributions put iPXE.
    #[must_use]
    pub fn find(ipxe_dir: Option<&Path>) -> Self {
        let dirs = ipxe_dir.into_iter().chain(DISTRIBUTION_DIRS.iter().map(Path::new));
        Self::find_in(dirs.map(Path::to_owned).collect())
    }

    /// Takes the first directory that has any of the files.
    #[must_use]
    pub fn find_in(looked_in: Vec<PathBuf>) -> Self {
        for directory in &looked_in {
            let first = |names: &[&'static str]| names.iter().copied().find(|name| directory.join(name).is_file());
            let (bios, x64, arm64) = (first(BIOS_NAMES), first(X64_NAMES), first(ARM64_NAMES));
            if bios.is_some() || x64.is_some() || arm64.is_some() {
                return IpxeFiles { directory: Some(directory.clone()), bios, x64, arm64, looked_in };
            }
        }
        IpxeFiles { directory: None, bios: None, x64: None, arm64: None, looked_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        dir
    }

    #[test]
    fn names_of_both_distributions_are_known() {
        let debian = dir_with(&["undionly.kpxe", "snponly.efi", "ipxe.efi"]);
        let suse = dir_with(&["undionly.kpxe", "snp-x86_64.efi", "ipxe-x86_64.efi", "snp-arm64.efi"]);
        let found = IpxeFiles::find_in(vec![debian.path().to_owned(), suse.path().to_owned()]);
        assert_eq!((found.bios, found.x64, found.arm64), (Some("undionly.kpxe"), Some("snponly.efi"), None));
        let found = IpxeFiles::find_in(vec![suse.path().to_owned()]);
        assert_eq!((found.x64, found.arm64), (Some("snp-x86_64.efi"), Some("snp-arm64.efi")));
    }

    #[test]
    fn the_own_directory_wins_and_an_empty_one_does_not() {
        let own = dir_with(&["snponly.efi"]);
        let distribution = dir_with(&["undionly.kpxe", "snponly.efi"]);
        let empty = dir_with(&[]);
        let found = IpxeFiles::find_in(vec![own.path().to_owned(), distribution.path().to_owned()]);
        assert_eq!((found.directory.as_deref(), found.bios), (Some(own.path()), None));
        let found = IpxeFiles::find_in(vec![empty.path().to_owned(), distribution.path().to_owned()]);
        assert_eq!(found.directory.as_deref(), Some(distribution.path()));
        assert_eq!(IpxeFiles::find_in(vec![empty.path().to_owned()]).directory, None);
    }
}
