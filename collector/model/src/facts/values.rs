//! Texts, counts and JSON out of attribute values, bounded and fit to be stored.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::marks::Marks;
use crate::wire::{RawAttribute, ValueView};

/// A value that came first by the order of its aliases; of one alias, the last that came (OTLP leaves repeated keys open).
#[derive(Clone, Debug)]
pub(super) struct Best<T> {
    rank: u8,
    value: Option<T>,
}

impl<T> Default for Best<T> {
    fn default() -> Self {
        Self { rank: u8::MAX, value: None }
    }
}

impl<T> Best<T> {
    /// Takes the value if its alias stands no later than that of what is there.
    pub(super) fn offer(&mut self, rank: u8, value: Option<T>) {
        if value.is_some() && rank <= self.rank {
            *self = Self { rank, value };
        }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    pub(super) fn take(self) -> Option<T> {
        self.value
    }
}

/// The most values that a structured attribute is turned into JSON with; what follows is left out.
const JSON_VALUES_MAX: usize = 2_000;
/// The deepest; the door lets 32 pass.
const JSON_DEPTH_MAX: usize = 40;

/// A value as text: text as it is, numbers as they print, lists as JSON. Nothing for bytes, and for what is empty.
pub(super) fn text_of(value: ValueView<'_>) -> Option<Cow<'_, str>> {
    match value {
        ValueView::Str("") | ValueView::Empty | ValueView::Bytes(_) => None,
        ValueView::Str(text) => Some(Cow::Borrowed(text)),
        ValueView::Bool(bool) => Some(Cow::Borrowed(if bool { "true" } else { "false" })),
        ValueView::Int(int) => Some(Cow::Owned(int.to_string())),
        ValueView::Double(double) => Some(Cow::Owned(double.to_string())),
        ValueView::Array(_) | ValueView::KvList(_) => Some(Cow::Owned(json_of(value).to_string())),
    }
}

/// A text that is read when it is needed: of most spans of a trace it is not.
#[derive(Clone, Debug)]
pub(super) enum Later<'a> {
    /// Not empty; not yet known to be UTF-8.
    Bytes(&'a [u8]),
    Text(Cow<'a, str>),
}

impl<'a> Later<'a> {
    /// The text that [`text_of`] gives of an attribute's value.
    pub(super) fn of(attribute: &RawAttribute<'a>) -> Option<Self> {
        match attribute.text_bytes() {
            Some([]) => None,
            Some(bytes) => Some(Self::Bytes(bytes)),
            None => text_of(attribute.value()).map(Self::Text),
        }
    }

    /// The text; what is not UTF-8, which the door lets not in, is none.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Bytes(bytes) => simdutf8::basic::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Text(text) => Some(text),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }
}

/// A value as JSON.
pub(super) fn json_of(value: ValueView<'_>) -> Value {
    let mut left = JSON_VALUES_MAX;
    json_within(value, JSON_DEPTH_MAX, &mut left)
}

fn json_within(value: ValueView<'_>, depth: usize, left: &mut usize) -> Value {
    if depth == 0 || *left == 0 {
        return Value::Null;
    }
    *left -= 1;
    match value {
        ValueView::Empty | ValueView::Bytes(_) => Value::Null,
        ValueView::Str(text) => text.into(),
        ValueView::Bool(bool) => bool.into(),
        ValueView::Int(int) => int.into(),
        ValueView::Double(double) => double.into(),
        ValueView::Array(array) => {
            let mut elements = Vec::new();
            for element in array.values() {
                if *left == 0 {
                    break;
                }
                elements.push(json_within(element, depth - 1, left));
            }
            elements.into()
        }
        ValueView::KvList(list) => {
            let mut fields = Map::new();
            for field in list.attributes() {
                if *left == 0 {
                    break;
                }
                fields.insert(field.key.to_owned(), json_within(field.value(), depth - 1, left));
            }
            fields.into()
        }
    }
}

/// Yes or no, however it is written.
pub(super) fn bool_of(value: ValueView<'_>) -> Option<bool> {
    match value {
        ValueView::Bool(bool) => Some(bool),
        ValueView::Str(text) if text.eq_ignore_ascii_case("true") => Some(true),
        ValueView::Str(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A number of tokens. Numbers as text and whole doubles are understood; what cannot be a count is none, and marked.
pub(super) fn tokens_of(value: ValueView<'_>, marks: &mut Marks) -> Option<i64> {
    let count = match value {
        ValueView::Empty | ValueView::Str("") => return None,
        ValueView::Int(int) => u64::try_from(int).ok().map(i128::from),
        ValueView::Double(double) => whole(double),
        ValueView::Str(text) => {
            let text = text.trim();
            // More digits than any integer type has are still a count, if an absurd one.
            let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match text.parse::<i128>() {
                Ok(count) => (count >= 0).then_some(count),
                Err(_) if is_digits => Some(i128::MAX),
                Err(_) => text.parse().ok().and_then(whole),
            }
        }
        _ => None,
    };
    match count {
        None => {
            marks.add(Marks::TOKENS);
            None
        }
        Some(count) => Some(i64::try_from(count).unwrap_or_else(|_| {
            marks.add(Marks::TOKENS_SATURATED);
            i64::MAX
        })),
    }
}

fn whole(double: f64) -> Option<i128> {
    // Negative zero is zero; `as` saturates.
    (double.is_finite() && double >= 0.0).then(|| double.round() as i128)
}

/// Nanoseconds out of a number of `unit_nanos`; none for what is no time or longer than a day.
pub(super) fn nanos_of(value: ValueView<'_>, unit_nanos: f64) -> Option<u64> {
    let number = match value {
        ValueView::Int(int) => int as f64,
        ValueView::Double(double) => double,
        ValueView::Str(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let nanos = number * unit_nanos;
    (0.0..=86_400e9).contains(&nanos).then(|| nanos.round() as u64)
}

/// The text as it is stored: at most `bytes_max` long, cut between characters, without NUL (PostgreSQL takes none).
/// Says whether it was cut.
pub(super) fn fit<'a>(text: &'a str, bytes_max: usize, marks: &mut Marks) -> (Cow<'a, str>, bool) {
    let cut = &text[..text.floor_char_boundary(bytes_max)];
    let was_cut = cut.len() < text.len();
    if memchr::memchr(0, cut.as_bytes()).is_none() {
        return (Cow::Borrowed(cut), was_cut);
    }
    marks.add(Marks::NUL);
    let mut clean = cut.replace('\0', "\u{FFFD}");
    let longer = clean.len() > bytes_max;
    clean.truncate(clean.floor_char_boundary(bytes_max));
    (Cow::Owned(clean), was_cut || longer)
}

/// The same of a text that may be owned, which is not copied if it is stored as it is.
pub(super) fn fit_cow<'a>(text: Cow<'a, str>, bytes_max: usize, marks: &mut Marks) -> (Cow<'a, str>, bool) {
    match text {
        Cow::Borrowed(text) => fit(text, bytes_max, marks),
        Cow::Owned(text) => match fit(&text, bytes_max, marks) {
            (Cow::Borrowed(same), was_cut) if same.len() == text.len() => (Cow::Owned(text), was_cut),
            (other, was_cut) => (Cow::Owned(other.into_owned()), was_cut),
        },
    }
}
