//! What can go wrong with a database, sorted by what the caller does about it.

use emberd_model::Offset;

/// The database's own error, kept whole.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A statement did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, is stopping, read-only, full or overloaded: the same call may succeed later.
    #[error("the database is unavailable")]
    Unavailable {
        /// What the database or the way to it said.
        #[source]
        source: Source,
    },
    /// It answers, and refuses: a missing table, a missing right, a damaged file. Someone has to look.
    #[error("the database refuses")]
    Refused {
        /// What the database said.
        #[source]
        source: Source,
    },
    /// A paging cursor that this store did not give out.
    #[error("not a cursor of this list")]
    BadCursor,
}

/// A recording was not applied; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The cursor does not stand where the recording begins: someone else recorded it, or the database went back in time.
    /// Seek to `found` (to the start of the log where it is none) and go on from there.
    #[error("the cursor stands at {found:?}, not at {expected}")]
    CursorConflict {
        /// Where the recording begins.
        expected: Offset,
        /// Where the cursor stands; none if the database has no such cursor.
        found: Option<Offset>,
    },
    /// The database refuses a value in the recording: halve `states` (with `to` = `from` for the first half) until the one that
    /// does it is alone.
    #[error("the database refuses a value ({code})")]
    Data {
        /// SQLSTATE, or SQLite's extended result code.
        code: String,
        /// What the database said.
        #[source]
        source: Source,
    },
    /// See [`Error::Unavailable`]. Whether a commit that was under way took place is not known: the cursor will tell.
    #[error("the database is unavailable")]
    Unavailable {
        /// What the database or the way to it said.
        #[source]
        source: Source,
    },
    /// See [`Error::Refused`]. Trying again with the same recording is right, once someone has looked.
    #[error("the database refuses")]
    Refused {
        /// What the database said.
        #[source]
        source: Source,
    },
}

/// A prompt was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreatePromptError {
    /// The table `prompts` was there before emberd: its owner makes prompts.
    #[error("the prompts table is not emberd's")]
    NotOurs,
    /// `created_by` names no profile.
    #[error("no such profile")]
    NoSuchProfile,
    /// The database did not do it.
    #[error(transparent)]
    Database(#[from] Error),
}

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// See [`crate::config::UnknownUrl`].
    #[error(transparent)]
    Url(#[from] crate::config::UnknownUrl),
    /// The URL is one of PostgreSQL's, and wrong; or the file cannot be opened.
    #[error("cannot open the database")]
    Open {
        /// What the driver said.
        #[source]
        source: Source,
    },
}

/// The schema was not brought to where it should be.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A step that this binary does not have was applied: a newer emberd was here. Nothing may be written.
    #[error("the schema has step {version}, which this emberd does not know: it is older than the database")]
    Newer {
        /// The step.
        version: i64,
    },
    /// Steps are missing: `migrate up` first.
    #[error("the schema is at step {applied}, and this emberd needs {needed}: run migrate up")]
    Older {
        /// The last step applied; 0 for none.
        applied: i64,
        /// The last step there is.
        needed: i64,
    },
    /// There is no such step to go down to.
    #[error("no step {version} to go down to")]
    NoSuchStep {
        /// What was asked for.
        version: i64,
    },
    /// An applied step is not the one that this binary has under its number.
    #[error("step {version} was changed after it was applied")]
    Changed {
        /// The step.
        version: i64,
    },
    /// A step failed; it was rolled back, those before it stay.
    #[error("step {version} failed")]
    Step {
        /// The step.
        version: i64,
        /// What the database said.
        #[source]
        source: Source,
    },
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] Error),
}
