//! What answers hold, by the names of the document's schemas. Rows are the tables' own.

use serde_json::{Map, Value, json};

/// An object with these properties, all of which are there.
pub(super) fn row(properties: &[(&str, Value)]) -> Value {
    object(properties, &[])
}

/// An object with these properties, and these, which may be missing.
pub(super) fn object(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    let all = required.iter().chain(optional);
    let properties: Map<String, Value> = all.map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let mut object = json!({ "type": "object", "properties": properties });
    if !names.is_empty() {
        object["required"] = json!(names);
    }
    object
}

/// The schema of this name.
pub(super) fn of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// This, or null.
pub(super) fn or_null(schema: &Value) -> Value {
    match schema.get("type") {
        Some(Value::String(word)) => {
            let mut both = schema.clone();
            both["type"] = json!([word, "null"]);
            if let Some(words) = both.get_mut("enum").and_then(Value::as_array_mut) {
                words.push(Value::Null);
            }
            both
        }
        _ => json!({ "oneOf": [schema, { "type": "null" }] }),
    }
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn word(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

pub(super) fn id() -> Value {
    json!({ "type": "string", "format": "uuid" })
}

pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

pub(super) fn whole() -> Value {
    json!({ "type": "integer" })
}

pub(super) fn number() -> Value {
    json!({ "type": "number" })
}

pub(super) fn flag() -> Value {
    json!({ "type": "boolean" })
}

pub(super) fn list(of: &Value) -> Value {
    json!({ "type": "array", "items": of })
}

/// An object of whatever keys.
pub(super) fn any_object() -> Value {
    json!({ "type": "object", "additionalProperties": true })
}

fn page(of: &Value) -> Value {
    row(&[("data", list(of)), ("next_cursor", or_null(&text()))])
}

/// A list that is told whole.
fn whole_list(of: &Value) -> Value {
    row(&[("data", list(of)), ("next_cursor", json!({ "type": "null" }))])
}

pub(crate) const STATUSES: [&str; 5] = ["pending", "running", "completed", "failed", "cancelled"];
pub(super) const TRACE_STATUSES: [&str; 3] = ["success", "error", "timeout"];
pub(super) const TYPES: [&str; 4] = ["qa_pairs", "completions", "classifications", "custom"];

pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in
        operations().into_iter().chain(prompts()).chain(evaluations()).chain(datasets()).chain(rules())
    {
        all.insert(name.to_owned(), schema);
    }
    all
}

type Named = (&'static str, Value);

fn operations() -> Vec<Named> {
    let detail = row(&[("path", text()), ("message", text())]);
    let seconds = json!({ "type": "integer", "minimum": 1, "description": "Seconds" });
    let plugins = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let summary = or_null(&of("Summary"));
    let performance = row(&[("totalTime", number()), ("databaseTime", number()), ("cacheHits", whole())]);
    let user = row(&[("id", id()), ("email", or_null(&text())), ("name", or_null(&text())), ("role", text())]);
    let database = object(&[("healthy", flag()), ("metrics", any_object())], &[]);
    vec![
        ("Error", object(&[("error", text())], &[("details", list(&detail)), ("retryAfter", seconds)])),
        ("Health", row(&[("healthy", flag())])),
        ("Readiness", object(&[("ready", flag()), ("plugins", plugins)], &[("reasons", list(&text()))])),
        ("Status", any_object()),
        ("Ledger", any_object()),
        ("OpenApi", any_object()),
        ("EventsTaken", row(&[("accepted", whole())])),
        (
            "PhoenixHealth",
            row(&[
                ("database", database),
                ("cache", row(&[("metrics", any_object()), ("stats", any_object())])),
                ("logins", row(&[("good", whole()), ("bad", whole())])),
                ("phoenix", or_null(&any_object())),
                ("log", or_null(&any_object())),
                ("timestamp", time()),
            ]),
        ),
        (
            "Stats",
            row(&[
                ("prompts", whole()),
                ("traces", whole()),
                ("unassigned", whole()),
                ("data", list(&of("Summary"))),
                ("phoenix_url", or_null(&text())),
                ("timestamp", time()),
            ]),
        ),
        (
            "Login",
            row(&[
                ("token", text()),
                ("expires_at", or_null(&time())),
                ("user", user),
                ("permissions", list(&text())),
                ("performance", performance),
            ]),
        ),
        (
            "GraphAnswer",
            object(
                &[],
                &[
                    ("data", json!({ "type": ["object", "null"], "additionalProperties": true })),
                    ("errors", list(&any_object())),
                    ("extensions", any_object()),
                ],
            ),
        ),
        ("GraphRefusal", json!({ "anyOf": [of("GraphAnswer"), of("Error")] })),
        ("Performance", row(&[("data", list(&of("Metric"))), ("summary", summary)])),
    ]
}

fn prompts() -> Vec<Named> {
    let tokens = row(&[("prompt", whole()), ("completion", whole()), ("total", whole())]);
    let maybe = or_null(&number());
    vec![
        (
            "Prompt",
            row(&[
                ("id", id()),
                ("title", text()),
                ("content", or_null(&text())),
                ("created_by", or_null(&id())),
                ("created_at", time()),
            ]),
        ),
        ("Prompts", page(&of("Prompt"))),
        (
            "Trace",
            row(&[
                ("id", id()),
                ("prompt_id", id()),
                ("phoenix_trace_id", text()),
                ("session_id", or_null(&id())),
                ("execution_time_ms", whole()),
                ("tokens_used", tokens),
                ("model", text()),
                ("status", word(&TRACE_STATUSES)),
                ("error", or_null(&text())),
                ("metadata", any_object()),
                ("created_at", time()),
                ("user_id", or_null(&id())),
            ]),
        ),
        ("Traces", page(&of("Trace"))),
        (
            "Metric",
            row(&[
                ("id", id()),
                ("prompt_id", id()),
                (
                    "metric_type",
                    word(&[
                        "latency_p50",
                        "latency_p90",
                        "latency_p99",
                        "tokens_per_second",
                        "success_rate",
                        "error_rate",
                    ]),
                ),
                ("value", number()),
                ("timestamp", time()),
                ("aggregation_window", word(&["1h", "1d", "7d", "30d"])),
                ("created_at", time()),
            ]),
        ),
        (
            "Summary",
            row(&[
                ("prompt_id", id()),
                ("prompt_title", text()),
                ("total_traces", whole()),
                ("total_evaluations", whole()),
                ("avg_latency", maybe.clone()),
                ("median_latency", maybe.clone()),
                ("p95_latency", maybe.clone()),
                ("success_rate", maybe.clone()),
                ("avg_tokens", maybe),
                ("last_used_at", or_null(&time())),
            ]),
        ),
    ]
}

fn evaluation() -> Vec<Named> {
    vec![
        ("id", id()),
        ("prompt_id", id()),
        ("phoenix_eval_id", text()),
        ("name", text()),
        ("description", or_null(&text())),
        ("status", word(&STATUSES)),
        ("config", any_object()),
        ("results", json!({ "description": "What came out, once it is over" })),
        ("metrics", or_null(&any_object())),
        ("error", or_null(&text())),
        ("started_at", or_null(&time())),
        ("completed_at", or_null(&time())),
        ("created_at", time()),
        ("created_by", id()),
        ("updated_at", time()),
    ]
}

fn evaluations() -> Vec<Named> {
    let share = row(&[
        ("done", whole()),
        ("failed", whole()),
        ("cancelled", whole()),
        ("running", whole()),
        ("total", whole()),
    ]);
    let mut told = evaluation();
    told.extend([("progress", or_null(&share)), ("cost", or_null(&of("Cost")))]);
    let maybe = or_null(&number());
    let direction = word(&["maximize", "minimize", "neutral"]);
    vec![
        ("Cost", cost()),
        ("Evaluation", row(&evaluation())),
        ("Evaluations", page(&of("Evaluation"))),
        ("EvaluationTold", row(&told)),
        ("Evaluators", whole_list(&evaluator(&direction))),
        (
            "Quote",
            row(&[
                ("examples", whole()),
                ("items", whole()),
                ("calls", whole()),
                ("cost", row(&[("low", maybe.clone()), ("high", maybe.clone()), ("currency", text())])),
                ("unpriced", list(&text())),
                ("is_exact", flag()),
            ]),
        ),
        (
            "Result",
            row(&[
                ("example_id", text()),
                ("evaluator", text()),
                ("evaluator_version", text()),
                ("score", maybe),
                ("label", or_null(&text())),
                ("explanation", or_null(&text())),
                ("direction", direction),
                ("error", or_null(&text())),
                ("error_class", or_null(&text())),
                ("metadata", or_null(&any_object())),
                ("cost", number()),
                ("latency_ms", number()),
                ("cached", flag()),
            ]),
        ),
        ("Results", page(&of("Result"))),
    ]
}

fn evaluator(direction: &Value) -> Value {
    let maybe = or_null(&number());
    let field = row(&[("name", text()), ("required", flag()), ("summary", text()), ("paths", list(&text()))]);
    let range = row(&[("min", maybe.clone()), ("max", maybe)]);
    let output =
        row(&[("name", text()), ("direction", direction.clone()), ("range", range), ("labels", list(&text()))]);
    let key = row(&[("name", text()), ("summary", text()), ("default", json!({}))]);
    let limits =
        row(&[("batch_examples_max", whole()), ("field_bytes_max", whole()), ("concurrent_batches_max", whole())]);
    row(&[
        ("name", text()),
        ("version", text()),
        ("kind", word(&["CODE", "LLM"])),
        ("summary", text()),
        ("fields", list(&field)),
        ("outputs", list(&output)),
        ("config", list(&key)),
        ("limits", limits),
    ])
}

fn cost() -> Value {
    row(&[("spent", number()), ("reserved", number()), ("budget", or_null(&number())), ("currency", text())])
}

fn datasets() -> Vec<Named> {
    vec![
        (
            "Dataset",
            row(&[
                ("id", id()),
                ("name", text()),
                ("description", or_null(&text())),
                ("type", word(&TYPES)),
                ("metadata", any_object()),
                ("is_public", flag()),
                ("created_by", id()),
                ("created_at", time()),
                ("updated_at", time()),
                ("examples", whole()),
            ]),
        ),
        ("Datasets", page(&of("Dataset"))),
        ("Examples", page(&any_object())),
        (
            "Template",
            row(&[
                ("id", id()),
                ("name", text()),
                ("description", or_null(&text())),
                ("config", any_object()),
                ("is_public", flag()),
                ("created_by", id()),
                ("created_at", time()),
            ]),
        ),
        ("Templates", page(&of("Template"))),
    ]
}

fn rules() -> Vec<Named> {
    let score = row(&[
        ("name", text()),
        ("subject", text()),
        ("score", or_null(&number())),
        ("label", or_null(&text())),
        ("explanation", or_null(&text())),
        ("error", or_null(&text())),
        ("error_class", or_null(&text())),
        ("cost", number()),
    ]);
    let decision = row(&[
        ("rule", text()),
        ("version", whole()),
        ("epoch", whole()),
        ("decision", text()),
        ("detail", or_null(&text())),
        ("spans", whole()),
        ("at", time()),
        ("scores", list(&score)),
    ]);
    vec![
        (
            "Rule",
            row(&[
                ("id", id()),
                ("name", text()),
                ("version", whole()),
                ("config", any_object()),
                ("enabled", flag()),
                ("cost", of("Cost")),
                ("created_by", or_null(&id())),
                ("created_at", time()),
            ]),
        ),
        ("Rules", whole_list(&of("Rule"))),
        ("Decisions", whole_list(&decision)),
    ]
}
