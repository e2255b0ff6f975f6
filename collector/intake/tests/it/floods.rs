//! HTTP/2 by hand: frames that no client sends in earnest. Who sends them is thrown out or held back; others notice nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use emberd_intake::Reason;
use tokio::task::JoinSet;

use crate::client::{Client, EXPORT, Version, framed, grpc, whole};
use crate::export::spans;
use crate::house::{House, config, in_time};
use crate::shelf::Shelf;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call, in literals that no table remembers.
fn call() -> Vec<u8> {
    let literal = |name: &[u8], value: &str| [name, &[value.len() as u8], value.as_bytes()].concat();
    let (path, authority) = (literal(&[0x04], EXPORT), literal(&[0x01], "x"));
    let media = literal(&[0x0f, 0x10], "application/grpc");
    [&[0x83, 0x86][..], &path, &authority, &media].concat()
}

/// What the server did about an attack.
#[derive(Debug, Default)]
struct Outcome {
    /// It ended the connection before the attack was over, or at its end without being asked to.
    thrown_out: bool,
    /// It stopped reading until its own answers are read.
    held_back: bool,
    /// The frames that it sent: kind and payload.
    frames: Vec<(u8, Vec<u8>)>,
}

impl Outcome {
    fn has(&self, kind: u8, code: u32) -> bool {
        self.frames.iter().any(|(of, payload)| *of == kind && payload.ends_with(&code.to_be_bytes()))
    }
}

/// Sends a preface and the attack, without reading; then reads what was said.
fn attack(at: SocketAddr, attack: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, b"")].concat();
    match stream.write_all(&preface).and_then(|()| stream.write_all(attack)) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => outcome.held_back = true,
        Err(_) => outcome.thrown_out = true,
    }
    let mut said = Vec::new();
    let mut piece = [0; 64 << 10];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => {
                outcome.thrown_out = true;
                break;
            }
            Ok(read) => said.extend_from_slice(&piece[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(_) => {
                outcome.thrown_out = true;
                break;
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    let mut rest = &said[..];
    while let [a, b, c, kind, _flags, _, _, _, _, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = after.get(..length) else { break };
        outcome.frames.push((*kind, payload.to_vec()));
        rest = &after[length..];
    }
    outcome
}

/// Runs an attack beside a client, who is served before, while and after.
async fn beside(house: &House, bytes: Vec<u8>) -> Outcome {
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let at = house.at.grpc;
    let mut under_attack = JoinSet::new();
    under_attack.spawn_blocking(move || attack(at, &bytes));
    let mut served = 0;
    let outcome = loop {
        assert_eq!(client.call(&spans(1)).await.code(), 0, "the client beside the attack");
        served += 1;
        if let Some(outcome) = under_attack.try_join_next() {
            break outcome.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(client.call(&spans(1)).await.code(), 0);
    assert!(served > 0);
    outcome
}

/// Streams that are opened only to be reset (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_the_connection() {
    let house = House::open(Shelf::open());
    let mut bytes = Vec::new();
    for number in 0..2_000 {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, &call()));
        bytes.extend(frame(RST_STREAM, 0, 2 * number + 1, &8u32.to_be_bytes()));
    }
    let outcome = beside(&house, bytes).await;
    assert!(outcome.thrown_out, "{outcome:?}");
    in_time(house.stop()).await.unwrap();
}

/// A head that goes on and on (CVE-2024-27316).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation_floods_end_the_connection() {
    let house = House::open(Shelf::open());
    let header = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat();
    let mut bytes = frame(HEADERS, 0, 1, &call());
    for _ in 0..20_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &header));
    }
    let outcome = beside(&house, bytes).await;
    assert!(outcome.thrown_out, "{outcome:?}");
    in_time(house.stop()).await.unwrap();
}

/// Settings and pings, each of which wants an answer that nobody reads: the peer is not read on until it reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_want_answers_are_held_back() {
    let house = House::open(Shelf::open());
    let floods = [("settings", frame(SETTINGS, 0, 0, b"")), ("pings", frame(PING, 0, 0, &[7; 8]))];
    for (what, one) in floods {
        let outcome = beside(&house, one.repeat(2_000_000)).await;
        assert!(outcome.held_back || outcome.thrown_out, "{what}: all of it was read, and answered into memory");
    }
    in_time(house.stop()).await.unwrap();
}

/// Windows that grow beyond what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_beyond_all_bounds_end_the_connection() {
    let house = House::open(Shelf::open());
    let bytes = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()).repeat(2);
    let outcome = beside(&house, bytes).await;
    assert!(outcome.thrown_out && outcome.frames.iter().any(|(kind, _)| *kind == GOAWAY), "{outcome:?}");
    in_time(house.stop()).await.unwrap();
}

/// A header of 4 KB, said once and named ten thousand times: 40 MB of head in 14 KB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_unpack_are_refused() {
    let house = House::open(Shelf::open());
    let before = house.counters.snapshot().requests();
    // A literal that is remembered: its length, 3,900, as HPACK writes numbers; then its place in the table, over and over.
    let remembered = [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d][..], &[b'y'; 3_900]].concat();
    let head = [call(), remembered, vec![0xbe; 10_000]].concat();
    let outcome = beside(&house, frame(HEADERS, END_HEADERS, 1, &head)).await;
    // Answered with 431, or thrown out; in either case nobody asked what the call wants.
    assert!(!outcome.frames.is_empty() || outcome.thrown_out, "{outcome:?}");
    let counted = house.counters.snapshot();
    assert_eq!(counted.requests() - before, counted.lanes[0].answered, "the head was taken for a call");
    in_time(house.stop()).await.unwrap();
}

/// Frames of a body that bring nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_frames_bring_nothing() {
    let house = House::open(Shelf::open());
    let bytes = [frame(HEADERS, END_HEADERS, 1, &call()), frame(DATA, 0, 1, b"").repeat(200_000)].concat();
    beside(&house, bytes).await;
    assert!(house.counters.snapshot().in_flight_bytes <= 1024);
    in_time(house.stop()).await.unwrap();
}

/// More calls at once than a connection may have: those beyond are refused as HTTP/2 says, and no work is done for them. A client
/// that keeps to the bound has all of its calls taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_thousand_calls_on_one_connection_are_bounded() {
    const CALLS: u32 = 4096;
    const STREAMS_MAX: u64 = 128;
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let bytes: Vec<u8> = (0..CALLS).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, &call())).collect();
    let outcome = beside(&house, bytes).await;
    assert!(outcome.has(RST_STREAM, REFUSED_STREAM) || outcome.thrown_out, "{outcome:?}");
    let counted = house.counters.snapshot();
    assert!(counted.requests() - counted.lanes[0].answered <= STREAMS_MAX, "{counted:?}");

    let before = shelf.entries().len();
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        calls.spawn(client.begin(grpc(whole(framed(0, &spans(1))))));
    }
    while let Some(answer) = in_time(calls.join_next()).await {
        assert_eq!(answer.unwrap().unwrap().code(), 0);
    }
    assert_eq!(shelf.entries().len() - before, CALLS as usize);
    in_time(house.stop()).await.unwrap();
}

/// Two hundred connections of a hundred calls each, of which nothing but the head ever comes: they hold nothing, a client beside them
/// is served, and all are let go when their time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_bodies_hold_nothing() {
    const CONNECTIONS: u64 = 200;
    const STREAMS: u64 = 100;
    let mut config = config();
    config.body_idle_timeout = Duration::from_secs(5);
    let house = House::with(config, Shelf::open());
    let heads = (0..STREAMS as u32).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, &call()));
    let said: Vec<u8> =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied().chain(frame(SETTINGS, 0, 0, b"")).chain(heads).collect();
    let mut crowd = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(house.at.grpc).unwrap();
        stream.write_all(&said).unwrap();
        crowd.push(stream);
    }
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    in_time(async {
        loop {
            assert_eq!(client.call(&spans(10)).await.code(), 0);
            let counted = house.counters.snapshot();
            assert_eq!(counted.in_flight_bytes, 0, "a head holds nothing");
            if counted.lanes[0].refused[Reason::CutOff as usize] == CONNECTIONS * STREAMS {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(crowd);
    in_time(house.stop()).await.unwrap();
}
