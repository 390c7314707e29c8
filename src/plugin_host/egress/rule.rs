//! What a plugin may reach over http: rules of the configuration, parsed once.
//!
//! Invariant: a request is compared with a rule by parts that were parsed the same way, never as texts. What could mean
//! something else to somebody else (user names, queries, dots, wildcards) does not become a rule.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use reqwest::Method;
use reqwest::header::HeaderName;
use serde::Deserialize;
use url::{Host, Url};

use super::headers;
use crate::plugin_host::secret::SecretText;

/// Of answers, if the rule says nothing else.
const RESPONSE_DEFAULT_BYTES: u64 = 1 << 20;
/// A guest has 32 MiB of memory for everything.
const RESPONSE_MOST_BYTES: u64 = 8 << 20;

/// A table `[[plugin.grant.http]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    /// Scheme, host, port and path prefix.
    pub url: String,
    /// Upper case.
    pub methods: Vec<String>,
    /// Added by the core to every request; the guest neither sees nor sets them.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretText>,
    /// Certificates that the server's is checked with, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The longest answer, in bytes: 1 MiB if absent.
    #[serde(default)]
    pub max_response_bytes: Option<u64>,
}

/// What may be requested.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawRule")]
pub struct Rule {
    scheme: Scheme,
    host: Host,
    port: u16,
    /// Begins with `/`.
    prefix: String,
    methods: Vec<Method>,
    pub(super) headers: Vec<(HeaderName, SecretText)>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) response_max_bytes: u64,
}

/// The schemes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Why a rule is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum RuleError {
    #[error("`{0}` is no URL: {1}")]
    NoUrl(String, String),
    #[error("a rule is for http or https, not for `{0}`")]
    Scheme(String),
    #[error("a rule's URL has no user name and no password: name a header instead")]
    UserInfo,
    #[error("a rule's URL has no query and no fragment: it covers all below its path")]
    Query,
    #[error("a rule's URL names one host and one path: no `*`, no `.` and `..` segments, no backslash, no blank")]
    Ambiguous,
    #[error("`{0}` is an address that means nobody or everybody")]
    Address(IpAddr),
    #[error("a rule without methods allows nothing")]
    NoMethods,
    #[error("`{0}` is no method that can be granted: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")]
    Method(String),
    #[error("`{0}` is no header that can be added")]
    Header(String),
    #[error("`ca_file` is for https, and an absolute path")]
    CaFile,
    #[error("`max_response_bytes` is at most {RESPONSE_MOST_BYTES}")]
    TooMuch,
}

impl TryFrom<RawRule> for Rule {
    type Error = RuleError;

    fn try_from(raw: RawRule) -> Result<Self, RuleError> {
        let url = Url::parse(&raw.url).map_err(|error| RuleError::NoUrl(raw.url.clone(), error.to_string()))?;
        let scheme = Scheme::of(&url).ok_or_else(|| RuleError::Scheme(url.scheme().to_owned()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RuleError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RuleError::Query);
        }
        // Parsing has resolved dots and turned backslashes: what is no longer as it was written was ambiguous.
        let odd = |c: char| c == '*' || c == '\\' || c.is_whitespace() || c.is_control();
        let written_path = raw.url.splitn(4, '/').nth(3).unwrap_or_default();
        let dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        if raw.url.contains(odd) || written_path.split('/').any(dots) || climbs(url.path()) {
            return Err(RuleError::Ambiguous);
        }
        let host = host(&url).ok_or(RuleError::Ambiguous)?;
        if let Some(ip) = literal(&host).filter(|ip| super::address::is_nobodys(*ip)) {
            return Err(RuleError::Address(ip));
        }
        if raw.methods.is_empty() {
            return Err(RuleError::NoMethods);
        }
        let header = |(name, value): (String, SecretText)| match headers::addable(&name) {
            Some(parsed) => Ok((parsed, value)),
            None => Err(RuleError::Header(name)),
        };
        if raw.ca_file.as_ref().is_some_and(|path| scheme == Scheme::Http || !path.is_absolute()) {
            return Err(RuleError::CaFile);
        }
        let response_max_bytes = raw.max_response_bytes.unwrap_or(RESPONSE_DEFAULT_BYTES);
        if response_max_bytes > RESPONSE_MOST_BYTES {
            return Err(RuleError::TooMuch);
        }
        Ok(Self {
            scheme,
            host,
            port: url.port_or_known_default().ok_or(RuleError::Ambiguous)?,
            prefix: url.path().to_owned(),
            methods: raw
                .methods
                .into_iter()
                .map(|name| method(&name).ok_or(RuleError::Method(name)))
                .collect::<Result<_, _>>()?,
            headers: raw.headers.into_iter().map(header).collect::<Result<_, _>>()?,
            ca_file: raw.ca_file,
            response_max_bytes,
        })
    }
}

impl Rule {
    /// Whether it allows this request. The URL must have gone through [`requested`].
    pub(super) fn covers(&self, method: &Method, url: &Url) -> bool {
        let path = url.path();
        let below = path.strip_prefix(self.prefix.as_str());
        // The prefix ends where a segment ends: `/api` is not `/apiary`.
        let in_path = below.is_some_and(|rest| self.prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'));
        Scheme::of(url) == Some(self.scheme)
            && host(url).as_ref() == Some(&self.host)
            && url.port_or_known_default() == Some(self.port)
            && in_path
            && self.methods.contains(method)
    }

    /// Whether it is for http without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.scheme == Scheme::Http
    }

    /// Whether it is for `localhost` by name.
    pub(super) fn is_localhost(&self) -> bool {
        matches!(&self.host, Host::Domain(name) if name == "localhost")
    }
}

impl Scheme {
    fn of(url: &Url) -> Option<Self> {
        match url.scheme() {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }
}

/// The methods that plugins can have.
pub(super) fn method(name: &str) -> Option<Method> {
    let all = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    all.into_iter().find(|method| method.as_str() == name)
}

/// Parses the URL of a request. A sentence says what is wrong with it.
pub(super) fn requested(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "this is no URL")?;
    if Scheme::of(&url).is_none() {
        return Err("only http and https can be requested");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a user name or password is not sent");
    }
    if climbs(url.path()) {
        return Err("a path with hidden `..` is not sent");
    }
    Ok(url)
}

/// Whether some server might find `..` in this path when it decodes it (twice), or takes `\` for `/`.
fn climbs(path: &str) -> bool {
    let once = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let twice = percent_decode_str(&once).decode_utf8_lossy().into_owned();
    [once, twice].iter().any(|path| {
        path.split(['/', '\\']).any(|segment| matches!(segment.split(';').next(), Some(".."))) || path.contains('\0')
    })
}

/// A name in its one form: lower case (the parser did that), without the last dot.
fn host(url: &Url) -> Option<Host> {
    match url.host()? {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            (!name.is_empty()).then(|| Host::Domain(name.to_owned()))
        }
        Host::Ipv4(ip) => Some(Host::Ipv4(ip)),
        Host::Ipv6(ip) => Some(Host::Ipv6(ip)),
    }
}

fn literal(host: &Host) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some((*ip).into()),
        Host::Ipv6(ip) => Some((*ip).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(table: &str) -> Result<Rule, String> {
        toml::from_str(table).map_err(|error| error.message().to_owned())
    }

    fn rule(url: &str) -> Rule {
        parse(&format!("url = \"{url}\"\nmethods = [\"GET\"]")).unwrap()
    }

    fn covers(rule: &Rule, url: &str) -> bool {
        requested(url).is_ok_and(|url| rule.covers(&Method::GET, &url))
    }

    #[test]
    fn a_table_of_the_configuration_becomes_a_rule() {
        let rule = parse(
            r#"url = "https://netbox.example.org/api/"
               methods = ["GET", "PATCH", "POST"]
               headers = { Authorization = "Bearer ${file:/etc/kiwispray/netbox.token}" }
               ca_file = "/etc/kiwispray/ca.pem""#,
        )
        .unwrap();
        assert_eq!((rule.port, rule.prefix.as_str(), rule.methods.len()), (443, "/api/", 3));
        assert_eq!(rule.headers[0].0, "authorization");
    }

    #[test]
    fn what_means_several_things_becomes_no_rule() {
        let bad = [
            ("ftp://a/", "http or https"),
            ("https://user:pw@a/", "user name"),
            ("https://a/?q=1", "query"),
            ("https://a/#x", "fragment"),
            ("https://*.example.org/", "one host"),
            ("https://a/api/*", "one host"),
            ("https://a/api/../admin/", "one host"),
            ("https://a/api/%2e%2e/admin/", "one host"),
            ("https://a/api%2f..%2fadmin/", "one host"),
            ("https://a/./api/", "one host"),
            ("https://a/api /", "one host"),
            ("https:///api/", "one host"),
            ("https://", "no URL"),
            ("http://0.0.0.0/", "nobody or everybody"),
            ("http://[ff02::1]/", "nobody or everybody"),
            ("http://255.255.255.255/", "nobody or everybody"),
        ];
        for (url, why) in bad {
            let Err(error) = parse(&format!("url = '{url}'\nmethods = ['GET']")) else {
                // An empty host takes the next part for it; then that is the host.
                assert_eq!(url, "https:///api/");
                continue;
            };
            assert!(error.contains(why), "{url}: {error}");
        }
        assert!(parse("url = 'https://a/'\nmethods = []").unwrap_err().contains("allows nothing"));
        assert!(parse("url = 'https://a/'\nmethods = ['TRACE']").unwrap_err().contains("no method"));
        for header in ["Host", "Content-Length", "Transfer-Encoding", "Connection", "bad name", ""] {
            let table = format!("url = 'https://a/'\nmethods = ['GET']\nheaders = {{ \"{header}\" = 'x' }}");
            assert!(parse(&table).unwrap_err().contains("no header"), "{header}");
        }
        assert!(parse("url = 'http://a/'\nmethods = ['GET']\nca_file = '/a.pem'").unwrap_err().contains("for https"));
    }

    #[test]
    fn a_rule_covers_its_host_port_and_path_up_to_a_segments_end() {
        let slash = rule("https://a.example/api/");
        for url in ["https://a.example/api/", "https://A.example.:443/api/dcim?x=1", "https://a.example/api/../api/x"] {
            assert!(covers(&slash, url), "{url}");
        }
        let others = [
            "http://a.example/api/",
            "https://a.example:8443/api/",
            "https://a.example/api",
            "https://a.example/apiary/",
            "https://b.example/api/",
            "https://a.example.b.example/api/",
            "https://a.example@b.example/api/",
            "https://user@a.example/api/",
            "https://a.example/api/../admin",
            "https://a.example/api/%2e%2e/admin",
            "https://a.example/api/..%2fadmin",
            "https://a.example/api/..%5cadmin",
            "https://a.example/api/%252e%252e/admin",
            "https://a.example/api/..;/admin",
            "https://a.example\\@b.example/api/",
        ];
        for url in others {
            assert!(!covers(&slash, url), "{url}");
        }
        let bare = rule("http://10.0.0.7:8000/api");
        assert!(covers(&bare, "http://10.0.0.7:8000/api") && covers(&bare, "http://10.0.0.7:8000/api/x"));
        assert!(!covers(&bare, "http://10.0.0.7:8000/apiary") && !covers(&bare, "http://10.0.0.70:8000/api"));
        assert!(covers(&rule("http://127.0.0.1/"), "http://0x7f.1/"), "one parser reads both");
    }
}
