use kiwispray_sdk::testing::host;

use super::*;

const CONFIG: &str = r#"{"profiles": [
    {"name": "kvm", "when": {"product": "KVM*"}, "version": 2, "prepare": {"image": "bios-kvm"}},
    {"name": "r750", "when": {"product": "R750"}, "version": "a",
     "prepare": {"redfish": {"url_from": "metadata.bmc.url", "attributes": {"Turbo": "Off"}}}, "put_back": "disk"}],
    "unprepared": ["discover", "memtest"]}"#;

fn config() -> Config {
    ask::parse_config(CONFIG).unwrap()
}

fn machine(product: &str, states: &str, metadata: &str) -> KnownHost {
    let more = json!({"hardware": {"product": product}}).to_string();
    let states = states.split(',').map(str::to_owned).collect();
    KnownHost { states, more, metadata: metadata.to_owned(), ..host("new") }
}

fn queue(product: &str, metadata: &str, to: &str) -> Option<String> {
    let to: Vec<String> = to.split(',').map(str::to_owned).collect();
    let subject = Subject::of(&machine(product, "new", metadata)).unwrap();
    config().prepared(&to, &subject).map(|(_, _, queue)| queue.join(","))
}

#[test]
fn the_image_comes_before_the_first_install_and_after_inventory() {
    assert_eq!(queue("KVM", "{}", "web").as_deref(), Some("bios-kvm,web"));
    assert_eq!(queue("KVM", "{}", "discover,wipe,web").as_deref(), Some("discover,bios-kvm,wipe,web"));
    assert_eq!(queue("KVM", "{}", "bios-kvm,web"), None);
    for to in ["new", "finished", "discover,new", "memtest", "bios-kvm"] {
        assert_eq!(queue("KVM", "{}", to), None, "{to}");
    }
    assert_eq!(queue("other", "{}", "web"), None);
    assert_eq!(queue("R750", "{}", "web"), None);
}

#[test]
fn a_host_is_prepared_again_when_profile_or_version_change() {
    assert_eq!(queue("KVM", r#"{"bios":{"profile":"kvm","version":2}}"#, "web"), None);
    assert_eq!(queue("KVM", r#"{"bios":{"profile":"kvm","version":"2"}}"#, "web"), None);
    for other in [
        r#"{"bios":{"profile":"kvm","version":1}}"#,
        r#"{"bios":{"profile":"old","version":2}}"#,
        r#"{"bios":{"profile":"kvm"}}"#,
        r#"{"bios":{"profile":null,"version":null}}"#,
        r#"{"bios":"kvm"}"#,
        r#"{"bios":[{"profile":"kvm","version":2}]}"#,
        r#"{"bios":{"profile":["kvm"],"version":{"2":2}}}"#,
    ] {
        assert_eq!(queue("KVM", other, "web").as_deref(), Some("bios-kvm,web"), "{other}");
    }
}

fn owes(host: &KnownHost) -> bool {
    config().owes(host, &Subject::of(host).unwrap()).unwrap().is_some()
}

#[test]
fn only_a_host_that_has_not_begun_to_install_owes_settings() {
    assert!(owes(&machine("R750", "wipe,web", "{}")));
    assert!(owes(&machine("R750", "web", r#"{"bios":{"profile":"r750","version":"b"}}"#)));
    assert!(!owes(&machine("R750", "web", r#"{"bios":{"profile":"r750","version":"a"}}"#)));
    for states in ["new", "finished", "discover,new", "discover,web", "memtest", "bios-kvm,web"] {
        assert!(!owes(&machine("R750", states, "{}")), "{states}");
    }
    assert!(!owes(&machine("KVM", "web", "{}")));
    assert!(!owes(&KnownHost { attempts: 1, ..machine("R750", "web", "{}") }));
    for stage in ["offered", "started", "delivered", "failed"] {
        let more = json!({"hardware": {"product": "R750"}, "boot": {"stage": stage, "held": null}}).to_string();
        assert!(!owes(&KnownHost { more, ..machine("R750", "web", "{}") }), "{stage}");
    }
}

#[test]
fn an_address_is_read_from_metadata_or_asked_for() {
    let config = config();
    let url = |metadata: &str| {
        let subject = Subject::of(&machine("R750", "web", metadata)).unwrap();
        let Some(Profile { prepare: Prepare::Redfish(redfish), .. }) = config.profile(&subject) else { panic!() };
        redfish.url(&subject).map(str::to_owned)
    };
    assert_eq!(url(r#"{"bmc":{"url":" https://10.0.0.7 "}}"#).unwrap(), "https://10.0.0.7");
    for odd in ["{}", r#"{"bmc":{"url":""}}"#, r#"{"bmc":{"url":7}}"#, r#"{"bmc":"https://10.0.0.7"}"#] {
        assert!(url(odd).unwrap_err().contains("metadata.bmc.url"), "{odd}");
    }
}

#[test]
fn a_problem_names_the_profile_and_its_key() {
    assert!(problems(CONFIG).is_empty() && problems("").is_empty());
    let redfish = |url: &str, attributes: &str| {
        format!(
            r#""when":{{"mac":"*"}},"version":1,"prepare":{{"redfish":{{"url_from":"{url}","attributes":{attributes}}}}}"#
        )
    };
    let image = r#""when":{"mac":"*"},"version":1,"prepare":{"image":"p"}"#;
    let (no_url, none) = (redfish("bmc.url", r#"{"a":1}"#), redfish("metadata.u", "{}"));
    let (list, twice) = (redfish("metadata.u", r#"{"a":[1]}"#), redfish("metadata.u", r#"{"a":true}"#));
    for (profiles, at, word) in [
        (
            r#"{"name":"a","when":{"sites":"x"},"version":1,"prepare":{"image":"p"}}"#.to_owned(),
            "/profiles/0/when",
            "sites",
        ),
        (r#"{"name":"a","when":{"mac":"*"},"prepare":{"image":"p"}}"#.to_owned(), "/profiles/0", "version"),
        (
            r#"{"name":"a","when":{"mac":"*"},"version":[],"prepare":{"image":"p"}}"#.to_owned(),
            "/profiles/0",
            "version",
        ),
        (r#"{"name":"a","when":{"mac":"*"},"version":1,"prepare":{"ipmi":"p"}}"#.to_owned(), "/profiles/0", "ipmi"),
        (format!(r#"{{"name":"a",{image},"put_back":"disk"}}"#), "/profiles/0/put_back", "redfish"),
        (format!(r#"{{"name":"a",{twice},"put_back":"tape"}}"#), "/profiles/0", "tape"),
        (format!(r#"{{"name":"a",{no_url}}}"#), "/profiles/0/prepare/redfish/url_from", "metadata.bmc.url"),
        (format!(r#"{{"name":"a",{none}}}"#), "/profiles/0/prepare/redfish/attributes", "nothing"),
        (format!(r#"{{"name":"a",{list}}}"#), "/profiles/0/prepare/redfish/attributes", "[1]"),
        (format!(r#"{{"name":"a",{image}}},{{"name":"a",{image}}}"#), "/profiles/1/name", "name of its own"),
        ("7".to_owned(), "/profiles/0/when", "profile 1"),
    ] {
        let found = problems(&format!(r#"{{"profiles": [{profiles}]}}"#));
        assert_eq!(found.len(), 1, "{profiles}: {found:?}");
        assert!(found[0].at == at && found[0].message.contains(word), "{profiles}: {found:?}");
    }
    assert!(problems(r#"{"profile": []}"#)[0].message.contains("profile"));
    assert!(problems(r#"{"profiles": 7}"#).len() == 1 && problems("nonsense").len() == 1);
}
