//! A forwarder's place in the log is lost, damaged, old, or ahead of the log: it goes on all the same, and no span is skipped.
//!
//! The endpoint is another emberd, so that what arrived can be read from its log.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

    /// Where its consumers' places are kept, whatever the files are called.
    fn places(&self) -> PathBuf {
        self.here.path().join("cursors")
    }

    async fn forwarded(&self, emberd: &Emberd) {
        let since = Instant::now();
        while ledger(emberd).await["pending"] != 0 {
            assert!(since.elapsed() < PATIENCE, "{:#}\n{}", ledger(emberd).await, emberd.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that was sent is at the endpoint.
    async fn all_arrive(&self, emberd: &Emberd, sink: Emberd) {
        self.forwarded(emberd).await;
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

/// What may have become of the files that hold a forwarder's place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Missing,
    Noise,
    Empty,
    /// As they were four spans after the beginning.
    Old,
}

impl Damage {
    fn of(self, places: &Path, old: &Path) {
        let files = |dir: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect()
        };
        match self {
            Self::Missing => std::fs::remove_dir_all(places).unwrap(),
            Self::Noise => files(places).iter().for_each(|file| std::fs::write(file, "noise").unwrap()),
            Self::Empty => files(places).iter().for_each(|file| std::fs::write(file, "").unwrap()),
            Self::Old => {
                std::fs::remove_dir_all(places).unwrap();
                std::fs::create_dir(places).unwrap();
                for file in files(old) {
                    std::fs::copy(&file, places.join(file.file_name().unwrap())).unwrap();
                }
            }
        }
    }
}

/// Without the file of its place, with noise in it, or with an old place, a forwarder sends everything again from there. No start fails,
/// and what is damaged is said (the collector panics, and again after each restart: opentelemetry-collector-contrib#35899).
#[tokio::test(flavor = "multi_thread")]
async fn otelcol_35899_a_place_that_is_missing_damaged_or_old_costs_repetition_only() {
    for damage in [Damage::Missing, Damage::Noise, Damage::Empty, Damage::Old] {
        let mut pair = Pair::new();
        let old = pair.here.path().join("old");
        std::fs::create_dir(&old).unwrap();
        for traces in [2, 8] {
            let (emberd, sink) = (pair.here.start(), pair.there.start());
            pair.send(&emberd, traces).await;
            pair.all_arrive(&emberd, sink).await;
            stop(emberd).await;
            if traces == 2 {
                for file in std::fs::read_dir(pair.places()).unwrap().map(|file| file.unwrap().path()) {
                    std::fs::copy(&file, old.join(file.file_name().unwrap())).unwrap();
                }
            }
        }
        damage.of(&pair.places(), &old);
        // The endpoint has forgotten everything, so that what is sent again shows.
        std::fs::remove_dir_all(pair.there.path().join("log")).unwrap();
        let again = pair.sent.len() - if damage == Damage::Old { 4 } else { 0 };
        let (emberd, sink) = (pair.here.start(), pair.there.start());
        pair.send(&emberd, 1).await;
        pair.forwarded(&emberd).await;
        if damage == Damage::Noise {
            assert!(emberd.said().contains("everything that the log still holds is sent again"), "{}", emberd.said());
            assert_eq!(ledger(&emberd).await["failures"]["cursor"], 1);
        }
        emberd.sums_are_right(&pair.here).await;
        stop(sink).await;
        let arrived = span_ids_in_log(pair.there.path()).await;
        assert_eq!(arrived.len(), again + 2, "{damage:?}");
        stop(emberd).await;
    }
}

/// A place ahead of the log, as after a log that was put away: it is said, moved back to the log's head at once and durably, and what
/// comes later is sent, also when emberd is killed before it could send any of it. NATS stalled on this (nats-server#5412); a place
/// that stays ahead in its file would skip what the log grows to meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn nats_5412_a_cursor_ahead_of_the_log_is_moved_back() {
    let mut pair = Pair::new();
    let (emberd, sink) = (pair.here.start(), pair.there.start());
    pair.send(&emberd, 5).await;
    pair.all_arrive(&emberd, sink).await;
    stop(emberd).await;
    // Ten spans are done; the log has none any more.
    std::fs::remove_dir_all(pair.here.path().join("log")).unwrap();

    let emberd = pair.here.start();
    let since = Instant::now();
    while ledger(&emberd).await["failures"]["ahead"] != 1 {
        assert!(since.elapsed() < PATIENCE, "{:#}\n{}", ledger(&emberd).await, emberd.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(emberd.said().contains("spans cannot be read from the log"), "{}", emberd.said());
    emberd.sums_are_right(&pair.here).await;
    // Twenty-two spans for an endpoint that is not there: the head is now past where the cursor was.
    pair.send(&emberd, 11).await;
    emberd.kill();

    let (emberd, sink) = (pair.here.start(), pair.there.start());
    pair.all_arrive(&emberd, sink).await;
    assert_eq!(ledger(&emberd).await["failures"]["ahead"], serde_json::Value::Null);
    stop(emberd).await;
}
