//! A small state that changes in steps, in a file: for what a consumer must find again besides its place in the log.
//!
//! Promise: [`Journal::append`] and [`Journal::replace`] return when their record is durable; a crash leaves it whole or absent.
//! What is found is what was stored, in order, from the last record that replaced all before it. Records are steps, so one
//! that is damaged is never skipped: with a record after it, or as the first of its file, it is [`JournalError::Corrupt`]. A
//! last record that is not whole was not acked, and is cut off. (One that rots after its ack looks the same, and goes too.)
//! After a write or sync that failed nothing is appended any more: a second sync on that file could claim what is not true.
//! A [`Journal::replace`] that succeeds makes a new file, and all is well again; so does opening, which writes the last record
//! once more. A replace that fails before its new name was asked for leaves things as they were, so that where a full disk
//! has no room for a new file, records still fit into the old one.
//! On disk (little endian):
//! ```text
//! file      magic "EMBERJNL" | version u32 | crc u32 of these 12 | salt u64 | 0 u32 | crc u32 of these 12 and the name .. 32
//!           then records, each at a multiple of 8, then zeros
//! record    magic u32 | crc u32 | body bytes u32 | body crc u32 | number in the file u64 | flags u32 | 0 u32 .. 32
//!           body | zeros up to a multiple of 8
//! ```
//! Every crc is CRC-32C; a record's begins with the file's salt and the record's place, as in `format.rs`. A file is only ever
//! there with its first record whole: it gets its name after both are durable. It grows by many records at a time, written as
//! zeros, so that most syncs have no length to write down.
//! Not here: what a record means; keeping two writers apart (the lock of the log's directory does that).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Access, Disk, File, read_full_at, write_all_at};
use crate::disk_log::random;
use crate::error::{JournalError, SegmentId};
use crate::format::{Place, u32_at, u64_at};

/// The largest record that is taken.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

const MAGIC: &[u8; 8] = b"EMBERJNL";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 32;
const RECORD_MAGIC: [u8; 4] = *b"eJ\xf3\x03";
const RECORD_HEAD_BYTES: usize = 32;
const STEP: usize = 8;
/// The record took the place of all before it.
const REPLACES: u32 = 1;
/// How far a file grows at once.
const GROW_BYTES: u64 = 64 << 10;
/// How often a file that changes under a reader's eyes is read before it is taken for damaged.
const READS: usize = 4;

/// The journal in `DIR/NAME.journal`.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    names: Names,
    grow: u64,
    /// None before the first record.
    file: Option<Open>,
    /// A write or sync failed, and no replace has succeeded since.
    failed: bool,
    bytes: u64,
}

/// What a journal holds: its records in order, beginning with the last one that replaced all before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The records.
    pub records: Vec<Vec<u8>>,
    /// Bytes of a last record that is not whole, and so was never acked.
    pub torn_bytes: u64,
}

#[derive(Debug)]
struct Names {
    name: String,
    dir: PathBuf,
    path: PathBuf,
    temp: PathBuf,
}

/// The file that records go to.
#[derive(Debug)]
struct Open {
    file: Box<dyn File>,
    salt: u64,
    /// The next record's number, and where it goes.
    number: u64,
    at: u64,
    file_bytes: u64,
}

impl Journal {
    /// Opens `DIR/NAME.journal`, in a directory that is made if missing; the file itself appears with the first record. What is
    /// found is durable, whatever the last process saw fail, and a torn last record is cut off. Blocks on the disk.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, name: &str) -> Result<(Self, Found), JournalError> {
        Self::open_growing(disk, dir, name, GROW_BYTES)
    }

    fn open_growing(disk: Arc<dyn Disk>, dir: &Path, name: &str, grow: u64) -> Result<(Self, Found), JournalError> {
        let names = Names::new(dir, name)?;
        disk.create_dir(dir).map_err(names.failed("make the directory of"))?;
        // What a replace left half done; the next one would write over it anyway.
        let _ = disk.remove(&names.temp);
        let mut journal = Self { disk, names, grow, file: None, failed: false, bytes: 0 };
        let file = match journal.disk.open(&journal.names.path, Access::Write) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((journal, Found::default())),
            Err(e) => return Err(journal.names.failed("open")(e)),
        };
        let bytes = contents(&*file).map_err(journal.names.failed("read"))?;
        let parsed = journal.names.parse(&bytes)?;
        journal.settle(&*file, &bytes, &parsed)?;
        journal.bytes = parsed.appended_bytes();
        journal.file = Some(Open {
            file,
            salt: parsed.salt,
            number: parsed.records.len() as u64,
            at: parsed.end as u64,
            file_bytes: bytes.len() as u64,
        });
        Ok((journal, parsed.found(&bytes)))
    }

    /// Makes durable what is going to be shown. All but the last record were durable before that was begun; the last one is
    /// written once more, as a sync that failed may have left it in memory only, marked as clean. Behind it only zeros stay.
    fn settle(&self, file: &dyn File, bytes: &[u8], parsed: &Parsed) -> Result<(), JournalError> {
        let last = parsed.records.last().map_or(0, |record| record.at);
        let mut again = bytes[last..parsed.end].to_vec();
        again.resize(parsed.end + parsed.torn_bytes - last, 0);
        write_all_at(file, &again, last as u64).map_err(self.names.failed("write"))?;
        file.sync_data().map_err(self.names.failed("sync"))?;
        self.disk.sync_dir(&self.names.dir).map_err(self.names.failed("sync the directory of"))
    }

    /// Appends a record; returns when it is durable. After an error it may be there or not, and nothing more is appended until
    /// a [`Journal::replace`] succeeds. Blocks on the disk.
    pub fn append(&mut self, record: &[u8]) -> Result<(), JournalError> {
        self.names.check(record)?;
        if self.failed {
            return Err(self.names.failed("append to")(io::Error::other("an earlier write failed")));
        }
        match &mut self.file {
            None => self.renew(record, 0)?,
            Some(open) => {
                let done = open.append(record, self.grow);
                self.failed = done.is_err();
                done.map_err(|(action, source)| self.names.failed(action)(source))?;
            }
        }
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// Replaces all records by this one, in a new file; returns when it is durable. A crash leaves the old records or the new
    /// one. Blocks on the disk.
    pub fn replace(&mut self, record: &[u8]) -> Result<(), JournalError> {
        self.names.check(record)?;
        self.renew(record, REPLACES)?;
        self.bytes = 0;
        Ok(())
    }

    /// Bytes of the records that were appended since the last replace.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Goes on in a new file that holds only this record.
    fn renew(&mut self, record: &[u8], flags: u32) -> Result<(), JournalError> {
        let fresh = Open::create(&*self.disk, &self.names, record, flags, self.grow).map_err(|(action, source)| {
            // It takes room that the disk may not have.
            let _ = self.disk.remove(&self.names.temp);
            self.names.failed(action)(source)
        })?;
        // From here on the old file may be gone after a crash, and nothing may be acked into it.
        self.failed = true;
        self.disk.rename(&self.names.temp, &self.names.path).map_err(self.names.failed("rename"))?;
        self.disk.sync_dir(&self.names.dir).map_err(self.names.failed("sync the directory of"))?;
        self.file = Some(fresh);
        self.failed = false;
        Ok(())
    }
}

/// What a journal holds, read beside a writer that may be running, changing nothing; none if there is no such file.
pub fn read(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<Found>, JournalError> {
    let names = Names::new(dir, name)?;
    let mut reads = 0;
    loop {
        let bytes = match disk.open(&names.path, Access::Read).and_then(|file| contents(&*file)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(names.failed("read")(e)),
        };
        reads += 1;
        match names.parse(&bytes) {
            Ok(parsed) => return Ok(Some(parsed.found(&bytes))),
            // Records that were written while the file was read look like damage before a whole record.
            Err(JournalError::Corrupt { .. }) if reads < READS => {}
            Err(e) => return Err(e),
        }
    }
}

fn contents(file: &dyn File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let read = read_full_at(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

impl Names {
    fn new(dir: &Path, name: &str) -> Result<Self, JournalError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(JournalError::Name { name: name.to_owned() });
        }
        Ok(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            path: dir.join(format!("{name}.journal")),
            temp: dir.join(format!("{name}.journal.tmp")),
        })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.path.clone();
        move |source| JournalError::Disk { action, path, source }
    }

    fn check(&self, record: &[u8]) -> Result<(), JournalError> {
        if record.len() > RECORD_BYTES_MAX {
            let (path, bytes) = (self.path.clone(), record.len() as u64);
            return Err(JournalError::TooLarge { path, bytes, max_bytes: RECORD_BYTES_MAX as u64 });
        }
        Ok(())
    }

    fn parse(&self, bytes: &[u8]) -> Result<Parsed, JournalError> {
        let salt = self.salt(bytes)?;
        let (records, end) = whole_records(bytes, salt);
        let tail = bytes.get(end..).unwrap_or_default();
        let number = records.len() as u64;
        let follows = |at: usize| RecordHead::decode(&bytes[at..], salt, at).is_some_and(|head| head.number >= number);
        // The record that is not whole has a header here, or none; a header behind it was written when it was durable.
        let acked = records.is_empty() || (end + STEP..bytes.len()).step_by(STEP).any(follows);
        if acked {
            return Err(self.corrupt(end));
        }
        let torn_bytes = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Ok(Parsed { salt, records, end, torn_bytes })
    }

    fn corrupt(&self, at: usize) -> JournalError {
        JournalError::Corrupt { path: self.path.clone(), at: at as u64 }
    }

    /// What the file's header says.
    fn salt(&self, bytes: &[u8]) -> Result<u64, JournalError> {
        // The first 16 bytes stay as they are in every version.
        let known = bytes.len() >= HEAD_BYTES && bytes[..8] == *MAGIC && u32_at(bytes, 12) == crc(&[&bytes[..12]]);
        if !known {
            return Err(self.corrupt(0));
        }
        let version = u32_at(bytes, 8);
        if version > VERSION {
            let said = format!("it has format version {version}, this program knows up to {VERSION}");
            return Err(self.failed("read")(io::Error::new(io::ErrorKind::Unsupported, said)));
        }
        if u32_at(bytes, 28) != crc(&[&bytes[16..28], self.name.as_bytes()]) {
            return Err(self.corrupt(0));
        }
        Ok(u64_at(bytes, 16))
    }

    fn head(&self, salt: u64) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let first = crc(&[&head[..12]]);
        head[12..16].copy_from_slice(&first.to_le_bytes());
        head[16..24].copy_from_slice(&salt.to_le_bytes());
        let second = crc(&[&head[16..28], self.name.as_bytes()]);
        head[28..32].copy_from_slice(&second.to_le_bytes());
        head
    }
}

fn crc(parts: &[&[u8]]) -> u32 {
    crc_fast::crc32_iscsi(&parts.concat())
}

impl Open {
    /// A file under its temporary name, with one record in it, durable.
    fn create(disk: &dyn Disk, names: &Names, record: &[u8], flags: u32, grow: u64) -> Result<Self, Failed> {
        let salt = random();
        let mut bytes = names.head(salt).to_vec();
        lay_out(&mut bytes, 0, record, Label { salt, number: 0, flags });
        let at = bytes.len() as u64;
        bytes.resize(at.next_multiple_of(grow) as usize, 0);
        let file = disk.create(&names.temp, Access::Write).map_err(|e| ("make", e))?;
        write_all_at(&*file, &bytes, 0).map_err(|e| ("write", e))?;
        file.sync_data().map_err(|e| ("sync", e))?;
        Ok(Self { file, salt, number: 1, at, file_bytes: bytes.len() as u64 })
    }

    fn append(&mut self, record: &[u8], grow: u64) -> Result<(), Failed> {
        let mut bytes = Vec::with_capacity(RECORD_HEAD_BYTES + record.len() + STEP);
        lay_out(&mut bytes, self.at, record, Label { salt: self.salt, number: self.number, flags: 0 });
        let end = self.at + bytes.len() as u64;
        if end > self.file_bytes {
            bytes.resize((end.next_multiple_of(grow) - self.at) as usize, 0);
        }
        write_all_at(&*self.file, &bytes, self.at).map_err(|e| ("write", e))?;
        self.file.sync_data().map_err(|e| ("sync", e))?;
        self.file_bytes = self.file_bytes.max(self.at + bytes.len() as u64);
        (self.at, self.number) = (end, self.number + 1);
        Ok(())
    }
}

/// What was tried, and what the system said.
type Failed = (&'static str, io::Error);

/// What is written of a record besides its bytes.
#[derive(Clone, Copy, Debug)]
struct Label {
    salt: u64,
    number: u64,
    flags: u32,
}

/// Adds a record to `bytes`, which go to `from` in the file.
fn lay_out(bytes: &mut Vec<u8>, from: u64, record: &[u8], Label { salt, number, flags }: Label) {
    let place = Place { segment: SegmentId(0), salt, at: from + bytes.len() as u64 };
    let mut rest = [0; RECORD_HEAD_BYTES - 8];
    // No record is larger than `RECORD_BYTES_MAX`.
    rest[..4].copy_from_slice(&(record.len() as u32).to_le_bytes());
    rest[4..8].copy_from_slice(&crc_fast::crc32_iscsi(record).to_le_bytes());
    rest[8..16].copy_from_slice(&number.to_le_bytes());
    rest[16..20].copy_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&RECORD_MAGIC);
    bytes.extend_from_slice(&place.crc(&rest).to_le_bytes());
    bytes.extend_from_slice(&rest);
    bytes.extend_from_slice(record);
    bytes.resize(bytes.len().next_multiple_of(STEP), 0);
}

/// A file that was read.
#[derive(Debug)]
struct Parsed {
    salt: u64,
    records: Vec<Whole>,
    /// Where the next record goes.
    end: usize,
    /// From there to the last byte that is not zero.
    torn_bytes: usize,
}

/// A record that is whole.
#[derive(Clone, Copy, Debug)]
struct Whole {
    at: usize,
    bytes: usize,
    replaces: bool,
}

impl Whole {
    fn body(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at + RECORD_HEAD_BYTES..][..self.bytes]
    }
}

impl Parsed {
    fn found(&self, bytes: &[u8]) -> Found {
        let records = self.records.iter().map(|record| record.body(bytes).to_vec()).collect();
        Found { records, torn_bytes: self.torn_bytes as u64 }
    }

    fn appended_bytes(&self) -> u64 {
        self.records.iter().filter(|record| !record.replaces).map(|record| record.bytes as u64).sum()
    }
}

/// The records from the file's header on, up to the first that is not whole or not the one that should be there; and where
/// that is.
fn whole_records(bytes: &[u8], salt: u64) -> (Vec<Whole>, usize) {
    let (mut records, mut at) = (Vec::new(), HEAD_BYTES);
    while let Some(head) = bytes.get(at..).and_then(|rest| RecordHead::decode(rest, salt, at)) {
        let record = Whole { at, bytes: head.bytes, replaces: head.flags & REPLACES != 0 };
        let next = (at + RECORD_HEAD_BYTES + head.bytes).next_multiple_of(STEP);
        // A file that was cut within the zeros after a body was cut within the record.
        let whole = bytes.len() >= next && crc_fast::crc32_iscsi(record.body(bytes)) == head.body_crc;
        if !whole || head.number != records.len() as u64 {
            break;
        }
        records.push(record);
        at = next;
    }
    (records, at)
}

struct RecordHead {
    bytes: usize,
    body_crc: u32,
    number: u64,
    flags: u32,
}

impl RecordHead {
    /// The header that `bytes` begin with, which lie at `at`.
    fn decode(bytes: &[u8], salt: u64, at: usize) -> Option<Self> {
        let (head, _) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
        if head[..4] != RECORD_MAGIC {
            return None;
        }
        let mut rest = [0; RECORD_HEAD_BYTES - 8];
        rest.copy_from_slice(&head[8..]);
        let place = Place { segment: SegmentId(0), salt, at: at as u64 };
        let size = u32_at(head, 8) as usize;
        (u32_at(head, 4) == place.crc(&rest) && size <= RECORD_BYTES_MAX).then(|| Self {
            bytes: size,
            body_crc: u32_at(head, 12),
            number: u64_at(head, 16),
            flags: u32_at(head, 24),
        })
    }
}

#[cfg(test)]
mod tests;
