//! NetBox's REST API, as far as it is needed. Addresses are computed, never followed: `next` is made from a header.
//!
//! Every list is asked for by values that are not empty, as NetBox answers everything to an empty filter, and whether an
//! answer is complete is known by its count.

use std::collections::{BTreeMap, BTreeSet};

use form_urlencoded::Serializer;
use kiwispray_sdk::ask::{self, http};
use serde_json::{Value, json};

use crate::config::Config;
use crate::device::{Device, FIELDS};
use crate::matching::canonical;
use crate::trouble::{self, Trouble};

/// Bytes of a query: web servers take request lines of 4 KiB.
const QUERY_BYTES: usize = 2_500;
/// Objects of an answer that NetBox gives at most, unless it was configured otherwise.
const LIMIT_MOST: usize = 1_000;
/// How long one request may take.
const REQUEST_MS: u32 = 20_000;
/// Newest journal entries among which one is looked for.
const JOURNAL_ENTRIES: u32 = 50;

/// NetBox, as the configuration describes it.
pub(crate) struct NetBox<'a> {
    config: &'a Config,
}

/// A device that was read alone, and what its change is bound to.
pub(crate) struct Read {
    pub(crate) device: Device,
    /// Older releases have none.
    etag: Option<String>,
}

/// Devices in the order of their ids.
pub(crate) struct Page {
    pub(crate) devices: Vec<Device>,
    /// Where the next page begins; none: this was the last.
    pub(crate) next: Option<u64>,
}

/// A list, and whether it is all of it.
struct List {
    items: Vec<Value>,
    is_whole: bool,
}

impl<'a> NetBox<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// The devices with any of these serial numbers, in any order. Whether each has one of them is for the caller to see.
    pub(crate) fn devices_by_serial(&self, serials: &[&str]) -> Result<Vec<Device>, Trouble> {
        let mut devices = Vec::new();
        for chunk in chunks("serial", serials) {
            // Twice as many as expected: a serial number twice is to be seen as such.
            let list = self.devices(&chunk, chunk.len() * 2 + 10)?;
            if list.is_whole || chunk.len() == 1 {
                devices.extend(self.wanted(&list));
                continue;
            }
            // One serial number is in NetBox over and over: it must not hide the others.
            for serial in &chunk {
                devices.extend(self.wanted(&self.devices(&[*serial], 2)?));
            }
        }
        Ok(devices)
    }

    /// The devices with these ids.
    pub(crate) fn devices_by_id(&self, ids: &BTreeSet<u64>) -> Result<Vec<Device>, Trouble> {
        let texts: Vec<String> = ids.iter().map(u64::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut devices = Vec::new();
        for chunk in chunks("id", &texts) {
            devices.extend(self.wanted(&self.devices(&chunk, chunk.len())?));
        }
        devices.retain(|device| ids.contains(&device.id));
        Ok(devices)
    }

    /// For each of these MACs the ids of the devices that have a card with it.
    pub(crate) fn owners(&self, macs: &[&str]) -> Result<BTreeMap<String, BTreeSet<u64>>, Trouble> {
        let mut owners: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        // Dashes pass through a query as they are.
        let dashed: Vec<String> = macs.iter().map(|mac| mac.replace(':', "-")).collect();
        let dashed: Vec<&str> = dashed.iter().map(String::as_str).collect();
        for chunk in chunks("mac_address", &dashed) {
            let mut query = chunk.clone();
            query.push(("fields", "id,device,mac_address,mac_addresses"));
            let list =
                self.list("dcim/interfaces/", &query, LIMIT_MOST, "read interfaces", "view on dcim.interface")?;
            if !list.is_whole {
                return Err(Trouble::Refused(format!(
                    "NetBox has more than {LIMIT_MOST} interfaces for {} MACs",
                    chunk.len()
                )));
            }
            for interface in &list.items {
                let Some(id) = interface.pointer("/device/id").and_then(Value::as_u64) else { continue };
                for mac in cards(interface) {
                    owners.entry(mac).or_default().insert(id);
                }
            }
        }
        Ok(owners)
    }

    /// Devices after an id that were changed at or after a time, in the order of their ids.
    pub(crate) fn devices_since(&self, since: &str, after: u64, limit: usize) -> Result<Page, Trouble> {
        let from = after.saturating_add(1).to_string();
        let query = [("last_updated__gte", since), ("id__gte", from.as_str()), ("ordering", "id")];
        let list = self.devices(&query, limit)?;
        let mut last = after;
        for id in list.items.iter().filter_map(|value| value.get("id")?.as_u64()) {
            // A release that does not know the filter would answer the same page for ever.
            if id <= last {
                return Err(Trouble::Refused(
                    "NetBox does not answer devices in the order of their ids, as asked".into(),
                ));
            }
            last = id;
        }
        let next = (!list.is_whole && last > after).then_some(last);
        Ok(Page { devices: self.wanted(&list), next })
    }

    /// When a device was last changed, by NetBox's own clock.
    pub(crate) fn newest_change(&self) -> Result<Option<String>, Trouble> {
        let newest = self.devices(&[("ordering", "-last_updated")], 1)?;
        Ok(newest.items.first().and_then(Device::read).and_then(|device| device.last_updated))
    }

    /// One device, as it is now.
    pub(crate) fn device(&self, id: u64) -> Result<Read, Trouble> {
        let what = format!("read device {id}");
        let answer = self.send(http::get(self.url(&format!("dcim/devices/{id}/"), &[])), &what)?;
        let value = trouble::read(&answer, &what, "view on dcim.device")?;
        match Device::read(&value) {
            Some(device) if device.id == id => Ok(Read { device, etag: answer.header("etag").map(str::to_owned) }),
            Some(_) | None => Err(Trouble::Refused(format!("NetBox answered something else than device {id}"))),
        }
    }

    /// Changes a device, if it still is as it was read; returns it as it is now.
    pub(crate) fn change(&self, read: &Read, change: &Value) -> Result<Device, Trouble> {
        let id = read.device.id;
        let what = format!("change device {id}");
        let request = http::patch(self.url(&format!("dcim/devices/{id}/"), &[])).json(change);
        let request = match &read.etag {
            Some(etag) => request.header("if-match", etag),
            None => request,
        };
        let value = trouble::read(&self.send(request, &what)?, &what, "change on dcim.device")?;
        Device::read(&value)
            .ok_or_else(|| Trouble::Refused(format!("NetBox answered no device after its change: {id}")))
    }

    /// Adds a journal entry.
    pub(crate) fn add_journal(&self, entry: &Value) -> Result<(), Trouble> {
        let what = "write into the journal";
        let answer = self.send(http::post(self.url("extras/journal-entries/", &[])).json(entry), what)?;
        trouble::read(&answer, what, "add on extras.journalentry").map(|_| ())
    }

    /// Whether a device's journal has an entry with these words, among its newest.
    pub(crate) fn has_journal(&self, device: u64, words: &str) -> Result<bool, Trouble> {
        let (device, limit) = (device.to_string(), JOURNAL_ENTRIES as usize);
        let query = [
            ("assigned_object_type", "dcim.device"),
            ("assigned_object_id", device.as_str()),
            ("ordering", "-created"),
        ];
        let list =
            self.list("extras/journal-entries/", &query, limit, "read the journal", "view on extras.journalentry")?;
        let mut comments = list.items.iter().filter_map(|entry| entry.get("comments")?.as_str());
        Ok(comments.any(|comments| comments.contains(words)))
    }

    /// Devices within the configured sites and with the configured tags.
    fn devices(&self, query: &[(&str, &str)], limit: usize) -> Result<List, Trouble> {
        let fields = if self.config.config_context { format!("{FIELDS},config_context") } else { FIELDS.to_owned() };
        let mut all = query.to_vec();
        all.extend(self.config.sites.iter().map(|site| ("site", site.as_str())));
        all.extend(self.config.tags.iter().map(|tag| ("tag", tag.as_str())));
        all.push(("fields", &fields));
        self.list("dcim/devices/", &all, limit, "read devices", "view on dcim.device")
    }

    /// The devices of a list. A release that does not know a filter ignores it, so what came back is looked at.
    fn wanted(&self, list: &List) -> Vec<Device> {
        let Config { sites, tags, .. } = self.config;
        let in_site =
            |device: &Device| sites.is_empty() || device.site.as_ref().is_some_and(|site| sites.contains(site));
        let tagged = |device: &Device| tags.iter().all(|tag| device.tags.contains(tag));
        let devices = list.items.iter().filter_map(Device::read);
        devices.filter(|device| in_site(device) && tagged(device)).collect()
    }

    fn list(&self, path: &str, query: &[(&str, &str)], limit: usize, what: &str, needs: &str) -> Result<List, Trouble> {
        let limit = limit.clamp(1, LIMIT_MOST);
        let text = limit.to_string();
        let mut query = query.to_vec();
        query.push(("limit", &text));
        let answer = self.send(http::get(self.url(path, &query)), what)?;
        let mut value = trouble::read(&answer, what, needs)?;
        let Some(Value::Array(mut items)) = value.get_mut("results").map(Value::take) else {
            return Err(Trouble::Refused(format!("what answers at `url` is no NetBox: no `results` (to {what})")));
        };
        let count = value.get("count").and_then(Value::as_u64);
        let is_whole = count.is_some_and(|count| count <= items.len() as u64);
        items.truncate(limit);
        Ok(List { items, is_whole })
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> String {
        let mut url = format!("{}{path}", self.config.api());
        if !query.is_empty() {
            let start = url.len() + 1;
            url.push('?');
            url = Serializer::for_suffix(url, start).extend_pairs(query).finish();
        }
        url
    }

    fn send(&self, request: http::Request, what: &str) -> Result<http::Response, Trouble> {
        // What is left after a late answer must suffice to write down where the work stands.
        let timeout = REQUEST_MS.min(ask::budget_ms().saturating_sub(1_000)).max(100);
        let request = request.header("accept", "application/json").timeout_ms(timeout);
        request.send().map_err(|error| trouble::unanswered(error, what))
    }
}

/// The body that empties a request field.
pub(crate) fn cleared(field: &str, none: Option<&str>) -> Value {
    json!({"custom_fields": {field: none}})
}

/// Queries of one name that fit into a request line.
fn chunks<'v>(name: &'static str, values: &[&'v str]) -> Vec<Vec<(&'static str, &'v str)>> {
    let mut chunks: Vec<Vec<(&str, &str)>> = Vec::new();
    let mut bytes = usize::MAX;
    for value in values.iter().filter(|value| !value.trim().is_empty()) {
        // A byte becomes three at most.
        let more = name.len() + 2 + value.len() * 3;
        bytes = bytes.saturating_add(more);
        if bytes > QUERY_BYTES {
            chunks.push(Vec::new());
            bytes = more;
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.push((name, value));
        }
    }
    chunks
}

/// The MACs of an interface: one in older releases, several since 4.2.
fn cards(interface: &Value) -> Vec<String> {
    let several = interface.get("mac_addresses").and_then(Value::as_array).into_iter().flatten();
    let several = several.filter_map(|card| card.get("mac_address"));
    let all = several.chain(interface.get("mac_address"));
    all.filter_map(Value::as_str).filter_map(canonical).collect()
}
