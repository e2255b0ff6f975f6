//! Generated input out of random bytes: shorter bytes make smaller input, so that proptest shrinks it.

/// Random bytes that decide; once they are used up every choice is 0, the smallest.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// True once in `times`, and not when the bytes are used up.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    pub(crate) fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => self.byte().into(),
            2 => u64::MAX,
            3 => i64::MIN as u64,
            4 => 1_795_220_047_129_141_548 + u64::from(self.byte()),
            _ => u64::from_le_bytes(self.bytes()),
        }
    }

    pub(crate) fn double(&mut self) -> f64 {
        match self.below(7) {
            0 => 0.0,
            1 => 1.5,
            2 => f64::NAN,
            3 => f64::NEG_INFINITY,
            4 => -0.0,
            5 => 5e-324,
            _ => f64::from_bits(u64::from_le_bytes(self.bytes())),
        }
    }

    /// An id of `length` bytes that is not all zero.
    pub(crate) fn id(&mut self, length: usize) -> Vec<u8> {
        let mut id = vec![1; length];
        id[length - 1] = self.byte();
        id
    }

    pub(crate) fn text(&mut self) -> String {
        const TEXTS: [&str; 12] = [
            "",
            "a",
            "openinference.span.kind",
            "LLM",
            "llm.token_count.prompt",
            "x\0y",
            "d\u{e9}j\u{e0} vu \u{65e5}\u{672c}\u{8a9e} \u{1f642}",
            "{\"prompt_id\": \"p\\1\"}\n\t/",
            "gen_ai.request.model",
            "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
            "a text that is a little longer than sixty-four bytes, so that it is looked at in blocks",
            "\u{1}\u{8}\u{c}\r\u{1b}[31m\u{2028}",
        ];
        match self.below(TEXTS.len() + 2) {
            index if index < TEXTS.len() => TEXTS[index].to_owned(),
            index => TEXTS[self.below(TEXTS.len())].repeat((index - TEXTS.len() + 1) * self.below(5) * 20),
        }
    }

    /// `count` at most of what `make` makes.
    pub(crate) fn some<T>(&mut self, count: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(count + 1);
        (0..count).map(|_| make(self)).collect()
    }
}
