//! A configuration against the JSON Schema that a plugin gives for it. The schema comes from a plugin, so its patterns are
//! matched in linear time, and nothing is fetched for it.
use jsonschema::PatternOptions;
use serde_json::Value;

/// Problems that are told.
const PROBLEMS_MAX: usize = 10;
/// Characters of a problem.
const MESSAGE_MAX_CHARS: usize = 300;

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", if at.is_empty() { String::new() } else { format!("{at}: ") })]
pub struct SchemaProblem {
    /// JSON pointer into the configuration; empty for the whole.
    pub at: String,
    /// A sentence.
    pub message: String,
}

/// The schema itself makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its configuration's schema is none: {0}")]
pub struct BadSchema(pub String);

/// Everything that does not fit, as far as it is told. Empty: it fits. A schema that is `null` takes anything.
///
/// # Errors
/// The schema makes no sense, or refers to what stands somewhere else.
pub fn schema_problems(schema: &Value, config: &Value) -> Result<Vec<SchemaProblem>, BadSchema> {
    if schema.is_null() {
        return Ok(Vec::new());
    }
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    let validator = options.build(schema).map_err(|error| BadSchema(short(&error.to_string())))?;
    let told = validator
        .iter_errors(config)
        .take(PROBLEMS_MAX)
        .map(|error| SchemaProblem { at: error.instance_path().to_string(), message: short(&error.to_string()) });
    Ok(told.collect())
}

fn short(text: &str) -> String {
    text.chars().take(MESSAGE_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: Value, config: Value) -> Vec<String> {
        schema_problems(&schema, &config).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let schema = json!({
            "type": "object",
            "properties": {"racks": {"type": "array", "items": {"type": "string"}}, "url": {"type": "string"}},
            "required": ["url"],
            "additionalProperties": false
        });
        assert_eq!(told(schema.clone(), json!({"url": "u", "racks": ["r7"]})), Vec::<String>::new());
        let wrong = told(schema, json!({"racks": ["r7", 8], "rack": 1}));
        assert!(wrong.iter().any(|text| text == "/racks/1: 8 is not of type \"string\""), "{wrong:?}");
        assert!(wrong.iter().any(|text| text.contains("\"url\"")), "{wrong:?}");
        assert!(wrong.iter().any(|text| text.contains("'rack'")), "{wrong:?}");
    }

    #[test]
    fn a_schema_that_says_nothing_takes_anything() {
        for schema in [json!({}), Value::Null] {
            assert_eq!(told(schema, json!({"a": 1})), Vec::<String>::new());
        }
    }

    #[test]
    fn nothing_is_fetched_and_nonsense_is_said_to_be_it() {
        for schema in [json!({"$ref": "http://127.0.0.1:1/schema"}), json!({"type": "strnig"}), json!({"pattern": "("})]
        {
            assert!(schema_problems(&schema, &json!({})).is_err(), "{schema}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_time() {
        let schema = json!({"properties": {"a": {"pattern": "^(a+)+$"}}});
        let long = format!("{}b", "a".repeat(50_000));
        assert_eq!(told(schema, json!({"a": long})).len(), 1);
    }
}
