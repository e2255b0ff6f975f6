//! Which attribute means what, looked up once for each key and remembered: the keys of most spans are those of the span before.
//!
//! Cost: a key that is remembered costs one look at its ends and one comparison. One that is not costs [`super::keys::meaning`],
//! however many keys there are and whichever fall into one slot.

use super::Reading;
use super::keys::{Key, meaning};

/// Slots of the memory; keys that fall into one push each other out.
const SLOTS: usize = 256;

/// What an attribute is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// It names a prompt; the rank of its key.
    Prompt(u8),
    Key(Key<'a>),
}

impl What<'_> {
    /// Whether a span that is no root is looked at for its sake.
    pub(super) fn tells(&self) -> bool {
        match self {
            Self::Prompt(_) => true,
            Self::Key(key) => key.tells(),
        }
    }
}

/// A key, and what it means if anything.
type Known<'a> = (&'a [u8], Option<What<'a>>);

/// The memory.
#[derive(Debug)]
pub(super) struct Lookup<'a> {
    slots: Box<[Option<Known<'a>>]>,
    /// Bit n: some key of a prompt has n bytes; those of 63 and more have one bit.
    lengths: u64,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(reading: &Reading) -> Self {
        let lengths = reading.prompt_keys.iter().fold(0, |lengths, key| lengths | length_bit(key.len()));
        Self { slots: vec![None; SLOTS].into(), lengths }
    }

    /// What a key means; none if nothing, or if it is not UTF-8.
    #[inline]
    pub(super) fn what(&mut self, key: &'a [u8], reading: &Reading) -> Option<What<'a>> {
        let slot = slot_of(key);
        match self.slots[slot] {
            Some((known, what)) if known == key => what,
            _ => self.look_up(slot, key, reading),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, slot: usize, key: &'a [u8], reading: &Reading) -> Option<What<'a>> {
        let text = simdutf8::basic::from_utf8(key).ok()?;
        let what = self.rank_of_prompt_key(text, reading).map(What::Prompt).or_else(|| meaning(text).map(What::Key));
        self.slots[slot] = Some((key, what));
        what
    }

    /// How early `key` stands in the list of those that name a prompt.
    pub(super) fn rank_of_prompt_key(&self, key: &str, reading: &Reading) -> Option<u8> {
        if self.lengths & length_bit(key.len()) == 0 {
            return None;
        }
        let at = reading.prompt_keys.iter().position(|known| known == key)?;
        Some(u8::try_from(at).unwrap_or(u8::MAX))
    }

    /// The rank of field `field` of `metadata`.
    pub(super) fn rank_of_metadata(&self, field: &str, reading: &Reading) -> Option<u8> {
        const BEFORE: &str = "metadata.";
        if self.lengths & length_bit(BEFORE.len() + field.len()) == 0 {
            return None;
        }
        let at = reading.prompt_keys.iter().position(|known| known.strip_prefix(BEFORE) == Some(field))?;
        Some(u8::try_from(at).unwrap_or(u8::MAX))
    }
}

fn length_bit(bytes: usize) -> u64 {
    1 << bytes.min(63)
}

/// Where a key is remembered, by its length and both its ends.
#[inline]
fn slot_of(key: &[u8]) -> usize {
    let ends = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29),
        _ => key.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    ((ends ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}
