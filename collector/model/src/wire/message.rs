//! OTLP's messages, one function each: what is in them is walked over, what is wrong is noted.
//!
//! A note is about the span, or about the resource or scope that its spans depend on. `Malformed` is about the request:
//! the bytes from there on have no meaning, and prost refuses them too. What lies deeper than the limit is not looked
//! at.

use std::fmt;

use super::keys;
use super::mend::{self, Seen};
use super::plain::{self, Scalar};
use super::read::Reader;
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

/// Passes over a field that was not expected: `known` has the numbers that the message knows as bits, and one of those
/// under another wire type is malformed.
#[cold]
pub(super) fn pass(reader: &mut Reader<'_>, key: u32, known: u32) -> Result<(), Malformed> {
    let number = key >> 3;
    if number < 32 && known >> number & 1 == 1 {
        return Err(reader.malformed("wrong wire type"));
    }
    reader.skip(key)
}

pub(super) fn resource(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    use keys::resource as k;
    while !reader.is_done() {
        match reader.key()? {
            k::ATTRIBUTES => attribute(reader.message()?, "resource attribute", notes)?,
            k::DROPPED => drop(reader.varint()?),
            k::ENTITY_REFS => entity_ref(reader.message()?, notes)?,
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    Ok(())
}

fn entity_ref(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    use keys::entity_ref as k;
    while !reader.is_done() {
        match reader.key()? {
            k::SCHEMA_URL | k::TYPE | k::ID_KEYS | k::DESCRIPTION_KEYS => {
                notes.text("entity reference", reader.payload()?)
            }
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    Ok(())
}

pub(super) fn scope(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    use keys::scope as k;
    while !reader.is_done() {
        match reader.key()? {
            k::NAME => notes.text("scope name", reader.payload()?),
            k::VERSION => notes.text("scope version", reader.payload()?),
            k::ATTRIBUTES => attribute(reader.message()?, "scope attribute", notes)?,
            k::DROPPED => drop(reader.varint()?),
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    Ok(())
}

pub(super) fn span(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    use keys::span as k;
    // The last of each counts, as everywhere in protobuf.
    let (mut trace_id, mut span_id, mut parent_span_id): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    while !reader.is_done() {
        match reader.key()? {
            k::ATTRIBUTES => attribute(reader.message()?, "attribute", notes)?,
            k::TRACE_ID => trace_id = reader.payload()?,
            k::SPAN_ID => span_id = reader.payload()?,
            k::PARENT_SPAN_ID => parent_span_id = reader.payload()?,
            k::NAME => notes.text("name", reader.payload()?),
            k::START | k::END => drop(reader.fixed64()?),
            k::KIND | k::DROPPED_ATTRIBUTES | k::DROPPED_EVENTS | k::DROPPED_LINKS => drop(reader.varint()?),
            k::FLAGS => drop(reader.fixed32()?),
            k::STATUS => status(reader.message()?, notes)?,
            k::EVENTS => event(reader.message()?, notes)?,
            k::LINKS => link(reader.message()?, notes)?,
            k::TRACE_STATE => notes.text("trace state", reader.payload()?),
            key => pass(&mut reader, key, k::KNOWN)?,
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
    use keys::status as k;
    while !reader.is_done() {
        match reader.key()? {
            k::MESSAGE => notes.text("status message", reader.payload()?),
            k::CODE => drop(reader.varint()?),
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    Ok(())
}

fn event(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    use keys::event as k;
    while !reader.is_done() {
        match reader.key()? {
            k::TIME => drop(reader.fixed64()?),
            k::NAME => notes.text("event name", reader.payload()?),
            k::ATTRIBUTES => attribute(reader.message()?, "event attribute", notes)?,
            k::DROPPED => drop(reader.varint()?),
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    Ok(())
}

fn link(mut reader: Reader<'_>, notes: &mut Notes) -> Result<(), Malformed> {
    use keys::link as k;
    while !reader.is_done() {
        match reader.key()? {
            // Readers of links take any length.
            k::TRACE_ID | k::SPAN_ID => drop(reader.payload()?),
            k::TRACE_STATE => notes.text("link trace state", reader.payload()?),
            k::ATTRIBUTES => attribute(reader.message()?, "link attribute", notes)?,
            k::DROPPED => drop(reader.varint()?),
            k::FLAGS => drop(reader.fixed32()?),
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    Ok(())
}

/// An attribute of a span, event, link, resource or scope.
#[inline(always)]
fn attribute(pair: Reader<'_>, what: &'static str, notes: &mut Notes) -> Result<(), Malformed> {
    let Some((key, value)) = plain::pair(&pair.bytes[pair.at..]) else {
        return key_value(pair, what, 1, notes);
    };
    let seen = match plain::scalar(value) {
        Some(Scalar::String(text)) => {
            notes.text(what, text);
            Seen::string(text)
        }
        Some(Scalar::Int(int)) => Seen::int(int),
        Some(Scalar::Double(double)) => Seen::double(double),
        Some(Scalar::Bool(_)) => Seen::OTHER,
        None => return key_value(pair, what, 1, notes),
    };
    notes.text(what, key);
    notes.mend |= mend::wanted(key, seen);
    Ok(())
}

/// A pair at `depth`, the general way.
#[inline(never)]
fn key_value(mut reader: Reader<'_>, what: &'static str, depth: u32, notes: &mut Notes) -> Result<(), Malformed> {
    use keys::key_value as k;
    let mut seen = Seen::default();
    let mut last_key: &[u8] = &[];
    while !reader.is_done() {
        match reader.key()? {
            k::KEY => {
                last_key = reader.payload()?;
                notes.text(what, last_key);
            }
            k::VALUE => seen = seen.and(any_value(reader.message()?, what, depth, notes)?),
            k::KEY_STRINDEX => drop(reader.varint()?),
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    notes.mend |= mend::wanted(last_key, seen);
    Ok(())
}

fn any_value(mut reader: Reader<'_>, what: &'static str, depth: u32, notes: &mut Notes) -> Result<Seen, Malformed> {
    use keys::any_value as k;
    if depth > notes.depth_max {
        notes.blame(Fault::TooDeep { depth_max: notes.depth_max });
        return Ok(Seen::OTHER);
    }
    let mut seen = Seen::default();
    while !reader.is_done() {
        let member = match reader.key()? {
            k::STRING => {
                let text = reader.payload()?;
                notes.text(what, text);
                Seen::string(text)
            }
            k::INT => Seen::int(reader.varint()? as i64),
            k::DOUBLE => Seen::double(f64::from_bits(reader.fixed64()?)),
            k::BOOL | k::STRINDEX => {
                reader.varint()?;
                Seen::OTHER
            }
            k::ARRAY => array(reader.message()?, what, depth, notes)?,
            k::KVLIST => kvlist(reader.message()?, what, depth, notes)?,
            k::BYTES => {
                reader.payload()?;
                notes.mend = true;
                Seen::OTHER
            }
            key => {
                pass(&mut reader, key, k::KNOWN)?;
                continue;
            }
        };
        seen = seen.and(member);
    }
    Ok(seen)
}

fn array(mut reader: Reader<'_>, what: &'static str, depth: u32, notes: &mut Notes) -> Result<Seen, Malformed> {
    use keys::list as k;
    while !reader.is_done() {
        match reader.key()? {
            k::VALUES => drop(any_value(reader.message()?, what, depth + 1, notes)?),
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    Ok(Seen::OTHER)
}

fn kvlist(mut reader: Reader<'_>, what: &'static str, depth: u32, notes: &mut Notes) -> Result<Seen, Malformed> {
    use keys::list as k;
    while !reader.is_done() {
        match reader.key()? {
            k::VALUES => key_value(reader.message()?, what, depth + 1, notes)?,
            key => pass(&mut reader, key, k::KNOWN)?,
        }
    }
    Ok(Seen::OTHER)
}
