//! What is expected against what is: differences in words, each with its place.
use serde_json::Value;

/// Says where `is` differs from `wanted`. Keys of objects that are not wanted may be anything; everything else is compared
/// as it is, and `null` is also what is not there.
pub(super) fn differences(at: &str, wanted: &Value, is: &Value, into: &mut Vec<String>) {
    match (wanted, is) {
        (Value::Object(wanted), Value::Object(is)) => {
            for (key, wanted) in wanted {
                differences(&format!("{at}.{key}"), wanted, is.get(key).unwrap_or(&Value::Null), into);
            }
        }
        (Value::Array(wanted), Value::Array(is)) if wanted.len() == is.len() => {
            for (index, (wanted, is)) in wanted.iter().zip(is).enumerate() {
                differences(&format!("{at}[{index}]"), wanted, is, into);
            }
        }
        (wanted, is) if wanted == is => {}
        (wanted, is) => into.push(format!("{at}: expected {wanted}, got {is}")),
    }
}

/// As [`differences`], but everything is compared as it is.
pub(super) fn unequal(at: &str, wanted: &Value, is: &Value, into: &mut Vec<String>) {
    if wanted != is {
        into.push(format!("{at}: expected {wanted}, got {is}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_told_with_its_place() {
        let mut told = Vec::new();
        let is = json!({"hold": "wait", "again_after_ms": 5, "vars": [{"a": 1, "b": 2}]});
        differences("verdict", &json!({"hold": "go", "vars": [{"a": 2}], "gone": null}), &is, &mut told);
        assert_eq!(told, [r#"verdict.hold: expected "go", got "wait""#, "verdict.vars[0].a: expected 2, got 1"]);
    }

    #[test]
    fn lists_of_other_lengths_and_other_kinds_differ_as_a_whole() {
        let mut told = Vec::new();
        differences("http", &json!([1]), &json!([1, 2]), &mut told);
        differences("verdict", &json!("pass"), &json!({"hold": "x"}), &mut told);
        unequal("patch", &json!({}), &json!({"states": []}), &mut told);
        assert_eq!(
            told,
            [
                "http: expected [1], got [1,2]",
                r#"verdict: expected "pass", got {"hold":"x"}"#,
                r#"patch: expected {}, got {"states":[]}"#
            ]
        );
    }
}
