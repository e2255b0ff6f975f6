//! Bad input, row by row: what is malformed, what costs a span, what is taken as it is.

use emberd_model::Flags;
use emberd_model::wire::{Change, Checked, Limits, Malformed, check, edited, spans, without_rejected};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::views::{by_prost, by_views};

/// A field of wire type 2.
fn field(number: u64, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const TRACE_ID: [u8; 16] = [7; 16];

fn span_with(extra: &[u8]) -> Vec<u8> {
    [&field(1, TRACE_ID)[..], &field(2, [8; 8]), &field(5, "call"), extra].concat()
}

/// A request of these spans, under a resource and a scope.
fn request_of(spans: &[Vec<u8>]) -> Vec<u8> {
    let spans: Vec<u8> = spans.iter().flat_map(|span| field(2, span)).collect();
    field(
        1,
        [field(1, attribute("service.name", &field(1, "chat"))), field(2, [field(1, field(1, "lib")), spans].concat())]
            .concat(),
    )
}

/// Three spans, the middle one with `extra`.
fn request_with(extra: &[u8]) -> Vec<u8> {
    request_of(&[span_with(&[]), span_with(extra), span_with(&[])])
}

/// An attribute as a field 1, as resources have it.
fn attribute(key: &str, value: &[u8]) -> Vec<u8> {
    field(1, [field(1, key), field(2, value)].concat())
}

/// An attribute as a field 9, as spans have it.
fn span_attribute(key: &str, value: &[u8]) -> Vec<u8> {
    field(9, [field(1, key), field(2, value)].concat())
}

fn checked(request: &[u8]) -> Checked {
    check(request, &Limits::default()).unwrap_or_else(|malformed| panic!("{malformed}"))
}

fn malformed(request: &[u8]) -> Malformed {
    check(request, &Limits::default()).expect_err("this should be malformed")
}

#[test]
fn nothing_is_a_request_too() {
    for request in [vec![], field(1, []), field(1, field(2, [])), field(1, field(1, []))] {
        assert_eq!(checked(&request), Checked::default());
    }
}

#[test]
fn bytes_that_can_never_parse_are_malformed() {
    let whole = request_with(&[]);
    let zero_number = [0x02, 0x01, b'a'];
    for (extra, what) in [
        (&b"\x00\x00"[..], "field number 0"),
        (&zero_number, "field number 0"),
        (b"\x0e", "unknown wire type"),
        (b"\x0f", "unknown wire type"),
        (b"\xff\xff\xff\xff\x7f\x00", "field number of more than 29 bits"),
        (b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "varint of more than 64 bits"),
        (b"\x30\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", "varint of more than 64 bits"),
        (b"\x30\x80", "truncated varint"),
        (b"\x30", "truncated varint"),
        (b"\x39\x01\x02\x03", "truncated number"),
        (b"\x85\x01\x01\x02\x03", "truncated number"),
        (b"\x2a\x05abc", "length past the end"),
        (b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "length past the end"),
        (b"\x2a\xff\xff\xff\xff\x0f", "length past the end"),
        // Known fields under another wire type: the span id as a varint, the name as a number, the kind as text, times
        // as text.
        (b"\x10\x01", "wrong wire type"),
        (b"\x2d\x01\x02\x03\x04", "wrong wire type"),
        (b"\x32\x01a", "wrong wire type"),
        (b"\x3a\x01a", "wrong wire type"),
        (b"\x80\x01\x01", "wrong wire type"),
        (b"\x7a\x02\x12\x05", "length past the end"),
        (b"\x4b\x4c", "wrong wire type"),
        // Groups: one that ends another, one that does not end, one that did not begin.
        (b"\x9b\x01\xa4\x01", "end of another group"),
        (b"\x9b\x01\x08\x01", "truncated varint"),
        (b"\x9c\x01", "end of a group that did not begin"),
    ] {
        let request = request_with(extra);
        assert_eq!(malformed(&request).what, what, "{extra:x?}");
        assert!(ExportTraceServiceRequest::decode(&request[..]).is_err(), "prost takes {extra:x?}");
        assert_eq!(without_rejected(&request, &Limits::default()), b"");
    }
    for length in 1..whole.len() {
        assert!(check(&whole[..length], &Limits::default()).is_err(), "cut to {length} bytes");
    }
    assert_eq!(malformed(b"\x0a\x05\x12\x03\x12\x01"), Malformed { what: "length past the end", at: 1 });
}

#[test]
fn what_the_format_allows_is_taken() {
    for extra in [
        &b"\xf8\x7f\x01"[..],
        b"\x9b\x01\x9c\x01",
        b"\x9b\x01\x08\x01\x9b\x01\x12\x03abc\x9c\x01\x9c\x01",
        b"\xa2\x01\x03\xff\xff\xff",
        b"\xa1\x01\x01\x02\x03\x04\x05\x06\x07\x08",
        b"\xa5\x01\x01\x02\x03\x04",
        // Numbers and lengths written longer than they need be; field 1 of a status, which was a code once.
        b"\xb0\x80\x80\x00\x83\x80\x00",
        b"\x2a\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00a",
        b"\x7a\x04\x08\x02\x18\x02",
        b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        let request = request_with(extra);
        assert_eq!((checked(&request).spans, checked(&request).rejected), (3, 0), "{extra:x?}");
        assert!(ExportTraceServiceRequest::decode(&request[..]).is_ok(), "prost refuses {extra:x?}");
        assert_eq!(without_rejected(&request, &Limits::default()), request);
    }
}

/// Groups are passed over to a bound, and then refused without a recursion.
#[test]
fn groups_are_bounded() {
    let nested = |depth: usize| request_with(&[[0x9b, 0x01].repeat(depth), [0x9c, 0x01].repeat(depth)].concat());
    assert_eq!(checked(&nested(32)).spans, 3);
    assert_eq!(malformed(&nested(33)).what, "groups nested too deep");
    assert_eq!(malformed(&nested(1_000_000)).what, "groups nested too deep");
}

#[test]
fn a_bad_span_costs_itself_and_says_why() {
    for (span, why) in [
        ([field(2, [8; 8]), field(5, "call")].concat(), "trace id is 0 bytes long"),
        (span_with(&field(1, [1; 15])), "trace id is 15 bytes long"),
        (span_with(&field(1, [1; 17])), "trace id is 17 bytes long"),
        (span_with(&field(1, [0; 16])), "trace id is all zero"),
        (field(1, TRACE_ID), "span id is 0 bytes long"),
        (span_with(&field(2, [1; 7])), "span id is 7 bytes long"),
        (span_with(&field(2, [1; 9])), "span id is 9 bytes long"),
        (span_with(&field(2, [0; 8])), "span id is all zero"),
        (span_with(&field(4, [1; 7])), "parent span id is 7 bytes long"),
        (span_with(&field(4, [1; 16])), "parent span id is 16 bytes long"),
        (span_with(&field(3, b"\xff")), "trace state is not UTF-8"),
        (span_with(&field(5, b"caf\xe9")), "name is not UTF-8"),
        (span_with(&field(5, [&b"a".repeat(100)[..], b"\xe9"].concat())), "name is not UTF-8"),
        (span_with(&[field(5, b"\xff"), field(5, "good, and last")].concat()), "name is not UTF-8"),
        (span_with(&field(15, field(2, b"\xc0\x80"))), "status message is not UTF-8"),
        (span_with(&field(9, field(1, b"\xed\xa0\x80"))), "attribute is not UTF-8"),
        (span_with(&span_attribute("k", &field(1, b"\xff"))), "attribute is not UTF-8"),
        (span_with(&span_attribute("k", &field(5, field(1, field(1, b"\xff"))))), "attribute is not UTF-8"),
        (span_with(&span_attribute("k", &field(6, field(1, field(1, b"\xff"))))), "attribute is not UTF-8"),
        (span_with(&field(11, field(2, b"\xff"))), "event name is not UTF-8"),
        (span_with(&field(11, field(3, field(1, b"\xff")))), "event attribute is not UTF-8"),
        (span_with(&field(13, field(3, b"\xff"))), "link trace state is not UTF-8"),
        (span_with(&field(13, field(4, field(1, b"\xff")))), "link attribute is not UTF-8"),
    ] {
        let request = request_of(&[span_with(&[]), span, span_with(&[])]);
        let expected =
            Checked { spans: 2, rejected: 1, reasons: vec![format!("span 1: {why}")], flags: Flags::default() };
        assert_eq!(checked(&request), expected);
        assert_eq!(
            without_rejected(&request, &Limits::default()),
            request_of(&[span_with(&[]), span_with(&[])]),
            "{why}"
        );
    }
}

/// A root's parent may be written as eight zeros, and ids of links may be anything.
#[test]
fn ids_that_nobody_relies_on_are_let_be() {
    let request = request_with(&[field(4, [0; 8]), field(13, field(1, [1; 3]))].concat());
    assert_eq!((checked(&request).spans, checked(&request).rejected), (3, 0));
    assert!(spans(&request).all(|found| found.span.parent_span_id.is_none()));
}

/// What is wrong with a resource or scope falls on the spans under it, wherever in the message it stands; the others
/// are kept.
#[test]
fn a_bad_resource_or_scope_costs_its_spans() {
    let good = request_of(&[span_with(&[])]);
    let scope_spans = field(2, [field(2, span_with(&[])), field(2, span_with(&[]))].concat());
    let bad_attribute = attribute("k", &field(1, b"\xff"));
    for (bad, why) in [
        (field(1, [field(1, &bad_attribute), scope_spans.clone()].concat()), "resource attribute is not UTF-8"),
        (field(1, [scope_spans.clone(), field(1, &bad_attribute)].concat()), "resource attribute is not UTF-8"),
        (field(1, [scope_spans.clone(), field(3, b"\xff")].concat()), "schema url of the resource is not UTF-8"),
        (
            field(1, [scope_spans.clone(), field(1, field(3, field(2, b"\xff")))].concat()),
            "entity reference is not UTF-8",
        ),
    ] {
        let request = [&good[..], &bad, &good].concat();
        let found = checked(&request);
        assert_eq!((found.spans, found.rejected), (2, 2), "{why}");
        assert_eq!(found.reasons, [format!("spans 1 to 2: {why}")]);
        assert_eq!(without_rejected(&request, &Limits::default()), [&good[..], &good].concat());
    }
    for (bad, why) in [
        (field(1, field(1, b"\xff")), "scope name is not UTF-8"),
        (field(1, field(2, b"\xff")), "scope version is not UTF-8"),
        (field(1, field(3, field(1, b"\xff"))), "scope attribute is not UTF-8"),
        (field(3, b"\xff"), "schema url of the scope is not UTF-8"),
    ] {
        let bad = field(2, [field(2, span_with(&[])), bad].concat());
        let request = field(1, [&scope_spans[..], &bad, &scope_spans].concat());
        let found = checked(&request);
        assert_eq!((found.spans, found.rejected), (4, 1), "{why}");
        assert_eq!(found.reasons, [format!("span 2: {why}")]);
        let left = field(1, [&scope_spans[..], &scope_spans].concat());
        assert_eq!(without_rejected(&request, &Limits::default()), left);
    }
}

/// A rejected span at the end of one scope and a rejected scope behind it are two things to leave out.
#[test]
fn neighbours_in_different_messages_are_left_out_each_for_itself() {
    let (good, bad) = (&field(2, span_with(&[]))[..], &field(2, span_with(&field(1, [1; 3])))[..]);
    let scopes = |scopes: &[&[u8]]| field(1, scopes.iter().flat_map(|spans| field(2, spans)).collect::<Vec<u8>>());
    for (request, left) in [
        (scopes(&[&[good, bad].concat(), bad]), scopes(&[good])),
        (scopes(&[bad, &[bad, good].concat()]), scopes(&[good])),
        (scopes(&[bad, &bad.repeat(2), good, bad]), scopes(&[good])),
        ([scopes(&[good, bad]), scopes(&[bad])].concat(), scopes(&[good])),
        ([scopes(&[&[good, bad, bad, good].concat()]), scopes(&[bad])].concat(), scopes(&[&good.repeat(2)])),
    ] {
        assert_eq!(without_rejected(&request, &Limits::default()), left);
    }
}

/// Changes whose places are none are not made, wherever they point.
#[test]
fn changes_that_have_no_place_are_not_made() {
    let request = request_of(&[span_with(&[]), span_with(&[])]);
    let place = spans(&request).next().unwrap().span.place();
    for place in [
        place.start..place.end + 1,
        place.start..request.len() + 1,
        place.start..usize::MAX,
        place.start + 1..place.end,
        place.start..place.start,
        request.len()..request.len() + 5,
        usize::MAX..usize::MAX,
    ] {
        let change = Change { place: place.clone(), to: Some(b"new".to_vec()) };
        assert_eq!(edited(&request, &[change]), request, "{place:?}");
    }
}

/// Members of a value that repeat, in every order and in one piece or two, read as protobuf merges them.
#[test]
fn values_in_pieces_are_merged_as_prost_merges_them() {
    let member = |kind: usize, index: usize| match kind {
        0 => field(5, field(1, field(1, format!("array {index}")))),
        1 => field(6, field(1, field(1, format!("key {index}")))),
        _ => field(1, format!("text {index}")),
    };
    for order in 0..3_usize.pow(6) {
        let members: Vec<Vec<u8>> =
            (0..6).map(|index| member(order / 3_usize.pow(index) % 3, index as usize)).collect();
        for split in 0..=6 {
            let (one, other) = members.split_at(split);
            let pair = [field(2, one.concat()), field(1, "k"), field(2, other.concat())].concat();
            let request = request_with(&field(9, pair));
            let decoded = ExportTraceServiceRequest::decode(&request[..]).unwrap();
            assert_eq!(by_views(&request), by_prost(decoded), "{order} split at {split}");
        }
    }
}

/// With no span to reject, a resource that no one can decode condemns the request: nothing else would keep it from the
/// log.
#[test]
fn a_bad_resource_without_spans_is_malformed() {
    for request in [field(1, field(3, b"\xff")), field(1, field(2, field(1, field(1, b"\xff"))))] {
        let what = "text that is not UTF-8, or too deep a value, beside no span";
        assert_eq!(malformed(&[request_with(&[]), request].concat()).what, what);
    }
}

/// A value that holds a value that holds ..., `depth` in all.
fn arrays(depth: usize) -> Vec<u8> {
    nested(depth, |inside| field(5, field(1, inside)))
}

fn lists(depth: usize) -> Vec<u8> {
    nested(depth, |inside| field(6, field(1, field(2, inside))))
}

fn nested(depth: usize, around: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    (1..depth).fold(field(1, "deep"), |inside, _| around(inside))
}

#[test]
fn values_are_as_deep_as_the_limit_and_no_deeper() {
    for value in [arrays, lists] {
        for holder in [9, 11, 13] {
            let request = |depth: usize| {
                let pair = [field(1, "k"), field(2, value(depth))].concat();
                request_with(&match holder {
                    9 => field(9, pair),
                    11 => field(11, field(3, pair)),
                    _ => field(13, field(4, pair)),
                })
            };
            let at_limit = request(32);
            assert_eq!((checked(&at_limit).spans, checked(&at_limit).rejected), (3, 0));
            ExportTraceServiceRequest::decode(&at_limit[..]).expect("prost takes what the walk takes");
            assert_eq!(spans(&at_limit).count(), 3);
            for depth in [33, 100, 10_000] {
                let found = checked(&request(depth));
                assert_eq!((found.spans, found.rejected), (2, 1), "{depth}");
                assert_eq!(found.reasons, ["span 1: a value is nested deeper than 32"]);
                let left = without_rejected(&request(depth), &Limits::default());
                assert_eq!(
                    ExportTraceServiceRequest::decode(&left[..]).unwrap().resource_spans[0].scope_spans[0].spans.len(),
                    2
                );
            }
        }
    }
}

/// Limits are the caller's, but a limit beyond all sense does not lead the walk into the ground.
#[test]
fn limits_are_kept() {
    let request = request_with(&span_attribute("k", &arrays(100_000)));
    let found = check(&request, &Limits { depth_max: u32::MAX, ..Limits::default() }).unwrap();
    assert_eq!((found.spans, found.rejected), (2, 1));
    let request = request_of(&vec![span_with(&[]); 20]);
    let found = check(&request, &Limits { spans_max: 5, ..Limits::default() }).unwrap();
    assert_eq!((found.spans, found.rejected, found.reasons.len()), (5, 15, 8));
    assert_eq!(found.reasons[0], "span 5: a request may hold 5 spans");
    let left = without_rejected(&request, &Limits { spans_max: 5, ..Limits::default() });
    assert_eq!(left, request_of(&vec![span_with(&[]); 5]));
}

/// What Phoenix drops, chokes on or cannot derive from is flagged, and nothing else.
#[test]
fn what_phoenix_stumbles_over_is_flagged() {
    let text = |text: &str| field(1, text);
    let int = |value: u64| {
        [vec![0x18], {
            let mut out = vec![];
            varint(value, &mut out);
            out
        }]
        .concat()
    };
    let double = |value: f64| [&[0x21][..], &value.to_le_bytes()].concat();
    let key_of_dots = |dots: usize| vec!["a"; dots + 1].join(".");
    for (mend, extra) in [
        (false, span_attribute("llm.model_name", &text("gpt-4o"))),
        (false, span_attribute("openinference.span.kind", &text("LLM"))),
        (true, span_attribute("openinference.span.kind", &int(5))),
        (true, span_attribute("openinference.span.kind", &[])),
        (true, field(9, field(1, "openinference.span.kind"))),
        (false, span_attribute("openinference.span.kin", &int(5))),
        (true, span_attribute("k", &field(7, "bytes"))),
        (true, span_attribute("k", &field(5, field(1, field(7, "bytes"))))),
        (true, span_attribute("k", &field(6, field(1, [field(1, "k"), field(2, field(7, ""))].concat())))),
        (true, field(11, field(3, [field(1, "k"), field(2, field(7, ""))].concat()))),
        (true, span_attribute("k\0", &text("v"))),
        (true, span_attribute("k", &text("v\0"))),
        (true, span_attribute("k", &text(&format!("{}\0{}", "v".repeat(100), "v".repeat(100))))),
        (true, field(5, "\0")),
        (true, field(11, field(2, "\0"))),
        (true, field(15, field(2, "\0"))),
        (false, span_attribute("llm.token_count.prompt", &int(i32::MAX as u64))),
        (true, span_attribute("llm.token_count.prompt", &int(i32::MAX as u64 + 1))),
        (false, span_attribute("llm.token_count.prompt", &int(i32::MIN as i64 as u64))),
        (true, span_attribute("llm.token_count.prompt", &int(i32::MIN as i64 as u64 - 1))),
        (true, span_attribute("llm.token_count.prompt_details.audio", &int(1 << 62))),
        (false, span_attribute("llm.token_count.total", &double(1e9))),
        (true, span_attribute("llm.token_count.total", &double(1e10))),
        (true, span_attribute("llm.token_count.total", &double(f64::NAN))),
        (false, span_attribute("llm.token_count.total", &text("77"))),
        (true, span_attribute("llm.token_count.total", &text("4294967296"))),
        (false, span_attribute("llm.token_counts", &int(1 << 62))),
        (false, span_attribute("other", &int(1 << 62))),
        (false, span_attribute(&key_of_dots(32), &text("v"))),
        (true, span_attribute(&key_of_dots(33), &text("v"))),
        (true, span_attribute(&key_of_dots(2_000), &text("v"))),
        (true, span_attribute(&format!("llm.{}", key_of_dots(33)), &text("v"))),
        (true, span_attribute(&format!("llm.token_count.{}", key_of_dots(33)), &int(1))),
        (true, span_attribute("gen_ai.system", &text("openai"))),
        (true, span_attribute("llm.usage.total_tokens", &int(3))),
        (true, span_attribute("llm.request.type", &text("chat"))),
        (true, span_attribute("traceloop.span.kind", &text("workflow"))),
        (false, span_attribute("gen_air", &text("v"))),
        (false, span_attribute("k", &int(u64::MAX))),
    ] {
        let found = checked(&request_with(&extra));
        assert_eq!((found.spans, found.flags.has(Flags::MEND)), (3, mend), "{:?}", String::from_utf8_lossy(&extra));
    }
    let resource = field(1, attribute("openinference.project.name", &text("a\0b")));
    let under_it = field(1, [&resource[..], &field(2, field(2, span_with(&[])))].concat());
    assert!(checked(&under_it).flags.has(Flags::MEND), "a resource's text goes wherever its spans go");
    let rejected = request_with(&[span_attribute("gen_ai.system", &text("openai")), field(1, [1; 3])].concat());
    assert_eq!(checked(&rejected).flags, Flags::default(), "a rejected span is not mended");
}

/// Odd encodings of one attribute say the same to the walk's fast way and to its general way.
#[test]
fn the_fast_way_and_the_general_way_agree() {
    let value = [0x18, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let key = field(1, "llm.token_count.prompt");
    let long =
        |number: u8, payload: &[u8]| [&[number << 3 | 2, payload.len() as u8 | 0x80, 0x80, 0x00][..], payload].concat();
    for pair in [
        [key.clone(), field(2, value)].concat(),
        [field(2, value), key.clone()].concat(),
        [key.clone(), long(2, &value)].concat(),
        [long(1, b"llm.token_count.prompt"), field(2, value)].concat(),
        [key.clone(), field(2, &value[..0]), field(2, value)].concat(),
        [field(1, "other"), key.clone(), field(2, value)].concat(),
        [key.clone(), field(2, [&value[..], b"\xf8\x7f\x01"].concat())].concat(),
    ] {
        let request = request_with(&field(9, &pair));
        assert!(checked(&request).flags.has(Flags::MEND), "{pair:x?}");
        assert_eq!(spans(&request).nth(1).unwrap().span.attributes().next().unwrap().key, "llm.token_count.prompt");
    }
    // The second byte of a length goes on: the fast way must not take it for the end.
    let pair = [&key[..], b"\x12\x87\x80\x00", &field(1, "abcde")].concat();
    assert_eq!(checked(&request_with(&field(9, &pair))).spans, 3);
    let pair = [b"\x0a\x80\x80\x01", &b"k".repeat(16_383)[..], &field(2, field(1, "v"))].concat();
    assert!(check(&request_with(&field(9, &pair)), &Limits::default()).is_err(), "a key of 16384 bytes, one too many");
    let pair = [&key[..], b"\x12\x87\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", &field(1, "abcde")].concat();
    assert_eq!(malformed(&request_with(&field(9, &pair))).what, "varint of more than 64 bits");
}

/// Work and memory grow with the bytes and with nothing else, whatever they repeat.
#[test]
fn repetition_is_only_length() {
    let empty_spans = request_of(&vec![Vec::new(); 200_000]);
    let found = checked(&empty_spans);
    assert_eq!((found.spans, found.rejected, found.reasons.len()), (0, 200_000, 8));
    assert_eq!(without_rejected(&empty_spans, &Limits::default()), b"");
    let statuses = field(15, field(2, "m")).repeat(200_000);
    let resources = field(1, attribute("k", &field(1, "v"))).repeat(200_000);
    let request = field(1, [resources, field(2, field(2, span_with(&statuses)))].concat());
    assert_eq!(checked(&request).spans, 1);
    let found = spans(&request).next().unwrap();
    assert_eq!((found.resource.attributes().count(), found.span.status_message), (200_000, "m"));
}
