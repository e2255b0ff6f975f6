//! The fields of a message, and messages that lie in several pieces: what the views are made of.

use super::Malformed;
use super::read::{self, FIXED32, FIXED64, LENGTH, Reader, VARINT};

/// Text, empty if it is not UTF-8: none such passes the walk.
pub(super) fn text(bytes: &[u8]) -> &str {
    simdutf8::basic::from_utf8(bytes).unwrap_or_default()
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of one message, groups left out; ends where the bytes are malformed.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) Reader<'a>);

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fields from {} to {}", self.0.at, self.0.bytes.len())
    }
}

impl<'a> Fields<'a> {
    /// The next occurrence of the message that is field `number`, and where its key stands.
    pub(super) fn next_message(&mut self, number: u32) -> Option<(usize, Reader<'a>)> {
        self.unless_malformed(|reader| {
            while !reader.is_done() {
                let from = reader.at;
                let key = reader.key()?;
                if key == read::key(number, LENGTH) {
                    return Ok(Some((from, reader.message()?)));
                }
                reader.skip(key)?;
            }
            Ok(None)
        })
    }

    fn next_payload(&mut self, number: u32) -> Option<&'a [u8]> {
        self.next_message(number).map(|(_, message)| &message.bytes[message.at..])
    }

    /// Where the bytes stop making sense the message ends.
    #[inline(always)]
    fn unless_malformed<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Result<Option<T>, Malformed>) -> Option<T> {
        read(&mut self.0).unwrap_or_else(|_| {
            self.0.at = self.0.bytes.len();
            None
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<(u32, Value<'a>)> {
        self.unless_malformed(|reader| {
            while !reader.is_done() {
                let key = reader.key()?;
                let value = match key & 7 {
                    VARINT => Value::Varint(reader.varint()?),
                    FIXED64 => Value::Fixed64(reader.fixed64()?),
                    LENGTH => Value::Bytes(reader.payload()?),
                    FIXED32 => Value::Fixed32(reader.fixed32()?),
                    _ => {
                        reader.skip(key)?;
                        continue;
                    }
                };
                return Ok(Some((key >> 3, value)));
            }
            Ok(None)
        })
    }
}

/// A message that may lie in several pieces, which protobuf merges: the payloads of field `path[1]` in those of field
/// `path[0]` in `bytes`, less the first `skip`. A 0 in `path` is a step not taken, so `[0, 0]` is `bytes` itself: the
/// usual case.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pieces<'a> {
    bytes: &'a [u8],
    path: [u32; 2],
    skip: u32,
}

impl<'a> Pieces<'a> {
    pub(super) fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, path: [0, 0], skip: 0 }
    }

    /// The message that is field `number` of `outer`; none if it is not set.
    pub(super) fn of(outer: Reader<'a>, number: u32) -> Option<Self> {
        let mut fields = Fields(outer);
        let first = fields.next_payload(number)?;
        Some(match fields.next_payload(number) {
            None => Self::whole(first),
            Some(_) => Self { bytes: &outer.bytes[outer.at..], path: [number, 0], skip: 0 },
        })
    }

    /// The message's bytes, if it lies in one piece.
    pub(super) fn as_whole(self) -> Option<&'a [u8]> {
        (self.path[0] == 0).then_some(self.bytes)
    }

    /// The message that is field `number` of this one, less its first `skip` pieces.
    pub(super) fn inside(self, number: u32, skip: u32) -> Self {
        let path = if self.path[0] == 0 { [number, 0] } else { [self.path[0], number] };
        Self { bytes: self.bytes, path, skip }
    }

    fn pieces(self) -> PieceIter<'a> {
        let nothing = Fields(Reader::new(&[]));
        PieceIter {
            whole: self.as_whole(),
            outer: Fields(Reader::new(self.bytes)),
            inner: nothing,
            path: self.path,
            skip: self.skip,
        }
    }

    /// Its bytes: that is how messages merge.
    pub(super) fn joined(self) -> Vec<u8> {
        self.pieces().fold(Vec::new(), |mut all, piece| {
            all.extend_from_slice(piece);
            all
        })
    }

    pub(super) fn fields(self) -> impl Iterator<Item = (u32, Value<'a>)> {
        self.pieces().flat_map(|piece| Fields(Reader::new(piece)))
    }

    pub(super) fn elements(self, number: u32) -> Elements<'a> {
        Elements { pieces: self.pieces(), piece: Fields(Reader::new(&[])), number }
    }
}

#[derive(Clone, Debug)]
struct PieceIter<'a> {
    whole: Option<&'a [u8]>,
    outer: Fields<'a>,
    inner: Fields<'a>,
    path: [u32; 2],
    skip: u32,
}

impl<'a> PieceIter<'a> {
    fn next_unskipped(&mut self) -> Option<&'a [u8]> {
        match self.path {
            [0, _] => self.whole.take(),
            [number, 0] => self.outer.next_payload(number),
            [number, inner] => loop {
                if let Some(piece) = self.inner.next_payload(inner) {
                    return Some(piece);
                }
                self.inner = Fields(Reader::new(self.outer.next_payload(number)?));
            },
        }
    }
}

impl<'a> Iterator for PieceIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.skip > 0 {
            self.skip -= 1;
            self.next_unskipped()?;
        }
        self.next_unskipped()
    }
}

/// The occurrences of one repeated field in a message.
#[derive(Clone, Debug)]
pub(super) struct Elements<'a> {
    pieces: PieceIter<'a>,
    piece: Fields<'a>,
    number: u32,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if let Some(element) = self.piece.next_payload(self.number) {
                return Some(element);
            }
            self.piece = Fields(Reader::new(self.pieces.next()?));
        }
    }
}
