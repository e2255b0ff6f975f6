//! A copy of a request in which every text was looked at by somebody, who may change it, or leave out what holds it.
//!
//! Promise: each text of a request is asked about, wherever it stands: names, attributes of resources, scopes, spans, events and
//! links, values inside values, bytes as far as they are UTF-8. Ids, times, kinds and flags stay as they came. Fields that OTLP does
//! not know are left out, for nobody can say what is in them. What comes out holds the same spans with the same ids, in order.
//! Not here: what is changed and why (`emberd-intake`'s `redact`).
//! Kept by: `emberd-intake`'s `redact::tests`, `fuzz`'s target `redact`.

use super::keys;
use super::pieces::Pieces;
use super::read::{LENGTH, Reader};
use super::value::ValueView;
use super::{Malformed, write};

/// What becomes of a text, or of a value as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It stays as it is.
    Same,
    /// It goes, and with it the attribute that it is the value of; an element of a list and a name become empty.
    Gone,
    /// This text takes its place.
    To(String),
}

/// Who looks at the texts. Steps in and out tell where: the path of keys from an attribute's name down.
pub trait Reword {
    /// What follows stands under this key, until [`Reword::leave`].
    fn enter(&mut self, key: &str);
    /// What follows is the element of this number of a list, until [`Reword::leave`].
    fn enter_element(&mut self, number: usize);
    /// The end of what was entered last.
    fn leave(&mut self);
    /// What becomes of the value that was just entered, as a whole; [`Word::Same`]: its texts are asked about one by one.
    fn value(&mut self, value: ValueView<'_>) -> Word;
    /// What becomes of one text.
    fn text(&mut self, text: &str) -> Word;
}

/// A copy of `request` as `by` wants it; none if that is `request` itself.
///
/// Of a request that [`check`](super::check) does not take whole, an error or a copy without what is not understood.
pub fn reworded(request: &[u8], by: &mut impl Reword) -> Result<Option<Vec<u8>>, Malformed> {
    let mut copy = Copy { by, out: Vec::with_capacity(request.len() + request.len() / 16) };
    copy.message(Reader::new(request), REQUEST)?;
    Ok((copy.out != request).then_some(copy.out))
}

/// Values inside each other: above what the walk lets pass, whatever its limits say.
const DEPTH_MAX: u32 = 128;

/// What a message's fields are.
struct Shape {
    /// The numbers of fields that are copied as they are, as bits.
    plain: u32,
    texts: u32,
    attributes: u32,
    /// Messages in it, by number.
    inner: &'static [(u32, &'static Shape)],
}

const fn bits<const N: usize>(keys: [u32; N]) -> u32 {
    let (mut bits, mut at) = (0, 0);
    while at < N {
        bits |= 1 << (keys[at] >> 3);
        at += 1;
    }
    bits
}

const fn shape(plain: u32, texts: u32, attributes: u32, inner: &'static [(u32, &'static Shape)]) -> Shape {
    Shape { plain, texts, attributes, inner }
}

const REQUEST: &Shape = &shape(0, 0, 0, &[(keys::request::RESOURCE_SPANS, RESOURCE_SPANS)]);
const RESOURCE_SPANS: &Shape = &{
    use keys::resource_spans as k;
    shape(0, bits([k::SCHEMA_URL]), 0, &[(k::RESOURCE, RESOURCE), (k::SCOPE_SPANS, SCOPE_SPANS)])
};
const RESOURCE: &Shape = &{
    use keys::resource as k;
    shape(bits([k::DROPPED]), 0, bits([k::ATTRIBUTES]), &[(k::ENTITY_REFS, ENTITY_REF)])
};
const ENTITY_REF: &Shape = &{
    use keys::entity_ref as k;
    shape(0, bits([k::SCHEMA_URL, k::TYPE, k::ID_KEYS, k::DESCRIPTION_KEYS]), 0, &[])
};
const SCOPE_SPANS: &Shape = &{
    use keys::scope_spans as k;
    shape(0, bits([k::SCHEMA_URL]), 0, &[(k::SCOPE, SCOPE), (k::SPANS, SPAN)])
};
const SCOPE: &Shape = &{
    use keys::scope as k;
    shape(bits([k::DROPPED]), bits([k::NAME, k::VERSION]), bits([k::ATTRIBUTES]), &[])
};
const SPAN: &Shape = &{
    use keys::span as k;
    shape(
        bits([
            k::TRACE_ID,
            k::SPAN_ID,
            k::PARENT_SPAN_ID,
            k::KIND,
            k::START,
            k::END,
            k::DROPPED_ATTRIBUTES,
            k::DROPPED_EVENTS,
            k::DROPPED_LINKS,
            k::FLAGS,
        ]),
        bits([k::NAME, k::TRACE_STATE]),
        bits([k::ATTRIBUTES]),
        &[(k::EVENTS, EVENT), (k::LINKS, LINK), (k::STATUS, STATUS)],
    )
};
const STATUS: &Shape = &{
    use keys::status as k;
    shape(bits([k::CODE]), bits([k::MESSAGE]), 0, &[])
};
const EVENT: &Shape = &{
    use keys::event as k;
    shape(bits([k::TIME, k::DROPPED]), bits([k::NAME]), bits([k::ATTRIBUTES]), &[])
};
const LINK: &Shape = &{
    use keys::link as k;
    shape(bits([k::TRACE_ID, k::SPAN_ID, k::DROPPED, k::FLAGS]), bits([k::TRACE_STATE]), bits([k::ATTRIBUTES]), &[])
};

struct Copy<'r, R> {
    by: &'r mut R,
    out: Vec<u8>,
}

impl<R: Reword> Copy<'_, R> {
    fn message(&mut self, mut reader: Reader<'_>, shape: &Shape) -> Result<(), Malformed> {
        while !reader.is_done() {
            let from = reader.at;
            let key = reader.key()?;
            let number = key >> 3;
            let bit = if number < 32 { 1 << number } else { 0 };
            if let Some((_, inner)) = shape.inner.iter().find(|(of, _)| *of == key) {
                let open = write::open(&mut self.out, number);
                self.message(reader.message()?, inner)?;
                write::close(&mut self.out, open);
            } else if bit & shape.texts != 0 && key & 7 == LENGTH {
                self.name(number, reader.payload()?);
            } else if bit & shape.attributes != 0 && key & 7 == LENGTH {
                self.pair(number, reader.message()?, 1)?;
            } else {
                reader.skip(key)?;
                if bit & shape.plain != 0 {
                    self.out.extend_from_slice(&reader.bytes[from..reader.at]);
                }
            }
        }
        Ok(())
    }

    /// A text that stands alone.
    fn name(&mut self, number: u32, text: &[u8]) {
        match self.words(text) {
            None => write::bytes(&mut self.out, number, text),
            Some(words) => write::bytes(&mut self.out, number, &words.unwrap_or_default()),
        }
    }

    /// What becomes of text, or of bytes as far as they are text: none if they stay; none inside if they go.
    fn words(&mut self, bytes: &[u8]) -> Option<Option<Vec<u8>>> {
        if let Ok(text) = simdutf8::basic::from_utf8(bytes) {
            return match self.by.text(text) {
                Word::Same => None,
                Word::Gone => Some(None),
                Word::To(text) => Some(Some(text.into_bytes())),
            };
        }
        let (mut out, mut changed) = (Vec::with_capacity(bytes.len()), false);
        for chunk in bytes.utf8_chunks() {
            match self.by.text(chunk.valid()) {
                Word::Same => out.extend_from_slice(chunk.valid().as_bytes()),
                Word::Gone => return Some(None),
                Word::To(text) => {
                    changed = true;
                    out.extend_from_slice(text.as_bytes());
                }
            }
            out.extend_from_slice(chunk.invalid());
        }
        changed.then_some(Some(out))
    }

    /// A key with its value. The last key counts, wherever it stands, and the pieces of a value are one value: so the pair is
    /// written anew, key first.
    fn pair(&mut self, number: u32, pair: Reader<'_>, depth: u32) -> Result<(), Malformed> {
        use keys::key_value as k;
        let (mut last_key, mut pieces) = (&[][..], 0_u32);
        let mut merged = Vec::new();
        let mut value = Reader::new(&[]);
        let mut fields = pair;
        while !fields.is_done() {
            match fields.key()? {
                k::KEY => last_key = fields.payload()?,
                k::VALUE => {
                    let piece = fields.message()?;
                    pieces += 1;
                    if pieces > 1 {
                        if merged.is_empty() {
                            merged.extend_from_slice(&value.bytes[value.at..]);
                        }
                        merged.extend_from_slice(&piece.bytes[piece.at..]);
                    }
                    value = piece;
                }
                key => fields.skip(key)?,
            }
        }
        if pieces > 1 {
            value = Reader::new(&merged);
        }
        let start = self.out.len();
        let open = write::open(&mut self.out, number);
        self.by.enter(simdutf8::basic::from_utf8(last_key).unwrap_or_default());
        // A key that is itself a secret is one whatever becomes of its value.
        let mut stays = self.key(last_key);
        if stays && pieces > 0 {
            stays = self.entered(2, value, depth)?;
        }
        self.by.leave();
        write::close(&mut self.out, open);
        if !stays {
            self.out.truncate(start);
        }
        Ok(())
    }

    /// The key of a pair; whether the pair stays.
    fn key(&mut self, key: &[u8]) -> bool {
        match self.words(key) {
            None if key.is_empty() => {}
            None => write::bytes(&mut self.out, 1, key),
            Some(None) => return false,
            Some(Some(words)) => write::bytes(&mut self.out, 1, &words),
        }
        true
    }

    /// Field `number`, a value that was just entered; whether it stays.
    fn entered(&mut self, number: u32, value: Reader<'_>, depth: u32) -> Result<bool, Malformed> {
        if depth > DEPTH_MAX {
            return Err(value.malformed("value nested too deep"));
        }
        let open = write::open(&mut self.out, number);
        let whole = &value.bytes[value.at..];
        let stays = match self.by.value(ValueView::new(Pieces::whole(whole))) {
            Word::Same => self.any_value(value, depth)?,
            Word::Gone => false,
            Word::To(text) => {
                write::bytes(&mut self.out, 1, text.as_bytes());
                true
            }
        };
        write::close(&mut self.out, open);
        Ok(stays)
    }

    fn any_value(&mut self, mut reader: Reader<'_>, depth: u32) -> Result<bool, Malformed> {
        use keys::any_value as k;
        while !reader.is_done() {
            let from = reader.at;
            match reader.key()? {
                key @ (k::STRING | k::BYTES) => {
                    let payload = reader.payload()?;
                    match self.words(payload) {
                        None => write::bytes(&mut self.out, key >> 3, payload),
                        Some(None) => return Ok(false),
                        Some(Some(words)) => write::bytes(&mut self.out, key >> 3, &words),
                    }
                }
                k::ARRAY => self.list(5, reader.message()?, depth)?,
                k::KVLIST => self.list(6, reader.message()?, depth)?,
                key => {
                    reader.skip(key)?;
                    if matches!(key, k::INT | k::DOUBLE | k::BOOL | k::STRINDEX) {
                        self.out.extend_from_slice(&reader.bytes[from..reader.at]);
                    }
                }
            }
        }
        Ok(true)
    }

    fn list(&mut self, number: u32, mut reader: Reader<'_>, depth: u32) -> Result<(), Malformed> {
        let open = write::open(&mut self.out, number);
        let mut element = 0;
        while !reader.is_done() {
            match reader.key()? {
                keys::list::VALUES if number == 6 => self.pair(1, reader.message()?, depth + 1)?,
                keys::list::VALUES => {
                    let start = self.out.len();
                    self.by.enter_element(element);
                    let stays = self.entered(1, reader.message()?, depth + 1)?;
                    self.by.leave();
                    if !stays {
                        // What follows keeps its number.
                        self.out.truncate(start);
                        write::bytes(&mut self.out, 1, &[]);
                    }
                    element += 1;
                }
                key => reader.skip(key)?,
            }
        }
        write::close(&mut self.out, open);
        Ok(())
    }
}
