//! JSON as text, written as it comes: the `metadata` of a row is built no other way.
//!
//! Promise: the same text that `serde_json` writes of the same values, keys in the order in which they are put; and nothing in it that
//! PostgreSQL refuses, whatever came.
//! Kept by: `row/tests.rs`.

use serde_json::Value;

use crate::facts::{Flat, Marks, flat_fields};

/// An object being written.
pub(super) struct Object<'a> {
    out: &'a mut String,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, is_empty: true }
    }

    /// Puts a key, which needs no escapes, and lets `value` write what it has.
    pub(super) fn with(&mut self, key: &str, value: impl FnOnce(&mut String)) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
        value(self.out);
    }

    /// Puts a text, if there is one.
    pub(super) fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.with(key, |out| put_text(out, value));
        }
    }

    /// Puts a whole number, if there is one.
    pub(super) fn number(&mut self, key: &str, value: impl TryInto<i128>) {
        if let Ok(value) = value.try_into() {
            self.with(key, |out| put_number(out, value));
        }
    }

    /// Puts JSON, if there is some.
    pub(super) fn json(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.with(key, |out| out.push_str(value));
        }
    }

    pub(super) fn end(self) {
        self.out.push('}');
    }
}

/// Writes elements with commas between them.
pub(super) fn put_list<T>(out: &mut String, elements: impl IntoIterator<Item = T>, put: impl Fn(&mut String, T)) {
    out.push('[');
    for (nth, element) in elements.into_iter().enumerate() {
        if nth > 0 {
            out.push(',');
        }
        put(out, element);
    }
    out.push(']');
}

/// Writes a whole number.
pub(super) fn put_number(out: &mut String, number: i128) {
    use std::fmt::Write as _;
    match u64::try_from(number) {
        Ok(number) => {
            let mut digits = [0; 20];
            let (mut at, mut left) = (digits.len(), number);
            loop {
                at -= 1;
                digits[at] = b'0' + (left % 10) as u8;
                left /= 10;
                if left == 0 {
                    break;
                }
            }
            out.extend(digits[at..].iter().map(|&digit| char::from(digit)));
        }
        // Writing to a `String` does not fail.
        Err(_) => drop(write!(out, "{number}")),
    }
}

/// Writes a number with decimals; what is none is null.
pub(super) fn put_double(out: &mut String, number: f64) {
    out.push_str(&Value::from(number).to_string());
}

/// Writes a text in quotes.
pub(super) fn put_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = first_to_escape(rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let byte = rest.as_bytes()[at];
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Where the first byte stands that JSON does not take as it is: a quote, a backslash, a control.
fn first_to_escape(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is 0; those above the first one may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    for (nth, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let odd = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) | controls;
        if odd != 0 {
            return Some(8 * nth + odd.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
    Some(8 * words.len() + at)
}

/// JSON out of a text that should be JSON, made safe; the text itself, in quotes, if it is not.
pub(super) fn json_or_text(text: &str, marks: &mut Marks) -> String {
    flat(text).unwrap_or_else(|| json_value(text, marks).to_string())
}

/// The text of a flat object as `serde_json` writes it: keys sorted, of those that are there twice the last.
fn flat(text: &str) -> Option<String> {
    let (fields, rest) = flat_fields(text)?;
    if !rest.trim_ascii().is_empty() {
        return None;
    }
    let mut fields: Vec<_> = fields.collect();
    fields.sort_by(|a, b| a.0.cmp(b.0));
    let mut out = String::with_capacity(text.len());
    let mut object = Object::begin(&mut out);
    for (nth, (key, value)) in fields.iter().enumerate() {
        if fields.get(nth + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        match value {
            Flat::Text(text) => object.with(key, |out| out.extend(["\"", text, "\""])),
            Flat::Number(json) | Flat::Word(json) => object.json(key, Some(json)),
        }
    }
    object.end();
    Some(out)
}

/// The same as a value.
pub(super) fn json_value(text: &str, marks: &mut Marks) -> Value {
    let value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
    // No text of a state holds a NUL; in JSON one can be written so, and in no other way.
    if memchr::memmem::find(text.as_bytes(), b"\\u0000").is_some() { safe(value, marks) } else { value }
}

/// JSON without NUL in its texts and keys: PostgreSQL's jsonb refuses `\u0000`, which `serde_json` reads happily.
fn safe(value: Value, marks: &mut Marks) -> Value {
    let mut mended = |text: String| {
        if text.contains('\0') {
            marks.add(Marks::NUL);
            text.replace('\0', "\u{FFFD}")
        } else {
            text
        }
    };
    match value {
        Value::String(text) => mended(text).into(),
        Value::Array(elements) => elements.into_iter().map(|element| safe(element, marks)).collect(),
        Value::Object(fields) => {
            let keys: Vec<String> = fields.keys().map(|key| mended(key.clone())).collect();
            let values = fields.into_iter().map(|(_, value)| safe(value, marks));
            Value::Object(keys.into_iter().zip(values).collect())
        }
        other => other,
    }
}

/// Nanoseconds as milliseconds with three decimals.
pub(super) fn millis(nanos: u64) -> f64 {
    (nanos / 1_000 + u64::from(nanos % 1_000 >= 500)) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn texts_are_written_as_serde_json_does(text in r#"([a-z ]{0,9}|["\\\x00-\x20\x7f\xa0é日🙂]){0,12}"#) {
            let mut out = String::new();
            put_text(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn flat_objects_are_written_as_serde_json_does(json in r#"\{([ ]?"[a-c\\\\é]{0,2}"[ ]?:[ ]?("[a-z\\\\\x01\x7fé日]{0,3}"|-?[0-9]{1,3}|[0-9]{17,20}|-0|1e5|true|null|\[\])[ ]?(,|,|,?)){0,4}"x": 1\}[ x]?"#) {
            if let Some(text) = flat(&json) {
                prop_assert_eq!(text, serde_json::from_str::<Value>(&json).unwrap().to_string(), "{}", json);
            }
        }

        #[test]
        fn numbers_are_written_as_serde_json_does(whole: i64, natural: u64, double: f64) {
            let mut out = String::new();
            put_list(&mut out, [i128::from(whole), i128::from(natural)], put_number);
            put_double(&mut out, double);
            prop_assert_eq!(out, format!("[{whole},{natural}]{}", serde_json::to_string(&double).unwrap()));
        }
    }
}
