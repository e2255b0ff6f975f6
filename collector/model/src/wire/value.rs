//! Attributes and their values, read in place.

use super::pieces::{Elements, Fields, Pieces, Value, text};
use super::plain::{self, Scalar};
use super::read::Reader;

/// The iterator over the attributes of a resource, scope, span, event, link, or of a value that is a list of pairs.
#[derive(Clone, Debug)]
pub struct Attributes<'a>(pub(super) Elements<'a>);

impl<'a> Iterator for Attributes<'a> {
    type Item = AttributeView<'a>;

    fn next(&mut self) -> Option<AttributeView<'a>> {
        self.0.next().map(AttributeView::new)
    }
}

impl<'a> Attributes<'a> {
    /// The same, as they lie in the request.
    pub fn pairs(self) -> impl Iterator<Item = Pair<'a>> {
        self.0.map(Pair::new)
    }

    /// The same, with nothing of them looked at.
    pub(crate) fn raw(self) -> impl Iterator<Item = RawAttribute<'a>> {
        self.0.map(RawAttribute::new)
    }
}

/// An attribute as it lies in the request: its bytes, and its key and value where both are written as nearly all are.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    bytes: &'a [u8],
    attribute: RawAttribute<'a>,
    is_plain: bool,
}

impl<'a> Pair<'a> {
    #[inline]
    fn new(bytes: &'a [u8]) -> Self {
        match plain::pair(bytes) {
            Some((key, value)) => {
                Self { bytes, attribute: RawAttribute { key, value: Pieces::whole(value) }, is_plain: true }
            }
            None => Self { bytes, attribute: RawAttribute::new(bytes), is_plain: false },
        }
    }

    /// The encoded `KeyValue`.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The key's bytes.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.attribute.key
    }

    /// The value, if the attribute is a key and a scalar and nothing else, in their shortest form; else its bytes are to be decoded.
    #[inline]
    #[must_use]
    pub fn plain(&self) -> Option<PlainValue<'a>> {
        if !self.is_plain {
            return None;
        }
        Some(match plain::scalar(self.attribute.value.as_whole()?)? {
            Scalar::String(text) => PlainValue::Str(text),
            Scalar::Bool(bool) => PlainValue::Bool(bool),
            Scalar::Int(int) => PlainValue::Int(int),
            Scalar::Double(double) => PlainValue::Double(double),
        })
    }

    pub(crate) fn raw(&self) -> &RawAttribute<'a> {
        &self.attribute
    }
}

/// A scalar of a [`Pair`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlainValue<'a> {
    /// Text, whose bytes the door has looked at, and nobody since.
    Str(&'a [u8]),
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number, NaN and the infinities included.
    Double(f64),
}

/// A key and its value, neither of them looked at before it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawAttribute<'a> {
    /// Its name's bytes.
    pub(crate) key: &'a [u8],
    value: Pieces<'a>,
}

impl<'a> RawAttribute<'a> {
    #[inline]
    fn new(raw: &'a [u8]) -> Self {
        if let Some((key, value)) = plain::pair(raw) {
            return Self { key, value: Pieces::whole(value) };
        }
        let mut key = &[][..];
        for field in Fields(Reader::new(raw)) {
            if let (1, Value::Bytes(last)) = field {
                key = last;
            }
        }
        Self { key, value: Pieces::of(Reader::new(raw), 2).unwrap_or_default() }
    }

    /// Its value.
    pub(crate) fn value(&self) -> ValueView<'a> {
        ValueView::new(self.value)
    }

    /// The bytes of its value, if that is text as nearly all texts are written; whether they are UTF-8 is not looked at.
    #[inline]
    pub(crate) fn text_bytes(&self) -> Option<&'a [u8]> {
        match self.value.as_whole().and_then(plain::scalar)? {
            Scalar::String(text) => Some(text),
            _ => None,
        }
    }
}

/// A key and its value, which is not looked at before it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct AttributeView<'a> {
    /// Its name, as `llm.model_name`.
    pub key: &'a str,
    value: Pieces<'a>,
}

impl<'a> AttributeView<'a> {
    fn new(raw: &'a [u8]) -> Self {
        let RawAttribute { key, value } = RawAttribute::new(raw);
        Self { key: text(key), value }
    }

    /// Its value.
    pub fn value(&self) -> ValueView<'a> {
        ValueView::new(self.value)
    }
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum ValueView<'a> {
    /// None was given, or one that only the profiling signal uses.
    Empty,
    /// Text.
    Str(&'a str),
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number, NaN and the infinities included.
    Double(f64),
    /// Bytes, which Phoenix cannot store.
    Bytes(&'a [u8]),
    /// Values in order.
    Array(ArrayView<'a>),
    /// Keys and values in order.
    KvList(KvListView<'a>),
}

impl<'a> ValueView<'a> {
    pub(super) fn new(any_value: Pieces<'a>) -> Self {
        match any_value.as_whole().and_then(plain::scalar) {
            Some(Scalar::String(string)) => Self::Str(text(string)),
            Some(Scalar::Bool(bool)) => Self::Bool(bool),
            Some(Scalar::Int(int)) => Self::Int(int),
            Some(Scalar::Double(double)) => Self::Double(double),
            None => Self::general(any_value),
        }
    }

    fn general(any_value: Pieces<'a>) -> Self {
        let mut value = Self::Empty;
        // Lists of one kind that follow each other merge; any other member between them starts anew.
        let mut run = Run::default();
        for field in any_value.fields() {
            value = match field {
                (1, Value::Bytes(string)) => Self::Str(text(string)),
                (2, Value::Varint(bool)) => Self::Bool(bool != 0),
                (3, Value::Varint(int)) => Self::Int(int as i64),
                (4, Value::Fixed64(double)) => Self::Double(f64::from_bits(double)),
                (number @ (5 | 6), Value::Bytes(list)) => {
                    let list = run.list(any_value, number, list);
                    if number == 5 { Self::Array(ArrayView(list)) } else { Self::KvList(KvListView(list)) }
                }
                (7, Value::Bytes(bytes)) => Self::Bytes(bytes),
                (8, Value::Varint(_)) => Self::Empty,
                _ => continue,
            };
            if !matches!(value, Self::Array(_) | Self::KvList(_)) {
                run.member = 0;
            }
        }
        value
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }
}

/// Which lists of an `AnyValue` are merged into the one that it ends up with.
#[derive(Default)]
struct Run {
    /// The field number of the member set last, 0 if that is not a list.
    member: u32,
    /// How many lists the run holds.
    lists: u32,
    /// How often each of the two kinds of list occurred so far: 5 (array) and 6 (list of pairs).
    seen: [u32; 2],
}

impl Run {
    fn list<'a>(&mut self, any_value: Pieces<'a>, number: u32, list: &'a [u8]) -> Pieces<'a> {
        self.lists = if self.member == number { self.lists + 1 } else { 1 };
        self.member = number;
        let seen = &mut self.seen[(number - 5) as usize];
        *seen += 1;
        if self.lists == 1 { Pieces::whole(list) } else { any_value.inside(number, *seen - self.lists) }
    }
}

/// A value that is a list of values.
#[derive(Clone, Copy, Debug)]
pub struct ArrayView<'a>(Pieces<'a>);

impl<'a> ArrayView<'a> {
    /// Its elements, in order.
    pub fn values(&self) -> Values<'a> {
        Values(self.0.elements(1))
    }
}

/// The iterator that [`ArrayView::values`] gives.
#[derive(Clone, Debug)]
pub struct Values<'a>(Elements<'a>);

impl<'a> Iterator for Values<'a> {
    type Item = ValueView<'a>;

    fn next(&mut self) -> Option<ValueView<'a>> {
        self.0.next().map(|value| ValueView::new(Pieces::whole(value)))
    }
}

/// A value that is a list of keys and values.
#[derive(Clone, Copy, Debug)]
pub struct KvListView<'a>(Pieces<'a>);

impl<'a> KvListView<'a> {
    /// Its pairs, in order, repeated keys included.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.0.elements(1))
    }
}
