//! Which names a plugin, its evaluators and their fields may have. They become keys, paths and labels elsewhere.

pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Whether this may be a plugin's or an evaluator's name: `[a-z0-9_-]`, at most 64 bytes.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// A field's, a score's or a key's name: letters, digits, `_`, `-`, `.` and `@`, at most 64 bytes.
pub(crate) fn is_word(word: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@'))
}

/// `text` in at most `bytes_max`, cut at a character's border.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        assert!(is_name("exact_match") && is_name("a-1"));
        for bad in ["", "../x", "a/b", "A", "ä", "a b", "a\n", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(is_word("f1@2.0") && !is_word("a/b") && !is_word(""));
    }
}
