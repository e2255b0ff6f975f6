//! `emberd backup` under load and `emberd restore` elsewhere: everything acknowledged before the backup began is there, each span once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use emberd_log::{RealDisk, inspect};
use emberd_model::Offset;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tokio::task::JoinSet;

use super::client::Client;
use super::library::{Kind, Library};
use super::process::Home;
use super::sink::{self, Sink};

const SENDERS: u64 = 3;
const SPANS: u64 = 3;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// How many spans of each trace the log in a data directory holds.
fn in_log(home: &Home) -> BTreeMap<Vec<u8>, u64> {
    let mut traces = BTreeMap::new();
    let each = |_: &inspect::Found, batch: emberd_model::Batch| {
        for span in sink::spans_of(ExportTraceServiceRequest::decode(batch.body).unwrap()) {
            *traces.entry(span.trace_id).or_default() += 1;
        }
    };
    let read = inspect::batches(&RealDisk, &home.path().join("log"), Offset(0), each, |_| true).unwrap();
    assert_eq!(read.damaged, []);
    traces
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn backup(library: &Library, to: &Path) -> Output {
    library.home.command(&["backup", to.to_str().unwrap()]).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_restored_whole() {
    let mut library = Library::new(Kind::Sqlite).await;
    let sink = Sink::new();
    sink.is_forwarded_to_by(&mut library.home);
    // Segments are begun while it is copied.
    library.home.set("EMBERD_LOG_SEGMENT", "1MiB").set("EMBERD_LOG_BUDGET", "256MiB");
    let emberd = library.home.start();
    let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut senders = JoinSet::new();
    let done: Vec<Arc<AtomicU64>> = (0..SENDERS).map(|_| Arc::default()).collect();
    for sender in 0..SENDERS {
        let mut client = Client::connect(&emberd).await;
        let (stop, acked, done) = (stop.clone(), acked.clone(), done[sender as usize].clone());
        senders.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let trace = done.load(Ordering::SeqCst) * SENDERS + sender;
                let spans = (0..SPANS).map(|number| sink::span(trace, number)).collect();
                client.send_grpc(sink::request(None, spans)).await.unwrap();
                done.fetch_add(1, Ordering::SeqCst);
                acked.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let shelf = tempfile::tempdir().unwrap();
    let mut taken = Vec::new();
    for n in 0..3 {
        let enough = (n + 1) * 200;
        while acked.load(Ordering::SeqCst) < enough {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let before: Vec<u64> = done.iter().map(|done| done.load(Ordering::SeqCst)).collect();
        let to = shelf.path().join(n.to_string());
        let output = tokio::task::block_in_place(|| backup(&library, &to));
        assert!(output.status.success(), "{}", said(&output));
        taken.push((to, before));
    }
    stop.store(true, Ordering::SeqCst);
    while senders.join_next().await.is_some() {}
    emberd.kill();

    for (from, before) in &taken {
        let mut elsewhere = Library::new(Kind::Sqlite).await;
        sink.is_forwarded_to_by(&mut elsewhere.home);
        elsewhere.home.set("EMBERD_LOG_SEGMENT", "1MiB").set("EMBERD_LOG_BUDGET", "256MiB");
        let restored = elsewhere.home.command(&["restore", from.to_str().unwrap()]).output().unwrap();
        assert!(restored.status.success(), "{}", said(&restored));
        let kept = in_log(&elsewhere.home);
        for (sender, count) in before.iter().enumerate() {
            for nth in 0..*count {
                let trace = nth * SENDERS + sender as u64;
                assert_eq!(kept.get(&sink::trace_id(trace)[..]), Some(&SPANS), "trace {trace} was acknowledged before");
            }
        }
        elsewhere.home.ledger_is_right();
        let emberd = elsewhere.home.start();
        emberd.recorded().await;
        let rows = elsewhere.traces().await;
        let ids: BTreeSet<String> =
            rows.iter().map(|row| row["phoenix_trace_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(rows.len(), ids.len());
        assert_eq!(ids, kept.keys().map(|id| hex(id)).collect::<BTreeSet<_>>(), "rows are what the log holds");
        assert!(rows.iter().all(|row| row["metadata"]["spans"] == SPANS), "nothing is counted twice");
        emberd.sums_are_right(&elsewhere.home).await;
        // It goes on as if it had been here all the time.
        let mut client = Client::connect(&emberd).await;
        client.send_grpc(sink::request(None, vec![sink::span(1 << 40, 0)])).await.unwrap();
        emberd.recorded().await;
        assert_eq!(elsewhere.traces().await.len(), rows.len() + 1);
        emberd.sums_are_right(&elsewhere.home).await;
        assert!(emberd.terminate().success());
        // What is there is not written over.
        let again = elsewhere.home.command(&["restore", from.to_str().unwrap()]).output().unwrap();
        assert!(!again.status.success() && said(&again).contains("is not empty"), "{}", said(&again));
    }

    // A backup with a changed byte, a file less, or without its last file is none, and nothing comes of it.
    let (from, _) = &taken[0];
    let segment = std::fs::read_dir(from.join("log")).unwrap().flatten().map(|file| file.path());
    let segment = segment.filter(|path| path.extension().is_some_and(|ext| ext == "seg")).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    std::fs::remove_file(from.join("log/name")).unwrap();
    let home = Home::new();
    let damaged = home.command(&["restore", from.to_str().unwrap()]).output().unwrap();
    let text = said(&damaged);
    assert!(!damaged.status.success() && text.contains("is not what it was") && text.contains("log/name"), "{text}");
    std::fs::remove_file(from.join("backup.json")).unwrap();
    let unfinished = home.command(&["restore", from.to_str().unwrap()]).output().unwrap();
    assert!(!unfinished.status.success() && said(&unfinished).contains("not a backup"), "{}", said(&unfinished));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was written");
    // And a backup goes nowhere where something is.
    let taken = backup(&library, shelf.path());
    assert!(!taken.status.success() && said(&taken).contains("is not empty"), "{}", said(&taken));
}

/// On PostgreSQL the database is dumped first, by its own tools; here its place is taken by the database itself, at a moment before.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_postgres_has_all_but_the_database() {
    let library = Library::new(Kind::Postgres).await;
    let emberd = library.home.start();
    let mut client = Client::connect(&emberd).await;
    for trace in 0..20 {
        client.send_grpc(sink::request(None, vec![sink::span(trace, 0)])).await.unwrap();
    }
    let shelf = tempfile::tempdir().unwrap();
    let to = shelf.path().join("backup");
    let output = tokio::task::block_in_place(|| backup(&library, &to));
    assert!(output.status.success() && said(&output).contains("dump"), "{}", said(&output));
    emberd.recorded().await;
    emberd.kill();
    let elsewhere = library.another_home();
    let restored = elsewhere.command(&["restore", to.to_str().unwrap()]).output().unwrap();
    assert!(restored.status.success() && said(&restored).contains("dump"), "{}", said(&restored));
    let emberd = elsewhere.start();
    emberd.recorded().await;
    assert_eq!(library.traces().await.len(), 20);
    emberd.sums_are_right(&elsewhere).await;
    // A backup of the one is none of the other.
    let sqlite = Home::new();
    let refused = sqlite.command(&["restore", to.to_str().unwrap()]).output().unwrap();
    assert!(!refused.status.success() && said(&refused).contains("PostgreSQL"), "{}", said(&refused));
}
