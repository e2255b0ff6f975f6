//! How much memory a decompression bomb takes, in a process of its own.
//!
//! tonic before 0.14.3 forgot its limit when it decompressed: 32 KB of zstd became 1 GiB (grpc-rust#2484).

#![allow(clippy::unwrap_used, reason = "in a test that is how one fails")]
#![allow(dead_code, reason = "the modules are shared with tests/it, which uses all of them")]

#[path = "it/client.rs"]
mod client;
#[path = "it/export.rs"]
mod export;
#[path = "it/house.rs"]
mod house;
#[path = "it/rss.rs"]
mod rss;
#[path = "it/shelf.rs"]
mod shelf;

use std::io::Write as _;

use bytes::Bytes;
use http::Request;
use tokio::task::JoinSet;

use client::{Client, Outgoing, Version, framed, grpc, post, whole};
use house::{House, in_time};
use shelf::Shelf;

const MIB: usize = 1 << 20;
/// The doors' default: 64 MiB a request, and a decoder beside it.
const ONE_RISE_MIB_MAX: u64 = 64 + 16;
/// What may be in flight, and what the allocator and the connections hold beside it.
const CROWD_RISE_MIB_MAX: u64 = 256 + 128;

/// As many members as make a megabyte, of 64 MiB of zeroes each; or as small ones, which do not say how large the whole will be.
fn bombs() -> Vec<(&'static str, Bytes)> {
    let megabyte = |member: Vec<u8>| Bytes::from(member.repeat(MIB / member.len()));
    vec![
        ("gzip", megabyte(export::gzip(&vec![0; 64 * MIB]))),
        ("gzip", megabyte(export::gzip(&vec![0; MIB]))),
        ("zstd", megabyte(export::zstd(&vec![0; 64 * MIB]))),
        ("zstd", megabyte(export::zstd(&vec![0; MIB]))),
    ]
}

fn request(coding: &str, bomb: &Bytes, over_grpc: bool) -> Request<Outgoing> {
    let (mut request, header) = match over_grpc {
        true => (grpc(whole(framed(1, bomb))), "grpc-encoding"),
        false => (post("/v1/traces", "application/json", whole(bomb.clone())), "content-encoding"),
    };
    request.headers_mut().insert(header, coding.parse().unwrap());
    request
}

/// A megabyte that would be a gigabyte or more takes the limit of one request and little beside it; two hundred of them, fifty at a
/// time, take what may be in flight. All are refused for good, or told to come again; none is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonic_2484_bombs_take_their_limit_and_no_more() {
    let bombs = bombs();
    let shelf = Shelf::open();
    let house = House::open(shelf.clone());
    let mut over_grpc = Client::connect(house.at.grpc, Version::Two).await;
    let mut over_http = Client::connect(house.at.http, Version::Two).await;
    let (mut sent, mut one_rise_mib_max) = (0, 0);
    for (coding, bomb) in &bombs {
        for is_grpc in [true, false] {
            let client = if is_grpc { &mut over_grpc } else { &mut over_http };
            let before = rss::reset_peak();
            let answer = client.send(request(coding, bomb, is_grpc)).await.unwrap();
            let rise = rss::peak_mib().saturating_sub(before);
            assert!(!answer.is_retryable(), "{answer:?}");
            assert_eq!(
                if is_grpc { answer.code() } else { answer.status.as_u16().into() },
                if is_grpc { 8 } else { 413 }
            );
            assert!(rise <= ONE_RISE_MIB_MAX, "{coding}: {rise} MiB for one megabyte");
            one_rise_mib_max = one_rise_mib_max.max(rise);
            sent += 1;
        }
    }
    let before = rss::reset_peak();
    let mut crowd = JoinSet::new();
    for number in 0..200 {
        let (coding, bomb) = &bombs[number % bombs.len()];
        let is_grpc = number % 3 == 0;
        let client = if is_grpc { &mut over_grpc } else { &mut over_http };
        crowd.spawn(client.begin(request(coding, bomb, is_grpc)));
        sent += 1;
        while crowd.len() >= 50 {
            is_refused(in_time(crowd.join_next()).await.unwrap().unwrap().unwrap());
        }
    }
    while let Some(answer) = in_time(crowd.join_next()).await {
        is_refused(answer.unwrap().unwrap());
    }
    let crowd_rise_mib = rss::peak_mib().saturating_sub(before);
    let _ = writeln!(
        std::io::stderr(),
        "figure F9 {{\"bombs\":{sent},\"rss_rise_mib_max\":{one_rise_mib_max},\"crowd_rise_mib\":{crowd_rise_mib}}}"
    );
    assert!(crowd_rise_mib <= CROWD_RISE_MIB_MAX, "{crowd_rise_mib} MiB for a crowd");
    assert!(shelf.entries().is_empty());
    assert_eq!(house.counters.snapshot().in_flight_bytes, 0);
    in_time(house.stop()).await.unwrap();
}

fn is_refused(answer: client::Answer) {
    let is_grpc = answer.headers.contains_key("grpc-status");
    let heard = if is_grpc { answer.code() } else { i32::from(answer.status.as_u16()) };
    let expected: [i32; 2] = if is_grpc { [8, 14] } else { [413, 503] };
    assert!(expected.contains(&heard) && answer.is_retryable() == (heard == expected[1]), "{answer:?}");
}
