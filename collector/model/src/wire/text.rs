//! Is it UTF-8, and does it hold a NUL? The walk's hot loop: nine bytes in ten of a request are text.
//!
//! Most text is ASCII, so blocks are tested for "every byte in 1..=127" at once, by words where it is short; the first
//! block that fails hands what is left to a real UTF-8 check. Measured in `examples/walk_speed.rs`.

/// What a text's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// UTF-8 without a NUL.
    Plain,
    /// UTF-8 that holds a NUL, which PostgreSQL does not take.
    Nul,
    /// Not UTF-8.
    Broken,
}

/// Texts up to this long are tested by words; longer ones by blocks, which the compiler turns into vector instructions.
const SHORT_BYTES_MAX: usize = 64;

#[inline(always)]
pub(super) fn look(text: &[u8]) -> Text {
    let plain = if text.len() <= SHORT_BYTES_MAX { short_is_plain_ascii(text) } else { long_is_plain_ascii(text) };
    if plain { Text::Plain } else { look_closely(text) }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// High bits are set if some byte is 0 or above 127. (Taking one from each byte borrows only where a byte is 0.)
#[inline(always)]
fn odd_bytes(word: u64) -> u64 {
    (word | word.wrapping_sub(ONES)) & HIGH_BITS
}

#[inline(always)]
fn short_is_plain_ascii(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().all(|&byte| byte.wrapping_sub(1) < 127);
    };
    // The last word overlaps the one before it: that is cheaper than a loop over what is left.
    let mut odd = odd_bytes(u64::from_le_bytes(*last));
    for word in text.as_chunks::<8>().0 {
        odd |= odd_bytes(u64::from_le_bytes(*word));
    }
    odd == 0
}

#[inline(never)]
fn long_is_plain_ascii(text: &[u8]) -> bool {
    let (blocks, _) = text.as_chunks::<64>();
    for block in blocks {
        if !block_is_plain_ascii(block) {
            return false;
        }
    }
    text.last_chunk::<64>().is_none_or(block_is_plain_ascii)
}

#[inline(always)]
fn block_is_plain_ascii(block: &[u8; 64]) -> bool {
    let odd = block.iter().fold(0, |odd, &byte| odd | byte | byte.wrapping_sub(1));
    odd < 0x80
}

#[cold]
#[inline(never)]
fn look_closely(text: &[u8]) -> Text {
    if simdutf8::basic::from_utf8(text).is_err() {
        Text::Broken
    } else if memchr::memchr(0, text).is_some() {
        Text::Nul
    } else {
        Text::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The word and block tests see each odd byte, wherever it stands and however long the text is.
    #[test]
    fn one_odd_byte_is_seen_at_every_place() {
        for length in 0..200 {
            let mut text = vec![b'a'; length];
            assert_eq!(look(&text), Text::Plain, "{length}");
            for at in 0..length {
                for (byte, found) in
                    [(0, Text::Nul), (0x80, Text::Broken), (0xff, Text::Broken), (1, Text::Plain), (127, Text::Plain)]
                {
                    text[at] = byte;
                    assert_eq!(look(&text), found, "{byte} at {at} of {length}");
                }
                text[at] = b'a';
            }
        }
    }

    #[test]
    fn text_beyond_ascii_is_judged_as_a_whole() {
        for length in [0, 7, 60, 64, 65, 127, 500] {
            let before = "a".repeat(length);
            assert_eq!(look(format!("{before}日本語🙂").as_bytes()), Text::Plain);
            assert_eq!(look(format!("{before}é\0").as_bytes()), Text::Nul);
            assert_eq!(look(&[before.as_bytes(), b"\xf0\x9f\x99"].concat()), Text::Broken, "cut short");
            assert_eq!(look(&[before.as_bytes(), b"\xed\xa0\x80"].concat()), Text::Broken, "a surrogate");
            assert_eq!(look(&[before.as_bytes(), b"\xc0\x80"].concat()), Text::Broken, "an overlong NUL");
        }
    }
}
