//! The command that takes a change back.
//!
//! Invariant: the command names hosts by number, and says by itself whatever flags it needs, so that it can be pasted.

use serde_json::{Map, Value};

use super::client::Act;
use super::words::{queue, shell};
use crate::wire::{Changed, HostView};

/// How to take back what `act` did, in a line.
pub(crate) fn undo(act: &Act, changed: &Changed) -> String {
    match (&changed.before, &changed.after) {
        (None, Some(after)) => format!("kiwispray host forget {}", after.id),
        (Some(before), None) => format!("{} (it gets a new number)", add_again(before)),
        (Some(before), Some(after)) => match act {
            Act::Retry(_) => format!("kiwispray host finish {} (as long as it has not booted)", after.id),
            Act::Release(_) => "none: a host that waits again is given the state new".to_owned(),
            Act::Adopt(_) => format!("{} (the other machine becomes known anew)", identity_back(before, after)),
            Act::Lock(_) => match &before.lock {
                None => format!("kiwispray host unlock {}", after.id),
                Some(lock) => lock_again(after.id, &lock.why),
            },
            Act::Unlock(_) => lock_again(after.id, before.lock.as_ref().map_or("", |lock| &lock.why)),
            Act::Edit(_) | Act::Finish(_) | Act::Forget(_) => set_back(before, after),
        },
        (None, None) => "there is nothing to take back".to_owned(),
    }
}

fn lock_again(id: u64, why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!(" --why {}", shell(why)) };
    format!("kiwispray host lock {id}{why}")
}

fn set_back(before: &HostView, after: &HostView) -> String {
    if identity(before) != identity(after) {
        return identity_back(before, after);
    }
    let mut command = format!("kiwispray host set {}", after.id);
    if before.states != after.states {
        command.push_str(&format!(" --state {}", shell(&queue(&before.states))));
        if after.state == "finished" && before.state != "finished" {
            command.push_str(" --reinstall");
        }
    }
    if before.hostname != after.hostname {
        command.push_str(&format!(" --hostname {}", shell(before.hostname.as_deref().unwrap_or_default())));
    }
    let patch = inverse(&before.metadata, &after.metadata);
    if !patch.is_empty() {
        command.push_str(&format!(" --meta {}", shell(&Value::Object(patch).to_string())));
    }
    command
}

fn identity(host: &HostView) -> (&Option<String>, &Option<String>, &[String]) {
    (&host.serial, &host.uuid, &host.macs)
}

fn identity_back(before: &HostView, after: &HostView) -> String {
    let mut command = format!("kiwispray host identity {}", after.id);
    for (name, old, new) in [("serial", &before.serial, &after.serial), ("uuid", &before.uuid, &after.uuid)] {
        match old {
            _ if old == new => {}
            Some(old) => command.push_str(&format!(" --{name} {}", shell(old))),
            None => command.push_str(&format!(" --drop-{name}")),
        }
    }
    let missing = |from: &[String], of: &[String]| -> Vec<String> {
        of.iter().filter(|mac| !from.contains(mac)).cloned().collect()
    };
    for (flag, macs) in [("add", missing(&after.macs, &before.macs)), ("drop", missing(&before.macs, &after.macs))] {
        macs.iter().for_each(|mac| command.push_str(&format!(" --{flag}-mac {}", shell(mac))));
    }
    command
}

fn add_again(host: &HostView) -> String {
    let mut command = "kiwispray host add".to_owned();
    let mut flag = |name: &str, value: &str| command.push_str(&format!(" --{name} {}", shell(value)));
    host.serial.iter().for_each(|serial| flag("serial", serial));
    host.uuid.iter().for_each(|uuid| flag("uuid", uuid));
    host.macs.iter().for_each(|mac| flag("mac", mac));
    host.hostname.iter().for_each(|name| flag("hostname", name));
    flag("state", &queue(&host.states));
    if !host.metadata.is_empty() {
        flag("meta", &Value::Object(host.metadata.clone()).to_string());
    }
    command
}

/// The merge patch (RFC 7396) that makes `before` out of `after`.
fn inverse(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in after.keys().filter(|key| !before.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, old) in before {
        match (old, after.get(key)) {
            (_, Some(new)) if old == new => {}
            (Value::Object(old), Some(Value::Object(new))) => {
                patch.insert(key.clone(), Value::Object(inverse(old, new)));
            }
            (_, Some(_) | None) => {
                patch.insert(key.clone(), old.clone());
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::super::samples::host;
    use super::*;
    use crate::wire::{ActOnHost, EditHost};

    fn undo_of(act: &Act, before: Option<HostView>, after: Option<HostView>) -> String {
        undo(act, &Changed { before, after, changed: true, erases: Vec::new() })
    }

    fn in_states(states: &[&str]) -> HostView {
        let states: Vec<String> = states.iter().map(ToString::to_string).collect();
        HostView { state: states[0].clone(), states, ..host(3) }
    }

    #[test]
    fn a_queue_is_set_back_with_the_flags_that_this_takes() {
        let act = Act::Edit(EditHost::default());
        let back = |from: &[&str], to: &[&str]| undo_of(&act, Some(in_states(from)), Some(in_states(to)));
        assert_eq!(back(&["new"], &["wipe", "image1"]), "kiwispray host set 3 --state new");
        assert_eq!(back(&["finished"], &["image1"]), "kiwispray host set 3 --state finished");
        assert_eq!(back(&["image1"], &["finished"]), "kiwispray host set 3 --state image1 --reinstall");
    }

    #[test]
    fn names_and_metadata_are_set_back() {
        let metadata = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let before = HostView { metadata: metadata(r#"{"a":1,"b":{"x":1,"y":2},"gone":true}"#), ..host(3) };
        let after = HostView {
            hostname: Some("other".into()),
            metadata: metadata(r#"{"a":1,"b":{"x":1,"z":3},"more":"it's"}"#),
            ..host(3)
        };
        let act = Act::Edit(EditHost::default());
        let command = undo_of(&act, Some(before), Some(after));
        insta::assert_snapshot!(command, @r#"kiwispray host set 3 --hostname node3 --meta '{"b":{"y":2,"z":null},"gone":true,"more":null}'"#);
    }

    #[test]
    fn a_forgotten_host_can_be_added_again() {
        let act = Act::Forget(ActOnHost::default());
        insta::assert_snapshot!(
            undo_of(&act, Some(host(3)), None),
            @"kiwispray host add --serial SN0003 --uuid 4c4c4544-0051-3510-8052-b4c04f4a0003 --mac 52:54:00:00:00:03 --hostname node3 --state new (it gets a new number)"
        );
    }
}
