//! What an attribute may hold.
//!
//! Rules that belong to a key apply to the path as well: `llm.token_count.prompt` may come as a list of pairs under `llm`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::{Changes, INDEXED_BYTES_MAX, What, json_text};

/// The most that a token count may be. Phoenix keeps counts in 32 bits, and the sum of a span's two as well.
pub(super) const TOKENS_MAX: i64 = 1_000_000_000;

/// The counts that Phoenix makes columns of, or adds up.
pub(super) const TOKEN_COUNTS: [&str; 3] =
    ["llm.token_count.prompt", "llm.token_count.completion", "llm.token_count.total"];

pub(super) const SPAN_KIND: &str = "openinference.span.kind";

const SESSION: &str = "session.id";

/// What Phoenix calls spans; any other text it shows as UNKNOWN, which is right.
const KINDS: [&str; 12] = [
    "TOOL",
    "CHAIN",
    "LLM",
    "PROMPT",
    "RETRIEVER",
    "EMBEDDING",
    "AGENT",
    "RERANKER",
    "EVALUATOR",
    "GUARDRAIL",
    "DECISION",
    "UNKNOWN",
];

/// Mends the value of a span's attribute, whose key says what it means.
pub(super) fn mend_at(value: Option<&mut AnyValue>, path: &str, changes: &mut Changes) {
    let Some(value) = value.and_then(|value| value.value.as_mut()) else { return };
    if path == SPAN_KIND {
        mend_kind(value, changes);
    }
    if let Value::KvlistValue(list) = value {
        for pair in &mut list.values {
            without_nul(&mut pair.key, path, changes);
            mend_at(pair.value.as_mut(), &format!("{path}.{}", pair.key), changes);
        }
        return;
    }
    mend_one(value, path, changes);
    if TOKEN_COUNTS.contains(&path) {
        mend_count(value, path, changes);
    }
    if let Value::StringValue(text) = value {
        if let Some(plain) = json_text::unescaped(path, text) {
            *text = plain;
            changes.note(What::Nul, path);
        }
        if path == SESSION
            && let Some(short) = shortened(text)
        {
            changes.keep(path, std::mem::replace(text, short));
            changes.note(What::TooLong, path);
        }
    }
}

/// Mends a value whose key means nothing to Phoenix: an event's, or an element of a list.
pub(super) fn mend_plain(value: Option<&mut AnyValue>, place: &str, changes: &mut Changes) {
    if let Some(value) = value.and_then(|value| value.value.as_mut()) {
        mend_one(value, place, changes);
    }
}

fn mend_one(value: &mut Value, place: &str, changes: &mut Changes) {
    match value {
        Value::StringValue(text) => without_nul(text, place, changes),
        Value::BytesValue(bytes) => {
            *value = Value::StringValue(STANDARD.encode(bytes));
            changes.note(What::Bytes, place);
        }
        Value::ArrayValue(list) => list.values.iter_mut().for_each(|value| mend_plain(Some(value), place, changes)),
        Value::KvlistValue(list) => {
            for pair in &mut list.values {
                without_nul(&mut pair.key, place, changes);
                mend_plain(pair.value.as_mut(), place, changes);
            }
        }
        Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_) | Value::StringValueStrindex(_) => {}
    }
}

/// Replaces NULs, as Phoenix means to do itself one day, by U+FFFD.
pub(super) fn without_nul(text: &mut String, place: &str, changes: &mut Changes) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
        changes.note(What::Nul, &place.replace('\0', "\u{fffd}"));
    }
}

/// A kind that is no text makes Phoenix answer 500 to every listing of its project; one without a letter sends its decoder round
/// in a circle.
fn mend_kind(value: &mut Value, changes: &mut Changes) {
    let made = match &*value {
        Value::StringValueStrindex(_) => return,
        Value::StringValue(kind) => {
            let upper = kind.trim().to_ascii_uppercase();
            let is_poison = kind.is_ascii() && !kind.is_empty() && !kind.bytes().any(|byte| byte.is_ascii_alphabetic());
            match KINDS.iter().find(|known| **known == upper) {
                Some(known) if *known != kind.as_str() => known,
                None if is_poison => "UNKNOWN",
                _ => return,
            }
        }
        _ => "UNKNOWN",
    };
    if made == "UNKNOWN" {
        changes.keep(SPAN_KIND, as_text(value));
    }
    *value = Value::StringValue(made.to_owned());
    changes.note(What::Kind, SPAN_KIND);
}

/// A value as people would write it down.
fn as_text(value: &Value) -> String {
    let inner = |value: &Option<AnyValue>| {
        value.as_ref().and_then(|value| value.value.as_ref()).map(as_text).unwrap_or_default()
    };
    match value {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(bool) => bool.to_string(),
        Value::IntValue(int) => int.to_string(),
        Value::DoubleValue(double) => double.to_string(),
        Value::BytesValue(bytes) => STANDARD.encode(bytes),
        Value::StringValueStrindex(index) => index.to_string(),
        Value::ArrayValue(list) => {
            list.values.iter().map(|value| inner(&Some(value.clone()))).collect::<Vec<_>>().join(" ")
        }
        Value::KvlistValue(list) => {
            list.values.iter().map(|pair| format!("{}={}", pair.key, inner(&pair.value))).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Clamps a token count that Phoenix would read as a number too big.
fn mend_count(value: &mut Value, path: &str, changes: &mut Changes) {
    let Some(count) = count(value) else { return };
    let clamped = count.clamp(-TOKENS_MAX as i128, TOKENS_MAX as i128);
    if clamped != count {
        changes.keep(path, as_text(value));
        changes.note(What::BigNumber, path);
        *value = Value::IntValue(clamped as i64);
    }
}

/// The whole number that Phoenix (Python's `int`) reads from a value, saturating; none if it reads none.
pub(super) fn count(value: &Value) -> Option<i128> {
    match value {
        Value::IntValue(int) => Some(i128::from(*int)),
        // Rust's cast saturates, as wanted; NaN and the infinities are not read.
        Value::DoubleValue(double) if double.is_finite() => Some(*double as i128),
        Value::StringValue(text) => {
            let digits: String = text.trim().chars().filter(|&char| char != '_').collect();
            let plain = digits.strip_prefix(['-', '+']).unwrap_or(&digits);
            if plain.is_empty() || !plain.chars().all(char::is_numeric) {
                return None;
            }
            // Too long for us to read: it may be anything, so it counts as too big. So do other scripts' digits.
            let size = if plain.len() < 30 { plain.parse().unwrap_or(i128::MAX) } else { i128::MAX };
            Some(if digits.starts_with('-') { -size } else { size })
        }
        _ => None,
    }
}

/// A text that fits an index, with a hash of the whole so that different ones stay different; none if it fits as it is.
pub(super) fn shortened(text: &str) -> Option<String> {
    if text.len() <= INDEXED_BYTES_MAX {
        return None;
    }
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let cut = text.floor_char_boundary(INDEXED_BYTES_MAX - 20);
    Some(format!("{}...{fnv:016x}", &text[..cut]))
}
