//! Walking over a segment that may be damaged.
//!
//! Promise: a walk gives every record that is whole, in order, and names every range of spans that is not, once. It never gives
//! a record that was not written at that place, and reads each byte a bounded number of times, whatever the bytes are.
//! Not here: which part of a segment was ever acked (`recovery.rs` decides it from [`last_commit`]).

use std::io;

use bytes::{Bytes, BytesMut};
use emberd_model::{Batch, Offset};

use crate::disk::{File, read_full_at};
use crate::error::SegmentId;
use crate::format::{
    self, BLOCK, COMMIT_BYTES, COMMIT_MAGIC, Commit, Place, RECORD_BYTES, RECORD_MAGIC, Record, block_up,
};

/// What is read at once where much is read.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// What is read at once where headers are looked for.
pub(crate) const HEADERS_BYTES: usize = 16 << 10;

/// A file seen through a piece of it.
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    /// Where the file ends.
    len: u64,
    chunk_bytes: usize,
    chunk: Bytes,
    start: u64,
    /// Pieces that were read before, to be read into again once nobody holds them.
    used: Used,
}

/// Memory that was read into, shared with the batches that lie in it. New memory costs zeros, and mostly the system's work of finding
/// it, for every byte that is read.
#[derive(Debug, Default)]
pub(crate) struct Used(Vec<Bytes>);

/// What is kept of it: what a consumer has in hand, and what it reads meanwhile.
const USED_MAX: usize = 3;

impl Used {
    /// `len` bytes, whatever is in them.
    fn take(&mut self, len: usize) -> BytesMut {
        for at in 0..self.0.len() {
            match self.0.swap_remove(at).try_into_mut() {
                // Not for a piece that is much larger: it would be kept as large.
                Ok(mut free) if free.capacity() >= len && free.capacity() / 2 <= len.max(CHUNK_BYTES) => {
                    free.resize(len, 0);
                    return free;
                }
                Ok(_unfit) => return BytesMut::zeroed(len),
                Err(held) => {
                    self.0.push(held);
                    let last = self.0.len() - 1;
                    self.0.swap(at, last);
                }
            }
        }
        BytesMut::zeroed(len)
    }

    fn keep(&mut self, piece: Bytes) {
        if piece.len() >= CHUNK_BYTES {
            self.0.push(piece);
        }
        if self.0.len() > USED_MAX {
            self.0.remove(0);
        }
    }
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn File, len: u64, chunk_bytes: usize) -> Self {
        Self { file, len, chunk_bytes, chunk: Bytes::new(), start: 0, used: Used::default() }
    }

    /// The same, read into memory that was used before.
    pub(crate) fn reusing(self, used: Used) -> Self {
        Self { used, ..self }
    }

    /// The memory, to be used again.
    pub(crate) fn into_used(mut self) -> Used {
        self.used.keep(self.chunk);
        self.used
    }

    /// The bytes from `at` on that were read already.
    fn held(&self, at: u64) -> &[u8] {
        let from = at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.chunk.get(from..)).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes at `at`: `wanted` of them or more, fewer only where the file ends.
    pub(crate) fn at(&mut self, at: u64, wanted: usize) -> io::Result<&[u8]> {
        let from = self.load(at, wanted)?;
        Ok(&self.chunk[from..])
    }

    /// The `len` bytes at `at` as a share of what was read; fewer only where the file ends.
    fn share(&mut self, at: u64, len: usize) -> io::Result<Bytes> {
        let from = self.load(at, len)?;
        Ok(self.chunk.slice(from..self.chunk.len().min(from + len)))
    }

    /// Makes sure that the piece holds them; gives where in it they begin.
    fn load(&mut self, at: u64, wanted: usize) -> io::Result<usize> {
        let there = self.len.saturating_sub(at);
        let wanted = there.min(wanted as u64);
        let held = self.start + self.chunk.len() as u64;
        if at >= self.start && at + wanted <= held {
            return Ok((at - self.start) as usize);
        }
        self.used.keep(std::mem::take(&mut self.chunk));
        let mut bytes = self.used.take(there.min(wanted.max(self.chunk_bytes as u64)) as usize);
        let read = read_full_at(self.file, &mut bytes, at)?;
        if read < bytes.len() {
            // Shorter than its length said: someone cut it meanwhile.
            bytes.truncate(read);
            self.len = at + read as u64;
        }
        self.chunk = bytes.freeze();
        self.start = at;
        Ok(0)
    }
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole record.
    Batch(Batch),
    /// Spans that cannot be read, or that are not there; `at` is where the damage begins.
    Damage { at: u64, from: Offset, to: Offset },
    /// The offset up to which was to be walked is reached.
    End,
}

/// A place in a segment, and what should follow there. Cheap to keep, so that a walk can be gone on with later.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    place: Place,
    /// Where the records of the commit under way end, if its header could be read.
    commit_end: Option<u64>,
    expected: Offset,
    /// Records that end here or before are stepped over unread.
    wanted: Offset,
}

impl Walk {
    /// A walk from the start of a segment whose first offset is `base`, to give what lies at `wanted` and after.
    pub(crate) fn new(segment: SegmentId, salt: u64, base: Offset, wanted: Offset) -> Self {
        Self { place: Place { segment, salt, at: BLOCK }, commit_end: None, expected: base, wanted }
    }

    pub(crate) fn segment(&self) -> SegmentId {
        self.place.segment
    }

    /// The offset of the next batch.
    pub(crate) fn position(&self) -> Offset {
        self.expected.max(self.wanted)
    }

    /// The next record or damage before `end`, which must be the end of a record.
    pub(crate) fn step(&mut self, window: &mut Window<'_>, end: Offset) -> io::Result<Step> {
        while self.expected < end {
            let step = match self.readable(window, end)? {
                Some(Found::Commit(commit)) => self.enter(commit),
                Some(Found::Record(record)) => self.take(record, window)?,
                None if self.place.at >= window.len() => Some(self.lost(end)),
                None => {
                    self.commit_end = None;
                    self.place.at = self.resync(window, end)?;
                    None
                }
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
        Ok(Step::End)
    }

    /// Whether the next step needs nothing that was not read yet, as far as can be seen.
    pub(crate) fn is_at_hand(&self, window: &Window<'_>) -> bool {
        let (mut head, mut place) = (window.held(self.place.at), self.place);
        if let Some(Found::Commit(_)) = found(head, place) {
            place.at += COMMIT_BYTES;
            head = window.held(place.at);
        }
        match found(head, place) {
            Some(Found::Record(record)) => head.len() as u64 >= RECORD_BYTES + u64::from(record.body_bytes),
            _ => head.len() as u64 >= COMMIT_BYTES,
        }
    }

    /// Where it stands in the file.
    pub(crate) fn at(&self) -> u64 {
        self.place.at
    }

    /// Where the first thing lies that can be read, and its offset.
    pub(crate) fn first(mut self, window: &mut Window<'_>) -> io::Result<Option<(u64, Offset)>> {
        let end = Offset(u64::MAX);
        if self.readable(window, end)?.is_none() {
            self.place.at = self.resync(window, end)?;
        }
        Ok(self.readable(window, end)?.map(|found| match found {
            Found::Commit(commit) => (self.place.at, commit.first),
            Found::Record(record) => (self.place.at, record.offset),
        }))
    }

    /// Steps over whole commits that end at `wanted` or before, reading only their headers.
    pub(crate) fn skip_commits(&mut self, window: &mut Window<'_>, end: Offset) -> io::Result<()> {
        while self.expected < self.wanted.min(end) && self.commit_end.is_none() {
            match self.readable(window, end)? {
                Some(Found::Commit(commit)) if commit.end() <= self.wanted && commit.records > 0 => {
                    self.expected = commit.end();
                    self.place.at = block_up(self.place.at + u64::from(commit.bytes));
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// What begins at this place, if it is something that may follow here.
    fn readable(&self, window: &mut Window<'_>, end: Offset) -> io::Result<Option<Found>> {
        let head = window.at(self.place.at, COMMIT_BYTES as usize)?;
        Ok(found(head, self.place).filter(|found| match found {
            Found::Commit(commit) => commit.first >= self.expected && commit.first <= end,
            Found::Record(record) => record.offset >= self.expected && record.end() <= end,
        }))
    }

    fn enter(&mut self, commit: Commit) -> Option<Step> {
        if commit.first > self.expected {
            return self.missing(commit.first);
        }
        self.commit_end = Some(self.place.at + u64::from(commit.bytes));
        self.place.at += COMMIT_BYTES;
        self.leave();
        None
    }

    fn take(&mut self, record: Record, window: &mut Window<'_>) -> io::Result<Option<Step>> {
        if record.offset > self.expected {
            return Ok(self.missing(record.offset));
        }
        let at = self.place.at;
        // Read before anything moves: after an error the walk stands where it stood.
        let body = match record.end() > self.wanted {
            true => Some(window.share(at + RECORD_BYTES, record.body_bytes as usize)?),
            false => None,
        };
        self.place.at += record.bytes();
        self.expected = record.end();
        self.leave();
        Ok(body.map(|body| {
            match format::body_crc(&body) == record.body_crc && body.len() == record.body_bytes as usize {
                true => Step::Batch(record.batch(body)),
                false => Step::Damage { at, from: record.offset.max(self.wanted), to: record.end() },
            }
        }))
    }

    /// At the end of a commit's records, on to where the next commit begins.
    fn leave(&mut self) {
        if self.commit_end.is_some_and(|end| self.place.at >= end) {
            self.place.at = block_up(self.place.at);
            self.commit_end = None;
        }
    }

    /// The spans up to `to` are not there.
    fn missing(&mut self, to: Offset) -> Option<Step> {
        let from = self.position();
        self.expected = to;
        (from < to).then_some(Step::Damage { at: self.place.at, from, to })
    }

    fn lost(&mut self, end: Offset) -> Step {
        self.missing(end).unwrap_or(Step::End)
    }

    /// The next place where something begins that may follow, or the end of the file.
    fn resync(&self, window: &mut Window<'_>, end: Offset) -> io::Result<u64> {
        let mut at = (self.place.at + 1).next_multiple_of(8);
        while at < window.len() {
            let bytes = window.at(at, COMMIT_BYTES as usize)?;
            // Not the last bytes: a header that begins there is not whole in this piece.
            let whole = (bytes.len() + 8).saturating_sub(COMMIT_BYTES as usize).max(8) / 8 * 8;
            let next = at + whole as u64;
            let words = bytes[..whole.min(bytes.len())].chunks(8).enumerate();
            let candidates =
                words.filter(|(_, word)| word.starts_with(&RECORD_MAGIC) || word.starts_with(&COMMIT_MAGIC));
            for (word, _) in candidates {
                let place = Place { at: at + 8 * word as u64, ..self.place };
                let follows = match found(&bytes[8 * word..], place) {
                    Some(Found::Commit(commit)) => commit.first >= self.expected && commit.first <= end,
                    Some(Found::Record(record)) => record.offset >= self.expected && record.end() <= end,
                    None => false,
                };
                if follows {
                    return Ok(place.at);
                }
            }
            at = next;
        }
        Ok(window.len())
    }
}

enum Found {
    Commit(Commit),
    Record(Record),
}

fn found(head: &[u8], place: Place) -> Option<Found> {
    match head.get(..4)?.try_into().ok()? {
        COMMIT_MAGIC => Commit::decode(head, place).map(Found::Commit),
        RECORD_MAGIC => Record::decode(head, place).map(Found::Record),
        _ => None,
    }
}

/// The last commit in a segment: all before it was durable when it was written. Looks at every block from the end backwards,
/// as damage may lie anywhere.
pub(crate) fn last_commit(window: &mut Window<'_>, segment: SegmentId, salt: u64) -> io::Result<Option<(u64, Commit)>> {
    let chunk = CHUNK_BYTES as u64;
    let mut end = window.len();
    while end > BLOCK {
        let start = (end - 1) / chunk * chunk;
        let blocks = (start / BLOCK..end.div_ceil(BLOCK)).rev().map(|block| block * BLOCK);
        // Loaded from its start, so that the blocks below come from memory.
        window.at(start, (end - start) as usize)?;
        for at in blocks.filter(|at| *at >= BLOCK) {
            if let Some(commit) = Commit::decode(window.at(at, COMMIT_BYTES as usize)?, Place { segment, salt, at }) {
                return Ok(Some((at, commit)));
            }
        }
        end = start;
    }
    Ok(None)
}

/// The blocks from `from` on in which something begins that would be believed: left there by a write that was torn before its
/// place, and so was never acked.
pub(crate) fn leftovers(window: &mut Window<'_>, segment: SegmentId, salt: u64, from: u64) -> io::Result<Vec<u64>> {
    let mut blocks = Vec::new();
    let mut at = from;
    while at < window.len() {
        let place = Place { segment, salt, at };
        let walk = Walk { place, commit_end: None, expected: Offset(0), wanted: Offset(0) };
        let Some((found, _)) = walk.first(window)? else { break };
        blocks.push(found / BLOCK * BLOCK);
        at = (found / BLOCK + 1) * BLOCK;
    }
    Ok(blocks)
}

/// The salt of a segment whose header is lost: the one that its first readable commit carries.
pub(crate) fn salt(window: &mut Window<'_>, segment: SegmentId) -> io::Result<Option<u64>> {
    let mut at = BLOCK;
    while at < window.len() {
        if let Some(salt) = Commit::salt(window.at(at, COMMIT_BYTES as usize)?, segment, at) {
            return Ok(Some(salt));
        }
        at += BLOCK;
    }
    Ok(None)
}

/// The records that a commit at `at` begins with and that are whole, and where the last of them ends.
pub(crate) fn whole_records(window: &mut Window<'_>, place: Place, commit: Commit) -> io::Result<(Vec<Batch>, u64)> {
    let mut whole = Vec::new();
    let mut place = Place { at: place.at + COMMIT_BYTES, ..place };
    let mut expected = commit.first;
    for _ in 0..commit.records {
        let Some(record) = Record::decode(window.at(place.at, RECORD_BYTES as usize)?, place) else { break };
        let body = window.share(place.at + RECORD_BYTES, record.body_bytes as usize)?;
        if record.offset != expected || format::body_crc(&body) != record.body_crc {
            break;
        }
        expected = record.end();
        place.at += record.bytes();
        whole.push(record.batch(body));
    }
    Ok((whole, place.at))
}
