//! A copy of an SQLite file while others write to it.
//!
//! Promise: the copy is the file as it was at one moment, page for page, between two transactions; whoever writes meanwhile does not wait.
//! Their write-ahead log grows for as long as this takes.
//! Kept by: `tests::examine::a_copy_is_of_one_moment`.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::error::Error;
use crate::sqlite;

/// Pages between two words of progress.
const STEP: std::ffi::c_int = 4_096;
/// How long another's lock is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// Copies the file `from` to `to`, which is not there yet. `progress` hears pages done, and of how many. The copy is in the system's hands
/// when this returns: who needs it on the disk syncs it.
pub async fn file(from: &Path, to: &Path, progress: impl FnMut(u64, u64) + Send + 'static) -> Result<(), Error> {
    let (from, to) = (from.to_owned(), to.to_owned());
    let copied = tokio::task::spawn_blocking(move || copy(&from, &to, progress)).await;
    match copied {
        Ok(done) => done.map_err(|error| sqlite::fault(error).into()),
        Err(died) => Err(Error::Unavailable { source: died.into() }),
    }
}

fn copy(from: &Path, to: &Path, mut progress: impl FnMut(u64, u64)) -> rusqlite::Result<()> {
    // For writing: one that may only read cannot make the files that it shares with writers.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags)?;
    source.busy_timeout(BUSY)?;
    // A transaction that has read holds its moment: without it the copy would begin anew with each write of another's.
    source.execute_batch("BEGIN")?;
    source.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    let mut target = Connection::open(to)?;
    {
        let backup = Backup::new(&source, &mut target)?;
        loop {
            let done = backup.step(STEP)?;
            let pages = backup.progress();
            let all = u64::try_from(pages.pagecount).unwrap_or(0);
            progress(all.saturating_sub(u64::try_from(pages.remaining).unwrap_or(0)), all);
            match done {
                StepResult::Done => break,
                StepResult::More => (),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    // One file, without a log beside it; whoever opens it for writing turns to one again.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    drop(target);
    source.execute_batch("ROLLBACK")
}
