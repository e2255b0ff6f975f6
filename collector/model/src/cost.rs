//! What LLM calls cost: the price table, and token counts split into classes that are priced apart.
//!
//! Promise: the classes of a [`Usage`] are disjoint and sum to its total; prices and costs are exact decimals, never rounded;
//! a model that the table does not know has no price, rather than a price of zero.
//! Config:   `config/prices.toml`, which documents its own form; here it comes as the JSON value of that TOML.
//! Not here: which spans are calls ([`crate::row`]), reading the file (the daemon's config).
//! Kept by:  `tests::classes_sum_to_the_total`, `tests::the_shipped_table_prices_known_names`.

mod name;
mod usage;

use std::collections::HashMap;

use rust_decimal::Decimal;
use serde_json::{Map, Value};

pub use usage::{Classes, Usage};

/// What a model's tokens cost.
#[derive(Clone, Debug)]
pub struct Prices {
    currency: String,
    by_name: HashMap<String, Price>,
}

impl Default for Prices {
    fn default() -> Self {
        Self { currency: "USD".into(), by_name: HashMap::new() }
    }
}

/// The price table cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("price table: {0}")]
pub struct BadPrices(pub String);

/// The dearest price of a million tokens that a table may hold.
const PRICE_MAX: Decimal = Decimal::from_parts(5_000, 0, 0, false, 0);
/// The most decimals of a price.
const PRICE_SCALE_MAX: u32 = 6;

/// What a million tokens of each class cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt.
    pub input: Decimal,
    /// Of the answer.
    pub output: Decimal,
    /// Of the prompt, read from the provider's cache.
    pub cached_input: Decimal,
    /// Of the prompt, written to it.
    pub cache_write: Decimal,
    /// Of the prompt, as sound.
    pub audio_input: Decimal,
    /// Of the answer, as sound.
    pub audio_output: Decimal,
    /// Of the answer, not shown.
    pub reasoning: Decimal,
}

/// What calls cost, in the table's currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cost {
    /// For prompts.
    pub input: Decimal,
    /// For answers.
    pub output: Decimal,
}

impl Cost {
    /// For both; none on overflow.
    #[must_use]
    pub fn total(&self) -> Option<Decimal> {
        Some(self.input.checked_add(self.output)?.normalize())
    }

    /// Both costs together; none on overflow.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Option<Self> {
        Some(Self { input: self.input.checked_add(other.input)?, output: self.output.checked_add(other.output)? })
    }
}

impl Prices {
    /// Reads config/prices.toml's form (JSON value already parsed by the daemon's config). The first mistake is told.
    pub fn from_json(table: &Value) -> Result<Self, BadPrices> {
        let table = table.as_object().ok_or_else(|| BadPrices("it is not a table".into()))?;
        if let Some(key) = table.keys().find(|key| !["currency", "model"].contains(&key.as_str())) {
            return Err(BadPrices(format!("unknown key {key:?}")));
        }
        let mut prices = Self::default();
        if let Some(currency) = table.get("currency") {
            let text = currency.as_str().filter(|text| text.len() == 3);
            prices.currency = text.ok_or_else(|| BadPrices("currency is not a three-letter code".into()))?.to_owned();
        }
        let models = match table.get("model") {
            None => &[][..],
            Some(Value::Array(models)) => models,
            Some(_) => return Err(BadPrices("model is not a list of tables: write [[model]]".into())),
        };
        for model in models {
            let model = model.as_object().ok_or_else(|| BadPrices("a model is not a table".into()))?;
            prices.add(model)?;
        }
        Ok(prices)
    }

    fn add(&mut self, model: &Map<String, Value>) -> Result<(), BadPrices> {
        let name = model.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| BadPrices("a model has no name".into()))?;
        let price = Price::from_json(name, model)?;
        let others = match model.get("names") {
            None => &[][..],
            Some(Value::Array(names)) => names,
            Some(_) => return Err(BadPrices(format!("names of {name:?} is not a list"))),
        };
        for other in others.iter().map(Value::as_str).chain([Some(name)]) {
            let other = other.ok_or_else(|| BadPrices(format!("a name of {name:?} is not text")))?;
            if self.by_name.insert(other.to_ascii_lowercase(), price).is_some() {
                return Err(BadPrices(format!("{other:?} is there twice")));
            }
        }
        Ok(())
    }

    /// The code of the currency that prices are in.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// The price of a model by the name that spans give it.
    #[must_use]
    pub fn of(&self, model: &str) -> Option<&Price> {
        name::candidates(model).find_map(|name| self.by_name.get(name.as_ref()))
    }

    /// What a call costs; none if the model is not known, the tokens are not, or the sum overflows.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Cost> {
        self.of(model)?.cost(usage)
    }
}

/// The sum in whole parts of 10^12 first: that is exact, for prices have at most six decimals and a table has none above 5,000.
fn price_of<const N: usize>(classes: [(i64, Decimal); N]) -> Option<i128> {
    let mut sum = 0_i128;
    for (tokens, price) in classes.into_iter().filter(|class| class.0 != 0) {
        let decimals = PRICE_SCALE_MAX.checked_sub(price.scale())?;
        let millionths = price.mantissa().checked_mul(10_i128.pow(decimals))?;
        sum = sum.checked_add(millionths.checked_mul(i128::from(tokens))?)?;
    }
    Some(sum)
}

/// A cost in whole parts of 10^12, so that many are added up fast and exactly.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts {
    input: i128,
    output: i128,
}

impl Parts {
    pub(crate) fn plus(self, other: Self) -> Self {
        // Neither is negative, and what saturates is no decimal either.
        Self { input: self.input.saturating_add(other.input), output: self.output.saturating_add(other.output) }
    }

    /// As decimals; none on overflow.
    pub(crate) fn cost(self) -> Option<Cost> {
        let decimal = |parts| Decimal::try_from_i128_with_scale(parts, 2 * PRICE_SCALE_MAX).ok();
        Some(Cost { input: decimal(self.input)?, output: decimal(self.output)? })
    }
}

impl Price {
    /// What a call costs; none if its tokens are not known, or the sum overflows.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Cost> {
        self.parts(usage)?.cost()
    }

    /// The same for prompt and answer together in whole parts of 10^12, in which every cost is whole.
    #[must_use]
    pub fn trillionths(&self, usage: &Usage) -> Option<i128> {
        let parts = self.parts(usage)?;
        parts.input.checked_add(parts.output)
    }

    /// The same, before it is a decimal.
    pub(crate) fn parts(&self, usage: &Usage) -> Option<Parts> {
        let classes = usage.classes()?;
        Some(Parts {
            input: price_of([
                (classes.fresh, self.input),
                (classes.cached, self.cached_input),
                (classes.cache_write, self.cache_write),
                (classes.audio_input, self.audio_input),
            ])?,
            output: price_of([
                (classes.text, self.output),
                (classes.reasoning, self.reasoning),
                (classes.audio_output, self.audio_output),
            ])?,
        })
    }

    fn from_json(name: &str, model: &Map<String, Value>) -> Result<Self, BadPrices> {
        const KEYS: [&str; 9] = [
            "name",
            "names",
            "input",
            "output",
            "cached_input",
            "cache_write",
            "audio_input",
            "audio_output",
            "reasoning",
        ];
        if let Some(key) = model.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(BadPrices(format!("unknown key {key:?} of {name:?}")));
        }
        let price = |key: &str| {
            let text = match model.get(key) {
                None => return Ok(None),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            match text.parse::<Decimal>() {
                // Within these bounds even 2^63 tokens times the price is an exact decimal of 28 digits.
                Ok(price) if !price.is_sign_negative() && price <= PRICE_MAX && price.scale() <= PRICE_SCALE_MAX => {
                    Ok(Some(price))
                }
                _ => Err(BadPrices(format!(
                    "{key} of {name:?} is {text:?}, not a price from 0 to {PRICE_MAX} with at most {PRICE_SCALE_MAX} decimals"
                ))),
            }
        };
        let required =
            |key: &str| price(key).and_then(|p| p.ok_or_else(|| BadPrices(format!("{name:?} has no {key}"))));
        let (input, output) = (required("input")?, required("output")?);
        Ok(Self {
            input,
            output,
            cached_input: price("cached_input")?.unwrap_or(input),
            cache_write: price("cache_write")?.unwrap_or(input),
            audio_input: price("audio_input")?.unwrap_or(input),
            audio_output: price("audio_output")?.unwrap_or(output),
            reasoning: price("reasoning")?.unwrap_or(output),
        })
    }
}

#[cfg(test)]
mod tests;
