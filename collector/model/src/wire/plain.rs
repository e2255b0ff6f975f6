//! The fast way for what nearly all attributes are: a key and then a scalar, each with a length of one or two bytes,
//! nothing else.
//!
//! None sends the caller the general way, so that this need not be complete; but what it lets pass must be right.

/// The key and the `AnyValue` that make up all of `pair`.
#[inline(always)]
pub(super) fn pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, rest @ ..] = pair else { return None };
    let (key, rest) = split_short(rest)?;
    let [0x12, rest @ ..] = rest else { return None };
    match split_short(rest)? {
        (value, []) => Some((key, value)),
        _ => None,
    }
}

/// A value that is no list.
pub(super) enum Scalar<'a> {
    String(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
}

/// The one member that makes up all of `any_value`.
#[inline(always)]
pub(super) fn scalar(any_value: &[u8]) -> Option<Scalar<'_>> {
    match any_value {
        [0x0a, rest @ ..] => match split_short(rest)? {
            (text, []) => Some(Scalar::String(text)),
            _ => None,
        },
        [0x18, rest @ ..] => varint(rest).map(|int| Scalar::Int(int as i64)),
        [0x10, byte] if *byte < 0x80 => Some(Scalar::Bool(*byte != 0)),
        [0x21, rest @ ..] => <[u8; 8]>::try_from(rest).ok().map(|double| Scalar::Double(f64::from_le_bytes(double))),
        _ => None,
    }
}

/// What a length of one or two bytes spans, and what is behind it.
#[inline(always)]
fn split_short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes {
        [low, rest @ ..] if *low < 0x80 => rest.split_at_checked(usize::from(*low)),
        [low, high, rest @ ..] if *high < 0x80 => {
            rest.split_at_checked(usize::from(low & 0x7f) | usize::from(*high) << 7)
        }
        _ => None,
    }
}

/// The varint that is all of `bytes`, if it has at most nine.
#[inline(always)]
fn varint(bytes: &[u8]) -> Option<u64> {
    let (last, before) = bytes.split_last()?;
    if before.len() > 8 || *last >= 0x80 {
        return None;
    }
    let mut value = u64::from(*last);
    for byte in before.iter().rev() {
        if *byte < 0x80 {
            return None;
        }
        value = value << 7 | u64::from(byte & 0x7f);
    }
    Some(value)
}
