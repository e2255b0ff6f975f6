//! A log that is played, and a run of a forwarder on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use emberd_log::{ReadError, Reader, RealDisk};
use emberd_model::clock::Still;
use emberd_model::{Batch, Flags, Offset, UnixNanos};
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{request, span};
use crate::Progress;
use crate::book;
use crate::forwarder::{Config, Files, Forwarder};
use crate::quarantine::{Item, Quarantine};

/// Gives what it was told to give, then says that the log is sealed, or waits for ever.
pub(super) struct Played {
    pub(super) position: Offset,
    pub(super) script: VecDeque<Result<Vec<Batch>, ReadError>>,
    pub(super) sealed: bool,
}

impl Reader for Played {
    fn position(&self) -> Offset {
        self.position
    }

    fn seek(&mut self, to: Offset) {
        self.position = to;
        // What lies behind is not given again.
        for read in self.script.iter_mut().flatten() {
            read.retain(|batch| batch.end() > to);
        }
        self.script.retain(|read| !matches!(read, Ok(batches) if batches.is_empty()));
    }

    fn next(&mut self, _bytes_max: usize) -> BoxFuture<'_, Result<Vec<Batch>, ReadError>> {
        Box::pin(async move {
            if self.script.is_empty() && !self.sealed {
                std::future::pending::<()>().await;
            }
            let read = self.script.pop_front().unwrap_or(Ok(Vec::new()));
            match &read {
                Ok(batches) => self.position = batches.last().map_or(self.position, Batch::end),
                Err(ReadError::Damaged { to, .. }) => self.position = *to,
                Err(_) => {}
            }
            read
        })
    }
}

/// A batch of the spans numbered `first` and on, at the offset `first`.
pub(super) fn batch(first: u64, spans: u32) -> Batch {
    Batch {
        offset: Offset(first),
        spans,
        received_at: UnixNanos(1),
        key: 0,
        flags: Flags::default(),
        body: request((first..first + u64::from(spans)).map(span).collect()),
    }
}

/// Batches of these sizes, one after the other, each given alone.
pub(super) fn batches(sizes: impl IntoIterator<Item = u32>) -> VecDeque<Result<Vec<Batch>, ReadError>> {
    let mut first = 0;
    let mut next = |size| {
        let made = batch(first, size);
        first += u64::from(size);
        Ok(vec![made])
    };
    sizes.into_iter().map(&mut next).collect()
}

/// A place for the forwarder's files, which outlives it.
pub(super) struct Place {
    dir: TempDir,
    pub(super) name: String,
}

/// A forwarder that runs.
pub(super) struct Running {
    pub(super) progress: Arc<Progress>,
    pub(super) stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), name: "sink".to_owned() }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(super) fn cursor(&self) -> Option<Offset> {
        let stored = book::read(Arc::new(RealDisk), self.dir.path(), &self.name).unwrap()?;
        assert!(stored.book.is_balanced(), "{:?}", stored.book);
        // A book is made with the forwarder; it says something once the cursor moves.
        (stored.book.cursor() > Offset(0)).then(|| stored.book.cursor())
    }

    pub(super) fn quarantine(&self) -> Vec<Item> {
        Quarantine::open(&self.dir.path().join("quarantine")).unwrap().list(None).unwrap()
    }

    /// Starts a forwarder on a played log.
    pub(super) fn start(&self, config: Config, reader: Played) -> Running {
        let progress = Arc::new(Progress::forwarding(&self.name, true));
        let forwarder = Forwarder::new(
            config,
            Box::new(reader),
            Files {
                disk: Arc::new(RealDisk),
                dir: self.dir.path().to_owned(),
                quarantine: Quarantine::open(&self.dir.path().join("quarantine")).unwrap(),
            },
            Arc::new(Still::at(UnixNanos(1_795_219_200_000_000_000))),
            progress.clone(),
            |_| (),
            |_| 0.0,
        )
        .unwrap();
        let stop = CancellationToken::new();
        #[allow(clippy::disallowed_methods, reason = "the test owns the task, and waits for it")]
        let task = tokio::spawn(forwarder.run(stop.clone()));
        Running { progress, stop, task }
    }

    /// Forwards what the log holds, to its end.
    pub(super) async fn forward(
        &self,
        config: Config,
        script: VecDeque<Result<Vec<Batch>, ReadError>>,
    ) -> Arc<Progress> {
        let running = self.start(config, Played { position: Offset(0), script, sealed: true });
        let progress = running.progress.clone();
        running.ended().await;
        progress
    }
}

impl Running {
    /// Waits until it has ended by itself, or as it was told to.
    pub(super) async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(60), self.task).await.expect("the forwarder does not end").unwrap();
    }
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
