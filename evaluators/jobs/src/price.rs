//! What a call may cost at most, and what it did cost, in nano-dollars (of the price table's currency).
//!
//! The highest price of a call is known before it leaves: the tokenizers of all models that are asked this way work on bytes, so a text never
//! has more tokens than bytes; what the endpoint puts between messages is covered by a constant for each. The answer has at most the
//! `max_tokens` that are always sent. Each token counts at the dearest price that its side has. Both are rounded up.

use emberd_model::cost::{Prices, Usage};
use emberd_store::jobs::Money;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

/// Tokens that an endpoint may put around a call and around each message.
const AROUND: u64 = 64;

/// Nano-dollars of a price of a million tokens.
const NANO_PER_TOKEN: Decimal = Decimal::from_parts(1_000, 0, 0, false, 0);

/// The most tokens that a body of so many bytes, with so many messages, can have.
pub(crate) fn tokens_max(body_bytes: usize, messages: usize) -> u64 {
    (body_bytes as u64).saturating_add(AROUND.saturating_mul(messages as u64 + 1))
}

/// The highest price; none where the model has none.
pub(crate) fn highest(prices: &Prices, model: &str, tokens_in: u64, tokens_out: u64) -> Option<Money> {
    let price = prices.of(model)?;
    let dearest_in = price.input.max(price.cached_input).max(price.cache_write).max(price.audio_input);
    let dearest_out = price.output.max(price.reasoning).max(price.audio_output);
    Some(of(tokens_in, dearest_in)?.plus(of(tokens_out, dearest_out)?))
}

/// A price by plain input and output, for quotes.
pub(crate) fn plain(prices: &Prices, model: &str, tokens_in: u64, tokens_out: u64) -> Option<Money> {
    let price = prices.of(model)?;
    Some(of(tokens_in, price.input)?.plus(of(tokens_out, price.output)?))
}

fn of(tokens: u64, per_million: Decimal) -> Option<Money> {
    Decimal::from(tokens).checked_mul(per_million)?.checked_mul(NANO_PER_TOKEN)?.ceil().to_i64().map(Money)
}

/// What a call of this model with this usage cost; none where it is not known.
pub(crate) fn actual(prices: &Prices, model: &str, usage: &Usage) -> Option<Money> {
    let dollars = prices.cost(model, usage)?.total()?;
    dollars.checked_mul(Decimal::from(1_000_000_000))?.ceil().to_i64().map(Money)
}

/// Sums that stop at the end.
pub(crate) trait Plus {
    fn plus(self, other: Self) -> Self;
}

impl Plus for Money {
    fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// In dollars, for people and JSON.
pub(crate) fn dollars(money: Money) -> f64 {
    money.0 as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices() -> Prices {
        Prices::from_json(&serde_json::json!({"model": [
            {"name": "m", "input": "2.5", "output": "10", "reasoning": "12", "cache_write": "3"},
        ]}))
        .unwrap()
    }

    #[test]
    fn the_highest_price_is_never_less_than_the_bill() {
        let prices = prices();
        for (input, output) in [(0, 0), (1, 1), (1_000, 500), (123_457, 4_096)] {
            let highest = highest(&prices, "m", input, output).unwrap();
            for (cache_write, reasoning) in [(0, 0), (input, output)] {
                let usage = Usage {
                    prompt: Some(input as i64),
                    completion: Some(output as i64),
                    cache_write: Some(cache_write as i64),
                    reasoning: Some(reasoning as i64),
                    ..Usage::default()
                };
                assert!(actual(&prices, "m", &usage).unwrap() <= highest);
            }
        }
        assert_eq!(highest(&prices, "m", 1, 1), Some(Money(3_000 + 12_000)));
        assert_eq!(highest(&prices, "unknown", 1, 1), None);
    }
}
