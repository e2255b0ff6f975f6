//! What a trace is told once: whose it is, what went in and what came out. Of each, what the first span says that says it.
//!
//! Promise: a word is the least of all that were offered, by a total order, so [`Words::merge`] is commutative, associative and
//! idempotent; and what would be greater need not be read at all ([`Words::wants`]), which spares most spans of a trace most of the work.
//! Kept by: `trace/tests.rs`.

use std::borrow::Cow;
use std::cmp::Reverse;

use crate::SpanId;
use crate::facts::{Marks, Text};

/// Who says something. The least is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct By {
    /// 0 for a span without parent, 1 for others. For what went in and came out, see [`By::words`].
    pub(crate) class: u8,
    /// Start of the span; for what came out, the time before the latest possible at which it ended.
    pub(crate) at: u64,
    pub(crate) span: SpanId,
}

impl By {
    /// Who says what went in or came out: the root's own words come first, then a call's, then a call's JSON, then the root's.
    pub(crate) fn words(is_root: bool, is_json: bool, at: u64, span: SpanId) -> Self {
        let class = match (is_root, is_json) {
            (true, false) => 0,
            (false, false) => 1,
            (false, true) => 2,
            (true, true) => 3,
        };
        Self { class, at, span }
    }
}

/// What is said, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) by: By,
    /// Of [`Text::PromptRef`] with the version that the same span says, after a NUL.
    pub(crate) text: Cow<'a, str>,
    /// What had to be mended in it.
    pub(crate) marks: Marks,
}

impl Word<'_> {
    /// The order. One span may come with several contents: there the longer, then the greater is taken.
    fn order(&self) -> (By, Reverse<(usize, &str)>, u16) {
        (self.by, Reverse((self.text.len(), &self.text)), self.marks.0)
    }
}

/// The words of a trace, by their place in [`Text::OF_TRACE`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Words<'a>([Option<Word<'a>>; Text::OF_TRACE.len()]);

impl<'a> Words<'a> {
    pub(crate) fn word(&self, text: Text) -> Option<&Word<'a>> {
        self.0.get(text.word())?.as_ref()
    }

    /// Those that there are, by their place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Text, &Word<'a>)> {
        Text::OF_TRACE.into_iter().zip(&self.0).filter_map(|(text, word)| Some((text, word.as_ref()?)))
    }

    /// Whether what this span says could be taken.
    #[inline]
    pub(crate) fn wants(&self, text: Text, by: By) -> bool {
        self.word(text).is_none_or(|word| by <= word.by)
    }

    /// Takes a word if it is the least so far; says whether it did.
    pub(crate) fn offer(&mut self, text: Text, word: Word<'a>) -> bool {
        let Some(slot) = self.0.get_mut(text.word()) else { return false };
        let is_less = slot.as_ref().is_none_or(|own| word.order() < own.order());
        if is_less {
            *slot = Some(word);
        }
        is_less
    }

    /// Takes in all that `other` has; says whether that changed anything.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (own, theirs) in self.0.iter_mut().zip(&other.0) {
            if let Some(word) = theirs
                && own.as_ref().is_none_or(|own| word.order() < own.order())
            {
                *own = Some(word.clone());
                changed = true;
            }
        }
        changed
    }

    pub(crate) fn into_owned(self) -> Words<'static> {
        Words(self.0.map(|word| {
            let Word { by, text, marks } = word?;
            // Of a `String` no more is kept than it holds, or the states of a transaction would weigh more than they are counted for.
            Some(Word { by, text: Cow::Owned(String::from(Box::<str>::from(text))), marks })
        }))
    }

    /// What had to be mended in any of them.
    pub(crate) fn marks(&self) -> Marks {
        self.0.iter().flatten().fold(Marks::default(), |marks, word| marks.and(word.marks))
    }
}
