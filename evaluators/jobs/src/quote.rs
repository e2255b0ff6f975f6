//! What a job would take, before it is made.

use emberd_evaluators_kit::Example;
use emberd_store::Error;
use emberd_store::jobs::{Money, NewTarget, Viewer};
use serde::Serialize;
use serde_json::json;

use crate::check::Checked;
use crate::engine::Shared;
use crate::evaluators::Live;
use crate::examples::{of_dataset, of_trace, seen};
use crate::prepare::filter;
use crate::price::{self, Plus as _};
use crate::prompting::messages;
use crate::request::Source;

/// Examples that are looked at; the others are taken to be like them.
const SAMPLE: usize = 500;
/// Bytes of a token, as texts usually have them, and tokens of a short answer: for the low end.
const BYTES_OF_TOKEN: u64 = 6;
const ANSWER_TOKENS: u64 = 16;

/// What a job would take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quote {
    /// What is judged.
    pub examples: u64,
    /// Examples times steps.
    pub items: u64,
    /// Calls of models, if none is repeated and no answer is known yet.
    pub calls: u64,
    /// Dollars, if prompts are as usual texts and answers short. None where a model has no price.
    pub cost_low: Option<f64>,
    /// Dollars, if every call costs all that is set aside for it. None where a model has no price.
    pub cost_high: Option<f64>,
    /// Models without a price.
    pub unpriced: Vec<String>,
    /// Whether all examples were looked at.
    pub is_exact: bool,
}

pub(crate) async fn quote(shared: &Shared, checked: &Checked, viewer: Viewer) -> Result<Quote, Error> {
    let plan = &checked.plan;
    let (examples, sample) = sample(shared, checked, viewer).await?;
    let steps = plan.steps().count() as u64;
    let models = plan.steps().filter(|step| plan.model(*step).is_some()).count() as u64;
    let (mut low, mut high) = (Money(0), Money(0));
    for example in &sample {
        for (from_low, from_high) in plan.steps().filter_map(|step| prices(shared, checked, step, example)) {
            (low, high) = (low.plus(from_low), high.plus(from_high));
        }
    }
    let scale = if sample.is_empty() { 0.0 } else { examples as f64 / sample.len() as f64 };
    let cost = |money: Money| checked.unpriced.is_empty().then(|| price::dollars(money) * scale);
    Ok(Quote {
        examples,
        items: examples * steps,
        calls: examples * models,
        cost_low: cost(low),
        cost_high: cost(high),
        unpriced: checked.unpriced.clone(),
        is_exact: sample.len() as u64 == examples && plan.run.is_none(),
    })
}

/// Low and high price of a step's call; none where it makes none.
fn prices(shared: &Shared, checked: &Checked, step: i64, example: &Example) -> Option<(Money, Money)> {
    let plan = &checked.plan;
    let model = plan.model(step)?;
    let (bytes, count, tokens_out) = if step == 0 {
        let run = plan.run.as_ref()?;
        let messages = messages(&run.content, &example.input).ok()?;
        (json!({"messages": messages}).to_string().len() + 128, messages.len(), run.max_tokens)
    } else {
        let Live::Judge(judge) = checked.live.get(usize::try_from(step).ok()?.checked_sub(1)?)? else { return None };
        let mut example = example.clone();
        if let Some(run) = &plan.run {
            // The answer is not there yet: as long as it may be.
            example.output = json!("x".repeat(run.max_tokens as usize * 4));
        }
        let prompt = judge.prompt(&example).ok()?;
        (prompt.body(model).to_string().len(), prompt.messages.len(), prompt.max_tokens)
    };
    let low = price::plain(&shared.config.prices, model, bytes as u64 / BYTES_OF_TOKEN, ANSWER_TOKENS)?;
    let high = price::highest(&shared.config.prices, model, price::tokens_max(bytes, count), tokens_out.into())?;
    Some((low.min(high), high))
}

/// How many examples there are, and some of them.
async fn sample(shared: &Shared, checked: &Checked, viewer: Viewer) -> Result<(u64, Vec<Example>), Error> {
    let is_run = checked.plan.run.is_some();
    let example = |target: NewTarget| seen(&target.body, None);
    match &checked.plan.source {
        Source::Dataset { id } => {
            let Some(dataset) = shared.store.dataset(viewer, *id).await? else { return Ok((0, Vec::new())) };
            let count = shared.store.example_count(viewer, *id).await?.unwrap_or(0);
            let some = shared.store.examples(viewer, *id, 0, SAMPLE as u32).await?;
            let some = some.into_iter().map(|one| example(of_dataset(dataset.kind, one.nr, one.body, is_run)));
            Ok((u64::try_from(count).unwrap_or(0), some.collect()))
        }
        Source::Traces(traces) => {
            let filter = filter(checked.plan.prompt, traces);
            let page = shared.store.traces(&filter, None, SAMPLE as u32).await?;
            // How many more there are is not counted: as many as were asked for, at most.
            let count =
                if page.next_cursor.is_some() { traces.limit } else { traces.limit.min(page.data.len() as u64) };
            let some = page.data.iter().take(count as usize).map(|row| example(of_trace(0, row)));
            Ok((count, some.collect()))
        }
    }
}
