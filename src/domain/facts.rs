//! What one request to `/bootstrap` reports of a machine.

use serde::{Deserialize, Serialize};

use super::MacAddr;
use super::identity::{Identity, IdentityDefect, Ignore};

/// The parameters of one boot, sorted into evidence, description and what was of no use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What recognises the machine.
    pub identity: Identity,
    /// The card that got an address.
    pub dhcp_mac: Option<MacAddr>,
    /// What describes it.
    pub hardware: Hardware,
    /// What was disregarded, and why: `host explain` shows it.
    pub ignored: Vec<IgnoredParameter>,
}

/// Descriptions by the firmware; shown and given to plugins, never trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// DMI manufacturer.
    pub manufacturer: Option<String>,
    /// DMI product name.
    pub product: Option<String>,
    /// DMI asset tag.
    pub asset: Option<String>,
    /// iPXE's own build: `i386`, `x86_64`, `arm64`.
    pub buildarch: Option<String>,
    /// `pcbios` or `efi`.
    pub platform: Option<String>,
    /// The name that DHCP gave.
    pub hostname: Option<String>,
}

/// A parameter that was disregarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredParameter {
    /// Its name, or the beginning of it.
    pub name: String,
    /// Why, in a few words.
    pub reason: String,
}

/// A parameter as it arrived: its name, and its text unless that was no UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The decoded name.
    pub name: String,
    /// The decoded value; none when the bytes are no UTF-8.
    pub value: Option<String>,
}

impl Facts {
    const LONGEST_TEXT: usize = 256;
    const MOST_IGNORED: usize = 32;

    /// Sorts the parameters of a request. Nothing is an error: what cannot be used is noted and passed over, because a
    /// machine cannot correct its request.
    pub fn from_parameters(parameters: impl IntoIterator<Item = Parameter>, ignore: &Ignore) -> Self {
        let mut facts = Self::default();
        let mut seen = Vec::new();
        for parameter in parameters {
            if seen.contains(&parameter.name) {
                facts.disregard(&parameter.name, "given twice; the first counts");
                continue;
            }
            match parameter.value.as_deref().map(|value| facts.take(&parameter.name, value, ignore)) {
                // An absent card or tag is reported as an empty value: nothing to explain.
                Some(Ok(()) | Err(IdentityDefect::Empty)) => {}
                Some(Err(why)) => facts.disregard(&parameter.name, &why.to_string()),
                None => facts.disregard(&parameter.name, "no UTF-8"),
            }
            seen.push(parameter.name);
            if seen.len() > Self::MOST_IGNORED {
                break;
            }
        }
        facts
    }

    /// The description as names and values, for plugins and explanations.
    pub fn described(&self) -> Vec<(&'static str, &str)> {
        let hardware = &self.hardware;
        [
            ("manufacturer", &hardware.manufacturer),
            ("product", &hardware.product),
            ("asset", &hardware.asset),
            ("buildarch", &hardware.buildarch),
            ("platform", &hardware.platform),
            ("hostname", &hardware.hostname),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect()
    }

    fn take(&mut self, name: &str, value: &str, ignore: &Ignore) -> Result<(), IdentityDefect> {
        match name {
            "serial" => self.identity.serial = Some(ignore.serial(value)?),
            "uuid" => self.identity.uuid = Some(ignore.uuid(value)?),
            "dhcp_mac" => {
                let mac = ignore.mac(value)?;
                self.dhcp_mac = Some(mac);
                self.identity.macs.insert(mac);
            }
            "manufacturer" => self.hardware.manufacturer = Some(text(value)?),
            "product" => self.hardware.product = Some(text(value)?),
            "asset" => self.hardware.asset = Some(text(value)?),
            "buildarch" => self.hardware.buildarch = Some(text(value)?),
            "platform" => self.hardware.platform = Some(text(value)?),
            "hostname" => self.hardware.hostname = Some(text(value)?),
            "net0" | "net1" | "net2" | "net3" | "net4" | "net5" | "net6" | "net7" => {
                self.identity.macs.insert(ignore.mac(value)?);
            }
            // Later boot scripts may report more; an older server passes it over.
            _ => {}
        }
        Ok(())
    }

    fn disregard(&mut self, name: &str, reason: &str) {
        if self.ignored.len() < Self::MOST_IGNORED {
            let name = name.chars().filter(|c| !c.is_control()).take(40).collect();
            self.ignored.push(IgnoredParameter { name, reason: reason.to_owned() });
        }
    }
}

fn text(value: &str) -> Result<String, IdentityDefect> {
    let value = value.trim();
    if value.is_empty() {
        return Err(IdentityDefect::Empty);
    }
    if value.len() > Facts::LONGEST_TEXT || value.chars().any(char::is_control) {
        return Err(IdentityDefect::NotText);
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, value: &str) -> Parameter {
        Parameter { name: name.to_owned(), value: Some(value.to_owned()) }
    }

    #[test]
    fn good_parameters_are_taken_and_bad_ones_named() {
        let facts = Facts::from_parameters(
            [
                parameter("net0", "52-54-00-00-00-01"),
                parameter("net1", ""),
                parameter("net2", "rubbish"),
                parameter("serial", "Default string"),
                parameter("product", "R640\n#!ipxe"),
                Parameter { name: "asset".to_owned(), value: None },
                parameter("net0", "52-54-00-00-00-09"),
                parameter("platform", "efi"),
            ],
            &Ignore::default(),
        );
        assert_eq!(facts.identity.macs.len(), 1);
        assert_eq!(facts.identity.serial, None);
        assert_eq!(facts.described(), [("platform", "efi")]);
        let named: Vec<_> = facts.ignored.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(named, ["net2", "serial", "product", "asset", "net0"]);
    }
}
