//! A file's checksum, in the file itself, where no Parquet reader looks: between its first four bytes and its first column.
//!
//! The `parquet` crate is not written for damaged bytes (docs/decisions/0012-parquet-apart.md): it can panic on them, or take what memory
//! a damaged number asks for. So nothing of a file reaches it before the whole file is what was written.

use crc_fast::{CrcAlgorithm, Digest};

/// Where the seal stands: behind `PAR1`.
const AT: usize = 4;
/// Where its checksum stands, and ends.
const SUM: usize = AT + 8;
const END: usize = SUM + 8;

/// What is written before the checksum is known.
pub(super) const ROOM: [u8; 16] = *b"emberd\0\0\0\0\0\0\0\0\0\0";

fn sum_of(file: &[u8]) -> Option<u64> {
    let (before, rest) = file.split_at_checked(SUM)?;
    let after = rest.get(END - SUM..)?;
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(before);
    digest.update(after);
    Some(digest.finalize())
}

/// Writes the checksum into a finished file.
pub(super) fn set(file: &mut [u8]) {
    if let Some(sum) = sum_of(file)
        && let Some(room) = file.get_mut(SUM..END)
    {
        room.copy_from_slice(&sum.to_le_bytes());
    }
}

/// Whether the file is as it was written.
pub(super) fn is_whole(file: &[u8]) -> bool {
    let is_sealed = file.get(AT..SUM) == Some(&ROOM[..SUM - AT]);
    is_sealed && sum_of(file).is_some_and(|sum| file.get(SUM..END) == Some(&sum.to_le_bytes()))
}
