//! What commands read beside a daemon that may be running: its books, its log, its quarantine. Nothing here changes anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use emberd_consumers::{archiver, book, recorder};
use emberd_intake::turned_away;
use emberd_log::RealDisk;
use emberd_log::disk::Disk;
use emberd_model::ledger::Book;
use emberd_store::Store;
use indicatif::ProgressBar;

use super::{Where, bars};
use crate::config::Config;
use crate::wiring::known_log_name;

/// A consumer's book, and when it moved where that is kept.
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) book: Book,
    pub(super) stored: Option<book::Stored>,
}

/// Where everything is.
pub(super) struct Place {
    pub(super) config: Config,
    pub(super) disk: Arc<dyn Disk>,
}

impl Place {
    /// Where the command line says, whether an emberd ever ran there or not.
    pub(super) fn new(place: &Where) -> Result<Self, ExitCode> {
        Ok(Self { config: place.load()?, disk: Arc::new(RealDisk) })
    }

    /// Where the command line says; an exit code, once what is wrong was said.
    pub(super) fn open(place: &Where) -> Result<Self, ExitCode> {
        let place = Self::new(place)?;
        if place.log_dir().is_dir() {
            return Ok(place);
        }
        eprintln!("no emberd ever ran in {}: name another with --data-dir", place.config.data_dir.display());
        Err(ExitCode::FAILURE)
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.config.data_dir.join("log")
    }

    pub(super) fn quarantine_dir(&self) -> PathBuf {
        self.config.data_dir.join("quarantine")
    }

    /// The books of all consumers that ever began. Those in files first: the log grows meanwhile, and never the other way round.
    pub(super) async fn books(&self, store: &Store) -> anyhow::Result<Vec<Kept>> {
        let mut books = Vec::new();
        let archive = self.config.archive.enabled.then(|| archiver::NAME.to_owned());
        for name in self.config.targets()?.into_iter().map(|target| target.name).chain(archive) {
            let stored = book::read(self.disk.clone(), &self.config.data_dir.join("cursors"), &name)
                .with_context(|| format!("cannot read the book of {name}"))?;
            if let Some(stored) = stored {
                books.push(Kept { name, book: stored.book.clone(), stored: Some(stored) });
            }
        }
        if self.config.recorder.enabled {
            let writer = known_log_name(&self.log_dir())?;
            let book = store.book(recorder::NAME, &writer).await.context("cannot read the recorder's book")?;
            books.extend(book.map(|book| Kept { name: recorder::NAME.to_owned(), book, stored: None }));
        }
        Ok(books)
    }

    /// The database, for reading.
    pub(super) async fn store(&self) -> anyhow::Result<Store> {
        let store = Store::connect(self.config.store.room(&self.config.data_dir)).await?;
        if self.config.rolled_back {
            // There is nothing in it to be read, and nobody who asks: the recorder rests.
            return Ok(store);
        }
        store
            .check_schema()
            .await
            .context("the database's tables are not this emberd's: see `emberd migrate status`")?;
        Ok(store)
    }

    pub(super) fn turned_away(&self) -> anyhow::Result<BTreeMap<turned_away::Line, u64>> {
        turned_away::read(&*self.disk, &self.config.data_dir.join("ledger")).context("cannot read what was turned away")
    }
}

/// A bar over the log's segments, where someone looks.
pub(super) fn bar(segments: u64, what: &'static str) -> ProgressBar {
    let bar = bars::bar("{msg} [{bar:30}] {pos}/{len} segments, {eta} left", what, false);
    bar.set_length(segments);
    bar
}
