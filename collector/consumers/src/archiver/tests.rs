//! Each span once, over restarts, an archive that is away, a log that lost its end; orders meanwhile.

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use emberd_archive::keeping::place::Listed;
use emberd_archive::keeping::{Catalogue, Compaction, Directory, Place, PlaceError, Retention, read_file};
use emberd_archive::rows::{self, How};
use emberd_log::{Appender as _, DiskLog, Entry, Log as _, RealDisk};
use emberd_model::{Clock, Flags, Offset, UnixNanos};
use futures_util::future::BoxFuture;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::orders::{Order, Orders};
use super::{Archiver, Config, Parts};
use crate::Progress;
use crate::quarantine::Quarantine;

const DAY: u64 = 24 * 3_600 * 1_000_000_000;
/// 2026-11-21.
const NOW: u64 = 20_778 * DAY;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixNanos {
        UnixNanos(NOW)
    }
}

/// Two spans of a trace that is `number`, on one of three days, of one of five users.
fn request(number: u64) -> Bytes {
    let user = KeyValue {
        key: "user.id".into(),
        value: Some(AnyValue { value: Some(Value::StringValue(format!("user-{}", number % 5))) }),
        ..KeyValue::default()
    };
    let span = |place: u64| Span {
        trace_id: [[0; 8], (number + 1).to_be_bytes()].concat(),
        span_id: (number * 2 + place + 1).to_be_bytes().to_vec(),
        start_time_unix_nano: NOW + number % 3 * DAY,
        attributes: vec![user.clone()],
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span(0), span(1)], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

fn log(dir: &Path) -> Arc<DiskLog> {
    let config = emberd_log::Config { segment_bytes: 1 << 20, ..emberd_log::Config::in_dir(dir.join("log")) };
    DiskLog::open(config, Arc::new(RealDisk), Arc::new(Fixed)).unwrap().0
}

async fn fill(log: &DiskLog, numbers: Range<u64>) {
    for number in numbers {
        let entry = Entry {
            spans: NonZeroU32::new(2).unwrap(),
            received_at: UnixNanos(NOW),
            key: 0,
            flags: Flags::default(),
            body: request(number),
        };
        log.append(entry).await.unwrap();
    }
}

fn archiver(dir: &Path, log: &DiskLog, place: Arc<dyn Place>) -> (Archiver, Arc<Progress>) {
    let progress = Arc::new(Progress::new(super::NAME));
    let config = Config {
        log: "0a".repeat(16),
        how: How::default(),
        every: Duration::from_millis(20),
        gather_bytes: 1 << 20,
        hold_bytes: 1 << 30,
        compaction: Compaction::default(),
        retention: Retention::default(),
    };
    let parts = Parts {
        reader: log.reader(log.tail()),
        place,
        journal: (Arc::new(RealDisk), dir.join("cursors")),
        quarantine: Quarantine::open(&dir.join("quarantine")).unwrap(),
        orders: Orders::in_dir(&dir.join("orders")),
        clock: Arc::new(Fixed),
        progress: progress.clone(),
        passed: Box::new(|_| ()),
    };
    (Archiver::new(config, parts).unwrap(), progress)
}

/// The span ids of all files that count, in order.
async fn archived(place: &dyn Place) -> Vec<u64> {
    let mut ids = Vec::new();
    for kept in Catalogue::read(place).await.unwrap().files() {
        for chunk in rows::open(read_file(place, &kept.file).await.unwrap()).unwrap() {
            let chunk = chunk.unwrap();
            ids.extend((0..chunk.len()).map(|row| u64::from_be_bytes(chunk.id(row).unwrap().span_id.0)));
        }
    }
    ids.sort_unstable();
    ids
}

/// Ended in the middle of its work again and again, it archives each span once, and its book is balanced.
#[tokio::test(flavor = "multi_thread")]
async fn each_span_comes_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let place: Arc<dyn Place> = Arc::new(Directory::new(&dir.path().join("archive")));
    let mut last = None;
    for round in 0..12_u64 {
        fill(&log, round * 40..(round + 1) * 40).await;
        let (archiver, progress) = archiver(dir.path(), &log, place.clone());
        // Cut off wherever it is; in the end it is let finish.
        let ended = tokio::time::timeout(Duration::from_millis(round * 7), archiver.run(CancellationToken::new()));
        assert!(ended.await.is_err());
        last = Some(progress);
    }
    log.seal().await;
    let (archiver, progress) = archiver(dir.path(), &log, place.clone());
    archiver.run(CancellationToken::new()).await.unwrap();
    assert_eq!(archived(&*place).await, (1..=960).collect::<Vec<_>>());
    let book = progress.book();
    assert_eq!((book.cursor(), book.total("done"), book.is_balanced()), (Offset(960), 960, true));
    assert!(last.unwrap().cursor() <= book.cursor());
}

/// A place that can be taken away.
#[derive(Debug)]
struct Away(Directory, AtomicBool);

impl Away {
    fn there(&self, name: &str) -> Result<(), PlaceError> {
        if !self.1.load(Relaxed) {
            return Ok(());
        }
        let (name, advice) = (name.to_owned(), "wait");
        Err(PlaceError::Failed { action: "reach", name, advice, source: "it is away".into() })
    }
}

impl Place for Away {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>> {
        Box::pin(async move {
            self.there(name)?;
            self.0.put(name, bytes).await
        })
    }

    fn put_new<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), PlaceError>> {
        Box::pin(async move {
            self.there(name)?;
            self.0.put_new(name, bytes).await
        })
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> BoxFuture<'a, Result<Bytes, PlaceError>> {
        Box::pin(async move {
            self.there(name)?;
            self.0.get(name, bytes_max).await
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, PlaceError>> {
        self.0.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>, PlaceError>> {
        Box::pin(async move {
            self.there(prefix)?;
            self.0.list(prefix).await
        })
    }

    fn delete<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), PlaceError>> {
        self.0.delete(names)
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("gave up waiting: {what}");
}

/// While the archive cannot be reached, that is told and nothing is lost; when it is back, it goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_away_is_a_lag() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let place = Arc::new(Away(Directory::new(&dir.path().join("archive")), AtomicBool::new(true)));
    let (archiver, progress) = archiver(dir.path(), &log, place.clone());
    let mut running = tokio::task::JoinSet::new();
    running.spawn(archiver.run(CancellationToken::new()));
    fill(&log, 0..10).await;
    until("a failure to be told", || progress.failing().is_some_and(|why| why.contains("it is away"))).await;
    assert_eq!(progress.cursor(), Offset(0));
    place.1.store(false, Relaxed);
    until("the first spans", || progress.cursor() == Offset(20)).await;
    place.1.store(true, Relaxed);
    fill(&log, 10..20).await;
    until("another failure", || progress.failing().is_some()).await;
    place.1.store(false, Relaxed);
    until("the other spans", || progress.cursor() == Offset(40)).await;
    assert!(progress.failing().is_none());
    assert_eq!(archived(&*place).await, (1..=40).collect::<Vec<_>>());
}

/// A log that comes back shorter than what is archived: what was archived stays, and what comes next is archived too.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_goes_on() {
    let (whole, short) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place: Arc<dyn Place> = Arc::new(Directory::new(&whole.path().join("archive")));
    for (dir, numbers) in [(&whole, 0..50), (&short, 0..30)] {
        let log = log(dir.path());
        fill(&log, numbers).await;
        if dir.path() == short.path() {
            fill(&log, 100..110).await;
        }
        log.seal().await;
        let (archiver, progress) = archiver(dir.path(), &log, place.clone());
        archiver.run(CancellationToken::new()).await.unwrap();
        assert!(progress.book().is_balanced());
        if dir.path() == short.path() {
            // The end that was lost had 20 spans more; those that came instead lie before the cursor that the log now has.
            assert_eq!(progress.cursor(), log.head());
        }
    }
    let ids = archived(&*place).await;
    assert!((1..=100).all(|id| ids.contains(&id)), "what was archived stays: {ids:?}");
}

/// Users are erased and files compacted by whoever runs, and the answer says how much.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_carried_out_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let place: Arc<dyn Place> = Arc::new(Directory::new(&dir.path().join("archive")));
    let (archiver, progress) = archiver(dir.path(), &log, place.clone());
    let mut running = tokio::task::JoinSet::new();
    running.spawn(archiver.run(CancellationToken::new()));
    for round in 0..4 {
        fill(&log, round * 25..(round + 1) * 25).await;
        until("all to be archived", || progress.cursor() == Offset((round + 1) * 50)).await;
    }
    let orders = Orders::in_dir(&dir.path().join("orders"));
    let none = std::collections::BTreeSet::new;
    let erase = Order::Erase { users: ["user-3".to_owned()].into(), sessions: none(), traces: none() };
    orders.give("1", &erase).unwrap();
    orders.give("2", &Order::Compact).unwrap();
    std::fs::write(dir.path().join("orders/3.order"), b"{\"conquer\": []}").unwrap();
    let mut answers = Vec::new();
    for name in ["1", "2", "3"] {
        let mut answer = None;
        until("an answer", || {
            answer = orders.answer(name).unwrap();
            answer.is_some()
        })
        .await;
        answers.extend(answer);
    }
    assert_eq!(answers[0]["spans"], 40, "{answers:?}");
    assert!(answers[1]["files_before"].as_u64() > answers[1]["files_after"].as_u64(), "{answers:?}");
    assert!(answers[2]["error"].as_str().unwrap().contains("not an order"), "{answers:?}");
    let expected: Vec<u64> = (0..100).filter(|number| number % 5 != 3).flat_map(|n| [n * 2 + 1, n * 2 + 2]).collect();
    assert_eq!(archived(&*place).await, expected);
}
