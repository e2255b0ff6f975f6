//! Bad input over OTLP/HTTP, row by row, over HTTP/1.1 and HTTP/2, in protobuf and JSON.

use bytes::Bytes;
use http::{Method, Request};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::client::{Answer, Client, Outgoing, Pipe, Version, chunked, post, raw, whole};
use crate::export::{self, JSON, gzip, heavy, partial, request, span, spans, zlib, zstd};
use crate::house::{House, config};
use crate::shelf::Shelf;

const MAX_BYTES: usize = 64 << 10;
const PATH: &str = "/v1/traces";
const PROTOBUF: &str = "application/x-protobuf";

struct Row {
    what: &'static str,
    request: Request<Outgoing>,
    status: u16,
    /// What the Status' message, or the partial success, says.
    says: &'static str,
    header: Option<(&'static str, &'static str)>,
    kept_spans: u64,
}

fn row(what: &'static str, request: Request<Outgoing>, status: u16, says: &'static str) -> Row {
    Row { what, request, status, says, header: None, kept_spans: 0 }
}

fn kept(what: &'static str, request: Request<Outgoing>, kept_spans: u64) -> Row {
    Row { what, request, status: 200, says: "", header: None, kept_spans }
}

impl Row {
    fn and(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

fn proto(body: impl Into<Bytes>) -> Request<Outgoing> {
    post(PATH, PROTOBUF, whole(body))
}

fn json(body: impl Into<String>) -> Request<Outgoing> {
    post(PATH, "application/json", whole(body.into()))
}

fn encoded(coding: &str, body: impl Into<Bytes>) -> Request<Outgoing> {
    with(proto(body), "content-encoding", coding)
}

fn with(mut request: Request<Outgoing>, name: &'static str, value: &str) -> Request<Outgoing> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn method(method: Method) -> Request<Outgoing> {
    let mut request = proto("");
    *request.method_mut() = method;
    request
}

fn span_json(fields: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#)
}

const IDS: &str = r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174""#;

fn rows() -> Vec<Row> {
    let one = || spans(1);
    let no_type = {
        let mut request = proto(one());
        request.headers_mut().remove("content-type");
        request
    };
    let ids = |more: &str| json(span_json(&format!("{IDS},{more}")));
    let deep = |depth: usize| format!(r#"{{"x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    vec![
        // What is taken.
        kept("an empty body is an empty message", proto(""), 0),
        kept("a request", proto(spans(3)), 3),
        kept("a request without a declared length", post(PATH, PROTOBUF, chunked(spans(3))), 3),
        kept("no spans in JSON", json("{}"), 0),
        kept("an empty list in JSON", json(r#"{"resourceSpans":[]}"#), 0),
        kept("null in JSON", json(r#"{"resourceSpans":null}"#), 0),
        kept("a request in JSON", json(JSON), 1),
        kept("JSON without a declared length", post(PATH, "application/json", chunked(JSON)), 1),
        kept("snake_case is an unknown field", json(r#"{"resource_spans":[{}]}"#), 0),
        // JSON that is not OTLP.
        row("nothing, as JSON", json(""), 400, "malformed OTLP/JSON"),
        row("not JSON", json("not json"), 400, "malformed OTLP/JSON"),
        row("truncated JSON", json(&JSON[..JSON.len() - 1]), 400, "malformed OTLP/JSON"),
        row("bytes after JSON", json(format!("{JSON} x")), 400, "malformed OTLP/JSON"),
        row("a byte order mark", json(format!("\u{feff}{JSON}")), 400, "malformed OTLP/JSON"),
        row("UTF-16", post(PATH, "application/json", whole(vec![b'{', 0, b'}', 0])), 400, "malformed OTLP/JSON"),
        row("a lone surrogate", ids(r#""name":"\ud800""#), 400, "malformed OTLP/JSON"),
        row("an enum by name", ids(r#""kind":"SPAN_KIND_SERVER""#), 400, "malformed OTLP/JSON"),
        row("an id that is not hex", json(span_json(r#""traceId":"0x1234""#)), 400, "malformed OTLP/JSON"),
        row("an id of odd length", json(span_json(r#""traceId":"123""#)), 400, "malformed OTLP/JSON"),
        row("a negative time", ids(r#""startTimeUnixNano":"-1""#), 400, "malformed OTLP/JSON"),
        row("a time of 2^64", ids(r#""startTimeUnixNano":"18446744073709551616""#), 400, "malformed OTLP/JSON"),
        row("JSON 10,000 deep", json(deep(10_000)), 400, "malformed OTLP/JSON"),
        row(
            "a trace id of 4 bytes",
            json(span_json(r#""traceId":"01020304","spanId":"EEE19B7EC3C1B174""#)),
            200,
            "1 of 1 spans",
        ),
        row("no trace id", json(span_json(r#""traceId":"","spanId":"EEE19B7EC3C1B174""#)), 200, "1 of 1 spans"),
        kept(
            "times as numbers, and whole floats",
            ids(r#""startTimeUnixNano":1544712660000000000,"endTimeUnixNano":1e3"#),
            1,
        ),
        // Protobuf that is not.
        row("random bytes", proto("\u{fffd} random"), 400, "malformed request"),
        row("a truncated message", proto(one()[..one().len() - 1].to_vec()), 400, "malformed request"),
        row("JSON labelled protobuf", proto(JSON), 400, "malformed request"),
        row("protobuf labelled JSON", post(PATH, "application/json", whole(one())), 400, "malformed OTLP/JSON"),
        Row {
            says: "1 of 2 spans",
            ..kept(
                "a bad span beside a sound one",
                proto(request(vec![span(0), Span { trace_id: vec![1], ..span(1) }])),
                1,
            )
        },
        // Media types.
        row("no content-type", no_type, 415, "content-type").and("accept", "application/x-protobuf, application/json"),
        row("text/plain", with(proto(one()), "content-type", "text/plain"), 415, "text/plain"),
        row("JSON in UTF-16", with(json(JSON), "content-type", "application/json; charset=utf-16"), 415, "utf-16"),
        kept("JSON in UTF-8", with(json(JSON), "content-type", "application/json; charset=utf-8"), 1),
        kept("protobuf with a parameter", with(proto(one()), "content-type", "application/x-protobuf; x=y"), 1),
        kept("protobuf in capitals", with(proto(one()), "content-type", "APPLICATION/X-PROTOBUF"), 1),
        // Encodings.
        kept("gzip", encoded("gzip", gzip(&one())), 1),
        kept("GZIP", encoded("GZIP", gzip(&one())), 1),
        kept("zstd", encoded("zstd", zstd(&one())), 1),
        kept("deflate", encoded("deflate", zlib(&one())), 1),
        kept("identity", encoded("identity", one()), 1),
        kept("no encoding by an empty name", encoded("", one()), 1),
        kept(
            "gzipped JSON",
            with(post(PATH, "application/json", whole(gzip(JSON.as_bytes()))), "content-encoding", "gzip"),
            1,
        ),
        row("brotli", encoded("br", one()), 415, "unknown content-encoding")
            .and("accept-encoding", "gzip, deflate, zstd"),
        row("gzip twice", encoded("gzip, gzip", gzip(&gzip(&one()))), 415, "unknown content-encoding"),
        row("plain, labelled gzip", encoded("gzip", one()), 400, "cannot inflate the gzip body"),
        row("nothing, labelled gzip", encoded("gzip", ""), 400, "cannot inflate the gzip body"),
        row("truncated gzip", encoded("gzip", gzip(&one())[..30].to_vec()), 400, "cannot inflate the gzip body"),
        // Size.
        kept("a body of almost the limit", proto(heavy(MAX_BYTES - 200)), 1),
        row("a body over the limit", proto(heavy(MAX_BYTES)), 413, "more than 65536 bytes"),
        row("the same, undeclared", post(PATH, PROTOBUF, chunked(heavy(MAX_BYTES))), 413, "more than 65536 bytes"),
        row("a gzip bomb", encoded("gzip", gzip(&vec![0; 100 << 20])), 413, "more than 65536 bytes"),
        row("a zstd bomb", encoded("zstd", zstd(&vec![0; 100 << 20])), 413, "more than 65536 bytes"),
        // Paths and methods.
        kept("a query", post("/v1/traces?x=1", PROTOBUF, whole(one())), 1),
        kept("a percent-encoded letter", post("/v1/%74races", PROTOBUF, whole(one())), 1),
        row("a shorter path", post("/v1/trace", PROTOBUF, whole(one())), 404, "/v1/trace"),
        row("a slash at the end", post("/v1/traces/", PROTOBUF, whole(one())), 404, "/v1/traces/"),
        row("a slash more", post("//v1/traces", PROTOBUF, whole(one())), 404, "//v1/traces"),
        row("metrics", post("/v1/metrics", PROTOBUF, whole(one())), 404, "/v1/metrics"),
        row("logs in JSON", post("/v1/logs", "application/json", whole("{}")), 404, "/v1/logs"),
        row("GET", method(Method::GET), 405, "use POST").and("allow", "POST"),
        row("PUT", method(Method::PUT), 405, "use POST").and("allow", "POST"),
        row("DELETE", method(Method::DELETE), 405, "use POST").and("allow", "POST"),
        row("OPTIONS from nowhere", method(Method::OPTIONS), 405, "use POST").and("allow", "POST"),
    ]
}

fn check(row: &Row, is_json: bool, answer: &Answer) {
    let what = row.what;
    assert_eq!(answer.status.as_u16(), row.status, "{what}: {answer:?}");
    assert!(!answer.is_retryable(), "{what}");
    assert_eq!(answer.header("retry-after"), None, "{what}");
    let form = if is_json { "application/json" } else { PROTOBUF };
    assert_eq!(answer.header("content-type"), Some(form), "{what}");
    if let Some((name, value)) = row.header {
        assert_eq!(answer.header(name), Some(value), "{what}");
    }
    if row.status != 200 {
        let status = answer.status_body();
        assert!(status.message.contains(row.says), "{what}: {}", status.message);
        assert_eq!(status.has("BadRequest"), row.status == 400, "{what}: {status:?}");
        return;
    }
    let rejected = if is_json {
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        value.get("partialSuccess").map(|partial| {
            let count = partial["rejectedSpans"].as_str().unwrap().parse().unwrap();
            (count, partial["errorMessage"].as_str().unwrap().to_owned())
        })
    } else {
        partial(&answer.body)
    };
    match rejected {
        None => assert_eq!(row.says, "", "{what}: there is no partial success"),
        Some((count, message)) => {
            assert_eq!(count, 1, "{what}");
            assert!(!row.says.is_empty() && message.contains(row.says), "{what}: {message}");
        }
    }
}

async fn each_row_over(version: Version) {
    let mut config = config();
    config.max_request_bytes = MAX_BYTES;
    let shelf = Shelf::open();
    let house = House::with(config, shelf.clone());
    let mut client = Client::connect(house.at.http, version).await;
    for mut row in rows() {
        let before = shelf.spans();
        let media = row.request.headers().get("content-type").map(|media| media.to_str().unwrap().to_ascii_lowercase());
        let is_json = !media.is_some_and(|media| media.starts_with(PROTOBUF));
        let sent = std::mem::replace(&mut row.request, proto(""));
        let answer = client.send(sent).await.unwrap_or_else(|error| panic!("{}: {error:?}", row.what));
        check(&row, is_json, &answer);
        assert_eq!(shelf.spans() - before, row.kept_spans, "{}", row.what);
        if version == Version::One && answer.status == 413 {
            // What was not read ends an HTTP/1 connection.
            client = Client::connect(house.at.http, version).await;
        }
    }
    let counted = house.counters.snapshot();
    assert_eq!(counted.accepted_spans(), shelf.spans());
    assert_eq!(counted.received_spans(), counted.accepted_spans() + counted.rejected_spans());
    assert_eq!(counted.requests(), rows().len() as u64);
    assert_eq!(counted.in_flight_bytes, 0);
    drop(client);
    house.stop().await.unwrap();
}

/// Each row is answered as OTLP asks, in the form of the request, and exactly the sound spans are kept.
#[tokio::test]
async fn each_input_gets_its_answer_over_http1() {
    each_row_over(Version::One).await;
}

/// The same over HTTP/2, where the connection survives every row.
#[tokio::test]
async fn each_input_gets_its_answer_over_http2() {
    each_row_over(Version::Two).await;
}

/// A declared length is enough to refuse, and the client hears it even if it sends everything before it listens.
#[tokio::test]
async fn a_client_that_talks_first_still_hears_413() {
    let mut config = config();
    config.max_request_bytes = MAX_BYTES;
    let house = House::with(config, Shelf::open());
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {}\r\n\r\n", 16 << 20);
    let everything = [head.as_bytes(), &vec![0; 16 << 20]].concat();
    let answer = raw(house.at.http, everything).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));

    // Over HTTP/2, before a byte of the body comes.
    let mut client = Client::connect(house.at.http, Version::Two).await;
    let (pipe, body) = Pipe::new();
    let answer = client.send(with(post(PATH, PROTOBUF, body), "content-length", "1000000")).await.unwrap();
    assert_eq!(answer.status, 413);
    drop(pipe);
    house.stop().await.unwrap();
}

/// Requests whose end is in doubt are refused, and nothing after them on the connection is believed.
#[tokio::test]
async fn lengths_that_contradict_each_other_end_the_connection() {
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\n");
    let smuggled = format!("{head}content-length: 0\r\n\r\n");
    let cases = [
        ("a negative length", format!("{head}content-length: -1\r\n\r\n{smuggled}")),
        ("two lengths", format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\nx{smuggled}")),
        ("a length that is no number", format!("{head}content-length: 0x10\r\n\r\n{smuggled}")),
        ("a coding that is not chunked", format!("{head}transfer-encoding: gzip\r\n\r\n{smuggled}")),
        ("no HTTP at all", "hello?\r\n\r\n".to_owned()),
    ];
    for (what, bytes) in cases {
        let answer = String::from_utf8(raw(house.at.http, bytes.into_bytes()).await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: {answer}");
    }
    // RFC 9112 lets the coding win over the length, if the connection ends after it.
    let both = format!("{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    let answer = String::from_utf8(raw(house.at.http, both.into_bytes()).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    assert_eq!(shelf.spans(), 0);
    house.stop().await.unwrap();
}

/// Pages of configured origins may send, after asking; others are told no.
#[tokio::test]
async fn configured_pages_may_send() {
    let mut config = config();
    config.cors_origins = emberd_intake::Origins::parse(["https://app.example.com"]).unwrap();
    let house = House::with(config, Shelf::open());
    let mut client = Client::connect(house.at.http, Version::One).await;
    let preflight = |origin| {
        let asked = with(method(Method::OPTIONS), "access-control-request-method", "POST");
        with(with(asked, "access-control-request-headers", "content-type,x-custom"), "origin", origin)
    };
    let answer = client.send(preflight("https://app.example.com")).await.unwrap();
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type,x-custom"));
    let answer = client.send(preflight("https://evil.example.com")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (403, None));

    for (body, status) in [(export::JSON, 200), ("not json", 400)] {
        let answer = client.send(with(json(body), "origin", "https://app.example.com")).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    let answer = client.send(with(json(JSON), "origin", "https://evil.example.com")).await.unwrap();
    assert_eq!(answer.header("access-control-allow-origin"), None);
    drop(client);
    house.stop().await.unwrap();
}
