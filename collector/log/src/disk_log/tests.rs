//! The log with its threads, on the real disk.

use std::sync::Arc;
use std::time::Duration;

use emberd_model::clock::Still;
use emberd_model::{Batch, Offset, UnixNanos};
use futures_util::future::join_all;

use tokio::task::JoinSet;

use super::*;
use crate::config::Durability;
use crate::disk::RealDisk;
use crate::error::ReadError;
use crate::sim::{Call, Direct, Fault, SimDisk};
use crate::tests::{batch, entry, figure};

fn config(dir: &Path) -> Config {
    Config {
        budget_bytes: 64 << 20,
        segment_bytes: 1 << 20,
        keep: Duration::ZERO,
        tail_bytes: 256 << 10,
        ..Config::in_dir(dir)
    }
}

fn clock() -> Arc<Still> {
    Arc::new(Still::at(UnixNanos(1)))
}

fn open(config: Config) -> Arc<DiskLog> {
    DiskLog::open(config, Arc::new(RealDisk), clock()).unwrap().0
}

/// Reads from a place until the log is sealed and read, or has given up to an offset.
async fn read(log: &DiskLog, from: Offset, to: Offset, max_bytes: usize) -> Vec<Batch> {
    let mut reader = log.reader(from);
    let mut all = Vec::new();
    while reader.position() < to {
        let some = reader.next(max_bytes).await.unwrap();
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    all
}

/// Many appenders and many readers at once: everyone is answered, offsets are dense, every reader gets every batch once, in
/// order, whether it follows from memory or is far behind on disk; and it is all there after a restart.
async fn appenders_and_readers_agree(durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { durability, ..config(dir.path()) };
    let log = open(config.clone());
    let appenders = (0..8u64).map(|appender| {
        let log = Arc::clone(&log);
        async move {
            let mut mine = Vec::new();
            for nth in 0..100 {
                let entry = entry(appender * 1_000 + nth, (nth * nth % 20_000) as usize);
                let offset = log.append(entry.clone()).await.unwrap();
                mine.push(batch(&entry, offset));
            }
            mine
        }
    });
    let early = [(Offset(0), 1), (Offset(0), 50_000), (Offset(0), 4 << 20)].map(|(from, max_bytes)| {
        let log = Arc::clone(&log);
        async move { read(&log, from, Offset(u64::MAX), max_bytes).await }
    });
    let appended = async {
        let mut all: Vec<Batch> = appenders.collect::<JoinSet<_>>().join_all().await.into_iter().flatten().collect();
        log.seal().await;
        all.sort_by_key(|batch| batch.offset);
        all
    };
    let (all, read_along) = tokio::join!(appended, join_all(early));
    assert!(all.windows(2).all(|pair| pair[0].end() == pair[1].offset), "offsets are dense");
    assert_eq!(log.head(), all.last().unwrap().end());
    for reader in read_along {
        assert!(reader == all, "a reader that follows saw something else");
    }
    assert!(read(&log, Offset(0), log.head(), 300_000).await == all, "a late reader saw something else");
    assert!(matches!(log.append(entry(1, 1)).await, Err(AppendError::Stopping)));
    drop(log);

    let log = open(config);
    assert!(read(&log, Offset(0), log.head(), 1 << 20).await == all, "after the restart something else was there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appenders_and_readers_agree_when_synced() {
    appenders_and_readers_agree(Durability::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appenders_and_readers_agree_when_left_to_the_system() {
    appenders_and_readers_agree(Durability::Os).await;
}

/// A body larger than a segment is taken and given back; one larger than the bound is refused with the bound.
#[tokio::test]
async fn bodies_of_any_allowed_size_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { entry_bytes_max: 9 << 20, ..config(dir.path()) };
    let log = open(config.clone());
    let entries = [entry(1, 10), entry(2, 9 << 20), entry(3, 2 << 20), entry(4, 0), entry(5, (1 << 20) - 4096)];
    let answers = join_all(entries.iter().map(|entry| log.append(entry.clone()))).await;
    let kept: Vec<Batch> = entries.iter().zip(answers).map(|(entry, offset)| batch(entry, offset.unwrap())).collect();
    let refused = log.append(entry(6, (9 << 20) + 1)).await.unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { bytes: 9_437_185, max_bytes: 9_437_184 }), "{refused}");
    drop(log);
    let log = open(config);
    assert!(read(&log, Offset(0), log.head(), 1 << 20).await == kept);
}

/// A second log on the same directory is refused while the first lives, and let in after.
#[tokio::test]
async fn a_directory_has_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(config(dir.path()));
    let second = DiskLog::open(config(dir.path()), Arc::new(RealDisk), clock());
    assert!(matches!(second.map(|_| ()), Err(OpenError::Locked { .. })));
    drop(log);
    open(config(dir.path()));
}

/// A directory whose parent is missing is a mount that is missing: nothing is made in its place.
#[test]
fn a_missing_mount_is_not_papered_over() {
    let dir = tempfile::tempdir().unwrap();
    let opened = DiskLog::open(config(&dir.path().join("mount/log")), Arc::new(RealDisk), clock());
    assert!(matches!(opened.map(|_| ()), Err(OpenError::Disk { action: "make", .. })));
    assert!(!dir.path().join("mount").exists());
}

/// Dropping a log without sealing it keeps what was let in, and answers it.
#[tokio::test]
async fn a_dropped_log_answers_everyone() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(config(dir.path()));
    let appending: Vec<_> = (0..50).map(|n| log.append(entry(n, 100))).collect();
    let mut reader = log.reader(Offset(0));
    drop(log);
    for answer in join_all(appending).await {
        answer.unwrap();
    }
    assert_eq!(reader.next(1 << 20).await.unwrap().len(), 50);
    assert!(reader.next(1 << 20).await.unwrap().is_empty(), "a log that is gone has an end");
}

/// A log with a GiB of backlog, of a million batches that nobody has read, is ready as soon as an empty one: measured from the
/// call that opens it to the first ack.
#[tokio::test]
async fn a_gib_of_backlog_does_not_delay_the_start() {
    const BATCHES: u64 = 1 << 20;
    const RESTARTS: usize = 20;
    let began = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let config = || Config { tail_bytes: 0, ..Config::in_dir(dir.path()) };
    let log = open(config());
    log.register("slow", Offset(0));
    let one = entry(0, 1_024 - 40);
    for _ in 0..BATCHES / 4_096 {
        for answer in join_all((0..4_096).map(|_| log.append(one.clone()))).await {
            answer.unwrap();
        }
    }
    drop(log);
    let mut took = Vec::new();
    for restart in 0..RESTARTS as u64 {
        let started = Instant::now();
        let log = open(config());
        let offset = log.append(one.clone()).await.unwrap();
        took.push(started.elapsed());
        // Each of them has one span.
        assert_eq!((offset, log.tail()), (Offset(BATCHES + restart), Offset(0)));
        assert!(log.used().bytes > 1 << 30);
    }
    took.sort();
    let said = format!(
        "\"backlog_bytes\":{},\"batches\":{BATCHES},\"restarts\":{RESTARTS},\"first_ack_seconds_median\":{:.4},\
         \"first_ack_seconds_max\":{:.4}",
        1 << 30,
        took[RESTARTS / 2].as_secs_f64(),
        took[RESTARTS - 1].as_secs_f64()
    );
    figure("F16", began, &said);
}

/// The first failed write or sync is told to everyone, is not tried again, and the log says that it failed.
#[tokio::test]
async fn a_failed_disk_ends_the_log() {
    for (call, nth) in [(Call::Write, 0), (Call::Sync, 0), (Call::Sync, 1)] {
        let disk = SimDisk::new();
        let (log, _) = DiskLog::open(config(Path::new("/log")), Arc::new(disk.clone()), clock()).unwrap();
        // The first append waits until a segment is prepared; what fails after that is the log itself.
        log.append(entry(0, 10)).await.unwrap();
        while disk.paths().iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).count() < 2 {
            tokio::task::yield_now().await;
        }
        disk.fail(call, nth, Fault::Io, false);
        let (mut failed, mut taken) = (None, 1);
        for n in 1..10 {
            match log.append(entry(n, 10)).await {
                Ok(_) => {
                    taken += 1;
                    assert!(failed.is_none(), "an append succeeded after the disk had failed");
                }
                Err(e) => {
                    assert!(log.has_failed(), "an append was told before the daemon could know");
                    failed = Some(e);
                }
            }
        }
        assert!(matches!(failed, Some(AppendError::Disk { .. })), "{call:?}: {failed:?}");
        assert!(matches!(log.failed().await, AppendError::Disk { .. }) && log.has_failed());
        let calls = disk.calls();
        log.seal().await;
        assert_eq!(disk.calls(), calls, "something was written or synced after the failure");
        let acked: Vec<Batch> = read(&log, Offset(0), Offset(u64::MAX), 1 << 20).await;
        assert!(acked.len() == taken && log.head() == acked[taken - 1].end(), "a reader saw what was not durable");
    }
}

/// Appends are refused when the budget is reached, with the numbers, and taken again once consumers have passed.
#[tokio::test]
async fn a_full_budget_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(Config { budget_bytes: 4 << 20, keep: Duration::from_secs(3600), ..config(dir.path()) });
    log.register("slow", Offset(0));
    log.register("fast", Offset(0));
    let mut n = 0;
    let refused = loop {
        n += 1;
        if let Err(refused) = log.append(entry(n, 100_000)).await {
            break refused;
        }
        log.passed("fast", log.head());
    };
    assert!(matches!(refused, AppendError::BudgetFull { used_bytes: 4_194_304, budget_bytes: 4_194_304 }), "{refused}");
    assert!(log.used().bytes <= log.used().budget_bytes && log.used().segments == 4);
    assert_eq!(log.tail(), Offset(0), "the slow consumer has passed nothing");
    log.passed("slow", log.head());
    log.append(entry(1, 100_000)).await.unwrap();
    assert!(log.tail() > Offset(0));
    let files = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert!(files <= 5 << 20, "{files} bytes are more than the budget and one segment");
}

/// Where the file system takes no direct writes, whether it says so at once or only later, the log writes through the cache.
#[tokio::test]
async fn direct_writes_are_not_needed() {
    for direct in [Direct::Taken, Direct::RefusedAtOpen, Direct::RefusedAtWrite] {
        let disk = SimDisk::new();
        disk.set_direct(direct);
        for round in 0..2 {
            let opened = DiskLog::open(config(Path::new("/log")), Arc::new(disk.clone()), clock());
            let (log, found) = opened.unwrap();
            assert_eq!(found.head, Offset(round * 3), "{direct:?}");
            // The entries of one and of two spans.
            log.append(entry(0, 100_000)).await.unwrap();
            log.append(entry(1, 100)).await.unwrap();
        }
    }
}

/// A cursor from another log, far ahead of this one, keeps what is still to come: nothing is let go unseen (NATS #5412 let a
/// consumer stall there).
#[tokio::test]
async fn a_cursor_ahead_of_the_log_lets_nothing_go() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(Config { budget_bytes: 4 << 20, ..config(dir.path()) });
    log.register("lost", Offset(1_000_000));
    let mut n = 0;
    while log.append(entry(n, 100_000)).await.is_ok() {
        n += 1;
    }
    assert_eq!((log.tail(), n > 30), (Offset(0), true), "what the consumer never saw is gone");
}

/// A reader that is told to go where nothing is, is told so.
#[tokio::test]
async fn readers_are_told_when_they_stand_outside() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(config(dir.path()));
    log.append(entry(4, 10)).await.unwrap();
    let mut reader = log.reader(Offset(6));
    let ahead = reader.next(1).await.unwrap_err();
    assert!(matches!(ahead, ReadError::Ahead { asked: Offset(6), head: Offset(5) }), "{ahead}");
    reader.seek(Offset(3));
    assert_eq!(reader.next(1).await.unwrap()[0].offset, Offset(0), "a place inside a batch gives that batch");
    assert_eq!(reader.position(), Offset(5));
}
