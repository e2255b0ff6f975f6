//! Numbers in OTLP/JSON, through the fields that hold them, against serde_json's grammar and arithmetic on digits.

use emberd_model::json::to_protobuf;
use emberd_model::wire;
use serde_json::value::RawValue;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    [
        "0",
        "-0.5e+3",
        "18446744073709551615",
        "1.50e1",
        "-9223372036854775808",
        "9007199254740993.0",
        "1e-400",
        "00",
        "1.",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A number is taken if it is one, fits the field and, for a whole field, is whole; then it is exact, quoted or not.
pub(super) fn number(input: &[u8]) {
    const LETTERS: &[u8; 16] = b"0123456789+-.eE0";
    let text: String = input.iter().take(400).map(|&byte| letter(byte, LETTERS)).collect();
    let is_number = serde_json::from_str::<&RawValue>(&text).is_ok();
    let whole = if is_number { whole(&text) } else { None };
    for quote in ["", "\""] {
        let quoted = format!("{quote}{text}{quote}");
        let span = format!(r#""startTimeUnixNano":{quoted}"#);
        let start = of_span(&span).map(|span| i128::from(span.0));
        let fits = whole.filter(|whole| (0..=i128::from(u64::MAX)).contains(whole));
        assert_eq!(start, fits, "{quoted} as 64 bits without a sign");

        let span = format!(r#""attributes":[{{"key":"k","value":{{"intValue":{quoted}}}}}]"#);
        let int = of_span(&span).and_then(|span| match span.1 {
            Some(Held::Int(int)) => Some(i128::from(int)),
            _ => None,
        });
        let fits = whole.filter(|&whole| i64::try_from(whole).is_ok());
        assert_eq!(int, fits, "{quoted} as 64 bits with a sign");

        let span = format!(r#""attributes":[{{"key":"k","value":{{"doubleValue":{quoted}}}}}]"#);
        let double = of_span(&span).and_then(|span| match span.1 {
            Some(Held::Double(double)) => Some(double.to_bits()),
            _ => None,
        });
        let parsed = text.parse::<f64>().ok().filter(|double| is_number && double.is_finite());
        assert_eq!(double, parsed.map(f64::to_bits), "{quoted} as a double");

        let span = format!(r#""droppedAttributesCount":{quoted}"#);
        let fits = whole.filter(|&whole| u32::try_from(whole).is_ok());
        assert_eq!(of_span(&span).map(|span| i128::from(span.2)), fits, "{quoted} as 32 bits");
    }
}

/// What is a letter of numbers stays, all else becomes one.
fn letter(byte: u8, letters: &[u8; 16]) -> char {
    if letters.contains(&byte) { byte.into() } else { letters[usize::from(byte % 16)].into() }
}

enum Held {
    Int(i64),
    Double(f64),
}

/// Start, first attribute's value, and dropped attributes of the span with these members; none if it is refused.
fn of_span(members: &str) -> Option<(u64, Option<Held>, u32)> {
    let ids = r#""traceId":"01010101010101010101010101010101","spanId":"0101010101010101""#;
    let text = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ids},{members}}}]}}]}}]}}"#);
    let request = to_protobuf(text.as_bytes()).ok()?;
    let span = wire::spans(&request).next()?.span;
    let value = span.attributes().next().and_then(|pair| match pair.value() {
        wire::ValueView::Int(int) => Some(Held::Int(int)),
        wire::ValueView::Double(double) => Some(Held::Double(double)),
        _ => None,
    });
    Some((span.start.0, value, span.dropped_attributes))
}

/// The whole number that a number in JSON's grammar is, if it is whole and of less than 25 digits.
fn whole(text: &str) -> Option<i128> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (digits, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let mut all = format!("{before}{after}");
    if all.bytes().all(|digit| digit == b'0') {
        return Some(0);
    }
    // Beyond a thousand, nothing that fits the input is whole and small at once.
    let beyond = if exponent.starts_with('-') { -1_000_i64 } else { 1_000 };
    let exponent = exponent.parse::<i64>().unwrap_or(beyond).clamp(-1_000, 1_000);
    let mut point = before.len() as i64 + exponent;
    while point > all.len() as i64 && all.len() < 2_000 {
        all.push('0');
    }
    while point < 0 {
        all.insert(0, '0');
        point += 1;
    }
    let (whole, fraction) = all.split_at(point as usize);
    if fraction.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let number: i128 = if whole.is_empty() { 0 } else { (whole.len() < 25).then(|| whole.parse().ok()).flatten()? };
    Some(if negative { -number } else { number })
}
