//! Memory that a direct write can be made from: aligned, and filled from its start.
//!
//! Not here: what goes into it (`writer.rs`).

use crate::disk::ALIGN;

/// A buffer whose bytes begin at a multiple of [`ALIGN`].
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

/// What a buffer keeps between uses; one grown for a single huge body is given back.
const KEEP_BYTES: usize = crate::queue::GROUP_BYTES + (64 << 10);

impl Buffer {
    /// Empties the buffer and makes room for `bytes`, rounded up to whole blocks.
    pub(crate) fn clear_for(&mut self, bytes: usize) {
        let wanted = bytes.next_multiple_of(ALIGN) + ALIGN;
        if self.memory.len() < wanted || (self.memory.len() > 2 * KEEP_BYTES && wanted <= KEEP_BYTES) {
            let size = wanted.next_power_of_two().min(wanted.max(KEEP_BYTES));
            self.memory = vec![0; size];
            self.start = self.memory.as_ptr().align_offset(ALIGN);
        }
        self.len = 0;
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let at = self.start + self.len;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Zeros up to the next multiple of `step`.
    pub(crate) fn pad(&mut self, step: usize) {
        let at = self.start + self.len;
        let padding = self.len.next_multiple_of(step) - self.len;
        self.memory[at..at + padding].fill(0);
        self.len += padding;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_aligned_and_padded_whatever_the_size() {
        let mut buffer = Buffer::default();
        for size in [1, 4096, 4097, 20 << 20, 100, KEEP_BYTES] {
            buffer.clear_for(size);
            buffer.push(&vec![7; size]);
            buffer.pad(ALIGN);
            assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGN), 0);
            assert_eq!(buffer.len(), size.next_multiple_of(ALIGN));
            assert!(buffer.bytes()[..size].iter().all(|b| *b == 7) && buffer.bytes()[size..].iter().all(|b| *b == 0));
        }
        assert!(buffer.memory.len() <= 2 * KEEP_BYTES, "a huge buffer was not given back");
    }
}
