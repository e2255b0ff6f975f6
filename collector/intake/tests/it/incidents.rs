//! What happened to other collectors, and does not happen here. Each test is named after the report; further ones are in
//! `tests/bombs.rs` (tonic 2484), `tests/overload.rs` (otelcol 4981) and the daemon's `tests/it/budget.rs` (otelcol 15126).

use std::sync::Arc;

use emberd_log::{AppendError, Config, DiskLog, RealDisk, SegmentId};
use emberd_model::clock::Still;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValueList, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event, span::Link};

use crate::client::{Client, Version, framed, grpc, post, whole};
use crate::export::{JSON, attribute, heavy, request, spans, text};
use crate::fixtures::decoded;
use crate::house::{House, NOW, config, in_time};
use crate::shelf::Shelf;

const PROTOBUF: &str = "application/x-protobuf";

fn full() -> AppendError {
    AppendError::BudgetFull { used_bytes: 9, budget_bytes: 10 }
}

fn broken() -> AppendError {
    AppendError::Disk { segment: SegmentId(3), source: Arc::new(std::io::Error::other("broken")) }
}

/// opentelemetry-collector#9636: under memory pressure the receiver answered 500, which clients take for final, instead of 429.
#[tokio::test]
async fn otelcol_9636_pressure_is_429_or_503_and_never_500() {
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    for (error, expected) in [(full(), 429), (broken(), 503), (AppendError::Stopping, 503)] {
        shelf.refuse(Some(error));
        for version in [Version::One, Version::Two] {
            let mut client = Client::connect(house.at.http, version).await;
            for (media, body) in [(PROTOBUF, spans(1)), ("application/json", JSON.into())] {
                let answer = client.send(post("/v1/traces", media, whole(body))).await.unwrap();
                assert_eq!(answer.status, expected);
                assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
                if answer.header("connection") == Some("close") {
                    client = Client::connect(house.at.http, version).await;
                }
            }
        }
    }
    in_time(house.stop()).await.unwrap();
}

/// otel-arrow#3321: back pressure went out as RESOURCE_EXHAUSTED without RetryInfo, which clients take for final.
#[tokio::test]
async fn quiver_3321_back_pressure_says_when_to_come_again() {
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    for error in [full(), broken(), AppendError::Stopping] {
        shelf.refuse(Some(error));
        let answer = client.call(&spans(1)).await;
        assert!(matches!(answer.code(), 8 | 14) && answer.details().has("RetryInfo"), "{answer:?}");
    }
    shelf.refuse(None);
    assert_eq!(client.call(&spans(1)).await.code(), 0, "coming again helps");
    in_time(house.stop()).await.unwrap();
}

/// Rotel answers errors with an empty body; OTLP asks for a Status in the request's own form.
#[tokio::test]
async fn rotel_errors_over_http_have_a_body() {
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let mut client = Client::connect(house.at.http, Version::Two).await;
    for media in [PROTOBUF, "application/json"] {
        shelf.refuse(Some(full()));
        let body = if media == PROTOBUF { spans(1) } else { JSON.into() };
        let full = client.send(post("/v1/traces", media, whole(body))).await.unwrap();
        let malformed = client.send(post("/v1/traces", media, whole("\u{fffd}"))).await.unwrap();
        let nowhere = client.send(post("/v1/nowhere", media, whole(""))).await.unwrap();
        for (answer, status, code) in [(full, 429, 8), (malformed, 400, 3), (nowhere, 404, 12)] {
            assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, Some(media)));
            let body = answer.status_body();
            assert!(body.code == code && !body.message.is_empty(), "{body:?}");
        }
    }
    in_time(house.stop()).await.unwrap();
}

/// tonic answers a message over its limit with OUT_OF_RANGE, which OTLP's clients send again for ever. A real client hears
/// RESOURCE_EXHAUSTED without RetryInfo, whichever way the size is told.
#[tokio::test]
async fn tonic_oversize_is_final_and_not_out_of_range() {
    let mut config = config();
    config.max_request_bytes = 64 << 10;
    let house = House::with(config, Shelf::open());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let large = heavy(100 << 10);
    let mut compressed = grpc(whole(framed(1, &crate::export::gzip(&large))));
    compressed.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    for request in [grpc(whole(framed(0, &large))), compressed] {
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.code(), answer.is_retryable(), answer.details().has("RetryInfo")), (8, false, false));
    }
    in_time(house.stop()).await.unwrap();
}

/// opentelemetry-collector#12893: one item larger than the largest batch was split over and over until memory ran out. Here a span
/// that the log will never take is refused for good, at once, and those after it are taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otelcol_12893_one_span_beyond_all_bounds_is_refused_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut bounds = Config::in_dir(dir.path().join("log"));
    bounds.budget_bytes = 8 << 20;
    bounds.segment_bytes = 1 << 20;
    let log = DiskLog::open(bounds, Arc::new(RealDisk), Arc::new(Still::at(NOW))).unwrap().0;
    let house = House::open(log.clone());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    for _ in 0..5 {
        let answer = client.call(&heavy(6 << 20)).await;
        assert_eq!((answer.code(), answer.is_retryable()), (8, false), "{answer:?}");
        assert_eq!(client.call(&heavy(100 << 10)).await.code(), 0);
    }
    assert_eq!(house.counters.snapshot().in_flight_bytes, 0);
    in_time(house.stop()).await.unwrap();
    log.seal().await;
}

/// opentelemetry-collector#1121: memory ran out although it was limited, as each error that nothing could be done about kept what it
/// was about. Here a log that fails for good costs a refusal each time, and nothing stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otelcol_1121_errors_for_good_keep_nothing() {
    let shelf = Shelf::open();
    shelf.refuse(Some(broken()));
    let house = House::open(shelf.clone());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let body = heavy(200 << 10);
    for _ in 0..20 {
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..50 {
            crowd.spawn(client.begin(grpc(whole(framed(0, &body)))));
        }
        while let Some(answer) = in_time(crowd.join_next()).await {
            assert_eq!(answer.unwrap().unwrap().code(), 14);
        }
        assert_eq!(house.counters.snapshot().in_flight_bytes, 0);
    }
    let counted = house.counters.snapshot();
    assert_eq!((counted.refused_spans(), counted.received_spans(), counted.accepted_spans()), (1000, 1000, 0));
    assert!(shelf.entries().is_empty());
    in_time(house.stop()).await.unwrap();
}

/// opentelemetry-rust#1662, #1905, #2065, #3527: its JSON form refused numbers and strings that OTLP allows, or dropped fields without
/// a word. Every field of a span, in the forms that the specification gives, means in the log what it says.
#[tokio::test]
async fn otel_rust_1662_1905_2065_3527_json_loses_no_field() {
    let json = r#"{"resourceSpans":[{
        "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
        "scopeSpans":[{"scope":{"name":"by hand"},"spans":[{
            "traceId":"07070707070707070000000000000001","spanId":"0000000000000001","parentSpanId":"0000000000000009",
            "traceState":"a=b","name":"span 0","kind":3,"flags":257,
            "startTimeUnixNano":"1700000000000000000","endTimeUnixNano":1700000001000000000,
            "attributes":[
                {"key":"s","value":{"stringValue":"text"}},{"key":"t","value":{"boolValue":true}},
                {"key":"f","value":{"boolValue":false}},{"key":"i","value":{"intValue":"-9007199254740993"}},
                {"key":"n","value":{"intValue":7}},{"key":"d","value":{"doubleValue":1.5}},
                {"key":"b","value":{"bytesValue":"AP+A"}},{"key":"e","value":{}},
                {"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"stringValue":"two"}]}}},
                {"key":"k","value":{"kvlistValue":{"values":[{"key":"in","value":{"boolValue":true}}]}}}],
            "droppedAttributesCount":1,
            "events":[{"timeUnixNano":"1700000000500000000","name":"event","droppedAttributesCount":2,
                "attributes":[{"key":"e","value":{"stringValue":"v"}}]}],
            "droppedEventsCount":3,
            "links":[{"traceId":"0A0B0C0D0E0F10111213141516171819","spanId":"0A0B0C0D0E0F1011","traceState":"c=d","flags":1,
                "attributes":[{"key":"l","value":{"intValue":"5"}}],"droppedAttributesCount":4}],
            "droppedLinksCount":5,
            "status":{"code":2,"message":"it failed"}}]}]}]}"#;
    let any = |value| AnyValue { value: Some(value) };
    let expected = Span {
        parent_span_id: 9u64.to_be_bytes().to_vec(),
        trace_state: "a=b".into(),
        kind: 3,
        flags: 257,
        attributes: vec![
            attribute("s", text("text")),
            attribute("t", any(Value::BoolValue(true))),
            attribute("f", any(Value::BoolValue(false))),
            attribute("i", any(Value::IntValue(-9_007_199_254_740_993))),
            attribute("n", any(Value::IntValue(7))),
            attribute("d", any(Value::DoubleValue(1.5))),
            attribute("b", any(Value::BytesValue(vec![0x00, 0xff, 0x80]))),
            attribute("e", AnyValue { value: None }),
            attribute("a", any(Value::ArrayValue(ArrayValue { values: vec![any(Value::IntValue(1)), text("two")] }))),
            attribute(
                "k",
                any(Value::KvlistValue(KeyValueList { values: vec![attribute("in", any(Value::BoolValue(true)))] })),
            ),
        ],
        dropped_attributes_count: 1,
        events: vec![Event {
            time_unix_nano: 1_700_000_000_500_000_000,
            name: "event".into(),
            attributes: vec![attribute("e", text("v"))],
            dropped_attributes_count: 2,
        }],
        dropped_events_count: 3,
        links: vec![Link {
            trace_id: (0x0a..=0x19).collect(),
            span_id: (0x0a..=0x11).collect(),
            trace_state: "c=d".into(),
            attributes: vec![attribute("l", any(Value::IntValue(5)))],
            dropped_attributes_count: 4,
            flags: 1,
        }],
        dropped_links_count: 5,
        status: Some(Status { code: 2, message: "it failed".into() }),
        ..crate::export::span(0)
    };
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let mut client = Client::connect(house.at.http, Version::Two).await;
    let answer = client.send(post("/v1/traces", "application/json", whole(json))).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{}"[..]));
    let kept = shelf.take().pop().unwrap();
    assert_eq!(decoded(&kept.body), decoded(&request(vec![expected])));
    in_time(house.stop()).await.unwrap();
}
