//! Readers on a simulated disk: what they are told when something is wrong, and that dropping them in between loses nothing.

use std::time::Duration;

use emberd_model::UnixNanos;
use emberd_model::clock::Still;
use futures_util::FutureExt;

use super::*;
use crate::config::Config;
use crate::disk_log::DiskLog;
use crate::log::{Appender, Log};
use crate::sim::{Call, Fault, SimDisk};
use crate::tests::{batch, entry};

/// A log of small segments that keeps nothing in memory, with so many batches, and what was acked.
async fn log(disk: &SimDisk, batches: u64) -> (Arc<DiskLog>, Vec<Batch>) {
    let config = Config {
        budget_bytes: 1 << 20,
        segment_bytes: 32 << 10,
        keep: Duration::ZERO,
        tail_bytes: 0,
        ..Config::in_dir("/log")
    };
    let clock = Arc::new(Still::at(UnixNanos(1)));
    let (log, _) = DiskLog::open(config, Arc::new(disk.clone()), clock).unwrap();
    let mut acked = Vec::new();
    for n in 0..batches {
        let entry = entry(n, (n * 791 % 9_000) as usize);
        acked.push(batch(&entry, log.append(entry.clone()).await.unwrap()));
    }
    (log, acked)
}

fn segment(id: u64) -> PathBuf {
    segment_path(std::path::Path::new("/log"), crate::error::SegmentId(id))
}

/// A future that is dropped at any of its waits, however often, neither loses nor repeats a batch.
#[tokio::test]
async fn a_dropped_read_loses_nothing() {
    let disk = SimDisk::new();
    let (log, acked) = log(&disk, 60).await;
    for patience in [0, 1, 3] {
        let mut reader = log.reader(Offset(0));
        let mut read = Vec::new();
        while read.len() < acked.len() {
            // Polled some times, then dropped: the work goes on and is taken up by the next.
            let mut left = patience;
            let before = reader.position();
            let mut next = reader.next(2_000);
            let polled = std::future::poll_fn(|context| match next.poll_unpin(context) {
                std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => {
                    left -= 1;
                    std::task::Poll::Pending
                }
                std::task::Poll::Ready(some) => std::task::Poll::Ready(Some(some)),
            });
            let polled = polled.await;
            drop(next);
            match polled {
                Some(some) => read.extend(some.unwrap()),
                None => assert_eq!(reader.position(), before),
            }
            tokio::task::yield_now().await;
        }
        assert!(read == acked, "patience {patience}");
    }
}

/// Damage is told once, between what lies before and after it, and the reader goes on behind it.
#[tokio::test]
async fn damage_is_told_and_stepped_over() {
    let disk = SimDisk::new();
    let (log, acked) = log(&disk, 30).await;
    // One byte of some body in the first segment, and a whole segment from the middle.
    disk.damage(&segment(1), |bytes| {
        let at = bytes.windows(100).position(|window| window == &acked[3].body[..100]).unwrap();
        bytes[at] ^= 1;
    });
    disk.damage(&segment(3), |bytes| bytes.fill(0));
    let mut reader = log.reader(Offset(0));
    let (mut read, mut lost) = (Vec::new(), Vec::new());
    while reader.position() < log.head() {
        match reader.next(10_000).await {
            Ok(some) => read.extend(some),
            Err(ReadError::Damaged { from, to }) => {
                assert_eq!(reader.position(), to);
                lost.push((from, to));
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(lost[0], (acked[3].offset, acked[3].end()));
    assert_eq!(lost.len(), 2, "{lost:?}");
    let due = |batch: &&Batch| lost.iter().all(|(from, to)| batch.end() <= *from || batch.offset >= *to);
    assert!(read.iter().eq(acked.iter().filter(due)), "what was not lost was not read");
    assert!(read.len() > 15);
}

/// A disk that cannot be read is an error that says how far it reaches; reading again goes on where it stood, and one may
/// step over.
#[tokio::test]
async fn an_unreadable_segment_is_an_error_that_passes() {
    let disk = SimDisk::new();
    let (log, acked) = log(&disk, 30).await;
    let mut reader = log.reader(Offset(0));
    let mut read = reader.next(10_000).await.unwrap();
    let stood = reader.position();
    disk.fail(Call::Read, 0, Fault::Io, true);
    let to = match reader.next(10_000).await.unwrap_err() {
        ReadError::Disk { from, to, .. } => {
            assert_eq!((from, reader.position()), (stood, stood));
            to
        }
        other => panic!("{other}"),
    };
    reader.seek(to);
    assert!(matches!(reader.next(1).await, Err(ReadError::Disk { .. })), "the next segment fails too");
    disk.heal();
    reader.seek(stood);
    while reader.position() < log.head() {
        read.extend(reader.next(10_000).await.unwrap());
    }
    assert!(read == acked);
}

/// A segment that cannot be read costs a reader what is in it from where it stands, and nothing else; other readers, nothing.
#[tokio::test]
async fn an_unreadable_segment_costs_itself() {
    let disk = SimDisk::new();
    let (log, acked) = log(&disk, 30).await;
    for nth in 0..8 {
        let mut reader = log.reader(Offset(0));
        disk.fail(Call::Read, nth, Fault::Io, false);
        let (mut read, mut lost) = (Vec::new(), Vec::new());
        while reader.position() < log.head() {
            match reader.next(10_000).await {
                Ok(some) => read.extend(some),
                Err(ReadError::Disk { from, to, .. }) => {
                    lost.push((from, to));
                    reader.seek(to);
                }
                Err(e) => panic!("{e}"),
            }
        }
        disk.heal();
        // Batches that were read before the error in the same piece are given; then the error is met again, or has passed.
        assert!(lost.len() <= 1, "{lost:?}");
        let due = |batch: &&Batch| lost.iter().all(|(from, to)| batch.end() <= *from || batch.offset >= *to);
        assert!(read.iter().eq(acked.iter().filter(due)), "read {nth} failed");
        assert!(nth > 0 || lost.len() == 1);
        let mut other = log.reader(Offset(0));
        let first = other.next(10_000).await.unwrap();
        assert!(acked.starts_with(&first));
    }
}

/// Segments that go, and are used again, while a reader stands in them: it is told that they are gone, and never sees what
/// was written over them.
#[tokio::test]
async fn a_reader_left_behind_is_told() {
    let disk = SimDisk::new();
    let (log, acked) = log(&disk, 30).await;
    let mut reader = log.reader(Offset(0));
    let first = reader.next(3_000).await.unwrap();
    assert!(acked.starts_with(&first));
    log.register("a", log.head());
    let mut fresh = Vec::new();
    for n in 100..160 {
        let entry = entry(n, 9_000);
        fresh.push(batch(&entry, log.append(entry.clone()).await.unwrap()));
        log.passed("a", log.head());
    }
    let gone = loop {
        match reader.next(3_000).await {
            Ok(some) => assert!(some.iter().all(|batch| acked.contains(batch)), "something else was read"),
            Err(e) => break e,
        }
    };
    let ReadError::Gone { tail, .. } = gone else { panic!("{gone}") };
    assert_eq!(tail, log.tail());
    reader.seek(tail);
    let next = reader.next(1).await.unwrap();
    assert!(fresh.contains(&next[0]));
}

/// A segment that goes, and is written over, after a reader was sent to it and before it reads: gone, not damaged. Once with
/// the file already open, once before it is opened.
#[test]
fn a_segment_that_goes_while_it_is_read_is_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        for opened in [true, false] {
            let disk = SimDisk::new();
            let (log, _) = log(&disk, 30).await;
            let mut reader = log.reader(Offset(0));
            if opened {
                reader.next(1).await.unwrap();
            }
            // The only thread that may block is held up, so the read waits while the log runs in a circle.
            let (go, held) = std::sync::mpsc::channel::<()>();
            let holding = tokio::task::spawn_blocking(move || held.recv());
            assert!(futures_util::poll!(reader.next(3_000)).is_pending());
            log.register("a", log.head());
            for n in 100..200 {
                log.append(entry(n, 9_000)).await.unwrap();
                log.passed("a", log.head());
            }
            go.send(()).unwrap();
            holding.await.unwrap().unwrap();
            let gone = reader.next(3_000).await.unwrap_err();
            assert!(matches!(gone, ReadError::Gone { .. }), "opened {opened}: {gone}");
        }
    });
}

/// Every place in the log can be gone to, and gives the batch that covers it and all after, from disk as from memory.
#[tokio::test]
async fn every_place_can_be_gone_to() {
    let disk = SimDisk::new();
    let (log, acked) = log(&disk, 40).await;
    let mut reader = log.reader(Offset(0));
    for offset in 0..log.head().0 {
        reader.seek(Offset(offset));
        let read = reader.next(20_000).await.unwrap();
        let from = acked.iter().position(|batch| batch.end().0 > offset).unwrap();
        assert!(acked[from..].starts_with(&read), "at {offset}");
    }
}

/// A reader at the head waits for the next batch, and ends with the log.
#[tokio::test]
async fn a_reader_at_the_head_waits() {
    let disk = SimDisk::new();
    let (log, _) = log(&disk, 1).await;
    let mut reader = log.reader(log.head());
    assert!(reader.next(1).now_or_never().is_none());
    let (read, offset) = tokio::join!(reader.next(1), log.append(entry(9, 9)));
    assert_eq!(read.unwrap(), [batch(&entry(9, 9), offset.unwrap())]);
    let (end, ()) = tokio::join!(reader.next(1), log.seal());
    assert!(end.unwrap().is_empty());
}

/// Who is behind reads each byte of the disk about once, though pieces end within batches; and memory is read into again only
/// when nobody holds what lay in it.
#[tokio::test]
async fn pieces_are_read_once_into_memory_that_is_free() {
    let disk = SimDisk::new();
    let config = Config { tail_bytes: 0, budget_bytes: 256 << 20, segment_bytes: 64 << 20, ..Config::in_dir("/log") };
    let (log, _) = DiskLog::open(config, Arc::new(disk.clone()), Arc::new(Still::at(UnixNanos(1)))).unwrap();
    let mut acked = Vec::new();
    for n in 0..60 {
        let entry = entry(n, 300_000 + (n * 791 % 9_000) as usize);
        acked.push(batch(&entry, log.append(entry.clone()).await.unwrap()));
    }
    let before = disk.bytes_read();
    let mut reader = log.reader(Offset(0));
    let (mut read, mut kept, mut at_once) = (0, Vec::new(), 0);
    while read < acked.len() {
        let batches = reader.next(2 << 20).await.unwrap();
        at_once = at_once.max(batches.len());
        for batch in batches {
            assert!(batch == acked[read], "batch {read}");
            if read.is_multiple_of(13) {
                kept.push((read, batch));
            }
            read += 1;
        }
    }
    assert!(kept.iter().all(|(number, batch)| *batch == acked[*number]), "what is held was read over");
    assert!(at_once >= 6, "{at_once} batches at once are too few");
    let (bytes, written) = (disk.bytes_read() - before, acked.iter().map(|batch| batch.body.len() as u64).sum::<u64>());
    assert!(bytes < written * 13 / 10, "{bytes} bytes were read for {written}");
}
