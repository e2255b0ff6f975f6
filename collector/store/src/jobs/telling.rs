//! What telling Phoenix of a job needs: its targets with what was run on them, and a place for why Phoenix refused.

use emberd_model::UnixNanos;
use serde_json::Value;
use uuid::Uuid;

use super::plan::Target;
use crate::error::Error;
use crate::fault::Fault;
use crate::moment::Moment;
use crate::sql::{Line, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// Targets in one answer.
const TARGETS_MAX: u32 = 10_000;

/// A target, with what the run step gave.
#[derive(Clone, Debug, PartialEq)]
pub struct RunTarget {
    /// The target.
    pub target: Target,
    /// What the run step gave; none where nothing was run, or it failed.
    pub output: Option<Value>,
}

impl Store {
    /// A job's targets by number, from `from` on; `limit` is kept within 10 000.
    pub async fn targets(&self, job: Uuid, from: i64, limit: u32) -> Result<Vec<RunTarget>, Error> {
        let sql =
            "SELECT nr, target, body, output FROM emberd.job_targets WHERE job = $1 AND nr >= $2 ORDER BY nr LIMIT $3";
        let read = |line: &Line| {
            let target = Target { nr: line.int(0)?, target: line.text(1)?, body: line.json(2)? };
            Ok(RunTarget { target, output: line.maybe_json(3)? })
        };
        let lines = self.lines(sql, &binds![job, from, i64::from(limit.min(TARGETS_MAX))]).await?;
        Ok(lines.iter().map(read).collect::<Result<_, Fault>>()?)
    }

    /// Adds a sentence to an evaluation's `error`, once. False: it stands there already, or there is no such row.
    pub async fn note_evaluation(&self, id: Uuid, note: &str, now: UnixNanos) -> Result<bool, Error> {
        Ok(self.run(Note { id, note: crate::text::without_nul(note).into_owned(), now }).await?)
    }
}

struct Note {
    id: Uuid,
    note: String,
    now: UnixNanos,
}

impl Work for Note {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = "SELECT error FROM public.prompt_evaluations WHERE id = $1";
        let Some(line) = tx.query(sql, &binds![self.id]).await?.pop() else { return Ok(false) };
        let before = line.maybe_text(0)?.unwrap_or_default();
        if before.contains(&self.note) {
            return Ok(false);
        }
        let error = if before.is_empty() { self.note.clone() } else { format!("{before}; {}", self.note) };
        let sql = "UPDATE public.prompt_evaluations SET error = $2, updated_at = $3 WHERE id = $1";
        Ok(tx.execute(sql, &binds![self.id, &error, Moment::from(self.now)]).await? == 1)
    }
}
