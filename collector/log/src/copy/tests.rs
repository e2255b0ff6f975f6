//! A copy of a log that goes on meanwhile opens with all that was acked before it began, and nothing in it is damaged.

use super::*;
use crate::sim::SimDisk;
use crate::tests::{Driven, Read, batch, dir, entry, filled, small};

fn to() -> &'static Path {
    Path::new("/copy")
}

/// The copy, as the log of another disk.
fn opened(disk: &SimDisk, copied: &Copied) -> Driven {
    let other = SimDisk::new();
    for file in &copied.files {
        other.put(&dir().join(file.file_name().unwrap()), disk.bytes(file).unwrap());
    }
    Driven::open(&other, small()).unwrap()
}

#[test]
fn a_copy_taken_while_others_write_is_whole() {
    for writes in 0..6 {
        let (disk, acked) = filled(&[&[100, 900], &[20_000], &[5_000, 9], &[30_000], &[1], &[3_000]]);
        disk.create_dir(to()).unwrap();
        let mut log = Driven::open(&disk, small()).unwrap();
        let (mut n, mut later) = (100, Vec::new());
        let copied = copy(&disk, dir(), to(), |done, all| {
            assert!(done <= all);
            for _ in 0..writes {
                n += 1;
                let entry = entry(n, 700 * (n as usize % 9) + 1);
                if let Ok(offset) = log.append(std::slice::from_ref(&entry))[0].clone() {
                    later.push(batch(&entry, offset));
                }
            }
        })
        .unwrap();
        assert_eq!(copied.tail, Some(Offset(0)));
        let log = opened(&disk, &copied);
        assert_eq!((log.report.damaged.len(), log.report.head), (0, copied.head), "{writes}");
        let read: Vec<Read> = log.read();
        let before: Vec<Read> = acked.iter().cloned().map(Read::Batch).collect();
        assert!(read.starts_with(&before), "{writes}: {} of {}", read.len(), before.len());
        // What came meanwhile is there in its order or not at all.
        let after: Vec<Read> = later.into_iter().map(Read::Batch).collect();
        assert!(after.starts_with(&read[before.len()..]), "{writes}");
    }
}

/// What everyone passed and was used again while it was copied is left out, with all that lies before it; what stays has no gap.
#[test]
fn what_goes_meanwhile_is_left_out() {
    let (disk, acked) = filled(&[&[30_000], &[30_000], &[30_000], &[30_000], &[1]]);
    disk.create_dir(to()).unwrap();
    let paths: Vec<PathBuf> = crate::tests::segment_files(&disk);
    let mut nth = 0;
    let copied = copy(&disk, dir(), to(), |_, _| {
        nth += 1;
        if nth == 2 {
            for path in &paths[..2] {
                disk.remove(path).unwrap();
            }
        }
    })
    .unwrap();
    // The first had been copied whole by then, and yet must not stand before a gap.
    assert_eq!(copied.tail, Some(acked[2].offset));
    let kept: Vec<Read> = acked[2..].iter().cloned().map(Read::Batch).collect();
    assert_eq!(opened(&disk, &copied).read(), kept);
}

/// A log without a batch gives a copy without a file.
#[test]
fn nothing_is_copied_as_nothing() {
    let disk = SimDisk::new();
    disk.create_dir(dir()).unwrap();
    disk.create_dir(to()).unwrap();
    let copied = copy(&disk, dir(), to(), |_, _| ()).unwrap();
    assert_eq!((copied.tail, copied.head, copied.files.len()), (None, Offset(0), 0));
}
