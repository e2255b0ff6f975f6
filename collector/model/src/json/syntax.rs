//! JSON itself (RFC 8259), strictly: tokens, strings, and the way past values that nobody asked for.
//!
//! The text is UTF-8: the caller has checked that. Escapes are resolved; half of a surrogate pair is an error, `\u0000`
//! is not.

use std::borrow::Cow;

use super::{DEPTH_MAX, Wrong};

pub(super) struct Reader<'a> {
    text: &'a [u8],
    pub(super) at: usize,
    depth: u32,
}

/// What kind of value comes next, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

impl Next {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "a list",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Null => "null",
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    pub(super) fn wrong(&self, what: impl Into<Cow<'static, str>>) -> Wrong {
        Wrong::new(what, self.at)
    }

    /// The next byte that is not white space, which is not passed over.
    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    pub(super) fn next(&mut self) -> Result<Next, Wrong> {
        match self.peek() {
            Some(b'{') => Ok(Next::Object),
            Some(b'[') => Ok(Next::Array),
            Some(b'"') => Ok(Next::String),
            Some(b'-' | b'0'..=b'9') => Ok(Next::Number),
            Some(_) if self.starts_with(b"true") || self.starts_with(b"false") => Ok(Next::Bool),
            Some(_) if self.starts_with(b"null") => Ok(Next::Null),
            Some(_) => Err(self.wrong("expected a value")),
            None => Err(self.wrong("unexpected end")),
        }
    }

    /// Nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), Wrong> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("trailing characters")),
        }
    }

    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), Wrong> {
        match self.peek() {
            Some(next) if next == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(self.wrong(what)),
            None => Err(self.wrong("unexpected end")),
        }
    }

    fn enter(&mut self) -> Result<(), Wrong> {
        if self.depth == DEPTH_MAX {
            return Err(self.wrong(format!("nested deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Begins the object that [`next`](Self::next) announced; then [`key`](Self::key) gives its keys.
    pub(super) fn object(&mut self) -> Result<(), Wrong> {
        self.enter()
    }

    /// The next key of the object, its colon passed over; none at the object's end. `first` is true before the first.
    pub(super) fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, [u8]>>, Wrong> {
        if !self.element(first, b'}', "expected a comma or the end of the object")? {
            return Ok(None);
        }
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return Err(self.wrong("expected a key")),
            None => return Err(self.wrong("unexpected end")),
        }
        let key = self.string()?;
        self.take(b':', "expected a colon")?;
        Ok(Some(key))
    }

    /// Begins the list that [`next`](Self::next) announced; then [`more`](Self::more) says whether there is an element.
    pub(super) fn array(&mut self) -> Result<(), Wrong> {
        self.enter()
    }

    /// Whether the list has another element, which then follows. `first` is true before the first.
    pub(super) fn more(&mut self, first: &mut bool) -> Result<bool, Wrong> {
        self.element(first, b']', "expected a comma or the end of the list")
    }

    fn element(&mut self, first: &mut bool, end: u8, what: &'static str) -> Result<bool, Wrong> {
        if self.peek() == Some(end) {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.take(b',', what)?;
        }
        Ok(true)
    }

    /// The string that [`next`](Self::next) announced.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, Wrong> {
        self.at += 1;
        let plain = self.plain_text();
        if self.text.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_vec();
        self.rest_of_string(&mut text)?;
        Ok(Cow::Owned(text))
    }

    /// The same, appended to `out`.
    pub(super) fn string_into(&mut self, out: &mut Vec<u8>) -> Result<(), Wrong> {
        self.at += 1;
        self.rest_of_string(out)
    }

    fn rest_of_string(&mut self, out: &mut Vec<u8>) -> Result<(), Wrong> {
        loop {
            out.extend_from_slice(self.plain_text());
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape(out)?,
                Some(_) => return Err(self.wrong("control character in a string")),
                None => return Err(self.wrong("unexpected end")),
            }
        }
    }

    /// Text up to a quote, a backslash, a control character or the end.
    fn plain_text(&mut self) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let mut length = 0;
        for word in rest.as_chunks::<8>().0 {
            if has_special(u64::from_le_bytes(*word)) {
                break;
            }
            length += 8;
        }
        length += rest[length..].iter().take_while(|&&byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
        self.at += length;
        &rest[..length]
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Wrong> {
        let byte = match self.text.get(self.at + 1) {
            Some(b'"') => b'"',
            Some(b'\\') => b'\\',
            Some(b'/') => b'/',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let character = self.unicode_escape()?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            Some(_) => return Err(self.wrong("unknown escape")),
            None => return Err(self.wrong("unexpected end")),
        };
        self.at += 2;
        out.push(byte);
        Ok(())
    }

    /// The character that one `\uXXXX` or a surrogate pair of two stands for.
    fn unicode_escape(&mut self) -> Result<char, Wrong> {
        let start = self.at;
        let lone = || Wrong::new("half of a surrogate pair", start);
        let high = self.code_unit()?;
        let code = match high {
            0xd800..0xdc00 => {
                let low = self.code_unit().map_err(|_| lone())?;
                if !(0xdc00..0xe000).contains(&low) {
                    return Err(lone());
                }
                0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00))
            }
            _ => high,
        };
        char::from_u32(code).ok_or_else(lone)
    }

    fn code_unit(&mut self) -> Result<u32, Wrong> {
        let Some([b'\\', b'u', digits @ ..]) = self.text[self.at..].first_chunk::<6>() else {
            return Err(self.wrong("expected four hex digits"));
        };
        let mut unit = 0;
        for &digit in digits {
            let digit = (digit as char).to_digit(16).ok_or_else(|| self.wrong("expected four hex digits"))?;
            unit = unit << 4 | digit;
        }
        self.at += 6;
        Ok(unit)
    }

    /// The number that [`next`](Self::next) announced, as it is written.
    pub(super) fn number(&mut self) -> Result<&'a [u8], Wrong> {
        let rest = &self.text[self.at..];
        let length =
            rest.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count();
        match super::number::Decimal::read(&rest[..length]) {
            Some(_) => {
                self.at += length;
                Ok(&rest[..length])
            }
            None => Err(self.wrong("not a number")),
        }
    }

    fn starts_with(&self, word: &[u8]) -> bool {
        self.text[self.at..].starts_with(word)
    }

    /// The truth value that [`next`](Self::next) announced.
    pub(super) fn bool(&mut self) -> bool {
        let bool = self.starts_with(b"true");
        self.at += if bool { "true".len() } else { "false".len() };
        bool
    }

    /// Passes over the null that [`next`](Self::next) announced.
    pub(super) fn null(&mut self) {
        self.at += "null".len();
    }

    /// Passes over a value of any kind; recurses as deep as [`DEPTH_MAX`].
    pub(super) fn skip(&mut self) -> Result<(), Wrong> {
        let mut first = true;
        match self.next()? {
            Next::Object => {
                self.object()?;
                while self.key(&mut first)?.is_some() {
                    self.skip()?;
                }
            }
            Next::Array => {
                self.array()?;
                while self.more(&mut first)? {
                    self.skip()?;
                }
            }
            Next::String => drop(self.string()?),
            Next::Number => drop(self.number()?),
            Next::Bool => drop(self.bool()),
            Next::Null => self.null(),
        }
        Ok(())
    }
}

/// Whether one of the eight bytes is a quote, a backslash or a control character; now and then true where none is
/// (behind a byte that is one), never false where one is.
fn has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = is_zero(word ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGH_BITS != 0
}
