//! A source that is begun again anywhere gives the rest, once.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use emberd_log::{Appender as _, DiskLog, Entry, RealDisk};
use emberd_model::{Flags, TraceId, UnixNanos};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;

use super::{Fed, Places, Position, Source, Wanted};

/// A request of `spans` spans, each in a trace of its own that is `number` and its place.
fn request(number: u8, spans: u8) -> Vec<u8> {
    let span = |place| Span { trace_id: [number, place].repeat(8), span_id: vec![place + 1; 8], ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

/// A log of 40 requests of 1 to 3 spans, received a nanosecond apart.
async fn log(dir: &std::path::Path) -> Vec<u32> {
    let config = emberd_log::Config { segment_bytes: 1 << 20, ..emberd_log::Config::in_dir(dir) };
    let clock = crate::world::World::real().clock;
    let (log, _) = DiskLog::open(config, Arc::new(RealDisk), clock).unwrap();
    let mut sizes = Vec::new();
    for number in 0..40 {
        let spans = number % 3 + 1;
        let entry = Entry {
            spans: NonZeroU32::new(u32::from(spans)).unwrap(),
            received_at: UnixNanos(1_000 + u64::from(number)),
            key: u16::from(number),
            flags: Flags::default(),
            body: request(number, spans).into(),
        };
        log.append(entry).await.unwrap();
        sizes.push(u32::from(spans));
    }
    log.seal().await;
    sizes
}

fn all() -> Wanted {
    Wanted { from: UnixNanos(0), to: UnixNanos(u64::MAX), traces: None }
}

async fn read(dir: &std::path::Path, wanted: Wanted, position: Option<Position>, known: u64) -> Vec<Fed> {
    let places = Places { disk: Arc::new(RealDisk), log: Some(dir.to_owned()), archive: None };
    let mut source = Source::open(places, wanted, position, known);
    let mut fed = Vec::new();
    while let Some(piece) = source.next().await.unwrap() {
        fed.push(piece);
    }
    assert_eq!(source.missing(), 0);
    fed
}

fn ids(fed: &[Fed]) -> Vec<Vec<u8>> {
    let decode = |piece: &Fed| ExportTraceServiceRequest::decode(piece.entry.body.clone()).unwrap();
    let spans = fed.iter().flat_map(|piece| decode(piece).resource_spans).flat_map(|r| r.scope_spans);
    spans.flat_map(|s| s.spans).map(|span| span.trace_id).collect()
}

/// Whatever was written down of a position, and however much was fed since: what is fed before and after is everything, once.
#[tokio::test(flavor = "multi_thread")]
async fn begun_again_anywhere_the_rest_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = log(dir.path()).await;
    let whole = read(dir.path(), all(), None, 0).await;
    assert_eq!(ids(&whole).len(), sizes.iter().sum::<u32>() as usize);
    for fed in 0..=whole.len() {
        for marked in 0..=fed {
            let position = marked.checked_sub(1).map(|last| whole[last].after.clone());
            let since: u32 = sizes[marked..fed].iter().sum();
            let rest = read(dir.path(), all(), position, u64::from(since)).await;
            assert_eq!(ids(&rest), ids(&whole[fed..]), "fed {fed}, of which {marked} were written down");
        }
    }
}

/// Only what was received in the time, and only spans of the traces that are asked for; times, keys and counts go along.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_wanted_comes() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path()).await;
    let (from, to) = (UnixNanos(1_010), UnixNanos(1_020));
    let some = read(dir.path(), Wanted { from, to, traces: None }, None, 0).await;
    let received: Vec<u64> = some.iter().map(|fed| fed.entry.received_at.0).collect();
    assert_eq!(received, (1_010..1_020).collect::<Vec<_>>());
    assert_eq!(some[3].entry.key, 13);

    let traces = HashSet::from([TraceId([[11, 1]; 8].concat().try_into().unwrap())]);
    let one = read(dir.path(), Wanted { from, to, traces: Some(Arc::new(traces)) }, None, 0).await;
    assert_eq!(ids(&one), [[11, 1].repeat(8)]);
    assert_eq!(one[0].entry.spans.get(), 1);
}
