//! A print of what a span names: a hash, so that two spans of one id are told apart by it without keeping both.

/// Takes in texts, one after the other. The same in every process and version: prints are on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Print(u64);

impl Print {
    /// Takes in that `bytes` stand in place `place`.
    pub(super) fn add(&mut self, place: usize, bytes: &[u8]) {
        let mut hash = mixed(self.0 ^ (bytes.len() as u64) << 8 ^ place as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            hash = mixed(hash ^ u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            hash = mixed(hash ^ u64::from_le_bytes(last));
        }
        self.0 = hash;
    }

    /// The print; never 0, which says that it is not known.
    pub(super) fn finish(self) -> u32 {
        let hash = mixed(self.0);
        ((hash ^ hash >> 32) as u32).max(1)
    }
}

/// One round: a multiplication to twice the width, folded.
fn mixed(word: u64) -> u64 {
    let wide = u128::from(word ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
    wide as u64 ^ (wide >> 64) as u64
}
