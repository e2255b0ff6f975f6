//! The bytes of version 1, as they were first written: they are read for ever, and what is written is still the same.

use std::path::Path;
use std::sync::Arc;

use emberd_model::{Flags, Offset, UnixNanos};

use super::{Driven, Read, dir, small};
use crate::cursor::CursorFile;
use crate::error::SegmentId;
use crate::format::{Commit, Head, Place, Record, SegmentHead, body_crc};
use crate::segment::segment_path;
use crate::sim::SimDisk;

const SEGMENT_HEAD: &str = "454d4245524c4f4701000000bb1daec72511529a0000000007000000000000008877665544332211290000000000000000812469\
    00000000";
const COMMIT: &str = "6543f10198c115268877665544332211290000000000000003000000000000008000000001000000010000000000000000000000\
    000000000000000000000000";
const RECORD: &str = "6552f2025ba9bcb6120000004f7011a8290000000000000001812469000000000300000001020100";
const BODY: &[u8] = b"a request, encoded";
const JOURNAL: &str = "454d4245524a4e4c0100000086512cd0df37b4cc3802a56500000000f51db7f7654af3033c54950f09000000f1e7bf8900000000\
    000000000100000000000000616c6c206f6620697400000000000000654af30308a4e61e0600000037b6f6bb0100000000000000\
    00000000000000006120737465700000";

const SALT: u64 = 0x1122_3344_5566_7788;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A segment from its bytes alone.
#[test]
fn version_1_is_read_and_written_for_ever() {
    let head = SegmentHead { segment: SegmentId(7), salt: SALT, base: Offset(41), made_at: UnixNanos(1_764_000_000) };
    let commit = Commit { first: Offset(41), spans: 3, bytes: 64 + 64, records: 1, synced: true };
    let record = Record {
        body_bytes: BODY.len() as u32,
        body_crc: body_crc(BODY),
        offset: Offset(41),
        received_at: UnixNanos(1_764_000_001),
        spans: 3,
        key: 513,
        flags: Flags::MEND,
    };
    let place = |at| Place { segment: SegmentId(7), salt: SALT, at };
    assert_eq!(head.encode()[..], bytes(SEGMENT_HEAD));
    assert_eq!(commit.encode(place(4_096))[..], bytes(COMMIT));
    assert_eq!(record.encode(place(4_160))[..], bytes(RECORD));
    assert_eq!(Head::decode(&bytes(SEGMENT_HEAD)), Head::Segment(head));

    let mut file = vec![0; 16 << 10];
    for (at, piece) in [(0, bytes(SEGMENT_HEAD)), (4_096, bytes(COMMIT)), (4_160, bytes(RECORD)), (4_200, BODY.into())]
    {
        file[at..at + piece.len()].copy_from_slice(&piece);
    }
    let disk = SimDisk::new();
    disk.put(&segment_path(dir(), SegmentId(7)), file);
    let log = Driven::open(&disk, small()).unwrap();
    assert_eq!((log.report.tail, log.report.head, log.report.torn_bytes), (Offset(41), Offset(44), 0));
    assert_eq!(log.read(), [Read::Batch(record.batch(BODY.into()))]);
}

/// A journal from its bytes alone.
#[test]
fn a_journal_of_version_1_is_read_for_ever() {
    let disk = SimDisk::new();
    disk.put(Path::new("/state/phoenix.journal"), bytes(JOURNAL));
    let found = crate::journal::read(&disk, Path::new("/state"), "phoenix").unwrap().unwrap();
    assert_eq!((found.records, found.torn_bytes), (vec![b"all of it".to_vec(), b"a step".to_vec()], 0));
}

/// A cursor file from its bytes alone.
#[test]
fn a_cursor_of_version_1_is_read_and_written_for_ever() {
    const LINE: &str = "emberd-cursor 1 phoenix 4711 4b2f123f\n";
    let disk = SimDisk::new();
    let path = Path::new("/cursors/phoenix.cursor");
    disk.put(path, LINE.into());
    let file = CursorFile::open_on(Arc::new(disk.clone()), Path::new("/cursors"), "phoenix").unwrap();
    assert_eq!(file.load().unwrap(), Some(Offset(4_711)));
    file.store(Offset(4_711)).unwrap();
    assert_eq!(disk.bytes(path).unwrap(), LINE.as_bytes());
}
