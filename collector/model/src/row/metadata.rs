//! The `metadata` of a row: a JSON object that PostgreSQL takes, whatever came. Its keys are sorted, as `serde_json` sorts them.

use serde_json::Value;

use super::calls::Call;
use super::json::{Object, json_or_text, json_value, millis, put_double, put_list, put_text};
use super::{last_of, money, prompt};
use crate::cost::Prices;
use crate::facts::{Flag, Marks, Text};
use crate::trace::TraceState;

pub(super) fn text(
    state: &TraceState,
    has_root: bool,
    calls: &[Call<'_>],
    llm_time_ms: u64,
    prices: &Prices,
    mut marks: Marks,
) -> String {
    // What may have to be marked comes first, for marks stand in the midst.
    let silent = calls.iter().any(|call| !call.failed() && !call.facts.usage.is_known());
    marks.add_if(silent, Marks::TOKENS_MISSING);
    marks.add_if(calls.iter().any(|call| call.facts.usage.cache_is_beside_prompt()), Marks::CACHE_ADDED);
    let cost = money::cost(calls, prices, &mut marks);
    let tags = state.word(Text::Tags).map(|tags| json_or_text(tags, &mut marks));
    let user = state.word(Text::Metadata).map(|user| json_or_text(user, &mut marks));
    let tools = tool_calls(calls, &mut marks);
    let (input, output) = (state.word(Text::Input), state.word(Text::Output));

    let texts = [input, output, user.as_deref(), tools.as_deref()];
    let mut out =
        String::with_capacity(640 + texts.iter().flatten().map(|text| text.len() + text.len() / 16).sum::<usize>());
    let mut fields = Object::begin(&mut out);
    if let Some(cost) = cost {
        money::put_cost(&mut fields, &cost, prices);
    }
    fields.text("environment", state.word(Text::Environment));
    fields.number("failed_llm_calls", calls.iter().filter(|call| call.failed()).count() as u64);
    fields.text("finish_reason", calls.last().and_then(|call| call.facts.text(Text::FinishReason)));
    fields.text("input", input);
    fields.number("llm_calls", calls.len() as u64);
    fields.number("llm_time_ms", llm_time_ms);
    if marks != Marks::default() {
        fields.with("marks", |out| put_list(out, marks.words(), put_text));
    }
    if !calls.is_empty() {
        fields.with("models", |out| put_models(out, calls));
    }
    fields.text("output", output);
    fields.text("prompt_ref", prompt(state));
    fields.text("prompt_version", state.prompt_version());
    fields.text("provider", last_of(calls, |call| call.facts.text(Text::Provider)));
    fields.text("request_model", last_of(calls, |call| call.request_model()));
    fields.text("root", (!has_root).then_some("missing"));
    fields.text("service", state.word(Text::Service));
    fields.text("session_id", state.word(Text::Session));
    fields.number("spans", state.spans() as u64);
    let streaming = calls.iter().filter(|call| call.facts.has(Flag::StreamingKnown));
    let streaming = streaming.map(|call| call.facts.has(Flag::Streaming)).reduce(|any, one| any || one);
    fields.json("streaming", streaming.map(|streams| if streams { "true" } else { "false" }));
    fields.json("tags", tags.as_deref());
    fields.json("tool_calls", tools.as_deref());
    if let Some(nanos) = calls.iter().rev().find_map(|call| call.facts.first_token_nanos) {
        fields.with("ttft_ms", |out| put_double(out, millis(nanos)));
    }
    fields.json("user", user.as_deref());
    fields.text("user_id", state.word(Text::User));
    fields.end();
    out
}

/// What all calls asked for, as one list; none if they asked for nothing.
fn tool_calls(calls: &[Call<'_>], marks: &mut Marks) -> Option<String> {
    let mut tools = Vec::new();
    for list in calls.iter().filter_map(|call| call.facts.text(Text::ToolCalls)) {
        match json_value(list, marks) {
            Value::Array(calls) => tools.extend(calls),
            _ => marks.add(Marks::TRUNCATED),
        }
    }
    (!tools.is_empty()).then(|| Value::from(tools).to_string())
}

/// `[{calls, model, tokens}]`, in order of each model's first call.
fn put_models(out: &mut String, calls: &[Call<'_>]) {
    let mut models: Vec<(&str, u64, i64)> = Vec::new();
    for call in calls {
        let (model, tokens) = (call.model().unwrap_or("unknown"), call.facts.usage.sums().2);
        match models.iter_mut().find(|known| known.0 == model) {
            Some(known) => *known = (model, known.1 + 1, known.2.saturating_add(tokens)),
            None => models.push((model, 1, tokens)),
        }
    }
    put_list(out, models, |out, (model, calls, tokens)| {
        let mut fields = Object::begin(out);
        fields.number("calls", calls);
        fields.text("model", Some(model));
        fields.number("tokens", tokens);
        fields.end();
    });
}
