//! The text as people will read it, and dnsmasq's own opinion of it.

use super::*;
use std::process::Command;

fn files(bios: bool, x64: bool, arm64: bool) -> IpxeFiles {
    IpxeFiles {
        directory: (bios || x64 || arm64).then(|| PathBuf::from("/usr/share/ipxe")),
        bios: bios.then_some("undionly.kpxe"),
        x64: x64.then_some("snp-x86_64.efi"),
        arm64: arm64.then_some("snp-arm64.efi"),
        looked_in: vec![PathBuf::from("/usr/lib/ipxe"), PathBuf::from("/usr/share/ipxe")],
    }
}

fn config(ipxe: IpxeFiles, mode: Mode) -> Config {
    Config {
        interface: Interface::new("eth1", Ipv4Addr::new(192, 168, 42, 1), 24).unwrap(),
        mode,
        public_url: "http://192.168.42.1:5000".to_owned(),
        ipxe,
        data_dir: PathBuf::from("/var/lib/kiwispray"),
        account: Account::Own,
    }
}

fn full() -> Mode {
    Mode::Full("192.168.42.100,192.168.42.199".parse().unwrap())
}

#[test]
fn full_dhcp_with_every_firmware() {
    insta::assert_snapshot!(config(files(true, true, true), full()).text().unwrap());
}

#[test]
fn full_dhcp_names_what_is_missing() {
    insta::assert_snapshot!(config(files(true, true, false), full()).text().unwrap());
}

#[test]
fn nothing_found_still_recognises_ipxe() {
    insta::assert_snapshot!(config(files(false, false, false), full()).text().unwrap());
}

#[test]
fn proxy_serves_no_addresses() {
    let text = config(files(true, true, true), Mode::Proxy).text().unwrap();
    assert!(!text.contains("192.168.42.100"));
    insta::assert_snapshot!(text);
}

#[test]
fn single_account_namespace_keeps_its_account() {
    let config = Config { account: Account::Only, ..config(files(true, false, false), full()) };
    assert!(config.text().unwrap().contains("\nuser=root\ngroup=\n"));
}

#[test]
fn dnsmasq_accepts_every_variant() {
    for mode in [full(), Mode::Proxy] {
        for (bios, x64, arm64) in [(true, true, true), (true, true, false), (false, false, false)] {
            for account in [Account::Own, Account::Only] {
                let data = tempfile::tempdir().unwrap();
                let mut config = config(files(bios, x64, arm64), mode);
                config.data_dir = data.path().to_owned();
                config.account = account;
                std::fs::write(config.path(), config.text().unwrap()).unwrap();
                let verdict = Command::new("/usr/sbin/dnsmasq")
                    .arg("--test")
                    .arg(format!("--conf-file={}", config.path().display()))
                    .output()
                    .expect("dnsmasq (package dnsmasq-base) is needed by this test");
                assert!(verdict.status.success(), "{verdict:?}\n{}", config.text().unwrap());
            }
        }
    }
}

#[test]
fn words_that_would_become_directives_are_refused() {
    for word in ["http://h\nport=53", "http://h,tag", "a b", "x#y", "\"", "a\\b", "é"] {
        let config = Config { public_url: word.to_owned(), ..config(files(true, true, true), full()) };
        assert_eq!(config.text(), Err(ConfigError::Unwritable(word.to_owned())));
    }
}

#[test]
fn range_of_another_network_is_refused() {
    let elsewhere = Mode::Full("10.0.0.1,10.0.0.9".parse().unwrap());
    let refused = config(files(true, true, true), elsewhere).text().unwrap_err();
    insta::assert_snapshot!(refused, @"the range 10.0.0.1,10.0.0.9 is not in the network of eth1 (192.168.42.1, mask 255.255.255.0)");
}

#[test]
fn ranges_are_two_addresses_in_order() {
    assert!(matches!("10.0.0.1".parse::<DhcpRange>(), Err(RangeError::Shape)));
    assert!(matches!("10.0.0.1,x".parse::<DhcpRange>(), Err(RangeError::Address { .. })));
    assert!(matches!("10.0.0.9,10.0.0.1".parse::<DhcpRange>(), Err(RangeError::Backwards)));
    assert_eq!("10.0.0.1, 10.0.0.9".parse::<DhcpRange>().unwrap().to_string(), "10.0.0.1,10.0.0.9");
}
