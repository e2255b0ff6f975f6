//! OTLP/JSON to OTLP/protobuf: what browsers and `curl` send becomes what all others send, at the door.
//!
//! Promise: what OTLP's JSON form allows is taken with its meaning, all else is an error with its line and column.
//! Names in lowerCamelCase only; unknown names passed over at any depth; null is absent; of a repeated name the last
//! counts; ids in hex of either case and any length (the walk rejects a span for a wrong one, and only that span);
//! 64-bit numbers as strings or numbers, exact; enums as integers only; bytes in either base64.
//! Bounds: no more than [`DEPTH_MAX`] objects and lists inside each other; no tree is built, so that the memory used is
//! the protobuf form's, which is smaller than the text's.
//!
//! - `syntax`: JSON. `number`: exact numbers. `shape`: which fields OTLP's messages have. `decode`: one into the other.
//!
//! Not here: what is in the spans (`wire` checks the outcome as it checks what comes as protobuf).
//! Kept by: `tests/otlp/json_*.rs`, with real exports in both forms.

mod decode;
mod number;
mod shape;
mod syntax;

use std::borrow::Cow;

use self::decode::Decoder;

/// Objects and lists inside each other.
pub const DEPTH_MAX: u32 = 64;

/// The body is not OTLP/JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at line {line}, column {column}")]
pub struct Error {
    /// What is wrong.
    pub what: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

/// Decodes an OTLP/JSON export request and encodes it as protobuf.
///
/// The outcome is not checked: give it to [`wire::check`](crate::wire::check).
pub fn to_protobuf(body: &[u8]) -> Result<Vec<u8>, Error> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(located(body, Wrong::new("byte order mark", 0)));
    }
    if simdutf8::basic::from_utf8(body).is_err() {
        let at = std::str::from_utf8(body).map_or_else(|error| error.valid_up_to(), str::len);
        return Err(located(body, Wrong::new("not UTF-8", at)));
    }
    Decoder::new(body).request().map_err(|wrong| located(body, wrong))
}

/// What is wrong, and at which byte.
#[derive(Debug)]
struct Wrong {
    what: Cow<'static, str>,
    at: usize,
}

impl Wrong {
    #[cold]
    fn new(what: impl Into<Cow<'static, str>>, at: usize) -> Self {
        Self { what: what.into(), at }
    }
}

fn located(body: &[u8], wrong: Wrong) -> Error {
    let before = &body[..wrong.at.min(body.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    // Every byte but a continuation byte begins a character.
    let characters = before[line_start..].iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
    let lines = before.iter().filter(|&&byte| byte == b'\n').count();
    Error { what: wrong.what.into_owned(), line: lines + 1, column: characters + 1 }
}
