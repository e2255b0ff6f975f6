//! OTLP/gRPC where a row of `bad_input.toml` is not enough: dialogues, other protocols, a real client.

use http::{Method, Request, StatusCode};

use crate::client::{Client, EXPORT, Outgoing, Pipe, Version, framed, grpc, post, raw, whole};
use crate::export::{heavy, spans};
use crate::house::{House, in_time};
use crate::shelf::Shelf;

const OK: i32 = 0;
const NOT_FOUND: i32 = 5;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;

fn call(message: &[u8]) -> Request<Outgoing> {
    grpc(whole(framed(0, message)))
}

fn with(mut request: Request<Outgoing>, name: &'static str, value: &str) -> Request<Outgoing> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn to(path: &str) -> Request<Outgoing> {
    post(path, "application/grpc", whole(framed(0, b"")))
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
