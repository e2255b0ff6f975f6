//! From the log to files and back.

use emberd_archive::rows::{How, merge, rewrite};
use emberd_archive::{Day, Part};
use emberd_model::UnixNanos;
use proptest::prelude::*;

use crate::choices::Choices;
use crate::spans::{Flat, batches, fixtures, flat, how, read, write};
use crate::wild;

fn assert_same(found: &[Flat], expected: &[Flat]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        use prost::Message as _;
        let decode = |body: &Vec<u8>| {
            opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest::decode(&body[..])
        };
        assert!(found == expected, "{found:?}\n{expected:?}\n{:#?}\n{:#?}", decode(&found.3), decode(&expected.3));
    }
}

fn assert_parts(parts: &[Part]) {
    assert!(parts.is_sorted_by(|a, b| a.day < b.day), "one file for each day");
    for part in parts {
        assert!(part.rows > 0 && part.start_min <= part.start_max);
        assert!(part.day == Day::of(part.start_min) && part.day == Day::of(part.start_max));
    }
}

#[test]
fn exports_of_real_sdks_come_back() {
    let how = how();
    for (name, request) in fixtures() {
        let batches = batches([request]);
        let expected: Vec<Flat> = batches.iter().flat_map(flat).collect();
        let parts = write(&batches, &how);
        assert_parts(&parts);
        println!("{name}: {} spans", expected.len());
        assert_same(&read(&parts), &expected);
    }
}

/// Many spans, so that there are several pages and chunks; the order of the log is kept.
#[test]
fn many_spans_come_back_in_order() {
    let requests: Vec<Vec<u8>> = fixtures().into_iter().map(|(_, request)| request).collect();
    let batches = batches(requests.iter().cycle().take(requests.len() * 40).cloned());
    let expected: Vec<Flat> = batches.iter().flat_map(flat).collect();
    let parts = write(&batches, &how());
    assert_parts(&parts);
    assert_same(&read(&parts), &expected);
}

/// More rows than a row group has, of texts that fill dictionaries: session ids and keys of which each comes once, and repeated ones after
/// them, which the dictionary no longer tells apart.
#[test]
fn several_row_groups_and_full_dictionaries_come_back() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message as _;
    let text = |key: String, value: String| {
        let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
        KeyValue { key, value, ..KeyValue::default() }
    };
    let span = |n: u64| {
        let mut attributes = vec![text("session.id".into(), format!("session {n}"))];
        if n < 20_000 {
            attributes.push(text(format!("key {n}"), String::new()));
        }
        if n.is_multiple_of(1_000) {
            attributes.extend([text("again".into(), "1".into()), text("again".into(), "2".into())]);
        }
        let (trace_id, span_id) =
            ((1_u128 << 90 | u128::from(n / 4)).to_be_bytes().into(), (n + 1).to_be_bytes().into());
        Span { trace_id, span_id, start_time_unix_nano: 1_795_219_200_000_000_000 + n, attributes, ..Span::default() }
    };
    let requests = (0..102_000).step_by(1_000).map(|first: u64| {
        let scope_spans = vec![ScopeSpans { spans: (first..first + 1_000).map(span).collect(), ..Default::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    });
    let batches = batches(requests);
    let expected: Vec<Flat> = batches.iter().flat_map(flat).collect();
    let parts = write(&batches, &How::default());
    assert_eq!(parts.len(), 1);
    assert!(read(&parts) == expected);
}

/// Files of stretches of the log, and of stretches that interleave, merge to the files of the whole, row for row.
#[test]
fn merged_files_hold_what_they_were_made_of() {
    let requests: Vec<Vec<u8>> = fixtures().into_iter().map(|(_, request)| request).collect();
    let batches = batches(requests.iter().cycle().take(requests.len() * 6).cloned());
    let expected: Vec<Flat> = batches.iter().flat_map(flat).collect();
    let how = how();
    let whole = write(&batches, &how);
    let behind: Vec<Part> = batches.chunks(40).flat_map(|batches| write(batches, &how)).collect();
    let mut interleaved = Vec::new();
    for third in 0..3 {
        let own: Vec<_> = batches.iter().skip(third).step_by(3).cloned().collect();
        interleaved.extend(write(&own, &how));
    }
    for parts in [behind, interleaved] {
        let merged = merge(parts.into_iter().map(|part| part.file).collect()).unwrap();
        assert_parts(&merged);
        assert_same(&read(&merged), &expected);
        assert!(merged.iter().zip(&whole).all(|(merged, whole)| merged.file == whole.file), "the same bytes");
    }
}

#[test]
fn erased_rows_are_gone_and_others_stay() {
    let requests: Vec<Vec<u8>> = fixtures().into_iter().map(|(_, request)| request).collect();
    let batches = batches(requests);
    let all: Vec<Flat> = batches.iter().flat_map(flat).collect();
    for part in write(&batches, &how()) {
        let mut nth = 0;
        let mut kept_offsets = Vec::new();
        let before = read(std::slice::from_ref(&part));
        let rewritten = rewrite(part.file.clone(), |_| {
            nth += 1;
            if nth % 3 != 0 {
                kept_offsets.push(before[nth - 1].0);
            }
            nth % 3 != 0
        })
        .unwrap();
        assert_eq!((rewritten.kept + rewritten.erased, rewritten.kept), (part.rows, kept_offsets.len() as u64));
        let expected: Vec<Flat> = all.iter().filter(|flat| kept_offsets.contains(&flat.0)).cloned().collect();
        let parts: Vec<Part> = rewritten.part.into_iter().collect();
        assert_same(&read(&parts), &expected);
        let rewritten = rewrite(part.file.clone(), |_| false).unwrap();
        assert_eq!((rewritten.kept, rewritten.erased), (0, part.rows));
        assert!(rewritten.part.is_none());
        let rewritten = rewrite(part.file.clone(), |id| id.trace_id.0 != [0; 16]).unwrap();
        assert!(rewritten.erased == 0 && rewritten.part.unwrap().file == part.file, "a copy is the same bytes");
    }
}

/// A request of spans of a hundred days: those beyond what one file set may have lie under the day of receipt.
#[test]
fn a_flood_of_days_is_bounded_and_lossless() {
    let (_, request) = fixtures().swap_remove(0);
    let mut requests = Vec::new();
    for day in 0..100_u64 {
        use prost::Message as _;
        type Request = opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
        let mut request = Request::decode(&request[..]).unwrap();
        for span in request.resource_spans.iter_mut().flat_map(|rs| &mut rs.scope_spans).flat_map(|ss| &mut ss.spans) {
            span.start_time_unix_nano = day * 24 * 3_600_000_000_000 + 5;
        }
        requests.push(request.encode_to_vec());
    }
    let batches = batches(requests);
    let expected: Vec<Flat> = batches.iter().flat_map(flat).collect();
    let parts = write(&batches, &How::default());
    assert_eq!(parts.len(), 65);
    assert_eq!(parts[64].day, Day::of(batches[0].received_at));
    assert_eq!(parts[3].start_min, UnixNanos(3 * 24 * 3_600_000_000_000 + 5));
    assert_same(&read(&parts), &expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the wire format allows comes back as protobuf reads it.
    #[test]
    fn hostile_spans_come_back(inputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..6)) {
        let requests = inputs.iter().map(|input| wild::request(&mut Choices::new(input)));
        let batches = batches(requests);
        let expected: Vec<Flat> = batches.iter().flat_map(flat).collect();
        let parts = write(&batches, &How::default());
        assert_same(&read(&parts), &expected);
        let merged = merge(parts.iter().map(|part| part.file.clone()).collect()).unwrap();
        assert_same(&read(&merged), &expected);
    }
}
