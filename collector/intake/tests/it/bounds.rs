//! No client, however hostile, takes more than the config gives; and others are served meanwhile.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;

use crate::client::{Answer, Client, Pipe, Version, framed, grpc, post, raw, whole};
use crate::export::{gzip, heavy, spans};
use crate::house::{House, config, in_time};
use crate::shelf::Shelf;

const MIB: usize = 1 << 20;

/// A crowd of large requests before a slow log: what is inside stays within the bound, the others are told to come again, and
/// in the end all spans are kept.
#[tokio::test]
async fn a_crowd_before_a_slow_log_stays_within_its_bound() {
    const BODY: usize = 100_000;
    const CROWD: usize = 64;
    let mut config = config();
    config.in_flight_bytes = MIB;
    config.in_flight_wait = Duration::from_millis(20);
    let shelf = Shelf::closed();
    let house = House::with(config, shelf.clone());
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        crowd.spawn(client.begin(grpc(whole(framed(0, &heavy(BODY))))));
    }
    // As many as fit are inside; the others hear so, and only they hear anything.
    let inside = MIB / heavy(BODY).len();
    let mut refused = Vec::new();
    while refused.len() < CROWD - inside {
        refused.push(in_time(crowd.join_next()).await.unwrap().unwrap().unwrap());
    }
    let is_retryable = |answer: &Answer| answer.code() == 14 && answer.details().has("RetryInfo");
    assert!(refused.iter().all(is_retryable), "{refused:?}");
    assert!(house.counters.snapshot().in_flight_bytes <= MIB as u64);
    shelf.let_go();
    while let Some(answer) = in_time(crowd.join_next()).await {
        assert_eq!(answer.unwrap().unwrap().code(), 0);
    }
    assert!(shelf.held_bytes_max() <= MIB, "{} bytes were inside", shelf.held_bytes_max());
    for _ in refused {
        assert_eq!(client.call(&heavy(BODY)).await.code(), 0, "there is room again");
    }
    assert_eq!(shelf.spans(), CROWD as u64);
    assert_eq!(house.counters.snapshot().in_flight_bytes, 0);
    house.stop().await.unwrap();
}

/// A thousand bombs inflate no further than one byte past the limit each, and never past the bytes in flight.
#[tokio::test]
async fn bombs_are_bounded() {
    const LIMIT: usize = MIB;
    let mut config = config();
    config.max_request_bytes = LIMIT;
    config.in_flight_bytes = 8 * MIB;
    let house = House::with(config, Shelf::open());
    let bomb = gzip(&vec![0; 32 * MIB]);
    let mut clients = Vec::new();
    for version in [Version::One, Version::Two] {
        clients.push(Client::connect(house.at.http, version).await);
    }
    let mut bombs = 0;
    for _ in 0..50 {
        for client in &mut clients {
            let mut request = post("/v1/traces", "application/json", whole(bomb.clone()));
            request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            assert_eq!(client.send(request).await.unwrap().status, 413);
            bombs += 1;
        }
    }
    let counted = house.counters.snapshot();
    assert!(counted.inflated_bytes <= bombs * LIMIT as u64, "{} bytes for {bombs} bombs", counted.inflated_bytes);
    assert_eq!(counted.in_flight_bytes, 0);
    drop(clients);
    house.stop().await.unwrap();
}

/// Who stops in the middle of a body is told so, in time and as retryable, and what it held is free again.
#[tokio::test]
async fn stalled_bodies_are_let_go() {
    let mut config = config();
    config.body_idle_timeout = Duration::from_millis(50);
    let house = House::with(config, Shelf::open());

    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let (pipe, body) = Pipe::new();
    pipe.send(vec![0, 0, 1, 0, 0, 1, 2, 3]);
    let answer = client.send(grpc(body)).await.unwrap();
    assert_eq!((answer.code(), answer.details().has("RetryInfo")), (14, true));
    drop(pipe);

    for version in [Version::One, Version::Two] {
        let mut client = Client::connect(house.at.http, version).await;
        let (pipe, body) = Pipe::new();
        pipe.send(vec![1, 2, 3]);
        let answer = client.send(post("/v1/traces", "application/x-protobuf", body)).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.is_retryable()), (503, true));
        drop(pipe);
    }
    assert_eq!(house.counters.snapshot().in_flight_bytes, 0);
    house.stop().await.unwrap();
}

/// Who opens a connection and does not say what for, or not to the end, is cut off.
#[tokio::test]
async fn silent_peers_are_cut_off() {
    let mut config = config();
    config.header_timeout = Duration::from_millis(50);
    let house = House::with(config, Shelf::open());
    for at in [house.at.grpc, house.at.http] {
        for said in ["", "P", "PRI * HTTP/2.0\r\n", "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-"] {
            let answer = raw(at, said.into()).await;
            assert!(answer.is_err() || answer.is_ok_and(|answer| !answer.starts_with(b"HTTP/1.1 2")), "{said:?}");
        }
    }
    house.stop().await.unwrap();
}

/// Connections beyond the bound wait in the listen queue, and are served once there is a place.
#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let mut config = config();
    config.connections_max = 2;
    let house = House::with(config, Shelf::open());
    let mut first = Client::connect(house.at.grpc, Version::Two).await;
    let mut second = Client::connect(house.at.http, Version::Two).await;
    assert_eq!(first.call(&spans(1)).await.code(), 0);
    assert_eq!(second.send(post("/v1/traces", "application/x-protobuf", whole(""))).await.unwrap().status, 200);
    let mut third = Client::connect(house.at.grpc, Version::Two).await;
    let waiting = third.begin(grpc(whole(framed(0, &spans(1)))));
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(first.call(&spans(1)).await.code(), 0);
    assert_eq!(house.counters.snapshot().connections, 2);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(first);
    assert_eq!(in_time(waiting).await.unwrap().code(), 0);
    let counted = house.counters.snapshot();
    assert_eq!((counted.connections, counted.connections_open), (3, 2));
    house.stop().await.unwrap();
}
