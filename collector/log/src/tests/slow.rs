//! Time that goes wrong: a device that takes very long, a clock that jumps.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use emberd_model::clock::Still;
use emberd_model::{Offset, UnixNanos};
use futures_util::future::join_all;
use futures_util::poll;

use super::{Driven, batch, dir, entry, small};
use crate::config::Config;
use crate::disk_log::DiskLog;
use crate::inspect;
use crate::log::{Appender, Log};
use crate::sim::{SimDisk, Survives};

fn config() -> Config {
    Config {
        budget_bytes: 4 << 20,
        segment_bytes: 256 << 10,
        queue_bytes: 64 << 10,
        entry_bytes_max: 64 << 10,
        ..Config::in_dir(dir())
    }
}

fn open(disk: &SimDisk, clock: &Arc<Still>) -> Arc<DiskLog> {
    DiskLog::open(config(), Arc::new(disk.clone()), clock.clone()).unwrap().0
}

/// Lets syncs go on, also when a test fails: the log's thread waits for them, and whoever drops the log for that thread.
struct Held<'a>(&'a SimDisk);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.hold_syncs(false);
    }
}

/// While a sync takes its time nothing is acked, nothing is shown, and no more bytes are let in than the bound says; once it is
/// done, everyone is answered, and truly (NATS #7564: acked, and synced two minutes later).
#[tokio::test]
async fn nats_7564_nothing_is_acked_before_its_sync() {
    let disk = SimDisk::new();
    let log = open(&disk, &Arc::new(Still::at(UnixNanos(1))));
    log.append(entry(0, 10)).await.unwrap();
    let before = log.head();
    // The next segment is prepared by then, with a sync of its own.
    while disk.paths().iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).count() < 2 {
        tokio::task::yield_now().await;
    }
    let held = Held(&disk);
    disk.hold_syncs(true);
    let entries: Vec<_> = (1..=100).map(|n| entry(n, 4_000)).collect();
    let mut appending: Vec<_> = entries.iter().map(|entry| log.append(entry.clone())).collect();
    disk.until_a_sync_waits();
    for _ in 0..50 {
        for append in &mut appending {
            assert!(poll!(append).is_pending(), "acked before the sync");
        }
        tokio::task::yield_now().await;
    }
    assert!(log.waiting_bytes() <= config().queue_bytes, "{} bytes are under way", log.waiting_bytes());
    assert!(log.waiting_bytes() > config().queue_bytes / 2, "hardly anything was let in");
    assert_eq!((log.head(), log.is_refusing(), log.has_failed()), (before, false, false));
    let lost = Driven::open(&disk.now().crash(Survives::Nothing), small()).unwrap();
    assert_eq!(lost.report.head, before, "what is not synced was not there after a power cut");

    drop(held);
    let acked: Vec<_> =
        entries.iter().zip(join_all(appending).await).map(|(entry, offset)| batch(entry, offset.unwrap())).collect();
    // The room is given back just after the answers.
    while log.waiting_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    let kept = Driven::open(&disk.now().crash(Survives::Nothing), small()).unwrap();
    assert!(kept.batches()[1..] == acked, "an answer was not true");
}

/// The moments that a clock jumps to: back an hour, to 1970, ten years ahead, to 2106, as far as it goes.
const JUMPS: [u64; 6] = [NOW - 3_600 * SECOND, 0, NOW + 10 * 365 * 86_400 * SECOND, (1 << 32) * SECOND, u64::MAX, NOW];
const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_764_000_000 * SECOND;

/// Whatever the clock says, what has been passed stays for as long as it was asked to, appends are acked, and all is read back.
#[tokio::test]
async fn a_clock_that_jumps_lets_nothing_go_early() {
    let (disk, clock) = (SimDisk::new(), Arc::new(Still::at(UnixNanos(NOW))));
    let log = open(&disk, &clock);
    log.register("a", Offset(0));
    let mut acked = Vec::new();
    for (n, jump) in (0..).zip(JUMPS) {
        clock.set(UnixNanos(jump));
        // Each begins a segment, so that the keeper makes its round, more than once.
        for part in 0..3 {
            let entry = entry(3 * n + part, 56_000 + 4_000 * part as usize);
            acked.push(batch(&entry, log.append(entry.clone()).await.unwrap()));
            log.passed("a", log.head());
            let segments = || {
                let (found, _) = inspect::segments(&disk, dir()).unwrap();
                found.iter().filter(|found| matches!(found.header, inspect::Header::Blank)).count()
            };
            // Stocked again: the keeper has looked at what may go, under this clock.
            while segments() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    assert!(log.used().segments > 3, "{:?}", log.used());
    assert_eq!(log.tail(), Offset(0), "a segment went before its time");
    let mut reader = log.reader(Offset(0));
    let mut read = Vec::new();
    while reader.position() < log.head() {
        read.extend(reader.next(1 << 20).await.unwrap());
    }
    assert!(read == acked);
    drop((reader, log));
    clock.set(UnixNanos(0));
    let log = open(&disk, &clock);
    assert_eq!((log.tail(), log.head()), (Offset(0), acked.last().unwrap().end()));
    assert!(!disk.paths().iter().any(|path| path.extension() == Some(Path::new("spare").as_os_str())));
}

/// The same log, step by step: a segment's age is what has gone by, and not what the clock says.
#[test]
fn age_is_what_has_gone_by() {
    let disk = SimDisk::new();
    let bounds = crate::keeper::Bounds { keep: Duration::from_secs(60), ..small() };
    let mut log = Driven::open(&disk, bounds).unwrap();
    for (n, jump) in (0..).zip(JUMPS) {
        log.clock.set(UnixNanos(jump));
        log.append(&[entry(n, 20_000)])[0].clone().unwrap();
        log.passed("a", log.head());
        log.tidy();
        log.elapsed += Duration::from_secs(9);
    }
    assert_eq!(log.shelf().tail(), Some(Offset(0)));
    log.elapsed += Duration::from_secs(6);
    log.tidy();
    assert_eq!(log.shelf().tail(), Some(Offset(1)), "the first was passed a minute ago");
}

/// Whoever watches over the log sees a sync that does not return, for as long as it does not; a log without appends is not stuck.
#[tokio::test]
async fn a_sync_that_hangs_is_seen() {
    let disk = SimDisk::new();
    let log = open(&disk, &Arc::new(Still::at(UnixNanos(1))));
    log.append(entry(0, 10)).await.unwrap();
    // Marked and waiting again.
    while !log.at_work_for().is_zero() {
        tokio::task::yield_now().await;
    }
    let held = Held(&disk);
    disk.hold_syncs(true);
    let append = log.append(entry(1, 10));
    disk.until_a_sync_waits();
    let mut seen = log.at_work_for();
    for _ in 0..3 {
        while log.at_work_for() <= seen {
            tokio::task::yield_now().await;
        }
        seen = log.at_work_for();
    }
    drop(held);
    append.await.unwrap();
    while !log.at_work_for().is_zero() {
        tokio::task::yield_now().await;
    }
    log.seal().await;
    assert!(log.at_work_for().is_zero());
}
