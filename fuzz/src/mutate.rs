//! Inputs made out of others, the same for the same seed: what `make test` runs, where no engine looks at coverage.

/// Numbers that look random.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        const EDGES: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'-', b'9', b'=', b'\n', 0xc0];
        if self.below(3) == 0 { EDGES[self.below(EDGES.len())] } else { self.below(256) as u8 }
    }
}

/// The longest input that is made.
const BYTES_MAX: usize = 8 << 10;

/// One of `corpus` with a few things changed; pieces of others may get into it.
#[must_use]
pub fn mutated(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = if corpus.is_empty() { Vec::new() } else { corpus[dice.below(corpus.len())].clone() };
    for _ in 0..=dice.below(4) {
        change(&mut input, corpus, dice);
    }
    input.truncate(BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    let some = (1 + dice.below(16)).min(input.len() - at);
    match dice.below(8) {
        0 | 1 if at < input.len() => input[at] ^= 1 << dice.below(8),
        2 if at < input.len() => input[at] = dice.byte(),
        3 => drop(input.drain(at..at + some)),
        4 => {
            let piece = input[at..at + some].to_vec();
            let to = dice.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        5 if !corpus.is_empty() => {
            let other = &corpus[dice.below(corpus.len())];
            let from = dice.below(other.len() + 1);
            let end = (from + 1 + dice.below(64)).min(other.len());
            input.splice(at..at, other[from..end].iter().copied());
        }
        6 => input.truncate(at),
        _ => input.insert(at, dice.byte()),
    }
}
