//! What is different between the configuration that a server runs with and the one that is written now.
//!
//! The invariant: every setting either changes while the server runs or is reported as waiting for a restart; none is
//! forgotten, as a test holds the list against the keys that files may have.

use super::{Config, DnsmasqConfig};
use crate::dnsmasq::Wish;

/// A setting that is written differently now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As in a file: `boot.attempts`.
    pub key: &'static str,
    /// What it was.
    pub from: String,
    /// What it is to be.
    pub to: String,
    /// Whether a running server takes it over.
    pub live: bool,
}

/// A key, whether a running server takes it over, and its value as a person would write it.
type Setting = (&'static str, bool, fn(&Config) -> String);

const SETTINGS: &[Setting] = &[
    ("data_dir", false, |config| config.data_dir.display().to_string()),
    ("images_dir", false, |config| config.images_dir.display().to_string()),
    ("templates_dir", false, |config| config.templates_dir.display().to_string()),
    ("plugins_dir", false, |config| config.plugins_dir.display().to_string()),
    ("ipxe_dir", false, |config| stated(config.ipxe_dir.as_ref().map(|dir| dir.display()))),
    ("listen", false, |config| config.listen.to_string()),
    // dnsmasq was told of it.
    ("public_url", false, |config| stated(config.public_url.as_ref())),
    // The default plugin is told of it, and plugins are read again.
    ("discover", true, |config| config.discover.to_string()),
    ("boot.open_state", true, |config| config.boot.open_state.to_string()),
    ("boot.open_hosts", true, |config| config.boot.open_hosts.to_string()),
    ("boot.attempts", true, |config| config.boot.attempts.to_string()),
    ("boot.again_s_min", true, |config| config.boot.again_s_min.to_string()),
    ("boot.again_s_max", true, |config| config.boot.again_s_max.to_string()),
    ("boot.header_timeout_s", false, |config| config.boot.header_timeout.as_secs().to_string()),
    ("boot.idle_timeout_s", false, |config| config.boot.idle_timeout.as_secs().to_string()),
    ("boot.local", true, |config| format!("{:?}", config.boot.local).to_lowercase()),
    ("boot.drain_s", false, |config| config.boot.drain.as_secs().to_string()),
    ("identity.ignore", true, |config| config.identity_ignore.join(", ")),
    ("limits.new_hosts_per_minute", true, |config| config.limits.new_hosts_per_minute.unwrap_or(0).to_string()),
    ("limits.reinstalls_per_hour", true, |config| config.limits.reinstalls_per_hour.to_string()),
    ("store.cache_mb", false, |config| config.store.cache_mb.to_string()),
    ("store.free_space_floor_mb", false, |config| config.store.free_space_floor_mb.to_string()),
    ("admin.group", false, |config| stated(config.admin_group.as_ref())),
    ("dnsmasq.interface", false, |config| stated(config.dnsmasq.as_ref().map(|dnsmasq| &dnsmasq.interface))),
    ("dnsmasq.range", false, |config| stated(config.dnsmasq.as_ref().and_then(range))),
    ("dnsmasq.proxy", false, |config| config.dnsmasq.as_ref().is_some_and(|it| it.wish == Wish::Proxy).to_string()),
];

impl Config {
    /// Every setting that another configuration has a different value for; plugins are compared by those who load them.
    #[must_use]
    pub fn changes_to(&self, other: &Config) -> Vec<Change> {
        let change = |(key, live, value): &Setting| {
            let (from, to) = (value(self), value(other));
            (from != to).then_some(Change { key, from, to, live: *live })
        };
        SETTINGS.iter().filter_map(change).collect()
    }

    /// What a running server has after it took over from another configuration what it can.
    #[must_use]
    pub fn taking_over(self, other: &Config) -> Config {
        let boot = super::BootConfig {
            header_timeout: self.boot.header_timeout,
            idle_timeout: self.boot.idle_timeout,
            drain: self.boot.drain,
            ..other.boot.clone()
        };
        Config {
            files: other.files.clone(),
            discover: other.discover,
            boot,
            identity_ignore: other.identity_ignore.clone(),
            limits: other.limits.clone(),
            plugins: other.plugins.clone(),
            ..self
        }
    }
}

fn stated(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "not set".to_owned(), |value| value.to_string())
}

fn range(dnsmasq: &DnsmasqConfig) -> Option<String> {
    match &dnsmasq.wish {
        Wish::Range(range) => Some(range.to_string()),
        Wish::Proxy | Wish::Unstated => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::file::KEYS;
    use super::super::{ServeArgs, Surroundings};
    use super::*;

    fn config(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kiwispray.toml"), text).unwrap();
        let around = Surroundings {
            working_dir: dir.path().to_owned(),
            etc_dir: "/nosuch/etc".into(),
            var_dir: "/nosuch/var".into(),
        };
        Config::load(&ServeArgs::default(), &around).unwrap()
    }

    const OTHER: &str = r#"
        data_dir = "/a"
        images_dir = "/b"
        templates_dir = "/c"
        plugins_dir = "/d"
        ipxe_dir = "/e"
        listen = "127.0.0.1:5009"
        public_url = "http://a:1"
        discover = true
        [boot]
        open_state = true
        open_hosts = true
        attempts = 9
        again_s_min = 5
        again_s_max = 50
        header_timeout_s = 11
        idle_timeout_s = 61
        local = "sanboot"
        drain_s = 99
        [identity]
        ignore = ["x"]
        [limits]
        new_hosts_per_minute = 7
        reinstalls_per_hour = 7
        [store]
        cache_mb = 9
        free_space_floor_mb = 9
        [admin]
        group = "ops"
        [dnsmasq]
        interface = "eth9"
    "#;

    #[test]
    fn every_key_of_the_files_is_compared() {
        let sections = ["boot", "identity", "limits", "store", "admin", "dnsmasq", "plugin"];
        let keys: BTreeSet<&str> = KEYS.iter().copied().filter(|key| !sections.contains(key)).collect();
        assert_eq!(SETTINGS.iter().map(|(key, ..)| *key).collect::<BTreeSet<_>>(), keys);
        let found: BTreeSet<&str> = config("").changes_to(&config(OTHER)).iter().map(|change| change.key).collect();
        let missing: Vec<&&str> = keys.difference(&found).collect();
        // The mode of dnsmasq is one of the two.
        assert_eq!(missing, [&"dnsmasq.proxy", &"dnsmasq.range"]);
        let proxy = config(&format!("{OTHER}\nproxy = true\n"));
        let keys: Vec<&str> = config(OTHER).changes_to(&proxy).iter().map(|change| change.key).collect();
        assert_eq!(keys, ["dnsmasq.proxy"]);
    }

    #[test]
    fn what_a_server_took_over_is_no_difference_any_more_and_the_rest_is() {
        let (old, new) = (config(""), config(OTHER));
        let changes = old.changes_to(&new);
        let waiting: Vec<&str> = changes.iter().filter(|change| !change.live).map(|change| change.key).collect();
        let after = old.taking_over(&new).changes_to(&new);
        assert_eq!(after.iter().map(|change| change.key).collect::<Vec<_>>(), waiting);
        assert!(changes.iter().any(|change| change.live), "{changes:?}");
    }
}
