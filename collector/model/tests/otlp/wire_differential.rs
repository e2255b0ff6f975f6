//! The walk and the views against prost: same verdict, same spans, same values, whatever the bytes.

use emberd_model::wire::{Change, Limits, check, edited, spans, without_rejected};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;

use crate::choices::Choices;
use crate::damage::{damage, suffer};
use crate::views::{Flat, by_prost, by_views, is_kept};
use crate::{fixtures, message, wild};

fn decode(request: &[u8]) -> Option<Vec<Flat>> {
    ExportTraceServiceRequest::decode(request).ok().map(by_prost)
}

/// The walk and prost agree on `request`, but for this: where prost gives up a request for a span's bad text, the walk
/// rejects the spans that hang on that text and keeps the others.
fn agree(request: &[u8]) {
    let limits = Limits::default();
    let (checked, decoded) = (check(request, &limits), decode(request));
    // The views end, and do not panic, on anything.
    let viewed = by_views(request);
    let checked = match checked {
        Err(malformed) => {
            assert!(decoded.is_none(), "prost takes what the walk calls malformed: {malformed}");
            assert!(malformed.at <= request.len());
            assert!(without_rejected(request, &limits).is_empty());
            return;
        }
        Ok(checked) => checked,
    };
    let kept = without_rejected(request, &limits);
    let left = by_prost(ExportTraceServiceRequest::decode(&kept[..]).expect("what is left decodes"));
    assert_eq!(left.len(), checked.spans as usize);
    assert_eq!(by_views(&kept), left);
    let again = check(&kept, &limits).expect("what is left is well-formed");
    assert_eq!((again.spans, again.rejected, again.flags), (checked.spans, 0, checked.flags));
    if checked.rejected == 0 {
        assert_eq!(kept, request);
    } else {
        assert!(!checked.reasons.is_empty());
    }
    match decoded {
        Some(decoded) => {
            assert_eq!(viewed.len(), decoded.len());
            let rejected = decoded.iter().filter(|flat| !is_kept(&flat.span)).count();
            assert_eq!(rejected, checked.rejected as usize, "{:?}", checked.reasons);
            let expected: Vec<Flat> = decoded.into_iter().filter(|flat| is_kept(&flat.span)).collect();
            assert_eq!(left, expected);
        }
        None => assert!(
            checked.reasons.iter().any(|reason| reason.ends_with("is not UTF-8")) || checked.reasons.len() == 8,
            "prost refuses what the walk takes: {checked:?}"
        ),
    }
}

fn bytes(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..length)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_prost_encodes_reads_the_same(choices in bytes(600)) {
        let request = message::request(&mut Choices::new(&choices));
        let encoded = request.encode_to_vec();
        prop_assert_eq!(check(&encoded, &Limits::default()).unwrap().rejected, 0);
        prop_assert_eq!(by_views(&encoded), by_prost(request));
    }

    #[test]
    fn what_no_encoder_writes_reads_the_same(choices in bytes(2_000)) {
        agree(&wild::request(&mut Choices::new(&choices)));
    }

    #[test]
    fn damaged_requests_get_the_same_verdict(choices in bytes(400), damages in prop::collection::vec(damage(), 1..5)) {
        let mut request = message::request(&mut Choices::new(&choices)).encode_to_vec();
        damages.iter().for_each(|damage| suffer(&mut request, damage));
        agree(&request);
    }

    #[test]
    fn random_bytes_get_the_same_verdict(request in bytes(60)) {
        agree(&request);
    }

    /// Leaving out and changing spans touches no other span, and no field around them.
    #[test]
    fn edited_requests_hold_exactly_the_edits(choices in bytes(800), fates in prop::collection::vec(0..3u8, 40)) {
        let request = message::request(&mut Choices::new(&choices));
        let encoded = request.encode_to_vec();
        let name = |name: &str| format!("{name}, renamed to something that makes the span quite a bit longer than it was before it");
        let mut expected = request.clone();
        let mut changes = Vec::new();
        let mut fate = fates.iter().cycle();
        for (found, fate) in spans(&encoded).zip(fate.clone()) {
            let mut span = opentelemetry_proto::tonic::trace::v1::Span::decode(found.span.raw).unwrap();
            span.name = name(&span.name);
            let to = match fate { 0 => continue, 1 => None, _ => Some(span.encode_to_vec()) };
            changes.push(Change { place: found.span.place(), to });
        }
        for scope_spans in expected.resource_spans.iter_mut().flat_map(|resource_spans| &mut resource_spans.scope_spans) {
            scope_spans.spans.retain_mut(|span| match fate.next() {
                Some(0) => true,
                Some(1) => false,
                _ => { span.name = name(&span.name); true }
            });
        }
        prop_assert_eq!(edited(&encoded, &changes), expected.encode_to_vec());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_fixtures_get_the_same_verdict(damages in prop::collection::vec(damage(), 1..4)) {
        for name in fixtures::names(".otlp.pb") {
            let mut request = fixtures::read(&format!("{name}.otlp.pb"));
            damages.iter().for_each(|damage| suffer(&mut request, damage));
            agree(&request);
        }
    }
}

/// A request cut off anywhere is judged as prost judges it.
#[test]
fn a_fixture_cut_anywhere_gets_the_same_verdict() {
    let request = fixtures::read("all-value-types.otlp.pb");
    (0..request.len()).for_each(|length| agree(&request[..length]));
}

/// Each single bit of a real request, flipped.
#[test]
fn a_fixture_with_any_bit_flipped_gets_the_same_verdict() {
    let mut request = fixtures::read("all-value-types.otlp.pb");
    for bit in 0..request.len() * 8 {
        request[bit / 8] ^= 1 << (bit % 8);
        agree(&request);
        request[bit / 8] ^= 1 << (bit % 8);
    }
}
