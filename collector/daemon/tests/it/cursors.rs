//! A forwarder's cursor file is lost, torn, old, or ahead of the log: each is said aloud and repaired, and no span is skipped.
//!
//! The endpoint is another emberd, so that what arrived can be read from its log.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use emberd_log::CursorFile;
use emberd_model::Offset;

use super::books::span_ids_in_log;
use super::client::Client;
use super::made::Made;
use super::process::{Emberd, Home, PATIENCE};

/// Two emberds, one of which forwards to the other.
struct Pair {
    here: Home,
    there: Home,
    sent: HashSet<[u8; 8]>,
}

impl Pair {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (mut here, mut there) = (Home::new(), Home::new());
        there.set("EMBERD_INTAKE_GRPC", &format!("127.0.0.1:{port}")).set("EMBERD_RECORDER_ENABLED", "false");
        here.set("EMBERD_FORWARD", &format!("[{{ name = \"sink\", url = \"grpc://127.0.0.1:{port}\" }}]"));
        here.set("EMBERD_RECORDER_ENABLED", "false");
        Self { here, there, sent: HashSet::new() }
    }

    /// Sends so many traces of two spans, from a number that is not used twice.
    async fn send(&mut self, emberd: &Emberd, traces: u64) {
        let mut client = Client::connect(emberd).await;
        let first = self.sent.len() as u64 * 3;
        for number in (first..).step_by(3).take(traces as usize) {
            let made = Made::new(number);
            client.send_grpc(made.requests[0].clone()).await.unwrap();
            self.sent.extend(made.spans.iter().map(|span| span.id));
        }
    }

    fn cursor(&self) -> CursorFile {
        CursorFile::open(&self.here.path().join("cursors"), "sink").unwrap()
    }

    fn cursor_path(&self) -> PathBuf {
        self.cursor().path().to_owned()
    }

    /// Everything that was sent is at the endpoint.
    async fn all_arrive(&self, emberd: &Emberd, sink: Emberd) {
        let since = Instant::now();
        while ledger(emberd).await["pending"] != 0 {
            assert!(since.elapsed() < PATIENCE, "{:#}\n{}", ledger(emberd).await, emberd.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stop(sink).await;
        let missing = self.sent.difference(&span_ids_in_log(self.there.path()).await).count();
        assert_eq!(missing, 0, "of {} spans\n{}", self.sent.len(), emberd.said());
    }
}

async fn ledger(emberd: &Emberd) -> serde_json::Value {
    emberd.get("/api/status").await["ledger"]["consumers"]["sink"].clone()
}

async fn stop(emberd: Emberd) {
    assert!(tokio::task::spawn_blocking(|| emberd.terminate()).await.unwrap().success());
}

/// Without a cursor file, with noise in it, or with an old place, everything that the log holds is sent again from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_missing_torn_or_old_costs_repetition_only() {
    for damage in ["missing", "torn", "empty", "old"] {
        let mut pair = Pair::new();
        let (emberd, sink) = (pair.here.start(), pair.there.start());
        pair.send(&emberd, 10).await;
        pair.all_arrive(&emberd, sink).await;
        stop(emberd).await;
        let path = pair.cursor_path();
        match damage {
            "missing" => std::fs::remove_file(&path).unwrap(),
            "torn" => std::fs::write(&path, &std::fs::read(&path).unwrap()[..20]).unwrap(),
            "empty" => std::fs::write(&path, "").unwrap(),
            _ => pair.cursor().store(Offset(4)).unwrap(),
        }
        // The endpoint has forgotten everything, so that what is sent again shows.
        std::fs::remove_dir_all(pair.there.path().join("log")).unwrap();
        let known = std::mem::take(&mut pair.sent);
        let again = if damage == "old" { known.len() - 4 } else { known.len() };
        let (emberd, sink) = (pair.here.start(), pair.there.start());
        pair.sent = known;
        pair.send(&emberd, 1).await;
        let since = Instant::now();
        while ledger(&emberd).await["pending"] != 0 {
            assert!(since.elapsed() < PATIENCE, "{damage}: {}", emberd.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if damage == "torn" || damage == "empty" {
            assert!(emberd.said().contains("everything that the log still holds is sent again"), "{}", emberd.said());
            assert_eq!(ledger(&emberd).await["failures"]["cursor"], 1);
        }
        emberd.sums_are_right(&pair.here).await;
        stop(sink).await;
        let arrived = span_ids_in_log(pair.there.path()).await;
        assert_eq!(arrived.len(), again + 2, "{damage}");
        stop(emberd).await;
    }
}

/// A cursor ahead of the log, as after a log that lost its end or was put away: it is said, the cursor moves back to the log's head at
/// once and durably, and what comes later is sent, also when emberd is killed before it could send any of it. NATS stalled on this
/// (nats-server#5412); a cursor that stays ahead in its file would skip what the log grows to meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn nats_5412_a_cursor_ahead_of_the_log_is_moved_back() {
    let mut pair = Pair::new();
    let emberd = pair.here.start();
    pair.send(&emberd, 5).await;
    stop(emberd).await;
    // Those ten are done; the cursor says that thirty are.
    pair.cursor().store(Offset(30)).unwrap();
    pair.sent.clear();

    let emberd = pair.here.start();
    let since = Instant::now();
    while ledger(&emberd).await["failures"]["ahead"] != 1 {
        assert!(since.elapsed() < PATIENCE, "{:#}\n{}", ledger(&emberd).await, emberd.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(emberd.said().contains("spans cannot be read from the log"), "{}", emberd.said());
    emberd.sums_are_right(&pair.here).await;
    // Twenty-two spans for an endpoint that is not there: the head is now past where the cursor was.
    let mut client = Client::connect(&emberd).await;
    for number in (300..).step_by(3).take(11) {
        let made = Made::new(number);
        client.send_grpc(made.requests[0].clone()).await.unwrap();
        pair.sent.extend(made.spans.iter().map(|span| span.id));
    }
    emberd.kill();

    let (emberd, sink) = (pair.here.start(), pair.there.start());
    pair.all_arrive(&emberd, sink).await;
    assert_eq!(ledger(&emberd).await["failures"]["ahead"], serde_json::Value::Null);
    stop(emberd).await;
}
