//! Why a transaction did not go through, sorted by what is done about it here.

use emberd_model::Offset;

use crate::error::{Error, RecordError, Source};

/// A transaction failed, and was rolled back.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The cursor stands elsewhere.
    Cursor { expected: Offset, found: Option<Offset> },
    /// Another writer was there first (a version moved on, a prompt went away, a deadlock was broken): try again at once.
    Contended { source: Source },
    /// A value is refused.
    Data { code: String, source: Source },
    /// Try again later.
    Unavailable { source: Source },
    /// Someone has to look.
    Refused { source: Source },
}

/// Another writer changed a trace between our load and our write.
#[derive(Debug, thiserror::Error)]
#[error("another writer changed a trace of the batch")]
pub(crate) struct VersionMoved;

/// What is stored cannot be what was written.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {of} cannot be read")]
pub(crate) struct Damaged {
    pub(crate) what: &'static str,
    pub(crate) of: String,
}

impl Fault {
    pub(crate) fn contended() -> Self {
        Self::Contended { source: VersionMoved.into() }
    }

    pub(crate) fn damaged(what: &'static str, of: impl ToString) -> Self {
        Self::Refused { source: Damaged { what, of: of.to_string() }.into() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Contended { source } | Fault::Unavailable { source } => Self::Unavailable { source },
            Fault::Data { source, .. } | Fault::Refused { source } => Self::Refused { source },
            Fault::Cursor { .. } => Self::Refused { source: "a cursor moved where none is moved".into() },
        }
    }
}

impl From<Fault> for RecordError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Cursor { expected, found } => Self::CursorConflict { expected, found },
            Fault::Data { code, source } => Self::Data { code, source },
            Fault::Contended { source } | Fault::Unavailable { source } => Self::Unavailable { source },
            Fault::Refused { source } => Self::Refused { source },
        }
    }
}
