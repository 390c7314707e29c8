//! Cells: plain text where that can be, else JSON.

use serde_json::Value;

/// What a cell says. Numbers, `true`, `false` and `null` are such if they are written as JSON writes them: 7 is a number, 007 a
/// text.
pub(super) fn value(cell: &str) -> Result<Value, String> {
    if cell.starts_with(['{', '[', '"']) {
        return serde_json::from_str(cell).map_err(|error| {
            let error = error.to_string();
            let error = error.split(" at line ").next().unwrap_or_default();
            format!("this begins like JSON, but is none: {error}")
        });
    }
    if let Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) = serde_json::from_str(cell) {
        let written = value.to_string();
        if written == cell {
            return Ok(value);
        }
    }
    Ok(Value::String(cell.to_owned()))
}

/// The text that a cell says.
pub(super) fn text(cell: &str) -> Result<String, String> {
    if !cell.starts_with('"') {
        return Ok(cell.to_owned());
    }
    serde_json::from_str(cell).map_err(|_| "this begins like a JSON text, but is none".to_owned())
}

/// The cell that says a value.
pub(super) fn of_value(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) && self::value(text).as_ref() == Ok(value) => text.clone(),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// The cell that says a text.
pub(super) fn of_text(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

/// Whether a text is read back as it is, and no spreadsheet takes it for a formula.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && !text.starts_with(['=', '+', '-', '@', '{', '[', '"'])
        && !text.chars().any(char::is_control)
}
