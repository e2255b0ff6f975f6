//! What PostgreSQL's errors mean for us.

use crate::fault::Fault;

/// Sorts an error by its SQLSTATE class; see PostgreSQL's manual, appendix A.
pub(crate) fn fault(error: sqlx::Error) -> Fault {
    let code = match &error {
        sqlx::Error::Database(database) => database.code().map(|code| code.into_owned()),
        _ => None,
    };
    let source = Box::new(error);
    match code.as_deref() {
        // A prompt or a profile went away between look-up and write: look up again.
        Some("40001" | "40P01" | "23503") => Fault::Contended { source },
        Some(code) if is_refused_value(code) => Fault::Data { code: code.to_owned(), source },
        Some(code) if is_passing(code) => Fault::Unavailable { source },
        Some(_) => Fault::Refused { source },
        None if is_ours(&source) => Fault::Refused { source },
        None => Fault::Unavailable { source },
    }
}

/// Data exceptions, violated constraints, program limits.
fn is_refused_value(code: &str) -> bool {
    ["22", "23", "54"].iter().any(|class| code.starts_with(class))
}

/// Connection, resources, locks, operator intervention, system errors, a read-only server.
fn is_passing(code: &str) -> bool {
    ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class)) || code == "25006"
}

/// Errors of the statement or of reading its answer, which no waiting heals.
fn is_ours(error: &sqlx::Error) -> bool {
    use sqlx::Error::{
        ColumnDecode, ColumnIndexOutOfBounds, ColumnNotFound, Decode, Encode, RowNotFound, TypeNotFound,
    };
    matches!(
        error,
        ColumnDecode { .. }
            | ColumnIndexOutOfBounds { .. }
            | ColumnNotFound(_)
            | Decode(_)
            | Encode(_)
            | RowNotFound
            | TypeNotFound { .. }
            | sqlx::Error::Configuration(_)
    )
}
