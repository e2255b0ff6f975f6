//! Disks that lie: flipped bits, lost blocks, blocks that went astray, files that are gone.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use emberd_model::{Batch, Flags, Offset, UnixNanos};
use proptest::prelude::*;

use super::{
    Driven, Read, batch, dir, entry, figure, filled, filled_within, newest_file, on_all_cores, segment_files, small,
};
use crate::error::{OpenError, SegmentId};
use crate::format::{BLOCK, Commit, Place, Record};
use crate::keeper::Bounds;
use crate::segment::{segment_path, spare_path};
use crate::sim::{Call, SimDisk, Survives};

/// A log of two segments that was stopped in order, and what was acked.
fn two_segments() -> (SimDisk, Vec<Batch>) {
    let (disk, acked) =
        filled(&[&[100, 900, 3_000], &[5_000], &[0, 17], &[9_000, 40], &[700, 700, 700], &[2_000, 8], &[64]]);
    let mut log = Driven::open(&disk, small()).unwrap();
    log.engine.mark(true);
    assert_eq!(segment_files(&disk).len(), 2);
    (disk, acked)
}

/// What a damaged log still gives, and which spans it says are lost. Panics if it gives anything that was not acked, or is
/// silent about a loss.
fn lost(disk: &SimDisk, acked: &[Batch], how: impl Fn() -> String) -> Vec<(Offset, Offset)> {
    let log = Driven::open(disk, small()).unwrap_or_else(|e| panic!("{}: {e}", how()));
    let mut expected = acked.iter();
    let mut lost = Vec::new();
    let mut at = Offset(0);
    for read in log.read() {
        match read {
            Read::Batch(batch) => {
                assert!(batch.offset == at, "{}: a silent gap at {at}", how());
                assert!(expected.any(|acked| *acked == batch), "{}: not what was acked at {at}", how());
                at = batch.end();
            }
            Read::Lost { from, to } => {
                assert!(from == at && to > from, "{}: lost {from} to {to}, but read to {at}", how());
                lost.push((from, to));
                at = to;
            }
        }
    }
    assert_eq!(at, acked.last().unwrap().end(), "{}: the end is missing", how());
    lost
}

/// What a flipped bit costs: nothing, or the one record that it is in.
fn flipped(disk: &SimDisk, acked: &[Batch], path: &Path, byte: usize, bit: usize) -> usize {
    disk.damage(path, |bytes| bytes[byte] ^= 1 << bit);
    let how = || format!("{} byte {byte} bit {bit}", path.display());
    let lost = lost(disk, acked, how);
    let whole = |(from, to): &(Offset, Offset)| acked.iter().any(|b| b.offset == *from && b.end() == *to);
    assert!(lost.len() <= 1 && lost.iter().all(whole), "{}: {lost:?}", how());
    lost.len()
}

/// How many flips must be noticed: all that hit a record's header or body.
fn bits_of_records(acked: &[Batch]) -> usize {
    acked.iter().map(|batch| 8 * (40 + batch.body.len())).sum()
}

/// Each bit of a segment of 64 KiB, flipped, costs at most the record it is in, whatever it hits: a body, a header, padding. No
/// other bytes are ever given, and all that comes after is (NATS #7549: one bit, 20,350 acked messages gone).
#[test]
fn nats_7549_a_flipped_bit_costs_one_record() {
    let began = Instant::now();
    let bounds = Bounds { segment_bytes: 64 << 10, ..small() };
    let (disk, acked) = filled_within(
        bounds.clone(),
        &[&[100, 900, 3_000], &[5_000], &[0, 17], &[9_000, 40], &[700; 9], &[12_000], &[8, 1, 900]],
    );
    Driven::open(&disk, bounds).unwrap().engine.mark(true);
    let path = segment_files(&disk)[0].clone();
    let sound = disk.bytes(&path).unwrap();
    assert_eq!((segment_files(&disk).len(), sound.len()), (1, 64 << 10));
    let [next, flips, hits] = [const { AtomicUsize::new(0) }; 3];
    on_all_cores(|| {
        // Each core on a disk of its own, 4 KiB at a time.
        let disk = disk.now().crash(Survives::Nothing);
        let from = next.fetch_add(4_096, Relaxed);
        for byte in from..sound.len().min(from + 4_096) {
            for bit in 0..8 {
                hits.fetch_add(flipped(&disk, &acked, &path, byte, bit), Relaxed);
                flips.fetch_add(1, Relaxed);
                disk.damage(&path, |bytes| bytes.clone_from(&sound));
            }
        }
        from + 4_096 < sound.len()
    });
    let (flips, hits, records) = (flips.into_inner(), hits.into_inner(), acked.len());
    assert_eq!(flips, 524_288);
    assert_eq!(hits, bits_of_records(&acked), "a flip in a record went unnoticed");
    let said = format!(
        "\"flips\":{flips},\"records_lost_max\":1,\"wrong_payloads\":0,\"flips_that_cost_a_record\":{hits},\
         \"records\":{records}"
    );
    figure("F4", began, &said);
}

/// The same where a segment ends and the next begins: one bit of each byte.
#[test]
fn a_flipped_bit_costs_one_record_across_segments() {
    let (disk, acked) = two_segments();
    let mut hits = 0;
    for path in segment_files(&disk) {
        let sound = disk.bytes(&path).unwrap();
        for byte in 0..sound.len() {
            hits += flipped(&disk, &acked, &path, byte, byte % 8);
            disk.damage(&path, |bytes| bytes.clone_from(&sound));
        }
    }
    assert_eq!(hits, bits_of_records(&acked) / 8, "a flip in a record went unnoticed");
}

/// A block that is lost, or replaced by any other block of the log, costs the records that touch it and no other.
#[test]
fn a_block_gone_astray_costs_what_was_in_it() {
    let (disk, acked) = two_segments();
    let block = BLOCK as usize;
    for path in segment_files(&disk) {
        let sound = disk.bytes(&path).unwrap();
        let blocks = sound.len() / block;
        for at in 0..blocks {
            let zeros = vec![0; block];
            let others = (0..blocks).map(|other| sound[other * block..][..block].to_vec());
            for (nth, other) in others.chain([zeros]).enumerate() {
                disk.damage(&path, |bytes| bytes[at * block..][..block].copy_from_slice(&other));
                let how = format!("{}: block {nth} over block {at}", path.display());
                let lost = lost(&disk, &acked, || how.clone());
                let spans = acked.iter().filter(|b| lost.iter().any(|(from, to)| b.offset >= *from && b.end() <= *to));
                // A block holds four kilobytes of records; those that only begin or end in it go too.
                let inside: usize = spans.map(|b| b.body.len().min(block)).sum();
                assert!(inside <= 3 * block, "{how}: {lost:?}");
                disk.damage(&path, |bytes| bytes.clone_from(&sound));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However a segment's bytes are cut up, moved and overwritten, what is read is what was acked, and all else is named.
    #[test]
    fn whatever_is_read_was_acked(edits in prop::collection::vec((0usize..8, 0usize..65_536, 0usize..65_536, 1usize..6_000), 1..8)) {
        let (disk, acked) = two_segments();
        let paths = segment_files(&disk);
        for (kind, at, from, len) in &edits {
            disk.damage(&paths[kind % 2], |bytes| {
                let (at, from) = (at % bytes.len(), from % bytes.len());
                let len = *(len.min(&(bytes.len() - at)).min(&(bytes.len() - from)));
                match kind / 2 {
                    0 => bytes.copy_within(from..from + len, at),
                    1 => bytes[at..at + len].fill(0),
                    2 => bytes[at..at + len].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7)),
                    _ => bytes[at] ^= 1 << (from % 8),
                }
            });
        }
        let log = Driven::open(&disk, small()).unwrap();
        let mut at = log.report.tail;
        for read in log.read() {
            match read {
                Read::Batch(batch) => {
                    prop_assert!(acked.contains(&batch));
                    prop_assert_eq!(batch.offset, at);
                    at = batch.end();
                }
                Read::Lost { from, to } => {
                    prop_assert_eq!(from, at);
                    at = to;
                }
            }
        }
        prop_assert_eq!(at, log.report.head);
    }

    /// A file of any bytes is no log, and nothing is read from it, and nothing breaks.
    #[test]
    fn noise_is_no_log(noise in prop::collection::vec(any::<u8>(), 0..20_000), magic in any::<bool>()) {
        let disk = SimDisk::new();
        let mut noise = noise;
        if magic && noise.len() > 8 {
            noise[..8].copy_from_slice(b"EMBERLOG");
        }
        disk.put(&segment_path(dir(), SegmentId(1)), noise);
        let log = Driven::open(&disk, small()).unwrap();
        prop_assert_eq!((log.report.head, log.read().len()), (Offset(0), 0));
    }
}

/// A last write that was cut at any byte is gone from the record on that it was cut in; all before stays.
#[test]
fn a_torn_last_write_is_cut_where_it_is_torn() {
    let (disk, acked) = filled(&[&[100], &[3_000], &[900, 2_500, 1_200]]);
    let path = newest_file(&Driven::open(&disk, small()).unwrap());
    // Opening has written a mark; the disk as the power left it is the one before.
    let (disk, _) = filled(&[&[100], &[3_000], &[900, 2_500, 1_200]]);
    let sound = disk.bytes(&path).unwrap();
    // Where each record's body ends; the next begins at a multiple of eight.
    let ends = [64 + 940, 64 + 944 + 2_540, 64 + 944 + 2_544 + 1_240].map(|end| 3 * BLOCK as usize + end);
    for cut in 3 * BLOCK as usize..=ends[2] {
        for truncated in [false, true] {
            disk.damage(&path, |bytes| match truncated {
                true => bytes.truncate(cut),
                false => bytes[cut..].fill(0),
            });
            let log = Driven::open(&disk, small()).unwrap();
            let whole = 2 + ends.iter().filter(|end| **end <= cut).count();
            // The last bytes of a record may be zeros anyway.
            let held = log.batches();
            assert!(
                held.len() == whole || held.len() == whole + 1 && !truncated,
                "cut at {cut}: {} batches",
                held.len()
            );
            assert!(held == acked[..held.len()], "cut at {cut}");
            // A commit's header ends in zeros.
            let headed = cut >= 3 * BLOCK as usize + if truncated { 64 } else { 41 };
            assert_eq!(log.report.torn_bytes > 0, held.len() < 5 && headed, "cut at {cut}");
            assert!(log.report.damaged.is_empty(), "cut at {cut}");
            disk.damage(&path, |bytes| bytes.clone_from(&sound));
        }
    }
}

/// A header that is lost costs nothing: the commits say the same.
#[test]
fn a_lost_segment_header_costs_nothing() {
    let (disk, acked) = two_segments();
    for path in segment_files(&disk) {
        disk.damage(&path, |bytes| bytes[..BLOCK as usize].fill(0));
        assert!(lost(&disk, &acked, || "no header".into()).is_empty());
    }
}

/// A segment that is gone from the middle is reported with its spans; what comes after it is read.
#[test]
fn a_missing_segment_is_reported() {
    let (disk, acked) = filled(&[&[20_000], &[20_000], &[20_000, 5], &[20_000]]);
    let gone = segment_files(&disk)[1].clone();
    crate::disk::Disk::remove(&disk, &gone).unwrap();
    assert_eq!(lost(&disk, &acked, || "a segment is gone".into()), [(acked[1].offset, acked[1].end())]);
    let log = Driven::open(&disk, small()).unwrap();
    assert_eq!(log.report.damaged.len(), 1);
    assert_eq!((log.report.damaged[0].from, log.report.damaged[0].to), (acked[1].offset, acked[1].end()));
}

/// Where a segment has lost its header and its first commit, what is missing before its first record is reported too.
#[test]
fn a_lost_beginning_is_reported() {
    let (disk, acked) = filled(&[&[20_000], &[20_000], &[5_000, 5], &[20_000]]);
    let path = segment_files(&disk)[1].clone();
    disk.damage(&path, |bytes| bytes[..6 * BLOCK as usize].fill(0));
    let log = Driven::open(&disk, small()).unwrap();
    let reported: Vec<_> = log.report.damaged.iter().map(|damage| (damage.from, damage.to)).collect();
    assert_eq!(reported, [(acked[1].offset, acked[1].end())]);
    drop(log);
    assert_eq!(lost(&disk, &acked, || "no beginning".into()), reported);
}

/// A segment that lost its header before anything proved its first commit gets the header back.
#[test]
fn a_torn_header_is_repaired() {
    let (disk, acked) = filled(&[&[100, 200]]);
    let path = segment_files(&disk)[0].clone();
    disk.damage(&path, |bytes| bytes[..BLOCK as usize].fill(0));
    assert!(lost(&disk, &acked, || "no header".into()).is_empty());
    let header = crate::inspect::segments(&disk, dir()).unwrap().0[0].header;
    assert!(matches!(header, crate::inspect::Header::Written { base: Offset(0), .. }), "{header:?}");
}

/// Damage before a later commit is reported as damage; recovering again reports the same.
#[test]
fn damage_after_an_ack_is_told_from_a_torn_write() {
    let (disk, acked) = filled(&[&[100], &[3_000], &[200]]);
    let path = segment_files(&disk)[0].clone();
    disk.damage(&path, |bytes| bytes[2 * BLOCK as usize + 500] ^= 1);
    for _ in 0..2 {
        let log = Driven::open(&disk, small()).unwrap();
        assert_eq!(log.report.torn_bytes, 0);
        assert_eq!(log.report.damaged.len(), 1, "{:?}", log.report);
        assert_eq!((log.report.damaged[0].from, log.report.damaged[0].to), (acked[1].offset, acked[1].end()));
    }
}

/// A file that is used again gives nothing of its last life: not when its new contents are cut off anywhere, and not even
/// when an old block lies where a new one should, under the same number (OpenTelemetry
/// Collector #5894: pages in use twice).
#[test]
fn otelcol_5894_a_recycled_segment_resurrects_nothing() {
    let (old, _) = two_segments();
    let (new, acked) = {
        let disk = SimDisk::new();
        let mut log = Driven::open(&disk, small()).unwrap();
        // The same numbers, as after a directory was emptied by hand; another life.
        log.engine.salts = Box::new(|| 77);
        let fresh = [entry(501, 100), entry(502, 5_000), entry(503, 9_000)];
        let acked: Vec<Batch> =
            fresh.iter().map(|e| batch(e, log.append(std::slice::from_ref(e))[0].clone().unwrap())).collect();
        (disk, acked)
    };
    let path = segment_files(&new)[0].clone();
    let (old, sound) = (old.bytes(&path).unwrap(), new.bytes(&path).unwrap());
    // Not the header: with that, it would be the old segment.
    for block in 1..old.len() / BLOCK as usize {
        let at = block * BLOCK as usize;
        // Everything from here on is from the last life, or only this block is.
        for to in [old.len(), at + BLOCK as usize] {
            new.damage(&path, |bytes| bytes[at..to].copy_from_slice(&old[at..to]));
            let log = Driven::open(&new, small()).unwrap();
            let invented = log.read().into_iter().any(|read| matches!(read, Read::Batch(b) if !acked.contains(&b)));
            assert!(!invented, "an old batch came back, from block {block}");
            new.damage(&path, |bytes| bytes.clone_from(&sound));
        }
    }
}

/// What a torn write left behind the end does not come back later, when the batch that took its place is damaged.
#[test]
fn a_torn_write_leaves_nothing_to_find() {
    for mark_survives in [false, true] {
        let (disk, acked) = filled(&[&[100]]);
        let mut log = Driven::open(&disk, small()).unwrap();
        let at = log.engine.writer.active().unwrap().at as usize;
        let path = newest_file(&log);
        let before = disk.bytes(&path).unwrap();
        // Three blocks, of which the first does not reach the disk, and the rest does. Nobody was told.
        log.append(&[entry(2, 3_000), entry(7, 3_000), entry(12, 3_000)]);
        drop(log);
        disk.damage(&path, |bytes| match mark_survives {
            true => bytes[at..at + 4_096].copy_from_slice(&before[at..at + 4_096]),
            false => bytes[at..at + 4_096].fill(0),
        });
        let mut log = Driven::open(&disk, small()).unwrap();
        assert_eq!(log.batches(), acked);
        // A batch with the offsets of the lost ones, acked, and then lost to damage.
        let fresh = log.append(&[crate::log::Entry { spans: 9.try_into().unwrap(), ..entry(20, 10) }]);
        assert_eq!(fresh[0].clone().unwrap(), acked[0].end());
        disk.damage(&path, |bytes| bytes[at..at + 4_096].fill(0));
        let read = log.read();
        let lost = Read::Lost { from: acked[0].end(), to: acked[0].end().plus(9) };
        assert!(read == [Read::Batch(acked[0].clone()), lost], "what was never acked came back, mark {mark_survives}");
    }
}

/// A client cannot put into a body what passes for a record when the real one around it is damaged.
#[test]
fn a_body_cannot_forge_a_record() {
    let forged = Record {
        body_bytes: 8,
        body_crc: crate::format::body_crc(b"INVENTED"),
        offset: Offset(0),
        received_at: UnixNanos(1),
        spans: 1,
        key: 0,
        flags: Flags(0),
    };
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    let salt = 0x5a17;
    log.engine.salts = Box::new(move || salt);
    // The body knows its segment and its place, and guesses at the salt; for the last guess it was told.
    let body_at = BLOCK + 64 + 40;
    let place = |salt, at| Place { segment: SegmentId(1), salt, at };
    let with = |guess| [&forged.encode(place(guess, body_at))[..], b"INVENTED"].concat();
    for (guess, comes_through) in [(0, false), (1, false), (salt, true)] {
        let mut log = Driven::open(&SimDisk::new(), small()).unwrap();
        log.engine.salts = Box::new(move || salt);
        let disk = log.disk.clone();
        let body = crate::log::Entry { body: with(guess).into(), ..entry(4, 0) };
        log.append(&[body]);
        log.append(&[entry(5, 10)]);
        let path = newest_file(&log);
        drop(log);
        let file = disk.open(&path, crate::disk::Access::Write).unwrap();
        // The record around it loses its header.
        file.write_at(&[0; 40], BLOCK + 64).unwrap();
        let mut window = crate::scan::Window::new(&*file, 32 << 10, 4096);
        let mut walk = crate::scan::Walk::new(SegmentId(1), salt, Offset(0), Offset(0));
        let first = walk.step(&mut window, Offset(6)).unwrap();
        assert_eq!(matches!(first, crate::scan::Step::Batch(_)), comes_through, "guess {guess}: {first:?}");
    }
    drop((disk, log));
}

/// Lengths that make no sense are not followed, even where the check sum was made to fit.
#[test]
fn absurd_lengths_lead_nowhere() {
    for body_bytes in [0, 1, 4_097, 1 << 31, u32::MAX] {
        let (disk, acked) = filled(&[&[100], &[3_000], &[200]]);
        let log = Driven::open(&disk, small()).unwrap();
        let active = log.engine.writer.active().unwrap();
        let place = Place { segment: active.id, salt: active.salt, at: 2 * BLOCK + 64 };
        let path = newest_file(&log);
        drop(log);
        disk.damage(&path, |bytes| {
            let at = place.at as usize;
            let record = Record::decode(&bytes[at..], place).unwrap();
            bytes[at..at + 40].copy_from_slice(&Record { body_bytes, ..record }.encode(place));
        });
        let lost = lost(&disk, &acked, || format!("length {body_bytes}"));
        assert_eq!(lost.first().map(|(from, _)| *from), Some(acked[1].offset), "length {body_bytes}");
    }
}

/// The same of a commit's header: how many bytes and records it says it holds.
#[test]
fn absurd_commits_lead_nowhere() {
    for (bytes, records) in [(0, 1), (1, 1), (64, 0), (1 << 31, 1), (u32::MAX, u32::MAX), (1_104, u32::MAX), (1_104, 0)]
    {
        for nth in 1..=3 {
            let (disk, acked) = filled(&[&[100], &[1_000], &[200]]);
            let log = Driven::open(&disk, small()).unwrap();
            let active = log.engine.writer.active().unwrap();
            let place = Place { segment: active.id, salt: active.salt, at: nth * BLOCK };
            let path = newest_file(&log);
            drop(log);
            disk.damage(&path, |file| {
                let at = place.at as usize;
                let commit = Commit::decode(&file[at..], place).unwrap();
                // As many spans as it takes for the number of records to make sense.
                let spans = commit.spans.max(records.into());
                file[at..at + 64].copy_from_slice(&Commit { bytes, records, spans, ..commit }.encode(place));
            });
            let before = disk.bytes_read();
            let log = Driven::open(&disk, small()).unwrap();
            let read = log.read();
            let batches = read.iter().filter_map(|read| if let Read::Batch(batch) = read { Some(batch) } else { None });
            assert!(batches.clone().all(|batch| acked.contains(batch)), "invented, commit {nth} of {bytes}");
            assert!(batches.count() >= 2, "commit {nth} of {bytes} bytes and {records} records took others with it");
            assert!(disk.bytes_read() - before < 10 * (32 << 10), "read over and over");
        }
    }
}

/// Files that are not the log's are left alone and named; leftovers of the log's own are put away.
#[test]
fn unknown_files_are_left_alone() {
    let (disk, acked) = two_segments();
    let unknown = ["notes.txt", "00000000000000000009.seg.bak", "7.seg"];
    for name in unknown {
        disk.put(&dir().join(name), b"mine".to_vec());
    }
    disk.put(&segment_path(dir(), SegmentId(90)), b"not a segment at all, but someone named it like one".to_vec());
    disk.put(&segment_path(dir(), SegmentId(91)), Vec::new());
    disk.put(&spare_path(dir(), SegmentId(80)), vec![1; 100]);
    disk.put(&dir().join("prepare.tmp"), vec![0; 5_000]);
    assert!(lost(&disk, &acked, || "unknown files".into()).is_empty());
    let mut log = Driven::open(&disk, small()).unwrap();
    let mut named = log.report.unknown.clone();
    named.sort();
    assert_eq!(named, ["00000000000000000009.seg.bak", "00000000000000000090.seg", "7.seg", "notes.txt"]);
    for name in unknown {
        assert_eq!(disk.bytes(&dir().join(name)).unwrap(), b"mine", "{name} was touched");
    }
    assert!(disk.bytes(&segment_path(dir(), SegmentId(90))).unwrap().starts_with(b"not a segment"));
    let gone = [segment_path(dir(), SegmentId(91)), spare_path(dir(), SegmentId(80)), dir().join("prepare.tmp")];
    assert!(gone.iter().all(|path| disk.bytes(path).is_none()), "a leftover is still there");
    // The log goes on beyond the number that is taken, and is found again.
    let more: Vec<Batch> = (0..5)
        .map(|n| entry(n, 20_000))
        .map(|e| batch(&e, log.append(std::slice::from_ref(&e))[0].clone().unwrap()))
        .collect();
    drop(log);
    assert!(lost(&disk, &[acked, more].concat(), || "beyond a foreign number".into()).is_empty());
}

/// A segment of a newer format keeps the log from opening, and nothing is changed; a flipped bit in the version does not.
#[test]
fn the_future_is_refused_and_left_as_it_is() {
    let (disk, acked) = two_segments();
    let path = segment_files(&disk)[1].clone();
    let sound = disk.bytes(&path).unwrap();
    disk.damage(&path, |bytes| bytes[8] = 2);
    assert!(lost(&disk, &acked, || "a flipped version".into()).is_empty());

    disk.damage(&path, |bytes| {
        bytes.clone_from(&sound);
        bytes[8] = 2;
        let crc = crc_fast::crc32_iscsi(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    });
    let calls = disk.calls();
    let refused = Driven::open(&disk, small()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::FutureVersion { version: 2, known: 1, .. }), "{refused}");
    assert_eq!(disk.calls(), calls, "something was changed");
}

/// How long recovery takes depends on one segment, not on the backlog (Vector #26035 read all of it, and ran out of memory).
#[test]
fn vector_26035_a_start_reads_headers_and_one_segment() {
    let disk = SimDisk::new();
    let bounds = crate::keeper::Bounds { budget_bytes: 1 << 40, ..small() };
    let mut log = Driven::open(&disk, bounds.clone()).unwrap();
    for n in 0..1_000 {
        log.append(&[entry(n, 25_000)])[0].clone().unwrap();
    }
    drop(log);
    let before = disk.bytes_read();
    let log = Driven::open(&disk, bounds).unwrap();
    assert_eq!(log.report.segments, 1_000);
    let read = disk.bytes_read() - before;
    assert!(read < 1_000 * 64 + 8 * (32 << 10), "{read} bytes were read of {}", 1_000 * (32 << 10));
}

/// An error while reading a segment at the start is an error, not an empty log.
#[test]
fn a_disk_that_cannot_be_read_is_no_empty_log() {
    let (disk, _) = two_segments();
    for call in [Call::Read, Call::Open, Call::List] {
        for nth in 0..3 {
            disk.heal();
            disk.fail(call, nth, crate::sim::Fault::Io, true);
            let opened = Driven::open(&disk, small());
            assert!(
                matches!(opened.map(|_| ()), Err(OpenError::Disk { .. })) || call == Call::List && nth > 0,
                "{call:?} {nth}"
            );
        }
    }
}
