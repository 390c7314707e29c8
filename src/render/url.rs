//! The addresses that scripts carry.
//!
//! The invariant: every URL made here holds only characters that iPXE, a kernel command line, KIWI's unquoted `eval` and a
//! shell word pass on unchanged.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::domain::BootId;

/// Scheme, host and port under which machines reach this server; no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl(String);

/// The text is no base URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no base URL: write http://HOST or http://HOST:PORT, without a path")]
pub struct BadBaseUrl {
    /// The text as given.
    pub given: String,
}

impl BaseUrl {
    /// `http://` and the address that a request arrived on.
    pub fn of_address(address: SocketAddr) -> BaseUrl {
        // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d, which firmware without IPv6 could not reach.
        BaseUrl(format!("http://{}", SocketAddr::new(address.ip().to_canonical(), address.port())))
    }

    /// `<base>/b/<bootid>/`: below it are the files of one boot.
    pub fn files(&self, bootid: &BootId) -> String {
        format!("{self}/b/{}/", bootid.expose())
    }

    /// Where the installed system fetches its script.
    pub fn post_install(&self, bootid: &BootId) -> String {
        self.call("post-install", bootid)
    }

    /// Where it reports that the step is done.
    pub fn finish(&self, bootid: &BootId) -> String {
        self.call("finish", bootid)
    }

    /// Where it reports that the step failed; `&reason=…` may be added.
    pub fn fail(&self, bootid: &BootId) -> String {
        self.call("fail", bootid)
    }

    /// Where an inventory image posts what it found.
    pub fn update(&self, bootid: &BootId) -> String {
        self.call("update", bootid)
    }

    /// Where a booted image asks for its current state.
    pub fn state(&self, bootid: &BootId) -> String {
        self.call("state", bootid)
    }

    fn call(&self, what: &str, bootid: &BootId) -> String {
        format!("{self}/{what}?id={}&bootid={}", bootid.host(), bootid.expose())
    }
}

impl FromStr for BaseUrl {
    type Err = BadBaseUrl;

    fn from_str(given: &str) -> Result<BaseUrl, BadBaseUrl> {
        let bad = || BadBaseUrl { given: given.to_owned() };
        let trimmed = given.strip_suffix('/').unwrap_or(given);
        let (scheme, authority) = trimmed.split_once("://").ok_or_else(bad)?;
        if !matches!(scheme, "http" | "https") {
            return Err(bad());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or_else(bad)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                ("", after)
            }
            None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
        };
        let host_is_good = authority.starts_with('[')
            || (!host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')));
        let port_is_good = match port.strip_prefix(':') {
            Some(digits) => digits.parse::<u16>().is_ok_and(|port| port != 0) && !digits.starts_with('+'),
            None => port.is_empty(),
        };
        if host_is_good && port_is_good { Ok(BaseUrl(trimmed.to_owned())) } else { Err(bad()) }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for BaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Whether a text may stand in a script as a URL or the beginning of one.
pub(crate) fn is_plain_url(text: &str) -> bool {
    (text.starts_with("http://") || text.starts_with("https://"))
        && text.len() <= 2000
        && text.chars().all(|c| {
            c.is_ascii_alphanumeric()
                || matches!(c, '.' | '_' | '/' | ':' | '-' | '?' | '&' | '=' | '%' | '@' | ',' | '+' | '~' | '[' | ']')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_a_scheme_a_host_and_a_port() {
        for good in ["http://10.0.0.1:5000", "http://deploy.example.org", "https://[2001:db8::1]:5000", "http://[::1]"]
        {
            assert_eq!(good.parse::<BaseUrl>().unwrap().to_string(), good);
        }
        assert_eq!("http://deploy/".parse::<BaseUrl>().unwrap().to_string(), "http://deploy");
        for bad in [
            "",
            "deploy",
            "ftp://deploy",
            "http://",
            "http://a b",
            "http://a:0",
            "http://a:99999",
            "http://a:+1",
            "http://a/b",
            "http://a?x",
            "http://${x}",
            "http://[x]",
            "http://[::1]x",
            "http://a\n",
        ] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_address_of_a_dual_stack_socket_is_written_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:5000".parse().unwrap();
        assert_eq!(BaseUrl::of_address(mapped).to_string(), "http://192.0.2.7:5000");
        let six: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
        assert_eq!(BaseUrl::of_address(six).to_string(), "http://[2001:db8::1]:5000");
    }

    #[test]
    fn urls_of_a_boot_are_plain() {
        let base: BaseUrl = "http://10.0.0.1:5000".parse().unwrap();
        let bootid = BootId::new(crate::domain::HostId::new(7), [0xab; 16]);
        let secret = "ab".repeat(16);
        assert_eq!(base.files(&bootid), format!("http://10.0.0.1:5000/b/7-{secret}/"));
        assert_eq!(base.finish(&bootid), format!("http://10.0.0.1:5000/finish?id=7&bootid=7-{secret}"));
        assert!(is_plain_url(&base.fail(&bootid)));
        assert!(!is_plain_url("http://x/${y}") && !is_plain_url("http://x/ y") && !is_plain_url("x"));
    }
}
