//! The bytes of a segment, and how one tells them from bytes that only look so.
//!
//! Promise: nothing decodes here that was not written as exactly this thing, at exactly this place of exactly this segment.
//! On disk (little endian; a block is 4096 bytes):
//! ```text
//! segment   block 0: header     magic "EMBERLOG" | version u32 | crc u32 of these 12 | crc u32 of the rest | 0 u32 |
//!                               segment u64 | salt u64 | base offset u64 | made at u64 (unix nanos)
//!           then commits, each at the start of a block, padded with zeros to the end of one
//! commit    magic u32 | crc u32 | salt u64 | first offset u64 | spans u64 | bytes u32 | records u32 | flags u32 | 0 u32 .. 64
//! record    magic u32 | crc u32 | body bytes u32 | body crc u32 | offset u64 | received at u64 | spans u32 | key u16 |
//!           flags u16 | body | zeros up to a multiple of 8
//! ```
//! Every crc is CRC-32C. Those of commits and records begin with what is *not* stored in them: salt, segment and place, so that
//! a block that lies where another belongs, or is left from the file's last life, is no block at all. A record's crc covers its
//! body's crc. The salt is random for each life of a file, so that a client cannot put into a body what would pass for a record.
//! A commit's first offset is the watermark: when it was written, all before it was durable.
//! Not here: finding these things in a file (`scan.rs`).

use bytes::Bytes;
use emberd_model::{Batch, Flags, Offset, UnixNanos};

use crate::disk::ALIGN;
use crate::error::SegmentId;
use crate::log::Entry;

/// Commits begin on blocks and fill them: what a disk writes as one.
pub(crate) const BLOCK: u64 = ALIGN as u64;
/// Records begin on multiples of this within a commit.
const STEP: u64 = 8;
/// The newest format that is understood here, and the one that is written.
pub(crate) const VERSION: u32 = 1;

pub(crate) const COMMIT_BYTES: u64 = 64;
pub(crate) const RECORD_BYTES: u64 = 40;

const SEGMENT_MAGIC: &[u8; 8] = b"EMBERLOG";
pub(crate) const COMMIT_MAGIC: [u8; 4] = *b"eC\xf1\x01";
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"eR\xf2\x02";

/// What a piece of a segment must know of its surroundings to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: SegmentId,
    pub(crate) salt: u64,
    /// Bytes from the start of the file.
    pub(crate) at: u64,
}

impl Place {
    /// The check sum of `bytes` at this place.
    pub(crate) fn crc<const N: usize>(self, bytes: &[u8; N]) -> u32 {
        // Small and on the stack: one call over one piece is several times faster than a running digest over four.
        let mut seeded = [0; 80];
        seeded[..8].copy_from_slice(&self.salt.to_le_bytes());
        seeded[8..16].copy_from_slice(&self.segment.0.to_le_bytes());
        seeded[16..24].copy_from_slice(&self.at.to_le_bytes());
        seeded[24..24 + N].copy_from_slice(bytes);
        crc_fast::crc32_iscsi(&seeded[..24 + N])
    }
}

/// The check sum of a body: alone, so that it can be taken on the thread that still has the body in its cache.
pub(crate) fn body_crc(body: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(body)
}

/// The first multiple of a block at or after `at`.
pub(crate) fn block_up(at: u64) -> u64 {
    at.next_multiple_of(BLOCK)
}

/// How many bytes a record with a body of `body` bytes takes.
pub(crate) fn record_bytes(body: u64) -> u64 {
    (RECORD_BYTES + body).next_multiple_of(STEP)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// What the first block of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A segment of this number begins here.
    Segment(SegmentHead),
    /// A format that is newer than this program.
    Future(u32),
    /// Zeros, or the beginning of a header and zeros: nothing was ever written, or not to its end.
    Blank,
    /// The log's magic, and no valid header after it.
    Broken,
    /// Something else.
    Foreign,
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub(crate) segment: SegmentId,
    pub(crate) salt: u64,
    pub(crate) base: Offset,
    pub(crate) made_at: UnixNanos,
}

impl SegmentHead {
    const BYTES: usize = 56;

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut head = [0; Self::BYTES];
        head[..8].copy_from_slice(SEGMENT_MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let crc = crc_fast::crc32_iscsi(&head[..12]);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
        head[24..32].copy_from_slice(&self.segment.0.to_le_bytes());
        head[32..40].copy_from_slice(&self.salt.to_le_bytes());
        head[40..48].copy_from_slice(&self.base.0.to_le_bytes());
        head[48..56].copy_from_slice(&self.made_at.0.to_le_bytes());
        let crc = crc_fast::crc32_iscsi(&head[24..]);
        head[16..20].copy_from_slice(&crc.to_le_bytes());
        head
    }
}

impl Head {
    /// Reads the start of a file, of which at least the first 56 bytes are given, or all.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let magic = &bytes[..bytes.len().min(8)];
        let written = magic.len() - magic.iter().rev().take_while(|b| **b == 0).count();
        if written < 8 && magic[..written] == SEGMENT_MAGIC[..written] {
            return Self::Blank;
        }
        if magic != SEGMENT_MAGIC {
            return Self::Foreign;
        }
        if bytes.len() < SegmentHead::BYTES || u32_at(bytes, 12) != crc_fast::crc32_iscsi(&bytes[..12]) {
            return Self::Broken;
        }
        // The first 16 bytes stay as they are in every version, with a crc of their own: a flipped bit in the version must
        // not pass for a file from the future, which would keep the daemon from starting.
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Self::Future(version);
        }
        if u32_at(bytes, 16) != crc_fast::crc32_iscsi(&bytes[24..SegmentHead::BYTES]) {
            return Self::Broken;
        }
        Self::Segment(SegmentHead {
            segment: SegmentId(u64_at(bytes, 24)),
            salt: u64_at(bytes, 32),
            base: Offset(u64_at(bytes, 40)),
            made_at: UnixNanos(u64_at(bytes, 48)),
        })
    }
}

/// The header of a commit: of what went to disk with one write and one sync. Without records it is a mark: it says that all
/// before it was durable, and gives way to the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) first: Offset,
    pub(crate) spans: u64,
    /// From the start of this header to the end of the last record.
    pub(crate) bytes: u32,
    pub(crate) records: u32,
    /// Whether "durable" meant synced.
    pub(crate) synced: bool,
}

impl Commit {
    /// A commit that holds nothing, as a mark has it.
    pub(crate) fn empty(first: Offset) -> Self {
        Self { first, spans: 0, bytes: COMMIT_BYTES as u32, records: 0, synced: true }
    }

    /// The offset after its last span.
    pub(crate) fn end(self) -> Offset {
        self.first.plus(self.spans)
    }

    pub(crate) fn encode(self, place: Place) -> [u8; COMMIT_BYTES as usize] {
        let mut head = [0; COMMIT_BYTES as usize];
        head[..4].copy_from_slice(&COMMIT_MAGIC);
        head[8..16].copy_from_slice(&place.salt.to_le_bytes());
        head[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.spans.to_le_bytes());
        head[32..36].copy_from_slice(&self.bytes.to_le_bytes());
        head[36..40].copy_from_slice(&self.records.to_le_bytes());
        head[40..44].copy_from_slice(&u32::from(self.synced).to_le_bytes());
        let crc = place.crc(&array::<56>(&head, 8));
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// The commit that begins in `bytes`, which lie at `place`.
    pub(crate) fn decode(bytes: &[u8], place: Place) -> Option<Self> {
        let salt = Self::salt(bytes, place.segment, place.at)?;
        let commit = Self {
            first: Offset(u64_at(bytes, 16)),
            spans: u64_at(bytes, 24),
            bytes: u32_at(bytes, 32),
            records: u32_at(bytes, 36),
            synced: u32_at(bytes, 40) & 1 == 1,
        };
        let whole = u64::from(commit.bytes) >= COMMIT_BYTES && u64::from(commit.records) <= commit.spans;
        (salt == place.salt && whole && commit.first.0.checked_add(commit.spans).is_some()).then_some(commit)
    }

    /// The salt that a commit at this place carries: for segments whose header is lost.
    pub(crate) fn salt(bytes: &[u8], segment: SegmentId, at: u64) -> Option<u64> {
        if bytes.len() < COMMIT_BYTES as usize || bytes[..4] != COMMIT_MAGIC || !at.is_multiple_of(BLOCK) {
            return None;
        }
        let salt = u64_at(bytes, 8);
        (u32_at(bytes, 4) == Place { segment, salt, at }.crc(&array::<56>(bytes, 8))).then_some(salt)
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) body_bytes: u32,
    pub(crate) body_crc: u32,
    pub(crate) offset: Offset,
    pub(crate) received_at: UnixNanos,
    pub(crate) spans: u32,
    pub(crate) key: u16,
    pub(crate) flags: Flags,
}

impl Record {
    pub(crate) fn of(entry: &Entry, body_crc: u32, offset: Offset) -> Self {
        Self {
            // Bodies are refused long before they reach four gigabytes.
            body_bytes: entry.body.len() as u32,
            body_crc,
            offset,
            received_at: entry.received_at,
            spans: entry.spans.get(),
            key: entry.key,
            flags: entry.flags,
        }
    }

    /// The offset after its last span.
    pub(crate) fn end(&self) -> Offset {
        self.offset.plus(u64::from(self.spans))
    }

    /// How many bytes it takes, header and padding included.
    pub(crate) fn bytes(&self) -> u64 {
        record_bytes(u64::from(self.body_bytes))
    }

    pub(crate) fn batch(&self, body: Bytes) -> Batch {
        Batch {
            offset: self.offset,
            spans: self.spans,
            received_at: self.received_at,
            key: self.key,
            flags: self.flags,
            body,
        }
    }

    pub(crate) fn encode(&self, place: Place) -> [u8; RECORD_BYTES as usize] {
        let mut head = [0; RECORD_BYTES as usize];
        head[..4].copy_from_slice(&RECORD_MAGIC);
        head[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        head[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        head[16..24].copy_from_slice(&self.offset.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.received_at.0.to_le_bytes());
        head[32..36].copy_from_slice(&self.spans.to_le_bytes());
        head[36..38].copy_from_slice(&self.key.to_le_bytes());
        head[38..40].copy_from_slice(&self.flags.0.to_le_bytes());
        let crc = place.crc(&array::<32>(&head, 8));
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// The record whose header begins in `bytes`, which lie at `place`. Its body is not looked at.
    pub(crate) fn decode(bytes: &[u8], place: Place) -> Option<Self> {
        if bytes.len() < RECORD_BYTES as usize || bytes[..4] != RECORD_MAGIC {
            return None;
        }
        if u32_at(bytes, 4) != place.crc(&array::<32>(bytes, 8)) {
            return None;
        }
        let record = Self {
            body_bytes: u32_at(bytes, 8),
            body_crc: u32_at(bytes, 12),
            offset: Offset(u64_at(bytes, 16)),
            received_at: UnixNanos(u64_at(bytes, 24)),
            spans: u32_at(bytes, 32),
            key: u16_at(bytes, 36),
            flags: Flags(u16_at(bytes, 38)),
        };
        (record.spans > 0 && record.offset.0.checked_add(record.spans.into()).is_some()).then_some(record)
    }
}
