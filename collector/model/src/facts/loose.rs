//! JSON texts read loosely: what comes before a mistake is used, unknown parts are passed over without being built.
//!
//! Promise: linear in the text, no memory for what is not asked for, no recursion (`serde_json` passes over values in a loop).

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `each` with the JSON of every element of an array, in order. What is not an array has none.
pub(super) fn each_element<'a>(json: &'a str, each: impl FnMut(&'a str)) {
    read(json, Elements(each));
}

/// Calls `each` with the name and the JSON of every field of an object, in order. What is not an object has none.
pub(super) fn each_field<'a>(json: &'a str, each: impl FnMut(&str, &'a str)) {
    read(json, Fields(each));
}

/// The most fields of an object that [`flat_fields`] reads.
const FLAT_FIELDS_MAX: usize = 16;

/// A value of a flat object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flat<'a> {
    /// Without its quotes; there are no escapes in it.
    Text(&'a str),
    /// A whole number of at most 18 digits, as it is written.
    Number(&'a str),
    /// `true`, `false` or `null`.
    Word(&'a str),
}

/// The fields of an object that is flat and plain, as most metadata is; and what follows it. None of any other text, which [`each_field`]
/// reads; of what this reads, that says the same.
pub(crate) fn flat_fields(json: &str) -> Option<(impl Iterator<Item = (&str, Flat<'_>)>, &str)> {
    let mut fields = [("", Flat::Word("null")); FLAT_FIELDS_MAX];
    let mut len = 0;
    let mut rest = after_blanks(after_blanks(json).strip_prefix('{')?);
    if !rest.starts_with('}') {
        loop {
            let (name, after) = plain_text(rest)?;
            let value = after_blanks(after_blanks(after).strip_prefix(':')?);
            let (value, after) = match value.as_bytes().first()? {
                b'"' => plain_text(value).map(|(text, after)| (Flat::Text(text), after))?,
                b'-' | b'0'..=b'9' => plain_number(value).map(|(number, after)| (Flat::Number(number), after))?,
                _ => {
                    let word = *["true", "false", "null"].iter().find(|word| value.starts_with(**word))?;
                    (Flat::Word(word), &value[word.len()..])
                }
            };
            *fields.get_mut(len)? = (name, value);
            len += 1;
            rest = after_blanks(after);
            match rest.as_bytes().first()? {
                b',' => rest = after_blanks(&rest[1..]),
                b'}' => break,
                _ => return None,
            }
        }
    }
    Some((fields.into_iter().take(len), &rest[1..]))
}

fn after_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// A text in quotes that has neither escapes nor controls in it, and what follows.
fn plain_text(json: &str) -> Option<(&str, &str)> {
    let text = json.strip_prefix('"')?;
    let end = text.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
    (text.as_bytes()[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

/// A whole number that is written in one way only, and what follows; others are not read here.
fn plain_number(json: &str) -> Option<(&str, &str)> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    let len = digits.bytes().take_while(u8::is_ascii_digit).count();
    let is_number = (1..=18).contains(&len) && (!digits.starts_with('0') || json == digits && len == 1);
    let (number, rest) = json.split_at(json.len() - digits.len() + len);
    (is_number && !rest.starts_with(['.', 'e', 'E'])).then_some((number, rest))
}

/// The text that a JSON value is, when it is text or a number; others have none.
pub(super) fn scalar(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str::<Borrowed<'_>>(json).ok().map(|text| text.0),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

/// Whether it looks like a JSON array or object.
pub(super) fn looks_structured(text: &str) -> bool {
    text.trim_start().starts_with(['[', '{'])
}

fn read<'a>(json: &'a str, seed: impl DeserializeSeed<'a, Value = ()>) {
    // A mistake ends the reading; what was read before it stands, as SDKs cut long attributes in their middle.
    let _ = seed.deserialize(&mut serde_json::Deserializer::from_str(json));
}

/// A text that borrows unless it holds escapes.
#[derive(serde::Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

struct Elements<F>(F);

impl<'a, F: FnMut(&'a str)> DeserializeSeed<'a> for Elements<F> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a, F: FnMut(&'a str)> Visitor<'a> for Elements<F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }
    fn visit_seq<A: SeqAccess<'a>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            (self.0)(element.get());
        }
        Ok(())
    }
}

struct Fields<F>(F);

impl<'a, F: FnMut(&str, &'a str)> DeserializeSeed<'a> for Fields<F> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a, F: FnMut(&str, &'a str)> Visitor<'a> for Fields<F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'a>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while let Some((name, value)) = fields.next_entry::<Borrowed<'a>, &RawValue>()? {
            (self.0)(&name.0, value.get());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(json: &str) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        each_field(json, |name, value| {
            fields.extend(scalar(value).map(|value| (name.to_owned(), value.into_owned())));
        });
        fields
    }

    fn flat(json: &str) -> Option<Vec<(String, String)>> {
        let fields = flat_fields(json)?.0.filter_map(|(name, value)| match value {
            Flat::Text(value) | Flat::Number(value) => Some((name.to_owned(), value.to_owned())),
            Flat::Word(_) => None,
        });
        Some(fields.collect())
    }

    #[test]
    fn what_is_usual_is_flat() {
        let fields = |json| flat(json).unwrap();
        let of =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        assert_eq!(
            fields(r#"{"a": "b", "n": -12, "t": true, "é": "日"}"#),
            of(&[("a", "b"), ("n", "-12"), ("é", "日")])
        );
        assert_eq!(fields(" {\n} trailing"), of(&[]));
        for other in
            [r#"{"a": "\n"}"#, r#"{"a": 1.5}"#, r#"{"a": [1]}"#, r#"{"a": 01}"#, r#"{"a" 1}"#, r#"{"a": 1,}"#, "", "[]"]
        {
            assert_eq!(flat(other), None, "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Whatever is read the fast way is what the slow way reads.
        #[test]
        fn flat_is_what_each_field_says(json in r#"[ ]?\{([ ]?"[a-c\\é]{0,3}"[ ]?:[ ]?("[a-z\\\x01é]{0,3}"|-?[0-9]{0,3}|[0-9]\.[0-9]|true|nul|\[\]|\{\})[ ]?,?){0,4}\}?.?"#) {
            if let Some(fields) = flat(&json) {
                prop_assert_eq!(fields, slow(&json), "{}", json);
            }
        }
    }
}
