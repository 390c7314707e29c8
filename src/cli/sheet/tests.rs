use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::cli::samples;
use crate::wire::HostView;

fn csv(text: &str) -> Sheet {
    read(text, Some(SheetFormat::Csv)).unwrap()
}

fn complaints(sheet: &Sheet) -> Vec<String> {
    sheet.complaints.iter().map(ToString::to_string).collect()
}

#[test]
fn a_table_is_read_whatever_spreadsheet_wrote_it() {
    let plain = csv("hostname,serial,macs,states,metadata.site\nnode1,SN1,52:54:00:00:00:01,\"wipe,image1\",fra1\n");
    let row = &plain.rows[0];
    assert_eq!((row.line, row.hostname.as_deref(), row.serial.as_deref()), (2, Some("node1"), Some("SN1")));
    assert_eq!(row.states.as_ref().unwrap(), &["wipe", "image1"]);
    assert_eq!(row.metadata, json!({"site": "fra1"}).as_object().unwrap().clone());
    let dos =
        "Hostname;Serial;MACs;States;metadata.site\r\n node1 ;SN1;52:54:00:00:00:01;wipe,image1;fra1\r\n;;;;\r\n\r\n";
    assert_eq!(csv(dos).rows, plain.rows);
    let marked = text("\u{feff}hostname,serial\nnode1,SN1\n".as_bytes()).unwrap();
    assert_eq!(csv(&marked).rows[0].hostname.as_deref(), Some("node1"));
}

#[test]
fn cells_say_numbers_only_as_json_writes_them() {
    let sheet = csv("serial,metadata.a,metadata.b,metadata.c.d,metadata.e,metadata.f\nS,7,007,true,\"[1,2]\",null\n");
    let expected = json!({"a": 7, "b": "007", "c": {"d": true}, "e": [1, 2], "f": null});
    assert_eq!(Value::Object(sheet.rows[0].metadata.clone()), expected);
}

#[test]
fn what_is_wrong_is_said_with_line_and_column_all_at_once() {
    let sheet = csv("serial,metadata.a\nSN1,{oops\nSN2\nSN3,\"{}\"\nSN4,\"x\ny\"\n");
    insta::assert_snapshot!(complaints(&sheet).join("\n"), @r"
    line 2, column 2: this begins like JSON, but is none: key must be a string
    line 3: this has 1 cells, and the first line names 2 columns
    line 5, column 2: this cell goes on in the next line: a quotation mark is missing
    ");
    assert_eq!(sheet.rows.len(), 1);
    let sheet = csv("id,serail,serial,serial\n1,2,3,4\n");
    insta::assert_snapshot!(complaints(&sheet).join("\n"), @r#"
    line 1, column 1: hosts are not told by their number here: leave out this column, serial, uuid or macs tell them
    line 1, column 2: there is no column "serail": the first line names them, of hostname, serial, uuid, macs, states, metadata.KEY
    line 1, column 4: the column serial stands here twice
    "#);
    for name in ["metadata.", "metadata.a..b", "metadata..a"] {
        assert!(complaints(&csv(&format!("serial,{name}\nS,1\n")))[0].contains("a part without a name"), "{name}");
    }
    let json = "[\n  {\"serial\": \"SN1\"},\n  {\"serail\": \"SN2\"},\n  {\"serial\": 7}]";
    let sheet = read(json, None).unwrap();
    assert_eq!(sheet.rows[0].line, 2);
    insta::assert_snapshot!(complaints(&sheet).join("\n"), @r"
    line 3, column 11: unknown field `serail`, expected one of `hostname`, `serial`, `uuid`, `macs`, `states`, `metadata`
    line 4, column 14: invalid type: integer `7`, expected a string
    ");
    let twice = "[{\"serial\": \"A\", \"serial\": \"B\"},\n {\"metadata\": {\"a\": [{\"rack\": 1, \"rack\": 2}]}},\n {\"metadata\": [1]}]";
    insta::assert_snapshot!(complaints(&read(twice, None).unwrap()).join("\n"), @r#"
    line 1, column 25: duplicate field `serial`
    line 2, column 39: the key "rack" stands here twice
    line 3, column 18: a JSON object such as {"site": "fra1"} is expected
    "#);
    assert_eq!(complaints(&read("[{},", None).unwrap()), ["line 1, column 5: it ends in the middle"]);
}

#[test]
fn files_that_are_no_lists_are_refused_in_a_sentence() {
    assert!(text(&[0xff, 0xfe, b'h', 0][..]).unwrap_err().contains("UTF-16"));
    assert!(text(&b"a\nb\xff\n"[..]).unwrap_err().contains("line 2 is no UTF-8"));
    assert!(text(std::io::repeat(b'x')).unwrap_err().contains("split it"));
    let many = "serial\n".to_owned() + &"x\n".repeat(MOST_HOSTS + 1);
    assert!(read(&many, None).unwrap_err().contains("split it"));
    assert!(read("", None).unwrap_err().contains("empty"));
    assert!(read("{}", None).unwrap_err().contains("array"));
}

#[test]
fn no_cell_is_a_formula() {
    let host = HostView { serial: Some("=1+1".into()), hostname: None, ..samples::host(1) };
    let mut out = Vec::new();
    write_csv(&[host], &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.lines().nth(1).unwrap().starts_with(",\"\"\"=1+1\"\"\","), "{out}");
    assert_eq!(csv(&out).rows[0].serial.as_deref(), Some("=1+1"));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("no number of JSON", |number| number.is_finite()).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof![Just("7"), Just("007"), Just("null"), Just("-1"), Just("1e5"), Just("\"a"), Just("[")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            map(inner).prop_map(Value::Object),
        ]
    })
}

fn map(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let key = prop_oneof![3 => "[a-z_-]{1,3}", 1 => "\\PC{0,3}"];
    prop::collection::btree_map(key, of, 0..4).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Both formats give back what was written.
    #[test]
    fn what_is_exported_is_imported_as_the_same(
        hosts in prop::collection::vec((prop::option::of("\\PC{1,10}"), map(value())), 1..4)
    ) {
        let hosts: Vec<HostView> = (1..).zip(hosts).map(|(id, (serial, metadata))| {
            // The server trims what firmware says.
            let serial = serial.map(|serial| serial.trim().to_owned()).filter(|serial| !serial.is_empty());
            HostView { serial, metadata, ..samples::host(id) }
        }).collect();
        let (mut table, mut array) = (Vec::new(), Vec::new());
        write_csv(&hosts, &mut table).unwrap();
        write_json(&hosts, &mut array).unwrap();
        for written in [table, array] {
            let sheet = read(&String::from_utf8(written).unwrap(), None).unwrap();
            prop_assert_eq!(complaints(&sheet), [""; 0]);
            prop_assert_eq!(sheet.rows.len(), hosts.len());
            for (row, host) in sheet.rows.iter().zip(&hosts) {
                prop_assert_eq!(&row.hostname, &host.hostname);
                prop_assert_eq!(&row.serial, &host.serial);
                prop_assert_eq!(&row.uuid, &host.uuid);
                prop_assert_eq!(&row.macs, &host.macs);
                prop_assert_eq!(row.states.as_ref(), Some(&host.states));
                prop_assert_eq!(&row.metadata, &host.metadata);
            }
        }
    }
}
