//! What a host lacks of what NetBox says about its device: pure, so that the same comparison is applied, tried and shown.

use kiwispray_sdk::{Error, KnownHost, Patch};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::device::Device;

/// Where everything from NetBox stands in a host's metadata.
const PLACE: &str = "netbox";
/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 160;

/// One difference, as an operator reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// `hostname`, or a metadata path.
    pub(crate) what: String,
    /// As it is; empty: not there.
    pub(crate) from: String,
    /// As NetBox has it; empty: not there.
    pub(crate) to: String,
}

/// The way from a host to what NetBox says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Diff {
    /// The change to apply.
    pub(crate) patch: Patch,
    /// The same for people.
    pub(crate) differences: Vec<Difference>,
    /// What NetBox says and a host cannot have.
    pub(crate) problems: Vec<String>,
}

/// Compares a host with its device.
pub(crate) fn diff(host: &KnownHost, device: &Device, config: &Config) -> Result<Diff, Error> {
    let metadata = host.metadata()?;
    let wanted = Value::Object(device.metadata(config.request_field.as_deref()));
    let mut diff = Diff::default();
    diff.hostname(host, &wanted, config);
    diff.facts(metadata.get(PLACE), &wanted);
    for (to, from) in &config.map {
        diff.value(to, at(&metadata, to), at(&wanted, from));
    }
    Ok(diff)
}

impl Diff {
    fn hostname(&mut self, host: &KnownHost, wanted: &Value, config: &Config) {
        let names = config.hostname.iter().filter_map(|path| at(wanted, path)?.as_str());
        // A device without a name is no reason to take a host's name away.
        let Some(name) = names.map(str::trim).find(|name| !name.is_empty()) else { return };
        let name = name.to_ascii_lowercase();
        if !is_hostname(&name) {
            self.problems.push(format!("`{}` is no hostname: the name stays as it is", shorten(&name)));
            return;
        }
        let ours = host.hostname.as_deref().unwrap_or_default();
        if ours != name {
            self.differences.push(Difference { what: "hostname".into(), from: ours.to_owned(), to: name.clone() });
            self.patch = std::mem::take(&mut self.patch).hostname(name);
        }
    }

    /// What stands under `netbox` belongs to this plugin alone: what NetBox no longer says goes.
    fn facts(&mut self, ours: Option<&Value>, wanted: &Value) {
        let none = Map::new();
        let ours = ours.and_then(Value::as_object).unwrap_or(&none);
        let wanted = wanted.as_object().unwrap_or(&none);
        for (key, value) in wanted {
            self.value(&format!("{PLACE}.{}", escape(key)), ours.get(key), Some(value));
        }
        for (key, value) in ours.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
            self.value(&format!("{PLACE}.{}", escape(key)), Some(value), None);
        }
    }

    fn value(&mut self, path: &str, ours: Option<&Value>, wanted: Option<&Value>) {
        if ours == wanted {
            return;
        }
        let patch = std::mem::take(&mut self.patch);
        self.patch = match wanted {
            Some(wanted) => patch.set(path, wanted.clone()),
            None => patch.unset(path),
        };
        let show = |value: Option<&Value>| value.map(|value| shorten(&value.to_string())).unwrap_or_default();
        self.differences.push(Difference { what: path.to_owned(), from: show(ours), to: show(wanted) });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }
}

/// A key, as one of a dotted path.
fn escape(key: &str) -> String {
    key.replace('\\', "\\\\").replace('.', "\\.")
}

/// What stands at a dotted path; null counts as nothing.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |inner, key| inner.get(key)).filter(|value| !value.is_null())
}

/// As the server reads hostnames; asked before it is, so that one odd name does not keep the rest of a change away.
fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && !name.bytes().all(|byte| byte.is_ascii_digit()) && name.split('.').all(is_label)
}

fn shorten(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::{Core, host};
    use kiwispray_sdk::{Edit, ask};
    use serde_json::json;

    use super::*;
    use crate::config::sample;
    use crate::device::tests::answer;

    fn device() -> Device {
        Device::read(&answer()).unwrap()
    }

    /// The host after the change, by the rules of the server's double.
    fn applied(host: &KnownHost, patch: Patch) -> KnownHost {
        Core::new().host(host.clone()).run(|| ask::hosts::apply(host, patch)).unwrap()
    }

    #[test]
    fn what_was_applied_leaves_nothing_to_apply() {
        let mut config = sample();
        config.map.insert("site".into(), "site".into());
        config.map.insert("disk.root".into(), "custom_fields.disks.root".into());
        let host = host("new");
        let first = diff(&host, &device(), &config).unwrap();
        assert_eq!(first.patch.hostname, Edit::Set("node-a1".into()));
        let host = applied(&host, first.patch);
        let metadata = host.metadata().unwrap();
        assert_eq!((&metadata["site"], &metadata["disk"]["root"]), (&json!("fra1"), &json!("sda")));
        assert_eq!(metadata["netbox"]["config_context"], json!({"ntp": ["10.0.0.1"]}));
        assert_eq!(metadata["netbox"]["custom_fields"].get("kiwispray_request"), None);
        let second = diff(&host, &device(), &config).unwrap();
        assert_eq!(second, Diff::default());
    }

    #[test]
    fn what_netbox_no_longer_says_goes_and_what_is_others_stays() {
        let mut machine = host("new");
        machine.hostname = Some("node-a1".into());
        let mut netbox = device().metadata(None);
        netbox.insert("old.key".into(), json!("x"));
        machine.metadata = json!({"netbox": netbox, "mine": 1, "site": "typed"}).to_string();
        let mut config = sample();
        config.request_field = None;
        let found = diff(&machine, &device(), &config).unwrap();
        assert_eq!(found.patch.unset, [r"netbox.old\.key"]);
        assert_eq!(found.differences.len(), 1);
        // A mapped path belongs to NetBox too: without a value there it has none here.
        config.map.insert("site".into(), "tenant".into());
        assert!(diff(&machine, &device(), &config).unwrap().patch.unset.contains(&"site".to_owned()));
    }

    #[test]
    fn a_name_that_is_no_hostname_is_told_and_the_rest_applied() {
        let mut odd = answer();
        for name in ["Server 12 (old)", "a_b", "12", "-x", "x..y"] {
            odd["name"] = json!(name);
            let found = diff(&host("new"), &Device::read(&odd).unwrap(), &sample()).unwrap();
            assert_eq!((found.problems.len(), &found.patch.hostname), (1, &Edit::Keep), "{name}");
            assert!(!found.patch.set.is_empty());
        }
    }

    #[test]
    fn the_first_name_that_there_is_counts_and_none_takes_no_name_away() {
        let mut config = sample();
        config.hostname = vec!["custom_fields.hostname".into(), "name".into()];
        let mut named = answer();
        named["custom_fields"]["hostname"] = json!(" Web1.Example.ORG ");
        let found = diff(&host("new"), &Device::read(&named).unwrap(), &config).unwrap();
        assert_eq!(found.patch.hostname, Edit::Set("web1.example.org".into()));
        let mut machine = host("new");
        machine.hostname = Some("kept".into());
        named["custom_fields"] = json!({});
        named["name"] = json!(null);
        let found = diff(&machine, &Device::read(&named).unwrap(), &config).unwrap();
        assert_eq!(found.patch.hostname, Edit::Keep);
    }

    #[test]
    fn long_values_are_shown_short_and_set_whole() {
        let mut long = answer();
        long["config_context"] = json!({"text": "ä".repeat(5000)});
        let found = diff(&host("new"), &Device::read(&long).unwrap(), &sample()).unwrap();
        let shown = found.differences.iter().find(|one| one.what == "netbox.config_context").unwrap();
        assert!(shown.to.ends_with('…') && shown.to.chars().count() == SHOWN_CHARS + 1);
        assert!(found.patch.set.iter().any(|(_, value)| value.len() > 10_000));
    }
}
