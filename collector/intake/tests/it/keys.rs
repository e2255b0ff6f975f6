//! Ingest keys: checked before a byte of the body is read.

use emberd_intake::Keys;

use crate::client::{Client, Pipe, Version, framed, grpc, post, whole};
use crate::export::{JSON, spans};
use crate::house::{House, config};
use crate::shelf::Shelf;

const KEYS: &str = r#"
[[key]]
name = "first"
key = "one"

[[key]]
name = "second"
key = "two"
rate = 10
"#;

/// Without a known key nothing is read, let alone kept; with one, its number goes into the log.
#[tokio::test]
async fn keys_are_asked_for_before_the_body() {
    let mut config = config();
    config.keys = Some(Keys::parse(KEYS).unwrap());
    let shelf = Shelf::open();
    let house = House::with(config, shelf.clone());
    let mut over_grpc = Client::connect(house.at.grpc, Version::Two).await;
    let mut over_http = Client::connect(house.at.http, Version::Two).await;
    for key in [None, Some("Bearer three"), Some("one")] {
        // The body never comes: the answer does not wait for it.
        let (_grpc_pipe, grpc_body) = Pipe::new();
        let (_http_pipe, http_body) = Pipe::new();
        let mut call = grpc(grpc_body);
        let mut request = post("/v1/traces", "application/json", http_body);
        if let Some(key) = key {
            call.headers_mut().insert("authorization", key.parse().unwrap());
            request.headers_mut().insert("authorization", key.parse().unwrap());
        }
        let answer = over_grpc.send(call).await.unwrap();
        assert_eq!((answer.code(), answer.is_retryable()), (16, false), "{key:?}");
        let answer = over_http.send(request).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, Some("Bearer")), "{key:?}");
        assert_eq!(answer.status_body().code, 16);
    }
    assert_eq!(house.counters.snapshot().received_spans(), 0);

    let mut call = grpc(whole(framed(0, &spans(1))));
    call.headers_mut().insert("authorization", "Bearer two".parse().unwrap());
    assert_eq!(over_grpc.send(call).await.unwrap().code(), 0);
    let mut request = post("/v1/traces", "application/json", whole(JSON));
    request.headers_mut().insert("api_key", "one".parse().unwrap());
    assert_eq!(over_http.send(request).await.unwrap().status, 200);
    let numbers: Vec<u16> = shelf.entries().iter().map(|entry| entry.key).collect();
    assert_eq!(numbers, [2, 1]);
    house.stop().await.unwrap();
}

/// Who sends more than its key's rate is told when to come again; other keys are not concerned.
#[tokio::test]
async fn rates_are_kept() {
    let mut config = config();
    config.keys = Some(Keys::parse(KEYS).unwrap());
    let house = House::with(config, Shelf::open());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let mut send = async |key: &str, count: u64| {
        let mut call = grpc(whole(framed(0, &spans(count))));
        call.headers_mut().insert("x-api-key", key.parse().unwrap());
        client.send(call).await.unwrap()
    };
    assert_eq!(send("two", 1_000).await.code(), 0, "a large request is taken, and is a debt");
    let answer = send("two", 1).await;
    assert_eq!((answer.code(), answer.details().has("RetryInfo")), (8, true));
    assert!(answer.details().message.contains("10 spans a second"));
    assert_eq!(send("one", 1_000).await.code(), 0);
    assert_eq!(send("one", 1_000).await.code(), 0);
    house.stop().await.unwrap();
}
