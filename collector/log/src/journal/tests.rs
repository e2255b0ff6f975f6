//! A journal holds what was stored, in order; after whatever happened, all that was acked and at most the record under way.

use proptest::prelude::*;

use super::*;
use crate::disk::RealDisk;
use crate::sim::{Call, Fault, Moment, SimDisk, Survives};

const GROW: u64 = 512;

fn dir() -> &'static Path {
    Path::new("/state")
}

fn path() -> PathBuf {
    dir().join("phoenix.journal")
}

fn open(disk: &SimDisk) -> Result<(Journal, Found), JournalError> {
    Journal::open_growing(Arc::new(disk.clone()), dir(), "phoenix", GROW)
}

/// A record whose every byte follows from `n`; some are empty, some longer than what a file grows by.
fn record(n: u64) -> Vec<u8> {
    let mut dice = crate::tests::Dice(n);
    let bytes = [0, 7, 8, 40, 150, 700][n as usize % 6];
    (0..bytes).map(|_| dice.roll(256) as u8).collect()
}

/// A step of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    Append,
    Replace,
    Reopen,
}

const SCRIPT: [Do; 14] = {
    use Do::{Append, Reopen, Replace};
    [Append, Append, Append, Replace, Append, Reopen, Append, Append, Append, Replace, Replace, Append, Append, Append]
};

/// What a journal may be held to: after so many calls these records were acked.
type Acked = Vec<(u64, Vec<Vec<u8>>)>;

/// Runs the script on a sound disk.
fn script(disk: &SimDisk) -> Acked {
    let (mut journal, found) = open(disk).unwrap();
    let mut records = found.records;
    let mut acked = vec![(disk.calls(), records.clone())];
    for (n, step) in SCRIPT.into_iter().enumerate() {
        let new = record(n as u64);
        match step {
            Do::Append => {
                journal.append(&new).unwrap();
                records.push(new);
            }
            Do::Replace => {
                journal.replace(&new).unwrap();
                records = vec![new];
            }
            Do::Reopen => {
                let (reopened, found) = open(disk).unwrap();
                assert_eq!((found.records, found.torn_bytes), (records.clone(), 0));
                assert_eq!(reopened.bytes(), journal.bytes());
                journal = reopened;
            }
        }
        acked.push((disk.calls(), records.clone()));
    }
    acked
}

/// What may be found at a moment: what was acked, or what was being stored.
fn allowed<'a>(acked: &'a Acked, moment: &Moment) -> &'a [(u64, Vec<Vec<u8>>)] {
    let done = acked.iter().rposition(|(calls, _)| *calls <= moment.calls).unwrap();
    &acked[done..acked.len().min(done + 2)]
}

fn ways(moment: &Moment) -> Vec<Survives> {
    let mut ways = vec![Survives::Nothing, Survives::Everything];
    for unit in [1, 8, 64, 512] {
        ways.extend((0..12).map(|seed| Survives::Some { unit, seed }));
    }
    ways.extend((0..=moment.last_write_bytes()).map(|bytes| Survives::Torn { bytes }));
    ways
}

/// At whichever call the power fails, and whatever part of the last write survives: all that was acked is found, and of the
/// record under way all or nothing. What was found once stays, and the journal goes on.
#[test]
fn a_record_is_whole_or_absent_after_a_power_cut() {
    let disk = SimDisk::new();
    disk.record();
    let acked = script(&disk);
    let mut states = 0;
    for moment in disk.moments() {
        let allowed = allowed(&acked, &moment);
        for way in ways(&moment) {
            let how = format!("call {}, {way:?}", moment.calls);
            let disk = moment.crash(way);
            let beside = read(&disk, dir(), "phoenix").unwrap_or_else(|e| panic!("{how}: {e}"));
            let (mut journal, found) = open(&disk).unwrap_or_else(|e| panic!("{how}: {e}"));
            assert_eq!(beside.unwrap_or_default(), found, "{how}");
            assert!(allowed.iter().any(|(_, records)| *records == found.records), "{how}: {found:?}");
            let mut expected = found.records;
            let again = open(&disk.now().crash(Survives::Nothing)).unwrap().1;
            assert_eq!(again, Found { records: expected.clone(), torn_bytes: 0 }, "{how}: found, and then not");
            journal.append(b"fresh").unwrap();
            expected.push(b"fresh".to_vec());
            assert_eq!(open(&disk.now().crash(Survives::Nothing)).unwrap().1.records, expected, "{how}: going on");
            states += 1;
        }
    }
    assert!(states > 5_000, "{states} states only");
}

/// A crash while a journal is opened after a crash, three deep, changes nothing.
#[test]
fn opening_survives_a_power_cut() {
    let disk = SimDisk::new();
    disk.record();
    let acked = script(&disk);
    for moment in disk.moments() {
        let allowed = allowed(&acked, &moment);
        for way in
            [Survives::Everything, Survives::Some { unit: 8, seed: 3 }, Survives::Some { unit: 64, seed: moment.calls }]
        {
            deeper(allowed, &moment.crash(way), 3);
        }
    }
}

fn deeper(allowed: &[(u64, Vec<Vec<u8>>)], disk: &SimDisk, depth: u32) {
    disk.record();
    let found = open(disk).unwrap().1;
    assert!(allowed.iter().any(|(_, records)| *records == found.records), "{depth} to go: {found:?}");
    for crashed in disk.moments().into_iter().filter(|_| depth > 1) {
        for way in [Survives::Nothing, Survives::Some { unit: 8, seed: 1 }, Survives::Torn { bytes: 40 }] {
            deeper(allowed, &crashed.crash(way), depth - 1);
        }
    }
}

/// A journal of these records, the first of which replaced others.
fn filled(numbers: &[u64]) -> (SimDisk, Vec<Vec<u8>>) {
    let disk = SimDisk::new();
    let mut journal = open(&disk).unwrap().0;
    journal.append(b"gone").unwrap();
    let records: Vec<Vec<u8>> = numbers.iter().map(|n| record(*n)).collect();
    journal.replace(&records[0]).unwrap();
    records[1..].iter().for_each(|record| journal.append(record).unwrap());
    assert_eq!(journal.bytes(), records[1..].iter().map(|record| record.len() as u64).sum::<u64>());
    (disk, records)
}

/// Where each record of a file begins, and where the last one ends.
fn places(records: &[Vec<u8>]) -> Vec<usize> {
    let mut at = HEAD_BYTES;
    let starts = records.iter().map(|record| {
        let start = at;
        at = (at + RECORD_HEAD_BYTES + record.len()).next_multiple_of(STEP);
        start
    });
    let mut places: Vec<usize> = starts.collect();
    places.push(at);
    places
}

/// A flipped bit is never a wrong record: before the last record it is said, in the last one it costs that one, behind it
/// nothing.
#[test]
fn a_flipped_bit_is_said_or_costs_the_last_record() {
    let (disk, records) = filled(&[3, 4, 2, 3, 0, 1]);
    let (sound, places) = (disk.bytes(&path()).unwrap(), places(&records));
    let (last, end) = (places[records.len() - 1], places[records.len()]);
    for byte in 0..sound.len() {
        for bit in 0..8 {
            disk.damage(&path(), |bytes| bytes[byte] ^= 1 << bit);
            let how = format!("byte {byte} bit {bit}");
            match open(&disk) {
                Err(JournalError::Corrupt { path: said, at }) => {
                    assert!(byte < last, "{how}: refused at {at}");
                    let begins = places.iter().rfind(|place| **place <= byte).map_or(0, |place| *place as u64);
                    assert_eq!((said, at), (path(), begins), "{how}");
                }
                Err(e) => panic!("{how}: {e}"),
                Ok((_, found)) if found.records == records => {
                    let padding = places
                        .windows(2)
                        .zip(&records)
                        .any(|(place, record)| (place[0] + RECORD_HEAD_BYTES + record.len()..place[1]).contains(&byte));
                    assert!(byte >= end || padding, "{how}: went unnoticed");
                    assert_eq!(found.torn_bytes > 0, byte >= end, "{how}");
                }
                Ok((_, found)) => {
                    assert!((last..end).contains(&byte), "{how}: {found:?}");
                    assert_eq!(found.records, records[..records.len() - 1], "{how}");
                    assert!(found.torn_bytes > 0, "{how}");
                }
            }
            disk.put(&path(), sound.clone());
        }
    }
}

/// A file that was cut at any byte holds the records before the cut; one without its first record is damaged, as it never was.
#[test]
fn a_cut_file_holds_what_lies_before_the_cut() {
    let (disk, records) = filled(&[3, 4, 2, 3, 0, 1, 5]);
    let (sound, places) = (disk.bytes(&path()).unwrap(), places(&records));
    for cut in 0..sound.len() {
        disk.put(&path(), sound[..cut].to_vec());
        let whole = places[1..].iter().filter(|end| **end <= cut).count();
        match open(&disk) {
            Ok((mut journal, found)) => {
                assert!(whole > 0 && found.records == records[..whole], "cut at {cut}: {found:?}");
                journal.append(b"fresh").unwrap();
                assert_eq!(open(&disk).unwrap().1.records.len(), whole + 1, "cut at {cut}");
            }
            Err(JournalError::Corrupt { .. }) => assert_eq!(whole, 0, "cut at {cut}"),
            Err(e) => panic!("cut at {cut}: {e}"),
        }
    }
}

/// Bytes of a file's last life, at the very place where they once were right, are nothing.
#[test]
fn an_older_files_bytes_are_nothing() {
    let (old, records) = filled(&[3, 3, 3, 4, 4, 1]);
    let (new, _) = filled(&[3, 3]);
    let (old, mut sound) = (old.bytes(&path()).unwrap(), new.bytes(&path()).unwrap());
    sound.resize(old.len(), 0);
    for at in places(&records)[1..].iter().copied() {
        new.put(&path(), [&sound[..at], &old[at..]].concat());
        match open(&new) {
            Ok((_, found)) => assert_eq!(found.records, [record(3), record(3)][..found.records.len()], "from {at}"),
            Err(e) => panic!("from {at}: {e}"),
        }
    }
}

/// Every call fails once, or from then on, as a full or a broken disk does. What was acked is found; what was refused is found
/// whole, or not at all; after a failure nothing is acked before a replace is, and a replace heals.
#[test]
fn whatever_fails_acked_records_stay() {
    let sound = SimDisk::new();
    script(&sound);
    let mut failures = 0;
    for fault in [Fault::Io, Fault::Full, Fault::Interrupted, Fault::Short(1), Fault::Short(100)] {
        for nth in 0..sound.calls() {
            for forever in [false, true] {
                if forever && matches!(fault, Fault::Interrupted | Fault::Short(_)) {
                    continue;
                }
                let disk = SimDisk::new();
                disk.fail(Call::Change, nth, fault, forever);
                failures += faulty(&disk, &format!("{fault:?} at call {nth}, forever {forever}"));
            }
        }
    }
    assert!(failures > 200, "{failures} failures only");
}

/// Runs the script on a disk that fails; gives how many steps did.
fn faulty(disk: &SimDisk, how: &str) -> usize {
    let Ok((mut journal, _)) = open(disk) else { return 1 };
    let (mut records, mut maybe) = (Vec::new(), Vec::new());
    let mut failures = 0;
    for (n, step) in SCRIPT.into_iter().enumerate() {
        let new = record(n as u64);
        let (after, done) = match step {
            Do::Append => {
                let was_failed = journal.failed;
                let done = journal.append(&new);
                assert!(!(was_failed && done.is_ok()), "{how}: acked by a file of which a write failed");
                ([&records[..], &[new]].concat(), done)
            }
            Do::Replace => (vec![new.clone()], journal.replace(&new)),
            Do::Reopen => continue,
        };
        match done {
            Ok(()) => (records, maybe) = (after, Vec::new()),
            Err(JournalError::Disk { .. }) => {
                maybe.push(after);
                failures += 1;
            }
            Err(e) => panic!("{how}: {e}"),
        }
    }
    disk.heal();
    let ways = [Survives::Nothing, Survives::Everything, Survives::Some { unit: 8, seed: 1 }];
    for disk in ways.map(|way| disk.now().crash(way)) {
        let found = open(&disk).unwrap_or_else(|e| panic!("{how}: {e}")).1.records;
        assert!(found == records || maybe.contains(&found), "{how}: {found:?}");
    }
    journal.replace(b"healed").unwrap();
    journal.append(b"and well").unwrap();
    let found = open(&disk.now().crash(Survives::Nothing)).unwrap().1.records;
    assert_eq!(found, [b"healed".to_vec(), b"and well".to_vec()], "{how}");
    failures
}

/// A sync that failed is not asked again (PostgreSQL's fsync surprise of 2018): it would succeed, and the record be gone.
#[test]
fn fsyncgate_a_failed_sync_is_not_tried_again() {
    let (disk, mut records) = filled(&[3, 1]);
    let mut journal = open(&disk).unwrap().0;
    disk.fail(Call::Sync, 0, Fault::Io, false);
    assert!(matches!(journal.append(b"lost"), Err(JournalError::Disk { action: "sync", .. })));
    let calls = disk.calls();
    assert!(matches!(journal.append(b"lost"), Err(JournalError::Disk { action: "append to", .. })));
    assert_eq!(disk.calls(), calls, "a second try touched the file");
    assert_eq!(open(&disk.now().crash(Survives::Everything)).unwrap().1.records, records);
    drop(journal);
    // The process starts again, the machine did not stop: what it reads in the cache it makes durable before it says so.
    records.push(b"lost".to_vec());
    assert_eq!(open(&disk).unwrap().1.records, records);
    assert_eq!(open(&disk.now().crash(Survives::Nothing)).unwrap().1.records, records);
}

/// A replace that fails before its rename leaves the old file in use; one that fails after it does not.
#[test]
fn a_failed_replace_acks_nothing_into_a_file_that_may_go() {
    for (call, in_use) in
        [(Call::Create, true), (Call::Write, true), (Call::Sync, true), (Call::Rename, false), (Call::SyncDir, false)]
    {
        let (disk, records) = filled(&[3, 1]);
        let mut journal = open(&disk).unwrap().0;
        disk.fail(call, 0, Fault::Io, false);
        assert!(journal.replace(b"new").is_err(), "{call:?}");
        assert_eq!(journal.append(b"fresh").is_ok(), in_use, "{call:?}");
        let found = open(&disk.now().crash(Survives::Nothing)).unwrap().1.records;
        assert_eq!(found, if in_use { [&records[..], &[b"fresh".to_vec()]].concat() } else { records }, "{call:?}");
        assert!(disk.paths().len() == 1 || call == Call::Rename, "{call:?}: the new file still takes room");
    }
}

/// On a full disk a journal opens, and takes what its file has room for; with room again a replace makes all well.
#[test]
fn a_full_disk_takes_what_there_is_room_for() {
    let (disk, mut records) = filled(&[3, 1]);
    disk.set_space(Some(0));
    let mut journal = open(&disk).unwrap().0;
    assert!(journal.replace(b"no room").is_err());
    let room = disk.bytes(&path()).unwrap().len();
    while places(&records).last().unwrap() + RECORD_HEAD_BYTES + 8 <= room {
        journal.append(b"fits in.").unwrap();
        records.push(b"fits in.".to_vec());
    }
    assert!(records.len() > 4);
    assert!(journal.append(b"does not").is_err());
    assert_eq!(open(&disk.now().crash(Survives::Nothing)).unwrap().1.records, records);
    disk.set_space(None);
    assert!(journal.append(b"does not").is_err(), "a part of it may lie there");
    journal.replace(b"all of it").unwrap();
    assert_eq!(open(&disk.now().crash(Survives::Nothing)).unwrap().1.records, [b"all of it"]);
}

/// Most appends leave the file as long as it was, so that there is nothing to sync but the record.
#[test]
fn a_file_grows_by_many_records_at_a_time() {
    let disk = SimDisk::new();
    let mut journal = Journal::open(Arc::new(disk.clone()), dir(), "phoenix").unwrap().0;
    let mut lengths = std::collections::BTreeSet::new();
    for _ in 0..3_000 {
        journal.append(&[7; 40]).unwrap();
        lengths.insert(disk.bytes(&path()).unwrap().len());
    }
    assert_eq!(lengths.len(), (3_000 * 72 + HEAD_BYTES).div_ceil(GROW_BYTES as usize));
}

/// Names that would lead out of the directory, records that are too large, files of another journal or another time.
#[test]
fn what_is_not_a_journals_is_refused() {
    let (disk, _) = filled(&[3, 1]);
    for bad in ["", "../log", "a/b", "a b", "é", &"x".repeat(65)] {
        assert!(matches!(Journal::open(Arc::new(disk.clone()), dir(), bad), Err(JournalError::Name { .. })), "{bad}");
        assert!(matches!(read(&disk, dir(), bad), Err(JournalError::Name { .. })), "{bad}");
    }
    let mut journal = open(&disk).unwrap().0;
    let huge = vec![0; RECORD_BYTES_MAX + 1];
    for refused in [journal.append(&huge), journal.replace(&huge)] {
        assert!(matches!(refused, Err(JournalError::TooLarge { bytes, .. }) if bytes == huge.len() as u64));
    }
    journal.append(&huge[1..]).unwrap();
    assert_eq!(open(&disk).unwrap().1.records.last().map(Vec::len), Some(RECORD_BYTES_MAX));

    let sound = filled(&[3, 1]).0.bytes(&path()).unwrap();
    disk.put(&dir().join("archive.journal"), sound.clone());
    assert!(matches!(read(&disk, dir(), "archive"), Err(JournalError::Corrupt { at: 0, .. })), "another one's");
    let mut future = sound.clone();
    future[8] = 2;
    let crc = crc_fast::crc32_iscsi(&future[..12]);
    future[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.put(&path(), future.clone());
    let refused = open(&disk).unwrap_err();
    assert!(matches!(&refused, JournalError::Disk { source, .. } if source.kind() == io::ErrorKind::Unsupported));
    assert_eq!(disk.bytes(&path()).unwrap(), future, "it was changed");
    assert!(read(&SimDisk::new(), dir(), "phoenix").unwrap().is_none());
}

/// A reader beside the writer sees what was stored up to some moment, on the real disk, whatever the writer is doing.
#[test]
fn a_reader_beside_the_writer_sees_a_moment() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    let mut journal = Journal::open_growing(Arc::new(RealDisk), &dir, "phoenix", GROW).unwrap().0;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..600u32 {
                // Each record says its number, and the first of a file all before it.
                let record = n.to_le_bytes().repeat(1 + n as usize % 300);
                if n % 40 == 0 { journal.replace(&record).unwrap() } else { journal.append(&record).unwrap() }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut seen = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let Some(found) = read(&RealDisk, &dir, "phoenix").unwrap() else { continue };
            let numbers =
                found.records.iter().map(|record| u32::from_le_bytes([record[0], record[1], record[2], record[3]]));
            let numbers: Vec<u32> = numbers.collect();
            assert!(
                numbers[0].is_multiple_of(40) && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                "{numbers:?}"
            );
            assert!(*numbers.last().unwrap() >= seen, "it went back");
            seen = *numbers.last().unwrap();
        }
    });
    let found = Journal::open(Arc::new(RealDisk), &dir, "phoenix").unwrap().1;
    assert_eq!((found.records.len(), found.torn_bytes), (40, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any bytes in place of a journal, or of a part of one, are its records before them, or are said to be damage.
    #[test]
    fn noise_is_no_journal(noise in prop::collection::vec(any::<u8>(), 0..600), from in 0usize..700) {
        let (disk, records) = filled(&[3, 4, 2, 3, 0, 1]);
        let sound = disk.bytes(&path()).unwrap();
        let from = from.min(sound.len());
        disk.put(&path(), [&sound[..from], &noise].concat());
        match open(&disk) {
            Ok((_, found)) => prop_assert!(found.records == records[..found.records.len()]),
            Err(JournalError::Corrupt { .. }) => {}
            Err(e) => prop_assert!(false, "{}", e),
        }
    }
}
