//! Bad input over OTLP/gRPC, row by row: what the client hears, and that nothing of it was kept.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::client::{Answer, Client, EXPORT, Outgoing, Pipe, Version, framed, grpc, post, raw, whole};
use crate::export::{self, attribute, gzip, heavy, partial, request, span, spans, zlib, zstd};
use crate::house::{House, config, in_time};
use crate::shelf::Shelf;

const MAX_BYTES: usize = 64 << 10;

const OK: i32 = 0;
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;

struct Row {
    what: &'static str,
    request: Request<Outgoing>,
    code: i32,
    /// What `grpc-message` or the partial success says.
    says: &'static str,
    kept_spans: u64,
}

fn row(what: &'static str, request: Request<Outgoing>, code: i32, says: &'static str) -> Row {
    Row { what, request, code, says, kept_spans: 0 }
}

fn kept(what: &'static str, request: Request<Outgoing>, kept_spans: u64) -> Row {
    Row { what, request, code: OK, says: "", kept_spans }
}

fn partly(what: &'static str, message: Vec<u8>, kept_spans: u64, says: &'static str) -> Row {
    Row { what, request: call(&message), code: OK, says, kept_spans }
}

fn call(message: &[u8]) -> Request<Outgoing> {
    grpc(whole(framed(0, message)))
}

fn body(body: impl Into<Bytes>) -> Request<Outgoing> {
    grpc(whole(body))
}

fn encoded(coding: &str, message: &[u8]) -> Request<Outgoing> {
    with(body(framed(1, message)), "grpc-encoding", coding)
}

fn with(mut request: Request<Outgoing>, name: &'static str, value: &str) -> Request<Outgoing> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn to(path: &str) -> Request<Outgoing> {
    post(path, "application/grpc", whole(framed(0, b"")))
}

fn nested(depth: usize) -> AnyValue {
    (0..depth).fold(export::text("deep"), |inner, _| AnyValue {
        value: Some(any_value::Value::ArrayValue(ArrayValue { values: vec![inner] })),
    })
}

/// A sound span, then one that is not, in one request.
fn beside(bad: Span) -> Vec<u8> {
    request(vec![span(0), bad])
}

fn not_utf8() -> Vec<u8> {
    let mut message = spans(2);
    let at = message.windows(6).position(|window| window == b"span 1").unwrap();
    message[at] = 0xff;
    message
}

fn rows() -> Vec<Row> {
    let cut = |by: usize| spans(1)[..spans(1).len() - by].to_vec();
    let mut garbled = gzip(&spans(1));
    let middle = garbled.len() / 2;
    garbled[middle] ^= 0x55;
    let fits = heavy(MAX_BYTES - 200);
    let members = [gzip(&spans(1)), gzip(&request(vec![span(7)]))].concat();
    vec![
        // An envelope without spans is a success, and not worth a place in the log.
        kept("an empty request", call(b""), 0),
        kept("resources and scopes without spans", call(&request(vec![])), 0),
        kept("a request", call(&spans(3)), 3),
        kept("grpc+proto", with(call(&spans(1)), "content-type", "application/grpc+proto"), 1),
        kept("a content-type with a parameter", with(call(&spans(1)), "content-type", "application/grpc;x=y"), 1),
        // What will never parse.
        row("random bytes", call(b"\xff\xfe random"), INVALID_ARGUMENT, "malformed request"),
        row("a truncated message", call(&cut(1)), INVALID_ARGUMENT, "malformed request"),
        row("a wire type that does not exist", call(&[0x0e]), INVALID_ARGUMENT, "malformed request"),
        row("field number 0", call(&[0x02, 0]), INVALID_ARGUMENT, "malformed request"),
        row("a varint of 11 bytes", call(&[0xff; 11]), INVALID_ARGUMENT, "malformed request"),
        row("a length past the end", call(&[0x0a, 0x7f, 1]), INVALID_ARGUMENT, "malformed request"),
        row("JSON", call(export::JSON.as_bytes()), INVALID_ARGUMENT, "malformed request"),
        // Frames.
        row("no message", body(""), INVALID_ARGUMENT, "before its message begins"),
        row("half a prefix", body(vec![0; 3]), INVALID_ARGUMENT, "before its message begins"),
        row("half a message", body(vec![0, 0, 0, 0, 9, 1]), INVALID_ARGUMENT, "within its message"),
        row(
            "two messages",
            body([framed(0, &spans(1)), framed(0, &spans(1))].concat()),
            INVALID_ARGUMENT,
            "a second message",
        ),
        row("a flag of 7", body(framed(7, &spans(1))), INVALID_ARGUMENT, "compressed flag"),
        // Size: final, for a request that is too large today is too large tomorrow.
        kept("a message of almost the limit", call(&fits), 1),
        row("a message over the limit", call(&heavy(MAX_BYTES)), RESOURCE_EXHAUSTED, "more than 65536 bytes"),
        row("a gzip bomb", encoded("gzip", &gzip(&vec![0; 100 << 20])), RESOURCE_EXHAUSTED, "more than 65536 bytes"),
        row("a zstd bomb", encoded("zstd", &zstd(&vec![0; 100 << 20])), RESOURCE_EXHAUSTED, "more than 65536 bytes"),
        row(
            "a deflate bomb",
            encoded("deflate", &zlib(&vec![0; 40 << 20])),
            RESOURCE_EXHAUSTED,
            "more than 65536 bytes",
        ),
        // Compression.
        kept("gzip", encoded("gzip", &gzip(&spans(2))), 2),
        kept("zstd", encoded("zstd", &zstd(&spans(2))), 2),
        kept("deflate", encoded("deflate", &zlib(&spans(2))), 2),
        kept("several gzip members", encoded("gzip", &members), 2),
        kept("an encoding that this message does not use", with(call(&spans(1)), "grpc-encoding", "gzip"), 1),
        kept("the identity encoding", with(call(&spans(1)), "grpc-encoding", "identity"), 1),
        row("gzip in gzip", encoded("gzip", &gzip(&gzip(&spans(1)))), INVALID_ARGUMENT, "malformed request"),
        row("broken gzip", encoded("gzip", &garbled), INVALID_ARGUMENT, "cannot inflate the gzip body"),
        row("not gzip", encoded("gzip", b"plain"), INVALID_ARGUMENT, "cannot inflate the gzip body"),
        row(
            "garbage after gzip",
            encoded("gzip", &[&gzip(&spans(1))[..], b"garbage"].concat()),
            INVALID_ARGUMENT,
            "cannot inflate the gzip body",
        ),
        row("broken zstd", encoded("zstd", &zstd(&spans(1))[..20]), INVALID_ARGUMENT, "cannot inflate the zstd body"),
        row("brotli", encoded("br", b"x"), UNIMPLEMENTED, "unknown grpc-encoding"),
        row("compressed, but how", body(framed(1, &gzip(&spans(1)))), INTERNAL, "grpc-encoding does not say how"),
        // Where to.
        row("an unknown method", to(&EXPORT.replace("Export", "Import")), UNIMPLEMENTED, "no such service"),
        row("an unknown service", to("/a.b.C/D"), UNIMPLEMENTED, "no such service"),
        row("logs", to("/opentelemetry.proto.collector.logs.v1.LogsService/Export"), UNIMPLEMENTED, "no such service"),
        row("reflection", to("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), UNIMPLEMENTED, "no such"),
        row(
            "a codec that is not protobuf",
            with(call(b"{}"), "content-type", "application/grpc+json"),
            UNIMPLEMENTED,
            "",
        ),
        // Time.
        row(
            "a timeout that is over",
            with(call(&spans(1)), "grpc-timeout", "1n"),
            DEADLINE_EXCEEDED,
            "not done within",
        ),
        kept("a timeout of 11,000 years", with(call(&spans(1)), "grpc-timeout", "99999999H"), 1),
        row("a timeout in days", with(call(&spans(1)), "grpc-timeout", "1D"), INVALID_ARGUMENT, "grpc-timeout"),
        row(
            "a timeout of 9 digits",
            with(call(&spans(1)), "grpc-timeout", "123456789S"),
            INVALID_ARGUMENT,
            "grpc-timeout",
        ),
        // Metadata.
        kept("binary metadata", with(call(&spans(1)), "x-trace-bin", "AAEC"), 1),
        row("binary metadata that is not", with(call(&spans(1)), "x-trace-bin", "*&"), INVALID_ARGUMENT, "not base64"),
        // Spans that can never be kept do not harm those beside them.
        partly("a trace id of 15 bytes", beside(Span { trace_id: vec![1; 15], ..span(1) }), 1, "1 of 2 spans"),
        partly("a trace id of zeroes", beside(Span { trace_id: vec![0; 16], ..span(1) }), 1, "1 of 2 spans"),
        partly("no trace id", beside(Span { trace_id: vec![], ..span(1) }), 1, "1 of 2 spans"),
        partly("a span id of 9 bytes", beside(Span { span_id: vec![1; 9], ..span(1) }), 1, "1 of 2 spans"),
        partly("a parent id of 3 bytes", beside(Span { parent_span_id: vec![1; 3], ..span(1) }), 1, "1 of 2 spans"),
        partly("a name that is not UTF-8", not_utf8(), 1, "1 of 2 spans"),
        partly(
            "a value nested 33 deep",
            beside(Span { attributes: vec![attribute("k", nested(33))], ..span(1) }),
            1,
            "1 of 2",
        ),
        partly("nothing but bad spans", request(vec![Span { span_id: vec![], ..span(0) }]), 0, "1 of 1 spans"),
    ]
}

fn check(what: &str, answer: &Answer, code: i32, says: &str) {
    assert_eq!(answer.status, StatusCode::OK, "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/grpc"), "{what}");
    assert_eq!(answer.code(), code, "{what}: {answer:?}");
    if code == OK {
        match partial(answer.message()) {
            None => assert_eq!(says, "", "{what}: there is no partial success"),
            Some((rejected, message)) => {
                assert_eq!(rejected, 1, "{what}");
                assert!(!says.is_empty() && message.contains(says), "{what}: {message}");
            }
        }
        return;
    }
    let details = answer.details();
    assert_eq!(details.code, code, "{what}");
    assert!(details.message.contains(says), "{what}: {}", details.message);
    let heard = answer.header("grpc-message").unwrap();
    assert!(heard.contains(says.split('%').next().unwrap()), "{what}: {heard}");
    assert_eq!(details.has("BadRequest"), code == INVALID_ARGUMENT, "{what}: {details:?}");
    // A retry is asked for if and only if it can help.
    assert_eq!(details.has("RetryInfo"), code == DEADLINE_EXCEEDED, "{what}: {details:?}");
    assert_eq!(answer.is_retryable(), code == DEADLINE_EXCEEDED, "{what}");
    if what == "brotli" {
        assert_eq!(answer.header("grpc-accept-encoding"), Some("identity,gzip,deflate,zstd"));
    }
}

/// Each row is answered as OTLP and gRPC ask, and exactly the sound spans are kept; all on one connection, which survives.
#[tokio::test]
async fn each_input_gets_its_answer() {
    let mut config = config();
    config.max_request_bytes = MAX_BYTES;
    let shelf = Shelf::open();
    let house = House::with(config, shelf.clone());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    for Row { what, request, code, says, kept_spans } in rows() {
        let before = shelf.spans();
        let answer = client.send(request).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        check(what, &answer, code, says);
        assert_eq!(shelf.spans() - before, kept_spans, "{what}");
    }
    let counted = house.counters.snapshot();
    assert_eq!(counted.accepted_spans(), shelf.spans());
    assert_eq!(counted.received_spans(), counted.accepted_spans() + counted.rejected_spans() + counted.refused_spans());
    assert_eq!(counted.requests(), rows().len() as u64);
    assert_eq!(counted.lanes[0].answered + counted.lanes[0].refused.iter().sum::<u64>(), counted.requests());
    assert_eq!(counted.in_flight_bytes, 0);
    house.stop().await.unwrap();
}

/// A frame that announces 4 GiB is refused before any of it comes.
#[tokio::test]
async fn an_announced_length_is_enough_to_refuse() {
    let house = House::open(Shelf::open());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let (pipe, body) = Pipe::new();
    pipe.send(vec![0, 0xff, 0xff, 0xff, 0xff]);
    let answer = client.send(grpc(body)).await.unwrap();
    assert_eq!((answer.code(), answer.is_retryable()), (RESOURCE_EXHAUSTED, false));
    assert_eq!(house.counters.snapshot().in_flight_bytes, 0);
    drop(pipe);
    house.stop().await.unwrap();
}

/// What is not gRPC is answered in plain HTTP, lest it be taken for a gRPC answer.
#[tokio::test]
async fn what_is_not_grpc_hears_http() {
    let house = House::open(Shelf::open());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    for media in ["application/x-protobuf", "application/grp", ""] {
        let answer = client.send(with(call(&spans(1)), "content-type", media)).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{media}");
        assert!(answer.headers.get("grpc-status").is_none());
    }
    let mut get = call(b"");
    *get.method_mut() = Method::GET;
    let answer = client.send(get).await.unwrap();
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));
    let long = |bytes: usize| with(call(b""), "x-long", &"x".repeat(bytes));
    let answer = client.send(long(20 << 10)).await.unwrap();
    assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(client.call(&spans(1)).await.code(), OK, "the connection goes on");
    assert!(client.send(long(100 << 10)).await.is_err(), "far too long headers end the connection");

    let answer =
        raw(house.at.grpc, b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec()).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 ") && answer.contains("OTLP/HTTP has a port of its own"), "{answer}");
    let answer = raw(house.at.grpc, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello".to_vec()).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.is_empty() || answer.starts_with(b"HTTP/1.1 400")));
    house.stop().await.unwrap();
}

/// Health checks hear whether spans are taken.
#[tokio::test]
async fn health_checks_hear_the_truth() {
    let house = House::open(Shelf::open());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let named = |service: &str| [&[0x0a, service.len() as u8][..], service.as_bytes()].concat();
    let check = |message: &[u8]| post("/grpc.health.v1.Health/Check", "application/grpc", whole(framed(0, message)));
    let trace_service = named("opentelemetry.proto.collector.trace.v1.TraceService");
    for message in [&b""[..], &trace_service] {
        assert_eq!(client.send(check(message)).await.unwrap().message(), [0x08, 1]);
    }
    assert_eq!(client.send(check(&named("a.b.C"))).await.unwrap().code(), NOT_FOUND);
    house.serving.set(false);
    assert_eq!(client.send(check(b"")).await.unwrap().message(), [0x08, 2]);
    assert_eq!(client.send(to("/grpc.health.v1.Health/Watch")).await.unwrap().code(), UNIMPLEMENTED);
    in_time(house.stop()).await.unwrap();
}

/// A real gRPC client, compression included, is content.
#[tokio::test]
async fn tonic_is_content() {
    use bytes::{Buf, BufMut};
    use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};

    #[derive(Default)]
    struct Raw;
    impl Codec for Raw {
        type Encode = Vec<u8>;
        type Decode = Vec<u8>;
        type Encoder = Self;
        type Decoder = Self;
        fn encoder(&mut self) -> Self {
            Self
        }
        fn decoder(&mut self) -> Self {
            Self
        }
    }
    impl Encoder for Raw {
        type Item = Vec<u8>;
        type Error = tonic::Status;
        fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
            into.put_slice(&item);
            Ok(())
        }
    }
    impl Decoder for Raw {
        type Item = Vec<u8>;
        type Error = tonic::Status;
        fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
            let mut item = vec![0; from.remaining()];
            from.copy_to_slice(&mut item);
            Ok(Some(item))
        }
    }

    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", house.at.grpc)).unwrap();
    let channel = in_time(channel.connect()).await.unwrap();
    let body = heavy(300_000);
    for coding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        if let Some(coding) = coding {
            client = client.send_compressed(coding).accept_compressed(coding);
        }
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(EXPORT);
        let answer = in_time(client.unary(tonic::Request::new(body.clone()), path.clone(), Raw)).await.unwrap();
        assert!(answer.into_inner().is_empty());
        assert_eq!(shelf.entries().last().unwrap().body, body);
        client.ready().await.unwrap();
        let refused = in_time(client.unary(tonic::Request::new(b"rubbish".to_vec()), path, Raw)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().starts_with("malformed request") && !refused.details().is_empty());
    }
    drop(channel);
    house.stop().await.unwrap();
}
