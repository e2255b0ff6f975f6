//! One text, as the rules want it.
//!
//! A replacement is left alone when it is met again, and a text is gone over until nothing more is found: so what came out comes out the
//! same if it goes in again. A text that does not come to rest, or grows too much, is replaced as a whole.

use std::borrow::Cow;
use std::ops::Range;

use emberd_model::wire::{Reword, ValueView, Word};

use super::path::Path;
use super::rule::{Action, Pattern, Rule};
use super::{Redact, TOO_DEEP, json};

/// How often a text is gone over before it is given up.
const ROUNDS_MAX: usize = 4;
/// JSON in texts of JSON, so many times.
const NESTED_MAX: u32 = 8;
/// What a text may grow by beside its own length.
const GROWTH_BYTES: usize = 1024;

/// One pass over a request.
pub(super) struct Pass<'r> {
    redact: &'r Redact,
    pub(super) path: Path,
    pub(super) counts: Vec<u64>,
    /// JSON in JSON: how deep.
    nested: u32,
    /// Whether this text was gone over before: what is hashed whole is hashed the first time only, or the hash would be again.
    again: bool,
}

/// What was found: where, and by which rule.
struct Find {
    place: Range<usize>,
    rule: usize,
}

impl<'r> Pass<'r> {
    pub(super) fn over(redact: &'r Redact) -> Self {
        let counts = vec![0; redact.rules.len()];
        Self { redact, path: Path::default(), counts, nested: 0, again: false }
    }

    /// The rule that takes whatever stands here, by its name.
    pub(super) fn named(&self) -> Option<usize> {
        if !self.redact.by_name {
            return None;
        }
        let takes = |rule: &Rule| {
            rule.patterns.is_empty() && rule.attributes.as_ref().is_some_and(|names| self.path.is_under(names))
        };
        let rule = self.redact.rules.iter().position(takes)?;
        (!self.again || !matches!(self.redact.rules[rule].action, Action::Hash(_))).then_some(rule)
    }

    /// What takes the place of a value that a rule takes whole; `of` is what a hash is made of.
    pub(super) fn taken(&mut self, rule: usize, of: &[u8]) -> Word {
        let redact = self.redact;
        let Rule { name, action, .. } = &redact.rules[rule];
        let to = match action {
            Action::Drop => None,
            Action::Mask => Some(format!("[redacted:{name}]")),
            Action::Hash(key) => Some(key.hex(of)),
        };
        if to.as_deref().is_some_and(|to| to.as_bytes() == of) {
            return Word::Same;
        }
        self.counts[rule] += 1;
        to.map_or(Word::Gone, Word::To)
    }

    /// How long the earlier replacement is that a text begins with, in bytes; none if it begins with none.
    pub(super) fn mark(&self, text: &str) -> Option<usize> {
        self.redact.mark.find(text).map(|mark| mark.end())
    }

    /// A text, with the JSON in it.
    pub(super) fn words(&mut self, text: &str) -> Word {
        let again = self.again;
        let mut now = Cow::Borrowed(text);
        let mut rule = None;
        let mut rests = false;
        for _ in 0..ROUNDS_MAX {
            match self.once(&now, &mut rule) {
                Word::Same => {
                    rests = true;
                    break;
                }
                Word::Gone => {
                    self.again = again;
                    return Word::Gone;
                }
                Word::To(next) => now = Cow::Owned(next),
            }
            self.again = true;
            if now.len() > 2 * text.len() + GROWTH_BYTES {
                break;
            }
        }
        self.again = again;
        match now {
            Cow::Borrowed(_) => Word::Same,
            Cow::Owned(now) if rests => Word::To(now),
            Cow::Owned(_) => {
                Word::To(format!("[redacted:{}]", rule.map_or(TOO_DEEP, |nr: usize| &self.redact.rules[nr].name)))
            }
        }
    }

    fn once(&mut self, text: &str, by: &mut Option<usize>) -> Word {
        let mut now = Cow::Borrowed(text);
        if self.is_worth_reading(text) {
            if self.nested >= NESTED_MAX {
                return Word::To(format!("[redacted:{TOO_DEEP}]"));
            }
            self.nested += 1;
            let word = json::reworded(text, self);
            self.nested -= 1;
            match word {
                Word::Same => {}
                Word::Gone => return Word::Gone,
                Word::To(next) => now = Cow::Owned(next),
            }
        }
        match self.searched(&now, by) {
            Word::Same => match now {
                Cow::Borrowed(_) => Word::Same,
                Cow::Owned(now) => Word::To(now),
            },
            word => word,
        }
    }

    /// Whether a text is to be read as JSON: it looks like it, and holds names, escapes, or something to be found.
    fn is_worth_reading(&self, text: &str) -> bool {
        matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'[' | b'"'))
            && (self.redact.by_name
                || memchr::memchr(b'\\', text.as_bytes()).is_some()
                || self.redact.set.is_match(text))
    }

    /// A text as it stands, searched for patterns.
    pub(super) fn searched(&mut self, text: &str, by: &mut Option<usize>) -> Word {
        let finds = self.finds(text);
        let Some(first) = finds.first() else { return Word::Same };
        by.get_or_insert(first.rule);
        for find in &finds {
            self.counts[find.rule] += 1;
        }
        let redact = self.redact;
        if finds.iter().any(|find| matches!(redact.rules[find.rule].action, Action::Drop)) {
            return Word::Gone;
        }
        let mut out = String::with_capacity(text.len() + 48);
        let mut copied = 0;
        for Find { place, rule } in finds {
            out.push_str(&text[copied..place.start]);
            copied = place.end;
            let Rule { name, action, .. } = &redact.rules[rule];
            out.push('[');
            match action {
                Action::Hash(key) => {
                    out.push_str(name);
                    out.push(':');
                    out.push_str(&key.hex(text[place].as_bytes()));
                }
                Action::Drop | Action::Mask => {
                    out.push_str("redacted:");
                    out.push_str(name);
                }
            }
            out.push(']');
        }
        out.push_str(&text[copied..]);
        Word::To(out)
    }

    /// What the rules find, in order, overlaps joined; what was put there earlier is nothing to be found.
    fn finds(&self, text: &str) -> Vec<Find> {
        let redact = self.redact;
        let matching = redact.set.matches(text);
        if !matching.matched_any() {
            return Vec::new();
        }
        let marks: Vec<Range<usize>> = redact.marks.find_iter(text).map(|mark| mark.range()).collect();
        let mut finds = Vec::new();
        for (rule, pattern) in matching.iter().map(|at| redact.owners[at]) {
            let Rule { attributes, patterns, .. } = &redact.rules[rule];
            if attributes.as_ref().is_none_or(|names| self.path.is_under(names)) {
                places(&patterns[pattern], text, |place| {
                    finds.extend(unmarked(place, &marks).map(|place| Find { place, rule }));
                });
            }
        }
        finds.sort_by_key(|find| (find.place.start, std::cmp::Reverse(find.place.end), find.rule));
        finds.dedup_by(|next, last| {
            let overlaps = next.place.start < last.place.end;
            if overlaps {
                last.place.end = last.place.end.max(next.place.end);
            }
            overlaps
        });
        finds
    }
}

fn places(pattern: &Pattern, text: &str, mut found: impl FnMut(Range<usize>)) {
    for find in pattern.regex.find_iter(text).filter(|find| !find.is_empty()) {
        match pattern.check {
            None => found(find.range()),
            Some(check) => check(text, find.range()).into_iter().for_each(&mut found),
        }
    }
}

/// A find, with the marks that it reaches into; none if it lies within one.
fn unmarked(place: Range<usize>, marks: &[Range<usize>]) -> Option<Range<usize>> {
    let first = marks.partition_point(|mark| mark.end <= place.start);
    let touched = marks[first..].iter().take_while(|mark| mark.start < place.end);
    let mut whole = place.clone();
    for mark in touched {
        if mark.start <= place.start && place.end <= mark.end {
            return None;
        }
        whole = whole.start.min(mark.start)..whole.end.max(mark.end);
    }
    Some(whole)
}

impl Reword for Pass<'_> {
    fn enter(&mut self, key: &str) {
        self.path.enter(key);
    }

    fn enter_element(&mut self, number: usize) {
        self.path.enter_element(number);
    }

    fn leave(&mut self) {
        self.path.leave();
    }

    fn value(&mut self, value: ValueView<'_>) -> Word {
        match (self.named(), value) {
            (None, _) | (_, ValueView::Empty) => Word::Same,
            (Some(rule), ValueView::Str(text)) => self.taken(rule, text.as_bytes()),
            (Some(rule), value) => {
                let mut of = Vec::new();
                plain(value, &mut of);
                self.taken(rule, &of)
            }
        }
    }

    fn text(&mut self, text: &str) -> Word {
        self.words(text)
    }
}

/// A value as the bytes that a hash is made of: a number as it is written in text, so that it is one value in whatever type it came.
fn plain(value: ValueView<'_>, out: &mut Vec<u8>) {
    match value {
        ValueView::Empty => {}
        ValueView::Str(text) => out.extend_from_slice(text.as_bytes()),
        ValueView::Bool(bool) => out.extend_from_slice(bool.to_string().as_bytes()),
        ValueView::Int(int) => out.extend_from_slice(int.to_string().as_bytes()),
        ValueView::Double(double) => out.extend_from_slice(double.to_string().as_bytes()),
        ValueView::Bytes(bytes) => out.extend_from_slice(bytes),
        ValueView::Array(list) => {
            out.push(b'[');
            for value in list.values() {
                plain(value, out);
                out.push(b',');
            }
            out.push(b']');
        }
        ValueView::KvList(list) => {
            out.push(b'{');
            for pair in list.attributes() {
                out.extend_from_slice(pair.key.as_bytes());
                out.push(b':');
                plain(pair.value(), out);
                out.push(b',');
            }
            out.push(b'}');
        }
    }
}
