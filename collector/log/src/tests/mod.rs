//! The promises of this crate, tested where they meet: writer, keeper, recovery and walk together, on a simulated disk and on
//! one thread, so that every state can be had again.

mod crash;
mod damage;
mod faults;
mod format;
mod incidents;
mod retention;
mod slow;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use emberd_model::clock::Still;
use emberd_model::{Batch, Flags, Offset, UnixNanos};

use crate::config::Durability;
use crate::disk::{Access, Disk};
use crate::engine::Engine;
use crate::error::{AppendError, OpenError};
use crate::keeper::{Bounds, Keeper, lock};
use crate::log::Entry;
use crate::recovery::{Recovery, recover};
use crate::scan::{CHUNK_BYTES, Step, Walk, Window};
use crate::segment::segment_path;
use crate::shelf::Shelf;
use crate::sim::SimDisk;
use crate::tail::Tail;
use crate::writer::Queued;

/// Numbers that look random, the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Runs on every core until it says that it is enough.
pub(crate) fn on_all_cores(work: impl Fn() -> bool + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| while work() {});
        }
    });
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Says what a test measured, past the test runner, for the page of figures.
pub(crate) fn figure(id: &str, began: Instant, said: &str) {
    let (cores, seconds) = (cores(), began.elapsed().as_secs_f64());
    let _ = writeln!(std::io::stderr(), "figure {id} {{{said},\"cores\":{cores},\"seconds\":{seconds:.1}}}");
}

/// A batch's entry whose every byte follows from `n`.
pub(crate) fn entry(n: u64, body_bytes: usize) -> Entry {
    let mut dice = Dice(n);
    Entry {
        spans: u32::try_from(1 + n % 5).unwrap().try_into().unwrap(),
        received_at: UnixNanos(1_000 + n),
        key: n as u16,
        flags: if n.is_multiple_of(3) { Flags::MEND } else { Flags(0) },
        body: (0..body_bytes).map(|_| dice.roll(256) as u8).collect(),
    }
}

/// The batch that an entry becomes at an offset.
pub(crate) fn batch(entry: &Entry, offset: Offset) -> Batch {
    Batch {
        offset,
        spans: entry.spans.get(),
        received_at: entry.received_at,
        key: entry.key,
        flags: entry.flags,
        body: entry.body.clone(),
    }
}

pub(crate) fn dir() -> &'static Path {
    Path::new("/log")
}

/// The bounds of a small log: eight segments of 32 KiB, nothing kept longer than needed.
pub(crate) fn small() -> Bounds {
    Bounds {
        dir: dir().to_owned(),
        budget_bytes: 256 << 10,
        segment_bytes: 32 << 10,
        keep: Duration::ZERO,
        durability: Durability::Sync,
        retry: Duration::ZERO,
    }
}

/// A log without threads.
pub(crate) struct Driven {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<Still>,
    /// How long the log has been open.
    pub(crate) elapsed: Duration,
    pub(crate) report: Recovery,
}

/// What is read from a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Batch(Batch),
    Lost { from: Offset, to: Offset },
}

impl Driven {
    pub(crate) fn open(disk: &SimDisk, bounds: Bounds) -> Result<Self, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let clock = Arc::new(Still::at(UnixNanos(1)));
        let found = recover(&disk, &bounds.dir, bounds.segment_bytes, bounds.durability, UnixNanos(1))?;
        let shelf = Arc::new(Mutex::new(found.shelf));
        let stop = Arc::new(AtomicBool::new(false));
        // Salts differ between segments, and follow from the order in which they are made.
        let mut salt = found.next_id.0 << 8;
        let mut keeper = Keeper::new(Arc::clone(&disk), bounds, Arc::clone(&shelf), found.spares, found.next_id, stop);
        keeper.adopt(found.next);
        let engine = Engine {
            writer: found.writer,
            keeper: Arc::new(Mutex::new(keeper)),
            shelf,
            tail: Arc::new(Tail::new(found.report.head, 0)),
            clock: clock.clone(),
            salts: Box::new(move || {
                salt += 1;
                salt
            }),
            failure: None,
        };
        Ok(Self { disk, engine, clock, elapsed: Duration::ZERO, report: found.report })
    }

    pub(crate) fn append(&mut self, entries: &[Entry]) -> Vec<Result<Offset, AppendError>> {
        let queued = |entry: &Entry| Queued { crc: crate::format::body_crc(&entry.body), entry: entry.clone() };
        let queued: Vec<Queued> = entries.iter().map(queued).collect();
        self.engine.commit(&queued)
    }

    /// What the keeping thread does in its round.
    pub(crate) fn tidy(&mut self) {
        let mut keeper = lock(&self.engine.keeper);
        while keeper.tidy(self.elapsed) {}
        let attempt = keeper.stock();
        let _ = keeper.stocked(attempt);
    }

    pub(crate) fn passed(&mut self, consumer: &str, cursor: Offset) {
        lock(&self.engine.shelf).passed(consumer, cursor, self.elapsed);
    }

    pub(crate) fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        lock(&self.engine.shelf)
    }

    pub(crate) fn head(&self) -> Offset {
        self.engine.writer.head()
    }

    /// All that the log holds, as a reader without memory would find it.
    pub(crate) fn read(&self) -> Vec<Read> {
        let mut all = Vec::new();
        let segments = self.shelf().segments();
        let mut expected = segments.first().map_or(Offset(0), |first| first.base);
        for segment in segments {
            if segment.base > expected {
                all.push(Read::Lost { from: expected, to: segment.base });
            }
            let file = self.disk.open(&segment_path(dir(), segment.id), Access::Read).unwrap();
            let mut window = Window::new(&*file, segment.file_bytes, CHUNK_BYTES);
            let mut walk = Walk::new(segment.id, segment.salt, segment.base, segment.base);
            loop {
                match walk.step(&mut window, segment.end).unwrap() {
                    Step::Batch(batch) => all.push(Read::Batch(batch)),
                    Step::Damage { from, to, .. } => all.push(Read::Lost { from, to }),
                    Step::End => break,
                }
            }
            expected = segment.end;
        }
        all
    }

    /// All batches, where nothing may be lost.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        let sound = |read| match read {
            Read::Batch(batch) => batch,
            Read::Lost { from, to } => panic!("spans {from} to {to} are lost"),
        };
        self.read().into_iter().map(sound).collect()
    }
}

/// The files of a log, newest last.
pub(crate) fn segment_files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect()
}

/// The segment file that holds the newest batches.
pub(crate) fn newest_file(log: &Driven) -> PathBuf {
    segment_path(dir(), log.engine.writer.active().unwrap().id)
}

/// A log on its disk, with batches of these sizes in groups of these lengths, and what was acked.
pub(crate) fn filled(groups: &[&[usize]]) -> (SimDisk, Vec<Batch>) {
    filled_within(small(), groups)
}

pub(crate) fn filled_within(bounds: Bounds, groups: &[&[usize]]) -> (SimDisk, Vec<Batch>) {
    let disk = SimDisk::new();
    let mut log = Driven::open(&disk, bounds).unwrap();
    let mut acked = Vec::new();
    let mut n = 0;
    for group in groups {
        let entries: Vec<Entry> = group.iter().map(|bytes| (n += 1, entry(n, *bytes)).1).collect();
        for (entry, offset) in entries.iter().zip(log.append(&entries)) {
            acked.push(batch(entry, offset.unwrap()));
        }
    }
    (disk, acked)
}

#[test]
fn a_log_gives_back_what_was_acked_in_order() {
    let (disk, acked) = filled(&[&[10, 20, 5_000], &[0], &[30_000], &[1, 2, 3, 4], &[40_000, 8], &[100]]);
    let log = Driven::open(&disk, small()).unwrap();
    assert_eq!(log.batches(), acked);
    assert_eq!(log.report.head, acked.last().unwrap().end());
    assert_eq!((log.report.torn_bytes, log.report.damaged.len(), log.report.unknown.len()), (0, 0, 0));
    let again = Driven::open(&disk, small()).unwrap();
    assert_eq!((again.report.head, again.report.tail), (log.report.head, log.report.tail));
}
