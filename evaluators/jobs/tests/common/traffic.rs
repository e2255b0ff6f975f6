//! A log in memory that traces are written to, in any order, and spans as OTLP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use emberd_log::{ReadError, Reader};
use emberd_model::{Batch, Clock as _, Flags, Offset, SpanId, TraceId};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;

use crate::world::Wall;

/// A log that grows.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Default)]
struct Inner {
    batches: Mutex<Vec<Batch>>,
    more: tokio::sync::Notify,
}

impl Log {
    pub(crate) fn head(&self) -> Offset {
        self.0.batches.lock().unwrap().last().map_or(Offset(0), Batch::end)
    }

    /// Appends spans of one service; gives the request.
    pub(crate) fn append(&self, project: &str, spans: Vec<Span>) -> Vec<u8> {
        let count = spans.len() as u32;
        let body = request(project, spans);
        let mut batches = self.0.batches.lock().unwrap();
        let offset = batches.last().map_or(Offset(0), Batch::end);
        let received_at = Wall.now();
        let flags = Flags::default();
        batches.push(Batch { offset, spans: count, received_at, key: 0, flags, body: Bytes::from(body.clone()) });
        drop(batches);
        self.0.more.notify_waiters();
        body
    }

    pub(crate) fn reader(&self) -> Box<dyn Reader> {
        Box::new(AtPlace { log: self.clone(), at: Offset(0) })
    }
}

struct AtPlace {
    log: Log,
    at: Offset,
}

impl Reader for AtPlace {
    fn position(&self) -> Offset {
        self.at
    }

    fn seek(&mut self, to: Offset) {
        self.at = to;
    }

    fn next(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<Batch>, ReadError>> {
        async move {
            loop {
                let more = self.log.0.more.notified();
                let mut given = Vec::new();
                {
                    let batches = self.log.0.batches.lock().unwrap();
                    let from = batches.partition_point(|batch| batch.end() <= self.at);
                    let mut bytes = 0;
                    for batch in &batches[from..] {
                        if bytes > 0 && bytes + batch.body.len() > max_bytes {
                            break;
                        }
                        bytes += batch.body.len();
                        given.push(batch.clone());
                    }
                }
                if let Some(last) = given.last() {
                    self.at = last.end();
                    return Ok(given);
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), more).await;
            }
        }
        .boxed()
    }
}

pub(crate) fn trace(number: u64) -> TraceId {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    TraceId((u128::from(mixed) << 64 | u128::from(number + 1)).to_be_bytes())
}

pub(crate) fn span_id(trace: TraceId, number: u8) -> SpanId {
    let mut id: [u8; 8] = std::array::from_fn(|at| trace.0[at] ^ trace.0[8 + at]);
    id[7] = number + 1;
    SpanId(id)
}

/// A span; number 0 is the root.
pub(crate) fn span(trace: TraceId, number: u8, attributes: &[(&str, &str)]) -> Span {
    let parent = if number == 0 { Vec::new() } else { span_id(trace, 0).0.to_vec() };
    let started = Wall.now().0 - 2_000_000_000 + u64::from(number) * 1_000_000;
    Span {
        trace_id: trace.0.to_vec(),
        span_id: span_id(trace, number).0.to_vec(),
        parent_span_id: parent,
        name: format!("step {number}"),
        start_time_unix_nano: started,
        end_time_unix_nano: started + 500_000_000,
        attributes: attributes.iter().map(|(key, value)| text(key, value)).collect(),
        ..Span::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn request(project: &str, spans: Vec<Span>) -> Vec<u8> {
    let attributes = vec![text("service.name", "shop"), text("openinference.project.name", project)];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}
