//! Hosts and images that tests talk about.

use serde_json::Map;

use crate::wire::{
    BreakerView, EventView, HostView, ImageView, JobView, KeptView, ManifestView, OutboxView, PluginDetail,
    ProgressView, ReachView, SafeguardView,
};

/// A new host with this number.
pub(crate) fn host(id: u64) -> HostView {
    HostView {
        id,
        revision: 1,
        hostname: Some(format!("node{id}")),
        serial: Some(format!("SN{id:04}")),
        uuid: Some(format!("4c4c4544-0051-3510-8052-b4c04f4a{id:04x}")),
        macs: vec![format!("52:54:00:00:00:{id:02x}")],
        model: Some("Dell Inc. PowerEdge R640".to_owned()),
        platform: Some("efi".to_owned()),
        state: "new".to_owned(),
        states: vec!["new".to_owned()],
        attempts: 0,
        running: false,
        hold: None,
        progress: None,
        metadata: Map::new(),
        last_seen: Some(time("2026-11-22T10:00:00Z")),
        seen: true,
        quarantined: false,
        lock: None,
        created_at: time("2026-11-20T08:00:00Z"),
        changed_at: time("2026-11-22T10:00:00Z"),
    }
}

/// A host in the middle of an installation.
pub(crate) fn installing(id: u64) -> HostView {
    HostView {
        state: "image1".to_owned(),
        states: vec!["image1".to_owned(), "image2".to_owned()],
        attempts: 1,
        running: true,
        progress: Some(ProgressView {
            file: "image1.xz".to_owned(),
            bytes: 430_000_000,
            total: 1_000_000_000,
            percent: 43,
        }),
        ..host(id)
    }
}

/// A host that waits for a person.
pub(crate) fn held(id: u64) -> HostView {
    let hold = format!("installed but never reported: kiwispray host finish {id} or kiwispray host retry {id}");
    HostView { hold: Some(hold), progress: None, running: false, ..installing(id) }
}

/// A finished host that nobody may order anything for.
pub(crate) fn locked(id: u64) -> HostView {
    let lock = SafeguardView {
        by: "operator ada".into(),
        at: time("2026-11-21T10:00:00Z"),
        why: "its disk is evidence".into(),
    };
    HostView { state: "finished".into(), states: vec!["finished".into()], lock: Some(lock), ..host(id) }
}

/// An image that writes the first disk.
pub(crate) fn image(name: &str) -> ImageView {
    ImageView {
        name: name.to_owned(),
        problem: None,
        manifest: Some(ManifestView {
            kind: "kiwi".to_owned(),
            writes: "disk".to_owned(),
            device: Some("first".to_owned()),
            append: "console=ttyS0".to_owned(),
            kernel: "pxeboot.kernel".to_owned(),
            initrd: Some("pxeboot.initrd.xz".to_owned()),
            payload: Some("image1.xz".to_owned()),
            payload_bytes: Some(1_000_000_000),
            total_bytes: 1_080_000_000,
        }),
    }
}

/// An event of host 3.
pub(crate) fn event(seq: u64, text: &str) -> EventView {
    EventView {
        id: format!("0123456789abcdef-3-{seq}"),
        host: 3,
        seq,
        at: time("2026-11-22T10:00:00Z"),
        actor: "operator root".to_owned(),
        kind: "states_set".to_owned(),
        text: text.to_owned(),
        data: Map::new(),
    }
}

/// A time.
pub(crate) fn time(text: &str) -> jiff::Timestamp {
    text.parse().expect("a time")
}

/// A plugin that works, with everything.
pub(crate) fn plugin(name: &str) -> PluginDetail {
    let reach = |what: &str, meaning: &str| ReachView { what: what.into(), meaning: meaning.into() };
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    PluginDetail {
        name: name.into(),
        status: "ok".into(),
        problem: None,
        version: Some("1.2.0".into()),
        digest: Some(digest.clone()),
        origin: Some("/var/lib/kiwispray/plugins/0123.wasm".into()),
        summary: "Follows a CMDB".into(),
        file: Some(format!("/etc/kiwispray/plugins.d/{name}.toml")),
        installed: true,
        rolled_back: false,
        hooks: vec!["events".into(), "schedule".into()],
        states: vec!["*".into()],
        selector: Map::from_iter([("metadata.site".to_owned(), "fra1".into())]),
        priority: 50,
        on_error: "hold".into(),
        config: serde_json::json!({ "url": "https://netbox.example.org" }),
        reach: vec![
            reach("hook: events", "is told what happened"),
            reach("hosts: states", "orders images for hosts that are not finished: their disks may be erased"),
        ],
        jobs: vec![JobView { name: "sync".into(), period_s: 300, next_at: Some(time("2026-11-22T10:10:00Z")) }],
        outbox: Some(OutboxView { behind: Some(3), parked: 1, dead_letters: 2, lost: 0 }),
        breakers: vec![BreakerView {
            hook: "schedule".into(),
            state: "open".into(),
            for_s: Some(8),
            why: "gave no answer within 60000 ms".into(),
        }],
        history: vec![KeptView { digest, version: "1.2.0".into(), at: time("2026-11-22T10:00:00Z") }],
        stopped: None,
    }
}
