//! What a test compares: spans with all that lies around them, as bytes.

use std::path::{Path, PathBuf};

use emberd_archive::Part;
use emberd_archive::rows::{How, Rows, open};
use emberd_model::cost::Prices;
use emberd_model::{Batch, Flags, Offset, UnixNanos, wire};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;

/// A span in a request of its own, and how it came: (offset, when, under which key, the request's bytes).
pub(crate) type Flat = (u64, u64, u16, Vec<u8>);

/// The spans of a batch as prost decodes them. Its bytes are compared, for no NaN is equal to itself.
pub(crate) fn flat(batch: &Batch) -> Vec<Flat> {
    let request = ExportTraceServiceRequest::decode(batch.body.clone()).unwrap();
    let mut all = Vec::new();
    for resource in request.resource_spans {
        for scope in resource.scope_spans {
            for span in scope.spans {
                let scope =
                    ScopeSpans { spans: vec![span], scope: scope.scope.clone(), schema_url: scope.schema_url.clone() };
                let alone = ResourceSpans {
                    resource: resource.resource.clone(),
                    schema_url: resource.schema_url.clone(),
                    scope_spans: vec![scope],
                };
                let offset = batch.offset.0 + all.len() as u64;
                let body = ExportTraceServiceRequest { resource_spans: vec![alone] }.encode_to_vec();
                all.push((offset, batch.received_at.0, batch.key, body));
            }
        }
    }
    assert_eq!(all.len(), batch.spans as usize);
    all
}

/// Batches as the log would hold them, of these requests without what the door rejects.
pub(crate) fn batches(requests: impl IntoIterator<Item = Vec<u8>>) -> Vec<Batch> {
    let mut offset = Offset(1_000);
    let mut all = Vec::new();
    for (nth, request) in requests.into_iter().enumerate() {
        let limits = wire::Limits::default();
        let body = wire::without_rejected(&request, &limits);
        let Ok(checked) = wire::check(&body, &limits) else { continue };
        if checked.spans == 0 {
            continue;
        }
        let received_at = UnixNanos(1_795_219_200_000_000_000 + nth as u64 * 1_000_003);
        let flags = checked.flags.and(Flags::COUNTED);
        all.push(Batch { offset, spans: checked.spans, received_at, key: nth as u16 % 3, flags, body: body.into() });
        offset = offset.plus(u64::from(checked.spans));
    }
    all
}

pub(crate) fn write(batches: &[Batch], how: &How) -> Vec<Part> {
    let mut rows = Rows::new(how).unwrap();
    batches.iter().for_each(|batch| rows.push(batch).unwrap());
    assert_eq!(rows.spans(), batches.iter().map(|batch| u64::from(batch.spans)).sum::<u64>());
    rows.finish().unwrap()
}

/// The spans of some files, in the log's order; in each file they must be in it already.
pub(crate) fn read(parts: &[Part]) -> Vec<Flat> {
    let mut all = Vec::new();
    for part in parts {
        let mut of_part: Vec<Flat> = Vec::new();
        for chunk in open(part.file.clone()).unwrap() {
            of_part.extend(chunk.unwrap().batches().unwrap().iter().flat_map(flat));
        }
        assert!(of_part.is_sorted_by_key(|flat| flat.0));
        assert_eq!(of_part.len() as u64, part.rows);
        all.extend(of_part);
    }
    all.sort_by_key(|flat| flat.0);
    all
}

pub(crate) fn fixtures() -> Vec<(String, Vec<u8>)> {
    let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("EMBERD_FIXTURES").map_or(repo.join("../../shared/fixtures/dev"), PathBuf::from);
    let folder = if folder.exists() { folder } else { repo.join("../shared/fixtures/dev") };
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("no fixtures in {}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().is_some_and(|path| path.ends_with(".otlp.pb")));
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

pub(crate) fn how() -> How {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/prices.toml");
    let table: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let prices = Prices::from_json(&serde_json::to_value(table).unwrap()).unwrap();
    How { prices, ..How::default() }
}
