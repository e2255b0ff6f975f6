//! From JSON text to protobuf bytes in one pass, with a message's shape to say what each of its values becomes.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Wrong;
use super::number::{Decimal, Unfit};
use super::shape::{self, FIELDS_MAX, Field, Kind, Shape};
use super::syntax::{Next, Reader};
use crate::wire::write;

pub(super) struct Decoder<'a> {
    json: Reader<'a>,
    out: Vec<u8>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        // Real exports shrink to half or less.
        Self { json: Reader::new(body), out: Vec::with_capacity(body.len() / 2) }
    }

    pub(super) fn request(mut self) -> Result<Vec<u8>, Wrong> {
        self.message(&shape::REQUEST, "the request")?;
        self.json.end()?;
        Ok(self.out)
    }

    /// The fields of one message, without its length.
    fn message(&mut self, shape: &'static Shape, name: &'static str) -> Result<(), Wrong> {
        self.expect(Next::Object, name)?;
        self.json.object()?;
        let mut written = Written::default();
        let mut first = true;
        loop {
            let Some(key) = self.json.key(&mut first)? else { return Ok(()) };
            let Some((index, field)) = shape.field(&key) else {
                self.json.skip()?;
                continue;
            };
            // Of a name that comes twice the last counts, also where protobuf would merge the two.
            written.forget(index, &mut self.out);
            if self.json.next()? == Next::Null {
                self.json.null();
                continue;
            }
            if shape.oneof && written.is_any() {
                return Err(self.json.wrong(format!("{} beside another value", field.name)));
            }
            let start = self.out.len();
            self.field(field, shape.oneof)?;
            written.places[index] = Some(start..self.out.len());
        }
    }

    fn field(&mut self, field: &'static Field, even_zero: bool) -> Result<(), Wrong> {
        let &Field { name, number, ref kind } = field;
        match kind {
            Kind::Text => self.text(field)?,
            Kind::Texts => self.list(name, |decoder| decoder.text(field))?,
            Kind::Message(shape) => self.inner(number, shape, name)?,
            Kind::Messages(shape) => self.list(name, |decoder| decoder.inner(number, shape, name))?,
            Kind::Id => {
                let id = self.hex(name)?;
                self.bytes(number, &id, even_zero);
            }
            Kind::Bytes => {
                let bytes = self.base64(name)?;
                self.bytes(number, &bytes, even_zero);
            }
            Kind::Bool => {
                self.expect(Next::Bool, name)?;
                let bool = self.json.bool();
                self.varint(number, u64::from(bool), even_zero);
            }
            Kind::Enum => {
                // Its name is not valid, nor is its number as a string.
                self.expect(Next::Number, name)?;
                let value = self.integer(name, i32::MIN.into(), i32::MAX.into())?;
                self.varint(number, value as i64 as u64, even_zero);
            }
            Kind::Int32 => {
                let value = self.integer(name, i32::MIN.into(), i32::MAX.into())?;
                self.varint(number, value as i64 as u64, even_zero);
            }
            Kind::Int64 => {
                let value = self.integer(name, i64::MIN.into(), i64::MAX.into())?;
                self.varint(number, value as i64 as u64, even_zero);
            }
            Kind::Uint32 => {
                let value = self.integer(name, 0, u32::MAX.into())?;
                self.varint(number, value as u64, even_zero);
            }
            Kind::Fixed32 => {
                let value = self.integer(name, 0, u32::MAX.into())?;
                write::fixed32(&mut self.out, number, value as u32);
            }
            Kind::Fixed64 => {
                let value = self.integer(name, 0, u64::MAX.into())?;
                write::fixed64(&mut self.out, number, value as u64);
            }
            Kind::Double => {
                let value = self.double(name)?;
                write::fixed64(&mut self.out, number, value.to_bits());
            }
        }
        Ok(())
    }

    fn inner(&mut self, number: u32, shape: &'static Shape, name: &'static str) -> Result<(), Wrong> {
        let message = write::open(&mut self.out, number);
        self.message(shape, name)?;
        write::close(&mut self.out, message);
        Ok(())
    }

    fn list(
        &mut self,
        name: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        self.expect(Next::Array, name)?;
        self.json.array()?;
        let mut first = true;
        while self.json.more(&mut first)? {
            element(self)?;
        }
        Ok(())
    }

    fn text(&mut self, field: &'static Field) -> Result<(), Wrong> {
        self.expect(Next::String, field.name)?;
        let text = write::open(&mut self.out, field.number);
        self.json.string_into(&mut self.out)?;
        write::close(&mut self.out, text);
        Ok(())
    }

    fn varint(&mut self, number: u32, value: u64, even_zero: bool) {
        if even_zero || value != 0 {
            write::varint(&mut self.out, number, value);
        }
    }

    fn bytes(&mut self, number: u32, bytes: &[u8], even_empty: bool) {
        if even_empty || !bytes.is_empty() {
            write::bytes(&mut self.out, number, bytes);
        }
    }

    fn expect(&mut self, kind: Next, name: &'static str) -> Result<(), Wrong> {
        match self.json.next()? {
            next if next == kind => Ok(()),
            next => Err(self.json.wrong(format!("{name}: expected {}, found {}", kind.name(), next.name()))),
        }
    }

    fn string(&mut self, name: &'static str) -> Result<Cow<'a, [u8]>, Wrong> {
        self.expect(Next::String, name)?;
        self.json.string()
    }

    /// A number, or a string that holds one.
    fn number(&mut self, name: &'static str) -> Result<Cow<'a, [u8]>, Wrong> {
        match self.json.next()? {
            Next::Number => self.json.number().map(Cow::Borrowed),
            Next::String => self.json.string(),
            next => Err(self.json.wrong(format!("{name}: expected a number, found {}", next.name()))),
        }
    }

    fn integer(&mut self, name: &'static str, low: i128, high: i128) -> Result<i128, Wrong> {
        self.json.next()?;
        let at = self.json.at;
        let text = self.number(name)?;
        let decimal = Decimal::read(&text).ok_or_else(|| Wrong::new(format!("{name}: not a number"), at))?;
        decimal.integer(low, high).map_err(|unfit| unfit_for(name, unfit, at))
    }

    fn double(&mut self, name: &'static str) -> Result<f64, Wrong> {
        self.json.next()?;
        let at = self.json.at;
        match &*self.number(name)? {
            b"NaN" => Ok(f64::NAN),
            b"Infinity" => Ok(f64::INFINITY),
            b"-Infinity" => Ok(f64::NEG_INFINITY),
            text => match Decimal::read(text) {
                Some(decimal) => decimal.double().map_err(|unfit| unfit_for(name, unfit, at)),
                None => Err(Wrong::new(format!("{name}: not a number"), at)),
            },
        }
    }

    fn hex(&mut self, name: &'static str) -> Result<Vec<u8>, Wrong> {
        self.json.next()?;
        let at = self.json.at;
        let text = self.string(name)?;
        let (pairs, rest) = text.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Wrong::new(format!("{name}: odd number of hex digits"), at));
        }
        let digit = |digit: u8| (digit as char).to_digit(16);
        let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
        pairs.iter().map(byte).collect::<Option<_>>().ok_or_else(|| Wrong::new(format!("{name}: not hex"), at))
    }

    fn base64(&mut self, name: &'static str) -> Result<Vec<u8>, Wrong> {
        self.json.next()?;
        let at = self.json.at;
        let mut text = self.string(name)?;
        // The alphabet for URLs differs in two letters.
        if text.iter().any(|byte| matches!(byte, b'-' | b'_')) {
            for byte in text.to_mut() {
                *byte = match *byte {
                    b'-' => b'+',
                    b'_' => b'/',
                    other => other,
                };
            }
        }
        BASE64.decode(&*text).map_err(|_| Wrong::new(format!("{name}: not base64"), at))
    }
}

/// With padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cold]
fn unfit_for(name: &'static str, unfit: Unfit, at: usize) -> Wrong {
    let what = match unfit {
        Unfit::NotWhole => "not a whole number",
        Unfit::OutOfRange => "out of range",
    };
    Wrong::new(format!("{name}: {what}"), at)
}

/// Where the fields of the message in hand were written.
#[derive(Default)]
struct Written {
    places: [Option<Range<usize>>; FIELDS_MAX],
}

impl Written {
    fn is_any(&self) -> bool {
        self.places.iter().any(Option::is_some)
    }

    /// Takes back what was written for a field, if anything. Each byte moves at most once for each other field of its
    /// message, however often names are repeated: a field written anew stands behind all others.
    fn forget(&mut self, index: usize, out: &mut Vec<u8>) {
        let Some(gone) = self.places[index].take() else { return };
        for place in self.places.iter_mut().flatten().filter(|place| place.start >= gone.end) {
            place.start -= gone.len();
            place.end -= gone.len();
        }
        out.drain(gone);
    }
}
