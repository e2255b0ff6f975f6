//! What had to be mended in a trace, as a set.

/// A set of marks; sets are joined by [`Marks::and`], which makes them a semilattice as the trace's state needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Marks(pub(crate) u16);

impl Marks {
    /// A NUL stood in a text; U+FFFD stands there now.
    pub(crate) const NUL: Self = Self(1);
    /// A text other than input and output was cut.
    pub(crate) const TRUNCATED: Self = Self(1 << 1);
    /// A time lies outside 2000 to 2100, or an end before its start.
    pub(crate) const CLOCK: Self = Self(1 << 2);
    /// A token count was negative or no number; it counts as not reported.
    pub(crate) const TOKENS: Self = Self(1 << 3);
    /// A token count beyond 2^63 - 1 was cut to that.
    pub(crate) const TOKENS_SATURATED: Self = Self(1 << 4);
    /// A span named itself as its parent; it counts as having none.
    pub(crate) const SELF_PARENT: Self = Self(1 << 5);
    /// One span id came with different contents.
    pub(crate) const CONFLICT: Self = Self(1 << 6);
    /// The trace is larger than its state may be; the surplus is not counted.
    pub(crate) const CAPPED: Self = Self(1 << 7);
    /// Spans name each other as parents in a circle; those on it count as having none.
    pub(crate) const PARENT_CYCLE: Self = Self(1 << 8);
    /// A call that succeeded reported no tokens, so the sums are too low.
    pub(crate) const TOKENS_MISSING: Self = Self(1 << 9);
    /// Some but not all calls could be priced, so the cost is too low.
    pub(crate) const COST_PARTIAL: Self = Self(1 << 10);
    /// Cached tokens were reported beside the prompt's and were added to them.
    pub(crate) const CACHE_ADDED: Self = Self(1 << 11);

    /// All of them, in order, with the word that a row's metadata has.
    const WORDS: [(Self, &'static str); 12] = [
        (Self::NUL, "nul"),
        (Self::TRUNCATED, "truncated"),
        (Self::CLOCK, "clock"),
        (Self::TOKENS, "tokens"),
        (Self::TOKENS_SATURATED, "tokens_saturated"),
        (Self::SELF_PARENT, "self_parent"),
        (Self::CONFLICT, "conflict"),
        (Self::CAPPED, "capped"),
        (Self::PARENT_CYCLE, "parent_cycle"),
        (Self::TOKENS_MISSING, "tokens_missing"),
        (Self::COST_PARTIAL, "cost_partial"),
        (Self::CACHE_ADDED, "cache_added"),
    ];

    /// Both sets together.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds to the set.
    pub(crate) fn add(&mut self, other: Self) {
        *self = self.and(other);
    }

    /// Adds to the set if it is so.
    pub(crate) fn add_if(&mut self, is_so: bool, mark: Self) {
        if is_so {
            self.add(mark);
        }
    }

    /// The words of the set, in a fixed order.
    pub(crate) fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().filter(move |(mark, _)| self.0 & mark.0 != 0).map(|(_, word)| word)
    }
}
