//! End-to-end truth: Phoenix is killed and stopped under load, and what emberd acknowledged is in Phoenix all the same.
//!
//! Beside it in the same run a forwarder that trusts Phoenix's OK: a second emberd with `verify = false`, with spans of its own, to
//! the same Phoenix through the same kills. What Phoenix holds is read from its own database file once it has stopped, past
//! emberd and past Phoenix. `make test` kills once and stops once, `make phoenix-kills KILLS=10` as often as it is told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use emberd_phoenix::process::{Phoenix, Ports};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::client::Client;
use super::made::Made;
use super::phoenix;
use super::process::{Emberd, Home};

/// Longer than Phoenix takes for anything on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(180);

/// Sent at once before Phoenix ends, and acknowledged by it long before it has stored them. The one that trusts sends more: told to stop,
/// Phoenix still stores the thousand that it has in hand.
const BURST_SPANS: u64 = 300;
const TRUSTING_BURST_SPANS: u64 = 1_500;
/// Sent while it is away.
const MEANWHILE_SPANS: u64 = 20;

fn rounds() -> u64 {
    std::env::var("EMBERD_TEST_PHOENIX_KILLS").map_or(1, |text| text.parse().unwrap())
}

/// How Phoenix ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Stop,
}

/// An emberd that forwards, and what it acknowledged: pairs of trace and span id.
struct Forwarding {
    home: Home,
    emberd: Emberd,
    client: Client,
    next: u64,
    acked: BTreeSet<(String, String)>,
}

impl Forwarding {
    async fn to(phoenix: &Phoenix, verify: bool, first: u64) -> Self {
        let mut home = Home::new();
        home.set("EMBERD_PHOENIX_OTLP", &phoenix.otlp()).set("EMBERD_PHOENIX_URL", &phoenix.url());
        home.set("EMBERD_PHOENIX_VERIFY", if verify { "true" } else { "false" });
        let emberd = home.start();
        let client = Client::connect(&emberd).await;
        Self { home, emberd, client, next: first, acked: BTreeSet::new() }
    }

    async fn send(&mut self, spans: u64) {
        for _ in 0..spans / 2 {
            let made = Made::new(self.next);
            self.client.send_grpc(made.requests[0].clone()).await.unwrap();
            let ids = made.spans.iter().map(|span| emberd_model::SpanId(span.id).to_string());
            self.acked.extend(ids.map(|id| (made.trace_hex(), id)));
            self.next += 3;
        }
    }

    async fn ledger(&self) -> Value {
        self.emberd.get("/api/status").await["ledger"]["consumers"]["phoenix"].clone()
    }

    /// Waits until nothing is pending, as long as that goes on.
    async fn forwarded(&self) -> Value {
        let (mut since, mut last) = (Instant::now(), Value::Null);
        loop {
            let ledger = self.ledger().await;
            if ledger["pending"] == 0 {
                return ledger;
            }
            if ledger["pending"] != last {
                (since, last) = (Instant::now(), ledger["pending"].clone());
            }
            assert!(since.elapsed() < PATIENCE, "not forwarded: {ledger:#}\n{}", self.emberd.said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The pairs of trace and span id in Phoenix's database, one for each row.
async fn stored(dir: &Path) -> Vec<(String, String)> {
    let options = SqliteConnectOptions::new().filename(dir.join("phoenix.db")).read_only(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let query = "SELECT traces.trace_id, spans.span_id FROM spans JOIN traces ON traces.id = spans.trace_rowid";
    sqlx::query_as(query).fetch_all(&mut db).await.unwrap()
}

/// Waits until Phoenix stores no more: the one that trusts it is given all the time there is.
async fn quiet(dir: &Path) {
    let (mut since, mut last) = (Instant::now(), 0);
    while since.elapsed() < Duration::from_secs(8) {
        let now = stored(dir).await.len();
        if now != last {
            (since, last) = (Instant::now(), now);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

struct Story {
    dir: PathBuf,
    ports: Ports,
    phoenix: Option<Phoenix>,
    verifying: Forwarding,
    trusting: Forwarding,
}

impl Story {
    /// Phoenix ends with its queue full, spans come meanwhile, and it starts again on its database.
    async fn round(&mut self, end: End) {
        tokio::join!(self.verifying.send(BURST_SPANS), self.trusting.send(TRUSTING_BURST_SPANS));
        // Once it has handed everything over, Phoenix has acknowledged more than it has stored.
        let handed_over = self.trusting.forwarded().await;
        let out = self.verifying.ledger().await;
        let phoenix = self.phoenix.take().unwrap();
        match end {
            End::Kill => phoenix.kill().await.unwrap(),
            End::Stop => phoenix.terminate(PATIENCE).await.unwrap(),
        }
        println!(
            "{end:?}: {} sent and {} verified by the one that reads back, {} sent by the one that trusts",
            out["sent"], out["verified"], handed_over["sent"]
        );
        tokio::join!(self.verifying.send(MEANWHILE_SPANS), self.trusting.send(MEANWHILE_SPANS));
        self.phoenix = Some(phoenix::started(&self.dir, self.ports).await);
    }
}

/// However often Phoenix is killed or stopped with its queue full: every span that emberd acknowledged is in Phoenix once, all of
/// them verified and none put aside; the forwarder that trusts Phoenix's word has lost some.
#[tokio::test(flavor = "multi_thread")]
async fn phoenix_2808_what_phoenix_forgets_is_sent_again() {
    let scratch = tempfile::Builder::new().prefix("emberd-it-phoenix-").tempdir().unwrap();
    let dir = scratch.path().to_owned();
    // For the tests' own HTTP client, before the first home.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let since = Instant::now();
    let phoenix = phoenix::started(&dir, Ports::free().unwrap()).await;
    let verifying = Forwarding::to(&phoenix, true, 0).await;
    let trusting = Forwarding::to(&phoenix, false, 3_000_000).await;
    let mut story = Story { dir, ports: phoenix.ports, phoenix: Some(phoenix), verifying, trusting };
    for _ in 0..rounds() {
        story.round(End::Kill).await;
        story.round(End::Stop).await;
    }
    let Story { dir, phoenix, verifying, trusting, .. } = story;
    let ledger = verifying.forwarded().await;
    trusting.forwarded().await;
    quiet(&dir).await;
    verifying.emberd.sums_are_right(&verifying.home).await;
    phoenix.unwrap().terminate(PATIENCE).await.unwrap();
    let rows = stored(&dir).await;
    let held: BTreeSet<(String, String)> = rows.iter().cloned().collect();

    let lost = verifying.acked.difference(&held).count();
    let trusting_lost = trusting.acked.difference(&held).count();
    super::figure(
        "F11",
        &[
            ("kills", rounds().into()),
            ("stops", rounds().into()),
            ("acked", verifying.acked.len().into()),
            ("in_phoenix", verifying.acked.intersection(&held).count().into()),
            ("lost", lost.into()),
            ("resent", ledger["resent"].clone()),
            ("trusting_acked", trusting.acked.len().into()),
            ("trusting_lost", trusting_lost.into()),
            ("seconds", since.elapsed().as_secs().into()),
        ],
    );
    assert_eq!(lost, 0, "of {} spans that emberd acknowledged; {ledger:#}", verifying.acked.len());
    assert_eq!(held.len(), rows.len(), "Phoenix holds a span twice");
    let sent: BTreeSet<_> = verifying.acked.union(&trusting.acked).cloned().collect();
    assert_eq!(held.difference(&sent).next(), None, "Phoenix holds spans that nobody sent");
    assert_eq!(ledger["verified"], verifying.acked.len(), "{ledger:#}");
    assert_eq!((&ledger["quarantined"], &ledger["lost"]), (&json!(0), &json!(0)), "{ledger:#}");
    assert!(trusting_lost > 0, "Phoenix ended with nothing in its queue: this story has shown nothing");
}
