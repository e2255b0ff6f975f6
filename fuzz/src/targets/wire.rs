//! The walk over OTLP/protobuf, the views on it and the edits of it, against prost.

use emberd_model::wire::{self, Change, Limits, check, without_rejected};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::head;
use crate::choices::Choices;
use crate::views::{by_prost, by_views, is_kept};
use crate::wild;

/// The walk and prost give the same verdict, count the same spans, reject the same ones, and see the same ids.
///
/// But for this: where prost gives up a request for a span's bad text or its depth, the walk rejects the spans that hang on it
/// and keeps the others; and it gives up on groups and on nesting sooner than prost does.
pub(super) fn walk(request: &[u8]) {
    let limits = Limits::default();
    let decoded = ExportTraceServiceRequest::decode(request).ok();
    let checked = match check(request, &limits) {
        Ok(checked) => checked,
        Err(malformed) => {
            assert!(malformed.at <= request.len(), "{malformed}, of {} bytes", request.len());
            assert!(without_rejected(request, &limits).is_empty());
            let sooner = malformed.what == "groups nested too deep" || malformed.what.contains("too deep a value");
            assert!(decoded.is_none() || sooner, "prost takes what the walk calls malformed: {malformed}");
            return;
        }
    };
    assert_eq!(checked.rejected == 0, checked.reasons.is_empty());
    let said = |what: &str| checked.reasons.len() == 8 || checked.reasons.iter().any(|reason| reason.contains(what));
    let Some(decoded) = decoded else {
        let known = said("is not UTF-8") || said("nested deeper");
        return assert!(known, "prost refuses what the walk takes: {checked:?}");
    };
    let spans = || decoded.resource_spans.iter().flat_map(|rs| &rs.scope_spans).flat_map(|scope| &scope.spans);
    assert_eq!(spans().count(), checked.spans as usize + checked.rejected as usize);
    let kept = spans().filter(|span| is_kept(span)).count();
    assert!(kept >= checked.spans as usize, "{checked:?}, of which prost shows {kept} whole");
    assert!(said("nested deeper") || kept == checked.spans as usize, "{checked:?}, of which prost shows {kept} whole");
    let views = wire::spans(request);
    assert_eq!(views.clone().count(), spans().count());
    for (found, span) in views.zip(spans()).filter(|(_, span)| is_kept(span)) {
        assert_eq!((&found.span.trace_id.0[..], &found.span.span_id.0[..]), (&span.trace_id[..], &span.span_id[..]));
        let parent = found.span.parent_span_id.map(|id| id.0.to_vec()).unwrap_or_default();
        assert!(parent == span.parent_span_id || span.parent_span_id == [0; 8]);
    }
}

/// The same for what no encoder writes: the input chooses fields in any order, repeated, in pieces, unknown, in groups.
pub(super) fn walk_wild(input: &[u8]) {
    let request = wild::request(&mut Choices::new(input));
    walk(&request);
    walk_values(&request);
}

/// The views show the values that prost decodes; on what is no request they end, and do not panic.
pub(super) fn walk_values(request: &[u8]) {
    let viewed = by_views(request);
    if check(request, &Limits::default()).is_ok_and(|checked| checked.rejected == 0) {
        let decoded = ExportTraceServiceRequest::decode(request).expect("what the walk takes whole, prost decodes");
        assert_eq!(viewed, by_prost(decoded));
    }
}

/// Without its rejected spans a request is taken whole, whatever the limits, and holds the kept ones in order; a second time
/// changes nothing.
pub(super) fn cut_rejected(input: &[u8]) {
    let ([depth, spans, ..], request) = head::<4>(input);
    let limits = Limits {
        depth_max: if depth == 0 { 32 } else { u32::from(depth) % 40 },
        spans_max: if spans == 0 { 100_000 } else { u32::from(spans) % 16 },
    };
    let Ok(checked) = check(request, &limits) else {
        return assert!(without_rejected(request, &limits).is_empty());
    };
    assert!(checked.spans <= limits.spans_max);
    let kept = without_rejected(request, &limits);
    let again = check(&kept, &limits).expect("what is left is well-formed");
    assert_eq!((again.spans, again.rejected, again.flags), (checked.spans, 0, checked.flags));
    assert_eq!(without_rejected(&kept, &limits), kept);
    assert!(checked.rejected > 0 || kept == request);
    let decoded = ExportTraceServiceRequest::decode(&kept[..]).expect("what is left decodes");
    assert!(by_prost(decoded) == by_views(&kept));
    let mut all = wire::spans(request).map(|found| found.span.raw);
    for found in wire::spans(&kept) {
        assert!(all.any(|raw| raw == found.span.raw), "a span that was not there, or in another order");
    }
}

/// Leaving out or changing spans of what the walk keeps touches no other span.
pub(super) fn edited(input: &[u8]) {
    let (fates, request) = head::<4>(input);
    let request = &without_rejected(request, &Limits::default());
    let fate = |nth: usize| fates[nth / 4 % 4] >> (2 * (nth % 4)) & 3;
    let replaced = |raw: &[u8]| [raw, b"\x2a\x07changed"].concat();
    let mut changes = Vec::new();
    let mut expected = Vec::new();
    for (nth, found) in wire::spans(request).enumerate() {
        let to = match fate(nth) {
            0 | 3 => {
                expected.push(found.span.raw.to_vec());
                continue;
            }
            1 => None,
            _ => Some(replaced(found.span.raw)),
        };
        expected.extend(to.clone());
        changes.push(Change { place: found.span.place(), to });
    }
    let edited = wire::edited(request, &changes);
    assert!(!changes.is_empty() || edited == *request);
    let left: Vec<Vec<u8>> = wire::spans(&edited).map(|found| found.span.raw.to_vec()).collect();
    assert!(left == expected, "{} spans are left where {} were expected", left.len(), expected.len());
    assert!(check(&edited, &Limits::default()).is_ok());
}
