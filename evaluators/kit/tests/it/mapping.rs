//! Paths into examples, and what a mapping refuses.

use std::collections::BTreeMap;

use emberd_evaluators_kit::path::Path;
use emberd_evaluators_kit::{Class, Place, Spec, build};
use serde_json::{Value, json};

use crate::{class, example, only};

fn traced() -> emberd_evaluators_kit::Example {
    example(json!({
        "input": {"question": "q", "a/b": {"~": 1}, "messages": [{"content": "first"}]},
        "output": "o",
        "metadata": {"x": 7, "a/b": 8, "none": null},
        "trace": {"trace_id": "t", "spans": [
            {"span_id": "3", "parent_id": "1", "name": "answer", "kind": "LLM", "input": "i3", "output": "o3", "started_unix_nano": 30,
             "ended_unix_nano": 40, "attributes": {"llm.model_name": "m", "llm.token_count.prompt": 3, "llm.token_count.completion": 4}},
            {"span_id": "1", "name": "root", "kind": "CHAIN", "input": "ri", "output": {"text": "ro"}, "started_unix_nano": 1_000_000,
             "ended_unix_nano": 3_500_000},
            {"span_id": "2", "parent_id": "1", "name": "plan", "kind": "llm", "input": "i2", "output": "o2", "started_unix_nano": 20,
             "attributes": {"llm.token_count.total": 5, "gen_ai.response.finish_reasons": ["stop"]}},
            {"span_id": "4", "parent_id": "3", "name": "lookup", "kind": "TOOL", "input": {"q": 1}, "started_unix_nano": 35},
            {"span_id": "5", "parent_id": "3", "name": "span", "kind": "TOOL", "started_unix_nano": 33, "attributes": {"tool.name": "send"}},
        ]},
    }))
}

#[test]
fn paths_find_what_they_say() {
    let example = traced();
    let rows = [
        ("output", json!("o")),
        ("/output", json!("o")),
        ("/input/question", json!("q")),
        ("input/question", json!("q")),
        ("/input/a~1b/~0", json!(1)),
        ("/input/messages/0/content", json!("first")),
        ("/metadata/x", json!(7)),
        ("/metadata/a~1b", json!(8)),
        ("root.input", json!("ri")),
        ("root.output/text", json!("ro")),
        ("root.duration_ms", json!(2.5)),
        ("first(LLM).input", json!("i2")),
        ("last(LLM).output", json!("o3")),
        ("last(llm).name", json!("answer")),
        ("last(LLM).model", json!("m")),
        ("last(LLM).attributes/llm.model_name", json!("m")),
        ("first(LLM).finish_reason", json!("stop")),
        ("all(LLM).total_tokens", json!([5, 7])),
        ("all(TOOL).name", json!(["span", "lookup"])),
        (
            "all(TOOL).tool_call",
            json!([{"name": "send", "arguments": null}, {"name": "lookup", "arguments": {"q": 1}}]),
        ),
        ("all(TOOL).input/q", json!([1])),
        ("all(AGENT).name", json!([])),
    ];
    for (path, wanted) in rows {
        let path = Path::parse(path).unwrap();
        assert_eq!(path.find(&example).map(std::borrow::Cow::into_owned), Some(wanted), "{path}");
    }
    for path in
        ["reference", "/metadata/none", "/metadata/y", "/input/messages/9", "last(AGENT).input", "last(LLM).cost_usd"]
    {
        assert_eq!(Path::parse(path).unwrap().find(&example), None, "{path}");
    }
}

#[test]
fn paths_that_cannot_be_read_say_why() {
    let rows = [
        ("", "expected a JSON pointer"),
        ("/elsewhere/x", "it begins with one of input"),
        ("last(LLM)", "expected"),
        ("last().input", "span kind"),
        ("middle(LLM).input", "expected"),
        ("last(LLM).inpt", "is not a property of a span: input"),
        ("/metadata/a~2", "~ is written ~0"),
        ("$.output", "expected"),
    ];
    for (path, says) in rows {
        let error = Path::parse(path).unwrap_err().to_string();
        assert!(error.contains(says), "{path}: {error}");
    }
    assert!(Path::parse(&"/metadata/x".repeat(100)).is_err());
}

/// A job's mapping replaces the usual places, the first path that finds something counts, and what no path finds is named.
#[test]
fn a_job_maps_fields_elsewhere() {
    let spec: Spec = serde_json::from_value(json!({
        "name": "exact_match",
        "mapping": {"output": "last(LLM).output", "reference": ["/metadata/gold", "/metadata/x"]},
    }))
    .unwrap();
    let evaluator = build(&spec).unwrap();
    let mut example = traced();
    example.metadata.insert("x".into(), json!("o3"));
    assert_eq!(only(evaluator.run(&example)).value, Some(1.0));
    example.metadata.remove("x");
    let failure = evaluator.run(&example).result.unwrap_err();
    assert_eq!(failure.class, Class::MissingField);
    assert_eq!(failure.message, "reference is missing: nothing at /metadata/gold or /metadata/x");
    example.trace = None;
    assert_eq!(class(&evaluator.run(&example)), Class::MissingField);
}

#[test]
fn a_mapping_that_does_not_fit_is_refused() {
    let refuse = |field: &str, place: Place, says: &str| {
        let mapping = BTreeMap::from([(field.to_owned(), place)]);
        let error = build(&Spec { name: "exact_match".into(), mapping, ..Spec::default() }).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refuse(
        "expected",
        Place::One("output".into()),
        "unknown field \"expected\", this evaluator has: output, reference",
    );
    refuse("output", Place::One("nowhere".into()), "mapping of \"output\"");
    refuse("output", Place::Any(vec![]), "between one and eight paths");
}

/// A spec is a name or an object, and says what it does not know.
#[test]
fn specs_are_read_strictly() {
    let read = |json: Value| serde_json::from_value::<Spec>(json);
    assert_eq!(read(json!("bleu")).unwrap().name, "bleu");
    assert_eq!(read(json!({"name": "bleu", "as": "b"})).unwrap().name_as.as_deref(), Some("b"));
    let error = read(json!({"name": "bleu", "confg": {}})).unwrap_err().to_string();
    assert!(error.contains("unknown field `confg`") && error.contains("`config`"), "{error}");
    assert!(read(json!(["bleu"])).is_err());
    let error = build(&Spec { name: "blue".into(), ..Spec::default() }).unwrap_err().to_string();
    assert!(error.contains("bleu"), "{error}");
    let error = build(&Spec { name: "coherence".into(), ..Spec::default() }).unwrap_err().to_string();
    assert!(error.contains("judged by a model"), "{error}");
}
