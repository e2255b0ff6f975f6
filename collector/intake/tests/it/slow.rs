//! Slow clients hold what they have sent and nothing more, not for long, and nobody up.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Client, Outgoing, Pipe, Version, framed, grpc, post, raw, whole};
use crate::export::{heavy, spans};
use crate::house::{House, config, in_time};
use crate::shelf::Shelf;

const MIB: usize = 1 << 20;
const PATH: &str = "/v1/traces";
const PROTOBUF: &str = "application/x-protobuf";

/// A call that announces so many bytes, and the pipe through which they never come.
fn announced(over_grpc: bool, bytes: usize) -> (Pipe, Request<Outgoing>) {
    let (pipe, body) = Pipe::new();
    if over_grpc {
        pipe.send([&[0][..], &(bytes as u32).to_be_bytes()].concat());
        return (pipe, grpc(body));
    }
    let mut request = post(PATH, PROTOBUF, body);
    request.headers_mut().insert("content-length", bytes.into());
    (pipe, request)
}

/// What comes in pieces over a connection of its own, while the answer is waited for elsewhere.
struct Dripper {
    pipe: Pipe,
    _client: Client,
    _answer: tokio::task::JoinSet<()>,
}

impl Dripper {
    async fn open(house: &House, over_grpc: bool, version: Version, bytes: usize) -> Self {
        let at = if over_grpc { house.at.grpc } else { house.at.http };
        let mut client = Client::connect(at, version).await;
        let (pipe, request) = announced(over_grpc, bytes);
        let answer = client.begin(request);
        let mut waits = tokio::task::JoinSet::new();
        waits.spawn(async { drop(answer.await) });
        Self { pipe, _client: client, _answer: waits }
    }
}

async fn requests_came(house: &House, count: u64) {
    in_time(async {
        while house.counters.snapshot().requests() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Sixty-four clients announce the largest request there is, over every protocol, and send it byte by byte. What they hold is
/// what they have sent, and whoever sends as people do is served all the while.
#[tokio::test]
async fn drippers_hold_nobody_up() {
    const LARGEST: usize = 64 * MIB;
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let mut drippers = Vec::new();
    for number in 0..64 {
        let (over_grpc, version) = [(true, Version::Two), (false, Version::Two), (false, Version::One)][number % 3];
        drippers.push(Dripper::open(&house, over_grpc, version, LARGEST).await);
    }
    requests_came(&house, 64).await;
    let mut over_grpc = Client::connect(house.at.grpc, Version::Two).await;
    let mut over_http = Client::connect(house.at.http, Version::One).await;
    for round in 0..20 {
        drippers.iter().for_each(|dripper| dripper.pipe.send(vec![0x0a]));
        let body = heavy(2 * MIB);
        assert_eq!(over_grpc.call(&body).await.code(), 0, "round {round}");
        let answer = over_http.send(post(PATH, PROTOBUF, whole(body))).await.unwrap();
        assert_eq!(answer.status, 200, "round {round}");
        let held = house.counters.snapshot().in_flight_bytes;
        assert!(held <= 64 * 4096, "{held} bytes are set aside for what has not come");
    }
    assert_eq!(shelf.entries().len(), 40);
    drop((drippers, over_http));
    in_time(async {
        while house.counters.snapshot().in_flight_bytes > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    house.stop().await.unwrap();
}

/// Clients that have really sent most of a large request, and do not end it, fill three quarters of the bytes in flight and no
/// more: a request that has come is taken.
#[tokio::test]
async fn halves_of_bodies_leave_room_for_whole_ones() {
    let mut config = config();
    config.in_flight_bytes = 8 * MIB;
    config.max_request_bytes = 2 * MIB;
    config.in_flight_wait = Duration::from_millis(50);
    let house = House::with(config, Shelf::open());
    let mut drippers = Vec::new();
    for _ in 0..8 {
        let dripper = Dripper::open(&house, true, Version::Two, 2 * MIB).await;
        dripper.pipe.send(vec![0; MIB]);
        drippers.push(dripper);
    }
    in_time(async {
        while house.counters.snapshot().in_flight_bytes < 4 * MIB as u64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    for _ in 0..20 {
        assert_eq!(client.call(&heavy(30_000)).await.code(), 0);
        let held = house.counters.snapshot().in_flight_bytes;
        assert!(held <= 6 * MIB as u64, "{held} bytes for bodies that have not come to their end");
    }
    drop(drippers);
    house.stop().await.unwrap();
}

/// A crowd of large bodies, all coming at once and together more than there is room for: some come to their end, the others are
/// told to come again, and none waits for another for ever.
#[tokio::test]
async fn a_crowd_that_grows_together_is_served() {
    const CROWD: usize = 32;
    let mut config = config();
    config.in_flight_bytes = 8 * MIB;
    let shelf = Shelf::open();
    let house = House::with(config, shelf.clone());
    let body = Bytes::from(framed(0, &heavy(2 * MIB)));
    let mut clients = Vec::new();
    let mut crowd = tokio::task::JoinSet::new();
    let mut pipes = Vec::new();
    for _ in 0..CROWD {
        let mut client = Client::connect(house.at.grpc, Version::Two).await;
        let (pipe, outgoing) = Pipe::new();
        pipe.send(body.slice(..64 << 10));
        crowd.spawn(client.begin(grpc(outgoing)));
        pipes.push(pipe);
        clients.push(client);
    }
    requests_came(&house, CROWD as u64).await;
    for pipe in pipes {
        pipe.send(body.slice(64 << 10..));
    }
    let mut kept = 0;
    while let Some(answer) = in_time(crowd.join_next()).await {
        let answer = answer.unwrap().unwrap();
        match answer.code() {
            0 => kept += 1,
            14 => assert!(answer.details().has("RetryInfo"), "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
    }
    assert!(kept > 0, "nobody of the crowd was served");
    assert_eq!(shelf.entries().len(), kept);
    assert_eq!(house.counters.snapshot().in_flight_bytes, 0);
    drop(clients);
    house.stop().await.unwrap();
}

/// A body that never pauses and hardly comes is cut off, over every protocol, and is told to come again.
#[tokio::test]
async fn bodies_below_the_least_rate_are_cut_off() {
    let mut config = config();
    config.body_idle_timeout = Duration::from_millis(300);
    config.body_rate_min = 1 << 20;
    let house = House::with(config, Shelf::open());
    for (over_grpc, version) in [(true, Version::Two), (false, Version::Two), (false, Version::One)] {
        let at = if over_grpc { house.at.grpc } else { house.at.http };
        let mut client = Client::connect(at, version).await;
        let (pipe, request) = announced(over_grpc, MIB);
        let answer = client.begin(request);
        let dripping = async {
            loop {
                pipe.try_send(vec![0x0a; 8]);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let answer = in_time(async {
            tokio::select! {
                answer = answer => answer.unwrap(),
                () = dripping => unreachable!(),
            }
        })
        .await;
        let says = if over_grpc { answer.details().message } else { answer.status_body().message };
        assert!(answer.is_retryable() && says.starts_with("only "), "{says}");
        assert_eq!(answer.header("retry-after").is_some(), !over_grpc);
    }
    assert_eq!(house.counters.snapshot().in_flight_bytes, 0);
    house.stop().await.unwrap();
}

/// A thousand connections that say little and slowly, in their heads or in their bodies, are all cut off, and a client beside them
/// is served throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_connections_cost_nobody_anything() {
    const CROWD: usize = 1000;
    let mut config = config();
    config.header_timeout = Duration::from_secs(2);
    config.body_idle_timeout = Duration::from_secs(2);
    let house = House::with(config, Shelf::open());
    let said = [
        "P".to_owned(),
        "PRI * HTTP/2.0\r\n".to_owned(),
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-"),
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {}\r\n\r\n\n",
            64 * MIB
        ),
    ];
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let at = if number % 2 == 0 { house.at.grpc } else { house.at.http };
        let mut stream = in_time(TcpStream::connect(at)).await.unwrap();
        stream.write_all(said[number / 2 % said.len()].as_bytes()).await.unwrap();
        crowd.push(stream);
    }
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let mut served = 0;
    in_time(async {
        loop {
            assert_eq!(client.call(&spans(10)).await.code(), 0);
            served += 1;
            let counted = house.counters.snapshot();
            assert!(counted.in_flight_bytes <= (CROWD * 1024) as u64, "{} bytes in flight", counted.in_flight_bytes);
            if served > 20 && counted.connections_open == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(house.counters.snapshot().connections, CROWD as u64 + 1);
    drop(crowd);
    house.stop().await.unwrap();
}

/// Heads beyond their bound, in one line or in a thousand, are refused or cut off and never kept.
#[tokio::test]
async fn heads_have_a_bound() {
    let house = House::open(Shelf::open());
    let start = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: 0\r\n");
    let long = format!("{start}x: {}\r\n\r\n", "x".repeat(MIB));
    let many = format!("{start}{}\r\n", (0..100_000).map(|number| format!("x-{number}: 1\r\n")).collect::<String>());
    let path = format!("POST /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(MIB));
    for (what, head) in [("a long line", long), ("many lines", many), ("a long path", path)] {
        let answer = raw(house.at.http, head.into_bytes()).await;
        let refused = answer.as_ref().is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 4"));
        assert!(answer.is_err() || refused || answer.is_ok_and(|answer| answer.is_empty()), "{what}");
    }
    assert_eq!(house.counters.snapshot().received_spans(), 0);
    house.stop().await.unwrap();
}
