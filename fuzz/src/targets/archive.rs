//! The archive's files: what goes in comes out, and what is no such file is refused.

use bytes::Bytes;
use emberd_archive::Part;
use emberd_archive::rows::{Error, How, Rows, merge, open, rewrite};
use emberd_model::wire::{Limits, check, without_rejected};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;

use crate::choices::Choices;
use crate::{memory, seeds};

/// What a request of a few KiB may hold while its rows are written: columns, zstd's tables, bloom filters, for each of few days.
const WRITING_BYTES_MAX: usize = 48 << 20;

/// Spans alone, each as a request's bytes: no NaN is equal to itself.
fn alone(body: &[u8]) -> Vec<Vec<u8>> {
    let request = ExportTraceServiceRequest::decode(body).expect("what the door takes, prost decodes");
    let mut all = Vec::new();
    for resource in request.resource_spans {
        for scope in resource.scope_spans {
            for span in scope.spans {
                let (inner, outer) = (scope.scope.clone(), resource.resource.clone());
                let scope = ScopeSpans { scope: inner, spans: vec![span], schema_url: scope.schema_url.clone() };
                let schema_url = resource.schema_url.clone();
                all.push(ResourceSpans { resource: outer, scope_spans: vec![scope], schema_url }.encode_to_vec());
            }
        }
    }
    all
}

fn written(body: Vec<u8>, spans: u32) -> Vec<Part> {
    let how = How::default();
    let mut rows = Rows::new(&how).expect("a compressor");
    rows.push(&seeds::batch(body, spans)).expect("memory takes what is written");
    assert_eq!(rows.spans(), u64::from(spans));
    rows.finish().expect("memory takes what is written")
}

/// The spans of some files, in the log's order.
fn read(parts: &[Part]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for part in parts {
        for chunk in open(part.file.clone()).expect("a file just written") {
            for batch in chunk.and_then(|chunk| chunk.batches()).expect("rows just written") {
                all.extend((batch.offset.0..).zip(alone(&batch.body)));
            }
        }
    }
    all.sort_by_key(|(offset, _)| *offset);
    all.into_iter().map(|(_, span)| span).collect()
}

/// Each span of a request comes back as prost decodes it; from merged files too.
pub(super) fn rows(request: &[u8]) {
    let limits = Limits::default();
    let body = without_rejected(request, &limits);
    let Ok(checked) = check(&body, &limits) else { return };
    let expected = alone(&body);
    let parts = memory::within(WRITING_BYTES_MAX, || written(body, checked.spans));
    assert!(read(&parts) == expected, "other spans");
    let merged = merge(parts.into_iter().map(|part| part.file).collect()).expect("files just written");
    assert!(read(&merged) == expected, "other spans in merged files");
}

/// The same for what no encoder writes.
pub(super) fn wild(input: &[u8]) {
    rows(&crate::wild::request(&mut Choices::new(input)));
}

/// Bytes are refused, or are a file whose checksum is right; nothing panics.
pub(super) fn file(input: &[u8]) {
    let input = Bytes::copy_from_slice(input);
    match open(input.clone()) {
        Ok(reader) => assert!(reader.map(|chunk| chunk.map_or(0, |chunk| chunk.len())).sum::<usize>() > 0),
        Err(error) => {
            assert!(matches!(error, Error::Damaged(_)), "{error}");
            assert!(rewrite(input.clone(), |_| true).is_err() && merge(vec![input]).is_err());
        }
    }
}

pub(super) fn file_seeds() -> Vec<Vec<u8>> {
    let first = seeds::requests().into_iter().take(3);
    let parts = first.filter_map(|body| {
        let spans = check(&body, &Limits::default()).ok()?.spans;
        Some(written(body, spans))
    });
    parts.flatten().map(|part| part.file.to_vec()).collect()
}
