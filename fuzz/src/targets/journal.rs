//! Journals that a disk has changed in any way.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use emberd_log::journal::{self, Found, Journal};
use emberd_log::sim::SimDisk;
use emberd_log::{Disk, JournalError};

use super::head;
use crate::memory;

fn dir() -> &'static Path {
    Path::new("/journals")
}

fn path() -> PathBuf {
    dir().join("fuzz.journal")
}

/// A journal's bytes and its records.
type Written = (Vec<u8>, Vec<Vec<u8>>);

/// Two journals that were written in order: what a file holds now and what it may hold of another life.
static GENUINE: LazyLock<[Written; 2]> = LazyLock::new(|| {
    [[7, 0, 300, 60, 1], [40, 8, 9, 100, 33]].map(|lengths| {
        let disk = SimDisk::new();
        let (mut journal, found) = open(&disk).expect("a disk without faults");
        assert_eq!(found, Found::default());
        let record = |length: usize| (0..length).map(|byte| (length + byte * 7) as u8).collect::<Vec<u8>>();
        journal.append(&record(1_000)).expect("a disk without faults");
        let records: Vec<Vec<u8>> = lengths.map(record).to_vec();
        journal.replace(&records[0]).expect("a disk without faults");
        for record in &records[1..] {
            journal.append(record).expect("a disk without faults");
        }
        (disk.bytes(&path()).expect("it is there"), records)
    })
});

fn open(disk: &SimDisk) -> Result<(Journal, Found), JournalError> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    Journal::open(shared, dir(), "fuzz")
}

/// However a journal's bytes are changed, what is found is what was stored, from its beginning on, with no step left out; or it is
/// refused as damaged. What is found can be gone on with, and reading finds what opening does.
pub(super) fn journal(input: &[u8]) {
    let [(whole, _), (older, _)] = &*GENUINE;
    let mut bytes = whole.clone();
    for edit in input.chunks(7).take(12) {
        change(&mut bytes, older, edit);
    }
    tried(bytes, |found| GENUINE.iter().any(|(_, records)| records.starts_with(&found.records)));
}

/// Any bytes in its place are no journal, or one that somebody wrote with all its check sums.
pub(super) fn journal_noise(input: &[u8]) {
    tried(input.to_vec(), |found| found.records.iter().map(Vec::len).sum::<usize>() <= input.len());
}

pub(super) fn noise_seeds() -> Vec<Vec<u8>> {
    GENUINE.iter().flat_map(|(bytes, _)| [bytes[..1_024].to_vec(), bytes[..64].to_vec()]).collect()
}

fn change(bytes: &mut Vec<u8>, older: &[u8], edit: &[u8]) {
    let ([what, at, at_high, from, from_high, length, byte], _) = head::<7>(edit);
    if bytes.is_empty() {
        return;
    }
    // The records lie in the first kilobyte, and zeros behind them.
    let place = |low: u8, high: u8, len: usize| (usize::from(high % 4) << 8 | usize::from(low)) % len;
    let (at, from) = (place(at, at_high, bytes.len()), place(from, from_high, older.len()));
    let length = (1 + usize::from(length)).min(bytes.len() - at).min(older.len() - from);
    match what % 8 {
        0 => bytes[at] ^= 1 << (byte % 8),
        1 => bytes[at] = byte,
        2 => bytes[at..at + length].copy_from_slice(&older[from..from + length]),
        3 if from + length <= bytes.len() => bytes.copy_within(from..from + length, at),
        4 => bytes[at..at + length].fill(0),
        5 => bytes.truncate(at),
        6 => drop(bytes.drain(at..at + length)),
        _ => drop(bytes.splice(at..at, older[from..from + length].iter().copied())),
    }
}

fn tried(bytes: Vec<u8>, is_known: impl Fn(&Found) -> bool) {
    let disk = SimDisk::new();
    let bytes_max = 16 * bytes.len() + (1 << 20);
    disk.put(&path(), bytes);
    let seen = journal::read(&disk, dir(), "fuzz");
    match memory::within(bytes_max, || open(&disk)) {
        Ok((mut journal, found)) => {
            assert_eq!(seen.expect("what can be opened can be read").as_ref(), Some(&found));
            assert!(!found.records.is_empty() && is_known(&found), "not what was stored: {found:?}");
            journal.append(b"and on").expect("a disk without faults");
            let (_, again) = open(&disk).expect("what was gone on with can be opened");
            let (last, before) = again.records.split_last().expect("one was appended");
            assert!(last == b"and on" && before == found.records && again.torn_bytes == 0, "{again:?}");
        }
        Err(JournalError::Corrupt { .. } | JournalError::Disk { action: "read", .. }) => {
            assert!(seen.is_err(), "what cannot be opened is read");
        }
        Err(error) => panic!("a disk without faults: {error}"),
    }
}
