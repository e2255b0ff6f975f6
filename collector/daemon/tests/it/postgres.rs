//! PostgreSQL goes down hard under load, again and again: intake does not move, and rows and rollups are exact afterwards.
//!
//! The server is the test's own (`.ci/services`), so that no other test stumbles over its restarts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::books::{Books, Tally, load};
use super::client::Client;
use super::library::Library;
use super::made::PROMPTS;
use super::process::Emberd;

/// A PostgreSQL of one's own.
struct Server {
    dir: tempfile::TempDir,
    url: String,
}

fn services() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/services")
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("emberd-it-pg-").tempdir().unwrap();
        let started = Command::new(services()).arg("postgres").arg(dir.path().join("pg")).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let url = String::from_utf8(started.stdout).unwrap().trim().to_owned();
        Self { dir, url }
    }

    /// `pg_ctl restart -m immediate`: every session is cut off where it stands, and the server recovers from its WAL.
    fn restart(&self) {
        let done = Command::new(services()).arg("restart").arg(self.dir.path().join("pg")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = Command::new(services());
        let _ = stop.arg("stop").arg(self.dir.path().join("pg")).stdout(Stdio::null()).status();
    }
}

const CONNECTIONS: u64 = 4;
/// Between two requests of a connection.
const PACE: Duration = Duration::from_millis(1);

/// Senders that go on until they are stopped or their emberd ends.
struct Load {
    stop: tokio::sync::watch::Sender<bool>,
    senders: tokio::task::JoinSet<Books>,
}

impl Load {
    async fn on(emberd: &Emberd, first: u64) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut senders = tokio::task::JoinSet::new();
        for connection in 0..CONNECTIONS {
            let client = Client::connect(emberd).await;
            let numbers = (first + connection..).step_by(CONNECTIONS as usize);
            senders.spawn(load(client, numbers, PACE, stopped.clone()));
        }
        Self { stop, senders }
    }

    async fn end(mut self, books: &mut Books) {
        let _ = self.stop.send(true);
        while let Some(done) = self.senders.join_next().await {
            books.take(done.unwrap());
        }
    }
}

/// A moment that depends on the round.
fn moment(n: u64, longest_ms: u64) -> Duration {
    Duration::from_millis(20 + n * 7919 % longest_ms)
}

/// Ten immediate restarts of PostgreSQL under load: every request is acknowledged meanwhile, and rows and rollups are exact.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarts_cost_nothing() {
    const RESTARTS: u64 = 10;
    let server = Server::start();
    let library = Library::on(&server.url).await;
    let emberd = library.home.start();
    let mut books = Books::default();
    for title in &PROMPTS[..2] {
        books.make_prompt(&emberd, title).await;
    }
    let load = Load::on(&emberd, 0).await;
    for n in 0..RESTARTS {
        tokio::time::sleep(moment(n, 900)).await;
        tokio::task::block_in_place(|| server.restart());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.end(&mut books).await;
    books.make_prompt(&emberd, PROMPTS[2]).await;
    emberd.recorded().await;
    let status = emberd.get("/api/status").await;
    let failures = &status["ledger"]["consumers"]["recorder"]["failures"];
    assert!(!failures.as_object().unwrap().is_empty(), "the recorder never noticed: {status:#}");
    assert_eq!(status["ledger"]["refused_spans"], 0, "{status:#}");

    let slowest = books.slowest;
    let tally = books.check(&library, emberd).await;
    println!("{RESTARTS} restarts of PostgreSQL, slowest answer {slowest:?}, {tally:?}, the recorder saw {failures}");
    assert_eq!((tally.in_doubt, tally.lost, tally.doubled), (0, 0, 0), "{tally:?}");
    figure("F2-postgres", RESTARTS, 0, &tally, slowest);
}

fn figure(id: &str, restarts: u64, kills: u64, tally: &Tally, slowest: Duration) {
    super::figure(
        id,
        &[
            ("postgres_restarts", restarts.into()),
            ("kills", kills.into()),
            ("acked_requests", tally.acked_requests.into()),
            ("acked_spans", tally.acked_spans.into()),
            ("requests_in_doubt", tally.in_doubt.into()),
            ("lost", tally.lost.into()),
            ("doubled", tally.doubled.into()),
            ("slowest_answer_ms", (slowest.as_millis() as u64).into()),
        ],
    );
}

/// PostgreSQL and emberd both end hard, at moments of their own: emberd may be killed while the database is away, and may start
/// while it is.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarts_and_kill_9_together_cost_nothing() {
    const ROUNDS: u64 = 6;
    let server = std::sync::Arc::new(Server::start());
    let library = Library::on(&server.url).await;
    let mut books = Books::default();
    let mut restarting: Option<tokio::task::JoinHandle<()>> = None;
    for n in 0..ROUNDS {
        let emberd = library.home.start();
        if n == 0 {
            for title in &PROMPTS[..2] {
                books.make_prompt(&emberd, title).await;
            }
        }
        books.send_doubtful(&emberd).await;
        let load = Load::on(&emberd, n * 1_000_000).await;
        if let Some(restarting) = restarting.take() {
            restarting.await.unwrap();
        }
        let server = server.clone();
        restarting = Some(tokio::task::spawn_blocking(move || {
            std::thread::sleep(moment(n, 700));
            server.restart();
        }));
        tokio::time::sleep(moment(n + 3, 1_500)).await;
        emberd.kill();
        load.end(&mut books).await;
    }
    restarting.unwrap().await.unwrap();
    let since = Instant::now();
    let emberd = library.home.start();
    books.make_prompt(&emberd, PROMPTS[2]).await;
    let slowest = books.slowest;
    let tally = books.check(&library, emberd).await;
    println!("{ROUNDS} restarts and {ROUNDS} kills: {tally:?}, drained and checked in {:?}", since.elapsed());
    assert_eq!((tally.lost, tally.doubled), (0, 0), "{tally:?}");
    figure("F2-postgres-and-kills", ROUNDS, ROUNDS, &tally, slowest);
}
