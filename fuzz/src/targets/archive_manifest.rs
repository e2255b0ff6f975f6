//! Entries of an archive's manifest, which anyone who reaches the bucket may have written.

use std::sync::LazyLock;

use emberd_archive::keeping::inside;
use emberd_archive::keeping::manifest::Entry;
use emberd_archive::keeping::name::{DataName, entry_name};

use crate::memory;

const LOG: &str = "aaaa";

/// The entries of version 1 that are kept for ever, without their check sums.
static KEPT: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../collector/archive/tests/format/v1/_manifest/aaaa");
    let read = |seq: u64| std::fs::read(format!("{dir}/{seq:010}.json")).ok();
    let body = |bytes: Vec<u8>| bytes[..bytes.len() - r#","sha256":""}"#.len() - 64 - 1].to_vec();
    (0..12).filter_map(read).map(body).collect()
});

/// A body with its right check sum is an entry that is written and read again as itself, whose names are of its log; or none.
/// Without its check sum it is none.
pub(super) fn archive_entry(input: &[u8]) {
    let number =
        |text: &[u8]| text.iter().fold(0u64, |sum, digit| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    // The name belongs to the entry: it is read out of the bytes, as far as they have one.
    let key = b"\"seq\":";
    let at = input.windows(key.len()).position(|window| window == key).map_or(input.len(), |at| at + key.len());
    let digits = input[at..].iter().take_while(|c| c.is_ascii_digit()).take(10).count();
    let seq = number(&input[at..at + digits]);
    assert!(Entry::decode(&entry_name(LOG, seq), input).is_err(), "without a check sum");
    let read = memory::within(64 * input.len() + (1 << 20), || inside::read(LOG, seq, input));
    let Ok((entry, state)) = read else { return };
    let (bytes, sum) = entry.encode().expect("what was read can be written");
    assert_eq!(
        Entry::decode(&entry_name(LOG, seq), &bytes).expect("what was written can be read"),
        (entry.clone(), sum)
    );
    let names = entry.added.iter().map(|file| &file.name).chain(&entry.removed);
    for name in names {
        let parts = DataName::parse(name).expect("a name that can be read");
        assert!(parts.log == LOG && parts.text().as_ref() == Some(name), "{name}");
    }
    if let Some(state) = state {
        assert!(entry.whole && state.files.len() == entry.added.len() && state.cursor == entry.to);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    KEPT.clone()
}
