use kiwispray_sdk::testing::{Core, response};

use super::*;
use crate::double::{Bench, UUID, ordered};

fn why<T: std::fmt::Debug>(outcome: Result<T, Trouble>) -> String {
    outcome.unwrap_err().why
}

#[test]
fn an_address_is_a_server_and_nothing_more() {
    assert_eq!(Bmc::at("https://10.0.0.7").unwrap().root, "/redfish/v1/");
    assert_eq!(Bmc::at("https://10.0.0.7/").unwrap().root, "/redfish/v1/");
    assert_eq!(Bmc::at("http://bmc:8000/redfish/v1").unwrap().root, "/redfish/v1");
    for odd in
        ["", "10.0.0.7", "ftp://x", "https://", "https://u:p@x", "https://x y", "https://x?y", "file:///etc/passwd"]
    {
        assert!(Bmc::at(odd).is_err(), "{odd}");
    }
}

#[test]
fn links_to_another_server_are_not_followed() {
    for odd in ["http://evil/redfish", "//evil/redfish", "redfish", ""] {
        let core = Core::new().http(move |_| Ok(response(200, &json!({"Systems": {"@odata.id": odd}}))));
        let found = core.run(|| Bmc::at("https://bmc").unwrap().system(UUID, "S7"));
        assert!(why(found).contains("another server"), "{odd}");
        assert_eq!(core.requests().len(), 1);
    }
}

#[test]
fn a_system_is_the_host_only_by_its_uuid_or_where_there_is_none_by_its_serial_number() {
    let same = |theirs: Value, uuid: &str, serial: &str| is_same(&theirs, uuid, serial);
    assert!(same(json!({"UUID": UUID.to_uppercase()}), UUID, ""));
    assert!(same(json!({"UUID": "44454c4c-0000-0010-8000-000000000007"}), UUID, ""), "the other byte order");
    assert!(same(json!({"SerialNumber": " s7 "}), "", "S7"));
    assert!(same(json!({"UUID": "00000000-0000-0000-0000-000000000000", "SerialNumber": "S7"}), UUID, "S7"));
    // A twin: same case, same serial number.
    assert!(!same(json!({"UUID": "11111111-0000-1000-8000-000000000007", "SerialNumber": "S7"}), UUID, "S7"));
    for odd in [json!({}), json!({"UUID": 7}), json!({"UUID": "äää"}), json!({"SerialNumber": ""}), json!(null)] {
        assert!(!same(odd, UUID, ""));
    }
}

#[test]
fn only_what_differs_is_set_and_unknown_attributes_are_named() {
    let attributes = json!({"Turbo": "On", "Cores": "8", "Quiet": true});
    let bios = Bios { link: String::new(), document: json!({ "Attributes": attributes }) };
    let differing = |wanted: Value| bios.differing(wanted.as_object().unwrap());
    assert!(differing(json!({"Turbo": "On", "Cores": 8, "Quiet": "true"})).unwrap().is_empty());
    assert_eq!(Value::Object(differing(json!({"Turbo": "Off", "Cores": 8})).unwrap()), json!({"Turbo": "Off"}));
    assert!(why(differing(json!({"Trubo": "Off"}))).contains("Trubo"));
    let none = Bios { link: String::new(), document: json!([]) };
    assert!(why(none.differing(json!({"a": 1}).as_object().unwrap())).contains("no attribute a"));
}

#[test]
fn a_refusal_is_told_in_the_words_of_the_bmc() {
    let said = |status: u16, body: Value| refusal(&response(status, &body));
    let info = json!({"error": {"message": "general", "@Message.ExtendedInfo": [
        {"Message": "Turbo is\nread-only", "MessageId": "x"}, {"MessageId": "Base.1.0.GeneralError"}]}});
    assert_eq!(said(400, info), "the BMC answers 400 Turbo is read-only");
    let named =
        json!({"error": {"message": "not here", "@Message.ExtendedInfo": [{"MessageId": "Base.1.0.GeneralError"}]}});
    assert_eq!(said(501, named), "the BMC answers 501 not here");
    assert!(said(401, json!("<html>")).contains("the grant"));
    let long = json!({"error": {"@Message.ExtendedInfo": vec![json!({"Message": "x".repeat(1_000)}); 1_000]}});
    assert_eq!(said(500, long).chars().count(), WORDS_MOST);
    for odd in [json!(null), json!([]), json!({"error": 7}), json!({"error": {"@Message.ExtendedInfo": {"a": 1}}})] {
        assert_eq!(said(500, odd), "the BMC answers 500");
    }
}

#[test]
fn a_machine_is_started_in_a_way_that_it_allows() {
    let system = |power: &str, allowed: Value| json!({"PowerState": power, "Actions": {"#ComputerSystem.Reset": {"ResetType@Redfish.AllowableValues": allowed}}});
    assert_eq!(reset_type(&system("Off", json!(["ForceOn", "On"]))), Ok("On"));
    assert_eq!(reset_type(&system("On", json!(["PowerCycle", "ForceRestart"]))), Ok("ForceRestart"));
    assert_eq!(reset_type(&system("On", json!(["PowerCycle"]))), Ok("PowerCycle"));
    assert_eq!(reset_type(&system("On", Value::Null)), Ok("ForceRestart"));
    assert!(reset_type(&system("On", json!(["Nmi"]))).is_err());
}

#[test]
fn a_bmc_is_driven_by_its_links_with_its_etags() {
    let bench = Bench::new();
    let core = bench.core(ordered("R750", "web"));
    core.run(|| {
        let system = Bmc::at("https://bmc").unwrap().system(UUID, "S7").unwrap();
        let bios = system.bios().unwrap();
        system.set(&bios, &bios.differing(json!({"Turbo": "Off"}).as_object().unwrap()).unwrap()).unwrap();
        assert_eq!(system.bios().unwrap().complaint().as_deref(), Some("a jumper is set"));
        system.boot_network_once().unwrap();
        system.reset().unwrap();
        assert_eq!(system.bios().unwrap().document["Attributes"]["Turbo"], "Off");
        system.put_back(PutBack::None).unwrap();
    });
    let double = bench.0.borrow();
    assert_eq!((double.resets.as_slice(), double.boot.0.as_str()), (&["On".to_owned()][..], "None"));
}

#[test]
fn a_bmc_of_another_machine_is_told_apart_before_anything_is_changed() {
    let bench = Bench::new();
    bench.0.borrow_mut().uuid = "22222222-0000-1000-8000-000000000007".into();
    let core = bench.core(ordered("R750", "web"));
    let found = core.run(|| Bmc::at("https://bmc").unwrap().system(UUID, "S7"));
    assert!(why(found).contains("not the host's"));
    assert!(core.requests().iter().all(|request| request.method == "GET"));
}

#[test]
fn endless_lists_of_systems_end() {
    let bench = Bench::new();
    bench.0.borrow_mut().systems = json!(vec![json!({"@odata.id": "/rf/other"}); 100_000]);
    let core = bench.core(ordered("R750", "web"));
    assert!(core.run(|| Bmc::at("https://bmc").unwrap().system(UUID, "S7")).is_err());
    assert_eq!(core.requests().len(), 2 + SYSTEMS_MOST);
}
