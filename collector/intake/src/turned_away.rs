//! What the doors turned away, hour by hour, kept over restarts: the part of the ledger that is not in the log.
//!
//! Promise: a span that was rejected or refused is in the file when its answer goes out, so that kill -9 loses none. A power cut may lose
//! the last second's: a disk that is full or fails, which is why spans are turned away, is not made to sync for each of them.
//! On disk:  `DIR/turned_away`, little endian slots of 64 bytes, each rewritten in place and within one sector:
//! `crc32c of the rest u32 | hour u32 | spans u64 | what u8 | transport u8 | reason, at most 32 bytes, zeros`. A torn slot is passed over.
//! Not here: accepted spans (the log counts those); which project a span was of: what is turned away is not looked into.
//! Kept by:  `tests`, `daemon/tests/it/ledger.rs`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use emberd_log::disk::{Access, Disk, File, read_full_at, write_all_at};
use emberd_model::ledger::{EARLIER, HOURS_MAX, Hour};

use crate::counters::Transport;

const SLOT_BYTES: usize = 64;
const REASON_AT: usize = 18;
const REASON_BYTES_MAX: usize = 32;
/// Beyond so many slots hours long past are counted together.
const SLOTS_MAX: usize = 4_096;
const SYNC_EVERY: Duration = Duration::from_secs(1);
const NAME: &str = "turned_away";

/// What was done with spans instead of accepting them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// They can never be kept, and their sender was told so.
    Rejected = 1,
    /// Their request was refused.
    Refused = 2,
}

/// Which spans a line counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// When they came; [`EARLIER`] for all that is older than a week.
    pub hour: Hour,
    /// What was done.
    pub what: What,
    /// How they came.
    pub transport: &'static str,
    /// Why, in the words of the metrics; empty for rejected ones.
    pub reason: String,
}

/// The counts, and their file.
#[derive(Debug)]
pub struct TurnedAway(Mutex<Book>);

#[derive(Debug)]
struct Book {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Option<Box<dyn File>>,
    /// Each line's slot and count.
    lines: BTreeMap<Line, (usize, u64)>,
    synced_at: Instant,
    dirty: bool,
}

impl TurnedAway {
    /// Opens the counts in `dir`, which is made if missing; the file appears with the first count.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        disk.create_dir(dir)?;
        let lines = read(&*disk, dir)?;
        let mut book = Book {
            disk,
            dir: dir.to_owned(),
            file: None,
            lines: BTreeMap::new(),
            synced_at: Instant::now(),
            dirty: false,
        };
        if !lines.is_empty() {
            book.write_anew(lines)?;
        }
        Ok(Self(Mutex::new(book)))
    }

    /// Counts spans that are turned away now. A disk that does not take it is said in the log, and tried with the next count.
    pub(crate) fn add(&self, hour: Hour, what: What, transport: Transport, reason: &str, spans: u64) {
        if spans == 0 {
            return;
        }
        let line = Line { hour, what, transport: transport.as_str(), reason: reason.to_owned() };
        if let Err(error) = self.book().add(line, spans) {
            tracing::warn!(%error, "the count of spans that were turned away is not on disk");
        }
    }

    /// Makes all counts durable.
    pub(crate) fn sync(&self) {
        let _ = self.book().sync();
    }

    /// All lines with their counts, oldest hour first.
    #[must_use]
    pub fn lines(&self) -> BTreeMap<Line, u64> {
        self.book().lines.iter().map(|(line, (_, spans))| (line.clone(), *spans)).collect()
    }

    /// How many spans were ever rejected, or refused.
    #[must_use]
    pub fn total(&self, what: What) -> u64 {
        self.book().lines.iter().filter(|(line, _)| line.what == what).map(|(_, (_, spans))| spans).sum()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counts in `dir`, read beside a daemon that may run.
pub fn read(disk: &dyn Disk, dir: &Path) -> io::Result<BTreeMap<Line, u64>> {
    let file = match disk.open(&dir.join(NAME), Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    let mut lines = BTreeMap::new();
    for (line, spans) in bytes[..read].as_chunks::<SLOT_BYTES>().0.iter().filter_map(decode) {
        *lines.entry(line).or_default() += spans;
    }
    Ok(lines)
}

impl Book {
    fn add(&mut self, line: Line, spans: u64) -> io::Result<()> {
        let next = self.lines.len();
        let (slot, count) = self.lines.entry(line.clone()).or_insert((next, 0));
        *count += spans;
        let (slot, count) = (*slot, *count);
        if slot >= SLOTS_MAX || self.file.is_none() {
            let lines = self.lines.iter().map(|(line, (_, spans))| (line.clone(), *spans)).collect();
            return self.write_anew(lines);
        }
        self.dirty = true;
        if let Some(file) = &self.file {
            write_all_at(&**file, &encode(&line, count), (slot * SLOT_BYTES) as u64)?;
        }
        if self.synced_at.elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.synced_at = Instant::now();
        match &self.file {
            Some(file) if std::mem::take(&mut self.dirty) => file.sync_data(),
            _ => Ok(()),
        }
    }

    /// Writes a new file, in which hours older than a week are one.
    fn write_anew(&mut self, lines: BTreeMap<Line, u64>) -> io::Result<()> {
        let newest = lines.keys().map(|line| line.hour).max().unwrap_or(EARLIER);
        let mut folded: BTreeMap<Line, u64> = BTreeMap::new();
        for (line, spans) in lines {
            let hour = if line.hour.0.saturating_add(HOURS_MAX) < newest.0 { EARLIER } else { line.hour };
            *folded.entry(Line { hour, ..line }).or_default() += spans;
        }
        let bytes: Vec<u8> = folded.iter().flat_map(|(line, spans)| encode(line, *spans)).collect();
        self.lines = folded.into_iter().enumerate().map(|(slot, (line, spans))| (line, (slot, spans))).collect();
        self.file = None;
        let (path, temp) = (self.dir.join(NAME), self.dir.join(format!("{NAME}.tmp")));
        let file = self.disk.create(&temp, Access::Write)?;
        write_all_at(&*file, &bytes, 0)?;
        file.sync_data()?;
        self.disk.rename(&temp, &path)?;
        self.disk.sync_dir(&self.dir)?;
        self.file = Some(file);
        Ok(())
    }
}

fn encode(line: &Line, spans: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[4..8].copy_from_slice(&line.hour.0.to_le_bytes());
    slot[8..16].copy_from_slice(&spans.to_le_bytes());
    slot[16] = line.what as u8;
    slot[17] = Transport::ALL.iter().position(|transport| transport.as_str() == line.transport).unwrap_or(0) as u8;
    let reason = &line.reason.as_bytes()[..line.reason.len().min(REASON_BYTES_MAX)];
    slot[REASON_AT..REASON_AT + reason.len()].copy_from_slice(reason);
    let crc = emberd_log::crc32c(&slot[4..]);
    slot[..4].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(Line, u64)> {
    let crc = u32::from_le_bytes(*slot.first_chunk()?);
    let what = [What::Rejected, What::Refused].into_iter().find(|what| *what as u8 == slot[16])?;
    let reason = slot[REASON_AT..REASON_AT + REASON_BYTES_MAX].split(|byte| *byte == 0).next()?;
    let line = Line {
        hour: Hour(u32::from_le_bytes(*slot[4..].first_chunk()?)),
        what,
        transport: Transport::ALL.get(usize::from(slot[17]))?.as_str(),
        reason: str::from_utf8(reason).ok()?.to_owned(),
    };
    (crc == emberd_log::crc32c(&slot[4..]))
        .then(|| (line, u64::from_le_bytes(slot[8..16].try_into().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use emberd_log::sim::{SimDisk, Survives};

    use super::*;

    fn dir() -> &'static Path {
        Path::new("/ledger")
    }

    fn open(disk: &SimDisk) -> TurnedAway {
        TurnedAway::open(Arc::new(disk.clone()), dir()).unwrap()
    }

    /// What was counted is there after kill -9 at any moment, and after a power cut what was synced; never more than was counted.
    #[test]
    fn counts_survive_the_process() {
        let disk = SimDisk::new();
        disk.record();
        let counts = open(&disk);
        let mut after = vec![(disk.calls(), 0)];
        for n in 0..60 {
            let reason = ["budget", "stopping", "crowded"][n % 3];
            counts.add(Hour(490_000 + n as u32 / 20), What::Refused, Transport::ALL[n % 3], reason, 5);
            if n == 30 {
                counts.sync();
            }
            after.push((disk.calls(), 5 * (n as u64 + 1)));
        }
        counts.add(Hour(490_000), What::Rejected, Transport::Grpc, "", 3);
        assert_eq!((counts.total(What::Refused), counts.total(What::Rejected)), (300, 3));
        for moment in disk.moments() {
            let counted = after.iter().rev().find(|(calls, _)| *calls <= moment.calls).map_or(0, |(_, spans)| *spans);
            let killed = open(&moment.crash(Survives::Everything)).total(What::Refused);
            assert!((counted..=counted + 5).contains(&killed), "call {}: {killed} of {counted}", moment.calls);
            for way in
                [Survives::Nothing, Survives::Some { unit: 512, seed: moment.calls }, Survives::Torn { bytes: 30 }]
            {
                assert!(open(&moment.crash(way)).total(What::Refused) <= counted + 5, "{way:?}");
            }
        }
        drop(counts);
        assert_eq!(open(&disk).total(What::Refused), 300);
        assert_eq!(read(&disk, dir()).unwrap(), open(&disk).lines());
    }

    /// A damaged slot costs its own count; years of hours stay in a small file.
    #[test]
    fn a_file_stays_small_and_readable() {
        let disk = SimDisk::new();
        let counts = open(&disk);
        for hour in 0..20_000 {
            counts.add(Hour(490_000 + hour), What::Refused, Transport::Grpc, "budget", 1);
        }
        assert_eq!(counts.total(What::Refused), 20_000);
        let bytes = disk.bytes(&dir().join(NAME)).unwrap().len();
        assert!(bytes <= (SLOTS_MAX + 1) * SLOT_BYTES, "{bytes}");
        drop(counts);
        let lines = open(&disk).lines();
        assert!(lines.len() <= HOURS_MAX as usize + 2, "{}", lines.len());
        disk.damage(&dir().join(NAME), |bytes| bytes[SLOT_BYTES + 9] ^= 1);
        assert_eq!(open(&disk).lines().len(), lines.len() - 1);
    }
}
