//! Why the archive did not do what it was asked, and what to do about it.

use super::place::{BoxError, PlaceError};

/// Why the archive did not do what it was asked. Any of these may be tried again, after what its text says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place did not do it.
    #[error("the archive's place: {0}")]
    Place(#[from] PlaceError),
    /// A log's name that cannot stand in a file's name.
    #[error("{log:?} is no name of a log: up to 64 lower-case letters and digits")]
    Log {
        /// The name.
        log: String,
    },
    /// The manifest cannot be read: an entry is damaged, or missing.
    #[error(
        "{name} of the archive's manifest: {what}. Put it back from a backup; while the log holds the spans, removing it and all later entries lets them be archived again"
    )]
    Damaged {
        /// The entry.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The manifest was written by a later emberd.
    #[error(
        "{name} of the archive's manifest has version {version}, and this emberd knows version 1: use the emberd that wrote it, or a newer one"
    )]
    Version {
        /// The entry.
        name: String,
        /// Its version.
        version: u64,
    },
    /// Another process writes this log's part of the archive, since this one opened it.
    #[error(
        "another emberd archives the log {log}: a data directory was copied, or is served twice; end one of the two. Opening the archive again takes it over"
    )]
    Taken {
        /// The log.
        log: String,
    },
    /// A commit that does not begin at the cursor.
    #[error("a commit of {from}..{to}, where the archive goes on from {cursor}: go there, with its book")]
    Cursor {
        /// Where the archive goes on.
        cursor: u64,
        /// Where the commit begins.
        from: u64,
        /// Where it ends.
        to: u64,
    },
    /// A commit that breaks a bound: a fault of the program.
    #[error("not a commit: {what}")]
    Bound {
        /// Which.
        what: &'static str,
    },
    /// A file is not what the manifest says, or is not there.
    #[error("{name} is {what}: `emberd archive verify` tells of all such files; put it back from a backup")]
    File {
        /// The file.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A file could not be merged with others, or rewritten.
    #[error("cannot rewrite {name}")]
    Rows {
        /// The (first) file.
        name: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// What came of merging or rewriting files has another number of rows than it must have.
    #[error("{was} rows became {is} while {name} was rewritten: nothing was changed")]
    Count {
        /// The (first) file.
        name: String,
        /// How many there were.
        was: u64,
        /// How many there are.
        is: u64,
    },
}
