//! Bindings as operators may write them, right and wrong.

use std::path::Path;

use super::*;
use crate::hooks::Hook;

fn read(text: &str) -> Result<Vec<PluginBinding>, String> {
    let table: toml::Table = toml::from_str(text).unwrap();
    let mut problems = Vec::new();
    let found = bindings(Path::new("/etc/kiwispray/kiwispray.toml"), &table, &mut problems);
    duplicates(&found, &mut problems);
    let sentences: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if problems.is_empty() { Ok(found) } else { Err(sentences.join("\n")) }
}

#[test]
fn a_binding_means_what_is_written() {
    let text = r#"
        [[plugin]]
        name = "netbox"
        component = "plugins/netbox/netbox.wasm"
        hooks = ["events", "schedule"]
        states = ["*"]
        where = { "metadata.site" = "fra1" }
        priority = 50
        on_error = "skip"
        config = { url = "https://netbox.example.org" }
        [plugin.grant]
        hosts = ["read", "metadata", "states"]
        max_orders_per_run = 7
        kv = true
        [[plugin.grant.http]]
        url = "https://netbox.example.org/api/"
    "#;
    let bound = read(text).unwrap().remove(0);
    assert_eq!(bound.component.as_deref(), Some(Path::new("/etc/kiwispray/plugins/netbox/netbox.wasm")));
    assert_eq!(bound.hooks, Some(HookSet::from([Hook::Events, Hook::Schedule])));
    assert_eq!((bound.priority, bound.on_error), (50, OnError::Skip));
    assert_eq!(bound.config["url"], "https://netbox.example.org");
    assert_eq!(bound.grant.core().hosts, BTreeSet::from([Grant::Read, Grant::Metadata, Grant::States]));
    assert_eq!((bound.grant.max_orders_per_run, bound.grant.kv, bound.grant.http.len()), (7, true, 1));
    assert!(!bound.grant.catalog);
}

#[test]
fn what_is_not_written_grants_nothing() {
    let bound = read("[[plugin]]\nname = \"racks\"\n").unwrap().remove(0);
    assert_eq!(bound.grant, PluginGrant { max_orders_per_run: 5, ..PluginGrant::default() });
    assert_eq!((bound.hooks, bound.on_error, bound.priority), (None, OnError::Hold, 0));
    assert!(bound.states.takes("new") && !bound.states.takes("finished"));
}

#[test]
fn every_wrong_binding_is_answered_by_a_sentence() {
    let cases = [
        "[[plugin]]\nhooks = []\n",
        "[[plugin]]\nname = \"Racks!\"\n",
        "[[plugin]]\nname = \"reload\"\n",
        "[[plugin]]\nname = \"racks\"\n[[plugin]]\nname = \"racks\"\n",
        "[[plugin]]\nname = \"racks\"\nhook = [\"boot\"]\npriorty = 1\nzzz = 1\n[plugin.grant]\nhost = []\nsudo = true\n",
        "[[plugin]]\nname = \"racks\"\nhooks = [\"boots\", \"firmware\"]\nstates = \"*\"\n",
        "[[plugin]]\nname = \"racks\"\nwhere = { site = \"x\" }\npriority = \"high\"\non_error = \"ignore\"\nconfig = 1\n",
        "[[plugin]]\nname = \"racks\"\ndigest = \"sha256:abc\"\ncomponent = 1\n",
        "[[plugin]]\nname = \"racks\"\n[plugin.grant]\nhosts = [\"reinstal\"]\nkv = \"yes\"\nmax_orders_per_run = -1\nhttp = \"x\"\n",
        "[[plugin]]\nname = \"racks\"\n[plugin.grant]\nhosts = [\"reinstall\"]\n",
        "[[plugin]]\nname = \"default\"\npriority = 1\nconfig = { discover = true }\n",
    ];
    let all = cases.map(|text| format!("{text}--\n{}\n\n", read(text).unwrap_err()));
    insta::assert_snapshot!(all.concat());
}

#[test]
fn a_digest_is_written_in_one_way() {
    let digest = Digest::of(b"");
    assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(digest.to_string().parse(), Ok(digest));
    for wrong in ["", "sha256:", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha256:+3"] {
        assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
    }
}
