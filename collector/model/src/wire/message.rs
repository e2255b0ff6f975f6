//! OTLP's messages, one function each: what is in them is walked over, what is wrong is noted.
//!
//! A note is about the span, or about the resource or scope that its spans depend on. `Malformed` is about the request: the bytes
//! from there on have no meaning, and prost refuses them too. What lies deeper than the limit is not looked at.

use std::fmt;

use super::mend::{self, Seen};
use super::read::{FIXED32, FIXED64, LENGTH, Reader, VARINT, key};
use super::text::{self, Text};
use super::{Limits, Malformed};

/// Why a span, or all spans under a resource or scope, cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NotUtf8(&'static str),
    IdLength { what: &'static str, bytes: usize },
    IdZero { what: &'static str },
    TooDeep { depth_max: u32 },
    TooMany { spans_max: u32 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8(what) => write!(f, "{what} is not UTF-8"),
            Self::IdLength { what, bytes } => write!(f, "{what} is {bytes} bytes long"),
            Self::IdZero { what } => write!(f, "{what} is all zero"),
            Self::TooDeep { depth_max } => write!(f, "a value is nested deeper than {depth_max}"),
            Self::TooMany { spans_max } => write!(f, "a request may hold {spans_max} spans"),
        }
    }
}

/// What is known of the span, resource or scope in hand.
pub(super) struct Notes {
    depth_max: u32,
    /// The first thing wrong with it.
    pub(super) fault: Option<Fault>,
    /// Whether Phoenix needs it mended.
    pub(super) mend: bool,
}

/// The walk recurses once for each level of a value, so that a limit set higher is not believed.
const RECURSION_MAX: u32 = 100;

impl Notes {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { depth_max: limits.depth_max.min(RECURSION_MAX), fault: None, mend: false }
    }

    #[cold]
    pub(super) fn blame(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    #[inline(always)]
    pub(super) fn text(&mut self, what: &'static str, text: &[u8]) {
        match text::look(text) {
            Text::Plain => {}
            Text::Nul => self.mend = true,
            Text::Broken => self.blame(Fault::NotUtf8(what)),
        }
    }

    fn id(&mut self, what: &'static str, id: &[u8], bytes: usize) {
        if id.len() != bytes {
            self.blame(Fault::IdLength { what, bytes: id.len() });
        } else if id.iter().all(|&byte| byte == 0) {
            self.blame(Fault::IdZero { what });
        }
    }
}

/// The fields that a message knows, as bits: one of them under another wire type is malformed, any other field is passed over.
pub(super) struct Known(u32);

impl Known {
    pub(super) const fn up_to(number: u32) -> Self {
        Self((1 << (number + 1)) - 2)
    }

    #[cold]
    pub(super) fn pass(&self, reader: &mut Reader<'_>, key: u32) -> Result<(), Malformed> {
        let number = key >> 3;
        if number < 32 && self.0 >> number & 1 == 1 {
            return Err(reader.malformed("wrong wire type"));
        }
        reader.skip(key)
    }
}

/// A field's key at compile time, for use in patterns.
macro_rules! keys {
    ($($name:ident = $number:literal $wire:ident;)*) => { $(const $name: u32 = key($number, $wire);)* };
}

pub(super) fn resource(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    keys! { ATTRIBUTES = 1 LENGTH; DROPPED = 2 VARINT; ENTITY_REFS = 3 LENGTH; }
    while !reader.is_done() {
        match reader.key()? {
            ATTRIBUTES => attribute(reader.message()?, "resource attribute", notes)?,
            DROPPED => drop(reader.varint()?),
            ENTITY_REFS => entity_ref(reader.message()?, notes)?,
            key => Known::up_to(3).pass(&mut reader, key)?,
        }
    }
    Ok(())
}

fn entity_ref(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    keys! { SCHEMA_URL = 1 LENGTH; TYPE = 2 LENGTH; ID_KEYS = 3 LENGTH; DESCRIPTION_KEYS = 4 LENGTH; }
    while !reader.is_done() {
        match reader.key()? {
            SCHEMA_URL | TYPE | ID_KEYS | DESCRIPTION_KEYS => notes.text("entity reference", reader.payload()?),
            key => Known::up_to(4).pass(&mut reader, key)?,
        }
    }
    Ok(())
}

pub(super) fn scope(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    keys! { NAME = 1 LENGTH; VERSION = 2 LENGTH; ATTRIBUTES = 3 LENGTH; DROPPED = 4 VARINT; }
    while !reader.is_done() {
        match reader.key()? {
            NAME => notes.text("scope name", reader.payload()?),
            VERSION => notes.text("scope version", reader.payload()?),
            ATTRIBUTES => attribute(reader.message()?, "scope attribute", notes)?,
            DROPPED => drop(reader.varint()?),
            key => Known::up_to(4).pass(&mut reader, key)?,
        }
    }
    Ok(())
}

pub(super) fn span(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    keys! {
        TRACE_ID = 1 LENGTH; SPAN_ID = 2 LENGTH; TRACE_STATE = 3 LENGTH; PARENT_SPAN_ID = 4 LENGTH; NAME = 5 LENGTH; KIND = 6 VARINT;
        START = 7 FIXED64; END = 8 FIXED64; ATTRIBUTES = 9 LENGTH; DROPPED_ATTRIBUTES = 10 VARINT; EVENTS = 11 LENGTH;
        DROPPED_EVENTS = 12 VARINT; LINKS = 13 LENGTH; DROPPED_LINKS = 14 VARINT; STATUS = 15 LENGTH; FLAGS = 16 FIXED32;
    }
    // The last of each counts, as everywhere in protobuf.
    let (mut trace_id, mut span_id, mut parent_span_id): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    while !reader.is_done() {
        match reader.key()? {
            ATTRIBUTES => attribute(reader.message()?, "attribute", notes)?,
            TRACE_ID => trace_id = reader.payload()?,
            SPAN_ID => span_id = reader.payload()?,
            PARENT_SPAN_ID => parent_span_id = reader.payload()?,
            NAME => notes.text("name", reader.payload()?),
            START | END => drop(reader.fixed64()?),
            KIND | DROPPED_ATTRIBUTES | DROPPED_EVENTS | DROPPED_LINKS => drop(reader.varint()?),
            FLAGS => drop(reader.fixed32()?),
            STATUS => status(reader.message()?, notes)?,
            EVENTS => event(reader.message()?, notes)?,
            LINKS => link(reader.message()?, notes)?,
            TRACE_STATE => notes.text("trace state", reader.payload()?),
            key => Known::up_to(16).pass(&mut reader, key)?,
        }
    }
    notes.id("trace id", trace_id, 16);
    notes.id("span id", span_id, 8);
    // A root has no parent; some write that as eight zeros.
    if !matches!(parent_span_id.len(), 0 | 8) {
        notes.blame(Fault::IdLength { what: "parent span id", bytes: parent_span_id.len() });
    }
    Ok(())
}

fn status(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    keys! { MESSAGE = 2 LENGTH; CODE = 3 VARINT; }
    while !reader.is_done() {
        match reader.key()? {
            MESSAGE => notes.text("status message", reader.payload()?),
            CODE => drop(reader.varint()?),
            // Field 1 was a code once and is unknown now.
            key => Known(0b1100).pass(&mut reader, key)?,
        }
    }
    Ok(())
}

fn event(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    keys! { TIME = 1 FIXED64; NAME = 2 LENGTH; ATTRIBUTES = 3 LENGTH; DROPPED = 4 VARINT; }
    while !reader.is_done() {
        match reader.key()? {
            TIME => drop(reader.fixed64()?),
            NAME => notes.text("event name", reader.payload()?),
            ATTRIBUTES => attribute(reader.message()?, "event attribute", notes)?,
            DROPPED => drop(reader.varint()?),
            key => Known::up_to(4).pass(&mut reader, key)?,
        }
    }
    Ok(())
}

fn link(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    keys! { TRACE_ID = 1 LENGTH; SPAN_ID = 2 LENGTH; TRACE_STATE = 3 LENGTH; ATTRIBUTES = 4 LENGTH; DROPPED = 5 VARINT; FLAGS = 6 FIXED32; }
    while !reader.is_done() {
        match reader.key()? {
            // Readers of links take any length.
            TRACE_ID | SPAN_ID => drop(reader.payload()?),
            TRACE_STATE => notes.text("link trace state", reader.payload()?),
            ATTRIBUTES => attribute(reader.message()?, "link attribute", notes)?,
            DROPPED => drop(reader.varint()?),
            FLAGS => drop(reader.fixed32()?),
            key => Known::up_to(6).pass(&mut reader, key)?,
        }
    }
    Ok(())
}

/// An attribute of a span, event, link, resource or scope.
#[inline(always)]
fn attribute(pair: Reader<'_>, what: &'static str, notes: &mut Notes) -> Result<(), Malformed> {
    match plain_pair(pair) {
        Some((key, value)) => {
            notes.text(what, key);
            let seen = match value {
                Plain::String(text) => {
                    notes.text(what, text);
                    Seen::string(text)
                }
                Plain::Seen(seen) => seen,
            };
            notes.mend |= mend::wanted(key, seen);
            Ok(())
        }
        None => key_value(pair, what, 1, notes),
    }
}

enum Plain<'a> {
    String(&'a [u8]),
    Seen(Seen),
}

/// The fast way for what nearly all attributes are: a key and then a scalar, each with a length of one or two bytes, and nothing
/// else. None sends the pair the general way, so this needs not be complete, but what it lets pass must be right.
#[inline(always)]
fn plain_pair<'a>(pair: Reader<'a>) -> Option<(&'a [u8], Plain<'a>)> {
    let [0x0a, rest @ ..] = &pair.bytes[pair.at..] else { return None };
    let (key, rest) = split_short(rest)?;
    let [0x12, rest @ ..] = rest else { return None };
    let (value, []) = split_short(rest)? else { return None };
    match value {
        [0x0a, rest @ ..] => match split_short(rest)? {
            (text, []) => Some((key, Plain::String(text))),
            _ => None,
        },
        [0x18, rest @ ..] => Some((key, Plain::Seen(Seen::int(plain_varint(rest)?)))),
        [0x10, byte] if *byte < 0x80 => Some((key, Plain::Seen(Seen::OTHER))),
        [0x21, rest @ ..] => {
            let double = <[u8; 8]>::try_from(rest).ok()?;
            Some((key, Plain::Seen(Seen::double(u64::from_le_bytes(double)))))
        }
        _ => None,
    }
}

/// What a length of one or two bytes spans, and what is behind it.
#[inline(always)]
fn split_short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes {
        [low, rest @ ..] if *low < 0x80 => rest.split_at_checked(usize::from(*low)),
        [low, high, rest @ ..] if *high < 0x80 => rest.split_at_checked(usize::from(low & 0x7f) | usize::from(*high) << 7),
        _ => None,
    }
}

/// The varint that is all of `bytes`, if it has at most nine.
#[inline(always)]
fn plain_varint(bytes: &[u8]) -> Option<u64> {
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

/// A pair at `depth`, the general way.
#[inline(never)]
fn key_value(mut reader: Reader<'_>, what: &'static str, depth: u32, notes: &mut Notes) -> Result<(), Malformed> {
    keys! { KEY = 1 LENGTH; VALUE = 2 LENGTH; KEY_STRINDEX = 3 VARINT; }
    let mut seen = Seen::default();
    let mut last_key: &[u8] = &[];
    while !reader.is_done() {
        match reader.key()? {
            KEY => {
                last_key = reader.payload()?;
                notes.text(what, last_key);
            }
            VALUE => seen = seen.and(any_value(reader.message()?, what, depth, notes)?),
            KEY_STRINDEX => drop(reader.varint()?),
            key => Known::up_to(3).pass(&mut reader, key)?,
        }
    }
    notes.mend |= mend::wanted(last_key, seen);
    Ok(())
}

fn any_value(mut reader: Reader<'_>, what: &'static str, depth: u32, notes: &mut Notes) -> Result<Seen, Malformed> {
    keys! {
        STRING = 1 LENGTH; BOOL = 2 VARINT; INT = 3 VARINT; DOUBLE = 4 FIXED64; ARRAY = 5 LENGTH; KVLIST = 6 LENGTH; BYTES = 7 LENGTH;
        STRINDEX = 8 VARINT;
    }
    if depth > notes.depth_max {
        notes.blame(Fault::TooDeep { depth_max: notes.depth_max });
        return Ok(Seen::OTHER);
    }
    let mut seen = Seen::default();
    while !reader.is_done() {
        let member = match reader.key()? {
            STRING => {
                let text = reader.payload()?;
                notes.text(what, text);
                Seen::string(text)
            }
            INT => Seen::int(reader.varint()?),
            DOUBLE => Seen::double(reader.fixed64()?),
            BOOL | STRINDEX => {
                reader.varint()?;
                Seen::OTHER
            }
            ARRAY => array(reader.message()?, what, depth, notes)?,
            KVLIST => kvlist(reader.message()?, what, depth, notes)?,
            BYTES => {
                reader.payload()?;
                notes.mend = true;
                Seen::OTHER
            }
            key => {
                Known::up_to(8).pass(&mut reader, key)?;
                continue;
            }
        };
        seen = seen.and(member);
    }
    Ok(seen)
}

fn array(mut reader: Reader<'_>, what: &'static str, depth: u32, notes: &mut Notes) -> Result<Seen, Malformed> {
    keys! { VALUES = 1 LENGTH; }
    while !reader.is_done() {
        match reader.key()? {
            VALUES => drop(any_value(reader.message()?, what, depth + 1, notes)?),
            key => Known::up_to(1).pass(&mut reader, key)?,
        }
    }
    Ok(Seen::OTHER)
}

fn kvlist(mut reader: Reader<'_>, what: &'static str, depth: u32, notes: &mut Notes) -> Result<Seen, Malformed> {
    keys! { VALUES = 1 LENGTH; }
    while !reader.is_done() {
        match reader.key()? {
            VALUES => key_value(reader.message()?, what, depth + 1, notes)?,
            key => Known::up_to(1).pass(&mut reader, key)?,
        }
    }
    Ok(Seen::OTHER)
}
