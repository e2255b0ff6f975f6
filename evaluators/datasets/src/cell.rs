//! Any JSON as the text of one cell, where a format has nothing but text.
//!
//! Promise: [`read`] gives back what [`write`] was given. A text is itself, unless it would be taken for something else.
//! The rule: an empty cell is no value. A cell that begins with `{`, `[` or `"` and is JSON, is that JSON. A cell that begins with
//! `json:` and goes on with JSON, is that JSON: so numbers, booleans are written, since `42` in a table is mostly meant as text.
//! Every other cell is text.
//! Kept by: the tests below.

use serde_json::Value;

/// Before JSON that would be read as text.
const MARK: &str = "json:";

/// The value of a cell; none if it is empty.
pub(crate) fn read(cell: String) -> Option<Value> {
    if cell.is_empty() {
        return None;
    }
    let json = match cell.strip_prefix(MARK) {
        Some(json) => Some(json),
        None if cell.starts_with(['{', '[', '"']) => Some(cell.as_str()),
        None => None,
    };
    Some(json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or(Value::String(cell)))
}

/// The cell of a value.
pub(crate) fn write(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() || text.starts_with(['{', '[', '"']) || text.starts_with(MARK) => {
            value.to_string()
        }
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) => value.to_string(),
        Value::Null | Value::Bool(_) | Value::Number(_) => format!("{MARK}{value}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What looks like JSON and is text, and what is JSON and looks like text, comes back as it was.
    #[test]
    fn a_value_comes_back_from_its_cell() {
        for value in [
            json!(""),
            json!("plain"),
            json!("42"),
            json!("true"),
            json!("{\"a\":1}"),
            json!("[1]"),
            json!("\""),
            json!("\"quoted\""),
            json!("{broken"),
            json!("json:"),
            json!("json:1"),
            json!(" {}"),
            json!(42),
            json!(0.1),
            json!(true),
            json!({ "a": [null, "\n"] }),
            json!([]),
            json!("null"),
            json!("\u{feff}"),
        ] {
            assert_eq!(read(write(&value)), Some(value.clone()), "{value}");
        }
        assert_eq!(read(String::new()), None);
        assert_eq!(read("42".to_owned()), Some(json!("42")));
        assert_eq!(read("{not json".to_owned()), Some(json!("{not json")));
    }
}
