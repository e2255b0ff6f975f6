//! The wire format itself: varints, field keys, lengths, and the way past fields that are not known.
//!
//! Refuses what prost refuses: field number 0, wire types 6 and 7, varints over 64 bits, lengths past the end.
//! Groups (wire types 3 and 4) are skipped to their end, to a depth of [`GROUPS_MAX`].

use super::Malformed;

/// Groups inside each other that are skipped; deeper ones are malformed. (Nobody has sent groups in OTLP; the format
/// allows them.)
const GROUPS_MAX: usize = 32;

/// How a field's value is laid down: the low three bits of its key.
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
const GROUP: u32 = 3;
const GROUP_END: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// The key of field `number` with wire type `wire`.
pub(super) const fn key(number: u32, wire: u32) -> u32 {
    number << 3 | wire
}

/// A place in a message.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    /// The request, up to where this message ends: so `at` always counts from the start of the request.
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline(always)]
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[cold]
    pub(super) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, &byte) in self.bytes.get(self.at..).unwrap_or_default().iter().enumerate() {
            // The tenth byte holds bit 63 alone.
            if index == 9 && byte > 1 {
                return Err(self.malformed("varint of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(self.malformed("truncated varint"))
    }

    /// The next field's key.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<u32, Malformed> {
        match self.bytes.get(self.at) {
            Some(&byte) if (0x08..0x80).contains(&byte) && byte & 7 < 6 => {
                self.at += 1;
                Ok(u32::from(byte))
            }
            _ => self.long_key(),
        }
    }

    #[inline(never)]
    fn long_key(&mut self) -> Result<u32, Malformed> {
        let start = *self;
        let key = u32::try_from(self.varint()?).map_err(|_| start.malformed("field number of more than 29 bits"))?;
        match (key >> 3, key & 7) {
            (0, _) => Err(start.malformed("field number 0")),
            (_, 6 | 7) => Err(start.malformed("unknown wire type")),
            _ => Ok(key),
        }
    }

    /// The place where the length-delimited value that follows ends; `at` stands at its start.
    #[inline(always)]
    pub(super) fn end(&mut self) -> Result<usize, Malformed> {
        let start = *self;
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(length) if length <= self.bytes.len() - self.at => Ok(self.at + length),
            _ => Err(start.malformed("length past the end")),
        }
    }

    /// The message that follows.
    #[inline(always)]
    pub(super) fn message(&mut self) -> Result<Reader<'a>, Malformed> {
        let end = self.end()?;
        let inner = Reader { bytes: &self.bytes[..end], at: self.at };
        self.at = end;
        Ok(inner)
    }

    /// The bytes or the text that follow.
    #[inline(always)]
    pub(super) fn payload(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.end()?;
        let payload = &self.bytes[self.at..end];
        self.at = end;
        Ok(payload)
    }

    #[inline(always)]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(fixed) => {
                self.at += N;
                Ok(*fixed)
            }
            None => Err(self.malformed("truncated number")),
        }
    }

    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Result<u64, Malformed> {
        self.fixed().map(u64::from_le_bytes)
    }

    #[inline(always)]
    pub(super) fn fixed32(&mut self) -> Result<u32, Malformed> {
        self.fixed().map(u32::from_le_bytes)
    }

    /// Passes over the value of the field whose key was just read.
    pub(super) fn skip(&mut self, key: u32) -> Result<(), Malformed> {
        match key & 7 {
            GROUP => self.skip_group(key >> 3),
            GROUP_END => Err(self.malformed("end of a group that did not begin")),
            _ => self.skip_plain(key),
        }
    }

    fn skip_plain(&mut self, key: u32) -> Result<(), Malformed> {
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            LENGTH => self.payload().map(drop),
            FIXED32 => self.fixed32().map(drop),
            _ => Err(self.malformed("unknown wire type")),
        }
    }

    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = [0; GROUPS_MAX];
        open[0] = number;
        let mut depth = 1;
        while depth > 0 {
            let key = self.key()?;
            match key & 7 {
                GROUP if depth == GROUPS_MAX => return Err(self.malformed("groups nested too deep")),
                GROUP => {
                    open[depth] = key >> 3;
                    depth += 1;
                }
                GROUP_END if open[depth - 1] == key >> 3 => depth -= 1,
                GROUP_END => return Err(self.malformed("end of another group")),
                _ => self.skip_plain(key)?,
            }
        }
        Ok(())
    }
}
