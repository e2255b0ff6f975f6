//! What one span says about its trace: is it an LLM call, of which model, how many tokens, whose session, which prompt.
//!
//! Promise: reads OpenInference (`llm.*`), OpenTelemetry GenAI (`gen_ai.*`, current and deprecated), OpenLLMetry and the Vercel AI
//! SDK by one table ([`keys`]), the first alias present winning; a function of the span, its scope and its resource alone;
//! bounded in bytes whatever comes; what had to be mended is marked ([`Marks`]), never refused.
//! Cost:    a span that is neither root nor LLM call nor names anything pays for one look at each key.
//! On disk: see [`stored`], the form in which facts lie in a trace's state.
//! Not here: what the spans of a trace mean together ([`crate::row`]), how facts are merged ([`crate::trace`]).
//! Kept by:  `tests/rows.rs` (exports of real SDKs), `tests`.
//!
//! - `keys`: which attribute means what, in which order. `draft`: a span being read; `finish`: its facts.
//! - `words`: its input and output. `single`: what a span says without its trace.
//! - `values`: tokens, texts, JSON out of attribute values. `loose`, `messages`: JSON texts in attributes. `failure`: timeouts.

mod draft;
mod failure;
mod finish;
mod keys;
mod lookup;
mod loose;
mod marks;
mod messages;
mod print;
mod single;
mod stored;
mod values;
mod words;

pub(crate) use draft::{Reader, ResourceFacts, is_clock_sane};
pub(crate) use loose::{Flat, flat_fields};
pub(crate) use marks::Marks;
pub use single::{OfResource, Single, Singles};
pub(crate) use stored::{Emitter, Facts, Flag, Text, contradict, take_text};

/// How spans are read; from config.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Attributes that name a prompt, in this order. `metadata.X` reads key X of the JSON text in `metadata`.
    pub prompt_keys: Vec<String>,
    /// Keep input and output texts (first 4 KiB) in a row's metadata.
    pub texts: bool,
}

impl Default for Reading {
    fn default() -> Self {
        let prompt_keys = [
            "prompt.id",
            "prompt_id",
            "metadata.prompt_id",
            "traceloop.prompt.key",
            "traceloop.association.properties.prompt_id",
            "gen_ai.prompt.name",
            "llm.prompt_template.name",
        ];
        Self { prompt_keys: prompt_keys.map(str::to_owned).to_vec(), texts: true }
    }
}

impl Reading {
    /// How early `key` stands in the list of those that name a prompt.
    fn rank_of_prompt_key(&self, key: &str) -> Option<u8> {
        let at = self.prompt_keys.iter().position(|known| known == key)?;
        Some(u8::try_from(at).unwrap_or(u8::MAX))
    }
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
