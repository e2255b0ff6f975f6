//! Which attributes Phoenix drops, chokes on or cannot derive from: the batch is then flagged, and mended before it
//! goes there.
//!
//! Errs towards flagging: a batch flagged for nothing costs a second look, one not flagged costs spans.
//! Not here: the mending. Text with a NUL and bytes are noticed where they are walked over.

/// What was seen in an attribute's value, all members that were ever set included: bits that are or-ed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen(u8);

impl Seen {
    pub(super) const STRING: Self = Self(1);
    pub(super) const OTHER: Self = Self(2);
    /// A number that a 32-bit column does not take.
    pub(super) const BIG: Self = Self(4);

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn int(value: i64) -> Self {
        let fits = i32::try_from(value).is_ok();
        if fits { Self::OTHER } else { Self::OTHER.and(Self::BIG) }
    }

    pub(super) fn double(value: f64) -> Self {
        let fits = value.abs() <= f64::from(i32::MAX);
        if fits { Self::OTHER } else { Self::OTHER.and(Self::BIG) }
    }

    /// A string may be a number in digits, which Phoenix reads as one.
    pub(super) fn string(value: &[u8]) -> Self {
        if value.len() < 10 { Self::STRING } else { Self::STRING.and(Self::BIG) }
    }
}

/// A key nested deeper sends Phoenix into a recursion that ends in an error, its request's other spans included.
pub(super) const KEY_DOTS_MAX: usize = 32;

const SPAN_KIND: &[u8] = b"openinference.span.kind";

/// Whether a span with this attribute must be mended.
#[inline(always)]
pub(super) fn wanted(key: &[u8], value: Seen) -> bool {
    match key {
        [b'l', b'l', b'm', b'.', rest @ ..] => llm_wanted(rest, value),
        [b'o', ..] if key == SPAN_KIND => value != Seen::STRING && value != Seen::STRING.and(Seen::BIG),
        [b'g', ..] if key.starts_with(b"gen_ai.") => true,
        [b't', ..] if key.starts_with(b"traceloop.") => true,
        _ => is_too_deep(key),
    }
}

#[inline(always)]
fn llm_wanted(rest: &[u8], value: Seen) -> bool {
    match rest {
        [b't', b'o', ..] if rest.starts_with(b"token_count.") => value.has(Seen::BIG) || is_too_deep(rest),
        [b'u', ..] if rest.starts_with(b"usage.") => true,
        [b'r', ..] if rest == b"request.type" => true,
        _ => is_too_deep(rest),
    }
}

#[inline(always)]
pub(super) fn is_too_deep(key: &[u8]) -> bool {
    key.len() > KEY_DOTS_MAX && key.iter().filter(|&&byte| byte == b'.').count() > KEY_DOTS_MAX
}
