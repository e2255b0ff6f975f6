//! The bytes in which a trace's state is stored.
//!
//! On disk (version 2): version byte, marks (varint), what was seen (byte), earliest start and latest end (a byte whether there is one and
//! whether it is believed; the start in 8 bytes, little endian, the end after it).
//! - Times are zigzag varints, counted from the earliest start.
//! - The layer of links: head (see [`Layer::encode_head`]), all ids (8 bytes each), all parents.
//! - The layers of roots and of calls: head; of each entry its span, flags (a byte), print (4 bytes), start, end after start, emitter of a
//!   call, texts, counts, time to the first token.
//! - Words: which there are (bits, varint); of each its class and marks (a byte), time, span, text.
//!
//! A span, where it is named, is 0 and its 8 bytes, or 1 plus its place among the links. A text of facts is twice its length and its bytes,
//! or twice how many short texts lie between plus one, where one of the last [`RECENT`] is meant; emitters likewise.
//! Equal states have equal bytes, for each of these is written in one way only.
//! Kept by: `trace/tests.rs`, `tests/states_v1.rs` (the first version), `fuzz/` (any bytes).

use std::borrow::Cow;

use super::layer::{Layer, Parent};
use super::words::{By, Word, Words};
use super::{Seen, Spread, TraceState, Undecodable, v1};
use crate::facts::{Emitter, Facts, Flag, Marks, Text};
use crate::varint::{self, Cursor};
use crate::{SpanId, UnixNanos};

const VERSION: u8 = 2;
/// How many short texts, and emitters, can be meant again.
const RECENT: usize = 8;
/// Texts longer than this are never meant again: so what is decoded is not many times longer than its bytes.
const SHORT_BYTES_MAX: usize = 64;
/// Stands in the flags on disk, where no fact's flag does: the time to the first token is known.
const FIRST_TOKEN: u8 = 1 << 7;
const WORD_MARKS: u16 = Marks::NUL.0 | Marks::TRUNCATED.0;

impl TraceState {
    /// Compact binary form, first byte a version. Equal states have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let words: usize = self.words.iter().map(|(_, word)| 12 + word.text.len()).sum();
        let spans = self.links.entries().len();
        let mut out = Vec::with_capacity(64 + words + 12 * spans + 48 * (self.roots.len() + self.calls.len()));
        out.push(VERSION);
        varint::put(&mut out, u64::from(self.marks.0));
        out.push(self.seen.0);
        let base = self.spread.first.map_or(0, |(_, nanos)| nanos);
        for time in [self.spread.first, self.spread.last] {
            out.push(time.map_or(0, |(believable, _)| 1 + u8::from(believable)));
        }
        if self.spread.first.is_some() {
            out.extend_from_slice(&base.to_le_bytes());
        }
        if let Some((_, nanos)) = self.spread.last {
            put_time(&mut out, base, nanos);
        }
        self.links.encode_head(&mut out);
        self.links.entries().iter().for_each(|entry| out.extend_from_slice(&entry.key.0));
        for entry in self.links.entries() {
            match entry.value.0 {
                root if root == SpanId::default() => out.push(0),
                parent => self.put_span(&mut out, 1, parent),
            }
        }
        let mut recent = Recents::default();
        self.put_facts(&mut out, base, &self.roots, &mut recent);
        self.put_facts(&mut out, base, &self.calls, &mut recent);
        self.put_words(&mut out, base);
        out
    }

    fn put_facts<'a, const N: usize>(
        &self,
        out: &mut Vec<u8>,
        base: u64,
        layer: &'a Layer<SpanId, Box<[u8]>, N>,
        recent: &mut Recents<'a>,
    ) {
        layer.encode_head(out);
        for entry in layer.entries() {
            self.put_span(out, 0, entry.key);
            // What a layer holds was written by `Facts::encode`.
            let facts = Facts::decode(&entry.value).unwrap_or_default();
            let first_token = if facts.first_token_nanos.is_some() { FIRST_TOKEN } else { 0 };
            out.push(facts.flags & !FIRST_TOKEN | first_token);
            out.extend_from_slice(&facts.print.to_le_bytes());
            put_time(out, base, facts.start.0);
            put_time(out, facts.start.0, facts.end.0);
            if facts.has(Flag::Call) {
                recent.emitters.put(out, facts.emitter, 1, |out, emitter| out.extend_from_slice(&emitter.bytes()));
            }
            let texts = facts.borrowed_texts();
            out.push(bits(texts.iter().map(Option::is_some)) as u8);
            for text in texts.into_iter().flatten() {
                recent.put_text(out, text);
            }
            let counts = facts.counts();
            out.push(bits(counts.iter().map(Option::is_some)) as u8);
            counts.into_iter().flatten().for_each(|count| varint::put(out, count as u64));
            if let Some(nanos) = facts.first_token_nanos {
                varint::put(out, nanos);
            }
        }
    }

    fn put_words(&self, out: &mut Vec<u8>, base: u64) {
        varint::put(out, bits(Text::OF_TRACE.iter().map(|&text| self.words.word(text).is_some())));
        for (text, Word { by, text: said, marks }) in self.words.iter() {
            out.push(by.class | ((marks.0 & WORD_MARKS) as u8) << 2);
            put_time(out, base, time_of(text, by.at));
            self.put_span(out, 0, by.span);
            varint::put_bytes(out, said.as_bytes());
        }
    }

    /// Names a span; the numbers below `from` mean something else.
    fn put_span(&self, out: &mut Vec<u8>, from: u64, span: SpanId) {
        match self.links.at(&span) {
            Some(at) => varint::put(out, from + 1 + at as u64),
            None => {
                varint::put(out, from);
                out.extend_from_slice(&span.0);
            }
        }
    }

    /// Reads [`TraceState::encode`]'s form and its first version's; bounded by the length of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut cursor = Cursor(bytes);
        let state = match cursor.byte() {
            Some(VERSION) => Self::take(&mut cursor)?,
            Some(v1::VERSION) => v1::take(&mut cursor)?,
            _ => return Err(Undecodable("unknown version")),
        };
        if cursor.is_at_end() { Ok(state) } else { Err(Undecodable("something follows it")) }
    }

    fn take<'a>(cursor: &mut Cursor<'a>) -> Result<Self, Undecodable> {
        let cut_off = || Undecodable("it is cut off");
        let (marks, seen, spread) = take_head(cursor).ok_or_else(cut_off)?;
        let base = spread.first.map_or(0, |(_, nanos)| nanos);
        let mut ids = Vec::new();
        let links = Layer::decode_with(cursor, |cursor, len| {
            ids = (0..len).map(|_| cursor.array().map(SpanId)).collect::<Option<_>>()?;
            let parents = (0..len).map(|_| match cursor.number()? {
                0 => Some(SpanId::default()),
                code => take_span(cursor, &ids, code - 1),
            });
            ids.iter().zip(parents).map(|(id, parent)| Some((*id, Parent(parent?)))).collect()
        })?;
        let mut recent = Recents::default();
        let mut one = |cursor: &mut Cursor<'a>| take_facts(cursor, base, &ids, &mut recent);
        let roots = Layer::decode_with(cursor, |cursor, len| (0..len).map(|_| one(cursor)).collect())?;
        let calls = Layer::decode_with(cursor, |cursor, len| (0..len).map(|_| one(cursor)).collect())?;
        let words = Box::new(take_words(cursor, base, &ids).ok_or_else(cut_off)?);
        Ok(Self { marks, seen, spread, links, roots, calls, words })
    }
}

fn bits(are_set: impl Iterator<Item = bool>) -> u64 {
    are_set.zip(0..).fold(0, |bits, (is_set, at)| bits | u64::from(is_set) << at)
}

fn put_time(out: &mut Vec<u8>, base: u64, nanos: u64) {
    varint::put_signed(out, nanos.wrapping_sub(base) as i64);
}

fn take_time(cursor: &mut Cursor<'_>, base: u64) -> Option<u64> {
    Some(base.wrapping_add(cursor.signed()? as u64))
}

/// A word's time from its place in the order, and the other way round: what came out counts backwards.
fn time_of(text: Text, at: u64) -> u64 {
    if text == Text::Output { u64::MAX - at } else { at }
}

fn take_head(cursor: &mut Cursor<'_>) -> Option<(Marks, Seen, Spread)> {
    let marks = Marks(u16::try_from(cursor.number()?).ok()?);
    let mut seen = Seen::default();
    seen.add(cursor.byte()?);
    let flag = |byte: u8| (byte < 3).then(|| (byte > 0).then_some(byte == 2));
    let (first, last) = (flag(cursor.byte()?)?, flag(cursor.byte()?)?);
    let mut spread = Spread::default();
    if let Some(flag) = first {
        spread.first = Some((flag, u64::from_le_bytes(cursor.array()?)));
    }
    if let Some(flag) = last {
        spread.last = Some((flag, take_time(cursor, spread.first.map_or(0, |(_, nanos)| nanos))?));
    }
    Some((marks, seen, spread))
}

/// The span that `code` names.
fn take_span(cursor: &mut Cursor<'_>, ids: &[SpanId], code: u64) -> Option<SpanId> {
    match code.checked_sub(1) {
        None => cursor.array().map(SpanId),
        Some(at) => ids.get(usize::try_from(at).ok()?).copied(),
    }
}

fn take_facts<'a>(
    cursor: &mut Cursor<'a>,
    base: u64,
    ids: &[SpanId],
    recent: &mut Recents<'a>,
) -> Option<(SpanId, Box<[u8]>)> {
    let code = cursor.number()?;
    let span = take_span(cursor, ids, code)?;
    let flags = cursor.byte()?;
    let print = u32::from_le_bytes(cursor.array()?);
    let start = take_time(cursor, base)?;
    let end = take_time(cursor, start)?;
    let mut facts = Facts::at(UnixNanos(start), UnixNanos(end));
    (facts.flags, facts.print) = (flags & !FIRST_TOKEN, print);
    if facts.has(Flag::Call) {
        facts.emitter = recent.emitters.take(cursor, Emitter::take)?;
    }
    let texts = cursor.byte()?;
    for (at, text) in Text::OF_FACTS.into_iter().enumerate() {
        if texts & 1 << at != 0 {
            facts.set_text(text, Some(Cow::Borrowed(recent.take_text(cursor)?)));
        }
    }
    let counts = cursor.byte()?;
    for (at, slot) in facts.counts_mut().into_iter().enumerate() {
        if counts & 1 << at != 0 {
            *slot = Some(i64::try_from(cursor.number()?).ok()?);
        }
    }
    if flags & FIRST_TOKEN != 0 {
        facts.first_token_nanos = Some(cursor.number()?);
    }
    let mut bytes = Vec::with_capacity(96);
    facts.encode(&mut bytes);
    Some((span, bytes.into()))
}

fn take_words(cursor: &mut Cursor<'_>, base: u64, ids: &[SpanId]) -> Option<Words<'static>> {
    let mut words = Words::default();
    let there = cursor.number()?;
    if there >> Text::OF_TRACE.len() != 0 {
        return None;
    }
    for (at, text) in Text::OF_TRACE.into_iter().enumerate() {
        if there & 1 << at == 0 {
            continue;
        }
        let head = cursor.byte()?;
        let (class, marks) = (head & 3, Marks(u16::from(head >> 2)));
        let at = time_of(text, take_time(cursor, base)?);
        let code = cursor.number()?;
        let by = By { class, at, span: take_span(cursor, ids, code)? };
        let bytes = cursor.bytes()?;
        let said = simdutf8::basic::from_utf8(bytes).ok()?;
        // One NUL parts a prompt from its version; no other is ever put.
        let nul = memchr::memchr(0, bytes);
        let is_put = nul.is_none_or(|at| text == Text::PromptRef && memchr::memchr(0, &bytes[at + 1..]).is_none());
        if !is_put || marks.0 & !WORD_MARKS != 0 {
            return None;
        }
        words.offer(text, Word { by, text: Cow::Owned(said.to_owned()), marks });
    }
    Some(words)
}

/// What may be meant again.
#[derive(Default)]
struct Recents<'a> {
    emitters: Recent<Emitter>,
    texts: Recent<&'a str>,
}

/// The last few of what was written out, oldest first in a ring.
#[derive(Default)]
struct Recent<T> {
    ring: [T; RECENT],
    written: usize,
}

impl<T: Copy + PartialEq> Recent<T> {
    /// How many were written since this one; none if it cannot be meant again.
    fn age(&self, wanted: T) -> Option<usize> {
        (0..self.written.min(RECENT)).find(|age| self.ring[(self.written - 1 - age) % RECENT] == wanted)
    }

    fn at(&self, age: usize) -> Option<T> {
        (age < self.written.min(RECENT)).then(|| self.ring[(self.written - 1 - age) % RECENT])
    }

    fn push(&mut self, one: T) {
        self.ring[self.written % RECENT] = one;
        self.written += 1;
    }

    /// Its age and `from`, or 0 and it.
    fn put(&mut self, out: &mut Vec<u8>, one: T, from: u8, write: impl FnOnce(&mut Vec<u8>, T)) {
        match self.age(one) {
            Some(age) => out.push(from + age as u8),
            None => {
                out.push(0);
                write(out, one);
                self.push(one);
            }
        }
    }

    fn take<'a>(&mut self, cursor: &mut Cursor<'a>, read: impl FnOnce(&mut Cursor<'a>) -> Option<T>) -> Option<T> {
        match cursor.byte()?.checked_sub(1) {
            Some(age) => self.at(usize::from(age)),
            None => {
                let one = read(cursor)?;
                self.push(one);
                Some(one)
            }
        }
    }
}

impl<'a> Recents<'a> {
    fn put_text(&mut self, out: &mut Vec<u8>, text: &'a str) {
        let is_short = text.len() <= SHORT_BYTES_MAX;
        if is_short && let Some(age) = self.texts.age(text) {
            return out.push((age << 1 | 1) as u8);
        }
        varint::put(out, (text.len() as u64) << 1);
        out.extend_from_slice(text.as_bytes());
        if is_short {
            self.texts.push(text);
        }
    }

    fn take_text(&mut self, cursor: &mut Cursor<'a>) -> Option<&'a str> {
        let code = cursor.number()?;
        let count = usize::try_from(code >> 1).ok()?;
        if code & 1 == 1 {
            return self.texts.at(count);
        }
        let (bytes, rest) = cursor.0.split_at_checked(count)?;
        cursor.0 = rest;
        let text = simdutf8::basic::from_utf8(bytes).ok().filter(|_| memchr::memchr(0, bytes).is_none())?;
        if count <= SHORT_BYTES_MAX {
            self.texts.push(text);
        }
        Some(text)
    }
}
