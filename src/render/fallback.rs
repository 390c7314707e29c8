//! Scripts for when a template cannot be used: pure Rust, no file, no template engine, no way to fail.
//!
//! The invariant: whatever is broken, a machine gets a whole script (promise P2), and a finished host gets its disk (P3).

use super::escape;
use super::helpers::IDENTIFY;
use super::url::BaseUrl;

/// A script that says why the machine waits and asks again after `retry_s` seconds, for as long as it takes.
pub fn last_resort_hold(base: &BaseUrl, reason: &str, retry_s: u32) -> String {
    let reason = escape::ipxe(reason);
    format!(
        "#!ipxe\n\
         echo\n\
         echo This machine is held\n\
         echo Why: {reason}\n\
         prompt --key 0x6c --timeout {retry_s}000 Press l to boot the local disk, asking again in {retry_s} s && exit 1 ||\n\
         :again\n\
         chain --replace --autofree --timeout 10000 {base}/bootstrap?{IDENTIFY} ||\n\
         echo No answer from kiwispray yet, trying again\n\
         sleep 5\n\
         goto again\n"
    )
}

/// A script that leaves iPXE for the local disk.
pub fn last_resort_local(reason: &str) -> String {
    let reason = escape::ipxe(reason);
    format!("#!ipxe\necho Booting the local disk: {reason}\nexit 1\n")
}

/// A first script that only asks what to do, on the card that has an address.
pub(crate) fn last_resort_bootstrap(base: &BaseUrl) -> String {
    format!(
        "#!ipxe\n\
         set lost:int32 0\n\
         :again\n\
         isset ${{ip}} || dhcp ||\n\
         chain --replace --autofree --timeout 10000 {base}/bootstrap?{IDENTIFY} ||\n\
         inc lost ||\n\
         iseq ${{lost}} 40 && exit 1 ||\n\
         sleep 5\n\
         goto again\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_resort_scripts_are_whole_scripts_without_any_file() {
        let base: BaseUrl = "http://10.0.0.1:5000".parse().unwrap();
        let hostile = "template broke\nreboot ${x} $(y) ;";
        let all = [last_resort_hold(&base, hostile, 10), last_resort_local(hostile), last_resort_bootstrap(&base)];
        assert!(all.iter().all(|script| script.starts_with("#!ipxe\n") && script.ends_with('\n')));
        insta::assert_snapshot!(all.join("----\n"));
    }
}
