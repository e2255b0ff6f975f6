//! The log's files: segments that a disk has changed in any way, noise in their place, cursors.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use emberd_log::error::CursorError;
use emberd_log::inside::{Read, recovered};
use emberd_log::log::{Appender, Entry, Log};
use emberd_log::sim::SimDisk;
use emberd_log::{Config, CursorFile, Disk, DiskLog, OpenError, inspect};
use emberd_model::clock::Still;
use emberd_model::{Batch, Flags, Offset, UnixNanos};

use super::head;
use crate::memory;

const SEGMENT_BYTES: u64 = 32 << 10;
const BLOCK: usize = 4096;

fn dir() -> &'static Path {
    Path::new("/log")
}

/// Two segments that the log itself wrote, and what it acknowledged.
struct Genuine {
    files: Vec<(std::path::PathBuf, Vec<u8>)>,
    acked: Vec<Batch>,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let disk = SimDisk::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let config = Config { budget_bytes: 256 << 10, segment_bytes: SEGMENT_BYTES, ..Config::in_dir(dir()) };
    let clock = Arc::new(Still::at(UnixNanos(1)));
    let (log, _) = DiskLog::open(config, Arc::new(disk.clone()), clock).expect("an empty disk has room for a log");
    log.register("fuzz", Offset(0));
    let mut acked = Vec::new();
    for (nth, bytes) in [100, 900, 3_000, 5_000, 0, 17, 9_000, 40, 700, 2_000, 7_000, 64].into_iter().enumerate() {
        let entry = entry(nth as u32, bytes);
        let offset = runtime.block_on(log.append(entry.clone())).expect("it is appended");
        acked.push(Batch {
            offset,
            spans: entry.spans.get(),
            received_at: entry.received_at,
            key: entry.key,
            flags: entry.flags,
            body: entry.body,
        });
    }
    assert_eq!(log.head(), acked.last().expect("there are some").end());
    runtime.block_on(log.seal());
    drop(log);
    let paths = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg"));
    let files: Vec<_> = paths.filter_map(|path| disk.bytes(&path).map(|bytes| (path, bytes))).collect();
    assert!(files.len() >= 2, "{} segments", files.len());
    Genuine { files, acked }
});

/// A batch whose every byte follows from `nth`, zeros among them.
fn entry(nth: u32, bytes: usize) -> Entry {
    let mut state = nth;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Entry {
        spans: NonZeroU32::MIN.saturating_add(nth % 5),
        received_at: UnixNanos(u64::from(1_000 + nth)),
        key: nth as u16,
        flags: if nth.is_multiple_of(3) { Flags::MEND } else { Flags(0) },
        body: (0..bytes).map(|_| next()).collect(),
    }
}

/// However genuine segments are cut up, moved, overwritten and mixed, what is read is what was acknowledged, and all else between
/// tail and head is named as lost; looking at it changes nothing; a second recovery finds what the first did.
pub(super) fn segment(input: &[u8]) {
    let genuine = &*GENUINE;
    let mut files: Vec<Vec<u8>> = genuine.files.iter().map(|(_, bytes)| bytes.clone()).collect();
    for edit in input.chunks(8).take(16) {
        change(&mut files, edit);
    }
    let disk = SimDisk::new();
    for ((path, _), bytes) in genuine.files.iter().zip(files) {
        // An empty file is one that was taken away.
        if !bytes.is_empty() {
            disk.put(path, bytes);
        }
    }
    // The disk itself is in memory: its files, and what is written to them once more.
    let held = memory::within(16 << 20, || read(&disk, |batch| genuine.acked.contains(batch)));
    let again = read(&disk, |batch| genuine.acked.contains(batch));
    assert_eq!(held, again, "a second recovery finds something else");
}

/// One edit: what, in which file, where, from where, how much.
fn change(files: &mut [Vec<u8>], edit: &[u8]) {
    let ([what, at, at_low, from, from_low, length, length_low, byte], _) = head::<8>(edit);
    let file = usize::from(what >> 4) % files.len();
    let other = usize::from(what >> 6) % files.len();
    let source = files[other].clone();
    let bytes = &mut files[file];
    if bytes.is_empty() || source.is_empty() {
        return;
    }
    // Places by blocks for the first byte, by bytes for the second and one more bit: headers lie at the starts of blocks.
    let place = |high: u8, low: u8, len: usize| (usize::from(high >> 1) * BLOCK / 2 + usize::from(low)) % len;
    let (at, from) = (place(at, at_low, bytes.len()), place(from, from_low, source.len()));
    let length = (usize::from(length >> 4) * BLOCK / 2 + usize::from(length_low)).max(1);
    let length = length.min(bytes.len() - at).min(source.len() - from);
    match what % 8 {
        0 => bytes[at..at + length].copy_from_slice(&source[from..from + length]),
        1 => bytes[at..at + length].fill(0),
        2 => bytes[at] ^= 1 << (byte % 8),
        3 => bytes[at] = byte,
        4 => bytes.truncate(at),
        5 => bytes.extend_from_slice(&source[from..from + length]),
        6 => drop(bytes.drain(at..at + length)),
        _ => bytes[at..at + length].fill(byte),
    }
    bytes.truncate(4 * SEGMENT_BYTES as usize);
}

/// What a log gives, having been recovered; panics if it gives a batch that is not `known`, or is silent about a gap.
fn read(disk: &SimDisk, known: impl Fn(&Batch) -> bool) -> Vec<Read> {
    verify(disk);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (report, all) = match recovered(&shared, dir(), SEGMENT_BYTES) {
        Ok(found) => found,
        Err(OpenError::FutureVersion { .. }) => return Vec::new(),
        Err(error) => panic!("a disk without faults: {error}"),
    };
    let mut at = report.tail;
    for read in &all {
        match read {
            Read::Batch(batch) => {
                assert_eq!(batch.offset, at, "a silent gap");
                assert!(known(batch), "a batch that was not written, at {at}");
                at = batch.end();
            }
            Read::Lost { from, to } => {
                assert!(*from == at && to > from, "lost {from} to {to}, but read to {at}");
                at = *to;
            }
        }
    }
    assert_eq!(at, report.head, "the end is missing");
    all
}

/// Looking at the segments counts what can be read of each, and changes nothing.
fn verify(disk: &SimDisk) {
    let calls = disk.calls();
    let (found, unknown) = inspect::segments(disk, dir()).expect("a disk without faults");
    assert!(unknown.is_empty());
    for found in found {
        if let Some(checked) = inspect::verify(disk, &found).expect("a disk without faults") {
            assert!(checked.spans <= checked.end.since(checked.base), "{checked:?}");
            assert!(checked.damaged.iter().all(|damage| damage.from < damage.to), "{checked:?}");
            assert!(checked.body_bytes <= found.file_bytes, "{checked:?}");
        }
    }
    assert_eq!(disk.calls(), calls, "looking changed something");
}

pub(super) fn segment_seeds() -> Vec<Vec<u8>> {
    let start = |bytes: &Vec<u8>, blocks: usize| [&[1][..], &bytes[..(blocks * BLOCK).min(bytes.len())]].concat();
    GENUINE.files.iter().flat_map(|(_, bytes)| [start(bytes, 1), start(bytes, 2)]).collect()
}

/// Any bytes under a segment's name are no log, or as much of one as somebody wrote there with all its check sums.
pub(super) fn segment_noise(input: &[u8]) {
    let ([number], bytes) = head::<1>(input);
    let disk = SimDisk::new();
    disk.put(&dir().join(format!("{number:020}.seg")), bytes.to_vec());
    let bytes_max = 16 * bytes.len() + (8 << 20);
    // A batch that carries its check sums was written, if not by this process.
    let held = memory::within(bytes_max, || read(&disk, |batch| batch.body.len() <= bytes.len()));
    assert_eq!(held, read(&disk, |_| true), "a second recovery finds something else");
}

fn cursor_on(disk: &SimDisk) -> CursorFile {
    CursorFile::open_on(Arc::new(disk.clone()), Path::new("/cursors"), "phoenix").expect("a plain name")
}

pub(super) fn cursor_seeds() -> Vec<Vec<u8>> {
    let line = |offset| {
        let disk = SimDisk::new();
        let cursor = cursor_on(&disk);
        cursor.store(Offset(offset)).expect("a disk without faults");
        disk.bytes(cursor.path()).unwrap_or_default()
    };
    [0, 7, 1_795_219_200, u64::MAX].map(line).to_vec()
}

/// Bytes are a cursor only if they are the very line that storing it writes; a cursor is then stored over whatever was there.
pub(super) fn cursor(input: &[u8]) {
    let disk = SimDisk::new();
    let cursor = cursor_on(&disk);
    disk.put(cursor.path(), input.to_vec());
    let offset = match cursor.load() {
        Ok(Some(offset)) => {
            cursor.store(offset).expect("a disk without faults");
            assert_eq!(disk.bytes(cursor.path()).as_deref(), Some(input), "another line for {offset}");
            offset
        }
        Ok(None) => panic!("there is a file"),
        Err(CursorError::Corrupt { .. }) => Offset(u64::from_le_bytes(head::<8>(input).0)),
        Err(error) => panic!("a disk without faults: {error}"),
    };
    cursor.store(offset).expect("a disk without faults");
    assert_eq!(cursor.load().expect("it was just stored"), Some(offset));
}
