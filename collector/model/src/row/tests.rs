//! What a row promises, sentence by sentence of the specification.

use serde_json::{Value, json};

use super::*;
use crate::facts::sample::*;

fn calls_of(spans: &[Sample]) -> Vec<u64> {
    let state = state(spans);
    let calls = calls::distinct(&state, &tree::Tree::of(&state));
    calls.iter().map(|call| u64::from_be_bytes(call.id.0)).collect()
}

fn meta(spans: &[Sample], key: &str) -> Value {
    read(&row_of(spans)).get(key).cloned().unwrap_or(Value::Null)
}

#[test]
fn a_trace_without_call_or_prompt_has_no_row() {
    for spans in [vec![span(1)], vec![span(1).with("session.id", text("s"))], vec![]] {
        assert_eq!(row(TRACE, &state(&spans), &prices(), true), None);
    }
    let embedding = span(1).with("openinference.span.kind", text("EMBEDDING")).tokens(5, 0);
    assert_eq!(row(TRACE, &state(&[embedding]), &prices(), true), None);
    assert!(row(TRACE, &state(&[call(1, 0)]), &prices(), false).is_some());
    assert!(row(TRACE, &state(&[call(1, 2)]), &prices(), false).is_none(), "its root may still come");
    let named = row_of(&[span(1).with("prompt.id", text("p"))]);
    assert_eq!(
        (named.model.as_str(), named.tokens, &read(&named)["llm_calls"]),
        ("unknown", Tokens::default(), &json!(0))
    );
}

#[test]
fn the_inner_call_of_a_wrapper_counts() {
    assert_eq!(calls_of(&[call(1, 0), call(2, 1), call(3, 2)]), [3]);
    // Through spans that are no calls, and with their parents coming from anywhere.
    let chain = [call(1, 0), span(2).under(1), span(3).under(2), call(4, 3), call(5, 1).between(200, 300)];
    assert_eq!(calls_of(&chain), [4, 5]);
    let row = row_of(&chain);
    assert_eq!((row.tokens.prompt, row.tokens.completion, row.tokens.total), (20, 10, 30));
    // A call under a span that never came is a call of its own.
    assert_eq!(calls_of(&[call(1, 0), call(2, 77).between(200, 300)]), [1, 2]);
}

#[test]
fn vercels_outer_span_is_no_second_call() {
    let outer = span(1)
        .with("ai.operationId", text("ai.generateText"))
        .with("ai.model.id", text("gpt-4o"))
        .with("ai.usage.promptTokens", int(30))
        .with("ai.usage.completionTokens", int(15));
    let step = |id: u64, start: u64| {
        let inner =
            span(id).under(1).between(start, start + 10).with("ai.operationId", text("ai.generateText.doGenerate"));
        inner
            .with("gen_ai.request.model", text("gpt-4o"))
            .with("gen_ai.usage.input_tokens", int(10))
            .with("gen_ai.usage.output_tokens", int(5))
    };
    let tool = span(9).under(1).with("ai.operationId", text("ai.toolCall"));
    let trace = [outer.clone(), step(2, 0), tool, step(3, 20), step(4, 40)];
    assert_eq!(calls_of(&trace), [2, 3, 4]);
    assert_eq!(row_of(&trace).tokens.total, 45);
    // Alone it tells of the call; and where its steps do not know their tokens, they take its, once.
    assert_eq!(row_of(std::slice::from_ref(&outer)).tokens.total, 45);
    let silent = |id: u64, start: u64| step(id, start).without("gen_ai.usage");
    let row = row_of(&[outer.clone(), silent(2, 0), silent(3, 20)]);
    assert_eq!((row.tokens.total, &read(&row)["llm_calls"]), (45, &json!(2)));
    assert_eq!(row_of(&[outer, silent(2, 0), step(3, 20)]).tokens.total, 15);
}

#[test]
fn a_wrapper_lends_what_its_call_does_not_know() {
    let inner = call(2, 1).without("llm.");
    let row = row_of(&[call(1, 0), inner.clone()]);
    assert_eq!((row.model.as_str(), row.tokens.total), ("gpt-4o", 15));
    assert_eq!(calls_of(&[call(1, 0), inner.clone()]), [2]);
    // What it says of its answer is that of its only call.
    let outer = call(1, 0).event("First Token Stream Event", 7, &[]).with("llm.finish_reason", text("stop"));
    assert_eq!(meta(&[outer.clone(), inner.clone()], "ttft_ms"), 7.0);
    assert_eq!(meta(&[outer.clone(), inner.clone()], "finish_reason"), "stop");
    let second = call(3, 1).without("llm.").between(20, 30);
    assert_eq!(meta(&[outer, inner, second], "finish_reason"), Value::Null);
}

#[test]
fn two_instrumentations_that_see_one_call() {
    let twin = |id: u64, scope: &str| call(id, 1).between(10, 20).scope(scope).named("chat");
    // Same parent, time, model and tokens, seen by different instrumentations.
    assert_eq!(calls_of(&[span(1), twin(2, "a"), twin(3, "b")]).len(), 1);
    assert_eq!(
        calls_of(&[span(1), twin(2, "a"), twin(3, "b").without("llm.token")]),
        [2],
        "the one that knows its tokens"
    );
    // Different in anything, and they are two.
    for other in [
        twin(3, "b").tokens(11, 5),
        twin(3, "b").between(20, 30),
        twin(3, "b").with("llm.model_name", text("gpt-4o-mini")),
        twin(3, "b").under(77),
        twin(3, "a"),
        twin(3, "b").failed("no"),
    ] {
        assert_eq!(calls_of(&[span(1), twin(2, "a"), other.clone()]).len(), 2, "{other:?}");
    }
    // One response, though their parents and tokens differ.
    let answer = |id: u64, scope: &str, name: &str, response: &str| {
        twin(id, scope).named(name).under(id + 50).with("gen_ai.response.id", text(response)).tokens(id as i64, 1)
    };
    assert_eq!(calls_of(&[answer(2, "a", "x", "r"), answer(3, "b", "y", "r")]).len(), 1);
    assert_eq!(calls_of(&[answer(2, "a", "x", "r"), answer(3, "a", "y", "r")]).len(), 1);
    assert_eq!(calls_of(&[answer(2, "a", "x", "r"), answer(3, "b", "y", "s")]).len(), 2);
    // Two calls at once, each seen twice, are two.
    let parallel = [span(1), twin(2, "a"), twin(3, "a"), twin(4, "b"), twin(5, "b")];
    assert_eq!(calls_of(&parallel).len(), 2);
    assert_eq!(row_of(&parallel).tokens.total, 30);
}

#[test]
fn circles_of_parents_are_broken() {
    let row = row_of(&[call(1, 2), call(2, 1), call(3, 2)]);
    assert_eq!(read(&row)["marks"], json!(["parent_cycle"]));
    // What hangs on the circle keeps its place.
    assert_eq!(calls_of(&[call(1, 2), call(2, 1), call(3, 2)]), [1, 3]);
    assert_eq!(calls_of(&[call(1, 3), call(2, 1), call(3, 2)]), [1, 2, 3]);
    let own = row_of(&[call(1, 1)]);
    assert_eq!((read(&own).get("root"), &read(&own)["marks"]), (None, &json!(["self_parent"])));
    let long: Vec<Sample> = (1..5_000).map(|id| span(id).under(id % 4_999 + 1)).chain([call(5_000, 1)]).collect();
    assert_eq!(calls_of(&long), [5_000]);
}

#[test]
fn status_is_that_of_the_root() {
    let status = |spans: &[Sample]| row_of(spans).status;
    let failed = |id: u64, start: u64| call(id, 1).between(start, start + 5).failed("boom");
    let late = |id: u64, start: u64| failed(id, start).with("error.type", text("Timeout"));
    // A child that failed and was recovered from is a success.
    assert_eq!(status(&[span(1), failed(2, 0)]), Status::Success);
    assert_eq!(row_of(&[span(1), failed(2, 0)]).error, None);
    assert_eq!(meta(&[span(1), failed(2, 0)], "failed_llm_calls"), 1);
    assert_eq!(status(&[span(1).failed("x"), failed(2, 0)]), Status::Error);
    // The call that failed the trace timed out; a call that was retried did not fail it.
    assert_eq!(status(&[span(1).failed("x"), late(2, 0)]), Status::Timeout);
    assert_eq!(status(&[span(1).failed("x"), late(2, 0), call(3, 1).between(10, 20)]), Status::Error);
    assert_eq!(status(&[span(1).failed("x").exception("TimeoutError", ""), failed(2, 0)]), Status::Timeout);
    assert_eq!(row_of(&[span(1).failed(""), failed(2, 0)]).error.as_deref(), Some("boom"));
}

#[test]
fn status_without_a_root_is_that_of_its_calls() {
    let status = |spans: &[Sample]| row_of(spans).status;
    let failed = |id: u64, start: u64| call(id, 99).between(start, start + 5).failed("boom");
    let succeeded = |id: u64, start: u64| call(id, 99).between(start, start + 5);
    assert_eq!(status(&[succeeded(1, 0)]), Status::Success);
    assert_eq!(status(&[failed(1, 0)]), Status::Error);
    assert_eq!(row_of(&[failed(1, 0)]).error.as_deref(), Some("boom"));
    assert_eq!(status(&[failed(1, 0), succeeded(2, 10)]), Status::Success);
    assert_eq!(status(&[succeeded(1, 0), failed(2, 10)]), Status::Error);
    assert_eq!(status(&[failed(1, 0).failed("Request timed out.")]), Status::Timeout);
    // Another caller's success with another model is no retry.
    let elsewhere = call(2, 98).between(10, 20).with("llm.model_name", text("other"));
    assert_eq!(status(&[failed(1, 0), elsewhere]), Status::Error);
    assert_eq!(status(&[span(5).under(6).failed("x"), succeeded(1, 0)]), Status::Success);
}

#[test]
fn times_are_the_roots_else_the_spread() {
    let root = row_of(&[span(1).between(0, 50), call(2, 1).between(10, 400)]);
    assert_eq!((root.execution_time_ms, root.created_at.0, root.llm_time_ms), (50, NOON, 390));
    assert_eq!(read(&root)["llm_time_ms"], 390);
    let rootless = [call(2, 1).between(10, 40), span(3).under(1).between(5, 20), call(4, 1).between(50, 60)];
    let row = row_of(&rootless);
    assert_eq!((row.execution_time_ms, row.created_at.0, &read(&row)["root"]), (55, NOON + 5 * MS, &json!("missing")));
    // A clock that went mad does not spread over the trace.
    let mut mad = span(5).under(1);
    mad.span.start_time_unix_nano = 0;
    let row = row_of(&[&rootless[..], &[mad]].concat());
    assert_eq!((row.execution_time_ms, row.created_at.0), (55, NOON + 5 * MS));
    let mut half = call(1, 0);
    half.span.end_time_unix_nano = NOON + 500_000;
    assert_eq!(row_of(&[half]).execution_time_ms, 1, "half up");
}

#[test]
fn the_last_call_names_the_model() {
    let of =
        |id: u64, start: u64, model: &str| call(id, 1).between(start, start + 5).with("llm.model_name", text(model));
    let asked = |sample: Sample, model: &str| sample.with("gen_ai.request.model", text(model));
    let trace = [span(1), asked(of(2, 0, "first"), "r1"), asked(of(3, 10, "last"), "r2")];
    let row = row_of(&trace);
    assert_eq!((row.model.as_str(), &read(&row)["request_model"]), ("last", &json!("r2")));
    let failed = [&trace[..2], &[trace[2].clone().failed("no")]].concat();
    assert_eq!(row_of(&failed).model, "r2");
    assert_eq!(
        read(&row)["models"],
        json!([{ "model": "first", "calls": 1, "tokens": 15 }, { "model": "last", "calls": 1, "tokens": 15 }])
    );
}

#[test]
fn sessions_become_uuids() {
    let session =
        |text_of: &str| row_of(&[call(1, 0).with("session.id", text(text_of))]).session_id.unwrap().to_string();
    let uuid = "0b4e2a57-3a4c-4a0e-9d6f-0123456789ab";
    assert_eq!(session(uuid), uuid);
    assert_eq!(session(&uuid.to_uppercase()), uuid);
    assert_eq!(session("sess-1"), Uuid::new_v5(&Uuid::NAMESPACE_URL, b"sess-1").to_string());
    assert_eq!(row_of(&[call(1, 0)]).session_id, None);
}

#[test]
fn costs_are_summed_over_calls_of_known_models() {
    let mini = |id: u64| call(id, 1).between(200, 300).with("llm.model_name", text("gpt-4o-mini"));
    let cost = meta(&[span(1), call(2, 1), mini(3)], "cost");
    assert_eq!(cost, json!({ "input": 0.0000265, "output": 0.000053, "total": 0.0000795, "currency": "USD" }));
    let unknown = |id: u64| call(id, 1).between(400, 500).with("llm.model_name", text("who knows"));
    assert_eq!(meta(&[span(1), unknown(2)], "cost"), Value::Null);
    assert_eq!(meta(&[span(1), unknown(2)], "marks"), Value::Null);
    let partly = [span(1), call(2, 1), unknown(3)];
    assert_eq!(meta(&partly, "cost")["total"], json!(0.000075));
    assert_eq!(meta(&partly, "marks"), json!(["cost_partial"]));
    assert_eq!(meta(&[call(1, 0).without("llm.token")], "cost"), Value::Null);
    assert_eq!(meta(&[call(1, 0).without("llm.token")], "marks"), json!(["tokens_missing"]));
    assert_eq!(meta(&[call(1, 0).without("llm.token").failed("no")], "marks"), Value::Null);
}

#[test]
fn huge_counts_saturate() {
    let huge = |id: u64, start: u64| call(id, 1).between(start, start + 5).tokens(i64::MAX, i64::MAX);
    let row = row_of(&[span(1), huge(2, 0), huge(3, 10)]);
    assert_eq!(row.tokens, Tokens { prompt: i64::MAX, completion: i64::MAX, total: i64::MAX });
    let contribution = crate::rollup::Contribution::of(&row);
    assert_eq!(contribution.tokens.total, crate::rollup::CONTRIBUTION_MAX);
}

#[test]
fn texts_are_the_roots_else_the_calls() {
    let said = |sample: Sample, input: &str| sample.with("input.value", text(input)).with("output.value", text(input));
    let json_said = |sample: Sample| {
        let sample = said(sample, "{}").with("input.mime_type", text("application/json"));
        sample.with("output.mime_type", text("application/json"))
    };
    let texts = |spans: &[Sample]| (meta(spans, "input"), meta(spans, "output"));
    let (first, last) = (said(call(2, 1).between(0, 10), "first"), said(call(3, 1).between(20, 30), "last"));
    assert_eq!(texts(&[said(span(1), "root"), first.clone()]), (json!("root"), json!("root")));
    assert_eq!(texts(&[span(1), last.clone(), first.clone()]), (json!("first"), json!("last")));
    assert_eq!(texts(&[json_said(span(1)), last.clone(), first.clone()]), (json!("first"), json!("last")));
    assert_eq!(texts(&[json_said(span(1)), call(2, 1)]), (json!("{}"), json!("{}")));
    assert_eq!(texts(&[last, first]), (json!("first"), json!("last")));
}

#[test]
fn the_id_follows_from_the_trace() {
    let one = row_of(&[call(1, 0)]);
    assert_eq!(one.id, row_of(&[span(1), call(2, 1)]).id);
    assert_eq!(one.id, uuid::Uuid::from_bytes(one.trace_id.0));
    assert_eq!(read(&one)["spans"], 1);
}
