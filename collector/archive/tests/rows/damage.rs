//! Files that are not what was written.

use bytes::Bytes;
use emberd_archive::rows::{Error, merge, open, rewrite};

use crate::spans::{batches, fixtures, how, write};

fn file() -> Vec<u8> {
    let requests = fixtures().into_iter().map(|(_, request)| request).take(3);
    write(&batches(requests), &how())[0].file.to_vec()
}

fn is_refused(bytes: Vec<u8>) -> bool {
    let bytes = Bytes::from(bytes);
    matches!(open(bytes.clone()), Err(Error::Damaged(_)))
        && matches!(rewrite(bytes.clone(), |_| true), Err(Error::Damaged(_)))
        && matches!(merge(vec![bytes]), Err(Error::Damaged(_)))
}

/// One changed bit, wherever it is, and each file that ends early.
#[test]
fn damage_is_seen_before_it_is_read() {
    let file = file();
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(is_refused(damaged), "bit {} of byte {at}", at % 8);
    }
    for end in (0..file.len()).step_by(7) {
        assert!(is_refused(file[..end].to_vec()), "{end} bytes");
    }
    assert!(is_refused([&file[..], b"x"].concat()));
}

/// Bytes that others changed in several places: numbers that look random, the same in each run.
#[test]
fn mutated_files_are_refused() {
    let file = file();
    let mut seed = 1_u64;
    let mut below = |bound: usize| {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (seed >> 33) as usize % bound
    };
    for _ in 0..3_000 {
        let mut damaged = file.clone();
        for _ in 0..=below(4) {
            let at = below(damaged.len());
            match below(4) {
                0 => damaged[at] = below(256) as u8,
                1 => drop(damaged.remove(at)),
                2 => damaged.insert(at, below(256) as u8),
                _ => damaged.truncate(at.max(1)),
            }
        }
        if damaged != file {
            assert!(is_refused(damaged));
        }
    }
}
