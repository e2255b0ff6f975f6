//! A gathered trace as evaluators see it, and what filters ask of it.
//!
//! Input and output are the root's; what the recorder would put into the trace's row (model, tokens, cost, session) is in the metadata.

use emberd_evaluators_kit::{Example, Span, Trace};
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::ledger::project_of;
use emberd_model::row::row;
use emberd_model::trace::fold;
use emberd_model::wire::{SpanView, ValueView, spans};
use emberd_model::{Batch, Flags, Offset};
use serde_json::{Map, Value, json};

use super::gather::Whole;

/// A trace, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) example: Example,
    pub(super) projects: Vec<String>,
    pub(super) services: Vec<String>,
    /// success, error or timeout.
    pub(super) status: String,
    pub(super) prompt: Option<String>,
    pub(super) session: Option<String>,
    pub(super) duration_ms: f64,
    pub(super) tokens: i64,
    pub(super) root: Option<String>,
}

const INPUTS: [&str; 4] = ["input.value", "gen_ai.input.messages", "gen_ai.prompt", "traceloop.entity.input"];
const OUTPUTS: [&str; 4] = ["output.value", "gen_ai.output.messages", "gen_ai.completion", "traceloop.entity.output"];
const MODELS: [&str; 3] = ["llm.model_name", "gen_ai.response.model", "gen_ai.request.model"];

pub(super) fn seen(whole: &Whole, prices: &Prices) -> Seen {
    let mut seen = Seen::default();
    let mut all = Vec::with_capacity(whole.spans);
    for found in spans(&whole.request) {
        push_once(&mut seen.projects, project_of(&found.resource));
        let service = found.resource.attributes().find(|attribute| attribute.key == "service.name");
        push_once(&mut seen.services, service.and_then(|service| service.value().as_str()).unwrap_or(""));
        all.push(span(&found.span));
    }
    let trace = Trace { trace_id: whole.trace.to_string(), spans: all };
    if let Some(root) = trace.root() {
        seen.root = Some(root.span_id.clone());
        seen.status = if root.status == "error" { "error" } else { "success" }.to_owned();
        seen.duration_ms = root.duration_ms();
        seen.example.input = root.input.clone();
        seen.example.output = root.output.clone();
    }
    recorded(whole, prices, &mut seen);
    seen.example.metadata.insert("trace_id".to_owned(), json!(trace.trace_id));
    seen.example.metadata.insert("latency_ms".to_owned(), json!(seen.duration_ms));
    seen.example.metadata.insert("status".to_owned(), json!(seen.status));
    seen.example.trace = Some(trace);
    seen
}

/// What the recorder makes of the same spans.
fn recorded(whole: &Whole, prices: &Prices, seen: &mut Seen) {
    let batch = Batch {
        offset: Offset(0),
        spans: u32::try_from(whole.spans).unwrap_or(u32::MAX),
        received_at: whole.last,
        key: 0,
        flags: Flags::default(),
        body: whole.request.clone(),
    };
    let states = fold([&batch], &Reading::default());
    let Some(row) = states.get(&whole.trace).and_then(|state| row(whole.trace, state, prices, true)) else { return };
    let mut metadata: Map<String, Value> = serde_json::from_str(&row.metadata).unwrap_or_default();
    for (side, name) in [(&mut seen.example.input, "input"), (&mut seen.example.output, "output")] {
        let told = metadata.remove(name).unwrap_or(Value::Null);
        if side.is_null() {
            *side = told;
        }
    }
    if let Some(cost) = metadata.get("cost").and_then(|cost| cost.get("total")).cloned() {
        metadata.insert("cost_usd".into(), cost);
    }
    seen.session = metadata.get("session_id").and_then(Value::as_str).map(str::to_owned);
    let tokens = row.tokens;
    metadata.insert("total_tokens".into(), json!(tokens.total));
    metadata.insert(
        "tokens".into(),
        json!({"prompt": tokens.prompt, "completion": tokens.completion, "total": tokens.total}),
    );
    metadata.insert("model".into(), json!(row.model));
    seen.tokens = tokens.total;
    seen.status = row.status.as_str().to_owned();
    seen.prompt = row.prompt_ref;
    seen.example.metadata = metadata;
}

fn push_once(all: &mut Vec<String>, one: &str) {
    if !all.iter().any(|known| known == one) {
        all.push(one.to_owned());
    }
}

fn span(view: &SpanView<'_>) -> Span {
    let mut attributes = Map::new();
    for attribute in view.attributes() {
        attributes.entry(attribute.key).or_insert_with(|| value(attribute.value()));
    }
    let first = |names: &[&str]| names.iter().find_map(|name| attributes.get(*name)).cloned();
    let mime = |side: &str| attributes.get(side).and_then(Value::as_str) == Some("application/json");
    let (input, output) = (first(&INPUTS), first(&OUTPUTS));
    let (input, output) = (read(input, mime("input.mime_type")), read(output, mime("output.mime_type")));
    let status = match view.status_code {
        1 => "ok",
        2 => "error",
        _ => "unset",
    };
    Span {
        span_id: view.span_id.to_string(),
        parent_id: view.parent_span_id.map(|parent| parent.to_string()),
        name: view.name.to_owned(),
        kind: kind(&attributes),
        input,
        output,
        status: status.to_owned(),
        error: (view.status_code == 2).then(|| view.status_message.to_owned()),
        started_unix_nano: view.start.0,
        ended_unix_nano: view.end.0,
        attributes,
    }
}

fn read(text: Option<Value>, is_json: bool) -> Value {
    match text {
        Some(Value::String(text)) if is_json => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Some(value) => value,
        None => Value::Null,
    }
}

/// OpenInference's word for what the span did.
fn kind(attributes: &Map<String, Value>) -> String {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    if let Some(kind) = text("openinference.span.kind") {
        return kind.to_uppercase();
    }
    let kind = match text("gen_ai.operation.name") {
        Some("chat" | "text_completion" | "generate_content") => "LLM",
        Some("execute_tool") => "TOOL",
        Some("embeddings") => "EMBEDDING",
        Some("invoke_agent" | "create_agent") => "AGENT",
        Some(_) | None => match text("traceloop.span.kind") {
            Some("workflow" | "task") => "CHAIN",
            Some("agent") => "AGENT",
            Some("tool") => "TOOL",
            Some(_) | None if text("gen_ai.request.model").is_some() => "LLM",
            Some(_) | None => "",
        },
    };
    kind.to_owned()
}

fn value(view: ValueView<'_>) -> Value {
    match view {
        ValueView::Empty => Value::Null,
        ValueView::Str(text) => text.into(),
        ValueView::Bool(is) => is.into(),
        ValueView::Int(number) => number.into(),
        // JSON has no NaN.
        ValueView::Double(number) => {
            serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
        }
        ValueView::Bytes(bytes) => format!("({} bytes)", bytes.len()).into(),
        ValueView::Array(array) => array.values().map(value).collect(),
        ValueView::KvList(list) => {
            Value::Object(list.attributes().map(|pair| (pair.key.to_owned(), value(pair.value()))).collect())
        }
    }
}

/// The models that a span names.
pub(super) fn models(span: &Span) -> impl Iterator<Item = &str> {
    MODELS.iter().filter_map(|name| span.attributes.get(*name).and_then(Value::as_str))
}
