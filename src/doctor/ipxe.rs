//! The iPXE binaries: without the one for its firmware a machine gets an address and nothing to run.

use super::Finding;
use crate::config::Config;
use crate::dnsmasq::IpxeFiles;

const CHECK: &str = "ipxe";
const INSTALL: &str = "install the package ipxe (Debian) or ipxe-bootimgs (openSUSE), or name a folder by --ipxe-dir";

pub(super) fn look(config: &Config) -> IpxeFiles {
    IpxeFiles::find(config.ipxe_dir.as_deref())
}

/// Where dnsmasq runs elsewhere, its machine has the files: then nothing here is needed.
pub(super) fn judge(files: &IpxeFiles, runs_dnsmasq: bool) -> Vec<Finding> {
    let Some(directory) = &files.directory else {
        let looked: Vec<String> = files.looked_in.iter().map(|dir| dir.display().to_string()).collect();
        let said = format!("there is none in {}", looked.join(", "));
        let finding = if runs_dnsmasq { Finding::fail } else { Finding::warn };
        return vec![finding(CHECK, "iPXE", said, INSTALL.to_owned())];
    };
    let firmware = [("BIOS", files.bios), ("UEFI x86-64", files.x64), ("UEFI ARM64", files.arm64)];
    let found = firmware.iter().filter_map(|(name, file)| {
        file.map(|file| Finding::ok(CHECK, *name, directory.join(file).display().to_string()))
    });
    let mut findings: Vec<Finding> = found.collect();
    // ARM64 is missed only by those who have such machines.
    let missing = firmware.iter().filter(|(name, file)| file.is_none() && *name != "UEFI ARM64");
    findings.extend(missing.map(|(name, _)| {
        let said = format!("there is no file for it in {}: such machines cannot boot", directory.display());
        Finding::warn(CHECK, *name, said, INSTALL)
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_server_with_dnsmasq_needs_a_file_and_a_missing_firmware_is_named() {
        let none = IpxeFiles { directory: None, bios: None, x64: None, arm64: None, looked_in: vec!["/a".into()] };
        assert_eq!(judge(&none, true)[0].verdict, Verdict::Fail);
        assert_eq!(judge(&none, false)[0].verdict, Verdict::Warn);
        let bios = IpxeFiles { directory: Some("/a".into()), bios: Some("undionly.kpxe"), ..none };
        let findings = judge(&bios, true);
        assert_eq!(findings[0], Finding::ok("ipxe", "BIOS", "/a/undionly.kpxe"));
        assert_eq!((findings[1].verdict, findings[1].subject.as_str()), (Verdict::Warn, "UEFI x86-64"));
        assert_eq!(findings.len(), 2);
    }
}
