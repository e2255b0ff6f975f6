//! `emberd redact --try FILE`: what the rules would make of an export, without keeping anything.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use emberd_intake::redact::{Redact, Redacted};
use emberd_model::json as otlp_json;
use emberd_model::wire::{self, Limits};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use serde_json::{Value, json};

use super::Where;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// An export as OTLP/JSON or protobuf; - is standard input
    #[arg(long = "try", value_name = "FILE")]
    file: PathBuf,
    /// Write protobuf, not JSON
    #[arg(long)]
    protobuf: bool,
}

/// No larger file is an export.
const FILE_BYTES_MAX: u64 = 256 << 20;

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let config = match options.place.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let Some(rules) = Redact::new(config.redact)? else {
        bail!("no rules: the configuration has no [[redact]]");
    };
    let read = read(&options.file).with_context(|| format!("cannot read {}", options.file.display()))?;
    let is_json = read.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let request = if is_json { otlp_json::to_protobuf(&read).context("not OTLP/JSON")? } else { read };
    let limits = Limits::default();
    let checked = wire::check(&request, &limits).context("not an export")?;
    let request = if checked.rejected > 0 { wire::without_rejected(&request, &limits) } else { request };
    let Redacted { body, counts, .. } = rules.request(&request, &limits)?;
    let body = body.unwrap_or(request);
    let out = if options.protobuf { body } else { shown(&body)? };
    std::io::stdout().write_all(&out)?;
    for (rule, count) in rules.counts().map(|(rule, _)| rule).zip(counts) {
        eprintln!("{count:>8}  {rule}");
    }
    eprintln!("{:>8}  spans, {} rejected", checked.spans, checked.rejected);
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match path.to_str() {
        Some("-") => std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?,
        _ => std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?,
    };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// An export as OTLP/JSON.
fn shown(body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let request = ExportTraceServiceRequest::decode(body)?;
    let all: Vec<Value> = request.resource_spans.into_iter().map(resource_spans).collect();
    let mut text = serde_json::to_vec_pretty(&json!({ "resourceSpans": all }))?;
    text.push(b'\n');
    Ok(text)
}

fn resource_spans(of: ResourceSpans) -> Value {
    let attributes = of.resource.map(|resource| pairs(resource.attributes));
    let scopes: Vec<Value> = of.scope_spans.into_iter().map(scope_spans).collect();
    json!({ "resource": { "attributes": attributes }, "scopeSpans": scopes, "schemaUrl": of.schema_url })
}

fn scope_spans(of: ScopeSpans) -> Value {
    let scope = of
        .scope
        .map(|scope| json!({ "name": scope.name, "version": scope.version, "attributes": pairs(scope.attributes) }));
    let spans: Vec<Value> = of.spans.into_iter().map(span).collect();
    json!({ "scope": scope, "spans": spans, "schemaUrl": of.schema_url })
}

fn span(of: Span) -> Value {
    let events = of.events.into_iter().map(|event| {
        let time = event.time_unix_nano.to_string();
        json!({ "timeUnixNano": time, "name": event.name, "attributes": pairs(event.attributes) })
    });
    let links = of.links.into_iter().map(|link| {
        let (trace, span) = (hex(&link.trace_id), hex(&link.span_id));
        json!({ "traceId": trace, "spanId": span, "traceState": link.trace_state, "attributes": pairs(link.attributes) })
    });
    let status = of.status.map(|status| json!({ "message": status.message, "code": status.code }));
    json!({
        "traceId": hex(&of.trace_id), "spanId": hex(&of.span_id), "parentSpanId": hex(&of.parent_span_id),
        "traceState": of.trace_state, "flags": of.flags, "name": of.name, "kind": of.kind,
        "startTimeUnixNano": of.start_time_unix_nano.to_string(), "endTimeUnixNano": of.end_time_unix_nano.to_string(),
        "attributes": pairs(of.attributes), "events": events.collect::<Vec<_>>(), "links": links.collect::<Vec<_>>(),
        "status": status,
    })
}

fn pairs(of: Vec<KeyValue>) -> Vec<Value> {
    of.into_iter().map(|pair| json!({ "key": pair.key, "value": pair.value.map(any) })).collect()
}

fn any(of: AnyValue) -> Value {
    match of.value {
        Some(Any::StringValue(text)) => json!({ "stringValue": text }),
        Some(Any::BoolValue(bool)) => json!({ "boolValue": bool }),
        Some(Any::IntValue(int)) => json!({ "intValue": int.to_string() }),
        Some(Any::DoubleValue(double)) if double.is_finite() => json!({ "doubleValue": double }),
        Some(Any::DoubleValue(double)) => json!({ "doubleValue": double.to_string() }),
        Some(Any::ArrayValue(list)) => {
            json!({ "arrayValue": { "values": list.values.into_iter().map(any).collect::<Vec<_>>() } })
        }
        Some(Any::KvlistValue(list)) => json!({ "kvlistValue": { "values": pairs(list.values) } }),
        Some(Any::BytesValue(bytes)) => json!({ "bytesValue": BASE64.encode(bytes) }),
        Some(Any::StringValueStrindex(_)) | None => json!({}),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
