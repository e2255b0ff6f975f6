//! Reads the log in order: from memory where it can, from disk where it must.
//!
//! Promise: both give the same batches; a batch is given only when it is durable; the disk is never waited for on a runtime's
//! thread; memory is bounded by what was asked for and a few pieces of a file, which are read into again. A future that is
//! dropped loses nothing, and the work it had begun on a blocking thread is taken up by the next.
//! Not here: what is in memory (`tail.rs`), how damage is stepped over (`scan.rs`).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use emberd_model::{Batch, Offset};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::disk::{Access, Disk, File};
use crate::error::ReadError;
use crate::keeper::lock;
use crate::log::Reader;
use crate::scan::{HEADERS_BYTES, Step, Used, Walk, Window};
use crate::segment::segment_path;
use crate::shelf::{Located, Segment, Shelf};
use crate::tail::{ReaderId, Tail, Tip};

/// What is read from a file at once, at least and at most, unless a single batch is larger.
const PIECE_BYTES_MIN: usize = 64 << 10;
const PIECE_BYTES_MAX: usize = 4 << 20;

/// A place in a log on disk.
#[derive(Debug)]
pub(crate) struct DiskReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    shelf: Arc<Mutex<Shelf>>,
    tail: Arc<Tail>,
    /// As whom the tail knows it.
    id: ReaderId,
    tip: watch::Receiver<Tip>,
    position: Offset,
    /// Where the last piece ended, to go on from.
    place: Option<Open>,
    /// What followed the batches that were given last, to be given next.
    trouble: Option<ReadError>,
    under_way: Option<JoinHandle<Piece>>,
    /// Memory of what was read from disk; none while reading from memory.
    used: Used,
}

/// A place in an open file.
#[derive(Clone, Debug)]
struct Open {
    file: Arc<dyn File>,
    walk: Walk,
}

/// What was read at once: batches, and what came after them if that was no batch.
#[derive(Debug)]
struct Piece {
    segment: Segment,
    open: Option<Open>,
    batches: Vec<Batch>,
    trouble: Option<Trouble>,
    used: Used,
}

#[derive(Debug)]
enum Trouble {
    Damage { from: Offset, to: Offset },
    Disk(io::Error),
}

impl DiskReader {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        shelf: Arc<Mutex<Shelf>>,
        tail: Arc<Tail>,
        position: Offset,
    ) -> Self {
        let (id, tip) = (tail.enter(position), tail.follow());
        Self {
            disk,
            dir,
            shelf,
            tail,
            id,
            tip,
            position,
            place: None,
            trouble: None,
            under_way: None,
            used: Used::default(),
        }
    }

    async fn batches(&mut self, max_bytes: usize) -> Result<Vec<Batch>, ReadError> {
        loop {
            if let Some(trouble) = self.trouble.take() {
                return Err(self.told(trouble));
            }
            let tip = *self.tip.borrow_and_update();
            if self.position > tip.head {
                return Err(ReadError::Ahead { asked: self.position, head: tip.head });
            }
            if self.position == tip.head {
                // An error says that the log is gone, and with it whoever could append.
                if tip.sealed || self.tip.changed().await.is_err() {
                    return Ok(Vec::new());
                }
                continue;
            }
            if let Some(batches) = self.tail.read(self.position, max_bytes, tip.head) {
                self.under_way = None;
                self.used = Used::default();
                return Ok(self.given(batches));
            }
            if let Some(batches) = self.read_disk(max_bytes, tip.head).await? {
                return Ok(self.given(batches));
            }
        }
    }

    fn given(&mut self, batches: Vec<Batch>) -> Vec<Batch> {
        if let Some(last) = batches.last() {
            self.stand(last.end());
        }
        batches
    }

    fn told(&mut self, trouble: ReadError) -> ReadError {
        if let ReadError::Damaged { to, .. } = &trouble {
            self.stand(*to);
        }
        trouble
    }

    fn stand(&mut self, at: Offset) {
        self.position = at;
        self.tail.moved(&self.id, at);
    }

    /// The next batches on disk; none if what is there must be looked at again.
    async fn read_disk(&mut self, max_bytes: usize, head: Offset) -> Result<Option<Vec<Batch>>, ReadError> {
        let piece = match &mut self.under_way {
            Some(piece) => piece,
            None => {
                let located = lock(&self.shelf).locate(self.position);
                let segment = match located {
                    Located::In(segment) => segment,
                    Located::Gap { to } => return Err(self.told(ReadError::Damaged { from: self.position, to })),
                    Located::Gone { tail } => return Err(ReadError::Gone { asked: self.position, tail }),
                    // Everything below the head is in some segment, so the head has moved with the last one's going.
                    Located::Ahead => return Err(ReadError::Gone { asked: self.position, tail: head }),
                };
                let reading = self.reading(segment, max_bytes);
                self.under_way.insert(tokio::task::spawn_blocking(reading))
            }
        };
        let read = piece.await;
        self.under_way = None;
        match read {
            Ok(piece) => self.took(piece),
            // The runtime is stopping, or the read panicked: what is wanted will not come.
            Err(stopped) => Err(ReadError::Disk {
                segment: lock(&self.shelf).newest(),
                from: self.position,
                to: self.position,
                source: Arc::new(io::Error::other(stopped)),
            }),
        }
    }

    /// The work of reading a piece of a segment, for a thread that may block.
    fn reading(&mut self, segment: Segment, max_bytes: usize) -> impl FnOnce() -> Piece + Send + 'static {
        let position = self.position;
        let open = self.place.take().filter(|open| {
            let walk = &open.walk;
            walk.segment() == segment.id && walk.position() == position
        });
        let (disk, path) = (Arc::clone(&self.disk), segment_path(&self.dir, segment.id));
        let used = std::mem::take(&mut self.used);
        move || {
            let mut piece = Piece { segment, open, batches: Vec::new(), trouble: None, used };
            let opened = match piece.open.take() {
                Some(open) => Ok(open),
                None => open_at(&*disk, &path, &segment, position),
            };
            match opened {
                Ok(open) => piece.read(open, max_bytes),
                Err(e) => piece.trouble = Some(Trouble::Disk(e)),
            }
            piece
        }
    }

    fn took(&mut self, piece: Piece) -> Result<Option<Vec<Batch>>, ReadError> {
        let Piece { segment, open, batches, trouble, used } = piece;
        self.used = used;
        if batches.last().is_some_and(|last| last.end() <= self.position) {
            return Ok(None);
        }
        // A segment that went while it was read may hold anything by now; what was read of it before is sound.
        let (there, tail) = {
            let shelf = lock(&self.shelf);
            (shelf.holds(segment.id), shelf.tail())
        };
        let trouble = trouble.map(|trouble| match trouble {
            _ if !there => ReadError::Gone { asked: self.position, tail: tail.unwrap_or(segment.end) },
            Trouble::Damage { from, to } => ReadError::Damaged { from, to },
            Trouble::Disk(source) => {
                let from = batches.last().map_or(self.position, Batch::end);
                ReadError::Disk { segment: segment.id, from, to: segment.end, source: Arc::new(source) }
            }
        });
        self.place = open;
        match (trouble, batches.is_empty()) {
            (Some(trouble), true) => Err(self.told(trouble)),
            (_, true) => Ok(None),
            // An error of the disk is met again by asking again; damage must be told, as the place is past it.
            (trouble, false) => {
                self.trouble = trouble.filter(|trouble| matches!(trouble, ReadError::Damaged { .. }));
                Ok(Some(batches))
            }
        }
    }
}

/// Opens a segment and finds the place of `position` in it.
fn open_at(disk: &dyn Disk, path: &std::path::Path, segment: &Segment, position: Offset) -> io::Result<Open> {
    let file: Arc<dyn File> = disk.open(path, Access::Read)?.into();
    let mut walk = Walk::new(segment.id, segment.salt, segment.base, position);
    walk.skip_commits(&mut Window::new(&*file, segment.file_bytes, HEADERS_BYTES), segment.end)?;
    Ok(Open { file, walk })
}

impl Piece {
    fn read(&mut self, mut open: Open, max_bytes: usize) {
        // A new window each time: what lies beyond the head may have been read while it was being written.
        let written = self.segment.written_bytes.saturating_sub(open.walk.at());
        let piece_bytes = max_bytes.min(usize::try_from(written).unwrap_or(max_bytes));
        let piece_bytes = piece_bytes.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        let mut window = Window::new(&*open.file, self.segment.file_bytes, piece_bytes);
        window = window.reusing(std::mem::take(&mut self.used));
        let mut bytes = 0;
        // What does not lie in this piece of the file any more begins the next.
        while self.batches.is_empty() || open.walk.is_at_hand(&window) {
            match open.walk.step(&mut window, self.segment.end) {
                Ok(Step::Batch(batch)) => {
                    bytes += batch.body.len();
                    self.batches.push(batch);
                    if bytes >= max_bytes {
                        break;
                    }
                }
                Ok(Step::Damage { from, to, .. }) => {
                    self.trouble = Some(Trouble::Damage { from, to });
                    break;
                }
                Ok(Step::End) => break,
                Err(e) => {
                    self.trouble = Some(Trouble::Disk(e));
                    break;
                }
            }
        }
        self.used = window.into_used();
        self.open = Some(open);
    }
}

impl Drop for DiskReader {
    fn drop(&mut self) {
        self.tail.leave(&self.id);
    }
}

impl Reader for DiskReader {
    fn position(&self) -> Offset {
        self.position
    }

    fn seek(&mut self, to: Offset) {
        self.stand(to);
        self.trouble = None;
        self.under_way = None;
        self.place = None;
    }

    fn next(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<Batch>, ReadError>> {
        Box::pin(self.batches(max_bytes))
    }
}

#[cfg(test)]
mod tests;
