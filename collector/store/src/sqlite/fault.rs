//! What SQLite's errors mean for us.

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY;

use crate::fault::Fault;

/// Sorts an error of the writer.
pub(crate) fn fault(error: rusqlite::Error) -> Fault {
    let (kind, extended) = match &error {
        rusqlite::Error::SqliteFailure(failure, _) => (failure.code, failure.extended_code),
        _ => return Fault::Refused { source: error.into() },
    };
    let source = Box::new(error);
    match kind {
        // A prompt or a profile went away between look-up and write: look up again.
        ErrorCode::ConstraintViolation if extended == SQLITE_CONSTRAINT_FOREIGNKEY => Fault::Contended { source },
        ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch => {
            Fault::Data { code: extended.to_string(), source }
        }
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted
        | ErrorCode::ReadOnly => Fault::Unavailable { source },
        _ => Fault::Refused { source },
    }
}

/// Sorts an error of a reader.
pub(crate) fn read_fault(error: sqlx::Error) -> Fault {
    const BUSY: u32 = 5;
    const FULL: u32 = 13;
    let primary = match &error {
        sqlx::Error::Database(database) => {
            database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff)
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => Some(BUSY),
        _ => None,
    };
    match primary {
        // Busy, locked, out of memory, read-only, interrupted, I/O, (corrupt, not found,) full: 5 to 13 but for two.
        Some(BUSY..=10 | FULL) => Fault::Unavailable { source: error.into() },
        _ => Fault::Refused { source: error.into() },
    }
}
