//! What the calls of a trace cost together.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::calls::Call;
use super::json::{Object, put_double};
use crate::cost::{Cost, Parts, Price, Prices};
use crate::facts::Marks;

/// What the calls cost together. None if none can be priced; marked if some that took tokens cannot.
pub(super) fn cost(calls: &[Call<'_>], prices: &Prices, marks: &mut Marks) -> Option<Cost> {
    let mut sum: Option<Parts> = None;
    let mut unpriced = false;
    // A trace has few models, and looking one up costs more than all else here.
    let mut known: Vec<(Option<&str>, Option<&Price>)> = Vec::new();
    for call in calls.iter().filter(|call| call.facts.usage.is_known()) {
        let model = call.model();
        let price = match known.iter().rev().take(MODELS_KNOWN_MAX).find(|known| known.0 == model) {
            Some((_, price)) => *price,
            None => {
                let price = model.and_then(|model| prices.of(model));
                known.push((model, price));
                price
            }
        };
        match price.and_then(|price| price.parts(&call.facts.usage)) {
            Some(parts) => sum = Some(sum.unwrap_or_default().plus(parts)),
            None => unpriced |= call.facts.usage.sums().2 > 0,
        }
    }
    let sum = sum?.cost()?;
    marks.add_if(unpriced, Marks::COST_PARTIAL);
    Some(sum)
}

/// Models whose price is not looked up again, of those that came last.
const MODELS_KNOWN_MAX: usize = 8;

/// Puts a cost as a row shows it; nothing on overflow.
pub(super) fn put_cost(metadata: &mut Object<'_>, cost: &Cost, prices: &Prices) {
    let numbers = || Some([number(cost.input)?, number(cost.output)?, number(cost.total()?)?]);
    let Some([input, output, total]) = numbers() else { return };
    metadata.with("cost", |out| {
        let mut cost = Object::begin(out);
        cost.text("currency", Some(prices.currency()));
        cost.with("input", |out| put_double(out, input));
        cost.with("output", |out| put_double(out, output));
        cost.with("total", |out| put_double(out, total));
        cost.end();
    });
}

/// A decimal as a double: its 15 leading digits survive the way through one exactly, and costs have fewer.
fn number(amount: Decimal) -> Option<f64> {
    const EXACT: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    // Both are exact, so that their quotient is the double next to the decimal: what parsing its text gives.
    if let (Some(digits), Some(power)) = (amount.mantissa().to_u64(), EXACT.get(amount.scale() as usize))
        && digits < 1_000_000_000_000_000
    {
        return Some(digits as f64 / power);
    }
    amount.round_sf(15)?.normalize().to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// The quick way gives what the text of the decimal reads as.
        #[test]
        fn a_decimal_is_the_double_that_its_text_reads_as(digits in 0..=9_999_999_999_999_999_i64, scale in 0..=18_u32) {
            let amount = Decimal::new(digits, scale);
            let text = amount.round_sf(15).unwrap().normalize().to_string();
            prop_assert_eq!(number(amount), text.parse().ok());
        }
    }
}
