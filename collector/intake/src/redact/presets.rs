//! Ready-made patterns: what they are found by, and what a find must also be.
//!
//! An expression finds candidates; where digits alone would find too much, a check keeps what is one: a card's digits must have the right
//! sum. A candidate is looked through, since what stands beside a number may look as if it belonged to it.

use std::ops::Range;

/// Looks closer at a find: the places in the text, from there on, that are what is looked for. They may overlap.
pub(super) type Check = fn(&str, Range<usize>) -> Vec<Range<usize>>;

/// A ready-made pattern.
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) pattern: &'static str,
    /// None: the find itself.
    pub(super) check: Option<Check>,
}

const fn plain(name: &'static str, pattern: &'static str) -> Preset {
    Preset { name, pattern, check: None }
}

/// All of them, in the order in which they are named to people.
pub(super) const PRESETS: &[Preset] = &[
    plain("email", r"[\w.%+'-]+@[\w-]+(?:\.[\w-]+)+"),
    Preset { name: "credit_card", pattern: r"[0-9](?:[ .-]?[0-9]){11,}", check: Some(cards) },
    plain(
        "phone",
        r"\+[0-9](?:[ ()./-]{0,2}[0-9]){6,14}|(?:\([0-9]{3}\) ?|(?-u:\b)[0-9]{3}[-. ])[0-9]{3}[-. ][0-9]{4}(?-u:\b)",
    ),
    Preset { name: "iban", pattern: r"(?i-u:\b[a-z]{2}[0-9]{2})", check: Some(ibans) },
    plain(
        "api_key",
        r"(?-u:\b)(?:sk-[A-Za-z0-9_-]{16,}|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{30,}|glpat-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}|[rsp]k_(?:live|test)_[0-9A-Za-z]{16,}|npm_[A-Za-z0-9]{30,}|gsk_[A-Za-z0-9]{20,}|pplx-[A-Za-z0-9]{20,})",
    ),
    Preset { name: "bearer", pattern: r"(?i-u:\b(?:bearer|basic)[ \t]+[a-z0-9._~+/=-]{12,})", check: Some(bearer) },
    plain("jwt", r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*"),
    plain("private_key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)"),
    plain("us_ssn", r"(?-u:\b)[0-9]{3}-[0-9]{2}-[0-9]{4}(?-u:\b)"),
    plain(
        "ipv4",
        r"(?-u:\b)(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?-u:\b)",
    ),
];

const CARD_DIGITS: Range<usize> = 12..20;
const IBAN_SIGNS: Range<usize> = 15..35;

/// The places in a run of digit groups that hold a card's number, whole groups each: from each end back to the farthest start that has
/// the right sum.
fn cards(text: &str, run: Range<usize>) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let ends = (run.start + 1..=run.end).filter(|&at| digit(at - 1) && !digit(at));
    ends.filter_map(|end| {
        let (mut digits, mut sum, mut ones, mut farthest) = (0, 0, 0, None);
        for at in (run.start..end).rev().filter(|&at| digit(at)) {
            let value = u32::from(bytes[at] - b'0');
            sum += match (digits % 2, value) {
                (0, value) => value,
                (_, 5..) => 2 * value - 9,
                _ => 2 * value,
            };
            ones |= value;
            digits += 1;
            if digits == CARD_DIGITS.end {
                break;
            }
            let starts = at == 0 || !digit(at - 1);
            if starts && CARD_DIGITS.contains(&digits) && sum % 10 == 0 && ones > 0 {
                farthest = Some(at..end);
            }
        }
        farthest
    })
    .collect()
}

/// The longest IBAN that begins with these two letters and two digits: its letters as numbers, its first four signs moved behind the
/// others, leave 1 by 97.
fn ibans(text: &str, head: Range<usize>) -> Vec<Range<usize>> {
    let number = |sign: u8| match sign {
        b'0'..=b'9' => Some((10, u32::from(sign - b'0'))),
        b'a'..=b'z' | b'A'..=b'Z' => Some((100, u32::from(sign.to_ascii_uppercase() - b'A') + 10)),
        _ => None,
    };
    let step = |rest: u32, sign: u8| number(sign).map(|(times, value)| (rest * times + value) % 97);
    let (mut rest, mut signs, mut found) = (0, 4, None);
    for (at, &sign) in text.as_bytes().iter().enumerate().skip(head.end) {
        if sign == b' ' {
            continue;
        }
        let Some(next) = step(rest, sign) else { break };
        rest = next;
        signs += 1;
        let whole = text.as_bytes()[head.clone()].iter().try_fold(rest, |rest, &sign| step(rest, sign));
        if IBAN_SIGNS.contains(&signs) && whole == Some(1) {
            found = Some(head.start..at + 1);
        }
        if signs >= IBAN_SIGNS.end {
            break;
        }
    }
    found.into_iter().collect()
}

/// "Basic understanding" is no credential: one has digits, or capitals within.
fn bearer(text: &str, find: Range<usize>) -> Vec<Range<usize>> {
    let token = text[find.clone()].rsplit([' ', '\t']).next().unwrap_or_default();
    let odd = |(at, byte): (usize, u8)| byte.is_ascii_digit() || at > 0 && byte.is_ascii_uppercase();
    token.bytes().enumerate().any(odd).then_some(find).into_iter().collect()
}
