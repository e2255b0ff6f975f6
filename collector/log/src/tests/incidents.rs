//! What happened to others: each test is named by where it was reported, and shows that it does not happen here. Those of one
//! kind with other tests stand with these (`damage.rs`, `faults.rs`, `crash.rs`, `retention.rs`, `slow.rs`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use emberd_model::clock::Still;
use emberd_model::{Batch, Offset, UnixNanos};
use futures_util::future::join_all;

use super::{Dice, Driven, Read, batch, dir, entry, filled, newest_file, segment_files, small};
use crate::config::Config;
use crate::cursor::CursorFile;
use crate::disk_log::DiskLog;
use crate::error::{AppendError, ReadError};
use crate::journal::Journal;
use crate::log::{Appender, Log};
use crate::sim::{SimDisk, Survives};

fn open(disk: &SimDisk) -> Arc<DiskLog> {
    let config = Config {
        budget_bytes: 1 << 20,
        segment_bytes: 32 << 10,
        tail_bytes: 0,
        keep: Duration::ZERO,
        entry_bytes_max: 100_000,
        ..Config::in_dir(dir())
    };
    DiskLog::open(config, Arc::new(disk.clone()), Arc::new(Still::at(UnixNanos(1)))).unwrap().0
}

/// A consumer's place: in a cursor file, or as the last record of a journal.
enum Place {
    Cursor(CursorFile),
    Journal(Journal),
}

impl Place {
    fn open(disk: &SimDisk, journal: bool) -> (Self, Offset) {
        let (disk, dir) = (Arc::new(disk.clone()), Path::new("/state"));
        if journal {
            let (journal, found) = Journal::open(disk, dir, "a").unwrap();
            let last = found.records.last().map_or(0, |record| u64::from_le_bytes(record[..].try_into().unwrap()));
            return (Self::Journal(journal), Offset(last));
        }
        let cursor = CursorFile::open_on(disk, dir, "a").unwrap();
        let stored = cursor.load().unwrap().unwrap_or_default();
        (Self::Cursor(cursor), stored)
    }

    fn store(&mut self, cursor: Offset) {
        match self {
            Self::Cursor(file) => file.store(cursor).unwrap(),
            Self::Journal(journal) if journal.bytes() > 64 => journal.replace(&cursor.0.to_le_bytes()).unwrap(),
            Self::Journal(journal) => journal.append(&cursor.0.to_le_bytes()).unwrap(),
        }
    }
}

/// How many power cuts leave a consumer with a cursor behind the log's tail, or ahead of its head, and how many there were.
fn stranded(journal: bool, cursor_first: bool) -> (usize, usize) {
    let disk = SimDisk::new();
    disk.record();
    let (mut log, mut place) = (Driven::open(&disk, small()).unwrap(), Place::open(&disk, journal).0);
    for n in 0..24 {
        log.append(&[entry(n, 14_000)]);
        let cursor = Offset(log.head().0 - log.head().0 % 3);
        if cursor_first {
            place.store(cursor);
        }
        log.passed("a", cursor);
        log.tidy();
        if !cursor_first {
            place.store(cursor);
        }
    }
    let (mut stranded, mut states) = (0, 0);
    for moment in disk.moments() {
        let torn = (0..8).map(|seed| Survives::Some { unit: 512, seed });
        for way in torn.chain([Survives::Nothing, Survives::Everything]) {
            let disk = moment.crash(way);
            let (log, cursor) = (Driven::open(&disk, small()).unwrap(), Place::open(&disk, journal).1);
            states += 1;
            stranded += usize::from(cursor < log.report.tail || cursor > log.report.head);
        }
    }
    (stranded, states)
}

/// Segments go only once the cursor that has passed them is durable, so that no power cut leaves a consumer that asks for what
/// is gone (Vector #25570: data files were unlinked before the ledger was synced, and the next start crashed, for ever). Where
/// the order is the wrong one, the same power cuts find it.
#[test]
fn vector_25570_a_cursor_is_durable_before_segments_go() {
    for journal in [false, true] {
        let (found, states) = stranded(journal, true);
        assert_eq!(found, 0, "of {states} power cuts, journal {journal}");
        let (found, states) = stranded(journal, false);
        assert!(found > 0, "the wrong order went unnoticed in {states} power cuts, journal {journal}");
    }
}

/// A consumer whose cursor lies ahead of a log that lost its end is told so at once, with the head; once it goes back there, it
/// gets all that comes (NATS #5412: it waited for ever). What it has not seen stays, whatever its cursor claims.
#[tokio::test]
async fn nats_5412_a_cursor_ahead_of_the_log_is_said() {
    let disk = SimDisk::new();
    let log = open(&disk);
    for n in 0..10 {
        log.append(entry(n, 9_000)).await.unwrap();
    }
    let older = disk.now();
    for n in 10..20 {
        log.append(entry(n, 9_000)).await.unwrap();
    }
    let cursor = log.head();
    drop(log);
    // Someone brought back an older copy of the directory.
    let log = open(&older.crash(Survives::Everything));
    log.register("a", cursor);
    let head = log.head();
    assert!(head < cursor);
    let mut reader = log.reader(cursor);
    let told = reader.next(1 << 20).await.unwrap_err();
    assert!(matches!(told, ReadError::Ahead { asked, head: at } if asked == cursor && at == head), "{told}");
    reader.seek(head);
    let (read, offset) = tokio::join!(reader.next(1 << 20), log.append(entry(30, 100)));
    assert_eq!(read.unwrap(), [batch(&entry(30, 100), offset.unwrap())]);
    let mut fresh = Vec::new();
    for n in 40..60 {
        let entry = entry(n, 9_000);
        fresh.push(batch(&entry, log.append(entry.clone()).await.unwrap()));
    }
    assert!(log.tail() <= head, "what the consumer never saw went");
    let mut read = Vec::new();
    while reader.position() < log.head() {
        read.extend(reader.next(1 << 20).await.unwrap());
    }
    assert!(read == fresh);
}

/// A backlog is read a piece at a time: what is held at once is about what was asked for, and each byte is read about once
/// (OpenTelemetry Collector #11018: memory ran out while a backlog was read back).
#[tokio::test]
async fn otelcol_11018_a_backlog_is_read_a_piece_at_a_time() {
    const ASKED: usize = 20_000;
    // The least that is read at once.
    const PIECE: u64 = 64 << 10;
    let disk = SimDisk::new();
    let log = open(&disk);
    let mut acked = Vec::new();
    for n in 0..100 {
        let entry = entry(n, (n * 997 % 9_000) as usize);
        acked.push(batch(&entry, log.append(entry.clone()).await.unwrap()));
    }
    let (mut reader, mut read) = (log.reader(Offset(0)), Vec::new());
    let mut before = disk.bytes_read();
    let began = before;
    while reader.position() < log.head() {
        let some = reader.next(ASKED).await.unwrap();
        let bytes: usize = some.iter().map(|batch| batch.body.len()).sum();
        assert!(bytes < ASKED + 9_000, "{bytes} bytes at once");
        let now = disk.bytes_read();
        assert!(now - before <= 2 * PIECE, "{} bytes were read for {bytes}", now - before);
        before = now;
        read.extend(some);
    }
    assert!(read == acked);
    let all: usize = acked.iter().map(|batch| batch.body.len()).sum();
    assert!(before - began < 4 * all as u64, "{} bytes were read for {all}", before - began);
}

/// Whatever the files of a log have become, it opens, says what it cannot read, takes batches, and opens again, and again
/// (OpenTelemetry Collector contrib #35899 and #36840: a corrupt queue was a panic at every start).
#[test]
fn otelcol_35899_otelcol_36840_corrupt_files_are_no_crash_loop() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 9] = [
        ("zeros", |bytes| bytes.fill(0)),
        ("ones", |bytes| bytes.fill(0xff)),
        ("noise", |bytes| {
            let mut dice = Dice(7);
            bytes.iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
        }),
        ("nothing", Vec::clear),
        ("one byte", |bytes| bytes.truncate(1)),
        ("a torn block", |bytes| bytes.truncate(4_095)),
        ("no header", |bytes| bytes[..4_096].fill(0)),
        ("half", |bytes| bytes.truncate(bytes.len() / 2 + 3)),
        ("backwards", |bytes| bytes.reverse()),
    ];
    for (what, damage) in damages {
        // All files, or each of them.
        for which in 0..4 {
            let (disk, acked) = filled(&[&[20_000, 100], &[20_000, 50], &[20_000]]);
            let paths = segment_files(&disk);
            assert_eq!(paths.len(), 3);
            paths
                .iter()
                .enumerate()
                .filter(|(n, _)| which == 3 || which == *n)
                .for_each(|(_, p)| disk.damage(p, damage));
            let mut fresh: Vec<Batch> = Vec::new();
            for round in 0..3u64 {
                let how = format!("{what}, file {which}, start {round}");
                let mut log = Driven::open(&disk, small()).unwrap_or_else(|e| panic!("{how}: {e}"));
                let read = log.read();
                let batches =
                    read.iter().filter_map(|read| if let Read::Batch(batch) = read { Some(batch) } else { None });
                assert!(batches.clone().all(|batch| acked.contains(batch) || fresh.contains(batch)), "{how}: invented");
                assert!(fresh.iter().all(|fresh| batches.clone().any(|batch| batch == fresh)), "{how}: lost again");
                let offset = log.append(&[entry(50 + round, 9_000)])[0].clone().unwrap();
                fresh.push(batch(&entry(50 + round, 9_000), offset));
            }
        }
    }
}

/// A batch that is too large is refused by itself, with the bound, before anything is written; one that is only larger than a
/// segment is taken; those beside them are acked, and the log starts again (Vector #25795: an oversized record ended it).
#[tokio::test]
async fn vector_25795_an_oversized_batch_harms_nobody() {
    let disk = SimDisk::new();
    let log = open(&disk);
    let entries = [entry(1, 100), entry(2, 100_001), entry(3, 100_000), entry(4, 5_000_000), entry(5, 100)];
    let answers = join_all(entries.iter().map(|entry| log.append(entry.clone()))).await;
    let mut acked = Vec::new();
    for (entry, answer) in entries.iter().zip(answers) {
        match answer {
            Ok(offset) => acked.push(batch(entry, offset)),
            Err(AppendError::TooLarge { bytes, max_bytes: 100_000 }) => assert_eq!(bytes, entry.body.len() as u64),
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(acked.iter().map(|batch| batch.body.len()).collect::<Vec<_>>(), [100, 100_000, 100]);
    drop(log);
    let log = open(&disk);
    let (mut reader, mut read) = (log.reader(Offset(0)), Vec::new());
    while reader.position() < log.head() {
        read.extend(reader.next(1 << 20).await.unwrap());
    }
    assert!(read == acked);
}

/// After kill -9, at any call, everything that a stopped log would know is known: where it begins and ends, and where its
/// consumer stands (NATS #6888: a stream was forgotten after a kill).
#[test]
fn nats_6888_nothing_is_forgotten_after_a_kill() {
    let disk = SimDisk::new();
    let (mut log, mut place) = (Driven::open(&disk, small()).unwrap(), Place::open(&disk, true).0);
    // After so many calls, this is the head and the cursor.
    let mut known = vec![(0, Offset(0), Offset(0))];
    disk.record();
    for n in 0..24 {
        let cursor = log.head();
        log.append(&[entry(n, 9_000)]);
        known.push((disk.calls(), log.head(), known.last().unwrap().2));
        place.store(cursor);
        known.push((disk.calls(), log.head(), cursor));
        log.passed("a", cursor);
        log.tidy();
    }
    assert!(newest_file(&log) != segment_files(&disk)[0] || segment_files(&disk).len() < 9, "nothing ever went");
    for moment in disk.moments() {
        let (_, head, cursor) = known.iter().rev().find(|(calls, ..)| *calls <= moment.calls).unwrap();
        let disk = moment.crash(Survives::Everything);
        let (log, found) = (Driven::open(&disk, small()).unwrap(), Place::open(&disk, true).1);
        assert!(log.report.head >= *head && found >= *cursor, "call {}", moment.calls);
        assert!(log.report.tail <= found && found <= log.report.head, "call {}", moment.calls);
    }
}
