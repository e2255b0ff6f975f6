//! What single spans say, by the table of aliases, and what becomes of hostile ones.

use opentelemetry_proto::tonic::common::v1::any_value::Value as V;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::sample::*;
use super::*;
use crate::row::Status;

fn meta(spans: &[Sample], key: &str) -> Value {
    read(&row_of(spans)).get(key).cloned().unwrap_or(Value::Null)
}

fn is_call(sample: Sample) -> bool {
    state(&[sample.under(99)]).calls().count() == 1
}

#[test]
fn what_is_a_call() {
    let kind = |kind: &str| span(1).with("openinference.span.kind", text(kind));
    assert!(is_call(kind("LLM")) && is_call(kind("llm")));
    for other in ["CHAIN", "TOOL", "EMBEDDING", "RERANKER", "AGENT", "RETRIEVER", "GUARDRAIL", "EVALUATOR", "PROMPT"] {
        assert!(!is_call(kind(other).with("gen_ai.request.model", text("gpt-4o"))), "{other}");
    }
    let operation =
        |name: &str| span(1).with("gen_ai.operation.name", text(name)).with("gen_ai.request.model", text("m"));
    for yes in ["chat", "text_completion", "generate_content"] {
        assert!(is_call(operation(yes)), "{yes}");
    }
    for no in ["embeddings", "execute_tool", "retrieval", "invoke_agent", "create_agent", "invoke_workflow"] {
        assert!(!is_call(operation(no)), "{no}");
    }
    let request = |kind: &str| span(1).with("llm.request.type", text(kind)).with("gen_ai.request.model", text("m"));
    assert!(is_call(request("chat")) && is_call(request("completion")));
    assert!(!is_call(request("embedding")) && !is_call(request("rerank")));
    assert!(is_call(span(1).with("gen_ai.request.model", text("m"))));
    assert!(is_call(kind("UNKNOWN").with("gen_ai.operation.name", text("chat"))));
    for hint in
        ["gen_ai.tool.name", "gen_ai.embeddings.dimension.count", "gen_ai.retrieval.query.text", "traceloop.span.kind"]
    {
        assert!(!is_call(span(1).with("gen_ai.request.model", text("m")).with(hint, text("x"))), "{hint}");
    }
    for no in ["http.request.method", "llm.model_name", "gen_ai.response.id", "session.id"] {
        assert!(!is_call(span(1).with(no, text("x"))), "{no}");
    }
    let vercel = |id: &str| span(1).with("ai.operationId", text(id)).with("gen_ai.request.model", text("m"));
    assert!(is_call(vercel("ai.generateText.doGenerate")) && is_call(vercel("ai.streamObject.doStream")));
    assert!(
        !is_call(vercel("ai.toolCall")) && !is_call(vercel("ai.embed.doEmbed")) && !is_call(vercel("ai.embedMany"))
    );
    assert!(!is_call(span(1).with("operation.name", text("ai.toolCall")).with("gen_ai.request.model", text("m"))));
    assert!(is_call(span(1).with("operation.name", text("billing")).with("gen_ai.request.model", text("m"))));
}

/// Of several aliases the first in the table is read; of one key that is there twice, the last value.
#[test]
fn aliases_have_an_order() {
    let all = call(1, 0)
        .without("llm.")
        .with("llm.usage.prompt_tokens", int(4))
        .with("gen_ai.usage.prompt_tokens", int(3))
        .with("gen_ai.usage.input_tokens", int(2));
    assert_eq!(row_of(std::slice::from_ref(&all)).tokens.prompt, 2);
    assert_eq!(row_of(&[all.clone().with("llm.token_count.prompt", int(1))]).tokens.prompt, 1);
    assert_eq!(row_of(&[all.clone().without("gen_ai.usage.input")]).tokens.prompt, 3);
    assert_eq!(row_of(&[all.clone().without("gen_ai")]).tokens.prompt, 4);
    let mut twice = all.clone();
    twice.span.attributes.push(all.with("gen_ai.usage.input_tokens", int(9)).span.attributes.pop().unwrap());
    assert_eq!(row_of(&[twice]).tokens.prompt, 9);
}

#[test]
fn sessions_users_and_versions_have_aliases() {
    for (key, value) in [
        ("session.id", text("s")),
        ("gen_ai.conversation.id", text("s")),
        ("traceloop.association.properties.session_id", text("s")),
        ("ai.telemetry.metadata.sessionId", text("s")),
        ("metadata", text(r#"{"session_id": "s"}"#)),
        ("metadata", text(r#"{"thread_id": "s"}"#)),
        ("metadata", text(r#"{"conversation_id": "s", "session_id": ""}"#)),
    ] {
        assert_eq!(meta(&[call(1, 0).with(key, value.clone())], "session_id"), "s", "{key}");
        // On any span of the trace.
        assert_eq!(meta(&[span(2), call(1, 2), span(3).under(2).with(key, value)], "session_id"), "s", "{key}");
    }
    for key in ["user.id", "enduser.id", "traceloop.association.properties.user_id", "gen_ai.user", "llm.user"] {
        assert_eq!(meta(&[call(1, 0).with(key, text("u"))], "user_id"), "u", "{key}");
    }
    assert_eq!(meta(&[call(1, 0).with("metadata", text(r#"{"user_id": 7}"#))], "user_id"), "7");
    for key in ["prompt.version", "llm.prompt_template.version", "traceloop.prompt.version"] {
        assert_eq!(meta(&[call(1, 0).with(key, int(3))], "prompt_version"), "3", "{key}");
    }
}

#[test]
fn what_the_application_says_about_itself() {
    let metadata = r#"{"tier": "gold", "n": 1}"#;
    let said = call(1, 0).with("metadata", text(metadata)).with("tag.tags", texts(&["a", "b"]));
    assert_eq!(meta(std::slice::from_ref(&said), "user"), json!({ "tier": "gold", "n": 1 }));
    assert_eq!(meta(std::slice::from_ref(&said), "tags"), json!(["a", "b"]));
    assert_eq!(meta(&[said.clone().with("tag.tags", text(r#"["a"]"#))], "tags"), json!(["a"]));
    assert_eq!(meta(&[said.clone().with("metadata", text("not json"))], "user"), "not json");
    // Properties stand in for metadata; those that mean something else do not.
    let property = |name: &str| format!("traceloop.association.properties.{name}");
    let properties = call(1, 0).with(&property("plan"), text("pro")).with(&property("user_id"), text("u"));
    assert_eq!(meta(&[properties], "user"), json!({ "plan": "pro" }));
    let resource = call(1, 0).of("service.name", text("chat")).of("deployment.environment.name", text("prod"));
    assert_eq!(meta(std::slice::from_ref(&resource), "service"), "chat");
    assert_eq!(meta(&[resource], "environment"), "prod");
}

#[test]
fn providers_have_one_spelling() {
    for (came, kept) in
        [("OpenAI", "openai"), ("openai.chat", "openai"), ("anthropic.messages", "anthropic"), (".chat", ".chat")]
    {
        assert_eq!(meta(&[call(1, 0).with("gen_ai.system", text(came))], "provider"), kept);
    }
}

#[test]
fn streaming_and_the_first_token() {
    let parameters = |json: &str| call(1, 0).with("llm.invocation_parameters", text(json));
    assert_eq!(meta(&[parameters(r#"{"stream": true}"#)], "streaming"), true);
    assert_eq!(meta(&[parameters(r#"{"temperature": 1}"#)], "streaming"), false);
    assert_eq!(meta(&[parameters("?")], "streaming"), Value::Null);
    assert_eq!(meta(&[call(1, 0)], "streaming"), Value::Null);
    let chunks =
        call(1, 0).event("gen_ai.content.completion.chunk", 30, &[]).event("gen_ai.content.completion.chunk", 20, &[]);
    assert_eq!(meta(std::slice::from_ref(&chunks), "ttft_ms"), 20.0);
    assert_eq!(meta(&[chunks], "streaming"), true);
    assert_eq!(meta(&[call(1, 0).with("gen_ai.response.time_to_first_chunk", V::DoubleValue(0.25))], "ttft_ms"), 250.0);
    assert_eq!(
        meta(&[call(1, 0).with("gen_ai.response.time_to_first_chunk", V::DoubleValue(f64::NAN))], "ttft_ms"),
        Value::Null
    );
}

/// The model of a call that failed stands only in the parameters of its request.
#[test]
fn the_model_of_a_failed_call() {
    let failed =
        call(1, 0).without("llm.").with("llm.invocation_parameters", text(r#"{"model": "gpt-4o"}"#)).failed("no");
    assert_eq!(row_of(&[failed]).model, "gpt-4o");
    assert_eq!(row_of(&[call(1, 0).without("llm.")]).model, "unknown");
}

#[test]
fn inputs_and_outputs_of_every_convention() {
    let says = |sample: Sample| {
        let row = row_of(&[sample]);
        let of = |key: &str| read(&row).get(key).and_then(Value::as_str).map(str::to_owned);
        (of("input"), of("output"))
    };
    let asked = |key: &str, value: &str| says(call(1, 0).with(key, text(value))).0;
    let answered = |key: &str, value: &str| says(call(1, 0).with(key, text(value))).1;
    let q = Some("q".to_owned());
    for (key, value) in [
        (
            "gen_ai.input.messages",
            r#"[{"role":"user","parts":[{"type":"text","content":"q"}]},{"role":"assistant","parts":[]}]"#,
        ),
        ("gen_ai.input.messages", r#"[{"role":"system","content":"s"},{"role":"user","content":"q"}]"#),
        ("gen_ai.input.messages", r#"[{"role":"user","parts":[{"type":"text","content":"q"}]},{"role":"user","par"#),
        ("ai.prompt.messages", r#"[{"role":"user","content":[{"type":"image"},{"type":"text","text":"q"}]}]"#),
        ("gen_ai.prompt", r#"[{"role":"user","content":"q"}]"#),
        ("gen_ai.prompt", "q"),
        ("ai.prompt", r#"{"system":"s","prompt":"q"}"#),
        ("ai.prompt", r#"{"messages":[{"role":"user","content":"q"}]}"#),
        ("traceloop.entity.input", r#"{"messages":[{"role":"user","content":"q"}]}"#),
        ("input.value", "q"),
        ("gen_ai.prompt.0.content", "q"),
        ("gen_ai.prompt.0.content", r#"[{"type":"text","text":"q"}]"#),
        ("llm.input_messages.0.message.contents.1.message_content.text", "q"),
    ] {
        assert_eq!(asked(key, value), q, "{key}: {value}");
    }
    assert_eq!(says(call(1, 0).with("llm.prompts", texts(&["p", "q"]))).0, q);
    for (key, value) in [
        (
            "gen_ai.output.messages",
            r#"[{"role":"assistant","parts":[{"type":"reasoning","content":"r"},{"type":"text","content":"q"}]}]"#,
        ),
        ("gen_ai.completion.0.content", "q"),
        ("gen_ai.completion", r#"[{"role":"assistant","content":"q"}]"#),
        ("ai.response.text", "q"),
        ("output.value", "q"),
        ("llm.output_messages.0.message.content", "q"),
    ] {
        assert_eq!(answered(key, value), q, "{key}: {value}");
    }
    let events = call(1, 0).event("gen_ai.user.message", 1, &[("content", "q")]).event(
        "gen_ai.choice",
        2,
        &[("message", r#"{"role":"assistant","content":"a"}"#), ("finish_reason", "stop")],
    );
    assert_eq!(says(events.clone()), (q.clone(), Some("a".into())));
    assert_eq!(meta(&[events], "finish_reason"), "stop");
    // A JSON request around the question is not the question; an answer that only asks for tools has no text.
    let request = call(1, 0).with("input.mime_type", text("application/json"));
    let request = request.with("input.value", text(r#"{"model":"m","messages":[{"role":"user","content":"q"}]}"#));
    assert_eq!(says(request).0, q);
    let tools = call(1, 0)
        .with("output.mime_type", text("application/json"))
        .with("output.value", text("{}"))
        .with("llm.output_messages.0.message.tool_calls.0.tool_call.function.name", text("t"));
    assert_eq!(says(tools).1, None);
}

#[test]
fn tool_calls_of_every_convention() {
    let wanted = json!([{ "name": "weather", "arguments": { "city": "Dublin" } }]);
    let arguments = r#"{"city": "Dublin"}"#;
    let spread = |list: &str, function: &str| {
        call(1, 0)
            .with(&format!("{list}.0.{function}name"), text("weather"))
            .with(&format!("{list}.0.{function}arguments"), text(arguments))
    };
    let quoted = serde_json::to_string(arguments).unwrap();
    for sample in [
        spread("llm.output_messages.0.message.tool_calls", "tool_call.function."),
        spread("gen_ai.completion.0.tool_calls", ""),
        call(1, 0).with(
            "gen_ai.output.messages",
            text(&format!(r#"[{{"role":"assistant","parts":[{{"type":"tool_call","id":"1","name":"weather","arguments":{arguments}}}]}}]"#)),
        ),
        call(1, 0).with("ai.response.toolCalls", text(&format!(r#"[{{"toolName":"weather","args":{quoted}}}]"#))),
        call(1, 0).event(
            "gen_ai.choice",
            1,
            &[("message", &format!(r#"{{"tool_calls":[{{"function":{{"name":"weather","arguments":{quoted}}}}}]}}"#))],
        ),
    ] {
        assert_eq!(meta(std::slice::from_ref(&sample), "tool_calls"), wanted, "{sample:?}");
    }
}

#[test]
fn texts_can_be_switched_off() {
    let reading = Reading { texts: false, ..Reading::default() };
    let said = call(1, 0).with("input.value", text("secret")).with("output.value", text("secret"));
    let tool = said.with("gen_ai.completion.0.tool_calls.0.name", text("t"));
    let tool = tool.with("gen_ai.completion.0.tool_calls.0.arguments", text("secret"));
    for spans in [vec![tool.clone()], vec![span(2), tool.under(2)]] {
        let state = state_read(&spans, &reading);
        assert!(!state.encode().windows(6).any(|window| window == b"secret"));
        let row = crate::row::row(TRACE, &state, &prices(), false).unwrap();
        assert_eq!(read(&row)["tool_calls"], json!([{ "name": "t" }]));
    }
}

#[test]
fn token_counts_however_they_are_written() {
    let tokens = |value: V| {
        let row = row_of(&[call(1, 0).with("llm.token_count.prompt", value)]);
        let marks = read(&row).get("marks").cloned().unwrap_or(Value::Null);
        (row.tokens.prompt, marks)
    };
    let none = Value::Null;
    assert_eq!(tokens(int(12)), (12, none.clone()));
    assert_eq!(tokens(text(" 12 ")), (12, none.clone()));
    assert_eq!(tokens(text("12.0")), (12, none.clone()));
    assert_eq!(tokens(V::DoubleValue(12.0)), (12, none.clone()));
    assert_eq!(tokens(text("")), (0, none));
    let marked = json!(["tokens"]);
    for bad in [
        int(-1),
        text("-5"),
        text("abc"),
        V::DoubleValue(f64::NAN),
        V::DoubleValue(-0.5),
        V::DoubleValue(f64::INFINITY),
        V::BoolValue(true),
    ] {
        assert_eq!(tokens(bad.clone()), (0, marked.clone()), "{bad:?}");
    }
    let saturated = json!(["tokens_saturated"]);
    for huge in [V::DoubleValue(1e300), text("9223372036854775808"), text(&"9".repeat(100))] {
        assert_eq!(tokens(huge.clone()), (i64::MAX, saturated.clone()), "{huge:?}");
    }
    assert_eq!(tokens(int(i64::MAX)), (i64::MAX, Value::Null));
}

#[test]
fn failures_for_want_of_time() {
    let status = |sample: Sample| row_of(&[sample]).status;
    assert_eq!(status(call(1, 0)), Status::Success);
    assert_eq!(status(call(1, 0).failed("boom")), Status::Error);
    assert_eq!(status(call(1, 0).failed("").exception("openai.APITimeoutError", "x")), Status::Timeout);
    assert_eq!(status(call(1, 0).failed("").with("error.type", text("DEADLINE_EXCEEDED"))), Status::Timeout);
    assert_eq!(status(call(1, 0).failed("").with("error.type", int(504))), Status::Timeout);
    assert_eq!(status(call(1, 0).failed("").with("http.response.status_code", int(408))), Status::Timeout);
    assert_eq!(status(call(1, 0).failed("Request timed out.")), Status::Timeout);
    // It says so, but it did not fail.
    assert_eq!(status(call(1, 0).exception("TimeoutError", "x")), Status::Success);
    let error = |sample: Sample| row_of(&[sample]).error;
    assert_eq!(error(call(1, 0).failed("boom").exception("E", "other")).unwrap(), "boom");
    assert_eq!(error(call(1, 0).failed("").exception("E", "other")).unwrap(), "other");
    assert_eq!(error(call(1, 0).failed("").exception("E", "")).unwrap(), "E");
    assert_eq!(error(call(1, 0).failed("")), None);
}

/// A prompt is named by the first of the configured keys that a span has, on any span, else by the resource.
#[test]
fn prompts_are_named_in_many_places() {
    let prompt = |spans: &[Sample]| row_of(spans).prompt_ref;
    for (key, value) in [
        ("prompt.id", text("p")),
        ("prompt_id", text("p")),
        ("metadata", text(r#"{"prompt_id": "p"}"#)),
        ("metadata.prompt_id", text("p")),
        ("traceloop.prompt.key", text("p")),
        ("gen_ai.prompt.name", text(" p ")),
    ] {
        assert_eq!(prompt(&[span(1).with(key, value.clone())]).as_deref(), Some("p"), "{key}");
        assert_eq!(prompt(&[span(1), span(2).under(1).with(key, value)]).as_deref(), Some("p"), "{key}");
    }
    let both = span(1).with("gen_ai.prompt.name", text("name")).with("prompt.id", text("id"));
    assert_eq!(prompt(&[both]).as_deref(), Some("id"));
    let resource = |sample: Sample| sample.of("prompt.id", text("of resource"));
    assert_eq!(prompt(&[resource(span(1))]).as_deref(), Some("of resource"));
    assert_eq!(prompt(&[span(1), resource(span(2).under(1))]).as_deref(), Some("of resource"));
    assert_eq!(prompt(&[resource(span(1)), span(2).under(1).with("prompt.id", text("own"))]).as_deref(), Some("own"));
    // The root's word first, then the earliest, then the least id.
    let names = |id: u64, start: u64, name: &str| span(id).under(9).between(start, 200).with("prompt.id", text(name));
    assert_eq!(prompt(&[span(9).with("prompt.id", text("root")), names(1, 0, "a")]).as_deref(), Some("root"));
    assert_eq!(prompt(&[span(9), names(1, 20, "late"), names(2, 10, "early")]).as_deref(), Some("early"));
    assert_eq!(prompt(&[span(9), names(2, 10, "two"), names(1, 10, "one")]).as_deref(), Some("one"));
    let own = Reading { prompt_keys: vec!["app.prompt".into()], texts: true };
    let row =
        |key: &str| crate::row::row(TRACE, &state_read(&[call(1, 0).with(key, text("x"))], &own), &prices(), false);
    assert_eq!(row("app.prompt").unwrap().prompt_ref.as_deref(), Some("x"));
    assert_eq!(row("prompt.id").unwrap().prompt_ref, None);
}

#[test]
fn hostile_texts_are_made_safe() {
    let marks = |spans: &[Sample]| meta(spans, "marks");
    let nul = call(1, 0).with("session.id", text("a\0b")).with("metadata", text(r#"{"k\u0000": "v\u0000"}"#));
    let row = row_of(&[nul]);
    assert_eq!(read(&row)["session_id"], "a\u{FFFD}b");
    assert_eq!(read(&row)["user"], json!({ "k\u{FFFD}": "v\u{FFFD}" }));
    assert_eq!(read(&row)["marks"], json!(["nul"]));
    let long = "é".repeat(5_000_000);
    let row = row_of(&[call(1, 0).with("input.value", text(&long)).with("session.id", text(&long)).failed(&long)]);
    assert_eq!(read(&row)["input"].as_str().unwrap().len(), 4096);
    assert_eq!(read(&row)["session_id"].as_str().unwrap().len(), 1024);
    assert_eq!(row.error.as_ref().unwrap().len(), 1024);
    assert_eq!(read(&row)["marks"], json!(["truncated"]));
    // The first 4 KiB of an input are what a row has: that is no mending.
    assert_eq!(marks(&[call(1, 0).with("input.value", text(&long))]), Value::Null);
    let deep = "[".repeat(100_000);
    assert_eq!(
        marks(&[call(1, 0).with("gen_ai.input.messages", text(&deep)).with("llm.invocation_parameters", text(&deep))]),
        Value::Null
    );
    assert_eq!(marks(&[call(1, 0).with("metadata", text(&deep))]), json!(["truncated"]));
}

#[test]
fn hostile_clocks_are_made_safe() {
    let at = |start: u64, end: u64| {
        let mut sample = call(1, 0);
        (sample.span.start_time_unix_nano, sample.span.end_time_unix_nano) = (start, end);
        let row = row_of(&[sample]);
        assert_eq!(read(&row)["marks"], json!(["clock"]), "{start} to {end}");
        (row.execution_time_ms, row.created_at.0)
    };
    assert_eq!(at(0, 0), (0, 0));
    assert_eq!(at(NOON, NOON - 1), (0, NOON));
    assert_eq!(at(NOON, 0), (0, NOON));
    assert_eq!(at(NOON, u64::MAX), (i32::MAX, NOON));
    assert_eq!(at(u64::MAX, u64::MAX), (0, u64::MAX));
}

proptest! {
    /// Whatever the attributes hold: no panic, a state that survives its encoding, a row that JSON and PostgreSQL take.
    #[test]
    fn any_attributes_are_read_without_harm(
        attributes in prop::collection::vec((any_key(), any_value()), 0..25),
        is_root: bool,
        code in 0..3i32,
    ) {
        let mut sample = span(1).under(if is_root { 0 } else { 2 });
        sample.span.status = Some(opentelemetry_proto::tonic::trace::v1::Status { code, message: "m".into() });
        for (key, value) in attributes {
            sample = sample.with(&key, value);
        }
        let state = state(&[sample]);
        let bytes = state.encode();
        prop_assert!(bytes.len() < 40_000);
        prop_assert_eq!(&crate::trace::TraceState::decode(&bytes).unwrap(), &state);
        if let Some(row) = crate::row::row(TRACE, &state, &prices(), true) {
            prop_assert!(!holds_nul(&read(&row)));
            prop_assert!(!row.model.contains('\0') && row.execution_time_ms >= 0);
        }
    }

    #[test]
    fn any_bytes_are_no_facts_or_facts(bytes: Vec<u8>) {
        if let Some(facts) = Facts::decode(&bytes) {
            let mut again = Vec::new();
            facts.encode(&mut again);
            prop_assert_eq!(Facts::decode(&again), Some(facts));
        }
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

fn any_key() -> impl Strategy<Value = String> {
    let keys = [
        "openinference.span.kind",
        "gen_ai.operation.name",
        "gen_ai.request.model",
        "llm.model_name",
        "llm.token_count.prompt",
        "gen_ai.usage.output_tokens",
        "llm.invocation_parameters",
        "metadata",
        "tag.tags",
        "session.id",
        "user.id",
        "prompt.id",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.response.finish_reasons",
        "input.value",
        "input.mime_type",
        "output.value",
        "ai.prompt",
        "ai.response.toolCalls",
        "llm.input_messages.0.message.content",
        "llm.output_messages.7.message.tool_calls.3.tool_call.function.name",
        "gen_ai.prompt.1.role",
        "llm.input_messages.99999999999.message.content",
        "traceloop.association.properties.",
        "ai.telemetry.metadata.a\0",
        "gen_ai.response.time_to_first_chunk",
        "ai.operationId",
        "",
        ".",
        "llm.",
        "gen_ai.usage.",
        "llm.prompts",
    ];
    prop::sample::select(keys.to_vec()).prop_map(str::to_owned)
}

fn any_value() -> impl Strategy<Value = V> {
    let json = r#"[{"role":"user","parts":[{"type":"tool_call","name":"n\u0000","arguments":{"a":[1,"\ud83d\ude00"]}}],"content":"c"}]"#;
    prop_oneof![
        any::<String>().prop_map(V::StringValue),
        prop::sample::select(vec![
            "LLM",
            "chat",
            "{\"model\":\"m\",\"stream\":1}",
            json,
            "[1,[2,[3]]",
            "{\"a\":1e999}",
            "\0",
            "1e400",
            "ai.generateText"
        ])
        .prop_map(text),
        any::<i64>().prop_map(V::IntValue),
        any::<f64>().prop_map(V::DoubleValue),
        any::<bool>().prop_map(V::BoolValue),
        any::<Vec<u8>>().prop_map(V::BytesValue),
        prop::collection::vec(any::<String>(), 0..4)
            .prop_map(|all| texts(&all.iter().map(String::as_str).collect::<Vec<_>>())),
    ]
}
