//! What a corpus begins with: real exports of real SDKs, where they are at hand, and what emberd itself writes.

use std::fs;
use std::path::{Path, PathBuf};

use emberd_model::facts::Reading;
use emberd_model::trace::{TraceState, fold};
use emberd_model::{Batch, Flags, Offset, UnixNanos};

/// A fuzzer is the slower the longer its inputs are; what is longer teaches it little that is new.
const SEED_BYTES_MAX: usize = 4 << 10;

/// Where the exports are: `EMBERD_FIXTURES`, or beside the repository.
fn directory() -> PathBuf {
    match std::env::var_os("EMBERD_FIXTURES") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/dev"),
    }
}

/// The exports whose names end so, none where there are no exports, in the order of their names.
fn fixtures(ending: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(directory()) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.to_str().is_some_and(|path| path.ends_with(ending)));
    paths.sort();
    let read = paths.iter().filter_map(|path| fs::read(path).ok());
    read.filter(|bytes| bytes.len() <= SEED_BYTES_MAX).collect()
}

pub(crate) fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

/// Requests as protobuf.
pub(crate) fn requests() -> Vec<Vec<u8>> {
    fixtures(".otlp.pb")
}

/// Requests as protobuf, with bytes before them by which a target may decide something.
pub(crate) fn headed_requests() -> Vec<Vec<u8>> {
    requests().into_iter().map(|request| [&[0, 0, 0, 0][..], &request].concat()).collect()
}

/// Requests as JSON.
pub(crate) fn json() -> Vec<Vec<u8>> {
    let mut all = fixtures(".received.json");
    all.extend(fixtures(".json").into_iter().filter(|text| text.starts_with(b"{\"resourceSpans")));
    all.extend(fixtures(".json"));
    all.dedup();
    all
}

/// Encoded states of the exports' traces.
pub(crate) fn states() -> Vec<Vec<u8>> {
    let states = |request: Vec<u8>| -> Vec<TraceState> {
        fold(&[batch(request, 1)], &Reading::default()).into_values().collect()
    };
    let encoded = fixtures(".otlp.pb").into_iter().flat_map(states).map(|state| state.encode());
    encoded.chain([TraceState::default().encode()]).filter(|bytes| bytes.len() <= SEED_BYTES_MAX).collect()
}

/// A batch as it would lie in the log.
pub(crate) fn batch(body: Vec<u8>, spans: u32) -> Batch {
    let (offset, received_at, flags) = (Offset(0), UnixNanos(1), Flags(0));
    Batch { offset, spans, received_at, key: 0, flags, body: body.into() }
}
