//! OTLP/HTTP where a row of `bad_input.toml` is not enough: dialogues in raw bytes, and browsers.

use http::{Method, Request};

use crate::client::{Client, Outgoing, Pipe, Version, post, raw, whole};
use crate::export::{self, JSON};
use crate::house::{House, config};
use crate::shelf::Shelf;

const MAX_BYTES: usize = 64 << 10;
const PATH: &str = "/v1/traces";
const PROTOBUF: &str = "application/x-protobuf";

fn json(body: impl Into<String>) -> Request<Outgoing> {
    post(PATH, "application/json", whole(body.into()))
}

fn with(mut request: Request<Outgoing>, name: &'static str, value: &str) -> Request<Outgoing> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn method(method: Method) -> Request<Outgoing> {
    let mut request = post(PATH, PROTOBUF, whole(""));
    *request.method_mut() = method;
    request
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
