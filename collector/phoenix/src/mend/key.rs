//! What an attribute may be called: Phoenix makes a tree of each key, split at its dots.

use super::What;

/// Phoenix's JSON writer gives up some 250 levels down, and a request with a key of thousands of dots takes the spans behind
/// it along. 32 leaves room for what the value itself nests.
const DOTS_MAX: usize = 32;

/// A part of more digits than this is no index of anything; Python reads no number of more than 4,300.
const DIGITS_MAX: usize = 18;

/// The key that Phoenix can take in place of `key`; none if that one will do. Tells `wrong` what was the matter.
pub(super) fn mended(key: &str, wrong: &mut dyn FnMut(What)) -> Option<String> {
    let nul = key.contains('\0');
    let deep = key.len() > DOTS_MAX && key.bytes().filter(|&byte| byte == b'.').count() > DOTS_MAX;
    let digits = key.split('.').any(is_unreadable_number);
    if !(nul || deep || digits) {
        return None;
    }
    let mut made = if nul { key.replace('\0', "\u{fffd}") } else { key.to_owned() };
    if nul {
        wrong(What::Nul);
    }
    if deep {
        wrong(What::DeepKey);
        let (cut, _) = made.match_indices('.').nth(DOTS_MAX).unwrap_or((made.len(), ""));
        let rest = made.split_off(cut);
        made.push_str(&rest.replace('.', "_"));
    }
    if made.split('.').any(is_unreadable_number) {
        wrong(What::DigitKey);
        let part = |part: &str| if is_unreadable_number(part) { format!("_{part}") } else { part.to_owned() };
        made = made.split('.').map(part).collect::<Vec<_>>().join(".");
    }
    Some(made)
}

/// Whether Phoenix takes the part of a key for a number and then cannot read it: `²` and the like, or thousands of digits.
/// Takes a few other scripts' digits along, which it can read.
fn is_unreadable_number(part: &str) -> bool {
    let part = part.trim();
    let all_digits = !part.is_empty() && part.chars().all(char::is_numeric);
    all_digits && (part.len() > DIGITS_MAX || !part.is_ascii())
}
