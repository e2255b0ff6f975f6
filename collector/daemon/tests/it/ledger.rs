//! The ledger against an outside count: what was sent, project by project, whatever became of it; and the check, which must be able to
//! fail.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use emberd_consumers::book::{self, BookFile, Step};
use emberd_log::{CursorFile, RealDisk};
use emberd_model::ledger::{Account, Fate, Hour, Tally};
use emberd_model::{Offset, UnixNanos};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::client::Client;
use super::library::{Kind, Library};
use super::made::text;
use super::process::{Emberd, Home, PATIENCE};
use super::sink::{self, Sink};

/// Waits for something of the test's own or emberd's doing.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `emberd COMMAND --json`, which must end well.
pub fn told(home: &Home, arguments: &[&str]) -> Value {
    let output = home.command(arguments).arg("--json").output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}\n{}", said(&output.stdout), said(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A forwarder has nothing more to send.
pub async fn forwarded(emberd: &Emberd, consumer: &str) {
    until("all is forwarded", async || {
        emberd.get("/api/status").await["ledger"]["consumers"][consumer]["pending"] == 0
    })
    .await;
}

/// The spans of a book's lines by what `key` says of them, and by their fate.
pub fn lines(book: &Value, key: &str) -> BTreeMap<(String, String), i64> {
    let mut sums = BTreeMap::new();
    for line in book["lines"].as_array().unwrap() {
        let word = |key: &str| line[key].as_str().unwrap().to_owned();
        *sums.entry((word(key), word("fate"))).or_default() += line["spans"].as_i64().unwrap();
    }
    sums
}

/// What was sent, as its sender counts it.
#[derive(Default)]
struct Outside {
    /// By project: spans accepted for the first time, and once more.
    accepted: BTreeMap<&'static str, [i64; 2]>,
    rejected: u64,
    refused: u64,
}

impl Outside {
    fn total(&self) -> u64 {
        self.accepted.values().flatten().sum::<i64>() as u64
    }

    /// Sends traces of one to three spans in three projects, the default one among them; every fourth request twice, and a request of
    /// two projects now and then. Every fifth has a span without a trace id with it.
    async fn send(&mut self, emberd: &Emberd, traces: std::ops::Range<u64>) {
        const PROJECTS: [&str; 3] = ["shop", "default", "d\u{e9}sk \"2\""];
        let mut client = Client::connect(emberd).await;
        for trace in traces {
            let project = PROJECTS[trace as usize % 3];
            let named = (project != "default").then_some(project);
            let mut spans: Vec<_> = (0..=trace % 3).map(|number| sink::span(trace, number)).collect();
            let count = spans.len() as i64;
            let mut resources = Vec::new();
            if trace.is_multiple_of(7) {
                resources.push((Some("shop"), vec![sink::span(trace, 9)]));
            }
            let bad = u64::from(trace.is_multiple_of(5));
            if bad > 0 {
                spans.push(opentelemetry_proto::tonic::trace::v1::Span {
                    trace_id: vec![0; 16],
                    ..sink::span(trace, 7)
                });
            }
            resources.push((named, spans));
            let body = sink::requests(resources);
            for time in 0..if trace.is_multiple_of(4) { 2 } else { 1 } {
                let answer = client.send_grpc(body.clone()).await;
                assert_eq!(answer.is_err(), bad > 0, "{answer:?}");
                assert!(answer.is_ok() || answer.unwrap_err().starts_with("partial success"));
                self.rejected += bad;
                self.accepted.entry(project).or_default()[time] += count;
                self.accepted.entry("shop").or_default()[time] += i64::from(trace.is_multiple_of(7));
            }
        }
    }

    /// Sends heavy spans, two in a request, until several in a row are refused.
    async fn until_refused(&mut self, emberd: &Emberd, from: u64) {
        let mut client = Client::connect(emberd).await;
        let heavy = |trace, number| {
            let mut span = sink::span(trace, number);
            span.attributes.push(text("input.value", &"x".repeat(500 << 10)));
            span
        };
        let mut in_a_row = 0;
        for trace in from..from + 200 {
            match client.send_grpc(sink::request(Some("heavy"), vec![heavy(trace, 0), heavy(trace, 1)])).await {
                Ok(()) => {
                    self.accepted.entry("heavy").or_default()[0] += 2;
                    in_a_row = 0;
                }
                Err(_) => {
                    self.refused += 2;
                    in_a_row += 1;
                }
            }
            if in_a_row == 3 {
                return;
            }
        }
        panic!("nothing was refused");
    }

    /// `emberd ledger --json --all` says the same; returns it.
    fn compare(&self, home: &Home) -> Value {
        let ledger = told(home, &["ledger", "--all", "--check"]);
        assert_eq!(ledger["faults"], json!([]), "{ledger:#}");
        assert_eq!(ledger["accepted_spans"], self.total(), "{ledger:#}");
        assert_eq!(ledger["rejected_spans"], self.rejected, "{ledger:#}");
        assert_eq!(ledger["refused_spans"], self.refused, "{ledger:#}");
        assert_eq!(ledger["received_spans"], self.total() + self.rejected + self.refused, "{ledger:#}");
        for (what, spans) in [("rejected", self.rejected), ("refused", self.refused)] {
            let lines = ledger["turned_away"].as_array().unwrap().iter().filter(|line| line["what"] == what);
            assert_eq!(lines.map(|line| line["spans"].as_u64().unwrap()).sum::<u64>(), spans, "{ledger:#}");
        }
        ledger
    }

    /// A consumer that has passed everything: by project and fate.
    fn expected(&self, tells_repeated: bool) -> BTreeMap<(String, String), i64> {
        let mut sums = BTreeMap::new();
        for (project, [first, again]) in &self.accepted {
            let again_is = if tells_repeated { "duplicate" } else { "done" };
            for (fate, spans) in [("done", first), (again_is, again)].into_iter().filter(|(_, spans)| **spans > 0) {
                *sums.entry(((*project).to_owned(), fate.to_owned())).or_default() += spans;
            }
        }
        sums
    }
}

async fn stop(emberd: Emberd) {
    assert!(tokio::task::spawn_blocking(|| emberd.terminate()).await.unwrap().success());
}

/// Spans of several projects are accepted, repeated, rejected and refused, over a kill in the middle and an endpoint that is away: the
/// ledger equals the outside count at every point, to the span, beside the daemon, through its API, and when it is stopped.
async fn equals_the_outside_count(kind: Kind) {
    let (mut library, sink, mut outside) = (Library::new(kind).await, Sink::new(), Outside::default());
    sink.goes_away(true);
    sink.is_forwarded_to_by(&mut library.home);
    library.home.set("EMBERD_LOG_BUDGET", "64MiB").set("EMBERD_LOG_SEGMENT", "8MiB");
    let home = &library.home;
    let emberd = home.start();
    outside.send(&emberd, 0..60).await;
    outside.compare(home);
    emberd.kill();
    outside.compare(home);

    let emberd = home.start();
    outside.send(&emberd, 60..120).await;
    outside.until_refused(&emberd, 1_000).await;
    // What was refused is counted when its answer goes out.
    emberd.kill();
    outside.compare(home);
    let emberd = home.start();
    emberd.recorded().await;
    let ledger = outside.compare(home);
    let consumer = |ledger: &Value, name: &str| ledger["consumers"][name].clone();
    assert_eq!(consumer(&ledger, "sink")["pending"], outside.total(), "{ledger:#}");
    assert_eq!(consumer(&ledger, "sink")["done"], 0);
    assert_eq!(lines(&consumer(&ledger, "recorder"), "project"), outside.expected(true), "{ledger:#}");
    let answer = emberd.get("/api/ledger").await;
    assert_eq!(lines(&answer["books"]["recorder"], "project"), outside.expected(true), "{answer:#}");
    for part in ["received_spans", "accepted_spans", "rejected_spans", "refused_spans", "turned_away"] {
        assert_eq!(answer[part], ledger[part], "{part}");
    }

    sink.goes_away(false);
    forwarded(&emberd, "sink").await;
    emberd.sums_are_right(home).await;
    stop(emberd).await;
    let ledger = outside.compare(home);
    assert_eq!(lines(&consumer(&ledger, "sink"), "project"), outside.expected(false), "{ledger:#}");
    assert_eq!(lines(&consumer(&ledger, "recorder"), "project"), outside.expected(true), "{ledger:#}");
    assert_eq!(consumer(&ledger, "sink")["pending"], 0);
    // What was refused never got further than the door.
    assert!(sink.taken().values().sum::<u64>() >= outside.total());
    assert_eq!(sink.taken().keys().filter(|name| name.ends_with("/7")).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_equals_the_outside_count_on_sqlite() {
    equals_the_outside_count(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_equals_the_outside_count_on_postgresql() {
    equals_the_outside_count(Kind::Postgres).await;
}

/// A stopped emberd whose recorder is done, and whose forwarder has `passed` of its 60 traces and no more.
async fn stopped(sink: &Sink) -> Home {
    let mut home = Home::new();
    sink.is_forwarded_to_by(&mut home);
    let (emberd, mut outside) = (home.start(), Outside::default());
    outside.send(&emberd, 0..30).await;
    forwarded(&emberd, "sink").await;
    sink.goes_away(true);
    outside.send(&emberd, 30..60).await;
    emberd.recorded().await;
    stop(emberd).await;
    outside.compare(&home);
    home
}

/// `emberd ledger --check` fails, and a line says so much.
fn is_off(home: &Home, says: &[&str]) {
    let output = home.command(&["ledger", "--check"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find(|line| line.starts_with("OFF: ") && says.iter().all(|part| line.contains(part)));
    assert!(line.is_some(), "{says:?} is not in\n{said}");
    assert!(!said.contains("every sum is right"), "{said}");
    let output = home.command(&["ledger", "--check", "--json"]).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && !told["faults"].as_array().unwrap().is_empty(), "{told:#}");
    // Without the check it is a page to read.
    assert!(home.command(&["ledger"]).output().unwrap().status.success());
}

async fn sql(home: &Home, statement: &str) {
    let options = SqliteConnectOptions::new().filename(home.path().join("emberd.db"));
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut db).await.unwrap();
    assert_eq!(done.rows_affected(), 1, "{statement}");
    db.close().await.unwrap();
}

/// One span more or less in a row of the recorder's book, and one span under another project's name while the sum stays right.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_fails_on_a_row_that_is_off() {
    let sink = Sink::new();
    let home = stopped(&sink).await;
    let of = |project: &str| format!("WHERE consumer = 'recorder' AND project = '{project}' AND fate = 'done'");
    for (change, back) in [("+ 1", "- 1"), ("- 1", "+ 1")] {
        sql(&home, &format!("UPDATE emberd_ledger SET spans = spans {change} {}", of("shop"))).await;
        is_off(&home, &["recorder: ", "spans passed", "booked"]);
        sql(&home, &format!("UPDATE emberd_ledger SET spans = spans {back} {}", of("shop"))).await;
    }
    home.ledger_is_right();
    sql(&home, &format!("UPDATE emberd_ledger SET spans = spans + 1 {}", of("shop"))).await;
    sql(&home, &format!("UPDATE emberd_ledger SET spans = spans - 1 {}", of("default"))).await;
    is_off(&home, &["project \"shop\"", "sink knows of", "recorder of"]);
    is_off(&home, &["project \"default\""]);
}

/// A forwarder's journal whose sum is off, or that has a span under another project, or that lost a line to a negative one.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_fails_on_a_journal_that_is_off() {
    for (tally, says) in [
        (vec![("shop", 1)], &["sink: ", "spans passed", "booked"][..]),
        (vec![("shop", 1), ("default", -1)], &["project \"shop\"", "sink knows of"]),
        (vec![("nobody", -1), ("shop", 1)], &["sink: ", "booked"]),
    ] {
        let sink = Sink::new();
        let home = stopped(&sink).await;
        let dir = home.path().join("cursors");
        let mut file = BookFile::open(Arc::new(RealDisk), &dir, "sink", Offset(0)).unwrap();
        let cursor = file.stored().book.cursor();
        let hour = file.stored().book.lines().next().unwrap().0.hour;
        let mut wrong = Tally::default();
        tally.iter().for_each(|(project, spans)| wrong.add(&Account::new(hour, project), Fate::Done, *spans));
        let step = Step { cursor, sent: cursor, at: UnixNanos(1), tally: wrong, ..Step::default() };
        file.step(&step, Vec::new).unwrap();
        drop(file);
        is_off(&home, says);
    }
}

/// The log's segments.
pub fn segments(home: &Home) -> Vec<PathBuf> {
    let files = std::fs::read_dir(home.path().join("log")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Flips a bit of the log where these bytes are.
pub fn flip(home: &Home, needle: &[u8]) {
    for path in segments(home) {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("not in the log: {needle:?}");
}

/// A flipped bit in a record that a consumer has not passed is told as what it is, and so is one that everyone has passed: of no
/// consequence to the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_fails_on_a_record_that_cannot_be_read() {
    let sink = Sink::new();
    let home = stopped(&sink).await;
    flip(&home, b"3/0");
    home.ledger_is_right();
    flip(&home, b"47/0");
    is_off(&home, &["the log: spans", "cannot be read"]);
    // It is booked as lost by the consumer that comes to it, and the sums are right again.
    sink.goes_away(false);
    let emberd = home.start();
    forwarded(&emberd, "sink").await;
    emberd.sums_are_right(&home).await;
    let ledger = told(&home, &["ledger"]);
    assert_eq!(ledger["consumers"]["sink"]["lost"], 47 % 3 + 1, "{ledger:#}");
    assert_eq!(ledger["consumers"]["sink"]["reasons"]["lost"], json!({ "damaged": 47 % 3 + 1 }), "{ledger:#}");
    stop(emberd).await;
}

/// A data directory from before there was a ledger: the books begin where the cursors stand, and every sum is right from there on.
async fn begins_where_the_cursors_stand(kind: Kind) {
    let (mut library, sink, mut outside) = (Library::new(kind).await, Sink::new(), Outside::default());
    sink.is_forwarded_to_by(&mut library.home);
    let home = &library.home;
    let emberd = home.start();
    outside.send(&emberd, 0..20).await;
    forwarded(&emberd, "sink").await;
    emberd.recorded().await;
    stop(emberd).await;
    let old = outside.total();

    let places = home.path().join("cursors");
    let stored = book::read(Arc::new(RealDisk), &places, "sink").unwrap().unwrap();
    assert_eq!(stored.book.cursor(), Offset(old));
    std::fs::remove_file(places.join("sink.journal")).unwrap();
    CursorFile::open(&places, "sink").unwrap().store(Offset(old)).unwrap();
    let _ = std::fs::remove_dir_all(home.path().join("ledger"));
    let down = home.command(&["migrate", "down", "--to", "5"]).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));

    let emberd = home.start();
    home.ledger_is_right();
    let mut since = Outside::default();
    since.send(&emberd, 100..130).await;
    forwarded(&emberd, "sink").await;
    emberd.recorded().await;
    emberd.sums_are_right(home).await;
    stop(emberd).await;
    let ledger = told(home, &["ledger", "--all", "--check"]);
    assert_eq!(ledger["accepted_spans"], old + since.total(), "{ledger:#}");
    for (name, tells_repeated) in [("sink", false), ("recorder", true)] {
        let consumer = &ledger["consumers"][name];
        assert_eq!(consumer["origin"], old, "{ledger:#}");
        assert_eq!(lines(consumer, "project"), since.expected(tells_repeated), "{ledger:#}");
    }
    assert_eq!(ledger["rejected_spans"], since.rejected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_directory_begins_its_books_where_the_cursors_stand() {
    for kind in Kind::ALL {
        begins_where_the_cursors_stand(kind).await;
    }
}

/// The hours of the books are those in which the spans came, whatever time the spans tell of.
#[tokio::test(flavor = "multi_thread")]
async fn hours_are_those_of_receiving() {
    let home = Home::new();
    let now =
        || UnixNanos(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64);
    let (first, emberd) = (Hour::of(now()), home.start());
    Outside::default().send(&emberd, 0..5).await;
    emberd.recorded().await;
    let hours: Vec<String> = (first.0..=Hour::of(now()).0)
        .map(|hour| time::OffsetDateTime::from_unix_timestamp(i64::from(hour) * 3_600).unwrap())
        .map(|hour| hour.format(&time::format_description::well_known::Rfc3339).unwrap())
        .collect();
    let ledger = told(&home, &["ledger", "--all"]);
    for line in ledger["consumers"]["recorder"]["lines"].as_array().unwrap() {
        assert!(hours.iter().any(|hour| line["hour"] == **hour), "{line} is not within {hours:?}");
    }
    assert!(!lines(&ledger["consumers"]["recorder"], "hour").is_empty());
}
