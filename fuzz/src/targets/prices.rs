//! The price table, and what it says a call costs, against arithmetic on whole numbers.

use emberd_model::cost::{Price, Prices, Usage};
use rust_decimal::Decimal;

use super::head;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let shipped = include_str!("../../../config/prices.toml");
    let some = shipped.find("\n\n# OpenAI").map_or(shipped, |at| &shipped[at..(at + 2_000).min(shipped.len())]);
    let small = "[[model]]\nname = \"a\"\ninput = 0.15\noutput = \"10.00\"\nnames = [\"b\"]\nreasoning = \"5000\"\n";
    [small, some].map(|text| [&[7; 32][..], text.as_bytes()].concat()).to_vec()
}

/// A table is refused with a reason, or prices every name that it holds: exactly, or not at all where that overflows.
pub(super) fn prices(input: &[u8]) {
    let (counts, text) = head::<32>(input);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(table) = toml::from_str::<serde_json::Value>(text) else { return };
    let prices = match Prices::from_json(&table) {
        Ok(prices) => prices,
        Err(bad) => return assert!(!bad.0.is_empty()),
    };
    let models = table.get("model").and_then(|models| models.as_array()).map(Vec::as_slice).unwrap_or_default();
    let usage = usage(&counts);
    for model in models {
        let names = model.get("names").and_then(|names| names.as_array()).map(Vec::as_slice).unwrap_or_default();
        for name in names.iter().chain(model.get("name")).filter_map(|name| name.as_str()) {
            let price = prices.of(name).unwrap_or_else(|| panic!("{name:?} is in the table and has no price"));
            is_exact(&prices, name, price, &usage);
        }
    }
    assert!(prices.currency().len() == 3);
    let _ = prices.of(text);
}

fn usage(bytes: &[u8; 32]) -> Usage {
    let count = |nth: usize| -> Option<i64> {
        let [shift, low, high, flag] = [bytes[4 * nth], bytes[4 * nth + 1], bytes[4 * nth + 2], bytes[4 * nth + 3]];
        (flag % 4 != 0).then(|| i64::from(u16::from_le_bytes([low, high])) << (shift % 47))
    };
    Usage {
        prompt: count(0),
        completion: count(1),
        total: count(2),
        cache_read: count(3),
        cache_write: count(4),
        audio_input: count(5),
        reasoning: count(6),
        audio_output: count(7),
    }
}

/// A price in millionths of a unit for a million tokens: prices have at most six decimals.
fn millionths(price: Decimal) -> i128 {
    let millionths = (price * Decimal::from(1_000_000)).normalize();
    assert_eq!(millionths.scale(), 0, "{price} has more than six decimals");
    millionths.mantissa()
}

fn is_exact(prices: &Prices, name: &str, price: &Price, usage: &Usage) {
    let Some(classes) = usage.classes() else { return assert!(prices.cost(name, usage).is_none()) };
    let (prompt, completion, total) = usage.sums();
    let parts = [
        (classes.fresh, price.input),
        (classes.cached, price.cached_input),
        (classes.cache_write, price.cache_write),
        (classes.audio_input, price.audio_input),
        (classes.text, price.output),
        (classes.reasoning, price.reasoning),
        (classes.audio_output, price.audio_output),
    ];
    assert!(parts.iter().all(|(count, _)| *count >= 0), "{classes:?}");
    assert!(prompt >= 0 && completion >= 0 && total >= 0);
    let Some(cost) = prices.cost(name, usage) else { return };
    let sum = |parts: &[(i64, Decimal)]| -> i128 {
        parts.iter().map(|&(count, price)| i128::from(count) * millionths(price)).sum()
    };
    for (cost, expected) in [(cost.input, sum(&parts[..4])), (cost.output, sum(&parts[4..]))] {
        // Millionths of millionths.
        let scale = 12_u32.checked_sub(cost.scale()).unwrap_or_else(|| panic!("{cost} has more than twelve decimals"));
        assert_eq!(cost.mantissa().checked_mul(10_i128.pow(scale)), Some(expected), "{name} for {usage:?}");
    }
}
