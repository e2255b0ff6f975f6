//! The `metadata` of a row: JSON that PostgreSQL takes, whatever came.

use rust_decimal::Decimal;
use serde_json::{Map, Value};

use crate::cost::{Cost, Prices};
use crate::facts::Marks;

/// JSON out of a text that should be JSON, made safe; the text itself if it is not.
pub(super) fn json_or_text(text: &str, marks: &mut Marks) -> Value {
    safe(serde_json::from_str(text).unwrap_or_else(|_| text.into()), marks)
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

/// Puts a value where there is one.
pub(super) fn put(metadata: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        metadata.insert(key.into(), value.into());
    }
}

/// A cost as a row shows it; none on overflow.
pub(super) fn cost_json(cost: &Cost, prices: &Prices) -> Option<Value> {
    let mut fields = Map::new();
    for (key, amount) in [("input", cost.input), ("output", cost.output), ("total", cost.total()?)] {
        fields.insert(key.into(), number(amount)?);
    }
    fields.insert("currency".into(), prices.currency().into());
    Some(fields.into())
}

/// A decimal as a JSON number: its 15 leading digits survive the way through a double exactly, and costs have fewer.
fn number(amount: Decimal) -> Option<Value> {
    let amount = amount.round_sf(15)?.normalize();
    amount.to_string().parse::<f64>().ok().map(Value::from)
}

/// Nanoseconds as milliseconds with three decimals.
pub(super) fn millis(nanos: u64) -> Value {
    ((nanos / 1_000 + u64::from(nanos % 1_000 >= 500)) as f64 / 1_000.0).into()
}
