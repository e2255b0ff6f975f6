//! What requests bring, by the names of the document's schemas. A field that no schema names is refused.

use serde_json::{Map, Value, json};

use super::answers::{
    TRACE_STATUSES, TYPES, any_object, flag, id, list, number, object, of, or_null, text, time, word,
};

/// An object that takes no other field.
fn closed(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let mut closed = object(required, optional);
    closed["additionalProperties"] = false.into();
    closed
}

/// A text of 1 to so many characters.
fn chars(most: u32) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": most })
}

fn between(least: i64, most: i64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in evaluations().into_iter().chain(datasets()).chain(others()) {
        all.insert(name.to_owned(), schema);
    }
    all
}

type Named = (&'static str, Value);

fn evaluations() -> Vec<Named> {
    let maybe = |schema: Value| or_null(&schema);
    let named = closed(&[("name", text())], &[("config", any_object()), ("mapping", any_object()), ("as", text())]);
    let evaluator = json!({ "oneOf": [{ "type": "string" }, named] });
    let mut evaluators = list(&of("Evaluator"));
    (evaluators["minItems"], evaluators["maxItems"]) = (1.into(), 64.into());
    let config = closed(
        &[("evaluators", evaluators.clone())],
        &[
            ("model", maybe(chars(200))),
            ("temperature", json!({ "type": ["number", "null"], "minimum": 0, "maximum": 2 })),
            ("maxTokens", maybe(between(1, 1_000_000))),
            ("judgeModel", maybe(chars(200))),
            ("budget", json!({ "type": ["number", "null"], "minimum": 0, "maximum": 1_000_000 })),
            ("concurrency", maybe(between(1, 1_000))),
        ],
    );
    let traces = closed(
        &[("limit", between(1, 1_000_000))],
        &[
            ("from", maybe(time())),
            ("to", maybe(time())),
            ("status", maybe(word(&TRACE_STATUSES))),
            ("sessionId", maybe(id())),
        ],
    );
    let new = closed(
        &[("promptId", id()), ("name", chars(255)), ("config", config)],
        &[("datasetId", maybe(id())), ("traces", maybe(traces)), ("description", maybe(chars(10_000)))],
    );
    let change =
        closed(&[], &[("name", chars(255)), ("description", maybe(chars(10_000))), ("status", word(&["cancelled"]))]);
    let classes = json!({ "type": "array", "items": { "type": "string" }, "maxItems": 64 });
    vec![
        ("Evaluator", evaluator),
        ("NewEvaluation", new),
        ("EvaluationChange", change),
        ("Retry", closed(&[], &[("classes", classes)])),
        ("NewRule", rule(&evaluators)),
        ("RuleChange", closed(&[("enabled", flag())], &[])),
    ]
}

fn rule(evaluators: &Value) -> Value {
    let maybe = |schema: Value| or_null(&schema);
    let texts = list(&text());
    let filter = closed(
        &[],
        &[
            ("project", texts.clone()),
            ("service", texts.clone()),
            ("status", list(&word(&TRACE_STATUSES))),
            ("prompt", texts.clone()),
            ("model", texts.clone()),
            ("spanKind", texts),
            ("attributes", any_object()),
            ("minDurationMs", maybe(number())),
            ("maxDurationMs", maybe(number())),
            ("minTokens", maybe(json!({ "type": "integer" }))),
            ("maxTokens", maybe(json!({ "type": "integer" }))),
        ],
    );
    let config = closed(
        &[("evaluators", evaluators.clone())],
        &[
            ("filter", maybe(filter)),
            ("share", json!({ "type": ["number", "null"], "minimum": 0, "maximum": 1 })),
            ("salt", maybe(chars(200))),
            ("tracesPerSecond", json!({ "type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 10_000 })),
            ("annotate", maybe(word(&["span", "trace", "session"]))),
            ("judgeModel", maybe(chars(200))),
        ],
    );
    let budget = json!({ "type": ["number", "null"], "minimum": 0, "maximum": 1_000_000 });
    closed(&[("name", chars(100)), ("config", config)], &[("enabled", flag()), ("budget", budget)])
}

fn datasets() -> Vec<Named> {
    let maybe = |schema: Value| or_null(&schema);
    let rows = list(&any_object());
    let traces = closed(&[("promptId", id())], &[("limit", between(1, 10_000))]);
    vec![
        (
            "NewDataset",
            closed(
                &[("name", chars(255)), ("type", word(&TYPES)), ("data", rows.clone())],
                &[("description", maybe(chars(10_000))), ("isPublic", flag())],
            ),
        ),
        (
            "DatasetOfTraces",
            closed(
                &[("name", chars(255)), ("traces", traces)],
                &[("description", maybe(chars(10_000))), ("isPublic", flag())],
            ),
        ),
        (
            "DatasetChange",
            closed(
                &[],
                &[
                    ("name", maybe(chars(255))),
                    ("description", maybe(chars(10_000))),
                    ("isPublic", flag()),
                    ("data", rows),
                ],
            ),
        ),
    ]
}

fn others() -> Vec<Named> {
    let maybe = |schema: Value| or_null(&schema);
    let event = closed(
        &[("name", chars(100))],
        &[
            ("properties", maybe(any_object())),
            ("sessionId", maybe(id())),
            ("promptId", maybe(id())),
            ("at", maybe(time())),
            ("id", maybe(id())),
        ],
    );
    let mut events = list(&of("Event"));
    (events["minItems"], events["maxItems"]) = (1.into(), 500.into());
    let many = closed(&[("events", events)], &[]);
    vec![
        ("Event", event),
        ("NewEvents", json!({ "oneOf": [of("Event"), many] })),
        ("NewPrompt", closed(&[("title", chars(255)), ("content", chars(100_000))], &[])),
        (
            "NewTemplate",
            closed(
                &[("name", chars(255)), ("config", any_object())],
                &[("description", maybe(chars(10_000))), ("isPublic", flag())],
            ),
        ),
        (
            "TemplateChange",
            closed(
                &[],
                &[
                    ("name", maybe(chars(255))),
                    ("description", maybe(chars(10_000))),
                    ("isPublic", flag()),
                    ("config", any_object()),
                ],
            ),
        ),
        (
            "Credentials",
            closed(&[], &[("email", maybe(chars(320))), ("password", maybe(text())), ("token", maybe(text()))]),
        ),
        (
            "GraphQuestion",
            closed(
                &[("query", text())],
                &[
                    ("variables", maybe(any_object())),
                    ("operationName", maybe(text())),
                    ("extensions", maybe(any_object())),
                ],
            ),
        ),
    ]
}
