//! A device as NetBox tells it, read without trust: whatever is missing, null or of another type is left out, and only an
//! answer without an id is none at all.

use serde_json::{Map, Value};

/// Fields that every answer is asked for; `config_context` is added on wish, as NetBox has to compute it.
pub(crate) const FIELDS: &str = "id,name,serial,asset_tag,display_url,status,role,site,location,rack,tenant,platform,\
                                 device_type,primary_ip4,primary_ip6,oob_ip,tags,custom_fields,last_updated";

/// What is taken as it is, if it is a text.
const TEXTS: &[&str] = &["name", "serial", "asset_tag"];
/// Nested objects that are known by their slug, or their name where they have none.
const NAMED: &[&str] = &["role", "site", "location", "rack", "tenant", "platform", "device_type"];
const ADDRESSES: &[&str] = &["primary_ip4", "primary_ip6", "oob_ip"];

/// A device of NetBox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Device {
    pub(crate) id: u64,
    /// Trimmed; may be empty.
    pub(crate) serial: String,
    pub(crate) status: Option<String>,
    /// Moves with every change of the device itself, but not of its MACs or config contexts.
    pub(crate) last_updated: Option<String>,
    pub(crate) site: Option<String>,
    /// Slugs.
    pub(crate) tags: Vec<String>,
    /// As they came: a select field is `{value, label}`.
    pub(crate) custom_fields: Map<String, Value>,
    /// What becomes the metadata under `netbox`, but for the custom fields.
    facts: Map<String, Value>,
}

impl Device {
    /// Reads an answer. `None`: it is no device.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let id = value.get("id")?.as_u64()?;
        let mut facts = Map::new();
        facts.insert("id".into(), id.into());
        let mut add = |key: &str, found: Option<String>| {
            if let Some(found) = found.filter(|found| !found.is_empty()) {
                facts.insert(key.to_owned(), found.into());
            }
        };
        for key in TEXTS {
            add(key, value.get(key).and_then(Value::as_str).map(|text| text.trim().to_owned()));
        }
        for key in NAMED {
            add(key, value.get(key).and_then(slug));
        }
        for key in ADDRESSES {
            let address = value.get(key).and_then(|address| address.get("address")).and_then(Value::as_str);
            add(key, address.map(str::to_owned));
        }
        add("url", value.get("display_url").and_then(Value::as_str).map(str::to_owned));
        let status = value.get("status").and_then(|status| plain(status).as_str().map(str::to_owned));
        add("status", status.clone());
        let mut tags: Vec<String> =
            value.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(slug).collect();
        tags.sort();
        facts.insert("tags".into(), tags.clone().into());
        if let Some(context) = value.get("config_context").filter(|context| context.is_object()) {
            facts.insert("config_context".into(), context.clone());
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
        Some(Self {
            id,
            serial: text("serial"),
            status,
            last_updated: Some(text("last_updated")).filter(|text| !text.is_empty()),
            site: value.get("site").and_then(slug),
            tags,
            custom_fields: value.get("custom_fields").and_then(Value::as_object).cloned().unwrap_or_default(),
            facts,
        })
    }

    /// What becomes the metadata under `netbox`. The request field is left out: it is a message, not a fact.
    pub(crate) fn metadata(&self, request_field: Option<&str>) -> Map<String, Value> {
        let mut metadata = self.facts.clone();
        let fields = self.custom_fields.iter().filter(|(name, _)| Some(name.as_str()) != request_field);
        let fields: Map<String, Value> =
            fields.map(|(name, value)| (name.clone(), plain(value))).filter(|(_, value)| !value.is_null()).collect();
        metadata.insert("custom_fields".into(), Value::Object(fields));
        metadata
    }
}

/// A choice is read as `{value, label}` and written as its value; older releases and other types give it bare.
pub(crate) fn plain(value: &Value) -> Value {
    match value {
        Value::Object(object) if object.len() == 2 && object.contains_key("label") => {
            object.get("value").cloned().unwrap_or_else(|| value.clone())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => value.clone(),
    }
}

/// What a nested object is known by.
fn slug(value: &Value) -> Option<String> {
    if let Value::String(text) = value {
        return Some(text.clone());
    }
    ["slug", "name"].iter().find_map(|key| value.get(key)?.as_str().map(str::to_owned))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// What NetBox 4.7 answers, shortened.
    pub(crate) fn answer() -> Value {
        json!({
            "id": 1, "name": "node-a1", "serial": "SN-A1-0001", "asset_tag": null,
            "display_url": "https://netbox.example.org/dcim/devices/1/",
            "status": {"value": "planned", "label": "Planned"},
            "role": {"id": 1, "name": "Compute", "slug": "compute"},
            "site": {"id": 1, "name": "FRA1", "slug": "fra1"}, "location": null,
            "rack": {"id": 4, "name": "R 7"},
            "primary_ip4": {"id": 1, "address": "10.20.0.2/16"}, "oob_ip": null,
            "tags": [{"id": 2, "name": "rack-test", "slug": "rack-test"}, {"id": 1, "slug": "kiwispray"}],
            "custom_fields": {"disks": {"root": "sda"}, "state": {"value": "none", "label": "None"},
                "zones": [{"value": "a", "label": "A"}], "empty": null, "kiwispray_request": "web"},
            "config_context": {"ntp": ["10.0.0.1"]},
            "last_updated": "2026-11-22T08:05:08.465921Z"
        })
    }

    #[test]
    fn names_slugs_choices_and_addresses_become_plain_metadata() {
        let device = Device::read(&answer()).unwrap();
        assert_eq!((device.id, device.serial.as_str(), device.status.as_deref()), (1, "SN-A1-0001", Some("planned")));
        assert_eq!(
            Value::Object(device.metadata(Some("kiwispray_request"))),
            json!({
                "id": 1, "name": "node-a1", "serial": "SN-A1-0001", "status": "planned", "role": "compute",
                "url": "https://netbox.example.org/dcim/devices/1/",
                "site": "fra1", "rack": "R 7", "primary_ip4": "10.20.0.2/16", "tags": ["kiwispray", "rack-test"],
                "custom_fields": {"disks": {"root": "sda"}, "state": "none", "zones": ["a"]},
                "config_context": {"ntp": ["10.0.0.1"]}
            })
        );
    }

    #[test]
    fn nulls_and_other_types_are_left_out() {
        let odd = json!({"id": 9, "name": null, "serial": 7, "status": "active", "role": [], "site": {"slug": null},
            "tags": [null, 3, "x"], "custom_fields": "none", "config_context": "late", "primary_ip4": "10.0.0.1",
            "last_updated": null});
        let device = Device::read(&odd).unwrap();
        assert_eq!(
            Value::Object(device.metadata(None)),
            json!({"id": 9, "status": "active", "tags": ["x"], "custom_fields": {}})
        );
        assert_eq!((device.serial.as_str(), device.last_updated), ("", None));
    }

    #[test]
    fn what_has_no_id_is_no_device() {
        for odd in [json!({}), json!(null), json!("x"), json!({"id": "1"}), json!({"id": -1}), json!([1])] {
            assert_eq!(Device::read(&odd), None, "{odd}");
        }
    }

    #[test]
    fn an_object_of_a_json_field_is_not_taken_for_a_choice() {
        for object in [json!({"label": "x"}), json!({"value": 1, "label": "x", "more": 2}), json!({"value": 1})] {
            assert_eq!(plain(&object), object);
        }
    }
}
