//! An appender that does what a test tells it: keeps, holds back, or refuses.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use emberd_log::{AppendError, Appender, Appending, Entry};
use emberd_model::Offset;
use tokio::sync::{Notify, watch};

pub(crate) struct Shelf {
    entries: Mutex<Vec<Entry>>,
    refuses: Mutex<Option<AppendError>>,
    open: watch::Sender<bool>,
    came: Notify,
    held_bytes: AtomicUsize,
    held_bytes_max: AtomicUsize,
    has_let_go: AtomicBool,
}

impl Shelf {
    /// Keeps what comes at once.
    pub(crate) fn open() -> Arc<Self> {
        Self::new(true)
    }

    /// Takes what comes, but says nothing until [`Shelf::let_go`].
    pub(crate) fn closed() -> Arc<Self> {
        Self::new(false)
    }

    fn new(open: bool) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            refuses: Mutex::default(),
            open: watch::Sender::new(open),
            came: Notify::new(),
            held_bytes: AtomicUsize::new(0),
            held_bytes_max: AtomicUsize::new(0),
            has_let_go: AtomicBool::new(open),
        })
    }

    /// All appends fail so from now on; none: they are kept.
    pub(crate) fn refuse(&self, error: Option<AppendError>) {
        *self.refuses.lock().unwrap() = error;
    }

    /// Everything held back becomes durable now.
    pub(crate) fn let_go(&self) {
        self.has_let_go.store(true, Ordering::SeqCst);
        self.open.send_replace(true);
    }

    pub(crate) fn has_let_go(&self) -> bool {
        self.has_let_go.load(Ordering::SeqCst)
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    /// Hands over what was kept.
    pub(crate) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.entries.lock().unwrap())
    }

    pub(crate) fn spans(&self) -> u64 {
        self.entries().iter().map(|entry| u64::from(entry.spans.get())).sum()
    }

    /// The most bytes that it was given and had not decided on.
    pub(crate) fn held_bytes_max(&self) -> usize {
        self.held_bytes_max.load(Ordering::SeqCst)
    }

    /// Waits until `count` batches have come.
    pub(crate) async fn came(&self, count: usize) {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if self.entries.lock().unwrap().len() >= count {
                return;
            }
            came.await;
        }
    }
}

impl Appender for Shelf {
    fn append(&self, entry: Entry) -> Appending {
        if let Some(error) = self.refuses.lock().unwrap().clone() {
            return Box::pin(async move { Err(error) });
        }
        let bytes = entry.body.len();
        let held = self.held_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.held_bytes_max.fetch_max(held, Ordering::SeqCst);
        let offset = {
            let mut entries = self.entries.lock().unwrap();
            let offset = entries.iter().map(|entry| u64::from(entry.spans.get())).sum();
            entries.push(entry);
            Offset(offset)
        };
        self.came.notify_waiters();
        let mut open = self.open.subscribe();
        Box::pin(async move {
            open.wait_for(|open| *open).await.map_err(|_| AppendError::Stopping)?;
            Ok(offset)
        })
    }
}
