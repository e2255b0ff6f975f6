//! The doors before a real log on a real disk.

use std::sync::Arc;

use emberd_log::{Config, DiskLog, Log, RealDisk};
use emberd_model::{Batch, Offset, clock::Still};

use crate::client::{Client, Version, framed, grpc, post, whole};
use crate::export::JSON;
use crate::fixtures::{decoded, files};
use crate::house::{House, NOW, in_time};

async fn read_all(log: &DiskLog) -> Vec<Batch> {
    let mut reader = log.reader(Offset(0));
    let mut batches = Vec::new();
    while reader.position() < log.head() {
        batches.extend(in_time(reader.next(1 << 20)).await.unwrap());
    }
    batches
}

fn open(dir: &std::path::Path) -> Arc<DiskLog> {
    let mut config = Config::in_dir(dir.join("log"));
    config.budget_bytes = 64 << 20;
    config.segment_bytes = 4 << 20;
    DiskLog::open(config, Arc::new(RealDisk), Arc::new(Still::at(NOW))).unwrap().0
}

/// What was answered with success, by any transport, is in the log byte for byte: at once, and after the log was opened anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let house = House::open(log.clone());
    let mut sent = Vec::new();
    let mut over_grpc = Client::connect(house.at.grpc, Version::Two).await;
    let mut over_http = Client::connect(house.at.http, Version::One).await;
    for (name, body) in files(".otlp.pb") {
        assert_eq!(over_grpc.call(&body).await.code(), 0, "{name}");
        sent.push(body.clone());
        let request = post("/v1/traces", "application/x-protobuf", whole(body.clone()));
        assert_eq!(over_http.send(request).await.unwrap().status, 200, "{name}");
        sent.push(body);
    }
    assert_eq!(over_http.send(post("/v1/traces", "application/json", whole(JSON))).await.unwrap().status, 200);
    let accepted = house.counters.snapshot().accepted_spans();
    assert_eq!(log.head(), Offset(accepted), "the log's head is the number of spans that were answered with success");
    drop(over_http);
    house.stop().await.unwrap();

    let kept = read_all(&log).await;
    log.seal().await;
    drop(log);
    let again = open(dir.path());
    assert_eq!(read_all(&again).await, kept);
    let (json, protobuf) = kept.split_last().unwrap();
    assert!(protobuf.iter().map(|batch| &batch.body).eq(&sent), "what is kept is not what was sent");
    assert_eq!(decoded(&json.body).resource_spans[0].scope_spans[0].spans[0].name, "by hand");
    again.seal().await;
}

/// A full disk budget is an answer that clients may retry, and what is read on makes room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_budget_is_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::in_dir(dir.path().join("log"));
    config.budget_bytes = 8 << 20;
    config.segment_bytes = 1 << 20;
    config.keep = std::time::Duration::ZERO;
    let log = DiskLog::open(config, Arc::new(RealDisk), Arc::new(Still::at(NOW))).unwrap().0;
    log.passed("reader", Offset(0));
    let house = House::open(log.clone());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let body = crate::export::heavy(300_000);
    let mut acked = 0;
    let full = loop {
        let answer = client.send(grpc(whole(framed(0, &body)))).await.unwrap();
        match answer.code() {
            0 => acked += 1,
            _ => break answer,
        }
        assert!(acked < 100, "a budget of 8 MiB takes no 30 MB");
    };
    assert_eq!((full.code(), full.is_retryable()), (8, true));
    assert!(full.details().message.contains("disk budget is full"), "{full:?}");
    assert_eq!(log.head(), Offset(acked));
    log.passed("reader", log.head());
    in_time(async { while client.call(&body).await.code() != 0 {} }).await;
    house.stop().await.unwrap();
    log.seal().await;
}
