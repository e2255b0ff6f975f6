//! Where files lie, which of them count, and what is done with them later.
//!
//! Promise: what [`Archive::commit`] was asked is either in the manifest, with the cursor and the book, or not at all, whichever
//! call or answer was lost and whenever the process died; of two writers of one log, the older one is told and changes nothing.
//! On disk:  `date=YYYY-MM-DD/LOG-FROM-TO-SEQ-PART.parquet`, and `_manifest/LOG/SEQ.json`, whose putting is the commit
//! ([`manifest`]). A name is never used for other bytes.
//! Not here: what is in a file (`rows`), when any of this is done (`emberd-consumers`).
//! Kept by:  `tests::model` (a fault at every single call), `tests::s3` (a real server, killed), `tests::format`
//! (the bytes of version 1).
//!
//! - [`place`]: what a place can do; a [`Directory`], an [`S3`] bucket. [`name`]: how files are called.
//! - [`manifest`]: an entry as bytes. [`state`]: what entries add up to. [`archive`]: the one writer of a log.
//! - Of the writer: `compaction`, `retention`, `rewriting`. For everyone: [`catalogue`], [`verification`].
//!
//! Why it is so: `docs/decisions/0016-archive-manifest.md`.

pub mod archive;
pub mod catalogue;
mod compaction;
mod directory;
pub mod error;
#[doc(hidden)]
pub mod inside;
pub mod manifest;
pub mod name;
pub mod place;
mod retention;
mod rewriting;
mod s3;
pub mod state;
pub mod verification;

pub use archive::Archive;
pub use catalogue::{Catalogue, Kept, read_file};
pub use compaction::{Compacted, Compaction};
pub use directory::Directory;
pub use error::Error;
pub use manifest::File;
pub use place::{Place, PlaceError};
pub use retention::{Dropped, Retention};
pub use rewriting::{Rewritten, Totals};
pub use s3::{S3, S3Settings};
pub use verification::{Report, Trouble, verify};

#[cfg(test)]
mod tests;
