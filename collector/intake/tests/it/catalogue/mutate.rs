//! Seeded damage: bytes cut off, flipped, doubled, and spliced in from elsewhere.

/// xorshift64*: the same damage for the same seed, everywhere.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

/// The bytes with one to three kinds of damage.
pub(super) fn damaged(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len() + 1);
        let to = (at + 1 + dice.below(16)).min(bytes.len());
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            2 if at < bytes.len() => bytes[at] = [0x00, 0xff, 0x7f, 0x80, b'"', b'{'][dice.below(6)],
            3 => {
                let piece = bytes[at.min(to)..to].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let from = dice.below(bytes.len() + 1);
                let piece = bytes[from..(from + 16).min(bytes.len())].to_vec();
                bytes.splice(at.min(to)..to, piece);
            }
            _ => drop(bytes.drain(at.min(to)..to)),
        }
    }
    bytes
}
