//! An entry of a manifest as bytes.
//!
//! Promise: reading takes any bytes, in bounded memory, without a panic, and gives an entry only if every byte is the one that was
//! written; what an entry names belongs to its log and lies where its name says.
//! On disk:  one JSON object and a newline. Its last member, `sha256`, is of all bytes before that member's comma. `whole` says that
//! `added` is everything that counts after this entry; otherwise `added` and `removed` are what it changes, `previous` is the
//! `sha256` of the entry before it, and `from` is where that one ended. `from` and `to` are missing until something was committed.
//! `book` is the consumer's text. `start_min` and `start_max` are in ns since 1970.
//! Not here: what entries add up to (`state.rs`).
//! Kept by:  `tests::forms`, `tests::format`, the fuzz target `archive_entry`.

use bytes::Bytes;
use emberd_model::UnixNanos;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::name::{self, DataName};

/// The version that is written and read.
pub const VERSION: u64 = 1;
/// How long an entry may be: some 250,000 files.
pub const ENTRY_BYTES_MAX: u64 = 64 << 20;
/// How long a consumer's book may be.
pub const BOOK_BYTES_MAX: usize = 1 << 20;

/// What comes before the check sum, and after it.
pub(crate) const TAIL: (&str, &str) = (",\"sha256\":\"", "\"}\n");

/// A file that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name, [`DataName`] as text.
    pub name: String,
    /// How many spans it holds.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes.
    #[serde(with = "hex32")]
    pub sha256: [u8; 32],
    /// The earliest start of a span in it, in ns since 1970.
    #[serde(with = "nanos")]
    pub start_min: UnixNanos,
    /// The latest start of a span in it, in ns since 1970.
    #[serde(with = "nanos")]
    pub start_max: UnixNanos,
}

impl File {
    /// What its name says. A file that was read from a manifest has one that can be read.
    #[must_use]
    pub fn parts(&self) -> Option<DataName> {
        DataName::parse(&self.name)
    }
}

/// Why an entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A writer began, or made sure that an attempt of its own cannot take effect any more.
    Opened,
    /// Spans came.
    Commit,
    /// Files became larger ones.
    Compaction,
    /// Days went.
    Retention,
    /// Spans were erased or changed in place.
    Rewrite,
    /// The log lost its end, and gives the offsets from there on to other spans: the cursor moves back, and all files stay.
    Back,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`VERSION`].
    pub emberd_manifest: u64,
    /// The log.
    pub log: String,
    /// The entry's number: its name's.
    pub seq: u64,
    /// Why it was written.
    pub kind: Kind,
    /// Who wrote it: 32 hexadecimal digits, other ones in every process.
    pub writer: String,
    /// The check sum of the entry before it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex32_or_none")]
    pub previous: Option<[u8; 32]>,
    /// Where the archive went on before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Where the archive goes on after it: the cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Whether `added` is everything that counts.
    pub whole: bool,
    /// Files that count from here on.
    pub added: Vec<File>,
    /// Names of files that count no more.
    pub removed: Vec<String>,
    /// What the consumer says of the spans up to the cursor.
    pub book: String,
}

/// An entry and the check sum of its bytes.
pub type Sealed = (Bytes, [u8; 32]);

impl Entry {
    /// The entry's bytes and their check sum. Fails if it breaks a bound, so that nothing is written that could not be read.
    pub fn encode(&self) -> Result<Sealed, Error> {
        self.fault().map_or(Ok(()), |what| Err(Error::Bound { what }))?;
        let mut text = serde_json::to_string(self).map_err(|_| Error::Bound { what: "an entry that is no JSON" })?;
        text.pop();
        let sum: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        text.push_str(TAIL.0);
        text.push_str(&hex(&sum));
        text.push_str(TAIL.1);
        match text.len() as u64 <= ENTRY_BYTES_MAX {
            true => Ok((Bytes::from(text), sum)),
            false => Err(Error::Bound {
                what: "an entry of more than 64 MiB: let the archive be compacted, or keep fewer days",
            }),
        }
    }

    /// Reads the entry called `name`.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<(Self, [u8; 32]), Error> {
        let damaged = |what| Error::Damaged { name: name.to_owned(), what };
        let (body, sum) = checked(bytes).ok_or_else(|| damaged("its check sum is not that of its bytes"))?;
        // The version first: a later one may look otherwise in all the rest.
        let version: Version = serde_json::from_str(&body).map_err(|_| damaged("it has no version"))?;
        if version.emberd_manifest != VERSION {
            return Err(Error::Version { name: name.to_owned(), version: version.emberd_manifest });
        }
        let entry: Self =
            serde_json::from_str(&body).map_err(|_| damaged("it is not of the form that it should have"))?;
        if name != name::entry_name(&entry.log, entry.seq) {
            return Err(damaged("it has another entry's name"));
        }
        match entry.fault() {
            Some(what) => Err(damaged(what)),
            None => Ok((entry, sum)),
        }
    }

    /// What is wrong in the entry itself.
    fn fault(&self) -> Option<&'static str> {
        let plain = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let of_log =
            |name: &str| DataName::parse(name).is_some_and(|data| data.log == self.log && data.seq <= self.seq);
        let rules = [
            (name::is_log(&self.log), "its log has no name"),
            (self.seq <= name::SEQ_MAX, "its number is too large"),
            (self.writer.len() == 32 && self.writer.bytes().all(plain), "its writer is not 32 hexadecimal digits"),
            (self.whole || self.previous.is_some(), "it has no entry before it, and is not whole"),
            (!self.whole || self.removed.is_empty(), "it is whole, and removes something"),
            ((self.kind == Kind::Back) == (self.from > self.to), "it goes backwards, or should"),
            (
                matches!(self.kind, Kind::Commit | Kind::Back) || self.from == self.to || self.from.is_none(),
                "it moves the cursor, and is no commit",
            ),
            (self.kind != Kind::Back || self.to.is_some(), "it goes back to nowhere"),
            (self.kind != Kind::Commit || (self.from.is_some() && self.from < self.to), "it is a commit of nothing"),
            (self.book.len() <= BOOK_BYTES_MAX, "its book is too long"),
            (self.added.iter().all(|file| of_log(&file.name)), "it adds a file that is none of its log's"),
            (self.removed.iter().all(|name| of_log(name)), "it removes a file that is none of its log's"),
            (self.added.iter().all(|file| file.start_min <= file.start_max), "a file ends before it begins"),
        ];
        rules.into_iter().find(|(kept, _)| !kept).map(|(_, what)| what)
    }
}

/// The object without its check sum, and the check sum, if that is right.
fn checked(bytes: &[u8]) -> Option<(String, [u8; 32])> {
    if bytes.len() as u64 > ENTRY_BYTES_MAX {
        return None;
    }
    let tail_bytes = TAIL.0.len() + 64 + TAIL.1.len();
    let (body, tail) = bytes.split_at_checked(bytes.len().checked_sub(tail_bytes)?)?;
    let tail = std::str::from_utf8(tail).ok()?;
    let sum = unhex(tail.strip_prefix(TAIL.0)?.strip_suffix(TAIL.1)?)?;
    let right: [u8; 32] = Sha256::digest(body).into();
    let body = std::str::from_utf8(body).ok().filter(|_| right == sum)?;
    Some((format!("{body}}}"), sum))
}

/// Of an object of whatever version.
#[derive(Deserialize)]
struct Version {
    emberd_manifest: u64,
}

/// As lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 32 bytes of 64 lower-case hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

mod hex32 {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        super::unhex(&String::deserialize(from)?).ok_or_else(|| D::Error::custom("not 64 hexadecimal digits"))
    }
}

mod hex32_or_none {
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Option<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::hex32::serialize(bytes, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 32]>, D::Error> {
        super::hex32::deserialize(from).map(Some)
    }
}

mod nanos {
    use emberd_model::UnixNanos;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &UnixNanos, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(at.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UnixNanos, D::Error> {
        u64::deserialize(from).map(UnixNanos)
    }
}
