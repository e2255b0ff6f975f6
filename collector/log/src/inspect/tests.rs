//! What inspection says is what the log would say.

use super::*;
use crate::sim::SimDisk;
use crate::tests::{Driven, Read, batch, dir, entry, filled, segment_files, small};

/// A sound log: every record is counted, in every segment, and nothing is changed.
#[test]
fn a_sound_log_is_counted() {
    let (disk, acked) = filled(&[&[100, 900], &[20_000], &[5_000, 9], &[30_000], &[1]]);
    crate::keeper::lock(&Driven::open(&disk, small()).unwrap().engine.keeper).stock().unwrap();
    disk.put(&dir().join("notes.txt"), Vec::new());
    let calls = disk.calls();
    let (found, unknown) = segments(&disk, dir()).unwrap();
    assert_eq!(unknown, ["notes.txt"]);
    assert_eq!(found.last().unwrap().header, Header::Blank, "the prepared one");
    let checked: Vec<Checked> = found.iter().filter_map(|found| verify(&disk, found).unwrap()).collect();
    assert_eq!(checked.len() + 1, found.len());
    assert_eq!(checked.iter().map(|checked| checked.records).sum::<u64>(), acked.len() as u64);
    assert_eq!(checked.iter().map(|checked| checked.spans).sum::<u64>(), acked.last().unwrap().end().0);
    let bodies: usize = acked.iter().map(|batch| batch.body.len()).sum();
    assert_eq!(checked.iter().map(|checked| checked.body_bytes).sum::<u64>(), bodies as u64);
    assert!(checked.windows(2).all(|pair| pair[0].end == pair[1].base));
    assert!(checked.iter().all(|checked| checked.damaged.is_empty() && checked.torn_bytes == 0));
    assert_eq!(checked[0].received.unwrap().0, acked[0].received_at);
    assert_eq!(disk.calls(), calls, "something was changed");
}

/// Damage is found where the log's readers would meet it, a torn end is told from it, and a lost header is named.
#[test]
fn damage_is_found_where_readers_meet_it() {
    let (disk, _) = filled(&[&[100], &[3_000], &[200], &[4_000, 4_000]]);
    let path = segment_files(&disk)[0].clone();
    disk.damage(&path, |bytes| {
        bytes[2 * 4_096 + 500] ^= 1;
        let torn = 5 * 4_096;
        bytes[torn..].fill(0);
        bytes[..4_096].fill(0);
    });
    let (found, _) = segments(&disk, dir()).unwrap();
    assert_eq!(found[0].header, Header::Blank);
    let checked = verify(&disk, &found[0]).unwrap().unwrap();
    let log = Driven::open(&disk, small()).unwrap();
    let lost = log.read().into_iter().filter_map(|read| match read {
        Read::Lost { from, to } => Some((from, to)),
        Read::Batch(_) => None,
    });
    assert!(checked.damaged.iter().map(|damage| (damage.from, damage.to)).eq(lost));
    assert_eq!(checked.damaged, log.report.damaged);
    assert_eq!((checked.damaged.len(), checked.torn_bytes), (1, log.report.torn_bytes));
    assert!(checked.torn_bytes > 0 && checked.end == log.report.head);
}

/// A segment of the future, and what is none, are named and not looked into.
#[test]
fn what_is_not_understood_is_named() {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, small()).unwrap();
    let acked = batch(&entry(1, 1), log.append(&[entry(1, 1)])[0].clone().unwrap());
    let path = segment_files(&disk)[0].clone();
    let header = |disk: &SimDisk| segments(disk, dir()).unwrap().0[0].header;
    assert!(matches!(header(&disk), Header::Written { base, .. } if base == acked.offset));
    disk.damage(&path, |bytes| bytes[8] = 3);
    assert_eq!(header(&disk), Header::Damaged);
    disk.damage(&path, |bytes| {
        let crc = crc_fast::crc32_iscsi(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(header(&disk), Header::Future { version: 3 });
    disk.damage(&path, |bytes| bytes[0] = b'X');
    assert_eq!(header(&disk), Header::Foreign);
}

/// Whatever place reading begins at, each batch behind it is given once and in order, and what is damaged between is named.
#[test]
fn batches_are_read_from_any_place() {
    let (disk, acked) = filled(&[&[100, 900], &[20_000], &[5_000, 9], &[30_000], &[1]]);
    let end = acked.last().unwrap().end();
    for from in 0..=end.0 {
        let mut read = Vec::new();
        let to = batches(&disk, dir(), Offset(from), |_, batch| read.push(batch), |_| true).unwrap();
        assert_eq!(read, acked.iter().filter(|batch| batch.end().0 > from).cloned().collect::<Vec<_>>(), "from {from}");
        assert_eq!((to.end, to.damaged), (end, Vec::new()));
    }
    let lost = &acked[2];
    let path = &segment_files(&disk)[0];
    let at = disk.bytes(path).unwrap().windows(64).position(|bytes| *bytes == lost.body[..64]).unwrap();
    disk.damage(path, |bytes| bytes[at] ^= 1);
    let mut read = 0;
    let to = batches(&disk, dir(), Offset(0), |_, _| read += 1, |_| true).unwrap();
    assert_eq!((read, to.damaged), (acked.len() - 1, vec![(lost.offset, lost.end())]));
}
