//! The first version of a state's bytes, which is still read: a state that was stored before merges with what comes after.
//!
//! On disk: marks (varint), what was seen (byte), two times (a byte whether there is one and whether it is believed, 8 bytes), then the layers
//! links, roots, calls, names with all of an entry's bytes in it, then two texts, what was asked and what answered. Facts held all that a
//! span says; what they name is taken out of them here, and becomes words by the rule that the fold has today. Their print is not known.
//! Kept by: `tests/states_v1.rs`.

use std::borrow::Cow;

use super::layer::{Layer, Parent};
use super::words::{By, Word, Words};
use super::{Seen, Spread, TraceState, Undecodable};
use crate::facts::{Emitter, Facts, Flag, Marks, Text, take_text};
use crate::varint::Cursor;
use crate::{SpanId, UnixNanos};

pub(super) const VERSION: u8 = 1;

/// Flags of a root's own texts.
const INPUT_IS_JSON: u8 = 1 << 5;
const OUTPUT_IS_JSON: u8 = 1 << 6;

/// Reads what stands behind the version.
pub(super) fn take(cursor: &mut Cursor<'_>) -> Result<TraceState, Undecodable> {
    let cut_off = || Undecodable("it is cut off");
    let head = |cursor: &mut Cursor<'_>| {
        let marks = Marks(u16::try_from(cursor.number()?).ok()?);
        let mut seen = Seen::default();
        seen.add(cursor.byte()?);
        Some((marks, seen, Spread { first: take_time(cursor)?, last: take_time(cursor)? }))
    };
    let (marks, seen, spread) = head(cursor).ok_or_else(cut_off)?;
    let mut words = Box::<Words<'_>>::default();
    let link = |cursor: &mut Cursor<'_>| Some((SpanId(cursor.array()?), Parent(SpanId(cursor.array()?))));
    let links = Layer::decode_with(cursor, |cursor, len| (0..len).map(|_| link(cursor)).collect())?;
    let mut facts = |cursor: &mut Cursor<'_>, is_root, len| {
        let mut pairs = Vec::with_capacity(len);
        for _ in 0..len {
            let span = SpanId(cursor.array()?);
            pairs.push((span, take_facts(cursor.bytes()?, span, is_root, &mut words)?));
        }
        Some(pairs)
    };
    let roots = Layer::decode_with(cursor, |cursor, len| facts(cursor, true, len))?;
    let calls = Layer::decode_with(cursor, |cursor, len| facts(cursor, false, len))?;
    take_names(cursor, &mut words).ok_or_else(cut_off)?;
    for text in [Text::Input, Text::Output] {
        take_said(cursor, text, &mut words).ok_or_else(cut_off)?;
    }
    Ok(TraceState { marks, seen, spread, links, roots, calls, words })
}

fn take_time(cursor: &mut Cursor<'_>) -> Option<Option<(bool, u64)>> {
    match cursor.byte()? {
        0 => Some(None),
        flag @ (1 | 2) => Some(Some((flag == 2, u64::from_le_bytes(cursor.array()?)))),
        _ => None,
    }
}

/// Texts that facts held and hold no more.
type Named<'a> = [Option<&'a str>; Text::OF_TRACE.len()];

fn take_facts(bytes: &[u8], span: SpanId, is_root: bool, words: &mut Words<'static>) -> Option<Box<[u8]>> {
    let mut cursor = Cursor(bytes);
    let flags = u8::try_from(cursor.number()?).ok()?;
    let start = UnixNanos(u64::from_le_bytes(cursor.array()?));
    let end = UnixNanos(start.0.wrapping_add(cursor.signed()? as u64));
    let mut facts = Facts::at(start, end);
    facts.flags = flags & (INPUT_IS_JSON - 1);
    if facts.has(Flag::Call) {
        facts.emitter = Emitter::take(&mut cursor)?;
    }
    let mut named: Named<'_> = Default::default();
    facts.take_fields(cursor, |text, value| {
        *named.get_mut(text.word())? = Some(value);
        Some(())
    })?;
    let by = |text| match text {
        Text::Input => By::words(is_root, flags & INPUT_IS_JSON != 0, start.0, span),
        Text::Output => By::words(is_root, flags & OUTPUT_IS_JSON != 0, u64::MAX - end.0, span),
        _ => By { class: u8::from(!is_root), at: start.0, span },
    };
    offer(words, &named, by);
    let mut out = Vec::with_capacity(96);
    facts.encode(&mut out);
    Some(out.into())
}

fn offer(words: &mut Words<'static>, named: &Named<'_>, by: impl Fn(Text) -> By) {
    let version = named[Text::PromptVersion.word()];
    for (text, value) in Text::OF_TRACE.into_iter().zip(named) {
        let Some(value) = value.filter(|_| words.wants(text, by(text))) else { continue };
        let value = match version.filter(|_| text == Text::PromptRef) {
            Some(version) => format!("{value}\0{version}"),
            None => value.to_owned(),
        };
        words.offer(text, Word { by: by(text), text: Cow::Owned(value), marks: Marks::default() });
    }
}

/// The layer of what other spans named: a cut, entries (none of which conflicts), of each what is named, since when and by whom.
fn take_names(cursor: &mut Cursor<'_>, words: &mut Words<'static>) -> Option<()> {
    if cursor.number()? != 0 {
        cursor.number()?;
    }
    let (len, conflicts) = (cursor.number()?, cursor.number()?);
    if len.saturating_add(conflicts) > cursor.0.len() as u64 || conflicts > len {
        return None;
    }
    for _ in 0..conflicts {
        cursor.number()?;
    }
    for _ in 0..len {
        let mut named: Named<'_> = Default::default();
        let names = cursor.bytes()?;
        let by = By { class: 1, at: u64::from_le_bytes(cursor.array()?), span: SpanId(cursor.array()?) };
        Facts::default().take_fields(Cursor(names), |text, value| {
            *named.get_mut(text.word())? = Some(value);
            Some(())
        })?;
        offer(words, &named, |_| by);
    }
    Some(())
}

fn take_said(cursor: &mut Cursor<'_>, text: Text, words: &mut Words<'static>) -> Option<()> {
    let is_json = match cursor.byte()? {
        0 => return Some(()),
        flag @ (1 | 2) => flag == 2,
        _ => return None,
    };
    let at = u64::from_le_bytes(cursor.array()?);
    let by = By::words(false, is_json, at, SpanId(cursor.array()?));
    words.offer(text, Word { by, text: Cow::Owned(take_text(cursor)?.to_owned()), marks: Marks::default() });
    Some(())
}
