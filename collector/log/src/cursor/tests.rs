//! Cursors are the old one or the new one, and never something else.

use proptest::prelude::*;

use super::*;
use crate::sim::{Call, Fault, SimDisk, Survives};

fn file(disk: &SimDisk) -> CursorFile {
    CursorFile::open_on(Arc::new(disk.clone()), Path::new("/cursors"), "phoenix").unwrap()
}

/// A power cut at any call leaves the cursor that was stored last, or the one that was being stored.
#[test]
fn a_cursor_is_old_or_new_after_a_power_cut() {
    let disk = SimDisk::new();
    let cursor = file(&disk);
    disk.record();
    let mut stored = vec![(0, None)];
    for offset in [7, 123_456_789_012, 8] {
        cursor.store(Offset(offset)).unwrap();
        stored.push((disk.calls(), Some(Offset(offset))));
    }
    for moment in disk.moments() {
        let done = stored.iter().rposition(|(calls, _)| *calls <= moment.calls).unwrap();
        for seed in 0..20 {
            for way in [
                Survives::Nothing,
                Survives::Everything,
                Survives::Some { unit: 1, seed },
                Survives::Torn { bytes: seed as usize },
            ] {
                let found = file(&moment.crash(way)).load().unwrap();
                let allowed = &stored[done..stored.len().min(done + 2)];
                assert!(
                    allowed.iter().any(|(_, cursor)| *cursor == found),
                    "call {}, {way:?}: {found:?}",
                    moment.calls
                );
            }
        }
    }
}

/// A store that fails leaves the cursor that was there, and can be done again.
#[test]
fn a_failed_store_changes_nothing() {
    for (nth, fault) in (0..5).flat_map(|nth| [(nth, Fault::Io), (nth, Fault::Full)]) {
        let disk = SimDisk::new();
        let cursor = file(&disk);
        cursor.store(Offset(1)).unwrap();
        disk.fail(Call::Change, nth, fault, false);
        assert!(cursor.store(Offset(2)).is_err());
        let found = file(&disk.now().crash(Survives::Nothing)).load().unwrap();
        assert_eq!(found, Some(Offset(1)), "call {nth}");
        cursor.store(Offset(3)).unwrap();
        assert_eq!(file(&disk.now().crash(Survives::Nothing)).load().unwrap(), Some(Offset(3)));
    }
}

/// Any change of any byte is noticed, and the error names the file; another consumer's file is not one's own.
#[test]
fn a_damaged_cursor_is_refused() {
    let disk = SimDisk::new();
    let cursor = file(&disk);
    assert_eq!(cursor.load().unwrap(), None);
    cursor.store(Offset(42)).unwrap();
    let sound = disk.bytes(cursor.path()).unwrap();
    for byte in 0..sound.len() {
        for bit in 0..8 {
            disk.damage(cursor.path(), |bytes| bytes[byte] ^= 1 << bit);
            let refused = cursor.load().unwrap_err();
            assert!(
                matches!(&refused, CursorError::Corrupt { path } if path == cursor.path()),
                "byte {byte} bit {bit}"
            );
            disk.damage(cursor.path(), |bytes| bytes.clone_from(&sound));
        }
        disk.put(cursor.path(), sound[..byte].to_vec());
        assert!(matches!(cursor.load(), Err(CursorError::Corrupt { .. })), "cut at {byte}");
        disk.put(cursor.path(), sound.clone());
    }
    assert_eq!(cursor.load().unwrap(), Some(Offset(42)));
    disk.put(Path::new("/cursors/archive.cursor"), sound);
    let other = CursorFile::open_on(Arc::new(disk), Path::new("/cursors"), "archive").unwrap();
    assert!(matches!(other.load(), Err(CursorError::Corrupt { .. })));
}

/// Names that would lead out of the directory, or are none, are refused.
#[test]
fn a_consumers_name_is_a_plain_name() {
    for bad in ["", "../log", "a/b", "a b", "é", &"x".repeat(65)] {
        let opened = CursorFile::open_on(Arc::new(SimDisk::new()), Path::new("/cursors"), bad);
        assert!(matches!(opened, Err(CursorError::Name { .. })), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// What is stored is loaded, on the real disk too.
    #[test]
    fn what_is_stored_is_loaded(offset in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let cursor = CursorFile::open(&dir.path().join("cursors"), "phoenix-2.eu_west").unwrap();
        cursor.store(Offset(offset)).unwrap();
        prop_assert_eq!(cursor.load().unwrap(), Some(Offset(offset)));
    }

    /// Any other bytes are refused.
    #[test]
    fn noise_is_no_cursor(noise in prop::collection::vec(any::<u8>(), 0..600)) {
        let disk = SimDisk::new();
        let cursor = file(&disk);
        disk.put(cursor.path(), noise);
        prop_assert!(cursor.load().is_err());
    }
}
