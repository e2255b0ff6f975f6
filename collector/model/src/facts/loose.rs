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
