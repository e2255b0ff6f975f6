//! The log in a directory: its threads, and what other rooms hold of it.
//!
//! Promise: one thread writes, in the order of the appends; another prepares and removes files; both end with the log. A
//! second process cannot open the same directory. The first write or sync that fails is the last: it is told to every append,
//! and to whoever waits on [`DiskLog::failed`].
//! Not here: each step by itself (`engine.rs`, `keeper.rs`, `recovery.rs`, `reader.rs`).

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use emberd_model::{Clock, Offset};
use futures_util::future;

use crate::config::Config;
use crate::disk::{Disk, Lock};
use crate::engine::Engine;
use crate::error::{AppendError, OpenError};
use crate::format::{self, BLOCK};
use crate::keeper::{Bounds, Keeper, lock};
use crate::log::{Appender, Appending, Entry, Log, Reader, Usage};
use crate::queue::{Queue, Taken};
use crate::reader::DiskReader;
use crate::recovery::{Recovery, recover};
use crate::segment::LOCK_NAME;
use crate::shelf::Shelf;
use crate::tail::Tail;
use crate::writer::{Queued, bytes_alone};

/// The smallest segment: a header, and some commits.
const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK;
/// A budget holds at least so many segments, so that passed ones can make room for the next.
const SEGMENTS_MIN: u64 = 4;
/// The largest body the format could take is 4 GiB; nobody should come near.
const ENTRY_BYTES_MAX: u64 = 1 << 30;
/// When nothing comes for so long, the writer notes on disk that all so far is durable.
const QUIET: Duration = Duration::from_millis(50);
/// How often passed segments are looked at, and a full disk.
const ROUND: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(2);

/// A log of segments in one directory.
pub struct DiskLog {
    dir: PathBuf,
    budget_bytes: u64,
    entry_bytes_max: u64,
    disk: Arc<dyn Disk>,
    /// What a segment's age is counted by: the clock may jump, and nothing must go early for that.
    opened_at: Instant,
    shelf: Arc<Mutex<Shelf>>,
    tail: Arc<Tail>,
    queue: Arc<Queue>,
    bell: Arc<Bell>,
    stop_filling: Arc<AtomicBool>,
    /// The last append was refused for want of room, and there is still none.
    refusing: Arc<AtomicBool>,
    failure: Arc<OnceLock<AppendError>>,
    at_work: Arc<AtWork>,
    writer: Mutex<Option<JoinHandle<()>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    // Given back last: fields are dropped in this order, after the threads were joined.
    _lock: Lock,
}

impl fmt::Debug for DiskLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskLog").field("dir", &self.dir).field("tip", &self.tail.tip()).finish_non_exhaustive()
    }
}

impl DiskLog {
    /// Opens the log, recovering what a crash left, and starts its two threads. Blocks on the disk.
    ///
    /// Register every consumer right after, before the first append: with no consumer known, nothing is ever removed.
    pub fn open(
        config: Config,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, Recovery), OpenError> {
        let bounds = bounds(&config)?;
        let dir = config.dir.clone();
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Disk { action, path, source }
        };
        disk.create_dir(&dir).map_err(failed("make", &dir))?;
        let lock_path = dir.join(LOCK_NAME);
        let held = disk.lock(&lock_path).map_err(failed("lock", &lock_path))?;
        let held = held.ok_or_else(|| OpenError::Locked { dir: dir.clone() })?;
        let found = recover(&disk, &dir, bounds.segment_bytes, config.durability, clock.now())?;

        let head = found.report.head;
        let shelf = Arc::new(Mutex::new(found.shelf));
        let tail = Arc::new(Tail::new(head, config.tail_bytes));
        let stop_filling = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stop_filling);
        let mut keeper = Keeper::new(Arc::clone(&disk), bounds, Arc::clone(&shelf), found.spares, found.next_id, stop);
        keeper.adopt(found.next);
        let keeper = Arc::new(Mutex::new(keeper));
        let engine = Engine {
            writer: found.writer,
            keeper: Arc::clone(&keeper),
            shelf: Arc::clone(&shelf),
            tail: Arc::clone(&tail),
            clock,
            salts: Box::new(random),
            failure: None,
        };
        let log = Arc::new(Self {
            dir: dir.clone(),
            budget_bytes: config.budget_bytes,
            entry_bytes_max: (config.entry_bytes_max as u64)
                .min(ENTRY_BYTES_MAX)
                .min(entry_bytes_max(config.budget_bytes)),
            disk,
            opened_at: Instant::now(),
            shelf,
            tail,
            queue: Arc::new(Queue::new(config.queue_bytes)),
            bell: Arc::new(Bell::default()),
            stop_filling,
            refusing: Arc::default(),
            failure: Arc::new(OnceLock::new()),
            at_work: Arc::default(),
            writer: Mutex::new(None),
            keeper: Mutex::new(None),
            _lock: held,
        });
        // Should the second not start, dropping the log ends the first.
        log.start(engine, keeper).map_err(failed("start a thread for", &dir))?;
        Ok((log, found.report))
    }

    fn start(&self, engine: Engine, keeper: Arc<Mutex<Keeper>>) -> io::Result<()> {
        let (queue, tail) = (Arc::clone(&self.queue), Arc::clone(&self.tail));
        let (failure, bell) = (Arc::clone(&self.failure), Arc::clone(&self.bell));
        let refusing = Arc::clone(&self.refusing);
        let at_work = Arc::clone(&self.at_work);
        let write = move || write(engine, &queue, &tail, &failure, &bell, &refusing, &at_work);
        *lock(&self.writer) = Some(thread::Builder::new().name("log-writer".into()).spawn(write)?);
        let (bell, opened_at) = (Arc::clone(&self.bell), self.opened_at);
        let refusing = Arc::clone(&self.refusing);
        let keep = move || keep(&keeper, &bell, opened_at, &refusing);
        *lock(&self.keeper) = Some(thread::Builder::new().name("log-keeper".into()).spawn(keep)?);
        Ok(())
    }

    /// Declares a consumer and where it stands. What it has not passed stays.
    pub fn register(&self, consumer: &str, cursor: Offset) {
        self.passed(consumer, cursor);
    }

    /// Waits for a consumer no more: what the others have passed may go. Without any left, nothing goes.
    pub fn forget(&self, consumer: &str) {
        if lock(&self.shelf).forget(consumer, self.opened_at.elapsed()) {
            self.bell.ring();
        }
    }

    /// Takes no more appends, waits for those inside, and notes on disk that all of it was durable. Readers then come to an
    /// end. Can be called again.
    pub async fn seal(&self) {
        self.queue.close(AppendError::Stopping);
        // The sender lives in this log, so waiting cannot fail.
        let _ = self.tail.follow().wait_for(|tip| tip.sealed).await;
        // It sealed as the last thing that it does.
        join(&self.writer);
    }

    /// Bytes of appends that were let in and are not answered yet.
    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.queue.waiting_bytes()
    }

    /// Whether a write or sync failed; then nothing more is taken and the process must end.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Whether appends are refused just now for want of room: the budget, or the disk, is full.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Relaxed)
    }

    /// How long the writer has been at the write or sync that it is at; zero while it waits for appends, and once the log is sealed.
    #[must_use]
    pub fn at_work_for(&self) -> Duration {
        self.at_work.since()
    }

    /// Resolves when a write or sync has failed, with what the appends were told.
    pub async fn failed(&self) -> AppendError {
        let _ = self.tail.follow().wait_for(|tip| tip.failed).await;
        match self.failure.get() {
            Some(failure) => failure.clone(),
            None => future::pending().await,
        }
    }
}

/// The bounds that follow from the configuration.
fn bounds(config: &Config) -> Result<Bounds, OpenError> {
    let min_bytes = SEGMENTS_MIN * SEGMENT_BYTES_MIN;
    if config.budget_bytes < min_bytes {
        return Err(OpenError::BudgetTooSmall { budget_bytes: config.budget_bytes, min_bytes });
    }
    let segment_bytes = config.segment_bytes.clamp(SEGMENT_BYTES_MIN, config.budget_bytes / SEGMENTS_MIN);
    Ok(Bounds {
        dir: config.dir.clone(),
        budget_bytes: config.budget_bytes,
        segment_bytes: segment_bytes / BLOCK * BLOCK,
        keep: config.keep,
        durability: config.durability,
        retry: RETRY,
    })
}

/// The largest body for which a budget always has room, once consumers have passed what is there.
fn entry_bytes_max(budget_bytes: u64) -> u64 {
    (budget_bytes / 2).saturating_sub(bytes_alone(0))
}

/// Enough to tell one life of a file from another, and not to be guessed by a client.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What the writing thread does.
fn write(
    mut engine: Engine,
    queue: &Queue,
    tail: &Tail,
    failure: &OnceLock<AppendError>,
    bell: &Bell,
    refusing: &AtomicBool,
    at_work: &AtWork,
) {
    // Whatever ends this thread, appends must not wait for it any more.
    let _sealing = Sealing { queue, tail };
    let mut marked = true;
    let mut segment = engine.writer.active().map(|active| active.id);
    loop {
        at_work.waits();
        let taken = queue.take((!marked).then_some(QUIET));
        at_work.begins();
        match taken {
            Taken::Group(group) => {
                let answers = engine.commit(group.entries());
                tell_failure(&engine, queue, tail, failure);
                refusing.store(matches!(answers.last(), Some(Err(AppendError::BudgetFull { .. }))), Relaxed);
                queue.answer(group, answers);
                marked = false;
            }
            Taken::Idle => {
                engine.mark(false);
                tell_failure(&engine, queue, tail, failure);
                marked = true;
            }
            Taken::Closed => break,
        }
        let now = engine.writer.active().map(|active| active.id);
        if now != segment {
            segment = now;
            bell.ring();
        }
    }
    engine.mark(true);
    tell_failure(&engine, queue, tail, failure);
    at_work.waits();
}

fn tell_failure(engine: &Engine, queue: &Queue, tail: &Tail, failure: &OnceLock<AppendError>) {
    if let Some(failed) = &engine.failure
        && failure.set(failed.clone()).is_ok()
    {
        tracing::error!(error = %failed, "the log's disk failed; nothing more is taken");
        queue.close(failed.clone());
        tail.fail();
    }
}

/// When the writer began what it is at, for whoever watches over it.
#[derive(Debug)]
struct AtWork {
    opened_at: Instant,
    /// In microseconds since then, and one more; 0: it waits.
    began: AtomicU64,
}

impl Default for AtWork {
    fn default() -> Self {
        Self { opened_at: Instant::now(), began: AtomicU64::new(0) }
    }
}

impl AtWork {
    fn now(&self) -> u64 {
        u64::try_from(self.opened_at.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn begins(&self) {
        self.began.store(self.now() + 1, Relaxed);
    }

    fn waits(&self) {
        self.began.store(0, Relaxed);
    }

    fn since(&self) -> Duration {
        let began = self.began.load(Relaxed);
        Duration::from_micros(if began == 0 { 0 } else { (self.now() + 1).saturating_sub(began) })
    }
}

struct Sealing<'a> {
    queue: &'a Queue,
    tail: &'a Tail,
}

impl Drop for Sealing<'_> {
    fn drop(&mut self) {
        self.queue.close(AppendError::Stopping);
        self.tail.seal();
    }
}

/// What the keeping thread does.
fn keep(keeper: &Mutex<Keeper>, bell: &Bell, opened_at: Instant, refusing: &AtomicBool) {
    let mut full = false;
    loop {
        // The lock is given back in between: the writer may be waiting for a segment.
        while lock(keeper).tidy(opened_at.elapsed()) {}
        {
            let mut keeper = lock(keeper);
            if !keeper.resting() {
                let attempt = keeper.stock();
                match keeper.stocked(attempt) {
                    // The writer meets it too when it needs a segment, and then it is the end; until then it may pass.
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                        tracing::warn!(%error, "no next segment could be prepared");
                    }
                    _ => {}
                }
                match (keeper.resting(), full) {
                    (true, false) => tracing::warn!("the disk has no room for another segment"),
                    (false, true) => tracing::info!("the disk has room for another segment again"),
                    _ => {}
                }
                full = keeper.resting();
            }
            // Nobody may be sending any more, having been told to come again: the keeper finds out that there is room.
            if keeper.has_room() {
                refusing.store(false, Relaxed);
            }
        }
        if bell.wait(ROUND) {
            return;
        }
    }
}

/// Wakes the keeping thread, or ends it.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    rung: bool,
    stop: bool,
}

impl Bell {
    fn ring(&self) {
        lock(&self.state).rung = true;
        self.changed.notify_one();
    }

    fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_one();
    }

    /// Waits for the bell or the time; says whether to stop.
    fn wait(&self, at_most: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(lock(&self.state), at_most, |state| !state.rung && !state.stop);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.rung = false;
        state.stop
    }
}

fn join(thread: &Mutex<Option<JoinHandle<()>>>) {
    if let Some(thread) = lock(thread).take()
        && thread.join().is_err()
    {
        tracing::error!("a thread of the log panicked");
    }
}

impl Drop for DiskLog {
    fn drop(&mut self) {
        self.queue.close(AppendError::Stopping);
        join(&self.writer);
        self.stop_filling.store(true, std::sync::atomic::Ordering::Relaxed);
        self.bell.stop();
        join(&self.keeper);
    }
}

impl Appender for DiskLog {
    fn append(&self, entry: Entry) -> Appending {
        let bytes = entry.body.len() as u64;
        if bytes > self.entry_bytes_max {
            let max_bytes = self.entry_bytes_max;
            return Box::pin(future::ready(Err(AppendError::TooLarge { bytes, max_bytes })));
        }
        let queued = Queued { crc: format::body_crc(&entry.body), entry };
        match self.queue.try_push(queued) {
            Ok(Ok(pending)) => Box::pin(pending),
            Ok(Err(refused)) => Box::pin(future::ready(Err(refused))),
            Err(queued) => {
                let queue = Arc::clone(&self.queue);
                Box::pin(async move { queue.push_when_room(queued).await?.await })
            }
        }
    }
}

impl Log for DiskLog {
    fn reader(&self, from: Offset) -> Box<dyn Reader> {
        let (shelf, tail) = (Arc::clone(&self.shelf), Arc::clone(&self.tail));
        Box::new(DiskReader::new(Arc::clone(&self.disk), self.dir.clone(), shelf, tail, from))
    }

    fn head(&self) -> Offset {
        self.tail.tip().head
    }

    fn tail(&self) -> Offset {
        let tail = lock(&self.shelf).tail();
        tail.unwrap_or_else(|| self.head())
    }

    fn used(&self) -> Usage {
        lock(&self.shelf).usage(self.budget_bytes)
    }

    fn passed(&self, consumer: &str, cursor: Offset) {
        // Nobody can have passed what was never here; a cursor from another log must not let go what is still to come.
        let cursor = cursor.min(self.head());
        if lock(&self.shelf).passed(consumer, cursor, self.opened_at.elapsed()) {
            self.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests;
