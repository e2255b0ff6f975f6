//! Real exports of real SDKs, through each transport: what arrives is what was sent.

use std::fs;
use std::path::PathBuf;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::client::{Client, Version, framed, grpc, post, whole};
use crate::export::gzip;
use crate::house::{House, NOW};
use crate::shelf::Shelf;

/// The folder with real exports.
pub(crate) fn folder() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/dev");
    std::env::var_os("EMBERD_FIXTURES").map_or_else(|| PathBuf::from(beside), PathBuf::from)
}

/// Names and contents of the files that end so, in order.
pub(crate) fn files(suffix: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder();
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("set EMBERD_FIXTURES: {}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no *{suffix} in {}", folder.display());
    files
}

pub(crate) fn decoded(body: &[u8]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(body).unwrap()
}

/// A protobuf request's own bytes go into the log, whichever way they came, with the spans that are in them.
#[tokio::test]
async fn protobuf_arrives_byte_for_byte() {
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let mut over_grpc = Client::connect(house.at.grpc, Version::Two).await;
    let mut over_http =
        [Client::connect(house.at.http, Version::One).await, Client::connect(house.at.http, Version::Two).await];
    for (name, body) in files(".otlp.pb") {
        let before = shelf.entries().len();
        assert_eq!(over_grpc.call(&body).await.code(), 0, "{name}");
        let mut call = grpc(whole(framed(1, &gzip(&body))));
        call.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap());
        assert_eq!(over_grpc.send(call).await.unwrap().code(), 0, "{name}");
        for client in &mut over_http {
            let request = post("/v1/traces", "application/x-protobuf", whole(body.clone()));
            assert_eq!(client.send(request).await.unwrap().status, 200, "{name}");
        }
        let arrived = shelf.entries().split_off(before);
        assert_eq!(arrived.len(), 4, "{name}");
        let request = decoded(&body);
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        for entry in arrived {
            assert!(entry.body == body, "{name} arrived otherwise than it was sent");
            assert_eq!((entry.spans.get() as usize, entry.received_at, entry.key), (spans, NOW, 0), "{name}");
        }
    }
    drop(over_http);
    house.stop().await.unwrap();
}

/// A JSON request means in the log what the same request means in protobuf.
#[tokio::test]
async fn json_arrives_with_the_same_meaning() {
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let mut client = Client::connect(house.at.http, Version::One).await;
    let protobuf: std::collections::BTreeMap<_, _> = files(".otlp.pb").into_iter().collect();
    let mut compared = 0;
    for (name, body) in files(".json") {
        let stem = name.strip_suffix(".received.json").or_else(|| name.strip_suffix(".json")).unwrap();
        let Some(same) = protobuf.get(&format!("{stem}.otlp.pb")) else { continue };
        let answer = client.send(post("/v1/traces", "application/json", whole(body))).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{}"[..]), "{name}");
        let arrived = shelf.entries().pop().unwrap();
        assert_eq!(decoded(&arrived.body), decoded(same), "{name}");
        compared += 1;
    }
    assert!(compared >= protobuf.len(), "only {compared} of {} were compared", protobuf.len());
    drop(client);
    house.stop().await.unwrap();
}
