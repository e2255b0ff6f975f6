//! Texts that every database takes, and what the texts of spans name.

use std::borrow::Cow;

use serde_json::{Map, Value};
use uuid::Uuid;

/// How a text names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    Id(Uuid),
    Text(&'a str),
}

/// A UUID in its usual form (8-4-4-4-12 digits, in either case) is an id; anything else is a title or an email.
pub(crate) fn name(text: &str) -> Name<'_> {
    match text.len() {
        36 => Uuid::try_parse(text).map_or(Name::Text(text), Name::Id),
        _ => Name::Text(text),
    }
}

/// The text without NUL, which PostgreSQL keeps nowhere.
pub(crate) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

/// The text of a JSON object without NUL in any of its keys or texts, however deep.
pub(crate) fn json(text: String) -> String {
    // Also true of a harmless backslash before "u0000": that costs a copy and changes nothing.
    if !text.contains("\\u0000") {
        return text;
    }
    let object = serde_json::from_str(&text).unwrap_or_default();
    serde_json::to_string(&clean_object(&object)).unwrap_or_else(|_| "{}".to_owned())
}

/// The JSON text without NUL in any key or text, however deep.
pub(crate) fn json_text(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u0000") {
        return Cow::Borrowed(text);
    }
    Cow::Owned(serde_json::from_str(text).map_or_else(|_| "null".to_owned(), |value| clean(&value).to_string()))
}

/// The value as JSON text without NUL in any key or text, however deep.
pub(crate) fn json_value(value: &Value) -> String {
    let text = value.to_string();
    if text.contains("\\u0000") { clean(value).to_string() } else { text }
}

fn clean_object(object: &Map<String, Value>) -> Map<String, Value> {
    object.iter().map(|(key, value)| (without_nul(key).into_owned(), clean(value))).collect()
}

fn clean(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(text).into_owned()),
        Value::Array(items) => Value::Array(items.iter().map(clean).collect()),
        Value::Object(object) => Value::Object(clean_object(object)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;

    #[test]
    fn a_uuid_in_its_usual_form_is_an_id() {
        let id = Uuid::from_u128(0xabcd_ef01_2345_6789_abcd_ef01_2345_6789);
        assert_eq!(name(&id.to_string()), Name::Id(id));
        assert_eq!(name(&id.to_string().to_uppercase()), Name::Id(id));
        for text in ["", "faq", &id.simple().to_string(), &format!("{{{id}}}"), "é".repeat(18).as_str()] {
            assert_eq!(name(text), Name::Text(text));
        }
    }

    #[test]
    fn nul_goes_and_nothing_else() {
        let object = value!({"a\0b": ["x\0", {"deep": "\0\0y"}], "slashes": "\\u0000", "n": 1});
        let text = json(object.to_string());
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            value!({"ab": ["x", {"deep": "y"}], "slashes": "\\u0000", "n": 1})
        );
        assert_eq!(without_nul("a\0b"), "ab");
    }
}
