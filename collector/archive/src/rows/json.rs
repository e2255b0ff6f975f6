//! The value of an attribute as JSON text, and back.
//!
//! Promise: a reader sees what they expect (text `"..."`, whole numbers `1`, others `1.0`, lists, objects, `null` for an empty value), and
//! each text reads back as the value that it was written from. What JSON has no word for is an object with one key that begins with `$`:
//! `{"$bytes": base64}`, `{"$double": "NaN"}` (also `Infinity`, `-Infinity`, or the bits of another NaN in hex), `{"$pairs": [[key, value]]}`
//! for pairs that repeat a key. A key of an application's own that begins with `$` gets one more in front.
//! Not here: values that only the profiling signal has, pairs without a value ([`Odd`]): their spans are kept whole in `extra`.
//! Kept by:  `tests`.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// JSON cannot say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Odd;

/// Values inside each other that are written; the door lets 32 pass.
const DEPTH_MAX: u32 = 36;

/// Writes a value; what was written of one that is odd is to be thrown away.
pub(super) fn put_value(out: &mut Vec<u8>, value: &AnyValue) -> Result<(), Odd> {
    put(out, value, 0)
}

fn put(out: &mut Vec<u8>, value: &AnyValue, depth: u32) -> Result<(), Odd> {
    if depth > DEPTH_MAX {
        return Err(Odd);
    }
    match &value.value {
        None => out.extend_from_slice(b"null"),
        Some(Value::StringValue(text)) => put_text(out, text.as_bytes()),
        Some(Value::BoolValue(bool)) => put_bool(out, *bool),
        Some(Value::IntValue(int)) => put_int(out, *int),
        Some(Value::DoubleValue(double)) => put_double(out, *double),
        Some(Value::BytesValue(bytes)) => {
            out.extend_from_slice(b"{\"$bytes\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
        Some(Value::ArrayValue(list)) => {
            put_list(out, b"[", &list.values, b"]", |out, value| put(out, value, depth + 1))?;
        }
        Some(Value::KvlistValue(list)) => put_pairs(out, &list.values, depth)?,
        Some(Value::StringValueStrindex(_)) => return Err(Odd),
    }
    Ok(())
}

fn put_pairs(out: &mut Vec<u8>, pairs: &[KeyValue], depth: u32) -> Result<(), Odd> {
    fn value_of(pair: &KeyValue) -> Result<&AnyValue, Odd> {
        pair.value.as_ref().filter(|_| pair.key_strindex == 0).ok_or(Odd)
    }
    let mut seen = HashSet::with_capacity(pairs.len());
    if pairs.iter().all(|pair| seen.insert(pair.key.as_str())) {
        return put_list(out, b"{", pairs, b"}", |out, pair| {
            let from = out.len() + 1;
            put_text(out, pair.key.as_bytes());
            if pair.key.starts_with('$') {
                out.insert(from, b'$');
            }
            out.push(b':');
            put(out, value_of(pair)?, depth + 1)
        });
    }
    put_list(out, b"{\"$pairs\":[", pairs, b"]}", |out, pair| {
        out.push(b'[');
        put_text(out, pair.key.as_bytes());
        out.push(b',');
        put(out, value_of(pair)?, depth + 1)?;
        out.push(b']');
        Ok(())
    })
}

fn put_list<T>(
    out: &mut Vec<u8>,
    begin: &[u8],
    elements: &[T],
    end: &[u8],
    mut put: impl FnMut(&mut Vec<u8>, &T) -> Result<(), Odd>,
) -> Result<(), Odd> {
    out.extend_from_slice(begin);
    for (nth, element) in elements.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        put(out, element)?;
    }
    out.extend_from_slice(end);
    Ok(())
}

pub(super) fn put_bool(out: &mut Vec<u8>, bool: bool) {
    out.extend_from_slice(if bool { b"true" } else { b"false" });
}

pub(super) fn put_int(out: &mut Vec<u8>, int: i64) {
    let mut digits = [0; 20];
    let (mut at, mut left) = (digits.len(), int.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if int < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

pub(super) fn put_double(out: &mut Vec<u8>, double: f64) {
    use std::io::Write as _;
    // Writing to a `Vec` does not fail. Debug prints the shortest text that reads back as this double, always with a point or an exponent.
    let _ = match double {
        _ if double.is_finite() => write!(out, "{double:?}"),
        f64::INFINITY => write!(out, "{{\"$double\":\"Infinity\"}}"),
        f64::NEG_INFINITY => write!(out, "{{\"$double\":\"-Infinity\"}}"),
        _ if double.to_bits() == f64::NAN.to_bits() => write!(out, "{{\"$double\":\"NaN\"}}"),
        _ => write!(out, "{{\"$double\":\"{:016x}\"}}", double.to_bits()),
    };
}

/// Writes a text in quotes.
#[inline]
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = first_to_escape(rest) {
        out.extend_from_slice(&rest[..at]);
        put_escape(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cold]
fn put_escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Where the first byte stands that JSON does not take as it is: a quote, a backslash, a control.
#[inline]
fn first_to_escape(text: &[u8]) -> Option<usize> {
    // Without a branch inside, so that blocks become vector instructions.
    let odd = |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
    let (blocks, rest) = text.as_chunks::<64>();
    for (nth, block) in blocks.iter().enumerate() {
        if block.iter().fold(0, |all, &byte| all | odd(byte)) != 0 {
            return block.iter().position(|&byte| odd(byte) != 0).map(|at| 64 * nth + at);
        }
    }
    let from = text.len() - rest.len();
    let (blocks, rest) = rest.as_chunks::<8>();
    for (nth, block) in blocks.iter().enumerate() {
        if block.iter().fold(0, |all, &byte| all | odd(byte)) != 0 {
            return block.iter().position(|&byte| odd(byte) != 0).map(|at| from + 8 * nth + at);
        }
    }
    rest.iter().position(|&byte| odd(byte) != 0).map(|at| text.len() - rest.len() + at)
}

/// Reads what [`put_value`] wrote.
pub(super) fn value_of(json: &str) -> Result<AnyValue, serde_json::Error> {
    serde_json::from_str::<Any>(json).map(|any| any.0)
}

struct Any(AnyValue);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor).map(|value| Self(AnyValue { value }))
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of an attribute")
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Option<Value>, E> {
        Ok(Some(Value::BoolValue(bool)))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Option<Value>, E> {
        Ok(Some(Value::IntValue(int)))
    }

    fn visit_u64<E: serde::de::Error>(self, int: u64) -> Result<Option<Value>, E> {
        i64::try_from(int).map(|int| Some(Value::IntValue(int))).map_err(|_| E::custom("a whole number beyond 64 bits"))
    }

    fn visit_f64<E>(self, double: f64) -> Result<Option<Value>, E> {
        Ok(Some(Value::DoubleValue(double)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Value>, E> {
        Ok(Some(Value::StringValue(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Option<Value>, A::Error> {
        let mut values = Vec::new();
        while let Some(Any(value)) = elements.next_element()? {
            values.push(value);
        }
        Ok(Some(Value::ArrayValue(ArrayValue { values })))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Option<Value>, A::Error> {
        let mut values = Vec::new();
        while let Some(mut key) = fields.next_key::<String>()? {
            match key.as_str() {
                "$bytes" => {
                    let bytes = STANDARD.decode(fields.next_value::<String>()?).map_err(A::Error::custom)?;
                    return last(fields, Value::BytesValue(bytes));
                }
                "$double" => {
                    let double =
                        double_of(&fields.next_value::<String>()?).ok_or_else(|| A::Error::custom("no such double"))?;
                    return last(fields, Value::DoubleValue(double));
                }
                "$pairs" => {
                    let pairs = fields.next_value::<Vec<(String, Any)>>()?.into_iter();
                    let values = pairs.map(|(key, Any(value))| pair(key, value)).collect();
                    return last(fields, Value::KvlistValue(KeyValueList { values }));
                }
                _ => {
                    if key.starts_with('$') {
                        key.remove(0);
                    }
                    values.push(pair(key, fields.next_value::<Any>()?.0));
                }
            }
        }
        Ok(Some(Value::KvlistValue(KeyValueList { values })))
    }
}

/// The value, if nothing stands behind it.
fn last<'de, A: MapAccess<'de>>(mut fields: A, value: Value) -> Result<Option<Value>, A::Error> {
    match fields.next_key::<String>()? {
        None => Ok(Some(value)),
        Some(_) => Err(A::Error::custom("a key beside one that begins with $")),
    }
}

/// An attribute.
pub(super) fn pair(key: String, value: AnyValue) -> KeyValue {
    KeyValue { key, value: Some(value), ..KeyValue::default() }
}

fn double_of(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        bits => u64::from_str_radix(bits, 16).ok().map(f64::from_bits),
    }
}

#[cfg(test)]
mod tests;
