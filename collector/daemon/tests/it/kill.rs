//! kill -9 under load: what was acknowledged is in the log and counted once, whatever the moment.
//!
//! The ledger is outside the process that gets killed (`books.rs`). `make test` kills twenty times on each database, `make kill
//! CYCLES=200` as often as it is told.

use std::time::{Duration, Instant};

use super::books::{Books, Tally, load};
use super::client::Client;
use super::library::{Kind, Library};
use super::made::PROMPTS;
use super::process::Emberd;

pub use super::made::Made;

/// How many kills on each database.
fn cycles() -> u64 {
    std::env::var("EMBERD_KILL_CYCLES").map_or(20, |text| text.parse().unwrap())
}

/// Connections that send at once.
const CONNECTIONS: u64 = 4;

/// Loads an emberd from several connections and kills it at a moment that depends on the cycle.
async fn cycle(emberd: Emberd, n: u64, books: &mut Books) {
    books.send_doubtful(&emberd).await;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let mut loads = tokio::task::JoinSet::new();
    for connection in 0..CONNECTIONS {
        let client = Client::connect(&emberd).await;
        let numbers = (n * 1_000_000 + connection..).step_by(CONNECTIONS as usize);
        loads.spawn(load(client, numbers, Duration::ZERO, stopped.clone()));
    }
    tokio::time::sleep(Duration::from_millis(5 + n * 7919 % 700)).await;
    emberd.kill();
    while let Some(done) = loads.join_next().await {
        books.take(done.unwrap());
    }
}

async fn story(kind: Kind) -> Tally {
    let library = Library::new(kind).await;
    let mut books = Books::default();
    for n in 0..cycles() {
        let emberd = library.home.start();
        // Two prompts are there before their traces, one is made amid the kills, one never.
        for (title, made_at) in [(PROMPTS[0], 0), (PROMPTS[1], 0), (PROMPTS[2], cycles() / 2)] {
            if n == made_at {
                books.make_prompt(&emberd, title).await;
            }
        }
        cycle(emberd, n, &mut books).await;
    }
    let tally = books.check(&library, library.home.start()).await;
    println!("{kind:?}: {} kills, {tally:?}", cycles());
    tally
}

/// After twenty kills under load every acknowledged span is in the log, each trace has one row with all of it and nothing twice, and
/// every metric of every window and every summary is that of the rows.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_and_doubles_nothing() {
    let (mut sum, since) = (Tally::default(), Instant::now());
    for kind in Kind::ALL {
        let tally = story(kind).await;
        sum.acked_requests += tally.acked_requests;
        sum.acked_spans += tally.acked_spans;
        sum.in_doubt += tally.in_doubt;
        sum.lost += tally.lost;
        sum.doubled += tally.doubled;
    }
    let kills = cycles() * Kind::ALL.len() as u64;
    super::figure(
        "F2",
        &[
            ("kills", kills.into()),
            ("acked_requests", sum.acked_requests.into()),
            ("acked_spans", sum.acked_spans.into()),
            ("requests_in_doubt", sum.in_doubt.into()),
            ("lost", sum.lost.into()),
            ("doubled", sum.doubled.into()),
            ("seconds", since.elapsed().as_secs().into()),
        ],
    );
    assert_eq!((sum.lost, sum.doubled), (0, 0), "{sum:?}");
    assert!(sum.acked_requests > kills, "nothing was under way when it was killed: {sum:?}");
}
