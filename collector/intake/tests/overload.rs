//! Twenty times what the log takes, in a process of its own.
//!
//! A collector under overload did not recover when it was over (opentelemetry-collector#4981).

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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use emberd_log::{Appender, Appending, Entry};
use emberd_model::Offset;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use client::{Client, Version, framed, grpc, whole};
use house::{House, config, in_time};

/// A log that takes one entry after the other, each at its time.
#[derive(Default)]
struct Slow {
    turn: Arc<Mutex<()>>,
    taken: Arc<AtomicU64>,
}

const EACH: Duration = Duration::from_millis(10);
const BODY_BYTES: usize = 16 << 10;
const IN_FLIGHT_BYTES: usize = 2 << 20;
const TIMES: u32 = 20;
const OVERLOAD: Duration = Duration::from_secs(6);
const RSS_MIB_MAX: u64 = 256;

impl Appender for Slow {
    fn append(&self, _: Entry) -> Appending {
        let (turn, taken) = (Arc::clone(&self.turn), Arc::clone(&self.taken));
        Box::pin(async move {
            let _turn = turn.lock_owned().await;
            tokio::time::sleep(EACH).await;
            Ok(Offset(taken.fetch_add(1, Ordering::Relaxed)))
        })
    }
}

/// As much as the log takes: a few clients, each of which waits for its answer. Gives what it took in a second.
async fn peak(house: &House, slow: &Slow, body: &Bytes) -> f64 {
    let since = Instant::now();
    let before = slow.taken.load(Ordering::Relaxed);
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (at, body) = (house.at.grpc, body.clone());
        clients.spawn(async move {
            let mut client = Client::connect(at, Version::Two).await;
            while since.elapsed() < Duration::from_secs(2) {
                assert_eq!(client.send(grpc(whole(body.clone()))).await.unwrap().code(), 0);
            }
        });
    }
    in_time(clients.join_all()).await;
    (slow.taken.load(Ordering::Relaxed) - before) as f64 / since.elapsed().as_secs_f64()
}

/// Under twenty times the load that the log takes, the doors go on giving it all that it takes: who does not fit is told to come
/// again, memory stays bounded, and when the crowd is gone all is as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otelcol_4981_overload_is_shed_and_ends() {
    let mut config = config();
    config.in_flight_bytes = IN_FLIGHT_BYTES;
    config.in_flight_wait = Duration::from_millis(100);
    let slow = Arc::new(Slow::default());
    let house = House::with(config, slow.clone());
    let body = Bytes::from(framed(0, &export::heavy(BODY_BYTES)));
    let peak = peak(&house, &slow, &body).await;

    // Nobody waits for an answer before the next request: the load is what it is, whatever becomes of it.
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(Client::connect(house.at.grpc, Version::Two).await);
    }
    rss::reset_peak();
    let before = slow.taken.load(Ordering::Relaxed);
    let pause = Duration::from_secs_f64(1.0 / (peak * f64::from(TIMES)));
    let mut answers = JoinSet::new();
    let since = Instant::now();
    let (mut offered, mut refused) = (0u32, 0u32);
    let mut heard = |answer: client::Answer| match answer.code() {
        0 => {}
        14 => {
            assert!(answer.details().has("RetryInfo"), "{answer:?}");
            refused += 1;
        }
        _ => panic!("{answer:?}"),
    };
    while since.elapsed() < OVERLOAD {
        let due = (since.elapsed().as_secs_f64() / pause.as_secs_f64()) as u32;
        while offered < due {
            let count = clients.len();
            answers.spawn(clients[offered as usize % count].begin(grpc(whole(body.clone()))));
            offered += 1;
        }
        while let Some(answer) = answers.try_join_next() {
            heard(answer.unwrap().unwrap());
        }
        assert!(house.counters.snapshot().in_flight_bytes <= IN_FLIGHT_BYTES as u64);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let taken = (slow.taken.load(Ordering::Relaxed) - before) as f64;
    let goodput = taken / since.elapsed().as_secs_f64() / peak;

    // The crowd is gone as it would be: its connections end, whatever it still had to say.
    let over = Instant::now();
    drop(clients);
    drop(answers);
    let mut client = Client::connect(house.at.grpc, Version::Two).await;
    in_time(async {
        loop {
            let asked = Instant::now();
            let answer = client.send(grpc(whole(body.clone()))).await.unwrap();
            if answer.code() == 0 && asked.elapsed() < 5 * EACH && house.counters.snapshot().in_flight_bytes == 0 {
                break;
            }
        }
    })
    .await;
    let recovery = over.elapsed();
    let rss = rss::peak_mib();
    let _ = writeln!(
        std::io::stderr(),
        "figure F20 {{\"goodput\":{goodput:.2},\"rss_mib\":{rss},\"recovery_s\":{:.1},\"offered\":{offered},\"refused\":{refused}}}",
        recovery.as_secs_f64()
    );
    assert!(refused > 0, "nobody was refused: there was no overload");
    assert!(goodput >= 0.8, "the log got {goodput:.2} of what it takes");
    assert!(recovery <= Duration::from_secs(5), "all was as before after {recovery:?} only");
    assert!(rss <= RSS_MIB_MAX, "{rss} MiB");
    let counted = house.counters.snapshot();
    let out = counted.accepted_spans() + counted.rejected_spans() + counted.refused_spans();
    assert_eq!(counted.received_spans(), out, "{counted:?}");
    drop(client);
    in_time(house.stop()).await.unwrap();
}
