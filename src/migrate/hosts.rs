//! `known_hosts.json`.
//!
//! The invariant: a host is taken as it is or told to be impossible, never changed silently. What identifies no machine is
//! dropped with a note, as the server would not believe it from a machine either; a queue that the original would never
//! have worked through is cut to what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::MigrateError;
use crate::domain::{
    Candidate, DmiUuid, HostId, Hostname, Identity, Ignore, MacAddr, Metadata, Recognition, Serial, States, recognise,
};

/// Larger than what a hundred thousand hosts need.
const MOST_BYTES: u64 = 512 << 20;
/// The file, in the original's folder.
pub(super) const FILE: &str = "known_hosts.json";

/// A host of the original.
#[derive(Debug, Clone)]
pub struct OldHost {
    /// Its number, which it keeps.
    pub id: HostId,
    /// Its name, unless it was `not-set`.
    pub hostname: Option<Hostname>,
    /// What recognises it.
    pub identity: Identity,
    /// Its queue.
    pub states: States,
    /// What the site remembers of it.
    pub metadata: Metadata,
    /// Whether the original ever gave it a bootid: then a machine booted as this host.
    pub seen: bool,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) hosts: Vec<OldHost>,
    /// What was dropped or looks strange.
    pub(super) notes: Vec<String>,
    /// Why hosts cannot be taken.
    pub(super) impossible: Vec<String>,
}

/// Reads the hosts of an installation.
pub(super) fn read(dir: &Path) -> Result<Hosts, MigrateError> {
    let path = dir.join(FILE);
    let unreadable = |error: std::io::Error| MigrateError::Unreadable { path: path.clone(), error: error.to_string() };
    let about = match std::fs::metadata(&path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(MigrateError::NoHosts(dir.to_owned()));
        }
        Err(error) => return Err(unreadable(error)),
    };
    if !about.is_file() {
        return Err(MigrateError::Unreadable { path, error: "it is no file".to_owned() });
    }
    if about.len() > MOST_BYTES {
        return Err(MigrateError::TooLarge { path, most_mb: MOST_BYTES >> 20 });
    }
    let text = std::fs::read(&path).map_err(unreadable)?;
    let bad = |error: serde_json::Error| MigrateError::NotJson { path: path.clone(), error: error.to_string() };
    let entries = match serde_json::from_slice(&text).map_err(bad)? {
        Value::Array(entries) => entries,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return Err(MigrateError::NoList(path));
        }
    };
    drop(text);
    Ok(parse(entries))
}

fn parse(entries: Vec<Value>) -> Hosts {
    let mut read = Hosts::default();
    let mut ids = BTreeSet::new();
    for (place, entry) in entries.into_iter().enumerate() {
        let Value::Object(fields) = entry else {
            read.impossible.push(format!("entry {} is no host", place + 1));
            continue;
        };
        let Some(id) = fields.get("id").and_then(Value::as_u64).filter(|id| (1..=1_000_000_000).contains(id)) else {
            let found = fields.get("id").map_or_else(|| "none".to_owned(), |id| shortened(&id.to_string()));
            read.impossible.push(format!("entry {} has no usable id: a number from 1 on, not {found}", place + 1));
            continue;
        };
        if !ids.insert(id) {
            read.impossible.push(format!("host {id} is there twice: the second one is impossible"));
            continue;
        }
        let mut notes = Vec::new();
        match host(HostId::new(id), fields, &mut notes) {
            Ok(host) => read.hosts.push(host),
            Err(why) => read.impossible.push(format!("host {id}: {why}")),
        }
        read.notes.extend(notes.into_iter().map(|note| format!("host {id}: {note}")));
    }
    read.hosts.sort_by_key(|host| host.id);
    drop_twins(&mut read);
    note_namesakes(&mut read);
    read
}

fn host(id: HostId, mut fields: Map<String, Value>, notes: &mut Vec<String>) -> Result<OldHost, String> {
    let mut text = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("its {name} is no text: {}", shortened(&other.to_string()))),
    };
    let (serial, uuid, macs, state) = (text("serial")?, text("uuid")?, text("macs")?, text("state")?);
    let (name, bootid) = (text("hostname")?, text("bootid")?);
    let mut metadata = match fields.remove("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(format!("its metadata is no object: {}", shortened(&other.to_string()))),
    };
    let hostname = match name.trim() {
        "" | "not-set" => None,
        name => match name.parse::<Hostname>() {
            Ok(name) => Some(name),
            Err(error) => {
                notes.push(format!("{error}; it is kept as metadata original_hostname"));
                metadata.entry("original_hostname").or_insert_with(|| Value::from(name));
                None
            }
        },
    };
    fields.remove("id");
    if !fields.is_empty() {
        let names: Vec<String> = fields.keys().map(|name| shortened(name)).collect();
        notes.push(format!("what is in {} is not taken", names.join(", ")));
    }
    let identity = identity(&serial, &uuid, &macs, notes)?;
    Ok(OldHost {
        id,
        hostname,
        identity,
        states: queue(&state, notes)?,
        metadata: Metadata::try_from(metadata).map_err(|error| error.to_string())?,
        seen: !bootid.is_empty(),
    })
}

fn identity(serial: &str, uuid: &str, macs: &str, notes: &mut Vec<String>) -> Result<Identity, String> {
    let mut dropped = |what: &str, text: &str, why: crate::domain::IdentityDefect| {
        if !text.trim().is_empty() {
            notes.push(format!("{what} {:?} is left out: {why}", shortened(text)));
        }
    };
    let ignore = Ignore::default();
    let serial: Option<Serial> = ignore.serial(serial).map_err(|why| dropped("the serial number", serial, why)).ok();
    let uuid: Option<DmiUuid> = ignore.uuid(uuid).map_err(|why| dropped("the UUID", uuid, why)).ok();
    let macs: BTreeSet<MacAddr> = macs
        .split_whitespace()
        .filter_map(|mac| ignore.mac(mac).map_err(|why| dropped("the MAC", mac, why)).ok())
        .collect();
    if macs.len() > Identity::MOST_MACS {
        return Err(format!("it has {} network cards, and {} are the most", macs.len(), Identity::MOST_MACS));
    }
    let identity = Identity { serial, uuid, macs };
    if identity.is_empty() {
        return Err("nothing identifies it: neither serial number nor UUID nor MAC can be used".to_owned());
    }
    Ok(identity)
}

/// The queue as the original would have worked through it.
fn queue(text: &str, notes: &mut Vec<String>) -> Result<States, String> {
    let mut names: Vec<&str> = text.split(',').map(str::trim).collect();
    // It never got beyond these two.
    if let Some(end) = names.iter().position(|name| matches!(*name, "new" | "finished"))
        && end + 1 < names.len()
    {
        let cut = names.split_off(end + 1);
        notes.push(format!("{} behind {} was never reached and is left out", cut.join(","), names.join(",")));
    }
    names.join(",").parse::<States>().map_err(|error| format!("its state: {error}"))
}

/// Two entries for one machine: the original answered neither.
fn drop_twins(read: &mut Hosts) {
    let mut known: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut kept: Vec<OldHost> = Vec::with_capacity(read.hosts.len());
    for host in std::mem::take(&mut read.hosts) {
        let identity = &host.identity;
        let values = identity.serial.iter().map(|serial| format!("s{}", serial.key()));
        let values = values.chain(identity.uuid.iter().map(|uuid| format!("u{:?}", uuid.key())));
        let values: Vec<String> = values.chain(identity.macs.iter().map(|mac| format!("m{mac}"))).collect();
        let shared: BTreeSet<usize> = values.iter().filter_map(|value| known.get(value)).flatten().copied().collect();
        // A value that so many have identifies none of them.
        let shared = shared.into_iter().take(64).filter_map(|at| kept.get(at));
        let shared: Vec<Candidate> = shared
            .map(|other| Candidate { id: other.id, identity: other.identity.clone(), seen: true, forgotten: false })
            .collect();
        match recognise(identity, &shared).0 {
            Recognition::Known(other) => {
                read.impossible.push(format!("host {} is the same machine as host {other}", host.id));
                continue;
            }
            Recognition::Doubt { candidates, .. } => {
                let others: Vec<String> = candidates.iter().map(ToString::to_string).collect();
                read.notes.push(format!(
                    "host {} cannot be told from host {}: they hold, or boot their disks if all are finished",
                    host.id,
                    others.join(", ")
                ));
            }
            Recognition::New { .. } | Recognition::Returned { .. } | Recognition::Nobody => {}
        }
        for value in values {
            let at = known.entry(value).or_default();
            if at.len() < 64 {
                at.push(kept.len());
            }
        }
        kept.push(host);
    }
    read.hosts = kept;
}

fn note_namesakes(read: &mut Hosts) {
    let mut names: BTreeMap<&str, Vec<HostId>> = BTreeMap::new();
    for host in &read.hosts {
        if let Some(name) = &host.hostname {
            names.entry(name.as_str()).or_default().push(host.id);
        }
    }
    let mut notes = Vec::new();
    for (name, ids) in names.iter().filter(|(_, ids)| ids.len() > 1) {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        notes.push(format!("hosts {} are all called {name}: name them by their numbers", ids.join(", ")));
    }
    read.notes.extend(notes);
}

/// For sentences about text from outside.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(id: u64, state: &str) -> Value {
        json!({"id": id, "hostname": "not-set", "serial": format!("SN{id}"), "uuid": "", "state": state,
               "macs": format!("52:54:00:00:00:{id:02X}"), "metadata": {}})
    }

    #[test]
    fn a_queue_is_cut_where_the_original_stopped() {
        let mut notes = Vec::new();
        let mut of = |text: &str| queue(text, &mut notes).map(|states| states.to_string());
        assert_eq!(of("wipe,image1"), Ok("wipe,image1".to_owned()));
        assert_eq!(of("discover,new"), Ok("discover,new".to_owned()));
        assert_eq!(of("image1,finished"), Ok("image1".to_owned()));
        assert_eq!(of("finished,image1"), Ok("finished".to_owned()));
        assert_eq!(of("new,image1"), Ok("new".to_owned()));
        assert!(of("").is_err() && of("my image").is_err() && of("../etc").is_err());
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn what_cannot_be_a_host_is_told_in_one_sentence_each() {
        let mut wrong = entry(3, "finished");
        wrong["serial"] = json!(7);
        let mut nameless = entry(4, "finished");
        nameless["serial"] = json!("");
        nameless["macs"] = json!("00:00:00:00:00:00");
        let mut deep = entry(5, "finished");
        deep["metadata"] = json!([1]);
        let mut twin = entry(1, "image1");
        twin["id"] = json!(9);
        let entries = vec![
            entry(1, "finished"),
            json!("x"),
            json!({"id": "2"}),
            json!({"id": -1}),
            entry(1, "new"),
            wrong,
            nameless,
            deep,
            twin,
            entry(6, "a b"),
        ];
        let read = parse(entries);
        assert_eq!(read.hosts.len(), 1);
        insta::assert_snapshot!(read.impossible.join("\n"), @r#"
        entry 2 is no host
        entry 3 has no usable id: a number from 1 on, not "2"
        entry 4 has no usable id: a number from 1 on, not -1
        host 1 is there twice: the second one is impossible
        host 3: its serial is no text: 7
        host 4: nothing identifies it: neither serial number nor UUID nor MAC can be used
        host 5: its metadata is no object: [1]
        host 6: its state: "a b" is no state name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, 64 at most
        host 9 is the same machine as host 1
        "#);
    }

    #[test]
    fn what_is_no_name_or_no_evidence_is_noted_and_the_rest_is_kept() {
        let mut strange = entry(7, "new");
        strange["hostname"] = json!("web_1");
        strange["uuid"] = json!("00000000-0000-0000-0000-000000000000");
        strange["macs"] = json!("52:54:00:00:00:07 nonsense");
        strange["rack"] = json!("r1");
        strange["metadata"] = json!({"a.b": "it's \"x\""});
        let read = parse(vec![strange]);
        let host = read.hosts.first().unwrap();
        assert_eq!((host.hostname.clone(), host.identity.macs.len(), host.seen), (None, 1, false));
        assert_eq!(host.metadata.as_map().get("a.b"), Some(&json!("it's \"x\"")));
        insta::assert_snapshot!(read.notes.join("\n"), @r#"
        host 7: "web_1" is no host name: letters, digits, `-` and `.` are expected, 253 characters at most; it is kept as metadata original_hostname
        host 7: what is in rack is not taken
        host 7: the UUID "00000000-0000-0000-0000-000000000000" is left out: a filler, not a value of this machine
        host 7: the MAC "nonsense" is left out: not of the right form
        "#);
    }
}
